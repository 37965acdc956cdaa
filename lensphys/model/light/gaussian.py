"""The elliptical Gaussian: a sum of some with one centre describes the light of any early-type galaxy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lensphys.model.component import LightProfile, Value, as_planes, chosen
from lensphys.model.light.ellipse import Ellipse
from lensphys.model.parameter import ELLIPTICITY, SOURCE_CENTRE, HalfWidths, Parameter, Peaks

_REACH = 6.0  # sigma: beyond them a Gaussian is dark, unless it is very long


def brightness_gaussian(
    position: Tensor,
    amp: Value,
    sigma: Value,
    e1: Value = 0.0,
    e2: Value = 0.0,
    center_x: Value = 0.0,
    center_y: Value = 0.0,
) -> Tensor:
    """Return the surface brightness amp / (2 pi sigma^2) exp(-R^2 / (2 sigma^2)), R as in `brightness_sersic`.

    Args:
        position: (B or 1, 2, H, W) [arcsec].
        amp: total flux [flux].
        sigma: on the intermediate axis sqrt(a b) [arcsec].
        e1: ellipticity (1-q)/(1+q) cos 2 phi, |e| < 1.
        e2: ellipticity (1-q)/(1+q) sin 2 phi.
        center_x: [arcsec].
        center_y: [arcsec].

    Returns:
        (B, 1, H, W) [flux / arcsec^2].

    Source: Emsellem et al. 1994 (A&A 285, 723); lenstronomy ``GAUSSIAN_ELLIPSE``.
    """
    width = as_planes(sigma, position).square()
    falling = torch.exp(-0.5 * Ellipse.at(position, e1, e2, center_x, center_y).radius2 / width)
    return (as_planes(amp, position) / (2 * math.pi * width) * falling)[:, None]


@dataclass(frozen=True)
class Gaussian(LightProfile):
    """Elliptical Gaussian light: see `brightness_gaussian`.

    Args:
        amp: total flux [flux].
        sigma: standard deviation on the intermediate axis [arcsec].
        e1: ellipticity (1 - q) / (1 + q) cos 2 phi, |e| < 1.
        e2: ellipticity (1 - q) / (1 + q) sin 2 phi.
        center_x: [arcsec].
        center_y: [arcsec].

    Example:
        >>> light = Gaussian(amp=2 * math.pi, sigma=1.0)
        >>> light(torch.tensor([0.0, 0.0]).reshape(1, 2, 1, 1)).item()
        1.0
    """

    amp: Value
    sigma: Value
    e1: Value = 0.0
    e2: Value = 0.0
    center_x: Value = 0.0
    center_y: Value = 0.0
    formula = staticmethod(brightness_gaussian)
    lenstronomy = "GAUSSIAN_ELLIPSE"
    parameters = (
        Parameter("amp", "flux", Peaks(1e-8), Peaks(1e6), logarithmic=True),
        Parameter("sigma", "arcsec", 0.003, HalfWidths(2.0), 0.3, 1.0, logarithmic=True),
        *ELLIPTICITY,
        *SOURCE_CENTRE,
    )

    @property
    def half_side(self) -> Tensor:
        """Of the square about its centre that holds its light: 6 sigma, (B,) [arcsec]."""
        return _REACH * torch.as_tensor(self.sigma)

    def derivatives(self, position: Tensor, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Return the brightness and its derivatives in closed form: shapes and units as in `Component.derivatives`."""
        light, width = self(position), as_planes(self.sigma, position)
        ellipse = Ellipse.at(position, self.e1, self.e2, self.center_x, self.center_y)
        plane, steep = light[:, 0], ellipse.radius2 / width.square()
        by_shape = ellipse.slopes(-0.5 * plane / width.square()) if set(names) - {"amp", "sigma"} else [plane] * 4
        columns = [plane / as_planes(self.amp, position), plane * (steep - 2) / width, *by_shape]
        by = {p.name: column[:, None] for p, column in zip(self.parameters, columns, strict=True)}
        return light, chosen(by, names, light)

    @classmethod
    def unit_flux(cls, values: Mapping[str, float]) -> float:
        """Return the total flux with amp = 1: 1."""
        return 1.0
