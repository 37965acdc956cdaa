"""The per-image fits: super-resolution with no training at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, TypeVar

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from lensphys.basics.settings import Strict
from lensphys.basics.terminal import step
from lensphys.basics.threads import on_one_thread
from lensphys.fitting import (
    FitModel,
    LensFit,
    LensProblem,
    Refinement,
    fit_lens,
)
from lensphys.methods.lens_model import Report, full_prediction, smooth_prediction
from lensphys.observation import Observation
from lensphys.prediction import Prediction, joined

T = TypeVar("T")

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


def each(observation: Observation, one: Callable[[Observation], T]) -> list[T]:
    """Return what is made of each image of a batch by itself and on one thread.

    A fit decides by small differences: so neither the images beside it nor the number of threads change a digit of it.
    """
    rows = torch.arange(len(observation), device=observation.image.device)
    found = []
    with on_one_thread():
        for row in rows.split(1):
            found.append(one(observation[row]))
            step()
    return found


def one_by_one(observation: Observation, one: Callable[[Observation], Prediction]) -> Prediction:
    """Return the prediction of a batch, made of `each` image."""
    return joined(each(observation, one))


class PerImageFit(Strict):
    """SIE + shear + Sersic fitted to each image, through ray tracing, PSF, pixels and noise.

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
    """Lens, source of any shape, sub-halos and potential fitted to each image until nothing improves, with a verdict.

    Args:
        model: the components; what it says of source, sub-halos, potential, freer mass and PSF goes before the stages.
        stages: how they are found, one after the other, and where a fit is suspect or bad.
        unresolved_subhalos: see `Posterior.unresolved_subhalo_variance`; by calibration on simulated lenses.
        spread: see `Posterior`; by calibration on simulated lenses with real galaxies.

    Attributes:
        by_itself: each image of a batch is fitted as it would be alone, and takes seconds.

    Example:
        >>> fit = RefinedFit.parse({"stages": {"beyond": {"search": {"gain": 20.0}}, "lens_light": None}}, "mine")
        >>> fit.refinement.beyond.search.gain, fit.report.verdict.gain
        (20.0, 20.0)
    """

    by_itself: ClassVar[bool] = True
    name: Literal["refine"] = "refine"
    model: FitModel = FitModel()
    stages: Refinement = Refinement()
    unresolved_subhalos: NonNegativeFloat = 0.25
    spread: PositiveFloat = 1.05

    @property
    def refinement(self) -> Refinement:
        """The stages, as the model changes them."""
        model, beyond = self.model, self.stages.beyond
        search, search_free = (model.searched(s) for s in (beyond.search, beyond.search_free))
        potential = model.corrected(beyond.priors.potential)
        changed = {
            "search": search,
            "search_free": search_free,
            "priors": beyond.priors.model_copy(update={"potential": potential}),
            "source": beyond.source if model.source.freed else None,
            "freer_mass": model.freer_mass,
            "psf": model.psf_moments,
        }
        # one concept, one number: what a sub-halo must gain, and how far the PSF may be off
        verdict = self.stages.verdict.with_search(search.gain, model.psf_moments)
        return self.stages.model_copy(update={"beyond": beyond.model_copy(update=changed), "verdict": verdict})

    def problem(self, observation: Observation) -> LensProblem:
        """Return what is fitted to a batch of images."""
        subhalos = self.model.subhalos
        bodies = None if subhalos is None else subhalos.bodies(observation.camera.grid)
        return self.stages.window.known(LensProblem.from_observation(observation, self.model.lens_model, bodies))

    def shortened(self, rounds: int) -> RefinedFit:
        """Return the fit with at most so many rounds of each search."""
        return self.model_copy(update={"stages": self.stages.shortened(rounds), "model": self.model.shortened(rounds)})

    @property
    def report(self) -> Report:
        """What is told of a fit."""
        stages = self.refinement
        return Report(
            unresolved_subhalos=self.unresolved_subhalos,
            spread=self.spread,
            priors=stages.beyond.priors,
            verdict=stages.verdict,
        )

    def predict(self, observation: Observation, scale: int) -> Prediction:
        """Return the super-resolved batch with its standard deviation, parameters and verdicts."""
        return self.prediction(self.fits(observation), scale)

    def fits(self, observation: Observation) -> list[LensFit]:
        """Return the fit of each image."""
        with torch.no_grad():
            return each(observation, lambda part: self.refinement(self.problem(part)))

    def prediction(self, fits: list[LensFit], scale: float) -> Prediction:
        """Return what the fits of some images say of them, on pixels ``scale`` times as small."""
        with torch.no_grad(), on_one_thread():
            return joined([full_prediction(fit, scale, self.report) for fit in fits])
