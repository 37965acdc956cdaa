"""Mass profiles: pure formulas for the deflection, and thin classes that hold their parameters.

Every parameter is a number or a tensor (B,); positions are (B or 1, 2, H, W), deflections (B, 2, H, W), in arcsec.
A core of 1e-6" keeps values and gradients finite at the centres; at 0.01" it changes a deflection by 5e-9.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from lensphys.checks import check_images

CORE = 1e-6  # arcsec

Parameter = float | Tensor


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


def _polynomial(coefficients: list[float], p: Tensor) -> Tensor:
    value = coefficients[0] * p + coefficients[1]
    for coefficient in coefficients[2:]:
        value = value * p + coefficient
    return value


def as_planes(parameter: Parameter, theta: Tensor) -> Tensor:
    """Return a parameter, number or (B,), in a shape that broadcasts with (B, H, W)."""
    value = torch.as_tensor(parameter, dtype=theta.dtype, device=theta.device)
    return value.reshape(-1, 1, 1)


def offset(theta: Tensor, center_x: Parameter, center_y: Parameter) -> tuple[Tensor, Tensor]:
    """Return x and y about a centre, each (B, H, W) [arcsec]."""
    check_images("theta", theta, channels=2)
    return theta[:, 0] - as_planes(center_x, theta), theta[:, 1] - as_planes(center_y, theta)


def deflection_sis(theta: Tensor, theta_E: Parameter, center_x: Parameter = 0.0, center_y: Parameter = 0.0) -> Tensor:
    """Return the deflection of a singular isothermal sphere, theta_E r_hat.

    Source: Kormann, Schneider & Bartelmann 1994; lenstronomy ``SIS``.
    """
    x, y = offset(theta, center_x, center_y)
    scale = as_planes(theta_E, theta) / (x**2 + y**2 + CORE**2).sqrt()
    return torch.stack([scale * x, scale * y], dim=1)


def deflection_sie(
    theta: Tensor,
    theta_E: Parameter,
    e1: Parameter = 0.0,
    e2: Parameter = 0.0,
    center_x: Parameter = 0.0,
    center_y: Parameter = 0.0,
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
    wx, wy = x - (e1 * x + e2 * y), y - (e2 * x - e1 * y)
    norm = (wx**2 + wy**2 + CORE**2).sqrt()
    u = torch.complex(wx / norm, wy / norm)
    p = torch.complex(e1, -e2) * u * u
    fraction = _polynomial(SIE_NUMERATOR, p) / _polynomial(SIE_DENOMINATOR, p)
    alpha = as_planes(theta_E, theta) * (1 - e1**2 - e2**2).sqrt() * (u * fraction)
    return torch.stack([alpha.real, alpha.imag], dim=1)


def deflection_sie_derivatives(
    theta: Tensor, theta_E: Parameter, e1: Parameter, e2: Parameter, center_x: Parameter, center_y: Parameter
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
    wx, wy = x - (e1 * x + e2 * y), y - (e2 * x - e1 * y)
    norm = (wx**2 + wy**2 + CORE**2).sqrt()
    ux, uy = wx / norm, wy / norm
    u = torch.complex(ux, uy)
    squared = u * u
    p = torch.complex(e1, -e2) * squared
    fraction = _polynomial(SIE_NUMERATOR, p) / _polynomial(SIE_DENOMINATOR, p)
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
    stacked = torch.stack(torch.broadcast_tensors(alpha, *columns), dim=1)
    both = torch.view_as_real(stacked).movedim(-1, 2)
    return both[:, 0], both[:, 1:]


def deflection_shear(
    theta: Tensor, gamma1: Parameter, gamma2: Parameter, center_x: Parameter = 0.0, center_y: Parameter = 0.0
) -> Tensor:
    """Return the deflection of an external shear, (gamma1 x + gamma2 y, gamma2 x - gamma1 y)."""
    x, y = offset(theta, center_x, center_y)
    g1, g2 = as_planes(gamma1, theta), as_planes(gamma2, theta)
    return torch.stack([g1 * x + g2 * y, g2 * x - g1 * y], dim=1)


def deflection_point(theta: Tensor, theta_E: Parameter, center_x: Parameter = 0.0, center_y: Parameter = 0.0) -> Tensor:
    """Return the deflection of a point mass, theta_E^2 / r r_hat."""
    x, y = offset(theta, center_x, center_y)
    scale = as_planes(theta_E, theta) ** 2 / (x**2 + y**2 + CORE**2)
    return torch.stack([scale * x, scale * y], dim=1)


def deflection_points(theta: Tensor, strength: Tensor, center_x: Tensor, center_y: Tensor, core: float) -> Tensor:
    """Return the deflection of a swarm of softened point masses, sum_k s_k d_k / (|d_k|^2 + core^2).

    Args:
        theta: (B or 1, 2, H, W) [arcsec].
        strength: theta_E^2 of each, (B, K) [arcsec^2].
        center_x: (B, K) [arcsec].
        center_y: (B, K) [arcsec].
        core: [arcsec].

    Returns:
        (B, 2, H, W) [arcsec].
    """
    check_images("theta", theta, channels=2)
    total = theta.new_zeros(len(strength), *theta.shape[1:])
    for k in range(strength.shape[1]):  # one body at a time: memory does not grow with their number
        x, y = offset(theta, center_x[:, k], center_y[:, k])
        scale = as_planes(strength[:, k], theta) / (x**2 + y**2 + core**2)
        total = total + torch.stack([scale * x, scale * y], dim=1)
    return total


def deflection_nfw(
    theta: Tensor, Rs: Parameter, alpha_Rs: Parameter, center_x: Parameter = 0.0, center_y: Parameter = 0.0
) -> Tensor:
    """Return the deflection of a spherical NFW halo.

    Args:
        theta: (B or 1, 2, H, W) [arcsec].
        Rs: scale radius [arcsec].
        alpha_Rs: deflection at Rs [arcsec].
        center_x: [arcsec].
        center_y: [arcsec].

    Source: Bartelmann 1996; Wright & Brainerd 2000, eq. 13; lenstronomy ``NFW``.
    """
    x, y = offset(theta, center_x, center_y)
    Rs, alpha_Rs = as_planes(Rs, theta), as_planes(alpha_Rs, theta)
    r = (x**2 + y**2 + CORE**2).sqrt()
    ratio = _nfw_g(r / Rs) / (r / Rs) / (1 + torch.log(torch.as_tensor(0.5, dtype=theta.dtype)))
    return torch.stack([alpha_Rs * ratio * x / r, alpha_Rs * ratio * y / r], dim=1)


def _nfw_g(x: Tensor) -> Tensor:
    """ln(x/2) + arccosh(1/x)/sqrt(1-x^2), in branches that stay finite (and differentiable) where they are not used."""
    near_one, near_zero = (x - 1).abs() < 1e-2, x < 1e-3
    inside, outside = x.clamp(1e-3, 0.99), x.clamp(min=1.01)
    below = torch.log(inside / 2) + torch.acosh(1 / inside) / (1 - inside**2).sqrt()
    above = torch.log(outside / 2) + torch.acos(1 / outside) / (outside**2 - 1).sqrt()
    d = x - 1
    at_one = torch.log(x / 2) + 1 - 2 * d / 3 + 7 * d**2 / 15 - 12 * d**3 / 35 + 166 * d**4 / 630
    at_zero = -0.5 * x**2 * (torch.log(x / 2) + 0.5)
    return torch.where(near_zero, at_zero, torch.where(near_one, at_one, torch.where(x < 1, below, above)))


@dataclass(frozen=True)
class MassProfile:
    """A mass profile: call it with positions theta (B, 2, H, W) to get its deflection; profiles add up with ``+``."""

    def __call__(self, theta: Tensor) -> Tensor:
        """Return alpha, (B, 2, H, W) [arcsec], at theta (B or 1, 2, H, W) [arcsec]."""
        parameters = {f.name: getattr(self, f.name) for f in fields(self)}
        return type(self).formula(theta, **parameters)  # type: ignore[attr-defined]

    def __add__(self, other: MassProfile) -> MassSum:
        return MassSum((*_components(self), *_components(other)))


@dataclass(frozen=True)
class MassSum(MassProfile):
    """The sum of mass profiles in one lens plane."""

    profiles: tuple[MassProfile, ...]

    def __call__(self, theta: Tensor) -> Tensor:
        """Return the sum of the deflections, (B, 2, H, W) [arcsec]."""
        total = self.profiles[0](theta)
        for profile in self.profiles[1:]:
            total = total + profile(theta)
        return total


def _components(profile: MassProfile) -> tuple[MassProfile, ...]:
    return profile.profiles if isinstance(profile, MassSum) else (profile,)


@dataclass(frozen=True)
class SIS(MassProfile):
    """Singular isothermal sphere: see `deflection_sis`."""

    theta_E: Parameter
    center_x: Parameter = 0.0
    center_y: Parameter = 0.0
    formula = staticmethod(deflection_sis)


@dataclass(frozen=True)
class SIE(MassProfile):
    """Singular isothermal ellipsoid: see `deflection_sie`."""

    theta_E: Parameter
    e1: Parameter = 0.0
    e2: Parameter = 0.0
    center_x: Parameter = 0.0
    center_y: Parameter = 0.0
    formula = staticmethod(deflection_sie)


@dataclass(frozen=True)
class Shear(MassProfile):
    """External shear: see `deflection_shear`."""

    gamma1: Parameter
    gamma2: Parameter
    center_x: Parameter = 0.0
    center_y: Parameter = 0.0
    formula = staticmethod(deflection_shear)


@dataclass(frozen=True)
class PointMass(MassProfile):
    """Point mass: see `deflection_point`."""

    theta_E: Parameter
    center_x: Parameter = 0.0
    center_y: Parameter = 0.0
    formula = staticmethod(deflection_point)


@dataclass(frozen=True)
class PointSwarm(MassProfile):
    """Softened point masses, any number a lens: see `deflection_points`. What a sub-halo looks like from afar."""

    strength: Tensor
    center_x: Tensor
    center_y: Tensor
    core: float = CORE
    formula = staticmethod(deflection_points)


@dataclass(frozen=True)
class NFW(MassProfile):
    """Spherical NFW halo: see `deflection_nfw`."""

    Rs: Parameter
    alpha_Rs: Parameter
    center_x: Parameter = 0.0
    center_y: Parameter = 0.0
    formula = staticmethod(deflection_nfw)
