"""Critical curves and caustics of a deflection field that is known on pixels alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from skimage.measure import find_contours

from lensphys.basics.checks import LensphysError, check_positive

Array = NDArray[Any]

SMALLEST = 5.0  # pixels: finite differences across a singular centre reach that far


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
    tangential, radial = _eigenvalues(alpha, scale)
    found = [
        *(_curve("tangential", points, alpha, scale) for points in find_contours(tangential, 0.0)),
        *(_curve("radial", points, alpha, scale) for points in find_contours(radial, 0.0)),
    ]
    real = [c for c in found if c.kind == "tangential" or np.ptp(c.critical, axis=0).max() >= smallest * scale]
    return sorted((c for c in real if np.isfinite(c.caustic).all()), key=lambda c: -len(c.critical))


def _eigenvalues(alpha: Array, scale: float) -> tuple[Array, Array]:
    """1 - kappa - gamma and 1 - kappa + gamma, each (H, W)."""
    (xy, xx), (yy, yx) = (np.gradient(part, scale, edge_order=2) for part in alpha)
    kappa, gamma = 0.5 * (xx + yy), np.hypot(0.5 * (xx - yy), 0.5 * (xy + yx))
    return 1 - kappa - gamma, 1 - kappa + gamma


def _curve(kind: Literal["tangential", "radial"], points: Array, alpha: Array, scale: float) -> Curve:
    """Points are rows and columns."""
    middle = (np.array(alpha.shape[1:]) - 1) / 2
    critical = np.ascontiguousarray(((points - middle) * scale)[:, ::-1])
    deflection = np.stack([map_coordinates(part, points.T, order=1, mode="nearest") for part in alpha], axis=1)
    return Curve(kind, critical, critical - deflection)
