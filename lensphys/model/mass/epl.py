"""The elliptical power law: a macro lens whose slope is free."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lensphys.basics.constants import constant
from lensphys.model.component import ScaleFree, Value, as_planes, offset, vectors
from lensphys.model.mass.sie import elliptic_direction, polynomial
from lensphys.model.parameter import ELLIPTICITY, GALAXY_CENTRE, HalfWidths, Parameter

_LEVELS = 12  # of the continued fraction: more would cost digits in float32
# its steps are (A + a t) (B + b t) / ((C + c t) (D + d t)): A, B, C, D of each, then a, b, c, d of two in turn
_AT_ZERO = [
    number
    for k in range(_LEVELS // 2)
    for number in (k, k + 1, 2 * k + 1, 2 * k + 2, k + 1, k + 2, 2 * k + 2, 2 * k + 3)
]
_RATES = [0.5, -0.5, -0.5, -0.5, 0.0, -1.0, -0.5, -0.5] * (_LEVELS // 2)


def _fraction(t: Tensor) -> Tensor:
    """Return numerator and denominator of 2F1(1, t/2; 2 - t/2; -p), and the derivatives of both by t.

    They are the convergent 1/(1 + a_1 p/(1 + a_2 p/(1 + ...))) of Gauss's continued fraction. Every coefficient is
    positive for 0 < t < 2: no poles at |p| < 1.

    Args:
        t: slope of the projected density, (B, 1, 1).

    Returns:
        Coefficients, the highest power first, (4, B, 1, 1, levels / 2 + 1).
    """
    at_zero, rate = (constant(tuple(numbers), t).reshape(_LEVELS, 4) for numbers in (_AT_ZERO, _RATES))
    factors = at_zero + rate * t[..., None, None]
    steps = factors[..., :2].prod(-1) / factors[..., 2:].prod(-1)
    turns = rate / factors
    slopes = steps * (turns[..., :2].sum(-1) - turns[..., 2:].sum(-1))
    one = torch.zeros(*t.shape, _LEVELS // 2 + 1, dtype=t.dtype, device=t.device)
    one[..., -1] = 1
    upper = lower = one
    upper_slope = lower_slope = torch.zeros_like(one)
    for step, slope in zip(reversed(steps.split(1, -1)), reversed(slopes.split(1, -1)), strict=True):
        times_p, slope_times_p = (torch.nn.functional.pad(x[..., 1:], (0, 1)) for x in (lower, lower_slope))
        upper_slope, lower_slope = upper_slope + slope * times_p + step * slope_times_p, upper_slope
        upper, lower = upper + step * times_p, upper
    return torch.stack([lower, upper, lower_slope, upper_slope])


def deflection_epl(
    theta: Tensor,
    theta_E: Value,
    gamma: Value,
    e1: Value = 0.0,
    e2: Value = 0.0,
    center_x: Value = 0.0,
    center_y: Value = 0.0,
) -> Tensor:
    """Return the deflection of an elliptical power law, kappa = (3 - gamma)/2 (theta_E / R)^(gamma - 1).

    With R^2 = q x'^2 + y'^2/q, t = gamma - 1, z = x + iy, e = e1 + i e2, w = z - e conj(z) and u = w/|w|:

        alpha = |w| (theta_E sqrt(1 - |e|^2) / |w|)^t u 2F1(1, t/2; 2 - t/2; -conj(e) u^2)

    It is smooth in (e1, e2) through e = 0, and the SIE at gamma = 2. 2F1 through a convergent of its continued
    fraction, a ratio of two polynomials of degree 6: exact to 3e-10 theta_E for |e| <= 0.5 (1e-8 at 0.6, 7e-6 at 0.8;
    in float32, rounding adds 2e-6 at 0.5 and 1e-5 at 0.7). Where gamma > 2 the deflection grows towards the centre,
    down to the core.

    Args:
        theta: (B or 1, 2, H, W) [arcsec].
        theta_E: Einstein radius on the intermediate axis, > 0 [arcsec].
        gamma: slope of the density in three dimensions, 1 < gamma < 3.
        e1: ellipticity (1-q)/(1+q) cos 2 phi, |e| < 1.
        e2: ellipticity (1-q)/(1+q) sin 2 phi.
        center_x: [arcsec].
        center_y: [arcsec].

    Returns:
        (B, 2, H, W) [arcsec].

    Source: Tessore & Metcalf 2015 (A&A 580, A79), eqs. 11-13; lenstronomy ``EPL``.
    """
    x, y = offset(theta, center_x, center_y)
    e1, e2, t = as_planes(e1, theta), as_planes(e2, theta), as_planes(gamma, theta) - 1
    norm, ux, uy = elliptic_direction(x, y, e1, e2)
    u = torch.complex(ux, uy)
    p = torch.complex(e1, -e2) * u * u
    upper, lower = polynomial(_fraction(t)[:2].unbind(-1), p)
    scale = norm * (as_planes(theta_E, theta) * (1 - e1**2 - e2**2).sqrt() / norm) ** t
    alpha = scale * (u * (upper / lower))
    return torch.stack([alpha.real, alpha.imag], dim=1)


def deflection_epl_derivatives(
    theta: Tensor, theta_E: Value, gamma: Value, e1: Value, e2: Value, center_x: Value, center_y: Value
) -> tuple[Tensor, Tensor]:
    """Return the deflection of an elliptical power law and its derivatives by its six parameters, in closed form.

    With s = theta_E sqrt(1 - |e|^2), k = |w| (s / |w|)^t, u, p and F as in `deflection_epl`, and dw = (g + i phi) w:

        d alpha = alpha (t d ln s + (1 - t) g + i phi + dt ln(s / |w|)) + k u (F_p (conj(de) u^2 + 2 i phi p) + F_t dt)
        F_p = ((1 - t/2) (1 - F) - t/2 p F) / (p (1 + p))

    Args:
        theta: (B or 1, 2, H, W) [arcsec].
        theta_E: Einstein radius on the intermediate axis [arcsec].
        gamma: slope of the density in three dimensions, 1 < gamma < 3.
        e1: ellipticity (1-q)/(1+q) cos 2 phi.
        e2: ellipticity (1-q)/(1+q) sin 2 phi.
        center_x: [arcsec].
        center_y: [arcsec].

    Returns:
        alpha (B, 2, H, W) [arcsec] and its derivatives by theta_E, gamma, e1, e2, center_x, center_y, (B, 6, 2, H, W).
    """
    x, y = offset(theta, center_x, center_y)
    e1, e2, t = as_planes(e1, theta), as_planes(e2, theta), as_planes(gamma, theta) - 1
    theta_E = as_planes(theta_E, theta)
    norm, ux, uy = elliptic_direction(x, y, e1, e2)
    u = torch.complex(ux, uy)
    squared = u * u
    p = torch.complex(e1, -e2) * squared
    upper, lower, upper_slope, lower_slope = polynomial(_fraction(t).unbind(-1), p)
    fraction = upper / lower
    q = 1 - e1**2 - e2**2
    ratio = theta_E * q.sqrt() / norm
    ku = norm * ratio**t * u
    alpha = ku * fraction
    near = p.abs() < 1e-3  # where the difference below would lose its digits
    away = torch.where(near, torch.ones_like(p), p)
    first = t / (t - 4)
    small = first * (1 - p * (2 * (t + 2) / (6 - t)))
    steep = torch.where(near, small, ((1 - t / 2) * (1 - fraction) - t / 2 * p * fraction) / (away * (1 + p)))
    turn, bend, flat = 1j * (alpha + 2 * ku * p * steep), ku * squared * steep, (1 - t) * alpha

    def moved(dx: Tensor, dy: Tensor) -> Tensor:
        return flat * ((ux * dx + uy * dy) / norm) + turn * ((ux * dy - uy * dx) / norm)

    columns = [
        alpha * (t / theta_E),
        alpha * ratio.log() + ku * ((upper_slope - fraction * lower_slope) / lower),
        moved(-x, y) + bend - alpha * (t * e1 / q),  # dw = -conj(z)
        moved(-y, -x) - 1j * bend - alpha * (t * e2 / q),  # dw = -i conj(z)
        moved(e1 - 1, e2),
        moved(e2, -1 - e1),
    ]
    return vectors(alpha, columns)


@dataclass(frozen=True)
class EPL(ScaleFree):
    """Elliptical power law: see `deflection_epl`.

    Args:
        theta_E: Einstein radius on the intermediate axis [arcsec].
        gamma: slope of the density in three dimensions, 1 < gamma < 3; 2 is isothermal.
        e1: ellipticity (1 - q) / (1 + q) cos 2 phi, |e| < 1.
        e2: ellipticity (1 - q) / (1 + q) sin 2 phi.
        center_x: [arcsec].
        center_y: [arcsec].

    Example:
        >>> ax, ay = EPL(theta_E=1.2, gamma=2.1, e1=0.1).deflection(1.0, 0.5)  # arcsec
        >>> ax.round(4).item(), ay.round(4).item()
        (1.0324, 0.5859)
    """

    theta_E: Value
    gamma: Value
    e1: Value = 0.0
    e2: Value = 0.0
    center_x: Value = 0.0
    center_y: Value = 0.0
    formula = staticmethod(deflection_epl)
    closed_form = staticmethod(deflection_epl_derivatives)
    lenstronomy = "EPL"
    galaxy = True
    parameters = (
        Parameter("theta_E", "arcsec", HalfWidths(0.05), HalfWidths(1.0), logarithmic=True),
        Parameter("gamma", "", 1.1, 2.9, 2.0, 0.1, domain=(1.0, 3.0)),
        *ELLIPTICITY,
        *GALAXY_CENTRE,
    )

    @property
    def power(self) -> Value:
        """Of r with which the potential grows."""
        return 3 - self.gamma
