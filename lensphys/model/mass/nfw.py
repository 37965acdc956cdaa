"""The NFW halo."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lensphys.model.component import CORE, MassProfile, Value, as_planes, offset
from lensphys.model.parameter import GALAXY_CENTRE, Parameter


def deflection_nfw(theta: Tensor, Rs: Value, alpha_Rs: Value, center_x: Value = 0.0, center_y: Value = 0.0) -> Tensor:
    """Return the deflection of a spherical NFW halo.

    Args:
        theta: (B or 1, 2, H, W) [arcsec].
        Rs: scale radius [arcsec].
        alpha_Rs: deflection at Rs [arcsec].
        center_x: [arcsec].
        center_y: [arcsec].

    Source: Bartelmann 1996; Wright & Brainerd 2000, eq. 13; lenstronomy ``NFW``.
    """
    x, y = offset(theta, center_x, center_y)
    Rs, alpha_Rs = as_planes(Rs, theta), as_planes(alpha_Rs, theta)
    r = (x**2 + y**2 + CORE**2).sqrt()
    ratio = _nfw_g(r / Rs) / (r / Rs) / (1 + torch.log(torch.as_tensor(0.5, dtype=theta.dtype)))
    return torch.stack([alpha_Rs * ratio * x / r, alpha_Rs * ratio * y / r], dim=1)


def _nfw_g(x: Tensor) -> Tensor:
    """ln(x/2) + arccosh(1/x)/sqrt(1-x^2), in branches that stay finite (and differentiable) where they are not used."""
    near_one, near_zero = (x - 1).abs() < 1e-2, x < 1e-3
    inside, outside = x.clamp(1e-3, 0.99), x.clamp(min=1.01)
    below = torch.log(inside / 2) + torch.acosh(1 / inside) / (1 - inside**2).sqrt()
    above = torch.log(outside / 2) + torch.acos(1 / outside) / (outside**2 - 1).sqrt()
    d = x - 1
    at_one = torch.log(x / 2) + 1 - 2 * d / 3 + 7 * d**2 / 15 - 12 * d**3 / 35 + 166 * d**4 / 630
    at_zero = -0.5 * x**2 * (torch.log(x / 2) + 0.5)
    return torch.where(near_zero, at_zero, torch.where(near_one, at_one, torch.where(x < 1, below, above)))


@dataclass(frozen=True)
class NFW(MassProfile):
    """Spherical NFW halo: see `deflection_nfw`.

    Args:
        Rs: scale radius [arcsec].
        alpha_Rs: deflection at Rs [arcsec].
        center_x: [arcsec].
        center_y: [arcsec].

    Example:
        >>> ax, ay = NFW(Rs=5.0, alpha_Rs=1.0).deflection(3.0, 4.0)  # arcsec
        >>> ax.round(4).item(), ay.round(4).item()
        (0.6, 0.8)
    """

    Rs: Value
    alpha_Rs: Value
    center_x: Value = 0.0
    center_y: Value = 0.0
    formula = staticmethod(deflection_nfw)
    lenstronomy = "NFW"
    strengths = ("alpha_Rs",)
    parameters = (
        Parameter("Rs", "arcsec", 0.1, 100.0, 10.0, 1.0, logarithmic=True),
        Parameter("alpha_Rs", "arcsec", 1e-3, 100.0, 1.0, 1.5, logarithmic=True),
        *GALAXY_CENTRE,
    )
