"""The per-image fits: super-resolution with no training at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from lensphys.basics.settings import Strict
from lensphys.fitting import (
    BeyondSmooth,
    FieldPriors,
    FitModel,
    FreeSourceSettings,
    LensFit,
    LensLightSettings,
    LensProblem,
    Refinement,
    Search,
    SmoothFit,
    VerdictSettings,
    fit_lens,
)
from lensphys.fitting.starts import START_FACTORS, Factors
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
    with on_one_thread():
        return [one(observation[row]) for row in rows.split(1)]


@contextmanager
def on_one_thread() -> Iterator[None]:
    """Compute on one thread meanwhile: with more of them the order of a sum, and its last digit, would be another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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
        model: the components; what it says of sub-halos and of the potential goes before the settings below.
        search: for sub-halos behind a Sersic source.
        source: how a source is freed where a Sersic does not do; null for Sersics alone.
        search_free: for sub-halos behind a free source.
        priors: of the potential.
        unresolved_subhalos: see `Posterior.unresolved_subhalo_variance`; by calibration on simulated lenses.
        spread: see `Posterior`; by calibration on simulated lenses with real galaxies.
        starts: how many starts are optimised for each image.
        factors: Einstein radii to start from, in units of the arcs' radius.
        verdict: where a fit is suspect or bad.
        lens_light: how the light of a lens galaxy is found; null to look for none.
    """

    name: Literal["refine"] = "refine"
    model: FitModel = FitModel()
    search: Search = Search()
    source: FreeSourceSettings | None = FreeSourceSettings()
    search_free: Search = Search(kept=0.8, candidates_per_round=1)
    priors: FieldPriors = FieldPriors()
    unresolved_subhalos: NonNegativeFloat = 0.25
    spread: PositiveFloat = 1.05
    starts: PositiveInt = 4
    factors: Factors = START_FACTORS
    verdict: VerdictSettings = VerdictSettings()
    lens_light: LensLightSettings | None = LensLightSettings()

    @property
    def refinement(self) -> Refinement:
        """The optimiser."""
        search, search_free = (self.model.searched(s) for s in (self.search, self.search_free))
        source = self.source if self.model.source.freed else None
        model = self.model
        beyond = BeyondSmooth(
            search,
            self._priors,
            source,
            search_free,
            model.freer_mass,
            model.psf_moments,
            starts=self.starts,
            factors=self.factors,
        )
        smooth = SmoothFit(starts=self.starts, factors=self.factors)
        return Refinement(beyond, smooth, self.lens_light, verdict=self.verdict)

    def problem(self, observation: Observation) -> LensProblem:
        """Return what is fitted to a batch of images."""
        subhalos = self.model.subhalos
        bodies = None if subhalos is None else subhalos.bodies(observation.camera.grid)
        return LensProblem.from_observation(observation, self.model.lens_model, bodies)

    @property
    def _priors(self) -> FieldPriors:
        return self.priors.model_copy(update={"potential": self.model.corrected(self.priors.potential)})

    def shortened(self, rounds: int) -> RefinedFit:
        """Return the fit with at most so many rounds of each search."""
        names = ("search", "search_free")
        changed = {name: getattr(self, name).model_copy(update={"rounds": rounds}) for name in names}
        return self.model_copy(update=changed | {"model": self.model.shortened(rounds)})

    @property
    def report(self) -> Report:
        """What is told of a fit."""
        return Report(
            unresolved_subhalos=self.unresolved_subhalos, spread=self.spread, priors=self._priors, verdict=self.verdict
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
