"""The restoring beam of an interferometer's image, as its header has it, as a PSF kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from lensphys.basics.checks import is_number
from lensphys.fits.kernel import Kernel
from lensphys.fits.sky import Frame

Array = NDArray[np.float64]

_REACH = 2.0  # FWHM of the long axis that a kernel reaches: there the beam has fallen below 1e-4 of its peak
_FEWEST = 3.0  # pixels of a kernel in the FWHM of the short axis
_ROUND = 0.01  # share by which the axes of a round beam differ, whose position angle means nothing


@dataclass(frozen=True)
class Beam:
    """An elliptical Gaussian on the sky.

    Args:
        major: FWHM of the long axis [arcsec].
        minor: of the short one [arcsec].
        angle: of the long axis, from north through east [deg]; None if the header has none.
    """

    major: float
    minor: float
    angle: float | None

    @classmethod
    def of(cls, header: fits.Header) -> Beam | None:
        """Return that of a header, by BMAJ, BMIN and BPA [deg]; None if it has none."""
        major, minor, angle = (_number(header.get(key)) for key in ("BMAJ", "BMIN", "BPA"))
        if major is None or minor is None or min(major, minor) <= 0:
            return None
        return cls(3600 * major, 3600 * minor, angle)

    def __str__(self) -> str:
        turned = "" if self.angle is None else f" at {self.angle:.3g} deg from north to east"
        return f'a beam of {self.major:.3g}" x {self.minor:.3g}"{turned} (BMAJ, BMIN, BPA)'

    def fault(self, shape: tuple[int, int], scale: float) -> str:
        """Return why an image (H, W) with pixels of this scale [arcsec] cannot have it; nothing where it can."""
        if self.minor < scale:
            return "narrower than a pixel"
        if self.major > min(shape) * scale:
            return "wider than the image: are BMAJ and BMIN in degrees?"
        if self.angle is None and self.major > (1 + _ROUND) * self.minor:
            return "and BPA does not say where its long axis lies"
        return ""

    def kernel(self, frame: Frame) -> Kernel:
        """Return it in the axes of an image, with the sum 1; the light that falls on a pixel is that in its middle.

        Args:
            frame: of the image, whose WCS says where north and east are; up and left, if it has none.

        Raises:
            LensphysError: if the WCS is faulty.
        """
        finer = math.ceil(_FEWEST * frame.scale / self.minor)
        pixel, most = frame.scale / finer, (min(frame.shape) - 1) // 2 * finer
        half = min(math.ceil(_REACH * self.major / pixel), most)
        y, x = pixel * (np.indices((2 * half + 1, 2 * half + 1)) - half)
        east, north = np.tensordot(_sky_of_axes(frame), np.stack([x, y]), 1)
        turn = math.radians(self.angle or 0.0)
        along = east * math.sin(turn) + north * math.cos(turn)
        across = east * math.cos(turn) - north * math.sin(turn)
        values = np.exp(-4 * math.log(2) * ((along / self.major) ** 2 + (across / self.minor) ** 2))
        return Kernel(values / values.sum(), pixel, where="the header", remarks=(str(self),))


def _number(value: object) -> float | None:
    return float(value) if is_number(value) and math.isfinite(value) else None


def _sky_of_axes(frame: Frame) -> Array:
    """The directions of an array's axes on the sky of its middle, (east, north) by (x, y), whatever a pixel's size."""
    if frame.wcs is None:
        return np.array([[-1.0, 0.0], [0.0, 1.0]])
    x, y = frame.middle
    middle, *ends = frame.wcs.pixel_to_world([x, x + 1, x], [y, y, y + 1])
    steps = np.array([[offset.arcsec for offset in middle.spherical_offsets_to(end)] for end in ends]).T
    return np.asarray(steps / math.sqrt(abs(np.linalg.det(steps))))
