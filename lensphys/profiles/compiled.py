"""Deflection and brightness of the common profiles in compiled kernels, without gradients: for simulations.

For a processor, tensors in float64. What the formulas of `mass` and `light` do in a dozen passes over memory these do
in one, several points at a time. The first call of each compiles it, about 0.3 to 0.9 s in every process.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.polynomial import Chebyshev, Polynomial
from torch import Tensor

from lensphys.checks import check_choice
from lensphys.profiles.light import SMOOTHING, sersic_b
from lensphys.profiles.mass import _DENOMINATOR, _NUMERATOR, CORE
from lensphys.profiles.swarm import _compiled


def _interpolated(function: Callable[..., Any], degree: int) -> tuple[float, ...]:
    """Coefficients, highest power first, of the polynomial through the Chebyshev nodes of [-1/2, 1/2]."""
    fit = Chebyshev.interpolate(function, degree, domain=[-0.5, 0.5])
    return tuple(fit.convert(kind=Polynomial).coef[::-1].tolist())


_LOG2 = _interpolated(lambda x: np.log2(1.5 + x), 10)  # to 2e-9
_EXP2 = _interpolated(np.exp2, 6)  # to 3e-9
_DARK = -120.0  # 2^this times amp is no light: below it float32 has no normal numbers, and those are slow
_ABOVE, _BELOW = tuple(_NUMERATOR), tuple(_DENOMINATOR)  # tuples are constants for the compiler


@torch.no_grad()
def add_deflection(name: str, x: Tensor, y: Tensor, parameters: dict[str, Tensor], total: Tensor) -> None:
    """Add the deflection of one SIS, SIE or external shear a lens, as `deflection_sis`, ..., to a total in place.

    Args:
        name: ``SIS``, ``SIE`` or ``SHEAR``.
        x: (P,) [arcsec], float64.
        y: (P,) [arcsec].
        parameters: those of the formula, (B,) each; e1, e2 and the centre are 0 where they are left out.
        total: (B, 2, P) [arcsec], float64.

    Raises:
        LensphysError: if there is no kernel for this name.
    """
    kernels = {
        "SIS": (_sis_kernel, ("theta_E",)),
        "SIE": (_sie_kernel, ("theta_E", "e1", "e2")),
        "SHEAR": (_shear_kernel, ("gamma1", "gamma2")),
    }
    check_choice("compiled lens", name, list(kernels))
    kernel, names = kernels[name]
    zero = total.new_zeros(len(total))
    table = torch.stack([parameters.get(n, zero) for n in ("center_x", "center_y", *names)], dim=1)
    kernel()(x.contiguous().numpy(), y.contiguous().numpy(), table.numpy(), total.numpy())


@torch.no_grad()
def brightness_sersic_points(
    theta: Tensor,
    alpha: Tensor,
    amp: Tensor,
    R_sersic: Tensor,
    n_sersic: Tensor,
    e1: Tensor,
    e2: Tensor,
    center_x: Tensor,
    center_y: Tensor,
    total: Tensor | None = None,
) -> Tensor:
    """Return the brightness of one Sersic profile a lens at beta = theta - alpha, as `brightness_sersic` does.

    Computed in float64 to 3e-7 of the brightest point, rounded at the end; what is below 2^-120 amp is 0.

    Args:
        theta: (B or 1, 2, P) [arcsec], float64.
        alpha: (B or 1, 2, P) [arcsec], float64; may be the first points of a longer one, it is not copied.
        amp: surface brightness at R_sersic, (B,) [flux / arcsec^2], float64 as all that follow.
        R_sersic: half-light radius on the intermediate axis (B,) [arcsec].
        n_sersic: (B,).
        e1: (B,).
        e2: (B,).
        center_x: (B,) [arcsec].
        center_y: (B,) [arcsec].
        total: (B, P) [flux / arcsec^2], float32, to be added to in place and returned; without it a new one is.

    Returns:
        (B, P) [flux / arcsec^2], float32.
    """
    table = torch.stack([center_x, center_y, amp, R_sersic, n_sersic, sersic_b(n_sersic), e1, e2], dim=1)
    if total is None:
        total = torch.zeros(len(table), theta.shape[-1], dtype=torch.float32)
    _sersic_kernel()(*_rows(theta, len(table)), *_rows(alpha, len(table)), table.numpy(), total.numpy())
    return total


def _rows(points: Tensor, lenses: int) -> tuple[Any, int, int]:
    """Points (B or 1, 2, P) as what lies in memory, and the steps from one lens and from x to y.

    A slice of more points is not contiguous, and the compiler would not vectorise over it; its rows are.
    """
    if points.stride(-1) != 1:
        points = points.contiguous()
    points = points.expand(lenses, -1, -1)
    lens, axis = points.stride()[:2]
    return points.as_strided(((lenses - 1) * lens + axis + points.shape[-1],), (1,)).numpy(), lens, axis


def _inlined(kernel: Callable[..., Any]) -> Any:
    import numba

    # whatever its length: a loop with a call in it is not vectorised
    return numba.njit(kernel, fastmath=True, error_model="numpy", forceinline=True)


@lru_cache
def _polynomial() -> Any:
    def kernel(coefficients, x):
        value = coefficients[0]
        for i in range(1, len(coefficients)):
            value = value * x + coefficients[i]
        return value

    return _inlined(kernel)


@lru_cache
def _log2() -> Any:
    """The logarithm of a normal float64 to 2e-9: unlike math.log2, the compiler can vectorise it."""
    polynomial = _polynomial()

    def kernel(x):
        bits = np.float64(x).view(np.int64)
        mantissa = np.int64((bits & 0x000FFFFFFFFFFFFF) | 0x3FF0000000000000).view(np.float64)  # in [1, 2)
        return np.int32((bits >> 52) - 1023) + polynomial(_LOG2, mantissa - 1.5)

    return _inlined(kernel)


@lru_cache
def _exp2() -> Any:
    """2^x to 3e-9 of it, for |x| <= 1000."""
    polynomial = _polynomial()

    def kernel(x):
        whole = np.floor(x + 0.5)
        power = np.int64(np.int64(np.int32(whole) + 1023) << 52).view(np.float64)
        return power * polynomial(_EXP2, x - whole)

    return _inlined(kernel)


def _by_blocks(lens: Callable[..., None]) -> Any:
    """A kernel that adds lens(row of the table, x, y, sum of x, sum of y) for all lenses."""
    add = _compiled(lens)

    def kernel(x, y, table, total):
        # whole rows the compiler tests for overlap over all lenses at once; they seem to, and it goes point by point
        block = 1024
        for i in range(table.shape[0]):
            for start in range(0, x.shape[0], block):
                end = min(start + block, x.shape[0])
                add(table[i], x[start:end], y[start:end], total[i, 0, start:end], total[i, 1, start:end])

    return _compiled(kernel)


@lru_cache
def _sis_kernel() -> Any:
    core2 = CORE**2

    def lens(row, x, y, sum_x, sum_y):
        a, b, strength = row
        for p in range(x.shape[0]):
            dx = x[p] - a
            dy = y[p] - b
            scale = strength / math.sqrt(dx * dx + dy * dy + core2)
            sum_x[p] += scale * dx
            sum_y[p] += scale * dy

    return _by_blocks(lens)


@lru_cache
def _line() -> Any:
    """A real polynomial at p, from 2 Re p and |p|^2: m and c of its value m p + c.

    That is its rest on division by (z - p)(z - conj p), half the work of Horner's scheme in complex numbers.
    """

    def kernel(coefficients, twice, square):
        m, before = 0.0, 0.0
        for i in range(len(coefficients) - 1):
            m, before = coefficients[i] + twice * m - square * before, m
        return m, coefficients[len(coefficients) - 1] - square * before

    return _inlined(kernel)


@lru_cache
def _sie_kernel() -> Any:
    line, core2 = _line(), CORE**2

    def lens(row, x, y, sum_x, sum_y):
        a, b, strength, e1, e2 = row
        scale = strength * math.sqrt(1 - e1 * e1 - e2 * e2)
        for j in range(x.shape[0]):
            dx = x[j] - a
            dy = y[j] - b
            wx = dx - (e1 * dx + e2 * dy)
            wy = dy - (e2 * dx - e1 * dy)
            inverse = 1 / math.sqrt(wx * wx + wy * wy + core2)
            ux, uy = wx * inverse, wy * inverse
            sx, sy = ux * ux - uy * uy, 2 * ux * uy
            px, py = e1 * sx + e2 * sy, e1 * sy - e2 * sx
            square = px * px + py * py
            m, c = line(_ABOVE, 2 * px, square)
            n, d = line(_BELOW, 2 * px, square)
            k = scale / (n * n * square + 2 * n * d * px + d * d)  # F = (m p + c) / (n p + d)
            fx = k * (m * n * square + c * d + (m * d + c * n) * px)
            fy = k * (m * d - c * n) * py
            sum_x[j] += ux * fx - uy * fy
            sum_y[j] += ux * fy + uy * fx

    return _by_blocks(lens)


@lru_cache
def _shear_kernel() -> Any:
    def lens(row, x, y, sum_x, sum_y):
        a, b, gamma1, gamma2 = row
        for p in range(x.shape[0]):
            dx = x[p] - a
            dy = y[p] - b
            sum_x[p] += gamma1 * dx + gamma2 * dy
            sum_y[p] += gamma2 * dx - gamma1 * dy

    return _by_blocks(lens)


@lru_cache
def _sersic_lens() -> Any:
    log2, exp2, core2, per_ln2 = _log2(), _exp2(), SMOOTHING**2, 1 / math.log(2)

    def lens(row, at_x, at_y, by_x, by_y, growth, light):
        center_x, center_y, amp, size, n, b_n, e1, e2 = row
        scale, core = 1 / ((1 - e1 * e1 - e2 * e2) * size * size), core2 / (size * size)
        half, b = 0.5 / n, b_n * per_ln2
        for p in range(light.shape[0]):
            x = at_x[p] - by_x[p] - center_x
            y = at_y[p] - by_y[p] - center_y
            wx = x - (e1 * x + e2 * y)
            wy = y - (e2 * x - e1 * y)
            growth[p] = half * log2((wx * wx + wy * wy) * scale + core)
        for p in range(light.shape[0]):  # a loop of its own: all constants of one do not fit into the registers
            power = b - b * exp2(min(growth[p], 1000.0))
            value = amp * exp2(max(power, _DARK))
            light[p] += np.float32(value if power > _DARK else 0.0)

    return _compiled(lens)


@lru_cache
def _sersic_kernel() -> Any:
    add = _sersic_lens()

    def kernel(theta, theta_lens, theta_axis, alpha, alpha_lens, alpha_axis, table, total):
        block, points = 512, total.shape[1]
        growth = np.empty(block)
        for i in range(table.shape[0]):
            if table[i, 2] == 0.0:  # no light
                continue
            to, ao = i * theta_lens, i * alpha_lens
            at_x, at_y = theta[to : to + points], theta[to + theta_axis : to + theta_axis + points]
            by_x, by_y = alpha[ao : ao + points], alpha[ao + alpha_axis : ao + alpha_axis + points]
            light = total[i]
            for start in range(0, points, block):
                part = slice(start, min(start + block, points))
                add(table[i], at_x[part], at_y[part], by_x[part], by_y[part], growth, light[part])

    return _compiled(kernel)
