"""External shear: what all the mass elsewhere does."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lensphys.model.component import MassProfile, Value, as_planes, offset
from lensphys.model.parameter import HalfWidths, Parameter


def deflection_shear(
    theta: Tensor, gamma1: Value, gamma2: Value, center_x: Value = 0.0, center_y: Value = 0.0
) -> Tensor:
    """Return the deflection of an external shear, (gamma1 x + gamma2 y, gamma2 x - gamma1 y)."""
    x, y = offset(theta, center_x, center_y)
    g1, g2 = as_planes(gamma1, theta), as_planes(gamma2, theta)
    return torch.stack([g1 * x + g2 * y, g2 * x - g1 * y], dim=1)


@dataclass(frozen=True)
class Shear(MassProfile):
    """External shear: see `deflection_shear`."""

    gamma1: Value
    gamma2: Value
    center_x: Value = 0.0
    center_y: Value = 0.0
    formula = staticmethod(deflection_shear)
    lenstronomy = "SHEAR"
    strengths = ("gamma1", "gamma2")
    at_origin = True
    about_lens = True
    parameters = (
        Parameter("gamma1", "", -0.4, 0.4, 0.0, 0.1),
        Parameter("gamma2", "", -0.4, 0.4, 0.0, 0.1),
        Parameter("center_x", "arcsec", HalfWidths(-0.25), HalfWidths(0.25), 0.0, 0.1),
        Parameter("center_y", "arcsec", HalfWidths(-0.25), HalfWidths(0.25), 0.0, 0.1),
    )
