"""Multipoles: how a galaxy's isodensity lines differ from ellipses."""

from __future__ import annotations

from cmath import phase
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.model.component import CENTRE, CORE, Named, ScaleFree, Value, as_planes, offset, vectors
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
    phase = m * as_planes(phi_m, theta)
    a_m = as_planes(a_m, theta)
    return deflection_multipole_waves(theta, m, a_m * phase.cos(), a_m * phase.sin(), center_x, center_y)


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

    Raises:
        LensphysError: if the order is no integer of 2 or more.
    """
    _check_order(m)
    _, u, wave = _waves(theta, m, a_cos, a_sin, center_x, center_y)
    alpha = _along(u, wave, m)
    return torch.stack([alpha.real, alpha.imag], dim=1)


def deflection_multipole_waves_derivatives(
    theta: Tensor, m: int, a_cos: Value, a_sin: Value, center_x: Value, center_y: Value
) -> tuple[Tensor, Tensor]:
    """Return the deflection of a circular multipole by its waves, and its derivatives in closed form.

    With u = z/r and P = (a_cos - i a_sin) u^m it is u (Re P - i m Im P) / (1 - m^2), and i u Re P its derivative by
    the angle about the centre, which is all that it depends on.

    Args:
        theta: (B or 1, 2, H, W) [arcsec].
        m: order, 2 or more, one for the whole batch.
        a_cos: [arcsec].
        a_sin: [arcsec].
        center_x: [arcsec].
        center_y: [arcsec].

    Returns:
        alpha (B, 2, H, W) [arcsec] and its derivatives by a_cos, a_sin, center_x, center_y, (B, 4, 2, H, W).
    """
    r, u, wave = _waves(theta, m, a_cos, a_sin, center_x, center_y)
    even = _power(u, m)
    turned = torch.complex(-u.imag, u.real) * wave.real / r
    columns = [_along(u, even, m), _along(u, -1j * even, m), turned * u.imag, -turned * u.real]
    return vectors(_along(u, wave, m), columns)


def _along(u: Tensor, wave: Tensor, m: int) -> Tensor:
    """Return the deflection of a wave P [arcsec] in directions u, u (Re P - i m Im P) / (1 - m^2), (B, H, W) each."""
    return u * torch.complex(wave.real, -m * wave.imag) / (1 - m**2)


def _power(u: Tensor, m: int) -> Tensor:
    power = u
    for _ in range(m - 1):  # a product, not a power: finite gradients at u = 0
        power = power * u
    return power


def _waves(
    theta: Tensor, m: int, a_cos: Value, a_sin: Value, center_x: Value, center_y: Value
) -> tuple[Tensor, Tensor, Tensor]:
    """Return r [arcsec], u = z/r and (a_cos - i a_sin) u^m [arcsec], (B, H, W) each."""
    x, y = offset(theta, center_x, center_y)
    r = (x**2 + y**2 + CORE**2).sqrt()
    u = torch.complex(x / r, y / r)
    cosine, sine = torch.broadcast_tensors(as_planes(a_cos, theta), as_planes(a_sin, theta))
    return r, u, torch.complex(cosine, -sine) * _power(u, m)


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
    closed_form = staticmethod(deflection_multipole_waves_derivatives)
    whole = {"m": LEAST}
    strengths = ("a_cos", "a_sin")
    about_lens = True
    parameters = (
        Parameter("a_cos", "arcsec", -0.3, 0.3, 0.0, 0.02),
        Parameter("a_sin", "arcsec", -0.3, 0.3, 0.0, 0.02),
        *GALAXY_CENTRE,
    )

    def to_lenstronomy(self) -> list[Named]:
        """Return it in lenstronomy's words: strength and orientation in place of the two waves."""
        wave = complex(self._number("a_cos"), self._number("a_sin"))
        turned = {"m": self.m, "a_m": abs(wave), "phi_m": phase(wave) / self.m}
        return [(Multipole.lenstronomy, turned | {name: self._number(name) for name in CENTRE})]


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
        >>> ax, ay = Multipole(m=4, a_m=0.02, phi_m=0.0).deflection(1.0, 0.5)  # arcsec
        >>> ax.round(4).item(), ay.round(4).item()
        (-0.002, 0.0047)
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
