"""Arcs further out than those of the source that was fitted: what a double ring shows."""

from __future__ import annotations

from pydantic import PositiveFloat

from lensphys.fitting.arcs import Arc, ArcSearch
from lensphys.fitting.problem import LensProblem
from lensphys.fitting.source import Fitted
from lensphys.model import centre_of


class SecondSource(ArcSearch):
    """When what a fit leaves over is the arc of another source.

    Args:
        nearest: how far from the lens it is, at least [Einstein radii].
        furthest: how far from the lens it is, at most [Einstein radii].
    """

    nearest: PositiveFloat = 1.15
    furthest: PositiveFloat = 4.0

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
        theta_E = float(values[f"{main}.theta_E"])
        away = problem.positions(camera.grid) - centre_of(values, main)[:, :, None, None]
        left = whole.observation.image - problem.shown(fit.x)
        found = self.between(self.nearest * theta_E, self.furthest * theta_E, left, whole.inverse_sigma, away, camera)
        return max(found, key=lambda arc: arc.angle, default=None)
