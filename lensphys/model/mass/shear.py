"""External shear: what all the mass elsewhere does."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lensphys.model.component import Named, ScaleFree, Value, as_planes, offset
from lensphys.model.parameter import GALAXY_CENTRE, Parameter


def deflection_shear(
    theta: Tensor, gamma1: Value, gamma2: Value, center_x: Value = 0.0, center_y: Value = 0.0
) -> Tensor:
    """Return the deflection of an external shear, (gamma1 x + gamma2 y, gamma2 x - gamma1 y).

    Args:
        theta: (B or 1, 2, H, W) [arcsec].
        gamma1: along the axes, without unit.
        gamma2: along the diagonals, without unit.
        center_x: where it does not deflect [arcsec].
        center_y: [arcsec].

    Returns:
        (B, 2, H, W) [arcsec].

    Source: lenstronomy ``SHEAR``.
    """
    x, y = offset(theta, center_x, center_y)
    g1, g2 = as_planes(gamma1, theta), as_planes(gamma2, theta)
    return torch.stack([g1 * x + g2 * y, g2 * x - g1 * y], dim=1)


def deflection_shear_derivatives(
    theta: Tensor, gamma1: Value, gamma2: Value, center_x: Value = 0.0, center_y: Value = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the deflection of `deflection_shear` and its derivatives by all parameters, (B, 4, 2, H, W).

    By the shear [arcsec], by its centre without unit; arguments as for `deflection_shear`.
    """
    shear = (as_planes(g, theta) for g in (gamma1, gamma2))
    x, y, g1, g2 = torch.broadcast_tensors(*offset(theta, center_x, center_y), *shear)
    columns = [torch.stack(pair, dim=1) for pair in ((x, -y), (y, x), (-g1, -g2), (-g2, g1))]
    return deflection_shear(theta, gamma1, gamma2, center_x, center_y), torch.stack(columns, dim=1)


@dataclass(frozen=True)
class Shear(ScaleFree):
    """External shear: see `deflection_shear`.

    Args:
        gamma1: along the axes, without unit.
        gamma2: along the diagonals, without unit.
        center_x: where it does not deflect [arcsec].
        center_y: [arcsec].

    Example:
        >>> ax, ay = Shear(gamma1=0.05).deflection(2.0, 1.0)  # arcsec
        >>> ax.round(4).item(), ay.round(4).item()
        (0.1, -0.05)
    """

    gamma1: Value = 0.0
    gamma2: Value = 0.0
    center_x: Value = 0.0
    center_y: Value = 0.0
    formula = staticmethod(deflection_shear)
    closed_form = staticmethod(deflection_shear_derivatives)
    lenstronomy = "SHEAR"
    strengths = ("gamma1", "gamma2")
    at_origin = True
    about_lens = True
    parameters = (
        Parameter("gamma1", "", -0.4, 0.4, 0.0, 0.1, domain=(-1.0, 1.0)),  # of 1 or more it mirrors the whole sky
        Parameter("gamma2", "", -0.4, 0.4, 0.0, 0.1, domain=(-1.0, 1.0)),
        *GALAXY_CENTRE,
    )

    def to_lenstronomy(self) -> list[Named]:
        """Return it in lenstronomy's words: it calls the centre ``ra_0, dec_0``."""
        [(name, values)] = super().to_lenstronomy()
        return [(name, {"ra_0": values.pop("center_x"), "dec_0": values.pop("center_y")} | values)]

    @property
    def power(self) -> Value:
        """Of r with which the potential grows."""
        return 2.0
