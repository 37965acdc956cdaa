"""How images of the same field lie on each other, by their headers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import pixel_to_pixel

from lensphys.basics.checks import LensphysError
from lensphys.fits.header import celestial, has_steps, reason, same_scale

_STEP = 10.0  # pixels from the middle, by which its axes are told


@dataclass(frozen=True)
class Frame:
    """The pixels of an image and where they are.

    Args:
        name: of the image, for messages.
        header: with its WCS.
        shape: (H, W).
        scale: of a pixel [arcsec].
    """

    name: str
    header: fits.Header
    shape: tuple[int, int]
    scale: float

    @property
    def wcs(self) -> WCS | None:
        """Of the sky; None where the header has none.

        Raises:
            LensphysError: if it is faulty.
        """
        if not has_steps(self.header):
            return None
        try:
            return celestial(self.header)
        except Exception as error:  # wcslib and astropy raise errors of any type
            raise LensphysError(f"{self.name} has a faulty WCS: repair it, or remove it ({reason(error)})") from None

    @property
    def middle(self) -> np.ndarray:
        """Its middle, x and y [pixels, the first is 0]."""
        return np.array([(self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2])


def place_on(frame: Frame, other: Frame, *, scale_tolerance: float = 0.02) -> tuple[float, float, float] | None:
    """Return where an image lies on another one: its middle, x and y [arcsec], and its rotation from x to y [rad].

    Both in the axes of the other one's array, from its middle. None where one of them has no WCS.

    Args:
        frame: the image.
        other: the one that it lies on.
        scale_tolerance: share by which they may disagree about the size of a pixel.

    Raises:
        LensphysError: if a WCS is faulty, one image is mirrored, or they disagree about the size of a pixel.
    """
    own, there = frame.wcs, other.wcs
    if own is None or there is None:
        return None
    points = frame.middle[:, None] + _STEP * np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    try:
        x, y = pixel_to_pixel(own, there, *points)
    except Exception as error:  # as above
        raise LensphysError(f"{frame.name} and {other.name} have no sky in common: {reason(error)}") from None
    place = other.scale * (np.stack([x, y]) - other.middle[:, None])
    if not np.isfinite(place).all():
        raise LensphysError(f"{frame.name} does not lie on the sky of {other.name}, by their WCS: leave one out")
    along_x, along_y = (place[:, 1:] - place[:, :1]).T / (_STEP * frame.scale)
    if along_x[0] * along_y[1] - along_x[1] * along_y[0] < 0:
        raise LensphysError(f"{frame.name} is mirrored against {other.name}, by their WCS: flip one of them")
    size = math.hypot(*along_x)
    if not same_scale(size, 1, scale_tolerance):
        raise LensphysError(
            f"{frame.name} and {other.name} disagree about the size of a pixel by {100 * abs(size - 1):.0f} %: repair "
            "a WCS, or give no --pixel-scale"
        )
    return float(place[0, 0]), float(place[1, 0]), math.atan2(along_x[1], along_x[0])
