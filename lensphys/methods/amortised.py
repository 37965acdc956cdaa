"""The amortised fit: a network that knows the survey looks once, and a few Gauss-Newton steps end its answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from lensphys.deflection import DeflectionField
from lensphys.fitting import FieldPriors, LensFit, LensProblem, LensState, Search
from lensphys.fitting.fields import POTENTIAL, field_prior, fit_field, with_proposal
from lensphys.fitting.lens import arc_light, minimised
from lensphys.fitting.levenberg import damped_step
from lensphys.fitting.problem import lens_parameters
from lensphys.fitting.refine import reduced_chi2, significant
from lensphys.fitting.subhalos import add_subhalos
from lensphys.losses.physics import ObservationConsistency, PhysicsLossSettings
from lensphys.methods.fit import RefinedFit, in_chunks
from lensphys.methods.lens_model import full_prediction
from lensphys.methods.prediction import Prediction
from lensphys.methods.trainable import Batch, TrainableMethod
from lensphys.networks.encoder import EncoderSettings
from lensphys.observation import Observation
from lensphys.settings import Strict

_BENT = 8.0  # chi^2 per pixel of a smooth lens beyond which one potential field is no use
_EXPLAINED = 2.0  # chi^2 per pixel that a potential field may leave; above it, sub-halos are looked for
_INSTRUMENT = 4  # numbers that tell the network how an image was taken


class AmortisedSettings(Strict):
    """Network with macro, source and psi heads, ended by Gauss-Newton steps; trained on LR images alone.

    A forward pass ends in ``steps`` of Gauss-Newton and ``rounds`` of the search for sub-halos, ``a_round`` at a time,
    each with ``polish`` more steps; a potential field takes ``iterations`` of conjugate gradients. ``unrolled``
    steps are part of the training too. ``prior``: weight of the parameters' priors in the loss.
    """

    name: Literal["amortised"]
    network: EncoderSettings = EncoderSettings()
    scale: PositiveInt = 2
    steps: NonNegativeInt = 3
    rounds: NonNegativeInt = 2
    a_round: PositiveInt = 3
    polish: PositiveInt = 2
    iterations: PositiveInt = 12
    unrolled: NonNegativeInt = 0
    undetected: NonNegativeFloat = 0.25
    prior: NonNegativeFloat = 1.0
    priors: FieldPriors = FieldPriors()
    loss: Annotated[PhysicsLossSettings, Field(validate_default=True)] = PhysicsLossSettings(
        observation=ObservationConsistency(form="log")
    )

    def build(self) -> AmortisedMethod:
        """Return the method with a fresh network."""
        return AmortisedMethod(self)


class AmortisedMethod(TrainableMethod):
    """LR image and instrument -> network -> Gauss-Newton -> SR image with its standard deviation."""

    def __init__(self, settings: AmortisedSettings) -> None:
        super().__init__()
        self.settings = settings
        self.network = settings.network.build(14, _INSTRUMENT)
        self.centre = nn.Parameter(torch.zeros(14))  # the survey's typical lens, unconstrained
        with torch.no_grad():
            self.centre.copy_(_typical())

    @property
    def scale(self) -> int:
        """The upscaling factor used where none is asked for; any other will do."""
        return self.settings.scale

    def predict(self, observation: Observation, scale: int | None = None) -> Prediction:
        """Return one forward pass: the network, a few Gauss-Newton steps, what the model leaves over."""

        def one(part: Observation) -> Prediction:
            return full_prediction(
                self.fit(part),
                scale or self.settings.scale,
                undetected=self.settings.undetected,
                priors=self.settings.priors,
                quick=True,
            )

        with torch.no_grad():
            return in_chunks(observation, scale or self.settings.scale, 1, one)

    def refined(self, rounds: int | None = None) -> Refined:
        """Return the method that goes on from the network's answer, for so many rounds or to convergence."""
        s = self.settings
        settings = RefinedFit(undetected=s.undetected, priors=s.priors)
        return Refined(self, settings if rounds is None else settings.model_copy(update={"rounds": rounds}))

    def state(self, problem: LensProblem) -> LensState:
        """Return what the network sees in a batch of images."""
        observation = problem.observation
        image = observation.image * observation.weight / observation.peak_unit
        macro, psi = self.network(image, instrument_numbers(problem))
        sigma = self.settings.priors.potential.sigma(problem.potential, like=macro)
        modes = psi.shape[-1]
        state = LensState.smooth(self.centre + macro)
        return LensState(state.macro, state.subhalos, psi * sigma[:modes, :modes], state.light)

    def fit(self, observation: Observation) -> LensFit:
        """Return where the forward pass ends; at no stage does the cost rise."""
        problem = LensProblem.of(observation)
        seen = self.state(problem)
        smooth = LensState.smooth(seen.macro)
        end = minimised(problem, smooth, steps=self.settings.steps, damping=1e-3)
        state = smooth.moved(end.x)
        problem = problem.renewed(state)
        problem, state = self._with_substructure(problem, state, seen.potential)
        return LensFit(state, problem, end.gradient_norm, arc_light(problem)[1])

    def _with_substructure(self, problem: LensProblem, state: LensState, psi: Tensor) -> tuple[LensProblem, LensState]:
        """Add a potential field, from the proposed psi (B, m, m), where it explains an image, else sub-halos."""
        settings = self.settings
        chi2 = reduced_chi2(problem, state)
        rows = (significant(problem, chi2) & (chi2 < _BENT)).nonzero()[:, 0]
        if len(rows) and settings.priors.potential.amplitude > 0 and problem.observation.noise.known:
            part = problem[rows]
            full, some = torch.ones_like(part.unit), with_proposal(part, state[rows], psi[rows])
            bent = fit_field(part, some, settings.priors, POTENTIAL, full, steps=1, iterations=settings.iterations)
            enough = part.residual(bent).square().mean(1) < _EXPLAINED
            rows = rows[enough]
            if len(rows):
                problem = problem.with_rows(rows, part[enough].renewed(bent[enough]))
                state = state.with_rows(rows, bent[enough])
        else:
            rows = rows[:0]
        others = torch.ones_like(problem.unit, dtype=torch.bool).index_fill(0, rows, False).nonzero()[:, 0]
        if len(others) == 0:
            return problem, state
        search = Search(rounds=settings.rounds, a_round=settings.a_round, steps=settings.polish)
        part, some = add_subhalos(problem[others], state[others], search)
        return problem.with_rows(others, part), state.with_rows(others, some)

    def training_terms(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Return the physics terms and the priors of a batch, all from the LR images."""
        observation = batch.observation
        problem = LensProblem.of(observation)
        state = self.state(problem)
        for _ in range(self.settings.unrolled):
            state = unrolled_step(problem, state)
        terms = self.settings.loss.evaluate(self._prediction(problem, state), observation, epoch)
        prior = 0.5 * problem.prior(state.vector).square().sum(1) + field_prior(problem, state, self.settings.priors)
        terms["prior"] = (prior / observation.counted).mean()
        return terms | {"loss": terms["loss"] + self.settings.prior * terms["prior"]}

    def _prediction(self, problem: LensProblem, state: LensState) -> Prediction:
        """The bare model at the pixels of the images themselves: what the loss judges."""
        model, camera = problem.model(state), problem.observation.camera
        centre = torch.stack([model.values["center_x"], model.values["center_y"]], dim=1)
        field = DeflectionField.of(model.mass, problem.fine, like=state.macro, centre=centre)
        observed = camera.render(model.source, field)
        return Prediction(observed, camera, observed, field, model.source, model.values, state.macro.shape[1])


class Refined:
    """A trained network's answer, refined to the optimum of each image: a `Method`.

    Args:
        start: the network.
        settings: how far and with what priors.
    """

    def __init__(self, start: AmortisedMethod, settings: RefinedFit) -> None:
        self.start = start
        self.settings = settings

    def predict(self, observation: Observation, scale: int | None = None) -> Prediction:
        """Return the refined batch with its standard deviation."""
        settings, factor = self.settings, scale or self.start.scale

        def one(part: Observation) -> Prediction:
            return full_prediction(self.fit(part), factor, undetected=settings.undetected, priors=settings.priors)

        with torch.no_grad():
            return in_chunks(observation, factor, 1, one)

    def fit(self, observation: Observation) -> LensFit:
        """Return the optimum of each image: never one of a higher cost than the forward pass reaches.

        A pass that took a potential field is not compared: a field lowers the cost in any case.
        """
        first = self.start.fit(observation)
        end = self.settings.refinement(LensProblem.of(observation), first.state)
        priors = self.settings.priors
        before, after = (end.problem.cost(s) + field_prior(end.problem, s, priors) for s in (first.state, end.state))
        kept = before < after
        bent = (first.state.potential != 0).flatten(1).any(1)
        rows = (kept & ~bent).nonzero()[:, 0]
        return replace(end, state=end.state.with_rows(rows, first.state[rows])) if len(rows) else end


def unrolled_step(problem: LensProblem, state: LensState) -> LensState:
    """Return the state after a damped Gauss-Newton step on macro and sub-halos, differentiable throughout."""
    residual, columns = problem.system(state)
    residual, columns = residual.double(), columns.double()
    gradient = torch.einsum("bpn,bn->bp", columns, residual)
    hessian = columns @ columns.transpose(1, 2)
    step = damped_step(gradient, hessian, torch.full_like(gradient[:, 0], 1e-2))
    return state.moved(state.vector + step.to(state.macro).clamp(-1, 1))


def instrument_numbers(problem: LensProblem) -> Tensor:
    """Return PSF width [pixels], noise of a dark and of the brightest pixel [peak], pixel scale [arcsec], (B, 4): logs.

    The width of a PSF is the side of the square that holds as much light as evenly: 1 / sqrt(sum of squares).
    """
    observation = problem.observation
    camera, image = observation.camera, observation.image
    point = torch.zeros(len(observation), 1, *camera.grid.shape, dtype=image.dtype, device=image.device)
    point[:, :, camera.grid.height // 2, camera.grid.width // 2] = 1
    width = camera.psf.blur(point, camera.grid.scale).square().sum((1, 2, 3)).clamp(min=1e-12).rsqrt()
    peak = observation.peak_unit
    levels = [observation.noise.variance(x).flatten(1).mean(1).sqrt() for x in (0 * image, peak.expand_as(image))]
    dark, bright = (level / peak.flatten() for level in levels)
    scale = torch.full_like(width, camera.grid.scale)
    numbers = [width, 30 * dark, 30 * bright, scale / 0.08]
    return torch.stack([x.clamp(min=1e-6).log() for x in numbers], dim=1)


def _typical() -> Tensor:
    """Unconstrained parameters of a lens with half the field's radius at its Einstein radius or so."""
    space = lens_parameters(2.5)
    zero = torch.zeros(1)
    values = dict.fromkeys(space.names, zero) | {"theta_E": zero + 1.0, "amp": zero + 1.0, "n_sersic": zero + 1.0}
    return space.unconstrained(values | {"R_sersic": zero + 0.25})[0]
