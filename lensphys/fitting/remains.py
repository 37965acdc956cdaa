"""What a fit leaves of its images, and where the arcs and the sky are: what every judgement of a fit looks at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from lensphys.basics.scatter import GAUSSIAN
from lensphys.fitting.source import Fitted
from lensphys.model import centre_of

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
    def values(self) -> dict[str, Tensor]:
        """The named parameters of the fits, each (B,)."""
        return self.fitted.problem.values(self.fitted.x)

    @property
    def sky(self) -> Tensor:
        """1 where pixels count and no arc is near, (B, 1, H, W)."""
        return (self.residual != 0) * (1 - max_pool2d(self.arc, 2 * NEAR + 1, stride=1, padding=NEAR))

    def middle(self, share: float) -> Tensor:
        """Return 1 where pixels count and are nearer to the lens than so many Einstein radii, (B, 1, H, W).

        No bright image of the source can be there.
        """
        problem = self.fitted.problem
        name, grid = problem.model.main, problem.observation.camera.grid
        radius = share * self.values.get(f"{name}.theta_E", torch.full_like(problem.unit, 4 * grid.scale))
        away = problem.positions(grid) - centre_of(self.values, name)[:, :, None, None]
        near = away.norm(dim=1, keepdim=True) < radius[:, None, None, None]
        return near.to(self.clean) * problem.observation.weight

    def left_in(self, where: Tensor) -> Tensor:
        """Return what is left in some pixels (B, 1, H, W), in sigma of their sum, (B,)."""
        return (self.residual * where).sum((1, 2, 3)) / where.sum((1, 2, 3)).clamp(min=1).sqrt()


def poor(fitted: Fitted) -> Tensor:
    """Return which images the model leaves more of than the noise allows, (B,), by chi^2."""
    return significant(fitted.problem.chi2(fitted.x), fitted.problem.observation.n_unmasked)


def astray(fitted: Fitted, edge: float) -> bool:
    """Return whether the main lens of one image stands at a bound: what is fitted is no lens, and has no sub-halos.

    Args:
        fitted: the fit of one image.
        edge: share of the range of a parameter next to a bound that counts as the bound.
    """
    main = f"{fitted.problem.model.main}."
    return any(name.startswith(main) for name in fitted.problem.at_bounds(fitted.x, edge)[0])


def left_over(fitted: Fitted) -> bool:
    """Return whether one image's model leaves more than its sky does, where that has less noise than the map says.

    Without an inflation of the noise: a galaxy that is not fitted looks like noise that neighbours share.
    """
    problem, x = fitted.problem, fitted.x
    residual = problem.residual(x)[problem.inverse_sigma.flatten(1) > 0].abs()
    sky = (GAUSSIAN * residual.median()).square().clamp(max=1.0)  # of a Gaussian with this median: most pixels are sky
    return bool(significant(problem.chi2(x) / sky * problem.inflation, problem.observation.n_unmasked))


def explains_little(left: float, before: float, share: float) -> bool:
    """Return whether chi^2 per pixel falls by less than a share of what is too much of it.

    Example:
        >>> explains_little(5.0, before=5.3, share=0.5), explains_little(5.0, before=30.0, share=0.5)
        (True, False)
    """
    return before - left < share * (before - 1)


def significant(chi2: Tensor, freedom: Tensor, sigma: float | Tensor = 3.0) -> Tensor:
    """Return which values (B,) of chi^2 per degree of freedom stand ``sigma`` out of the scatter of pure noise, (B,).

    Args:
        chi2: (B,).
        freedom: how many degrees of freedom, (B,).
        sigma: of the scatter, a number or (B,).
    """
    return chi2 - 1 > sigma * (2 / freedom).sqrt()
