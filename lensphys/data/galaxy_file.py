"""The image of a galaxy in a file, to be the source of a fit."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensphys.basics.checks import LensphysError, check_file, check_positive
from lensphys.data.npy import read_npy
from lensphys.fits.header import pixel_scale as header_scale
from lensphys.fits.image import read_fits_image
from lensphys.model import Pixels

_SMALLEST = 4  # pixels along a side: a cubic spline goes through so many


def galaxy_in(path: Path, pixel_scale: float | None = None) -> Pixels:
    """Return the image of a galaxy.

    Args:
        path: .npy (H, W), or FITS.
        pixel_scale: [arcsec], in the source plane; by default that of the FITS header.

    Raises:
        LensphysError: if the file is faulty, has no pixel scale, or shows no light.
    """
    check_file("source image", path)
    return _galaxy(path, pixel_scale, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _galaxy(path: Path, pixel_scale: float | None, changed: int) -> Pixels:
    """What `galaxy_in` returns, read once while the file is not changed."""
    image, scale = _read(path, pixel_scale)
    if image.ndim != 2 or min(image.shape) < _SMALLEST:
        raise LensphysError(
            f"source image {path} must be one image (H, W) of {_SMALLEST} x {_SMALLEST} pixels or more, got "
            f"{image.shape}"
        )
    if not np.isfinite(image).all():
        bad = int((~np.isfinite(image)).sum())
        raise LensphysError(f"source image {path} holds {bad} NaN or infinite pixels: replace them")
    if image.max() <= 0:
        raise LensphysError(f"source image {path} has no positive pixel: there is no galaxy in it")
    check_positive(f"pixel_scale of {path}", scale)
    origin = {"file": path.name, "pixel_scale": scale, "sha256": hashlib.sha256(image.tobytes()).hexdigest()}
    return Pixels.from_image(image, scale, origin)


def _read(path: Path, pixel_scale: float | None) -> tuple[NDArray[Any], float]:
    if path.suffix.lower() != ".npy":
        found = read_fits_image(path)
        image, scale = found.image, pixel_scale or header_scale(found.header, str(path))
    else:
        image, scale = read_npy("source image", path), pixel_scale
    if scale is None:
        raise LensphysError(f"source image {path} has no pixel scale: give pixel_scale in arcsec")
    return image, scale
