"""The deflection field: what analytic profiles and networks both yield."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lensphys.basics.checks import check_images, check_same_shape
from lensphys.tracing import derivatives
from lensphys.tracing.critical import determinant
from lensphys.tracing.grid import PixelGrid, cartesian_from_polar, polar_from_cartesian


@dataclass(frozen=True)
class DeflectionField:
    """A reduced deflection angle on a pixel grid, and all that follows from it.

    Args:
        alpha: (B, 2, H, W) [arcsec], channel 0 = x.
        grid: the pixels that ``alpha`` stands on.
        centre: (B, 2) [arcsec], the centre of the radial/tangential view; the origin if None.
        formula: theta (1, 2, H', W') [arcsec] -> alpha [arcsec], where the field is known analytically: then it is
            exact at every resolution; else it is interpolated.

    Raises:
        LensphysError: if ``alpha`` is not a vector field on ``grid``.

    Example:
        >>> from lensphys.model import SIS
        >>> field = DeflectionField.from_lens(SIS(theta_E=1.0), PixelGrid(32, 32, 0.1))
        >>> bool((field.radial - 1).abs().max() < 1e-3)
        True
    """

    alpha: Tensor
    grid: PixelGrid
    centre: Tensor | None = None
    formula: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        check_images("alpha", self.alpha, channels=2)
        check_same_shape("alpha", self.alpha.shape[-2:], "grid", self.grid.shape)

    @classmethod
    def from_lens(
        cls,
        formula: Callable[[Tensor], Tensor],
        grid: PixelGrid,
        *,
        like: Tensor | None = None,
        centre: Tensor | None = None,
    ) -> DeflectionField:
        """Return the field of a mass profile (any theta -> alpha [arcsec]) on a grid; dtype and device of ``like``."""
        return cls(formula(grid.positions(like=like)), grid, centre, formula)

    @classmethod
    def from_polar(
        cls, radial: Tensor, tangential: Tensor, grid: PixelGrid, centre: Tensor | None = None
    ) -> DeflectionField:
        """Return the field alpha_r r_hat + alpha_t t_hat from its two parts, each (B, 1, H, W) [arcsec]."""
        check_images("radial", radial)
        check_same_shape("radial", radial.shape, "tangential", tangential.shape)
        return cls(cartesian_from_polar(radial, tangential, grid.positions(like=radial), centre), grid, centre)

    def deflection(self, theta: Tensor) -> Tensor:
        """Return alpha (B, 2, H', W') [arcsec] at any positions (B or 1, 2, H', W') [arcsec].

        Exact where a formula is known, else bicubic. The polar parts are interpolated because they are smooth at the
        centre of the lens, where alpha itself jumps.
        """
        if self.formula is not None:
            return self.formula(theta)
        radial, tangential = (
            self.grid.sample(part, theta, mode="bicubic", padding="border") for part in (self.radial, self.tangential)
        )
        return cartesian_from_polar(radial, tangential, theta, self.centre)

    def at(self, grid: PixelGrid) -> DeflectionField:
        """Return the same field on another grid: see `deflection`."""
        if grid == self.grid:
            return self
        alpha = self.deflection(grid.positions(like=self.alpha))
        return DeflectionField(alpha, grid, self.centre, self.formula)

    def plus(self, formula: Callable[[Tensor], Tensor]) -> DeflectionField:
        """Return the field with the deflection of a mass profile (any theta -> alpha [arcsec]) added."""
        own = self.formula
        total = None if own is None else (lambda theta: own(theta) + formula(theta))
        return DeflectionField(self.alpha + formula(self.theta), self.grid, self.centre, total)

    @property
    def theta(self) -> Tensor:
        """Image-plane positions, (1, 2, H, W) [arcsec]."""
        return self.grid.positions(like=self.alpha)

    @property
    def beta(self) -> Tensor:
        """Source-plane positions theta - alpha, (B, 2, H, W) [arcsec]."""
        return self.theta - self.alpha

    @property
    def radial(self) -> Tensor:
        """Radial part alpha_r, (B, 1, H, W) [arcsec]."""
        return polar_from_cartesian(self.alpha, self.theta, self.centre)[0]

    @property
    def tangential(self) -> Tensor:
        """Tangential part alpha_t, (B, 1, H, W) [arcsec]."""
        return polar_from_cartesian(self.alpha, self.theta, self.centre)[1]

    @property
    def kappa(self) -> Tensor:
        """Convergence 1/2 div alpha, (B, 1, H, W), by finite differences."""
        return 0.5 * derivatives.divergence(self.alpha, self.grid.scale)

    @property
    def shear(self) -> Tensor:
        """Shear (gamma1, gamma2), (B, 2, H, W): 1/2 (a_xx - a_yy) and 1/2 (a_xy + a_yx) of alpha's Jacobian."""
        j = derivatives.jacobian(self.alpha, self.grid.scale)
        return 0.5 * torch.stack([j[:, 0, 0] - j[:, 1, 1], j[:, 0, 1] + j[:, 1, 0]], dim=1)

    @property
    def curl(self) -> Tensor:
        """Curl of alpha, (B, 1, H, W): zero for the gradient of a potential."""
        return derivatives.curl(self.alpha, self.grid.scale)

    @property
    def magnification(self) -> Tensor:
        """Magnification 1 / det(1 - d alpha / d theta), (B, 1, H, W), signed; infinite on critical curves."""
        return 1 / determinant(derivatives.jacobian(self.alpha, self.grid.scale))[:, None]
