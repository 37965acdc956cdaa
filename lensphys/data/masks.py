"""Masks in files of their own: which pixels of the images count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lensphys.basics.checks import LensphysError
from lensphys.data.npy import read_npy_mask
from lensphys.fits.image import mask_role, read_mask
from lensphys.fits.masks import Mask

Array = NDArray[Any]


def mask_in(path: Path, band: str = "", telescope: str = "") -> Mask:
    """Return the mask of a file of its own, (H, W) or (N, H, W).

    Args:
        path: .npy (numbers or truth values, bits if the file's name says flags), or FITS.
        band: of the image, where the file has several.
        telescope: of the image, whose bits flags are where the mask does not say.

    Raises:
        LensphysError: if the file is faulty, or holds no mask.
    """
    if path.suffix.lower() == ".npy":
        return Mask(read_npy_mask("mask", path), path.name, str(path), mask_role(path), telescope=telescope)
    return read_mask("mask", path, band, telescope)


def check_fits(mask: Mask, images: tuple[int, ...]) -> None:
    """Raise unless a mask fits a stack (N, H, W): one for all images, or one each.

    Raises:
        LensphysError: with both shapes.
    """
    if mask.values.shape not in (images[1:], (1, *images[1:]), images):
        raise LensphysError(
            f"{mask.where} must have the shape of the image, {images[1:]}, or of the stack, {images}, got "
            f"{mask.values.shape}"
        )
