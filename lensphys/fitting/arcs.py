"""Arcs about a lens in what is left of an image: light that follows a circle about it, and is narrow across."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from lensphys.basics.scatter import scatter
from lensphys.basics.settings import Strict
from lensphys.observation import Camera
from lensphys.observation.kernel import star_fwhm


@dataclass(frozen=True)
class Arc:
    """Light about a lens.

    Args:
        radius: its distance from the lens [arcsec].
        angle: that it spans about it [rad].
        width: along the distance [arcsec].
    """

    radius: float
    angle: float
    width: float


class ArcSearch(Strict):
    """What passes for an arc.

    The light is averaged in sectors of rings about the lens, those on both sides taken off: what is broad, as light of
    the galaxy that its model lacks, is no arc.

    Args:
        sectors: of a ring.
        signal: of a sector, in units of the scatter of all of them.
        spanned: how many adjacent sectors are bright, at least.
        slender: length over width, at least.
    """

    sectors: PositiveInt = 24
    signal: PositiveFloat = 3.0
    spanned: PositiveInt = 4
    slender: PositiveFloat = 3.0

    def between(
        self, least: float, most: float, light: Tensor, inverse_sigma: Tensor, away: Tensor, camera: Camera
    ) -> list[Arc]:
        """Return the arcs of one image at some distances from a lens.

        Args:
            least: of them [arcsec].
            most: likewise.
            light: the image without all that is known to shine, (1, 1, H, W) [flux per pixel].
            inverse_sigma: one over its noise, likewise, 0 where masked.
            away: from the lens to each pixel, (1, 2, H, W) [arcsec].
            camera: how the image was taken.
        """
        width = max(2 * camera.grid.scale, star_fwhm(camera, light))
        planes = (light, inverse_sigma.square(), *away.split(1, 1))
        rest, weight, x, y = (plane.flatten().double().cpu().numpy() for plane in planes)
        inner = least - 2 * width
        rings = int((most - inner) / width) + 3
        if rings < 5:  # none with two on either side
            return []
        ring = np.floor((np.hypot(x, y) - inner) / width).astype(int)
        summed, known = (self._summed(values, ring, np.arctan2(y, x), rings) for values in (rest * weight, weight))
        return self._arcs(summed, known, inner, width)

    def _summed(self, values: np.ndarray, ring: np.ndarray, angle: np.ndarray, rings: int) -> np.ndarray:
        """The sums of values of pixels (n,) over sectors of rings, (rings, sectors); angles about the lens [rad]."""
        sector = np.floor((angle / (2 * math.pi) % 1) * self.sectors).astype(int) % self.sectors
        there = (ring >= 0) & (ring < rings)
        place = ring[there] * self.sectors + sector[there]
        return np.bincount(place, values[there], rings * self.sectors).reshape(rings, -1)

    def _arcs(self, light: np.ndarray, known: np.ndarray, inner: float, width: float) -> list[Arc]:
        """The arcs in sums over sectors of rings: of the residual by its weight, and of the weight."""
        from scipy.ndimage import label

        with np.errstate(divide="ignore", invalid="ignore"):
            mean, variance = light / known, 1 / known
            above = mean[2:-2] - 0.5 * (mean[:-4] + mean[4:])
            signal = np.nan_to_num(above / np.sqrt(variance[2:-2] + 0.25 * (variance[:-4] + variance[4:])))
        noise = float(scatter(signal[signal != 0])) if signal.any() else 1.0
        bright = signal > self.signal * max(noise, 1e-6)
        numbers, count = label(np.concatenate([bright, bright], axis=1), np.ones((3, 3)))  # once about and on
        found = []
        for i in range(1, count + 1):
            ring, sector = np.nonzero(numbers == i)
            low, middle, high = np.percentile(ring, [10, 50, 90])
            spanned = min(self.sectors, int(np.ptp(sector)) + 1)
            arc = Arc(inner + (middle + 2.5) * width, spanned / self.sectors * 2 * math.pi, (high - low + 1) * width)
            if spanned >= self.spanned and arc.radius * arc.angle > self.slender * arc.width:
                found.append(arc)
        return found
