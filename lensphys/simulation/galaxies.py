"""Images of galaxies that serve as sources: FITS images and .npy stacks of the user."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensphys.basics.checks import LensphysError
from lensphys.data.npy import read_npy
from lensphys.simulation.folder import recipe_folder

Stack = NDArray[np.float64]


def galaxy_images(file: str) -> Stack:
    """Return the images of a file, each with the sum 1, (N, h, w).

    Raises:
        LensphysError: if there is no such file, it holds no images, or one of them is not finite or has no flux.
    """
    path = _found(file)
    return _read(str(path), path.stat().st_mtime_ns)


def with_image(keywords: dict[str, Any]) -> dict[str, Any]:
    """Return the keywords of a light profile as lenstronomy wants them: an image in place of its file and index."""
    if "file" not in keywords:
        return keywords
    rest = {name: value for name, value in keywords.items() if name not in ("file", "index")}
    return {"image": galaxy_images(keywords["file"])[keywords["index"]]} | rest


def _found(file: str) -> Path:
    """The path of a file: where the command runs, or beside the recipes that come with lensphys."""
    path = next((p for p in (Path(file), recipe_folder() / file) if p.is_file()), None)
    if path is None:
        raise LensphysError(
            f"images of galaxies not found: {file} is not a file: give an .npy stack (N, H, W) or a FITS image, "
            "for example --set source.file=galaxies.npy"
        )
    return path


@lru_cache(maxsize=8)
def _read(file: str, changed: int) -> Stack:
    path = Path(file)
    stack = _fits_stack(path) if ".fit" in path.name.lower() else read_npy("images of galaxies", path)
    if stack.ndim == 2:
        stack = stack[None]
    if stack.ndim != 3 or min(stack.shape) < 1 or min(stack.shape[1:]) < 2:
        raise LensphysError(f"{file} has the shape {stack.shape}: expected images of galaxies (N, H, W) or (H, W)")
    stack = stack.astype(np.float64)
    faulty = np.flatnonzero(~np.isfinite(stack).all((1, 2)))
    if len(faulty):
        raise LensphysError(f"{file}: image {faulty[0]} holds NaN or infinite values: mask them or leave it out")
    total = stack.sum((1, 2))
    if not (total > 0).all():
        raise LensphysError(f"{file}: image {int(np.argmin(total))} has no flux (sum {total.min():g}): leave it out")
    return stack / total[:, None, None]


def _fits_stack(path: Path) -> Stack:
    from lensphys.fits.image import read_fits_cube

    return read_fits_cube("images of galaxies", path)


def fingerprint(file: str) -> str:
    """Return a hash of the bytes of a file.

    Raises:
        LensphysError: if there is no such file.
    """
    path = _found(file)
    return _hashed(str(path), path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _hashed(file: str, changed: int) -> str:
    with Path(file).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
