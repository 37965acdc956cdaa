"""Multipoles: how a galaxy's isodensity lines differ from ellipses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.model.component import CORE, ScaleFree, Value, as_planes, offset
from lensphys.model.parameter import GALAXY_CENTRE, Parameter

LEAST = 2  # order: that of a dipole moves the centre


def _check_order(m: int) -> None:
    if not isinstance(m, Integral) or m < LEAST:
        raise LensphysError(
            f"m must be an integer of {LEAST} or more, got {m!r}: for a dipole, move the centre of the lens"
        )


def deflection_multipole(
    theta: Tensor, m: int, a_m: Value, phi_m: Value, center_x: Value = 0.0, center_y: Value = 0.0
) -> Tensor:
    """Return the deflection of a circular multipole, psi = r a_m / (1 - m^2) cos m(phi - phi_m).

        alpha = a_m / (1 - m^2) (cos m(phi - phi_m) r_hat - m sin m(phi - phi_m) t_hat)

    It does not depend on r, and kappa = a_m / (2 r) cos m(phi - phi_m). It is zero at the centre, where it has no
    direction. lenstronomy's ``r_E`` enters its m = 1 alone.

    Args:
        theta: (B or 1, 2, H, W) [arcsec].
        m: order, 2 or more, one for the whole batch.
        a_m: strength [arcsec].
        phi_m: orientation from +x [rad].
        center_x: [arcsec].
        center_y: [arcsec].

    Returns:
        (B, 2, H, W) [arcsec].

    Raises:
        LensphysError: if m is not an integer of 2 or more.

    Source: Xu et al. 2013 (arXiv 1307.4220), eq. B12; lenstronomy ``MULTIPOLE``.
    """
    _check_order(m)
    x, y = offset(theta, center_x, center_y)
    r = (x**2 + y**2 + CORE**2).sqrt()
    u = torch.complex(x / r, y / r)
    phase = m * as_planes(phi_m, theta)
    power = torch.complex(phase.cos(), -phase.sin())
    for _ in range(m):  # a product, not a power: finite gradients at u = 0
        power = power * u
    alpha = as_planes(a_m, theta) / (1 - m**2) * (u * torch.complex(power.real, -m * power.imag))
    return torch.stack([alpha.real, alpha.imag], dim=1)


def deflection_multipole_waves(
    theta: Tensor, m: int, a_cos: Value, a_sin: Value, center_x: Value = 0.0, center_y: Value = 0.0
) -> Tensor:
    """Return the deflection of a circular multipole with a_cos = a_m cos m phi_m and a_sin = a_m sin m phi_m.

    It is linear in both, also where a_m is 0 and phi_m means nothing: what a fit needs.

    Args:
        theta: (B or 1, 2, H, W) [arcsec].
        m: order, 2 or more, one for the whole batch.
        a_cos: [arcsec].
        a_sin: [arcsec].
        center_x: [arcsec].
        center_y: [arcsec].

    Returns:
        (B, 2, H, W) [arcsec].
    """
    even = deflection_multipole(theta, m, a_cos, 0.0, center_x, center_y)
    return even + deflection_multipole(theta, m, a_sin, 0.5 * math.pi / m, center_x, center_y)


@dataclass(frozen=True)
class MultipoleWaves(ScaleFree):
    """Circular multipole of order m, by its two waves: see `deflection_multipole_waves`.

    Args:
        m: order, 2 or more.
        a_cos: a_m cos m phi_m [arcsec].
        a_sin: a_m sin m phi_m [arcsec].
        center_x: [arcsec].
        center_y: [arcsec].
    """

    m: int
    a_cos: Value
    a_sin: Value
    center_x: Value = 0.0
    center_y: Value = 0.0
    formula = staticmethod(deflection_multipole_waves)
    whole = {"m": LEAST}
    strengths = ("a_cos", "a_sin")
    about_lens = True
    parameters = (
        Parameter("a_cos", "arcsec", -0.3, 0.3, 0.0, 0.02),
        Parameter("a_sin", "arcsec", -0.3, 0.3, 0.0, 0.02),
        *GALAXY_CENTRE,
    )


@dataclass(frozen=True)
class Multipole(ScaleFree):
    """Circular multipole of order m: see `deflection_multipole`.

    Args:
        m: order, 2 or more.
        a_m: strength [arcsec].
        phi_m: orientation from +x [rad].
        center_x: [arcsec].
        center_y: [arcsec].

    Example:
        >>> ax, ay = Multipole(m=4, a_m=0.02, phi_m=0.0).deflection(1.0, 0.0)  # arcsec
        >>> ax.round(4).item(), ay.round(4).item()
        (-0.0013, 0.0)
    """

    m: int
    a_m: Value
    phi_m: Value
    center_x: Value = 0.0
    center_y: Value = 0.0
    formula = staticmethod(deflection_multipole)
    lenstronomy = "MULTIPOLE"
    whole = {"m": LEAST}
    strengths = ("a_m",)
    about_lens = True
    in_fits = MultipoleWaves
    parameters = (
        Parameter("a_m", "arcsec", -0.3, 0.3, 0.0, 0.02),
        Parameter("phi_m", "rad", -3.2, 3.2),
        *GALAXY_CENTRE,
    )

    def __post_init__(self) -> None:
        _check_order(self.m)
        super().__post_init__()
