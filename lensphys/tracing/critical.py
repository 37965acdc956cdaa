"""Critical curves and caustics: where the map from the image plane to the source plane folds.

Of deflections that are known on pixels alone (`critical_curves`), or of a formula (`curves_of_formula`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lensphys.basics.checks import LensphysError, check_positive
from lensphys.tracing import derivatives
from lensphys.tracing.grid import PixelGrid

SMALLEST = 5.0  # pixels: finite differences across a singular centre reach that far
_STEPS = 200  # of the half width: as finely as the curves of a formula are looked for
_NEAREST, _FARTHEST = 1e-3, 1e3  # arcsec: how far out the outermost curve is expected
_SQUARES, _PER_SIDE = 50, 32
_AT_ONCE = 50_000  # points: memory does not grow with the number of steps
_FEWEST = 100  # points of a curve; one of fewer is looked at by so many steps from its middle outwards
_NEWTON = 3  # steps that take a point from its chord onto the curve
_ON_CURVE = 1e-3  # of det A: where it is larger, a contour only followed the jump at a line of mass

Array = NDArray[Any]
Curves = list[NDArray[np.float64]]
Jacobian = Callable[[Tensor], Tensor]


def determinant(j: Tensor) -> Tensor:
    """Return det(1 - J), (B, H, W), of the deflection's Jacobian J (B, 2, 2, H, W): one over the magnification."""
    return (1 - j[:, 0, 0]) * (1 - j[:, 1, 1]) - j[:, 0, 1] * j[:, 1, 0]


def stretches(j: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues of 1 - J, 1 - kappa - |gamma| and 1 - kappa + |gamma|, each (B, H, W), of J as above."""
    kappa, gamma1 = 0.5 * (j[:, 0, 0] + j[:, 1, 1]), 0.5 * (j[:, 0, 0] - j[:, 1, 1])
    gamma = torch.hypot(gamma1, 0.5 * (j[:, 0, 1] + j[:, 1, 0]))
    return 1 - kappa - gamma, 1 - kappa + gamma


def contours(values: Array, scale: float) -> Curves:
    """Return the lines on which an image (H, W) is zero, each (M, 2): x, y [arcsec] about its middle."""
    from skimage.measure import find_contours

    middle = 0.5 * (np.array(values.shape) - 1)
    return [np.ascontiguousarray(((points - middle) * scale)[:, ::-1]) for points in find_contours(values, 0.0)]


@dataclass(frozen=True)
class Curve:
    """One critical curve, and the caustic that it is mapped to.

    Args:
        kind: ``tangential`` where 1 - kappa - gamma = 0, ``radial`` where 1 - kappa + gamma = 0.
        critical: points x, y in the image plane, (M, 2) [arcsec] about the middle of the image; the first is the last
            unless the edge of the image cuts the curve.
        caustic: the same points in the source plane, (M, 2) [arcsec].
    """

    kind: Literal["tangential", "radial"]
    critical: Array
    caustic: Array

    @property
    def closed(self) -> bool:
        """Whether the image holds all of it."""
        return bool(np.allclose(self.critical[0], self.critical[-1]))


def critical_curves(alpha: Array, scale: float, *, smallest: float = SMALLEST) -> list[Curve]:
    """Return the critical curves of a deflection field, the longest first.

    kappa and shear are finite differences of alpha (its symmetric part), so the curves are good to a fraction of a
    pixel. A radial curve of fewer than ``smallest`` pixels across is left out: at the singular centre of an SIE or a
    point mass there is none, and finite differences make one.

    Args:
        alpha: (2, H, W) [arcsec], x and y, H and W at least 3; NaN where it is not known.
        scale: pixel scale [arcsec].
        smallest: extent of the smallest radial curve [pixels].

    Raises:
        LensphysError: if alpha is not such an array.
    """
    check_positive("pixel scale", scale)
    if alpha.ndim != 3 or alpha.shape[0] != 2 or min(alpha.shape[1:]) < 3:
        raise LensphysError(f"a deflection field must have the shape (2, H, W), H and W at least 3, got {alpha.shape}")
    alpha = alpha.astype(np.float64)
    tangential, radial = (x[0].numpy() for x in stretches(derivatives.jacobian(torch.from_numpy(alpha)[None], scale)))
    found = [_curve("tangential", points, alpha, scale) for points in contours(tangential, scale)]
    found += [
        _curve("radial", points, alpha, scale)
        for points in contours(radial, scale)
        if np.ptp(points, axis=0).max() >= smallest * scale
    ]
    return sorted((c for c in found if np.isfinite(c.caustic).all()), key=lambda c: -len(c.critical))


def _curve(kind: Literal["tangential", "radial"], points: Array, alpha: Array, scale: float) -> Curve:
    """The curve through points x, y (M, 2) [arcsec]."""
    from scipy.ndimage import map_coordinates

    middle = 0.5 * (np.array(alpha.shape[1:]) - 1)
    places = (points[:, ::-1] / scale + middle).T
    deflection = np.stack([map_coordinates(part, places, order=1, mode="nearest") for part in alpha], axis=1)
    return Curve(kind, points, points - deflection)


def curves_of_formula(
    jacobian: Jacobian, reach: float, half_width: float | None = None, step: float | None = None
) -> Curves:
    """Return the curves det A = 0 of a lens: see `MassProfile.critical_curves`.

    They are contours of det A on a grid, whose points are then taken onto the curve by Newton's method.

    Args:
        jacobian: theta (1, 2, H, W) [arcsec] -> d alpha_i / d theta_j, (B, 2, 2, H, W).
        reach: how far from the origin, along an axis, its components lie [arcsec].
        half_width: of the square that is searched [arcsec].
        step: of the grid [arcsec].

    Raises:
        LensphysError: if half_width or step is not positive, or a curve leaves the square or lies around it.
    """
    half = _beyond(jacobian, reach) if half_width is None else half_width
    step = half / _STEPS if step is None else step
    check_positive("half_width", half)
    check_positive("step", step)
    side = _side(half, step)
    edge = 0.5 * (side - 1.001) * step  # the outermost pixels, where the edge cuts a curve
    found = []
    for coarse in _traced(jacobian, np.zeros(2), half, step):
        line = coarse if len(coarse) >= _FEWEST else _finer(jacobian, coarse, step)
        place, left = _onto(jacobian, torch.from_numpy(line).T, step)
        if left >= _ON_CURVE:
            continue
        if np.abs(coarse[0]).max() > edge:
            raise LensphysError(
                f"a critical curve leaves the square of half_width {half:g} arcsec: give a larger half_width"
            )
        found.append(place.numpy())
    if half_width is not None and not bool(_upright(jacobian, _edge(half)).all()):
        raise LensphysError(
            f"a critical curve lies around the square of half_width {half:g} arcsec: give a larger half_width"
        )
    return found


def _side(half: float, step: float) -> int:
    return 2 * max(2, round(half / step))  # even: no point lies on the axes, where lines of mass like to be


def _traced(jacobian: Jacobian, middle: Array, half: float, step: float) -> Curves:
    """The contours det A = 0 in a square about a middle (2,), each (M, 2) [arcsec]."""
    side, like = _side(half, step), torch.zeros((), dtype=torch.float64)
    place = PixelGrid(side, side, step).positions(like=like) + torch.from_numpy(middle)[:, None, None]
    folded = _in_parts(lambda p: _folded(jacobian, p), place)
    return [line + middle for line in contours(folded[0].reshape(side, side).numpy(), step)]


def _finer(jacobian: Jacobian, line: Array, step: float) -> Array:
    """A small contour (M, 2) once more, on a grid of its own."""

    def middle(points: Array) -> Array:
        return np.asarray(0.5 * (points.min(0) + points.max(0)))

    half = 0.5 * float(np.ptp(line, axis=0).max()) + 2 * step
    whole = [new for new in _traced(jacobian, middle(line), half, half / _FEWEST) if np.allclose(new[0], new[-1])]
    return min(whole, key=lambda new: float(np.abs(middle(new) - middle(line)).max()), default=line)


def _folded(jacobian: Jacobian, position: Tensor) -> Tensor:
    """The determinant of A = 1 - d alpha / d theta, (1, H, W)."""
    det = determinant(jacobian(position))
    if len(det) > 1:
        raise LensphysError(f"critical curves are those of one lens, and the parameters are those of {len(det)}")
    return det.detach()


def _in_parts(formula: Callable[[Tensor], Tensor], position: Tensor) -> Tensor:
    parts = position.reshape(1, 2, 1, -1).split(_AT_ONCE, dim=3)
    return torch.cat([formula(part) for part in parts], dim=-1)


def _beyond(jacobian: Jacobian, reach: float) -> float:
    """Half the side of a square about the origin, on whose edge no image is turned or mirrored: all curves are inside.

    Raises:
        LensphysError: if there is none.
    """
    least = 1.5 * max(_NEAREST, reach)
    halves = torch.logspace(math.log10(least), math.log10(_FARTHEST), _SQUARES, dtype=torch.float64)
    edges = torch.cat([_edge(half) for half in halves.tolist()], dim=3)
    beyond = _upright(jacobian, edges).reshape(_SQUARES, -1).all(1).nonzero()
    if len(beyond) == 0:
        raise LensphysError(
            f"the critical curves reach farther than {_FARTHEST:g} arcsec (a shear or a convergence of 1?): give "
            "half_width"
        )
    return 1.1 * float(halves[beyond[0]])


def _upright(jacobian: Jacobian, position: Tensor) -> Tensor:
    """Where no image is turned or mirrored, of positions (1, 2, H, W)."""
    return stretches(jacobian(position).detach())[0] > 0


def _edge(half: float) -> Tensor:
    """Points along the edge of a square, (1, 2, 1, M) [arcsec]."""
    line = torch.linspace(-half, half, _PER_SIDE, dtype=torch.float64)
    corner = torch.full_like(line, half)
    sides = itertools.chain(*(((line, s * corner), (s * corner, line)) for s in (-1, 1)))
    return torch.cat([torch.stack(side) for side in sides], dim=1)[None, :, None]


def _onto(jacobian: Jacobian, place: Tensor, step: float) -> tuple[Tensor, float]:
    """The points (2, M) of a contour on its curve, and the median |det A| there.

    By Newton steps along the gradient of det A, none longer than ``step``.
    """

    def det(position: Tensor) -> Tensor:
        return determinant(jacobian(position))

    at = place.reshape(1, 2, 1, -1)
    value = det(at).detach()
    for _ in range(_NEWTON):
        slope = torch.stack([torch.func.jvp(det, (at,), (along,))[1] for along in derivatives.axes(at)], dim=1).detach()
        move = -value[:, None] * slope / slope.square().sum(1, keepdim=True).clamp(min=1e-30)
        moved = at + move * (step / move.square().sum(1, keepdim=True).sqrt().clamp(min=step))
        new = det(moved).detach()
        better = new.abs() < value.abs()
        at, value = torch.where(better[:, None], moved, at), torch.where(better, new, value)
    return at[0, :, 0], float(value.abs().median())
