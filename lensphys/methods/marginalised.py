"""The marginalised fit: a network guesses the lens, and the source is solved for, in training as in a forward pass."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from lensphys.basics.settings import Strict
from lensphys.fitting import Fitted, FreeField, FreeSourceSettings, LensFit, LensProblem, Stop, minimised
from lensphys.fitting.marginal import Marginal, marginal
from lensphys.fitting.remains import poor
from lensphys.fitting.source import Groups, Rival, as_it_is, parted, source_frame
from lensphys.fitting.starts import significant_light
from lensphys.fitting.subhalos import Search, add_subhalos
from lensphys.fitting.window import Window, seen_whole
from lensphys.losses.physics import PhysicsLossSettings
from lensphys.methods.amortised import INSTRUMENT_NUMBERS, bare_prediction, instrument_numbers, typical
from lensphys.methods.fit import RefinedFit
from lensphys.methods.refined import Refinable, check_guessed
from lensphys.methods.trainable import Batch
from lensphys.methods.turned import ORIENTATIONS, TurnedBack
from lensphys.model import Frame, LensModel, Modes, ParameterSpace, SourcePrior
from lensphys.networks.base import Scale
from lensphys.networks.look import LookSettings
from lensphys.observation import Observation
from lensphys.tracing.orientation import transformed


class EvidenceLoss(Strict):
    """Minus ln of the evidence of LR images with their source integrated out, per unmasked pixel.

    Args:
        weight: of the term.
        form: ``plain``, or ``log``: 1/2 log(1 + 2 x), in which an image that no smooth lens explains weighs no more
            than others.
        modes: of the source's field along each axis.
        points: along the side of a pixel at which light is evaluated.
        floor: a share of the brightest pixel that is added to the noise in quadrature: at first, and
        least: at last; far from the truth the evidence of the noise alone has no slope that leads there.
        epochs: in which the one becomes the other, in equal factors.
        bright: signal-to-noise of a 3 x 3 mean that makes a pixel bright.
        margin: about the bright pixels [pixels]: what is further out has nothing to say of the lens.
    """

    weight: NonNegativeFloat = 1.0
    form: Literal["plain", "log"] = "log"
    modes: Annotated[int, Field(ge=2, le=32)] = 8
    points: PositiveInt = 1
    floor: NonNegativeFloat = 0.1
    least: NonNegativeFloat = 0.01
    epochs: PositiveInt = 10
    bright: PositiveFloat = 6.0
    margin: NonNegativeFloat = 5.0

    def floor_at(self, epoch: int) -> float:
        """Return the floor at an epoch."""
        if not (self.floor and self.least):
            return self.floor if epoch < self.epochs else self.least
        return self.floor * (self.least / self.floor) ** min(1.0, epoch / self.epochs)

    def __call__(self, found: Marginal, n_unmasked: Tensor) -> Tensor:
        """Return the mean over a batch of so many unmasked pixels, (B,)."""
        mean = found.surprise / n_unmasked
        return (0.5 * torch.log1p(2 * mean) if self.form == "log" else mean).mean()


class DrawnLenses(Strict):
    """Images of lenses and sources drawn from the priors that the training learns, seen by the tracer: wake and sleep.

    What was drawn is known, so the network learns from them what a lens looks like, and how sure it may be. No image
    but the LR ones decides what is drawn: the priors are theirs.

    Args:
        weight: of the term, at first.
        decay: of the weight in each epoch.
        alone: epochs in the beginning with drawn lenses alone.
        each: drawn lenses for each image of a batch, as bright as that and with its noise.
        modes: of the drawn sources' fields along each axis.
        points: along the side of a pixel at which light is evaluated.

    Source: Hinton et al. 1995 (Science 268, 1158).
    """

    weight: NonNegativeFloat = 1.0
    decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    alone: NonNegativeInt = 0
    each: PositiveInt = 1
    modes: Annotated[int, Field(ge=2, le=32)] = 10
    points: PositiveInt = 1


class Level(Strict):
    """A part of a forward pass.

    Args:
        modes: of the source's field along each axis.
        steps: Gauss-Newton steps, at most.
        points: along the side of a pixel at which light is evaluated; no more than the camera says.
        fall: of the cost in a step, below which it is enough.
    """

    modes: PositiveInt
    steps: PositiveInt
    points: PositiveInt = 2
    fall: NonNegativeFloat = 0.5


class MarginalisedSettings(Strict):
    """Network that guesses lens and envelope of the source, whose field is solved; trained on LR images alone.

    Args:
        network: what looks.
        scale: upscaling factor where none is asked for.
        parameters: what the network guesses, by name.
        evidence: the main term.
        drawn: the other one; null for none.
        prior: weight of the lens's learned prior in the loss.
        width: standard deviation, unconstrained, that learning begins with for parameters without a declared prior.
        far: standard deviations of the prior beyond which a guess is a failure, which widens the prior less.
        source: the field's prior that learning begins with,
        source_learned: and whether it is learned. In long trainings the few modes of the evidence make it too strong.
        loss: further terms of the multi-scale physics loss, for the Sersic alone.
        looks: orientations that a forward pass looks at, 8 at most; the best by evidence goes on.
        levels: of Gauss-Newton that it ends with.
        damping: of the first step of each.
        search: for sub-halos, where a smooth lens leaves more than the noise; with 0 rounds for none.
        frame: of the source.
        unresolved_subhalos: see `Posterior.unresolved_subhalo_variance`.
    """

    name: Literal["marginalised"]
    network: LookSettings = LookSettings()
    scale: Scale = 2
    parameters: list[str] = list(LensModel.smooth().names)
    evidence: EvidenceLoss = EvidenceLoss()
    drawn: DrawnLenses | None = DrawnLenses()
    prior: NonNegativeFloat = 1.0
    width: PositiveFloat = 0.6
    far: PositiveFloat = 4.0
    source: SourcePrior = SourcePrior()
    source_learned: bool = True
    loss: PhysicsLossSettings = PhysicsLossSettings()
    looks: Annotated[int, Field(ge=1, le=ORIENTATIONS)] = ORIENTATIONS
    levels: Annotated[list[Level], Field(min_length=1)] = [
        Level(modes=8, steps=5, points=1),
        Level(modes=18, steps=6, points=4),
    ]
    damping: PositiveFloat = 1e-2
    search: Search = Search(rounds=3, candidates_per_round=3, kept=0.8, steps=2, shares=(1.0,))
    frame: FreeSourceSettings = FreeSourceSettings()
    unresolved_subhalos: NonNegativeFloat = 0.25

    def build(self) -> MarginalisedMethod:
        """Return the method with a fresh network."""
        return MarginalisedMethod(self)


@dataclass(frozen=True)
class LearnedSpectrum:
    """A source prior whose numbers are learned: what `model.SourcePrior` is, as tensors."""

    amplitude: Tensor
    scale: Tensor
    slope: Tensor


class SurveyPriors(nn.Module):
    """What a survey has taught about its lenses and sources.

    Args:
        space: of the parameters.
        mean: unconstrained, (P,).
        width: standard deviation of those without a declared prior, unconstrained.
        source: the field's prior to begin with.
        far: see `MarginalisedSettings`.
    """

    def __init__(self, space: ParameterSpace, mean: Tensor, width: float, source: SourcePrior, far: float) -> None:
        super().__init__()
        self.far = far
        self.mean = nn.Parameter(mean.clone())
        self.log_width = nn.Parameter(torch.full_like(mean, math.log(width)))
        self.log_source = nn.Parameter(torch.tensor([source.amplitude, source.scale, source.slope]).log())
        with torch.no_grad(), torch.device("cpu"):
            slopes = space.prior_slopes(mean[None])[0].amax(1)
            self.log_width.copy_(torch.where(slopes > 0, -slopes.clamp(min=1e-6).log(), self.log_width))

    @property
    def source(self) -> LearnedSpectrum:
        """Of the source's field."""
        return LearnedSpectrum(*self.log_source.exp())

    def space(self, before: ParameterSpace) -> ParameterSpace:
        """Return a space of parameters with the learned prior in place of the declared one, to first order."""
        mean, width = self.mean.detach()[None], self.log_width.detach().exp()
        values, slopes = before.physical(mean), before.slopes(mean)[0]
        return ParameterSpace(
            [
                replace(p, mean=float(values[p.name]), sigma=float(spread / (values[p.name] if p.logarithmic else 1)))
                for p, spread in zip(before.parameters, width * slopes, strict=True)
            ]
        )

    def pull(self, guess: Tensor) -> Tensor:
        """Return minus ln of the prior of guesses (B, P), (B,): for the network, not for the prior."""
        away = (guess - self.mean.detach()) / self.log_width.detach().exp()
        return 0.5 * away.square().sum(1)

    def misfit(self, guess: Tensor, log_sigma: Tensor) -> Tensor:
        """Return the expectation of minus ln of the prior over guesses and their errors, (B,): for the prior alone.

        With the errors counted, a prior does not shrink about lenses that it has pulled to its middle itself. Guesses
        further off than ``far`` standard deviations, errors counted, are failures, which widen it less (Huber 1964).
        """
        spread = (guess.detach() - self.mean).square() + (2 * log_sigma.detach()).exp()
        away = spread * (-2 * self.log_width).exp()
        beyond = self.far * away.clamp(min=self.far**2).sqrt() - 0.5 * self.far**2
        return (torch.where(away < self.far**2, 0.5 * away, beyond) + self.log_width).sum(1)

    def drawn(self, count: int) -> Tensor:
        """Return unconstrained vectors of lenses, (count, P)."""
        with torch.no_grad():
            noise = torch.randn(count, len(self.mean), dtype=self.mean.dtype, device=self.mean.device)
            return self.mean + self.log_width.exp() * noise


class MarginalisedMethod(Refinable):
    """LR image and instrument -> network -> source solved, a few Gauss-Newton steps -> SR image with its sigma."""

    settings: MarginalisedSettings

    def __init__(self, settings: MarginalisedSettings) -> None:
        super().__init__()
        model = LensModel.smooth()
        names = list(model.names)
        check_guessed(settings.parameters, names)
        self.settings = settings
        self.network = settings.network.build(len(names), INSTRUMENT_NUMBERS)
        with torch.device("cpu"):
            self.priors = SurveyPriors(model.space(2.5), typical(), settings.width, settings.source, settings.far)
        self.priors.log_source.requires_grad_(settings.source_learned)

    @property
    def without_network(self) -> RefinedFit:
        """The fit that goes on from its guess, and that looks at images it was not trained for."""
        return RefinedFit(unresolved_subhalos=self.settings.unresolved_subhalos)

    # ------------------------------------------------------------ looking

    def looked(self, problem: LensProblem, g: int = 0) -> tuple[Tensor, Tensor]:
        """Return what the network sees in images: mean and ln standard deviation of each parameter, (B, P) each.

        Args:
            problem: the images.
            g: orientation in which it looks at them, 0 to 7.
        """
        observation = problem.observation
        light = observation.image * observation.weight
        image, significance = (
            transformed(x, g) for x in (light / observation.peak_unit, light * problem.inverse_sigma)
        )
        grid = observation.camera.grid
        half_side = grid.scale * max(grid.shape) / 2
        mean, spread = self.network(image, significance, instrument_numbers(problem), half_side)
        back = TurnedBack(problem.model.names, g)
        centre, width = self.priors.mean.detach(), self.priors.log_width.detach()
        return back(centre + mean * width.exp()), back.spread(spread + width)

    def freed(self, problem: LensProblem, own: Tensor, modes: int, frame: Frame | None = None) -> LensProblem:
        """Return the problem with a free source under the learned prior, in the frame that guesses (B, P) ask for."""
        frame = frame or source_frame(problem, own.detach(), self.settings.frame)
        basis = Modes(modes)
        return replace(problem, free=FreeField(basis, frame, basis.sigma(self.priors.source, 2 * frame.half_side)))

    # ------------------------------------------------------------ training

    def training_terms(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Return evidence, priors, drawn lenses and physics terms of a batch, all from the LR images."""
        settings, drawn = self.settings, self.settings.drawn
        problem = LensProblem.from_observation(batch.observation)
        terms: dict[str, Tensor] = {}
        loss = batch.observation.image.new_zeros(())
        if drawn is not None:
            terms["drawn"] = self.drawn_loss(problem, drawn)
            loss = loss + drawn.weight * drawn.decay**epoch * terms["drawn"]
        if drawn is None or epoch >= drawn.alone:
            guess, spread = self.looked(problem, int(torch.randint(ORIENTATIONS, ())))
            terms |= self._wake(problem, guess, spread, epoch)
            loss = loss + settings.evidence.weight * terms["evidence"] + settings.prior * terms["prior"]
            loss = loss + terms["survey"]
            if settings.loss.terms:
                physics = settings.loss.evaluate(bare_prediction(problem, guess), batch.observation, epoch)
                loss = loss + physics.pop("loss")
                terms |= physics
        return terms | {"loss": loss}

    def validation_score(self, batch: Batch) -> Tensor:
        """Return evidence and prior of the images, with the last floor."""
        problem = LensProblem.from_observation(batch.observation)
        terms = self._wake(problem, *self.looked(problem), self.settings.evidence.epochs)
        return terms["evidence"] + self.settings.prior * terms["prior"]

    def _wake(self, problem: LensProblem, guess: Tensor, spread: Tensor, epoch: int) -> dict[str, Tensor]:
        """The terms of the images themselves."""
        evidence, n_unmasked = self.settings.evidence, problem.observation.n_unmasked
        near = self._near(problem, evidence, evidence.floor_at(epoch))
        found = marginal(self.freed(near, guess, evidence.modes), guess)
        return {
            "evidence": evidence(found, near.observation.n_unmasked),
            "prior": (self.priors.pull(guess) / n_unmasked).mean(),
            "survey": (self.priors.misfit(guess, spread) / n_unmasked).mean(),
        }

    def _near(self, problem: LensProblem, evidence: EvidenceLoss, floor: float) -> LensProblem:
        """The problem of the pixels about the arcs, coarsely sampled, with a floor under its noise."""
        near = at_most(evidence.points, self._cut(problem))
        variance = (floor * problem.observation.peak_unit * near.inverse_sigma).square()
        return replace(near, inverse_sigma=near.inverse_sigma / (1 + variance).sqrt())

    def drawn_loss(self, problem: LensProblem, drawn: DrawnLenses) -> Tensor:
        """Return minus ln likelihood, by the network, of lenses drawn from the priors, per parameter; a scalar."""
        rows = torch.arange(len(problem), device=problem.unit.device).repeat(drawn.each)
        seen, truth = self.draw(problem[rows], drawn)
        mean, spread = self.looked(seen, int(torch.randint(ORIENTATIONS, ())))
        away = (truth - mean) * (-spread).exp()
        return (0.5 * away.square() + spread).mean()

    def draw(self, problem: LensProblem, drawn: DrawnLenses) -> tuple[LensProblem, Tensor]:
        """Return images of drawn lenses, as bright as those of a problem and with their noise, and what was drawn.

        Returns:
            the problem of the images, and their unconstrained vectors, (B, P).
        """
        with torch.no_grad():
            observation = problem.observation
            own = self.priors.drawn(len(problem)).to(problem.unit)
            sersic = problem.sersic(own)
            size = (4 * torch.as_tensor(sersic.R_sersic)).clamp(max=self.settings.frame.largest)
            frame = Frame.from_sersic(sersic, size, self.settings.frame.envelope)
            free = self.freed(at_most(drawn.points, problem), own, drawn.modes, frame)
            clean = free.render(torch.cat([own, torch.randn_like(free.free.sigma)], dim=1))  # type: ignore[union-attr]
            factor = observation.peak / clean.flatten(1).amax(1).clamp(min=1e-30)
            clean = clean * factor[:, None, None, None]
            image = observation.noise.sample(clean, _generator(clean))
            seen = LensProblem.from_observation(replace(observation, image=image))
            values = problem.values(own)
            name = f"{next(iter(problem.model.source))}.amp"
            return seen, seen.unconstrained(values | {name: values[name] * factor})

    # ------------------------------------------------------------ a forward pass

    def start(self, problem: LensProblem) -> Tensor:
        """Return the lens of the best look at each image, (B, P)."""
        looks = [self.looked(problem, g)[0] for g in range(self.settings.looks)]
        if len(looks) == 1:
            return looks[0]
        near = self._near(problem, self.settings.evidence, self.settings.evidence.least)
        modes = self.settings.evidence.modes
        worth = [marginal(self.freed(near, look, modes), look).surprise for look in looks]
        best = torch.stack(worth).nan_to_num(torch.inf).argmin(0)
        return torch.stack(looks)[best, torch.arange(len(problem), device=best.device)]

    def fit(self, observation: Observation) -> LensFit:
        """Return where the forward pass ends: each level frames the source anew, about the lens found so far."""
        with torch.no_grad():
            whole = self._taught(LensProblem.from_observation(observation))
            own, problem = self.start(whole), self._cut(whole)
            for level in self.settings.levels:
                free = self.freed(at_most(level.points, problem), own, level.modes)
                start = torch.cat([own, own.new_zeros(len(own), free.sizes[2])], dim=1)
                end = minimised(free, start, Stop(level.steps, fall=level.fall), damping=self.settings.damping)
                own, renewed = free.parts(end.x)[0], free.renewed(end.x)
                noise = replace(problem.observation, noise=renewed.observation.noise)
                problem = replace(problem, observation=noise, inverse_sigma=renewed.inverse_sigma)
            finest = replace(free, observation=problem.observation, inverse_sigma=problem.inverse_sigma)
            fitted = Fitted(finest, end.at_cost(finest.cost(end.x)))
            groups = [(rows, seen_whole(group, whole[rows])) for rows, group in self._with_subhalos(fitted)]
            theta_E = whole.values(own)[f"{whole.model.main}.theta_E"]
            return LensFit(groups, significant_light(whole)[1], theta_E, Rival.none(theta_E))

    def _with_subhalos(self, fitted: Fitted) -> Groups:
        """The fits, with sub-halos where a smooth lens leaves more than the noise."""
        bad = poor(fitted) if self.settings.search.rounds else torch.zeros_like(fitted.evidence, dtype=torch.bool)
        return parted(fitted, bad, lambda some: add_subhalos(some, self.settings.search), as_it_is)

    def _taught(self, problem: LensProblem) -> LensProblem:
        """The problem with the lens prior that the survey taught."""
        return replace(problem, space=self.priors.space(problem.space))

    def _cut(self, problem: LensProblem) -> LensProblem:
        evidence = self.settings.evidence
        return Window(bright=evidence.bright, margin=evidence.margin, crop=1.0).middle(problem)


def at_most(points: int, problem: LensProblem) -> LensProblem:
    """Return the problem with at most so many points along the side of a pixel."""
    return problem.sampled(min(points, problem.observation.camera.supersampling))


def _generator(like: Tensor) -> torch.Generator:
    """The generator whose state a checkpoint holds."""
    return (
        torch.default_generator if like.device.type == "cpu" else torch.cuda.default_generators[like.device.index or 0]
    )
