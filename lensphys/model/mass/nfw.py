"""The NFW halo."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lensphys.model.component import CORE, MassProfile, Value, as_planes, offset
from lensphys.model.parameter import GALAXY_CENTRE, Parameter

_NEAR = 0.05  # |1 - x^2| below which the series stands in for the two branches
_TERMS = 9


def deflection_nfw(theta: Tensor, Rs: Value, alpha_Rs: Value, center_x: Value = 0.0, center_y: Value = 0.0) -> Tensor:
    """Return the deflection of a spherical NFW halo.

    Args:
        theta: (B or 1, 2, H, W) [arcsec].
        Rs: scale radius [arcsec].
        alpha_Rs: deflection at Rs [arcsec].
        center_x: [arcsec].
        center_y: [arcsec].

    Returns:
        (B, 2, H, W) [arcsec].

    Source: Bartelmann 1996; Wright & Brainerd 2000, eq. 13; lenstronomy ``NFW``.
    """
    x, y = offset(theta, center_x, center_y)
    Rs = as_planes(Rs, theta)
    r = (x**2 + y**2 + CORE**2).sqrt()
    scale = as_planes(alpha_Rs, theta) / (Rs * (1 - math.log(2))) * nfw_functions(r / Rs)[1]
    return torch.stack([scale * x, scale * y], dim=1)


def nfw_functions(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return F = arccosh(1/x) / sqrt(1 - x^2), and (ln(x/2) + F) / x^2, to the last digits at every x > 0.

    The second is the mass inside x over x^2. Both have the shape of x = R / Rs, and no unit.
    """
    square = (1 - x) * (1 + x)
    near, inside = square.abs() < _NEAR, square >= _NEAR
    # each branch sees only positions that are its own: its gradient is finite where it is not used
    a = torch.where(inside, x, torch.full_like(x, 0.5))
    y = ((1 - a) * (1 + a)).sqrt()
    below = torch.log((1 + y) / a) / y
    below_sum = torch.log(2 / a) / (y * (1 + y)) + torch.log1p(-(a**2) / (2 * (1 + y))) / (a**2 * y)
    b = torch.where(square <= -_NEAR, x, torch.full_like(x, 2.0))
    y = ((b - 1) * (b + 1)).sqrt()
    above = torch.atan(y) / y
    s = torch.where(near, square, torch.zeros_like(x))
    at_one = torch.zeros_like(x)
    for n in range(_TERMS, -1, -1):
        at_one = at_one * s + 1 / (2 * n + 1)
    F = torch.where(near, at_one, torch.where(inside, below, above))
    outer = torch.where(inside, torch.ones_like(x), x)
    return F, torch.where(inside, below_sum, (torch.log(outer / 2) + F) / outer**2)


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
