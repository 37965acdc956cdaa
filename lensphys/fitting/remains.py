"""What a fit leaves of its images, and where the arcs and the sky are: what every judgement of a fit looks at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from lensphys.fitting.problem import LensProblem
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
        shown = problem.shown(fitted.x)
        scale = problem.inflation.clamp(max=1)[:, None, None, None]  # of a map that is too large
        sigma = (observation.noise.variance(shown) * scale).sqrt()
        residual = (observation.image - observation.noise.expected(shown)) / sigma * observation.weight
        clean = problem.without_front(shown, fitted.x)
        return cls(fitted, residual, clean, (clean * problem.inverse_sigma > 1).to(clean) * observation.weight)

    @property
    def sky(self) -> Tensor:
        """1 where pixels count and no arc is near, (B, 1, H, W)."""
        return (self.residual != 0) * (1 - max_pool2d(self.arc, 2 * NEAR + 1, stride=1, padding=NEAR))


def sky_noise(
    problem: LensProblem, x: Tensor, bright: float, overstated: float, unlike: float, sigma: float = 3.0
) -> Tensor:
    """Return how many times as large as the error map says the variance of 3 x 3 means of the sky is, (B,).

    Drizzled and resampled images have noise that neighbours share: what is looked for, larger than a pixel, stands out
    of it less than the error map says. Other maps are too large. 1 where the excess is within its own scatter.

    Args:
        problem: images and noise.
        x: a smooth fit.
        bright: signal-to-noise of a 3 x 3 mean that makes a pixel bright; neither those nor their neighbours are sky.
        overstated: where it is below this the map is called too large; above it and below 1 it counts as right.
        unlike: where it is below this the map is of another thing, and left to the verdict.
        sigma: by how much of its own scatter the variance must exceed that of white noise.
    """
    observation = problem.observation
    shown = problem.shown(x)
    residual = (observation.image - observation.noise.expected(shown)) * problem.inverse_sigma
    lensed = problem.without_front(shown, x)
    light = torch.maximum(problem.arcs.significance(problem.inverse_sigma), 3 * lensed * problem.inverse_sigma)
    sky = (1 - max_pool2d((light > bright).to(residual), 9, stride=1, padding=4)) * (problem.inverse_sigma > 0)
    whole = (avg_pool2d(sky, 3, stride=1) > 0.999).to(residual)
    means = 9 * avg_pool2d(residual * sky, 3, stride=1).square() * whole
    counted = whole.sum((1, 2, 3))
    factor = means.sum((1, 2, 3)) / counted.clamp(min=1)
    too_large = (factor < overstated) & (factor > unlike)
    wrong = (factor - 1 > sigma * (18 / counted.clamp(min=1)).sqrt()) | too_large
    return torch.where(wrong & (counted > 100), factor, 1.0)


def poor(fitted: Fitted) -> Tensor:
    """Return which images the model leaves more of than the noise allows, (B,), by chi^2."""
    return significant(fitted.problem, fitted.problem.chi2(fitted.x))


def left_over(fitted: Fitted) -> bool:
    """Return whether one image's model leaves more than its sky does, where that has less noise than the map says.

    Without an inflation of the noise: a galaxy that is not fitted looks like noise that neighbours share.
    """
    problem, x = fitted.problem, fitted.x
    residual = problem.residual(x)[problem.inverse_sigma.flatten(1) > 0].abs()
    sky = (1.4826 * residual.median()).square().clamp(max=1.0)  # of a Gaussian with this median: most pixels are sky
    return bool(significant(problem, problem.chi2(x) / sky * problem.inflation))


def significant(problem: LensProblem, chi2: Tensor, sigma: float = 3.0) -> Tensor:
    """Return which values (B,) of chi^2 per unmasked pixel stand ``sigma`` out of the scatter of pure noise, (B,)."""
    return chi2 - 1 > sigma * (2 / problem.observation.n_unmasked).sqrt()
