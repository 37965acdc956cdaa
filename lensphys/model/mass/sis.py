"""The singular isothermal sphere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lensphys.model.component import CORE, ScaleFree, Value, as_planes, offset
from lensphys.model.parameter import GALAXY_CENTRE, HalfWidths, Parameter


def deflection_sis(theta: Tensor, theta_E: Value, center_x: Value = 0.0, center_y: Value = 0.0) -> Tensor:
    """Return the deflection of a singular isothermal sphere, theta_E r_hat.

    Args:
        theta: (B or 1, 2, H, W) [arcsec].
        theta_E: Einstein radius [arcsec].
        center_x: [arcsec].
        center_y: [arcsec].

    Returns:
        (B, 2, H, W) [arcsec].

    Source: Kormann, Schneider & Bartelmann 1994; lenstronomy ``SIS``.
    """
    x, y = offset(theta, center_x, center_y)
    scale = as_planes(theta_E, theta) / (x**2 + y**2 + CORE**2).sqrt()
    return torch.stack([scale * x, scale * y], dim=1)


@dataclass(frozen=True)
class SIS(ScaleFree):
    """Singular isothermal sphere: see `deflection_sis`.

    Args:
        theta_E: Einstein radius [arcsec].
        center_x: [arcsec].
        center_y: [arcsec].

    Example:
        >>> ax, ay = SIS(theta_E=1.5).deflection(3.0, 4.0)  # arcsec
        >>> ax.round(4).item(), ay.round(4).item()
        (0.9, 1.2)
    """

    theta_E: Value
    center_x: Value = 0.0
    center_y: Value = 0.0
    formula = staticmethod(deflection_sis)
    lenstronomy = "SIS"
    galaxy = True
    parameters = (
        Parameter("theta_E", "arcsec", HalfWidths(0.05), HalfWidths(1.0), logarithmic=True),
        *GALAXY_CENTRE,
    )
