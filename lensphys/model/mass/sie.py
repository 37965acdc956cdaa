"""The singular isothermal ellipsoid: the standard lens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lensphys.model.component import CORE, ScaleFree, Value, as_planes, offset, vectors
from lensphys.model.parameter import ELLIPTICITY, GALAXY_CENTRE, HalfWidths, Parameter


def _arctangent_fraction(levels: int) -> tuple[list[float], list[float]]:
    """Return the coefficients, highest power first, of numerator and denominator of F(p) = arctan(sqrt p) / sqrt p.

    They are the convergent 1/(1 + p/(3 + 4p/(5 + 9p/(7 + ...)))) with so many levels.
    """
    upper, lower = np.poly1d([2.0 * levels + 1]), np.poly1d([1.0])
    for level in range(levels, 0, -1):
        upper, lower = (2 * level - 1) * upper + np.poly1d([level**2, 0.0]) * lower, upper
    constant = upper.coeffs[-1]
    return (lower.coeffs / constant).tolist(), (upper.coeffs / constant).tolist()


SIE_NUMERATOR, SIE_DENOMINATOR = _arctangent_fraction(10)


def polynomial(coefficients: Sequence[float] | Sequence[Tensor], p: Tensor) -> Tensor:
    """Return the polynomial of at least two coefficients, the highest power first, at ``p`` of any shape."""
    value = coefficients[0] * p + coefficients[1]
    for coefficient in coefficients[2:]:
        value = value * p + coefficient
    return value


def elliptic_direction(x: Tensor, y: Tensor, e1: Tensor, e2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return |w| [arcsec] and both parts of w / |w|, for w = z - e conj(z): places as an ellipse counts them.

    Args:
        x: about the centre, (B, H, W) [arcsec].
        y: likewise.
        e1: ellipticity (1-q)/(1+q) cos 2 phi, (B, 1, 1).
        e2: ellipticity (1-q)/(1+q) sin 2 phi, (B, 1, 1).
    """
    wx, wy = x - (e1 * x + e2 * y), y - (e2 * x - e1 * y)
    norm = (wx**2 + wy**2 + CORE**2).sqrt()
    return norm, wx / norm, wy / norm


def deflection_sie(
    theta: Tensor,
    theta_E: Value,
    e1: Value = 0.0,
    e2: Value = 0.0,
    center_x: Value = 0.0,
    center_y: Value = 0.0,
) -> Tensor:
    """Return the deflection of a singular isothermal ellipsoid, smooth in (e1, e2) down to the SIS.

    With z = x + iy, e = e1 + i e2 and u = w/|w|, w = z - e conj(z):

        alpha = theta_E sqrt(1 - |e|^2) u F(conj(e) u^2),   F(p) = arctan(sqrt p) / sqrt p = 2F1(1, 1/2; 3/2; -p)

    F through a convergent of its continued fraction, a ratio of two polynomials of degree 5: exact to 2e-7 for
    |e| <= 0.6 (5e-5 at 0.8; in float32, rounding adds 2e-6).

    Args:
        theta: (B or 1, 2, H, W) [arcsec].
        theta_E: Einstein radius on the intermediate axis [arcsec].
        e1: ellipticity (1-q)/(1+q) cos 2 phi, |e| < 1.
        e2: ellipticity (1-q)/(1+q) sin 2 phi.
        center_x: [arcsec].
        center_y: [arcsec].

    Returns:
        (B, 2, H, W) [arcsec].

    Source: Tessore & Metcalf 2015 (A&A 580, A79), eqs. 11-13 with t = 1; lenstronomy ``SIE``.
    """
    x, y = offset(theta, center_x, center_y)
    e1, e2 = as_planes(e1, theta), as_planes(e2, theta)
    _, ux, uy = elliptic_direction(x, y, e1, e2)
    u = torch.complex(ux, uy)
    p = torch.complex(e1, -e2) * u * u
    fraction = polynomial(SIE_NUMERATOR, p) / polynomial(SIE_DENOMINATOR, p)
    alpha = as_planes(theta_E, theta) * (1 - e1**2 - e2**2).sqrt() * (u * fraction)
    return torch.stack([alpha.real, alpha.imag], dim=1)


def deflection_sie_derivatives(
    theta: Tensor, theta_E: Value, e1: Value, e2: Value, center_x: Value, center_y: Value
) -> tuple[Tensor, Tensor]:
    """Return the deflection of an SIE and its derivatives by its five parameters, in closed form.

    With k = theta_E sqrt(1 - |e|^2), u and p as in `deflection_sie` and phi = Im(conj(u) dw) / |w| the turn of u:

        d alpha = i phi k u / (1 + p) + k u^3 F'(p) conj(de) + alpha d ln k,   F' = (1/(1 + p) - F) / (2 p)

    Args:
        theta: (B or 1, 2, H, W) [arcsec].
        theta_E: Einstein radius on the intermediate axis [arcsec].
        e1: ellipticity (1-q)/(1+q) cos 2 phi.
        e2: ellipticity (1-q)/(1+q) sin 2 phi.
        center_x: [arcsec].
        center_y: [arcsec].

    Returns:
        alpha (B, 2, H, W) [arcsec] and its derivatives by theta_E, e1, e2, center_x, center_y, (B, 5, 2, H, W).
    """
    x, y = offset(theta, center_x, center_y)
    e1, e2, theta_E = as_planes(e1, theta), as_planes(e2, theta), as_planes(theta_E, theta)
    norm, ux, uy = elliptic_direction(x, y, e1, e2)
    u = torch.complex(ux, uy)
    squared = u * u
    p = torch.complex(e1, -e2) * squared
    fraction = polynomial(SIE_NUMERATOR, p) / polynomial(SIE_DENOMINATOR, p)
    inverse = 1 / (1 + p)
    near = p.abs() < 1e-3  # where the difference below would lose its digits
    steep = torch.where(near, -1 / 3 + 0.4 * p, (inverse - fraction) / (2 * torch.where(near, torch.ones_like(p), p)))
    q = 1 - e1**2 - e2**2
    ku = theta_E * q.sqrt() * u
    alpha, turn, bend = ku * fraction, 1j * ku * inverse, ku * squared * steep

    def turned(dx: Tensor, dy: Tensor) -> Tensor:
        return turn * ((ux * dy - uy * dx) / norm)

    columns = [
        alpha / theta_E,
        turned(-x, y) + bend - alpha * (e1 / q),  # dw = -conj(z)
        turned(-y, -x) - 1j * bend - alpha * (e2 / q),  # dw = -i conj(z)
        turned(e1 - 1, e2),
        turned(e2, -1 - e1),
    ]
    return vectors(alpha, columns)


@dataclass(frozen=True)
class SIE(ScaleFree):
    """Singular isothermal ellipsoid: see `deflection_sie`.

    Args:
        theta_E: Einstein radius on the intermediate axis [arcsec].
        e1: ellipticity (1 - q) / (1 + q) cos 2 phi, |e| < 1.
        e2: ellipticity (1 - q) / (1 + q) sin 2 phi.
        center_x: [arcsec].
        center_y: [arcsec].

    Example:
        >>> ax, ay = SIE(theta_E=1.2, e1=0.1).deflection(1.0, 0.5)  # arcsec
        >>> ax.round(4).item(), ay.round(4).item()
        (1.0197, 0.5839)
    """

    theta_E: Value
    e1: Value = 0.0
    e2: Value = 0.0
    center_x: Value = 0.0
    center_y: Value = 0.0
    formula = staticmethod(deflection_sie)
    closed_form = staticmethod(deflection_sie_derivatives)
    lenstronomy = "SIE"
    galaxy = True
    parameters = (
        Parameter("theta_E", "arcsec", HalfWidths(0.05), HalfWidths(1.0), logarithmic=True),
        *ELLIPTICITY,
        *GALAXY_CENTRE,
    )
