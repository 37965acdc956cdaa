"""Where the pixels of an image are on the sky: the local tangent plane of its WCS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from lensphys.fits.header import celestial as celestial_of

Array = NDArray[Any]


@dataclass(frozen=True)
class Sky:
    """The tangent plane about the middle of an image.

    Args:
        ra: right ascension of the middle (ICRS) [degrees].
        dec: its declination [degrees].
        matrix: (2, 2), from x, y along the axes of the array [arcsec] to offsets to the east and the north [arcsec].
    """

    ra: float
    dec: float
    matrix: Array

    @classmethod
    def from_header(cls, header: fits.Header | None, shape: tuple[int, ...], pixel_scale: float) -> Sky | None:
        """Return it for an image of a shape (H, W) with pixels of ``pixel_scale`` [arcsec]; None without a WCS."""
        wcs = None if header is None else celestial(header)
        if wcs is None:
            return None
        y, x = (np.array(shape) - 1) / 2
        try:
            middle, right, up = (wcs.pixel_to_world(x + dx, y + dy).icrs for dx, dy in ((0, 0), (1, 0), (0, 1)))
        except Exception:  # wcslib and astropy raise errors of any type
            return None
        steps = [[offset.arcsec for offset in middle.spherical_offsets_to(other)] for other in (right, up)]
        matrix = np.array(steps).T / pixel_scale
        return cls(float(middle.ra.deg), float(middle.dec.deg), matrix) if np.isfinite(matrix).all() else None

    def direction(self, name: str) -> Array:
        """Return the unit vector of the array's axes that points to the ``east`` or the ``north``, (2,)."""
        vector = np.linalg.solve(self.matrix, {"east": (1.0, 0.0), "north": (0.0, 1.0)}[name])
        return np.asarray(vector / np.hypot(*vector))


def celestial(header: fits.Header) -> WCS | None:
    """Return the celestial WCS of an image, None if it has none that can be used."""
    try:
        return celestial_of(header)
    except Exception:  # wcslib and astropy raise errors of any type
        return None
