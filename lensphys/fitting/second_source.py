"""Arcs of another source among what was left out of a fit: double rings."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from pydantic import PositiveFloat, PositiveInt

from lensphys.basics.settings import Strict
from lensphys.fitting.problem import LensProblem
from lensphys.fitting.source import Fitted
from lensphys.model import centre_of


@dataclass(frozen=True)
class Arc:
    """Connected pixels about a lens.

    Args:
        radius: the median of their distances from the lens [arcsec].
        angle: that they span about it [rad].
        width: of their distances, from the tenth to the ninetieth percentile [arcsec].
    """

    radius: float
    angle: float
    width: float

    @classmethod
    def from_places(cls, x: np.ndarray, y: np.ndarray) -> Arc:
        """Return that of pixels at some places (n,) about the lens [arcsec]."""
        distance, angle = np.hypot(x, y), np.sort(np.arctan2(y, x))
        gaps = np.diff(angle, append=angle[0] + 2 * math.pi)
        low, radius, high = np.percentile(distance, [10, 50, 90])
        return cls(float(radius), 2 * math.pi - float(gaps.max()), float(high - low))


class SecondSource(Strict):
    """When light that was left out of a fit is the arc of another source.

    Args:
        signal: signal-to-noise of a 3 x 3 mean of its pixels.
        fewest: of these.
        angle: that it spans about the lens, at least [degrees].
        slender: length over width, at least.
        beyond: how far from the lens it is, at least,
        within: and at most [Einstein radii].
    """

    signal: PositiveFloat = 3.0
    fewest: PositiveInt = 12
    angle: PositiveFloat = 40.0
    slender: PositiveFloat = 3.0
    beyond: PositiveFloat = 1.15
    within: PositiveFloat = 4.0

    def arc(self, whole: LensProblem, fit: Fitted) -> Arc | None:
        """Return the longest arc that the fit of one image left out; None where there is none.

        Args:
            whole: the image with all of its pixels.
            fit: that of those which were not left out.
        """
        problem, name = fit.problem, f"{fit.problem.model.main}.theta_E"
        values = problem.values(problem.parts(fit.x)[0])
        if name not in values:
            return None
        rest = replace(whole.observation, image=whole.observation.image - problem.shown(fit.x))
        left = (whole.observation.weight > 0) & (problem.observation.weight == 0)
        bright = left & (rest.significance(whole.inverse_sigma) > self.signal)
        centre = centre_of(values, problem.model.main)[:, :, None, None]
        away = problem.positions(problem.observation.camera.grid) - centre
        arcs = self._arcs(bright[0, 0].cpu().numpy(), away[0].cpu().numpy(), float(values[name]))
        return max(arcs, key=lambda arc: arc.angle, default=None)

    def _arcs(self, bright: np.ndarray, away: np.ndarray, theta_E: float) -> list[Arc]:
        from scipy.ndimage import label

        numbers, count = label(bright, np.ones((3, 3)))
        parts = [numbers == i for i in range(1, count + 1)]
        found = [Arc.from_places(*away[:, part]) for part in parts if part.sum() >= self.fewest]
        return [arc for arc in found if self._is_one(arc, theta_E)]

    def _is_one(self, arc: Arc, theta_E: float) -> bool:
        near = self.beyond * theta_E < arc.radius < self.within * theta_E
        slender = arc.radius * arc.angle > self.slender * arc.width
        return near and slender and math.degrees(arc.angle) > self.angle
