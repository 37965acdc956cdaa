"""A lens with the light of its galaxy: mass, source and light fitted jointly, and what else shines left out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lensphys.fitting.bad_pixels import bad_pixels
from lensphys.fitting.broad_light import BroadLight
from lensphys.fitting.foreign import Foreign, foreign_objects, grown
from lensphys.fitting.lens_light import LensLight, LensLightSettings, lens_light, near_the_light, star_width
from lensphys.fitting.newton import Stop, minimised
from lensphys.fitting.problem import LensProblem
from lensphys.fitting.smooth import at_centres, distinct, finished
from lensphys.fitting.source import Fitted, FreeSourceSettings, freed
from lensphys.fitting.starts import searched
from lensphys.model import LensModel, Parameter, ParameterSpace
from lensphys.observation import ModelErrorNoise


@dataclass(frozen=True)
class Minimum:
    """Where one start has ended.

    Args:
        problem: with the light of the galaxy, and without what this minimum takes for other objects.
        x: where, (1, Q).
        foreign: those objects.
    """

    problem: LensProblem
    x: Tensor
    foreign: Foreign


@dataclass(frozen=True)
class LitLens:
    """Fits one image of a lens with its galaxy.

    Minima from many starts are compared by their evidence with a coarse free source: a Sersic fits real arcs too badly
    to tell which is the right one.

    Args:
        settings: how the light is found.
        source: how the source is freed while minima are compared; None to compare them with Sersics.
        starts: how many minima are compared.
        steps: Newton steps a start.
        apart: by what some parameter of the mass must differ between two starts, of its unconstrained values.
    """

    settings: LensLightSettings
    source: FreeSourceSettings | None
    starts: int
    steps: int
    apart: float

    def __call__(self, problem: LensProblem) -> Fitted:
        """Return the best lens, Sersic source and light of one image.

        Args:
            problem: of a smooth lens with a Sersic source, without light.
        """
        problem, light = self._prepared(problem)
        near, front = self._near(problem, light)
        arcs = self._behind(near, front)
        minima = [self._followed(near, front, arcs, start) for start in self._starts(arcs)]
        best = max(minima, key=lambda minimum: self._merit(near, minimum))
        outside = torch.zeros_like(problem.observation.image, dtype=torch.bool)
        outside[self._window(problem)] = best.foreign.where
        return finished(self._with(problem.without(outside), light, arcs), best.x, self.steps)

    def _prepared(self, problem: LensProblem) -> tuple[LensProblem, LensLight]:
        """The problem without bad pixels and what is too far out, with the light's error in its noise; and the light."""
        problem = problem.without(bad_pixels(problem.observation, problem.inverse_sigma, self.settings.bad))
        where = problem.unit.device
        light = lens_light(problem.observation.to("cpu"), problem.inverse_sigma.cpu(), self.settings)
        values = {name: value.to(where) for name, value in light.values.items()}
        light = replace(light, values=values, image=light.image.to(where))
        noise = ModelErrorNoise(problem.observation.noise, (self.settings.model_error * light.image).square())
        observation = replace(problem.observation, noise=noise)
        sigma = (observation.weight / noise.variance(observation.image.clamp(min=0))).sqrt()
        grid = observation.camera.grid
        broad = BroadLight.about(light.image, grid, self.settings.share, self.settings.length)
        problem = replace(problem, observation=observation, inverse_sigma=sigma, broad=broad)
        rest = replace(observation, image=observation.image - self._front(problem, light))
        far = grid.positions(like=sigma).norm(dim=1, keepdim=True) > self.settings.reach
        objects = grown(rest.significance(problem.inverse_sigma) > self.settings.clip, self.settings.grow)
        return problem.without(far & objects), light

    def _front(self, problem: LensProblem, light: LensLight) -> Tensor:
        """The light of the galaxy with what of it is broad, found where no arcs are, (1, 1, H, W) [flux per pixel]."""
        rest, broad = problem.observation.image - light.image, torch.zeros_like(light.image)
        for _ in range(self.settings.rounds if problem.broad is not None else 0):
            above = replace(problem.observation, image=rest - broad).significance(problem.inverse_sigma)
            dark = ~grown(above > self.settings.clip, 1)
            broad = problem.broad.likeliest(rest, problem.inverse_sigma * dark)  # type: ignore[union-attr]
        return light.image + broad

    def _window(self, problem: LensProblem) -> tuple[slice, slice, slice, slice]:
        """Where images of the source can be."""
        grid = problem.observation.camera.grid
        middle = grid.middle(self.settings.reach, self.settings.reach)
        top, left = (grid.height - middle.height) // 2, (grid.width - middle.width) // 2
        every = slice(None)
        return every, every, slice(top, top + middle.height), slice(left, left + middle.width)

    def _near(self, problem: LensProblem, light: LensLight) -> tuple[LensProblem, LensLight]:
        """The problem where images of the source can be, with each pixel at its centre, and its light."""
        window = self._window(problem)
        front = replace(light, image=light.image[window])
        return at_centres(problem.inner(*front.image.shape[-2:])), front

    def _starts(self, arcs: LensProblem) -> Tensor:
        """Several different lenses with Sersic sources, (n, P): the best first.

        No pixel of the arcs counts for more than a few sigma: faint arcs are many pixels, a bright neighbour is few.
        """
        arcs = self._capped(arcs)
        radii = torch.linspace(arcs.space.parameters[0].low, self.settings.widest_ring, self.settings.radii)
        first = searched(arcs, radii.to(arcs.unit), self.settings.places, self.settings.sizes)
        order = torch.stack([self._forgiving(arcs, start[None]) for start in first]).argsort()
        first = first[order[: 2 * self.starts]]
        rows = torch.zeros(len(first), dtype=torch.long, device=first.device)
        ends = minimised(arcs[rows], first, Stop(self.steps // 2, cosine=1e-3)).x
        order = torch.stack([self._forgiving(arcs, end[None]) for end in ends]).argsort()
        return distinct(arcs, ends[order], 3 * self.apart)[: self.starts + 1]

    def _forgiving(self, problem: LensProblem, x: Tensor) -> Tensor:
        """The cost of a start () with other objects as well explained as anything could, for what that would take."""
        if not _seen_twice(problem, x):
            return torch.tensor(math.inf, dtype=torch.float64, device=x.device)
        foreign = self._foreign(problem, x)
        square = problem.residual(x).square().reshape_as(foreign.where).double()
        return 0.5 * torch.where(foreign.where, 1.0, square).sum() + foreign.count * self.settings.foreign_first

    def _followed(self, near: LensProblem, light: LensLight, arcs: LensProblem, start: Tensor) -> Minimum:
        """Where a start ends with the light free too, and without what it shows to be other objects."""
        problem = self._capped(self._with(near, light, arcs), light)
        known = light.values | arcs.values(start[None])
        x = problem.unconstrained(known)
        foreign = Foreign.nothing(light.image)
        for _ in range(self.settings.looks):
            x = minimised(problem, x, Stop(self.steps // 2, fall=3.0)).x
            more = self._foreign(problem, x)
            if not more.count:
                break
            foreign, problem = foreign.with_more(more), problem.without(more.where)
        return Minimum(problem, x, foreign)

    def _merit(self, near: LensProblem, minimum: Minimum) -> float:
        """The evidence of a minimum with a coarse free source, the pixels of other objects as well explained as any."""
        if not _seen_twice(minimum.problem, minimum.x):
            return -math.inf
        sigma = torch.where(minimum.problem.inverse_sigma > 0, near.inverse_sigma, 0.0)
        problem, paid = replace(minimum.problem, inverse_sigma=sigma), minimum.foreign.count * self.settings.foreign
        paid += 0.5 * int((minimum.foreign.where & (near.inverse_sigma > 0)).sum())
        if self.source is None:
            return float(Fitted.at(problem, minimum.x).evidence) - paid
        coarse = self.source.model_copy(update={"modes": self.source.modes[:1]})
        return float(freed(problem, minimum.x, coarse)[-1].evidence) - paid

    def _capped(self, problem: LensProblem, light: LensLight | None = None) -> LensProblem:
        """The problem with so much noise in bright arcs that no pixel's signal-to-noise is above the cap."""
        image = problem.observation.image if light is None else problem.observation.image - light.image
        arcs = image.clamp(min=0) / self.settings.cap
        sigma = (problem.inverse_sigma.clamp(min=1e-30).square().reciprocal() + arcs.square()).rsqrt()
        return replace(problem, inverse_sigma=torch.where(problem.inverse_sigma > 0, sigma, 0.0))

    def _behind(self, problem: LensProblem, light: LensLight) -> LensProblem:
        """The problem of the arcs alone: the light taken off, the middle of the galaxy left out."""
        observation = problem.observation
        away = observation.camera.grid.positions(like=light.image) - _centre(light)
        core = away.norm(dim=1, keepdim=True) < self._core(problem)
        image = torch.where(core, 0.0, observation.image - light.image)
        behind = replace(observation, image=image, mask=(observation.weight > 0) & ~core)
        sigma = torch.where(core, 0.0, problem.inverse_sigma)
        unit = behind.peak.clamp(min=1e-30) / observation.camera.grid.pixel_area
        front, space = self._front(problem, light) - light.image, self._space(problem, light)
        return replace(problem, observation=behind, inverse_sigma=sigma, unit=unit, space=space, front=front)

    def _with(self, problem: LensProblem, light: LensLight, arcs: LensProblem) -> LensProblem:
        """The problem with the light of the galaxy free beside lens and source of the arcs."""
        model = replace(problem.model, lens_light=light.members)
        more = LensModel({}, {}, light.members).space(problem.radius).parameters
        space = ParameterSpace(arcs.space.parameters + more)
        return replace(problem, model=model, space=space, unit=arcs.unit, front=light.image)

    def _space(self, problem: LensProblem, light: LensLight) -> ParameterSpace:
        """Bounds and priors with the main lens about its light, and everything else about the same place."""
        x, y = _centre(light).flatten().tolist()
        main = next(iter(problem.model.mass))
        least = self._core(problem)
        about = problem.centred_on(x, y).space.parameters
        return ParameterSpace([near_the_light(p, main, light, self.settings, least) for p in about])

    def _core(self, problem: LensProblem) -> float:
        """Radius of the middle of a galaxy, where what is left of its light would pass for arcs [arcsec]."""
        return self.settings.core * star_width(problem.observation.camera, problem.unit)

    def _foreign(self, problem: LensProblem, x: Tensor) -> Foreign:
        """Objects outside of the arcs that neither lens light nor source explain."""
        front, model = problem.light_in_front(x), problem.shown(x)
        arcs = model if front is None else model - front
        values, main = problem.values(problem.parts(x)[0]), next(iter(problem.model.mass))
        away = problem.observation.camera.grid.positions(like=model) - _middle(values, main)[:, :, None, None]
        out = away.norm(dim=1, keepdim=True) > self.settings.beyond * values[f"{main}.theta_E"]
        return foreign_objects(problem.observation, model, arcs, out, self.settings)


def _middle(values: dict[str, Tensor], name: str) -> Tensor:
    """Where a member is, (1, 2) [arcsec]."""
    return torch.stack([values[f"{name}.center_{c}"] for c in "xy"], dim=1)


def _seen_twice(problem: LensProblem, x: Tensor) -> bool:
    """Whether the source of one image is so near behind the lens that it has a second image."""
    values = problem.values(problem.parts(x)[0])
    main, source = next(iter(problem.model.mass)), next(iter(problem.model.source))
    return bool((_middle(values, source) - _middle(values, main)).norm() < values[f"{main}.theta_E"])


def _centre(light: LensLight) -> Tensor:
    """Where the light is, (1, 2, 1, 1) [arcsec]."""
    return _middle(light.values, "lens_light.0")[:, :, None, None]


def wide_light_held(problem: LensProblem, x: Tensor, half: float, sigma: float) -> LensProblem:
    """Return the problem of one image with a prior on the Gaussians that are wide for it, about what they are.

    What only the middle of an image is fitted to does not tell them from each other; the whole image did.

    Args:
        problem: of the middle.
        x: the fit of the whole, (1, P).
        half: half width of the middle [arcsec]; Gaussians with a sigma above half of it are wide.
        sigma: of the prior of ln amplitude.
    """
    values = problem.space.physical(problem.parts(x)[0])

    def held(p: Parameter) -> Parameter:
        member = problem.model.lens_light.get(p.name.rpartition(".")[0])
        if member is None or not p.name.endswith(".amp") or member.fixed["sigma"] < 0.5 * half:
            return p
        return replace(p, mean=float(values[p.name]), sigma=sigma)

    return replace(problem, space=ParameterSpace([held(p) for p in problem.space.parameters]))
