"""Arcs further out than those of the source that was fitted: what a double ring shows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from pydantic import PositiveFloat, PositiveInt

from lensphys.basics.scatter import scatter
from lensphys.basics.settings import Strict
from lensphys.fitting.problem import LensProblem
from lensphys.fitting.source import Fitted
from lensphys.model import centre_of
from lensphys.observation.kernel import star_width
from lensphys.observation.psf import FWHM_PER_SIGMA


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


class SecondSource(Strict):
    """When what a fit leaves over is the arc of another source.

    The residual is averaged in sectors of rings about the lens, those on both sides taken off: what is broad, as light
    of the galaxy that its model lacks, is no arc.

    Args:
        sectors: of a ring.
        signal: of a sector, in units of the scatter of all of them.
        angle: that adjacent ones span about the lens, at least [degrees].
        slender: length over width, at least.
        beyond: how far from the lens it is, at least,
        within: and at most [Einstein radii].
    """

    sectors: PositiveInt = 24
    signal: PositiveFloat = 3.0
    angle: PositiveFloat = 59.0
    slender: PositiveFloat = 3.0
    beyond: PositiveFloat = 1.15
    within: PositiveFloat = 4.0

    def arc(self, whole: LensProblem, fit: Fitted) -> Arc | None:
        """Return the longest arc that the fit of one image does not explain; None where there is none.

        Args:
            whole: the image with all of its pixels, those that the fit left out among them.
            fit: its fit.
        """
        problem, camera, main = fit.problem, whole.observation.camera, fit.problem.model.main
        values = problem.values(fit.x)
        if f"{main}.theta_E" not in values:
            return None
        theta_E, width = (
            float(values[f"{main}.theta_E"]),
            max(2 * camera.grid.scale, FWHM_PER_SIGMA * star_width(camera, fit.x)),
        )
        away = problem.positions(camera.grid) - centre_of(values, main)[:, :, None, None]
        planes = (whole.observation.image - problem.shown(fit.x), whole.inverse_sigma.square(), *away.split(1, 1))
        rest, weight, x, y = (plane.flatten().double().cpu().numpy() for plane in planes)
        inner = self.beyond * theta_E - 2 * width
        rings = int((self.within * theta_E - inner) / width) + 3
        ring = np.floor((np.hypot(x, y) - inner) / width).astype(int)
        light, known = (self._summed(values, ring, np.arctan2(y, x), rings) for values in (rest * weight, weight))
        return max(self._arcs(light, known, inner, width), key=lambda arc: arc.angle, default=None)

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
            angle = min(1.0, (np.ptp(sector) + 1) / self.sectors) * 2 * math.pi
            found.append(Arc(inner + (middle + 2.5) * width, angle, (high - low + 1) * width))
        return [arc for arc in found if self._is_one(arc)]

    def _is_one(self, arc: Arc) -> bool:
        return math.degrees(arc.angle) > self.angle and arc.radius * arc.angle > self.slender * arc.width
