"""The elliptical power law: a macro lens whose slope is free."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lensphys.model.component import ScaleFree, Value, as_planes, offset
from lensphys.model.mass.sie import elliptic_direction, polynomial
from lensphys.model.parameter import ELLIPTICITY, GALAXY_CENTRE, HalfWidths, Parameter

LEVELS = 12  # of the continued fraction: more would cost digits in float32


def _fraction(t: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return the coefficients, highest power first, of numerator and denominator of 2F1(1, t/2; 2 - t/2; -p).

    They are the convergent 1/(1 + a_1 p/(1 + a_2 p/(1 + ...))) of Gauss's continued fraction. Every coefficient is
    positive for 0 < t < 2: no poles at |p| < 1.
    """
    b, c = t / 2, 2 - t / 2
    steps = [b / c]
    for k in range(1, LEVELS // 2 + 1):
        steps.append(k * (c - b + k - 1) / ((c + 2 * k - 2) * (c + 2 * k - 1)))
        steps.append((b + k) * (c + k - 1) / ((c + 2 * k - 1) * (c + 2 * k)))
    one = torch.zeros(*t.shape, LEVELS // 2 + 1, dtype=t.dtype, device=t.device)
    one[..., -1] = 1
    upper = lower = one
    for step in reversed(steps[:LEVELS]):
        times_p = torch.nn.functional.pad(lower[..., 1:], (0, 1))
        upper, lower = upper + step[..., None] * times_p, upper
    return list(lower.unbind(-1)), list(upper.unbind(-1))


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
    upper, lower = _fraction(t)
    scale = norm * (as_planes(theta_E, theta) * (1 - e1**2 - e2**2).sqrt() / norm) ** t
    alpha = scale * (u * (polynomial(upper, p) / polynomial(lower, p)))
    return torch.stack([alpha.real, alpha.imag], dim=1)


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
