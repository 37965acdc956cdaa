"""The Sersic profile: how galaxies shine, to first order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lensphys.model.component import LightProfile, Value, as_planes
from lensphys.model.light.ellipse import Ellipse
from lensphys.model.parameter import SOURCE_CENTRE, HalfWidths, Parameter, Peaks

_REACH = 8.0  # R_sersic: beyond it a Sersic is dark
SMOOTHING = 1e-5  # arcsec: keeps d(R^(1/n))/dR finite at the centre, lenstronomy's own value


_SLOPE, _AT_ZERO, _LEAST_B = 1.9992, -0.3271, 1e-5  # b_n = 1.9992 n - 0.3271, and no smaller


def sersic_b(n_sersic: Tensor) -> Tensor:
    """Return b_n = 1.9992 n - 0.3271, of the shape of ``n_sersic``, which makes R_sersic the half-light radius.

    Source: Capaccioli 1989, for 0.5 < n < 10; lenstronomy uses it too.
    """
    return (_SLOPE * n_sersic + _AT_ZERO).clamp(min=_LEAST_B)


def brightness_sersic(
    beta: Tensor,
    amp: Value,
    R_sersic: Value,
    n_sersic: Value,
    e1: Value = 0.0,
    e2: Value = 0.0,
    center_x: Value = 0.0,
    center_y: Value = 0.0,
) -> Tensor:
    """Return the surface brightness of an elliptical Sersic profile.

    I = amp exp(-b_n ((R / R_sersic)^(1/n) - 1)), R^2 = q x'^2 + y'^2 / q = |z - e conj(z)|^2 / (1 - |e|^2), so that
    it is smooth in (e1, e2) through e = 0.

    Args:
        beta: (B or 1, 2, H, W) [arcsec].
        amp: surface brightness at R_sersic [flux / arcsec^2].
        R_sersic: half-light radius on the intermediate axis sqrt(a b) [arcsec].
        n_sersic: Sersic index.
        e1: ellipticity (1-q)/(1+q) cos 2 phi, |e| < 1.
        e2: ellipticity (1-q)/(1+q) sin 2 phi.
        center_x: [arcsec].
        center_y: [arcsec].

    Returns:
        (B, 1, H, W) [flux / arcsec^2].

    Source: Sersic 1968; lenstronomy ``SERSIC_ELLIPSE``.
    """
    n = as_planes(n_sersic, beta)
    radius = (Ellipse.at(beta, e1, e2, center_x, center_y).radius2 + SMOOTHING**2).sqrt()
    reduced = torch.exp(torch.log(radius / as_planes(R_sersic, beta)) / n)
    return (as_planes(amp, beta) * torch.exp(-sersic_b(n) * (reduced - 1)))[:, None]


def brightness_sersic_derivatives(
    beta: Tensor,
    amp: Value,
    R_sersic: Value,
    n_sersic: Value,
    e1: Value,
    e2: Value,
    center_x: Value,
    center_y: Value,
) -> tuple[Tensor, Tensor]:
    """Return the brightness of a Sersic profile and its derivatives by its seven parameters, in closed form.

    Args as for `brightness_sersic`.

    Returns:
        I (B, 1, H, W) [flux / arcsec^2] and its derivatives by amp, R_sersic, n_sersic, e1, e2, center_x, center_y,
        (B, 7, 1, H, W); those by beta are minus the last two.
    """
    amp, size, n = as_planes(amp, beta), as_planes(R_sersic, beta), as_planes(n_sersic, beta)
    b, ellipse = sersic_b(n), Ellipse.at(beta, e1, e2, center_x, center_y)
    radius2 = ellipse.radius2 + SMOOTHING**2
    stretch = 0.5 * torch.log(radius2) - torch.log(size)  # ln(R / R_sersic)
    reduced = torch.exp(stretch / n)
    light = amp * torch.exp(-b * (reduced - 1))
    by_n = _SLOPE * (b > _LEAST_B).to(b)  # of b
    falling = light * b * reduced / n  # -dI / d ln R
    columns = [
        light / amp,
        falling / size,
        falling * stretch / n - by_n * light * (reduced - 1),
        *ellipse.slopes(-falling / (2 * radius2)),
    ]
    return light[:, None], torch.stack(torch.broadcast_tensors(*columns), dim=1)[:, :, None]


@dataclass(frozen=True)
class Sersic(LightProfile):
    """Elliptical Sersic source: see `brightness_sersic`.

    Args:
        amp: surface brightness at R_sersic [flux / arcsec^2].
        R_sersic: half-light radius on the intermediate axis [arcsec].
        n_sersic: index: 1 is an exponential disc, 4 a de Vaucouleurs bulge.
        e1: ellipticity (1 - q) / (1 + q) cos 2 phi, |e| < 1.
        e2: ellipticity (1 - q) / (1 + q) sin 2 phi.
        center_x: [arcsec].
        center_y: [arcsec].

    Example:
        >>> source = Sersic(amp=1.0, R_sersic=0.25, n_sersic=1.0)
        >>> source(torch.tensor([0.25, 0.0]).reshape(1, 2, 1, 1)).item()
        1.0
    """

    amp: Value
    R_sersic: Value
    n_sersic: Value
    e1: Value = 0.0
    e2: Value = 0.0
    center_x: Value = 0.0
    center_y: Value = 0.0
    formula = staticmethod(brightness_sersic)
    closed_form = staticmethod(brightness_sersic_derivatives)
    lenstronomy = "SERSIC_ELLIPSE"
    parameters = (
        Parameter("amp", "flux / arcsec^2", Peaks(1e-4), Peaks(1e3), logarithmic=True),
        Parameter("R_sersic", "arcsec", 0.01, HalfWidths(1.0), 0.25, 1.0, logarithmic=True),
        # beyond it exp(b) at the centre leaves float32
        Parameter("n_sersic", "", 0.3, 8.0, 1.5, 0.7, logarithmic=True, domain=(0.0, 40.0)),
        Parameter("e1", "", -0.6, 0.6, 0.0, 0.3),
        Parameter("e2", "", -0.6, 0.6, 0.0, 0.3),
        *SOURCE_CENTRE,
    )

    @property
    def half_side(self) -> Tensor:
        """Of the square about its centre that holds its light: 8 R_sersic, (B,) [arcsec]."""
        return _REACH * torch.as_tensor(self.R_sersic)

    @classmethod
    def unit_flux(cls, values: Mapping[str, float]) -> float:
        """Return the total flux with amp = 1 [arcsec^2]: see `flux_sersic`."""
        return flux_sersic(values["R_sersic"], values["n_sersic"])

    def gradient(self, beta: Tensor) -> Tensor:
        """Return the gradient of the brightness by beta in closed form, (B, 2, H, W) [flux / arcsec^3]."""
        return -brightness_sersic_derivatives(beta, **self.values)[1][:, 5:, 0]


def flux_sersic(R_sersic: float, n_sersic: float) -> float:
    """Return the total flux of a Sersic profile with amp = 1, 2 pi n R^2 exp(b) b^(-2n) Gamma(2n) [arcsec^2].

    Args:
        R_sersic: half-light radius on the intermediate axis [arcsec].
        n_sersic: Sersic index.

    Source: Graham & Driver 2005, eq. 4; lenstronomy ``total_flux``.
    """
    b = max(_SLOPE * n_sersic + _AT_ZERO, _LEAST_B)
    return 2 * math.pi * n_sersic * R_sersic**2 * math.exp(b - 2 * n_sersic * math.log(b) + math.lgamma(2 * n_sersic))
