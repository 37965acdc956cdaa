"""The per-image fits: super-resolution with no training at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt

from lensphys.fitting import FieldPriors, LensProblem, Refinement, Search, fit_lens
from lensphys.methods.lens_model import full_prediction, smooth_prediction
from lensphys.methods.prediction import Prediction, joined
from lensphys.observation import Observation
from lensphys.settings import Strict

_PIXELS_AT_ONCE = 200_000  # image pixels times starts; the Jacobian of all parameters is what fills the memory


def in_chunks(
    observation: Observation, scale: float, starts: int, one: Callable[[Observation], Prediction]
) -> Prediction:
    """Return the prediction of a batch, made a part at a time, so that no batch exhausts the memory."""
    camera = observation.camera
    size = camera.grid.height * camera.grid.width * max(camera.supersampling, scale) ** 2 / 4
    chunk = max(1, int(_PIXELS_AT_ONCE / (size * starts)))
    rows = torch.arange(len(observation), device=observation.image.device)
    return joined([one(observation[part]) for part in rows.split(chunk)])


class PerImageFit(Strict):
    """SIE + shear + Sersic fitted to each image through tracing and observation: see `fitting.fit_lens`.

    Args:
        starts: how many starts are optimised for each image.
        steps: at most so many Levenberg-Marquardt steps a start.
    """

    name: Literal["fit"] = "fit"
    starts: PositiveInt = 4
    steps: PositiveInt = 60

    def predict(self, observation: Observation, scale: int) -> Prediction:
        """Return the fitted models, rendered on pixels ``scale`` times as small."""

        def one(part: Observation) -> Prediction:
            return smooth_prediction(fit_lens(part, starts=self.starts, steps=self.steps), scale)

        return in_chunks(observation, scale, self.starts, one)


class RefinedFit(Strict):
    """Lens, sub-halos, potential and source fitted to each image until nothing more pays, with an error bar.

    Args:
        rounds: of the search for sub-halos and of the optimiser after it, at most.
        gain: what a sub-halo must gain in ln likelihood.
        undetected: see `Posterior.undetected`; by calibration on simulated lenses.
        starts: how many starts are optimised for each image.
        priors: of the potential and of the source's free-form part.
    """

    name: Literal["refine"] = "refine"
    rounds: PositiveInt = 12
    gain: NonNegativeFloat = 12.0
    undetected: NonNegativeFloat = 0.25
    starts: PositiveInt = 4
    priors: FieldPriors = FieldPriors()

    @property
    def refinement(self) -> Refinement:
        """The optimiser."""
        return Refinement(Search(gain=self.gain, rounds=self.rounds), self.priors, starts=self.starts)

    def predict(self, observation: Observation, scale: int) -> Prediction:
        """Return the super-resolved batch with its standard deviation."""

        def one(part: Observation) -> Prediction:
            fit = self.refinement(LensProblem.of(part))
            return full_prediction(fit, scale, undetected=self.undetected, priors=self.priors)

        with torch.no_grad():
            return in_chunks(observation, scale, self.starts, one)
