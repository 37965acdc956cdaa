"""From several images of one lens to its joint fit: the clearest image first, the others from there, then all."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.basics.settings import Strict
from lensphys.fitting.bodies import gain_by_error
from lensphys.fitting.evidence import best_prior, reweighed
from lensphys.fitting.joint import JointFitted, JointProblem, Part, View, correlation_evidence
from lensphys.fitting.newton import Stop, minimised
from lensphys.fitting.placement import Placement
from lensphys.fitting.problem import LensProblem, inverse_sigma
from lensphys.fitting.source import Fitted
from lensphys.fitting.stages import LensFit, Refinement
from lensphys.fitting.subhalos import Answer, Candidates, Search, candidates_of, places, whitened_bodies
from lensphys.fitting.window import whole_problem
from lensphys.fitting.with_light import LitLens
from lensphys.model import Frame, LensModel, Member, Parameter, ParameterSpace, centre_of
from lensphys.model.component import CENTRE
from lensphys.observation import Observation
from lensphys.observation.kernel import star_width


class JointSettings(Strict):
    """How several images of one lens are fitted together.

    Args:
        pointing: error of where an image lies on the sky of another one, along an axis [arcsec].
        rotation: error of how it is turned [degrees].
        flux: error of its flux calibration against that of the first image of its band [e-folds]; 0 for none.
        correlations: of the fields of two bands' sources that are tried; the evidence chooses.
        covered: share of the arcs' light in the first image that another one must show.
        around: how far about its expected place an image is looked for, in steps of the pointing error.
        starts: of the source of another band: its mass is known.
        steps: Newton steps with everything free.
        fall: of the cost in a step, below which the fit has converged.
        looks: how often the noise is renewed with the model.
        search: whether sub-halos are looked for in all images together, and at most so many.
    """

    pointing: NonNegativeFloat = 0.1
    rotation: NonNegativeFloat = 0.2
    flux: NonNegativeFloat = 0.0
    correlations: Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], Field(min_length=1, strict=False)] = (
        0.0, 0.5, 0.8, 0.9, 0.95, 0.98,
    )  # fmt: skip
    covered: Annotated[float, Field(gt=0, le=1)] = 0.5
    around: PositiveInt = 2
    starts: PositiveInt = 1
    steps: PositiveInt = 20
    fall: PositiveFloat = 0.3
    looks: PositiveInt = 2
    search: int = Field(default=4, ge=0)

    @property
    def sigma(self) -> tuple[float, float, float, float]:
        """Of the numbers of a placement."""
        return self.pointing, self.pointing, math.radians(self.rotation), self.flux


@dataclass(frozen=True)
class Exposure:
    """One of several images of a lens, before anything is fitted.

    Args:
        name: of the image, for messages and tables.
        band: images of the same band are exposures: they see the same source and lens light.
        observation: a batch of one.
        place: where its header says that it lies on the sky of a common image; None where nothing does: its middle is
            that of the others.
    """

    name: str
    band: str
    observation: Observation
    place: Placement | None = None

    def to(self, device: torch.device | str) -> Exposure:
        """Return it with its tensors on a device."""
        place = None if self.place is None else Placement(self.place.numbers.to(device))
        return replace(self, observation=self.observation.to(device), place=place)


@dataclass(frozen=True)
class JointFit:
    """The joint fit of several images.

    Args:
        fitted: the optimum.
        whole: the problems of the images with all of their pixels, in the order of the fit's views.
        first: the fit of the first image alone.
    """

    fitted: JointFitted
    whole: list[LensProblem]
    first: LensFit

    def views(self) -> list[Fitted]:
        """Return the fit of each image, with all of its pixels and the errors that all images leave."""
        return self.fitted.views(self.whole)


@dataclass(frozen=True)
class JointRefinement:
    """Fits several images of one lens together.

    Args:
        refinement: how one image is fitted.
        settings: how the others join it.
        problem: what is fitted to an image: a smooth lens with a Sersic source.
    """

    refinement: Refinement
    settings: JointSettings = JointSettings()
    problem: Callable[[Observation], LensProblem] = LensProblem.from_observation

    def __call__(self, images: Sequence[Exposure]) -> JointFit:
        """Return the joint fit; the image that tells most of the lens comes first.

        Args:
            images: of one lens, at least one.

        Raises:
            LensphysError: if the first one shows nothing, or one does not overlap with it.
        """
        with torch.no_grad():
            images = _in_order(images)
            alone = self.refinement(self.problem(images[0].observation))
            ((_, first),) = alone.groups
            if not bool(alone.seen[0]):
                raise LensphysError(f"{images[0].name}: nothing stands out of the noise, in the clearest of the images")
            opened = self._opened(images, first)
            fitted = self._joint(opened)
            whole = [one.seen_whole(*own) for one, own in zip(opened, fitted.problem.seen(fitted.x), strict=True)]
            return JointFit(fitted, whole, alone)

    def _opened(self, images: Sequence[Exposure], fitted: Fitted) -> list[_Opened]:
        """Each image with a model of its own that starts from the first one's."""
        first, *others = images
        none, problem, x = Placement.identity(fitted.problem.unit), fitted.problem, fitted.x
        found = [_Opened(first, self.refinement.middle(problem, x), problem, x, none, none)]
        leaders = {first.band: found[0]}
        for seen in others:
            place = none if seen.place is None or first.place is None else seen.place.about(first.place)
            self._check_overlap(seen, place, first, fitted)
            if seen.band in leaders:
                found.append(self._exposure(seen, place, leaders[seen.band]))
            else:
                found.append(self._band(seen, place, found[0]))
                leaders[seen.band] = found[-1]
        return found

    def _check_overlap(self, seen: Exposure, place: Placement, first: Exposure, fitted: Fitted) -> None:
        problem, grid = fitted.problem, seen.observation.camera.grid
        arcs = problem.without_front(problem.render(fitted.x), fitted.x)
        there = place.image(problem.observation.camera.grid.positions(like=arcs)).abs()
        half = there.new_tensor([grid.width, grid.height])[None, :, None, None] * 0.5 * grid.scale
        share = float((arcs * (there < half).all(1, keepdim=True)).sum() / arcs.sum().clamp(min=1e-30))
        if share < self.settings.covered:
            raise LensphysError(
                f"{seen.name} shows {100 * max(share, 0.0):.0f} % of the arcs of {first.name}, by their headers: "
                "they do not overlap, leave one out"
            )

    def _exposure(self, seen: Exposure, place: Placement, leader: _Opened) -> _Opened:
        """Another image of a band whose model is known."""
        own, known = self.problem(seen.observation), leader.whole.observation.camera
        points = round(known.supersampling * own.observation.camera.grid.scale / known.grid.scale)
        camera = own.observation.camera
        camera = replace(camera, supersampling=max(camera.supersampling, points) if known.supersampling > 1 else 1)
        start = Placement(torch.cat([place.numbers[:, :2] + leader.offset, place.numbers[:, 2:]], dim=1))
        whole = replace(
            leader.problem,
            observation=replace(own.observation, camera=camera),
            inverse_sigma=own.inverse_sigma,
            inflation=own.inflation,
            radius=own.radius,
            front=None,
            placement=start,
        )
        whole = self._found(whole, leader.x)
        if self.refinement.lens_light is not None:
            whole = LitLens(self.refinement.lens_light, None, 1).beside(whole, leader.x)
        whole = whole.renewed(leader.x)
        factor = self.refinement.smooth.sky.factor(whole, leader.x)
        whole = whole.inflated(factor).renewed(leader.x)
        middle = self.refinement.middle(whole, leader.x)
        middle = replace(middle, space=leader.problem.space)
        return _Opened(seen, middle, whole, leader.x, place, whole.placement or place)

    def _found(self, problem: LensProblem, x: Tensor) -> LensProblem:
        """The problem of an exposure, placed where the known lens explains it best among places about the expected."""
        place, step, around = problem.placement, self.settings.pointing, self.settings.around
        if place is None or step == 0:
            return problem
        offsets = torch.arange(-around, around + 1).to(x) * step
        tried = [
            replace(problem, placement=Placement(place.numbers + torch.stack([dx, dy, 0 * dx, 0 * dx])))
            for dx, dy in torch.cartesian_prod(offsets, offsets)
        ]
        return min(tried, key=lambda one: float(one.cost(x)))

    def _band(self, image: Exposure, place: Placement, first: _Opened) -> _Opened:
        """An image of another band: source and light of its own, behind and in front of the mass of the first."""
        own = self.problem(image.observation)
        values = first.problem.values(first.x)
        held = _held(first.problem.model, place.inverse.values(values), self.settings.pointing)
        model = replace(held, source=own.model.source)
        own = replace(own, model=model, space=model.space(own.radius))
        few = self.refinement.smooth.model_copy(update={"starts": self.settings.starts})
        smooth = self.refinement.model_copy(update={"smooth": few}).alone(own)
        seen = smooth.problem.values(smooth.x)
        main = first.problem.model.main
        there, here = (centre_of(v, main) for v in (values, seen))
        found = there - place.turned(here[:, :, None, None])[:, :, 0, 0]
        start = Placement(torch.cat([found, place.numbers[:, 2:]], dim=1))
        problem = _joined(self.refinement.middle(smooth.problem, smooth.x), first.problem, start)
        light = {n: v for n, v in start.values(seen).items() if n.rpartition(".")[0] not in problem.model.mass}
        x = problem.unconstrained({n: (values | light)[n] for n in problem.model.names})
        problem = _with_field(problem, x, first.problem)
        _, bodies, _, psi = first.problem.parts(first.x)
        x = torch.cat([x, bodies, x.new_zeros(1, problem.sizes[2]), psi], dim=1)
        problem = replace(problem, subhalos=first.problem.subhalos, potential=first.problem.potential)
        return _Opened(image, problem, smooth.problem, x, place, start)

    def _joint(self, opened: Sequence[_Opened]) -> JointFitted:
        """The optimum of all images together."""
        views = tuple(View(o.seen.name, o.seen.band, o.problem, o.place) for o in opened)
        problem = JointProblem(views, self.settings.sigma)
        x = problem.gathered([o.x for o in opened], [o.start for o in opened])
        if len(views) == 1:
            return JointFitted.at(problem, x)
        stop = Stop(self.settings.steps, fall=self.settings.fall)
        for band in problem.bands:  # the first image stays as it is while the others find their places
            part = _of_band(problem, x, band)
            if part is not None:
                x = part.whole(minimised(part, x[:, part.free], stop).x)
        problem, x = self._weighed(problem, x)
        fitted = self._settled(problem, x)
        fitted = self._correlated(fitted)
        return self.pruned(self._with_subhalos(fitted))

    def _settled(self, problem: JointProblem, x: Tensor) -> JointFitted:
        """The optimum, with the noise of the model renewed."""
        end = minimised(problem, x, Stop(self.settings.steps, fall=self.settings.fall))
        for _ in range(self.settings.looks):
            problem = problem.renewed(end.x)
            end = minimised(problem, end.x, Stop(self.settings.steps, fall=self.settings.fall), damping=1e-3)
        return JointFitted(problem, end)

    def _weighed(self, problem: JointProblem, x: Tensor) -> tuple[JointProblem, Tensor]:
        """The problem with the likeliest prior of the field of each band but the first."""
        source, views, x = self.refinement.beyond.source, list(problem.views), x.clone()
        if source is None or problem.first.free is None:
            return problem, x
        for row, band in list(enumerate(problem.bands))[1:]:
            lead = next(i for i, view in enumerate(views) if view.band == band)
            own, vector = problem.seen(x)[lead]
            free = own.free
            if free is None:
                continue
            index = best_prior(own, vector, source.priors)
            sigma = free.modes.sigma(source.priors[int(index)], 2 * free.frame.half_side)
            weighed, vector = reweighed(own, vector, sigma)
            x[:, problem.fields[row]] = weighed.parts(vector)[2]
            views = [replace(v, problem=replace(v.problem, free=weighed.free)) if v.band == band else v for v in views]
        return replace(problem, views=tuple(views)), x

    def _correlated(self, fitted: JointFitted) -> JointFitted:
        """The fit under the likeliest correlation of the bands' fields."""
        if len(fitted.problem.bands) == 1 or fitted.problem.first.free is None:
            return fitted
        for _ in range(self.settings.looks):
            found = correlation_evidence(fitted, self.settings.correlations)
            best = self.settings.correlations[max(range(len(found)), key=found.__getitem__)]
            if best == fitted.problem.correlation:
                break
            fitted = self._settled(replace(fitted.problem, correlation=best), fitted.x)
        return fitted

    def _with_subhalos(self, fitted: JointFitted) -> JointFitted:
        """The fit with sub-halos that pay in all images together, one after the other."""
        search = self._search(fitted)
        if not all(view.problem.observation.camera.psf.known for view in fitted.problem.views):
            return fitted
        for _ in range(min(self.settings.search, search.rounds)):
            best = joint_candidates(fitted, search).best(1, 0.0, search.gain)
            if len(best) == 0:
                break
            problem, x = _with_body(fitted, best)
            end = minimised(problem, x, Stop(search.steps, fall=self.settings.fall), damping=1e-3)
            if float(end.cost) > float(fitted.end.cost) - search.kept * search.gain:
                break
            fitted = JointFitted(problem, end)
        return fitted

    def _search(self, fitted: JointFitted) -> Search:
        return self.refinement.beyond.search_behind(fitted.problem.first.free is not None)

    def pruned(self, fitted: JointFitted) -> JointFitted:
        """Return the fit without the sub-halos that do not pay in all images together, the weakest first."""
        search = self._search(fitted)
        while fitted.problem.first.subhalos:
            variance = fitted.covariance.diagonal()[fitted.problem.bodies[::3]]  # of ln strength
            weakest = int(variance.argmax())
            trial, kept = fitted.problem.without(weakest)
            end = minimised(trial, fitted.x[:, kept], Stop(search.steps, fall=self.settings.fall), damping=1e-3)
            uncertain = float(gain_by_error(variance[weakest])) < search.gain
            if not uncertain and float(end.cost - fitted.end.cost) >= search.stands:
                break
            fitted = JointFitted(trial, end)
        return fitted


@dataclass(frozen=True)
class _Opened:
    """An image with a model of its own, ready to join the others.

    Args:
        seen: the image.
        problem: of the pixels near the arcs, about the sky of the first image.
        whole: with all of its pixels and their noise; its model does not matter.
        x: where it starts, (1, Q).
        place: the mean of the prior of its placement.
        start: where its placement starts.
    """

    seen: Exposure
    problem: LensProblem
    whole: LensProblem
    x: Tensor
    place: Placement
    start: Placement

    @property
    def offset(self) -> Tensor:
        """How far from its expected place it was found, (1, 2) [arcsec]."""
        return (self.start.numbers - self.place.numbers)[:, :2]

    def seen_whole(self, fitted: LensProblem, x: Tensor) -> LensProblem:
        """Return the fitted problem with all pixels of the image."""
        return whole_problem(fitted, self.whole, x)


def joint_candidates(fitted: JointFitted, search: Search) -> Candidates:
    """Return where another sub-halo would gain how much in all images together: see `candidates`."""
    seen = fitted.problem.seen(fitted.x)
    place, normal = places(seen[0][0], search), fitted.problem.normal(fitted.x)
    pull, own = (normal.gradient.new_zeros(len(place)) for _ in range(2))
    cross = normal.gradient.new_zeros(fitted.problem.size, len(place))
    rows = zip(seen, fitted.problem.spots, fitted.problem.systems(fitted.x), strict=True)
    for (problem, x), spot, (residual, columns) in rows:
        body = whitened_bodies(problem, x, place)[0].double()
        pull += body @ residual[0].double()
        own += body.square().sum(1)
        cross[spot.all] += columns[0].double() @ body.T
    return candidates_of(place, normal, Answer(pull, own, cross), search, fitted.x)


def _with_body(fitted: JointFitted, new: Candidates) -> tuple[JointProblem, Tensor]:
    """The problem with one more sub-halo, and the vector with it, all else as it answers."""
    old = fitted.problem
    more = [replace(view.problem, subhalos=view.problem.subhalos + 1) for view in old.views]
    views = tuple(replace(view, problem=one) for view, one in zip(old.views, more, strict=True))
    problem = replace(old, views=views)
    x = fitted.x.new_zeros(1, problem.size)
    x[:, problem.without(problem.first.subhalos - 1)[1]] = fitted.x + new.response.to(fitted.x)
    x[:, problem.bodies[-3:]] = torch.cat([new.strength.log()[:, None], new.place], dim=1).to(x)
    return problem, x


def _in_order(images: Sequence[Exposure]) -> list[Exposure]:
    """The images, that first which tells most of fine structure."""
    if not images:
        raise LensphysError("there is no image: give at least one")
    best = max(range(len(images)), key=lambda i: _information(images[i].observation))
    return [images[best], *images[:best], *images[best + 1 :]]


def _information(seen: Observation) -> float:
    """What an image tells of a shift of it, noise taken off, over the square of a star's width [arcsec^-4]."""
    image, inverse = seen.image, inverse_sigma(seen, seen.smoothed)
    along_x, along_y = image[..., 1:-1, 2:] - image[..., 1:-1, :-2], image[..., 2:, 1:-1] - image[..., :-2, 1:-1]
    inner = inverse[..., 1:-1, 1:-1]
    whole = (inverse > 0).to(inverse)
    counts = inner * (torch.nn.functional.avg_pool2d(whole, 3, stride=1) > 0.999)
    steep = sum(((0.5 * step * counts).square() - 0.5 * (counts > 0)).sum() for step in (along_x, along_y))
    return float(steep) / seen.camera.grid.pixel_area / star_width(seen.camera, image) ** 2


def _held(model: LensModel, values: Mapping[str, Tensor], error: float) -> LensModel:
    """The mass of a model with given values, (1,) each, but for its centre, which is free within an error [arcsec]."""
    return LensModel({name: _held_member(name, member, values, error) for name, member in model.mass.items()}, {})


def _held_member(name: str, member: Member, values: Mapping[str, Tensor], error: float) -> Member:
    known = {p.name: values[f"{name}.{p.name}"] for p in member.component.parameters if p.name not in member.tied}
    free = tuple(_near(p, float(known[p.name]), error) for p in member.free if p.name in CENTRE and error > 0)
    fixed = {**member.fixed, **{n: v for n, v in known.items() if n not in {p.name for p in free}}}
    return Member(member.component, free, fixed, member.tied)


def _near(parameter: Parameter, value: float, error: float) -> Parameter:
    return replace(parameter, low=value - 5 * error, high=value + 5 * error, mean=value, sigma=error)


def _joined(own: LensProblem, first: LensProblem, start: Placement) -> LensProblem:
    """The problem of an image whose light is its own and whose mass is that of the first one."""
    model = replace(own.model, mass=first.model.mass)
    mass = {p.name: p for p in first.space.parameters}
    by = dict(zip(CENTRE, start.numbers[0, :2].tolist(), strict=True))
    moved = {p.name: p.moved(by.get(p.name.rpartition(".")[2], 0.0)) for p in own.space.parameters}
    space = ParameterSpace([(moved | mass)[p.name] if p.name in mass else moved[p.name] for p in model.parameters])
    return replace(own, model=model, space=space, bodies=first.bodies, placement=start)


def _with_field(problem: LensProblem, x: Tensor, first: LensProblem) -> LensProblem:
    """The problem of an image with a free source, where that of the first one is: in the same frame and modes."""
    if first.free is None:
        return problem
    frame = first.free.frame
    own = Frame.from_sersic(problem.sersic(x), frame.half_side, frame.envelope)
    return replace(problem, free=replace(first.free, frame=replace(frame, reference=own.reference)))


def _of_band(problem: JointProblem, x: Tensor, band: str) -> Part | None:
    """What the images of a band alone see and the first image does not; None where that is nothing."""
    images = tuple(i for i, view in enumerate(problem.views) if view.band == band and i > 0)
    if not images:
        return None
    own = torch.cat([problem.spots[i].all for i in images]).unique()
    return Part(problem, x, own[~torch.isin(own, problem.spots[0].index)], images)
