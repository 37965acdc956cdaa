"""Kernels that numba compiles: what simulations spend their time in, on a processor.

Arrays in, sums added in place; float64 but for the light. They are compiled at the first call, about two seconds in
all, and kept on disk for the next process. Who calls them imports this module only then: numba takes its time to load.

What keeps their loops vectorised: arrays of one dimension; numpy's error model (no check for a division by zero at
each point); helpers that are inlined whatever their length; and blocks of points, within which the compiler can see
that sums and coordinates do not overlap.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from lensphys.basics.extras import need
from lensphys.model.component import CORE
from lensphys.model.light.sersic import SMOOTHING
from lensphys.model.mass.sie import SIE_DENOMINATOR, SIE_NUMERATOR

need("numba", "a simulation on a processor")
import numba  # noqa: E402


def _compiled(kernel: Callable[..., Any], *, inlined: bool = False) -> Any:
    options: Any = {"fastmath": True, "error_model": "numpy", "nogil": True, "forceinline": inlined}
    try:
        return numba.njit(kernel, cache=True, **options)
    except RuntimeError:  # there is no folder that it could be kept in
        return numba.njit(kernel, **options)


def _inlined(kernel: Callable[..., Any]) -> Any:
    return _compiled(kernel, inlined=True)


def _interpolated(function: Callable[..., Any], degree: int) -> tuple[float, ...]:
    """Coefficients, highest power first, of the polynomial through the Chebyshev nodes of [-1/2, 1/2]."""
    fit = Chebyshev.interpolate(function, degree, domain=[-0.5, 0.5])
    return tuple(fit.convert(kind=Polynomial).coef[::-1].tolist())


# tuples are constants for the compiler
_LOG2 = _interpolated(lambda x: np.log2(1.5 + x), 10)  # to 2e-9
_EXP2 = _interpolated(np.exp2, 6)  # to 3e-9
_ABOVE, _BELOW = tuple(SIE_NUMERATOR), tuple(SIE_DENOMINATOR)
_DARK = -120.0  # 2^this times amp is no light: below it float32 has no normal numbers, and those are slow
_CORE2, _SMOOTHING2, _PER_LN2 = CORE**2, SMOOTHING**2, 1 / math.log(2)
_BLOCK = 512  # points: their coordinates and sums stay in the first cache


@_inlined
def _polynomial(coefficients, x):
    value = coefficients[0]
    for i in range(1, len(coefficients)):
        value = value * x + coefficients[i]
    return value


@_inlined
def log2(x):
    """Return the logarithm of a normal float64 to 2e-9: unlike math.log2, the compiler can vectorise it."""
    bits = np.float64(x).view(np.int64)
    mantissa = np.int64((bits & 0x000FFFFFFFFFFFFF) | 0x3FF0000000000000).view(np.float64)  # in [1, 2)
    return np.int32((bits >> 52) - 1023) + _polynomial(_LOG2, mantissa - 1.5)


@_inlined
def exp2(x):
    """Return 2^x to 3e-9 of it, for |x| <= 1000."""
    whole = np.floor(x + 0.5)
    power = np.int64(np.int64(np.int32(whole) + 1023) << 52).view(np.float64)
    return power * _polynomial(_EXP2, x - whole)


@_inlined
def _line(coefficients, twice, square):
    """Return m and c of the value m p + c of a real polynomial at p, from 2 Re p and |p|^2.

    That is its rest on division by (z - p)(z - conj p), half the work of Horner's scheme in complex numbers.
    """
    m, before = 0.0, 0.0
    for i in range(len(coefficients) - 1):
        m, before = coefficients[i] + twice * m - square * before, m
    return m, coefficients[len(coefficients) - 1] - square * before


@_compiled
def _sis(row, x, y, sum_x, sum_y):
    a, b, strength = row
    for p in range(x.shape[0]):
        dx = x[p] - a
        dy = y[p] - b
        scale = strength / math.sqrt(dx * dx + dy * dy + _CORE2)
        sum_x[p] += scale * dx
        sum_y[p] += scale * dy


@_compiled
def _sie(row, x, y, sum_x, sum_y):
    a, b, strength, e1, e2 = row
    scale = strength * math.sqrt(1 - e1 * e1 - e2 * e2)
    for j in range(x.shape[0]):
        dx = x[j] - a
        dy = y[j] - b
        wx = dx - (e1 * dx + e2 * dy)
        wy = dy - (e2 * dx - e1 * dy)
        inverse = 1 / math.sqrt(wx * wx + wy * wy + _CORE2)
        ux, uy = wx * inverse, wy * inverse
        sx, sy = ux * ux - uy * uy, 2 * ux * uy
        px, py = e1 * sx + e2 * sy, e1 * sy - e2 * sx
        square = px * px + py * py
        m, c = _line(_ABOVE, 2 * px, square)
        n, d = _line(_BELOW, 2 * px, square)
        k = scale / (n * n * square + 2 * n * d * px + d * d)  # F = (m p + c) / (n p + d)
        fx = k * (m * n * square + c * d + (m * d + c * n) * px)
        fy = k * (m * d - c * n) * py
        sum_x[j] += ux * fx - uy * fy
        sum_y[j] += ux * fy + uy * fx


@_compiled
def _shear(row, x, y, sum_x, sum_y):
    a, b, gamma1, gamma2 = row
    for p in range(x.shape[0]):
        dx = x[p] - a
        dy = y[p] - b
        sum_x[p] += gamma1 * dx + gamma2 * dy
        sum_y[p] += gamma2 * dx - gamma1 * dy


@_compiled
def sis(x, y, table, total):
    """Add the deflection of SIS lenses, a row each (center_x, center_y, theta_E), to totals (B, 2, P)."""
    for i in range(table.shape[0]):
        for start in range(0, x.shape[0], _BLOCK):
            end = min(start + _BLOCK, x.shape[0])
            _sis(table[i], x[start:end], y[start:end], total[i, 0, start:end], total[i, 1, start:end])


@_compiled
def sie(x, y, table, total):
    """Add the deflection of SIE lenses, a row each (center_x, center_y, theta_E, e1, e2), to totals (B, 2, P)."""
    for i in range(table.shape[0]):
        for start in range(0, x.shape[0], _BLOCK):
            end = min(start + _BLOCK, x.shape[0])
            _sie(table[i], x[start:end], y[start:end], total[i, 0, start:end], total[i, 1, start:end])


@_compiled
def shear(x, y, table, total):
    """Add the deflection of external shears, a row each (center_x, center_y, gamma1, gamma2), to totals (B, 2, P)."""
    for i in range(table.shape[0]):
        for start in range(0, x.shape[0], _BLOCK):
            end = min(start + _BLOCK, x.shape[0])
            _shear(table[i], x[start:end], y[start:end], total[i, 0, start:end], total[i, 1, start:end])


@_compiled
def _sersic(row, at_x, at_y, by_x, by_y, growth, light):
    center_x, center_y, amp, size, n, b_n, e1, e2 = row
    scale, core = 1 / ((1 - e1 * e1 - e2 * e2) * size * size), _SMOOTHING2 / (size * size)
    half, b = 0.5 / n, b_n * _PER_LN2
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


@_compiled
def sersic(theta, theta_lens, theta_axis, alpha, alpha_lens, alpha_axis, table, total):
    """Add the brightness of Sersic profiles, a row each, at theta - alpha to totals (B, P).

    Positions come as what lies in memory, with the steps from one lens to the next and from x to y; a row of the table
    is center_x, center_y, amp, R_sersic, n_sersic, b_n, e1, e2.
    """
    points = total.shape[1]
    growth = np.empty(_BLOCK)
    for i in range(table.shape[0]):
        if table[i, 2] == 0.0:  # no light
            continue
        to, ao = i * theta_lens, i * alpha_lens
        at_x, at_y = theta[to : to + points], theta[to + theta_axis : to + theta_axis + points]
        by_x, by_y = alpha[ao : ao + points], alpha[ao + alpha_axis : ao + alpha_axis + points]
        light = total[i]
        for start in range(0, points, _BLOCK):
            part = slice(start, min(start + _BLOCK, points))
            _sersic(table[i], at_x[part], at_y[part], by_x[part], by_y[part], growth, light[part])


@_compiled
def blur(image, lines, out):
    """Convolve images (B, H, W) with the same line (B, K), K odd, along both axes, edge pixels repeated outside."""
    height, width = image.shape[1:]
    radius = lines.shape[1] // 2
    padded = np.empty(width + 2 * radius, image.dtype)
    for i in range(image.shape[0]):
        line = lines[i]
        for row in range(height):
            middle = padded[radius : radius + width]
            middle[:] = 0.0
            for k in range(line.shape[0]):
                weight, read = line[k], image[i, min(max(row + k - radius, 0), height - 1)]
                for p in range(width):
                    middle[p] += weight * read[p]
            padded[:radius] = middle[0]
            padded[radius + width :] = middle[width - 1]
            blurred = out[i, row]
            blurred[:] = 0.0
            for k in range(line.shape[0]):
                weight, shifted = line[k], padded[k : k + width]
                for p in range(width):
                    blurred[p] += weight * shifted[p]


@_compiled
def points(x, y, strength, center_x, center_y, core2, total):
    """Add the deflection of point masses, (B, K) each, to totals (B, 2, P)."""
    for i in range(strength.shape[0]):
        for start in range(0, x.shape[0], _BLOCK):
            end = min(start + _BLOCK, x.shape[0])
            # arrays of one dimension are what vectorises
            at_x, at_y, sum_x, sum_y = x[start:end], y[start:end], total[i, 0, start:end], total[i, 1, start:end]
            for k in range(strength.shape[1]):
                s, a, b = strength[i, k], center_x[i, k], center_y[i, k]
                if s == 0.0:
                    continue
                for p in range(at_x.shape[0]):
                    dx = at_x[p] - a
                    dy = at_y[p] - b
                    weight = s / (dx * dx + dy * dy + core2)
                    sum_x[p] += weight * dx
                    sum_y[p] += weight * dy


@_compiled
def tabulated(x, y, slope, center_x, center_y, per_step, total):
    """Add the deflection of the halos (K) of one lens to a total (2, P); tables (K, nodes) hold their alpha / r."""
    sum_x, sum_y = total[0], total[1]
    for k in range(slope.shape[0]):
        table, a, b = slope[k], center_x[k], center_y[k]
        if table[0] == 0.0:
            continue
        for p in range(x.shape[0]):
            dx = x[p] - a
            dy = y[p] - b
            place = math.sqrt(math.sqrt(dx * dx + dy * dy)) * per_step
            j = max(int(place) - 1, 0)
            t = place - j  # from the first of four nodes, between 1 and 2 but next to the centre
            u, v, w = t - 1.0, t - 2.0, t - 3.0
            weight = (t * u * v * table[j + 3] - u * v * w * table[j]) / 6  # Lagrange
            weight += (t * v * w * table[j + 1] - t * u * w * table[j + 2]) / 2
            sum_x[p] += weight * dx
            sum_y[p] += weight * dy
