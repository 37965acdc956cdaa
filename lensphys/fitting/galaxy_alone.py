"""Whether the light of one galaxy explains an image as well as a lens does: then no arc is to be seen in it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from lensphys.basics.settings import Strict
from lensphys.fitting.lens_light import LensLightSettings, brightest, lens_light
from lensphys.fitting.problem import LensProblem
from lensphys.fitting.source import Fitted
from lensphys.observation import Observation


@dataclass(frozen=True)
class Arcs:
    """What the arcs of one image explain beyond the light of a galaxy.

    Args:
        gain: in ln likelihood.
        numbers: how many the data determine of lens and source.
    """

    gain: float
    numbers: float


class GalaxyAlone(Strict):
    """When an image is explained by a galaxy alone.

    A galaxy is fitted to the image, and in the same way to what the arcs of the lens leave of it: elliptical, of two
    shapes about one centre, with any profile. What the second explains better is what the arcs explain.

    Args:
        number: ln likelihood that the arcs must gain for each number that lens and source take,
        gain: and in all.
        light: how the galaxy is fitted: to all of the image, nothing clipped, and no error of the model allowed.

    Source: Akaike 1974 (IEEE Trans. Autom. Control 19, 716), for ``number``.
    """

    number: NonNegativeFloat = 1.0
    gain: PositiveFloat = 12.0
    light: LensLightSettings = LensLightSettings(clip=1e9, model_error=1e-6, rounds=3, inner=1.0)

    def faint(self, fitted: Fitted, numbers: float) -> Arcs | None:
        """Return the arcs of one image if they explain too little for a lens; None if they do not.

        None, too, if the brightest light is not in the middle of the field, as that of a galaxy: arcs are about it.

        Args:
            fitted: the fit of one image.
            numbers: how many the data determine of everything that is fitted.
        """
        problem = fitted.problem
        dark = problem.observation.noise.expected(torch.zeros_like(problem.observation.image))
        image = replace(problem.observation, image=problem.observation.image - dark)
        if float(brightest(image.to("cpu")).norm()) > self.light.search * image.camera.grid.radius:
            return None
        light = [name for name in problem.model.names if name.rpartition(".")[0] in problem.model.lens_light]
        broad = 0.0 if problem.filter is None else float(problem.filter.fitted)
        arcs = problem.without_front(problem.shown(fitted.x), fitted.x)
        alone, beside = self._chi2(problem, image, 0 * arcs), self._chi2(problem, image, arcs)
        error = min(1.0, beside / float(problem.observation.n_unmasked))  # of a map that is too large
        found = Arcs(0.5 * (alone - beside) / max(error, 1e-6), max(0.0, numbers - len(light) - broad))
        return found if found.gain < self.gain + self.number * found.numbers else None

    def _chi2(self, problem: LensProblem, image: Observation, arcs: Tensor) -> float:
        """chi^2 of arcs (1, 1, H, W) [flux per pixel] and the galaxy that is likeliest beside them."""
        rest = replace(image, image=image.image - arcs).to("cpu")
        galaxy = lens_light(rest, problem.inverse_sigma.cpu(), self.light).image.to(arcs)
        return float(problem.whitened_rest(arcs + galaxy).double().square().sum())
