"""Masks in files of their own: which pixels of the images count."""

from __future__ import annotations

from pathlib import Path

from lensphys.data.npy import TRUTH, mapped_npy
from lensphys.fits.given import Subject
from lensphys.fits.image import mask_role, read_mask
from lensphys.fits.masks import Mask


def mask_in(path: Path, image: Subject) -> Mask:
    """Return the mask of a file of its own, (H, W) or (N, H, W).

    Args:
        path: .npy (numbers or truth values, bits if the file's name says flags), or FITS.
        image: of which it is, where the file has several.

    Raises:
        LensphysError: if the file is faulty, or holds no mask.
    """
    if path.suffix.lower() == ".npy":
        return Mask(mapped_npy("mask", path, TRUTH), path.name, str(path), mask_role(path), telescope=image.telescope)
    return read_mask("mask", path, image)
