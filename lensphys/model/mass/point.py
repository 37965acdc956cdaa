"""Point masses: one, or a swarm of softened ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lensphys.basics.checks import check_images
from lensphys.model.component import CORE, MassProfile, Named, Value, as_planes, check_one, offset
from lensphys.model.parameter import ANYWHERE, Parameter


def deflection_point(theta: Tensor, theta_E: Value, center_x: Value = 0.0, center_y: Value = 0.0) -> Tensor:
    """Return the deflection of a point mass, theta_E^2 / r r_hat, within 1e-6" of it softened.

    Args:
        theta: (B or 1, 2, H, W) [arcsec].
        theta_E: Einstein radius [arcsec].
        center_x: [arcsec].
        center_y: [arcsec].

    Returns:
        (B, 2, H, W) [arcsec].

    Source: lenstronomy ``POINT_MASS``.
    """
    x, y = offset(theta, center_x, center_y)
    scale = as_planes(theta_E, theta) ** 2 / (x**2 + y**2 + CORE**2)
    return torch.stack([scale * x, scale * y], dim=1)


def deflection_points(theta: Tensor, strength: Tensor, center_x: Tensor, center_y: Tensor, core: float) -> Tensor:
    """Return the deflection of a swarm of softened point masses, sum_k s_k d_k / (|d_k|^2 + core^2).

    Args:
        theta: (B or 1, 2, H, W) [arcsec].
        strength: theta_E^2 of each, (B, K) [arcsec^2].
        center_x: (B, K) [arcsec].
        center_y: (B, K) [arcsec].
        core: [arcsec].

    Returns:
        (B, 2, H, W) [arcsec].
    """
    check_images("theta", theta, channels=2)
    total = theta.new_zeros(len(strength), *theta.shape[1:])
    for k in range(strength.shape[1]):  # one body at a time: memory does not grow with their number
        x, y = offset(theta, center_x[:, k], center_y[:, k])
        scale = as_planes(strength[:, k], theta) / (x**2 + y**2 + core**2)
        total = total + torch.stack([scale * x, scale * y], dim=1)
    return total


@dataclass(frozen=True)
class PointMass(MassProfile):
    """Point mass: see `deflection_point`.

    Args:
        theta_E: Einstein radius [arcsec].
        center_x: [arcsec].
        center_y: [arcsec].

    Example:
        >>> ax, ay = PointMass(theta_E=0.1).deflection(0.5, 0.0)  # arcsec
        >>> ax.round(4).item(), ay.round(4).item()
        (0.02, 0.0)
    """

    theta_E: Value
    center_x: Value = 0.0
    center_y: Value = 0.0
    formula = staticmethod(deflection_point)
    lenstronomy = "POINT_MASS"
    parameters = (
        Parameter("theta_E", "arcsec", 1e-4, 1.0, 0.03, 1.5, logarithmic=True),
        *ANYWHERE,
    )

    def psi(self, theta: Tensor) -> Tensor:
        """Return the potential theta_E^2 ln r, (B, 1, H, W) [arcsec^2], r in arcsec."""
        r2 = self.from_centre(theta).square().sum(1, keepdim=True) + CORE**2
        return 0.5 * as_planes(self.theta_E, theta)[:, None] ** 2 * r2.log()


@dataclass(frozen=True)
class PointSwarm(MassProfile):
    """Softened point masses, any number a lens: see `deflection_points`. What a sub-halo looks like from afar.

    Args:
        strength: theta_E^2 of each, (B, K) [arcsec^2].
        center_x: (B, K) [arcsec].
        center_y: (B, K) [arcsec].
        core: radius within which the deflection is softened [arcsec].
    """

    strength: Tensor
    center_x: Tensor
    center_y: Tensor
    core: float = CORE
    formula = staticmethod(deflection_points)

    def to_lenstronomy(self) -> list[Named]:
        """Return the points in lenstronomy's words, of one lens: without their softening."""
        check_one("the points are", len(self.strength))
        one = (self.strength, self.center_x, self.center_y)
        points = zip(*(values[0].tolist() for values in one), strict=True)
        return [named for s, x, y in points for named in PointMass(s**0.5, x, y).to_lenstronomy()]

    def psi(self, theta: Tensor) -> Tensor:
        """Return the sum of the potentials s_k / 2 ln(r_k^2 + core^2), (B, 1, H, W) [arcsec^2], r in arcsec."""
        total = theta.new_zeros(len(self.strength), *theta.shape[2:])
        for k in range(self.strength.shape[1]):
            x, y = offset(theta, self.center_x[:, k], self.center_y[:, k])
            total = total + 0.5 * as_planes(self.strength[:, k], theta) * torch.log(x**2 + y**2 + self.core**2)
        return total[:, None]
