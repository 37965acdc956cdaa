"""The amortised fit: a network that knows the survey looks once, and a few Gauss-Newton steps end its answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from lensphys.basics.settings import Strict
from lensphys.fitting import (
    BeyondSmooth,
    FieldPriors,
    Fitted,
    LensFit,
    LensProblem,
    Refinement,
    Search,
    Stop,
    minimised,
)
from lensphys.fitting.newton import damped_step
from lensphys.fitting.potential import corrected, proposed
from lensphys.fitting.remains import significant
from lensphys.fitting.shown import first_look, largest_gain, told
from lensphys.fitting.source import Groups
from lensphys.fitting.subhalos import add_subhalos
from lensphys.losses.physics import ObservationConsistency, PhysicsLossSettings
from lensphys.methods.fit import RefinedFit
from lensphys.methods.refined import Refinable, check_guessed
from lensphys.methods.trainable import Batch
from lensphys.model import LensModel, centre_of
from lensphys.networks.base import Scale
from lensphys.networks.encoder import EncoderSettings
from lensphys.observation import Observation
from lensphys.observation.validity import WIDTH_OF_GAUSSIAN, psf_fwhm
from lensphys.prediction import Prediction
from lensphys.tracing.deflection import DeflectionField

_DARK = 0.05  # quantile of a noise map that is the noise of a dark pixel
# about those of the first surveys, so that what a network is told is near zero; weights that ship know no others
_USUAL_PEAK = 30.0  # times the noise
_USUAL_SCALE = 0.08  # arcsec
INSTRUMENT_NUMBERS = 4  # that tell a network how an image was taken: see `instrument_numbers`


class AmortisedSettings(Strict):
    """Network with macro, source and psi heads, ended by Gauss-Newton steps; trained on LR images alone.

    A forward pass ends in ``steps`` of Gauss-Newton and ``rounds`` of the search for sub-halos,
    ``candidates_per_round`` at a time, each with ``polish`` more steps. A potential is tried where a smooth lens
    leaves a chi^2 per pixel below ``bent``, and kept where it leaves one below ``explained``. ``parameters``: what
    the network guesses, by name. ``unrolled`` steps are part of the training too. ``prior``: weight of the
    parameters' priors in the loss.
    """

    name: Literal["amortised"]
    network: EncoderSettings = EncoderSettings()
    scale: Scale = 2
    steps: NonNegativeInt = 3
    rounds: NonNegativeInt = 2
    candidates_per_round: PositiveInt = 3
    polish: PositiveInt = 2
    unrolled: NonNegativeInt = 0
    unresolved_subhalos: NonNegativeFloat = 0.25
    bent: PositiveFloat = 8.0
    explained: PositiveFloat = 2.0
    parameters: list[str] = list(LensModel.smooth().names)
    prior: NonNegativeFloat = 1.0
    priors: FieldPriors = FieldPriors()
    loss: Annotated[PhysicsLossSettings, Field(validate_default=True)] = PhysicsLossSettings(
        observation=ObservationConsistency(form="log")
    )

    @model_validator(mode="before")
    @classmethod
    def _direct(cls, tree: Any) -> Any:
        """Runs of older versions say how many iterations of conjugate gradients a potential takes: it is solved now."""
        return {k: v for k, v in tree.items() if k != "iterations"} if isinstance(tree, dict) else tree

    def build(self) -> AmortisedMethod:
        """Return the method with a fresh network."""
        return AmortisedMethod(self)


class AmortisedMethod(Refinable):
    """LR image and instrument -> network -> Gauss-Newton -> SR image with its standard deviation."""

    settings: AmortisedSettings

    def __init__(self, settings: AmortisedSettings) -> None:
        super().__init__()
        names = list(LensModel.smooth().names)
        check_guessed(settings.parameters, names)
        self.settings = settings
        self.network = settings.network.build(len(names), INSTRUMENT_NUMBERS)
        self.centre = nn.Parameter(torch.zeros(len(names)))  # the survey's typical lens, unconstrained
        with torch.no_grad():
            self.centre.copy_(typical())

    @property
    def without_network(self) -> RefinedFit:
        """The fit that goes on from its guess, and that looks at images it was not trained for."""
        stages = Refinement(beyond=BeyondSmooth(priors=self.settings.priors))
        return RefinedFit(unresolved_subhalos=self.settings.unresolved_subhalos, stages=stages)

    def start(self, problem: LensProblem) -> Tensor:
        """Return the lens that the network sees in each image, (B, P)."""
        return self.state(problem)[0]

    def state(self, problem: LensProblem) -> tuple[Tensor, Tensor]:
        """Return what the network sees in a batch of images: its vectors (B, P), and psi (B, m, m) [arcsec^3]."""
        observation = problem.observation
        image = observation.image * observation.weight / observation.peak_unit
        macro, psi = self.network(image, instrument_numbers(problem))
        full = torch.ones_like(problem.unit)
        sigma = self.settings.priors.correction(problem, full).sigma[:, : psi.shape[-1], : psi.shape[-1]]
        return self.centre + macro, psi * sigma

    def fit(self, observation: Observation) -> LensFit:
        """Return where the forward pass ends; at no stage does the cost rise."""
        problem = LensProblem.from_observation(observation)
        macro, psi = self.state(problem)
        x = minimised(problem, macro, Stop(self.settings.steps), damping=1e-3).x
        smooth = Fitted.at(problem.renewed(x), x)
        return LensFit.from_smooth(smooth, self._with_substructure(smooth, psi))

    def _with_substructure(self, smooth: Fitted, psi: Tensor) -> Groups:
        """Add a potential, from the proposed psi (B, m, m), where it explains an image, else sub-halos."""
        settings, problem = self.settings, smooth.problem
        chi2 = problem.chi2(smooth.x)
        tried = significant(chi2, problem.observation.n_unmasked) & (chi2 < settings.bent)
        if settings.priors.potential.amplitude == 0 or not problem.observation.noise.known:
            tried = torch.zeros_like(tried)
        rows, others = tried.nonzero()[:, 0], (~tried).nonzero()[:, 0]
        search = Search(
            rounds=settings.rounds, candidates_per_round=settings.candidates_per_round, steps=settings.polish
        )
        groups, looks = list[tuple[Tensor, Fitted]](), first_look(smooth, search)
        if len(rows):
            part = smooth.rows(rows)
            bent = corrected(part, settings.priors, torch.ones_like(part.problem.unit), 1, start=psi[rows])
            enough = bent.problem.chi2(bent.x) < settings.explained
            kept = enough.nonzero()[:, 0]
            others = torch.cat([others, rows[~enough]]).sort().values
            if len(kept):
                groups.append((rows[kept], bent.rows(kept)))
        if len(others):
            found = add_subhalos(smooth.rows(others), search, first=[looks[i] for i in others.tolist()])
            groups += [(others[part], group) for part, group in found]
        return told(groups, smooth, largest_gain(looks))

    def training_terms(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Return the physics terms and the priors of a batch, all from the LR images."""
        observation = batch.observation
        problem = LensProblem.from_observation(observation)
        macro, psi = self.state(problem)
        z = proposed(problem, psi, self.settings.priors)
        bent = replace(problem, potential=self.settings.priors.correction(problem, torch.ones_like(problem.unit)))
        x = torch.cat([macro, z], dim=1)
        for _ in range(self.settings.unrolled):
            x = torch.cat([unrolled_step(problem, x[:, : macro.shape[1]]), z], dim=1)
        terms = self.settings.loss.evaluate(bare_prediction(bent, x), observation, epoch)
        terms["prior"] = (0.5 * bent.prior(x).square().sum(1) / observation.n_unmasked).mean()
        return terms | {"loss": terms["loss"] + self.settings.prior * terms["prior"]}


def bare_prediction(problem: LensProblem, x: Tensor) -> Prediction:
    """Return the bare model of vectors (B, Q) at the pixels of the images themselves: what a loss judges."""
    lens, camera = problem.lens(x), problem.observation.camera
    centre = centre_of(lens.values, problem.model.main)
    field = DeflectionField.from_lens(lens.mass, problem.fine, like=x, centre=centre)
    observed = camera.render(lens.source, field)
    return Prediction(observed, camera, observed, field, lens.source, lens.values, problem.sizes[0])


def unrolled_step(problem: LensProblem, x: Tensor) -> Tensor:
    """Return vectors (B, P) after a damped Gauss-Newton step, differentiable throughout."""
    normal = problem.normal(x)
    step = damped_step(normal.gradient, normal.hessian, torch.full_like(normal.cost, 1e-2))
    return x + step.to(x).clamp(-1, 1)


def instrument_numbers(problem: LensProblem) -> Tensor:
    """Return PSF width [pixels], noise of a dark and of the brightest pixel [peak], pixel scale [arcsec], (B, 4): logs.

    The width is the side of the square that holds a point's light as evenly, by `validity.psf_fwhm`.
    """
    observation = problem.observation
    camera, image = observation.camera, observation.image
    width = WIDTH_OF_GAUSSIAN * psf_fwhm(observation) / camera.grid.scale
    peak = observation.peak_unit
    seen = (observation.weight > 0).expand_as(image).flatten(1)
    dark, bright = (
        observation.noise.variance(x).expand_as(image).flatten(1).sqrt() for x in (0 * image, peak.expand_as(image))
    )
    brightest = torch.where(seen, image.flatten(1), -torch.inf).argmax(1, keepdim=True)  # a map says all noise at once
    dark = torch.where(seen, dark, torch.nan).nanquantile(_DARK, dim=1) / peak.flatten()
    bright = bright.gather(1, brightest)[:, 0] / peak.flatten()
    scale = torch.full_like(width, camera.grid.scale)
    numbers = [width, _USUAL_PEAK * dark, _USUAL_PEAK * bright, scale / _USUAL_SCALE]
    return torch.stack([x.clamp(min=1e-6).log() for x in numbers], dim=1)


def typical() -> Tensor:
    """Unconstrained parameters (P,) of a lens whose Einstein radius is about half the field's radius."""
    with torch.device("cpu"):  # a network is built on the meta device to be counted, where arithmetic loads a compiler
        model, one = LensModel.smooth(), torch.ones(1)
        values = model.typical(one) | {f"{model.main}.theta_E": one, "source.amp": one, "source.n_sersic": one}
        return model.space(2.5).unconstrained(values)[0]
