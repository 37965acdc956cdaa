"""What a fit leaves of its images, and where the arcs and the sky are: what every judgement of a fit looks at."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import max_pool2d

from lensphys.fitting.source import Fitted

NEAR = 2  # pixels about an arc that are no sky


@dataclass(frozen=True)
class Remains:
    """What is left of images that share a model.

    Args:
        fitted: the fit.
        residual: image less model in units of the noise of the model's pixels, (B, 1, H, W), 0 where masked.
        clean: the model without the light of the lens, (B, 1, H, W) [flux per pixel].
        arc: 1 where the model without the light of the lens is above the noise, (B, 1, H, W).
    """

    fitted: Fitted
    residual: Tensor
    clean: Tensor
    arc: Tensor

    @classmethod
    def from_fit(cls, fitted: Fitted) -> Remains:
        """Return what a fit leaves."""
        problem, observation = fitted.problem, fitted.problem.observation
        shown, front = problem.shown(fitted.x), problem.light_in_front(fitted.x)
        scale = problem.inflation.clamp(max=1)[:, None, None, None]  # of a map that is too large
        sigma = (observation.noise.variance(shown) * scale).sqrt()
        residual = (observation.image - observation.noise.expected(shown)) / sigma * observation.weight
        clean = shown if front is None else shown - front
        return cls(fitted, residual, clean, (clean * problem.inverse_sigma > 1).to(clean) * observation.weight)

    @property
    def sky(self) -> Tensor:
        """1 where pixels count and no arc is near, (B, 1, H, W)."""
        return (self.residual != 0) * (1 - max_pool2d(self.arc, 2 * NEAR + 1, stride=1, padding=NEAR))
