"""The level of the sky: what is left of it, or was taken off too much, along the borders of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt

from lensphys.basics.settings import Strict

Array = NDArray[Any]


class SkyBorder(Strict):
    """Where the level of the sky is measured, and when it is off zero.

    Args:
        share: of the shorter side that the border is wide, one in so many.
        fewest: pixels of the border that tell a level.
        clip: sigma beyond which a pixel is light, or a fault, and no sky.
        significant: sigma of the level that count as one.
        tolerated: share of a pixel's scatter that a level may have: the wings of PSF and galaxies leave some.
    """

    share: PositiveInt = 8
    fewest: PositiveInt = 32
    clip: PositiveFloat = 3.0
    significant: PositiveFloat = 5.0
    tolerated: PositiveFloat = 0.5


@dataclass(frozen=True)
class SkyLevel:
    """A level of the sky.

    Args:
        level: [flux per pixel].
        error: of the level, for noise that is white [flux per pixel].
        scatter: of a pixel [flux per pixel].
        border: how it was measured, and when it counts.
    """

    level: float
    error: float
    scatter: float
    border: SkyBorder = SkyBorder()

    @property
    def off(self) -> bool:
        """Whether the sky is not at zero."""
        return abs(self.level) > max(self.border.significant * self.error, self.border.tolerated * self.scatter)

    def least_beyond(self, times: float) -> float:
        """Return the least level that it is not, by so many of its errors [flux per pixel]."""
        return abs(self.level) + times * self.error

    @property
    def text(self) -> str:
        """The level, for messages."""
        share = self.level / self.scatter if self.scatter else 0.0
        return f"{self.level:.3g}, {share:+.2f} sigma of a pixel's noise"


def sky_level(
    image: Array, where: Array | None = None, width: int | None = None, border: SkyBorder = SkyBorder()
) -> SkyLevel | None:
    """Return the level of the sky along the borders of an image, by sigma clipping; None if too little is seen of it.

    What stands out of the border in the mean of 3 x 3 pixels is light, or a fault, and is left out.

    Args:
        image: (H, W) [any unit], that of the level.
        where: the pixels that count, (H, W) bool; all if None.
        width: of the border [pixels]; as ``border`` says if None.
        border: how it is measured.
    """
    from astropy.stats import sigma_clip, sigma_clipped_stats  # slow to import
    from scipy.ndimage import uniform_filter

    counted = np.isfinite(image) if where is None else np.isfinite(image) & where
    edge = _border(image.shape, width or _width(image.shape, border)) & counted
    if edge.sum() < border.fewest:
        return None
    filled = np.where(counted, image, np.median(image[edge]))
    smooth = np.ma.array(uniform_filter(filled.astype(np.float64), 3), mask=~edge)
    clipped = sigma_clip(smooth, sigma=border.clip)
    dark = edge & ~np.ma.getmaskarray(clipped)
    values = image[dark].astype(np.float64)
    if values.size < border.fewest:
        return None
    scatter = float(sigma_clipped_stats(values, sigma=border.clip)[2])
    # the mean of what was averaged: of counts, or of a sky cut at zero, clipped pixels would have another
    level, error = float(clipped.mean()), scatter / values.size**0.5
    return SkyLevel(level, error, scatter, border) if scatter > 0 else None


def darkest_border(image: Array, where: Array | None = None, border: SkyBorder = SkyBorder()) -> float | None:
    """Return the level of the darkest of the eight parts of the borders, of corners and sides, as `sky_level` has them.

    Arcs and a source's wings are somewhere along the borders, a sky everywhere. None if too little is seen of them.

    Args:
        image: (H, W), in any unit.
        where: the pixels that count, (H, W) bool; all if None.
        border: how wide it is.
    """
    counted = np.isfinite(image) if where is None else np.isfinite(image) & where
    width = _width(image.shape, border)
    bands = [(slice(0, width), slice(width, n - width), slice(n - width, n)) for n in image.shape]
    parts = [(y, x) for i, y in enumerate(bands[0]) for j, x in enumerate(bands[1]) if (i, j) != (1, 1)]
    levels = [float(image[part][counted[part]].mean()) for part in parts if counted[part].any()]
    return min(levels) if len(levels) > len(parts) // 2 else None


def _width(shape: tuple[int, ...], border: SkyBorder) -> int:
    return max(2, min(shape) // border.share)


def _border(shape: tuple[int, ...], width: int) -> Array:
    edge = np.ones(shape, bool)
    edge[width : shape[0] - width, width : shape[1] - width] = False
    return edge
