"""The level of the sky: what is left of it, or was taken off too much, along the borders of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_BORDER = 8  # of the shorter side: how wide the border is
_FEWEST = 32  # pixels of the border that tell a level


@dataclass(frozen=True)
class SkyLevel:
    """A level of the sky.

    Args:
        level: [flux per pixel].
        error: of the level, for noise that is white [flux per pixel].
        scatter: of a pixel [flux per pixel].
        significant: sigma of the level that count as one.
        tolerated: share of a pixel's scatter that a level may have: the wings of PSF and galaxies leave some.
    """

    level: float
    error: float
    scatter: float
    significant: float = 5.0
    tolerated: float = 0.5

    @property
    def off(self) -> bool:
        """Whether the sky is not at zero."""
        return abs(self.level) > max(self.significant * self.error, self.tolerated * self.scatter)

    @property
    def text(self) -> str:
        """The level, for messages."""
        share = self.level / self.scatter if self.scatter else 0.0
        return f"{self.level:.3g}, {share:+.2f} sigma of a pixel's noise"


def sky_level(image: Array, where: Array | None = None, width: int | None = None) -> SkyLevel | None:
    """Return the level of the sky along the borders of an image, by sigma clipping; None if too little is seen of it.

    What stands out of the border in the mean of 3 x 3 pixels is light, or a fault, and is left out.

    Args:
        image: (H, W).
        where: the pixels that count, (H, W) bool; all if None.
        width: of the border [pixels]; an eighth of the shorter side if None.
    """
    from astropy.stats import sigma_clip, sigma_clipped_stats  # slow to import
    from scipy.ndimage import uniform_filter

    counted = np.isfinite(image) if where is None else np.isfinite(image) & where
    border = _border(image.shape, width or max(2, min(image.shape) // _BORDER)) & counted
    if border.sum() < _FEWEST:
        return None
    filled = np.where(counted, image, np.median(image[border]))
    smooth = np.ma.array(uniform_filter(filled.astype(np.float64), 3), mask=~border)
    dark = border & ~np.ma.getmaskarray(sigma_clip(smooth, sigma=3.0))
    values = image[dark].astype(np.float64)
    if values.size < _FEWEST:
        return None
    mean, _, scatter = sigma_clipped_stats(values, sigma=3.0)
    return SkyLevel(float(mean), float(scatter) / values.size**0.5, float(scatter)) if scatter > 0 else None


def darkest_border(image: Array, where: Array | None = None) -> float | None:
    """Return the level of the darkest of the eight parts of the borders, of corners and sides, as `sky_level` has them.

    Arcs and a source's wings are somewhere along the borders, a sky everywhere. None if too little is seen of them.

    Args:
        image: (H, W), in any unit.
        where: the pixels that count, (H, W) bool; all if None.
    """
    counted = np.isfinite(image) if where is None else np.isfinite(image) & where
    width = max(2, min(image.shape) // _BORDER)
    bands = [(slice(0, width), slice(width, n - width), slice(n - width, n)) for n in image.shape]
    parts = [(y, x) for i, y in enumerate(bands[0]) for j, x in enumerate(bands[1]) if (i, j) != (1, 1)]
    levels = [float(image[part][counted[part]].mean()) for part in parts if counted[part].any()]
    return min(levels) if len(levels) > len(parts) // 2 else None


def _border(shape: tuple[int, ...], width: int) -> Array:
    border = np.ones(shape, bool)
    border[width : shape[0] - width, width : shape[1] - width] = False
    return border
