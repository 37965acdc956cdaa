"""Small pictures of lenses: as they were seen, and super-resolved, a strip for a part of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lensphys.basics.outputs import whole_file

SIDE, GAP = 72, 4  # pixels of a picture, and between two
WIDTH, STEP = 2 * SIDE + GAP, SIDE + GAP
_SOFT = 0.05  # of the peak: below it the grey is linear

Pair = tuple[NDArray[np.floating], NDArray[np.floating]]


def write_strip(path: Path, pairs: Sequence[Pair | None]) -> None:
    """Write a PNG: a line a lens, at left the image, at right the super-resolved one; None leaves a line empty.

    Args:
        path: the file.
        pairs: images (H, W) and (sH, sW), rows of pixels growing upwards.
    """
    strip = np.zeros((len(pairs) * STEP, WIDTH), np.uint8)
    for k, pair in enumerate(pairs):
        for image, left in zip(pair or (), (0, SIDE + GAP), strict=False):
            strip[k * STEP : k * STEP + SIDE, left : left + SIDE] = picture(image)
    with whole_file(path) as temporary:
        Image.fromarray(strip).save(temporary, "PNG")


def picture(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return an image (H, W) as grey (SIDE, SIDE): asinh of the flux, from its median to its peak."""
    plain = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    floor, peak = float(np.median(plain)), float(plain.max())
    scaled = (plain - floor) / max(peak - floor, 1e-300) / _SOFT
    grey = np.clip(np.arcsinh(scaled) / np.arcsinh(1 / _SOFT), 0, 1)
    side = max(grey.shape)
    square = np.zeros((side, side))
    y, x = ((side - n) // 2 for n in grey.shape)
    square[y : y + grey.shape[0], x : x + grey.shape[1]] = grey
    whole = Image.fromarray((255 * square[::-1]).astype(np.uint8))
    resample = Image.Resampling.BOX if side > SIDE else Image.Resampling.NEAREST
    return np.asarray(whole.resize((SIDE, SIDE), resample))
