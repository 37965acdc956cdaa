"""A lens with the light of its galaxy: mass, source and light fitted jointly, and what else shines left out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from lensphys.fitting.broad_light import BroadLight
from lensphys.fitting.compared import Comparison, Minimum, capped, lenses
from lensphys.fitting.foreign import Allowed, Foreign, foreign_objects, grown
from lensphys.fitting.galaxy_light import GalaxyLight, LensLight, lens_light
from lensphys.fitting.lens_light import LensLightSettings, near_the_light
from lensphys.fitting.newton import Stop, minimised
from lensphys.fitting.problem import LensProblem
from lensphys.fitting.smooth import finished
from lensphys.fitting.source import Fitted, FreeSourceSettings
from lensphys.fitting.starts import apart_from_all_before, free_radius, searched
from lensphys.model import LensModel, ParameterSpace, centre_of
from lensphys.observation import ModelErrorNoise
from lensphys.observation.kernel import star_width


@dataclass(frozen=True)
class LitLens:
    """Fits one image of a lens with its galaxy.

    Minima from many starts are compared by their evidence with a coarse free source: a Sersic fits real arcs too badly
    to tell which is the right one.

    Args:
        settings: how the light is found.
        source: how the source is freed while minima are compared; None to compare them with Sersics.
        steps: Newton steps on the best of them.
    """

    settings: LensLightSettings
    source: FreeSourceSettings | None
    steps: int

    def __call__(self, problem: LensProblem, middle: Tensor | None = None) -> Fitted:
        """Return the best lens, Sersic source and light of one image.

        Args:
            problem: of a smooth lens with a Sersic source, without light.
            middle: about where the galaxy is, (2,) [arcsec]; where the image is brightest if None.
        """
        light = self._light(problem, middle)
        wide = self.reaching(problem, light)
        return wide._fitted(wide._marked(problem, light.image), light)

    def reaching(self, problem: LensProblem, light: LensLight) -> LitLens:
        """Return the same, looking as far out as one image has arcs about its galaxy."""
        camera, settings = problem.observation.camera, self.settings
        away = problem.positions(camera.grid) - centre_of(light.values, "lens_light.0")[:, :, None, None]
        rest, least = problem.observation.image - light.image, settings.largest_radius / settings.wide.largest
        arcs = settings.wide.arcs.between(least, camera.grid.radius, rest, problem.inverse_sigma, away, camera)
        furthest = max((arc.radius for arc in arcs), default=0.0)
        return replace(self, settings=settings.around(furthest, camera.grid.scale))

    def _fitted(self, problem: LensProblem, light: LensLight) -> Fitted:
        """The best lens, Sersic source and light of one image, of which the light is known."""
        near, front = self._near(problem, light)
        near = replace(near, broad=self._broad(near, front))
        near, front = self._nearer(near, front)
        arcs = self._behind(near, front)
        minima = [self._followed(near, front, arcs, start) for start in self._starts(arcs)]
        best, rival = Comparison(self.settings, near, front.image, self.source is not None).best(minima)
        widened = self._widened(problem, near, best.foreign)
        light = self._once_more(widened, arcs, best)
        whole = self._with(widened, light, arcs)
        known = best.problem.values(best.x) | light.values
        return replace(self._finished(whole, known), rival=rival)

    def _once_more(self, whole: LensProblem, arcs: LensProblem, best: Minimum) -> LensLight:
        """The light of the galaxy in the whole image without the arcs that were found, its cusp too."""
        values, observation = best.problem.values(best.x), whole.observation
        lensed = replace(whole, space=arcs.space, unit=arcs.unit)
        rest = replace(observation, image=observation.image - lensed.render(lensed.unconstrained(values)))
        middle = centre_of(values, "lens_light.0")[0]
        return self._found(replace(whole, observation=rest), self.settings.again, middle)

    def _finished(self, whole: LensProblem, values: dict[str, Tensor]) -> Fitted:
        """The Sersic of the whole image behind the lens that was found; held there, if it would leave that lens."""
        start = self._unstuck(whole, whole.unconstrained(values))
        free = finished(whole, start, self.steps // 3)
        if self._still(whole, start, free.x):
            return free
        return finished(*whole.held(start, self.settings.rings.held, whole.model.mass_names), self.steps // 3)

    def _unstuck(self, whole: LensProblem, x: Tensor) -> Tensor:
        """A state (1, P) with its source off the bounds that the search ran into: there nothing moves any more."""
        inside = whole.space.off_bounds(x, self.settings.rings.inside)
        sources = tuple(f"{name}." for name in whole.model.source)
        return torch.where(torch.tensor([n.startswith(sources) for n in whole.model.names]).to(x.device), inside, x)

    def _still(self, problem: LensProblem, start: Tensor, end: Tensor) -> bool:
        """Whether two states (1, P) have the same lens: a Sersic takes the structure of a source for that of a lens."""
        main, names = f"{problem.model.main}.theta_E", problem.model.names
        before, after = problem.values(start), problem.values(end)
        turned = dict(
            zip(names, (problem.space.pulls(end) - problem.space.pulls(start))[0].abs().tolist(), strict=True)
        )
        shape = max((turned[name] for name in problem.model.mass_names if name != main), default=0.0)
        grown = abs(float(after[main] / before[main]) - 1) if main in before else 0.0
        return grown < self.settings.rings.held and shape < self.settings.rings.turned

    def _widened(self, whole: LensProblem, near: LensProblem, foreign: Foreign) -> LensProblem:
        """The whole problem with the broad light of its middle, and without other objects there."""
        like = whole.observation.image
        window = _middle_window(like, foreign.where)
        where = torch.zeros_like(like, dtype=torch.bool)
        where[window] = foreign.where
        broad = None if near.broad is None else near.broad.placed(window, like)
        return replace(whole.without(where), broad=broad)

    def beside(self, problem: LensProblem, x: Tensor) -> LensProblem:
        """Return the problem of another image of a lens whose light is known, without the pixels of other objects.

        Args:
            problem: with the light of the lens galaxy in its model.
            x: the fit, (1, Q).
        """
        front = problem.light_in_front(x)
        if front is None:
            return problem
        radius, scale = problem.values(x).get(f"{problem.model.main}.theta_E"), problem.observation.camera.grid.scale
        wide = self if radius is None else replace(self, settings=self.settings.around(float(radius), scale))
        problem = wide._marked(problem, front)
        return problem.without(self._foreign(problem, x).where)

    def _light(self, problem: LensProblem, middle: Tensor | None) -> LensLight:
        """The light of the galaxy."""
        middle = self.settings.middle_of(problem.observation) if middle is None else middle
        return self._found(problem, self.settings.galaxy, middle)

    def _found(self, problem: LensProblem, galaxy: GalaxyLight, middle: Tensor) -> LensLight:
        """The light about a place (2,) [arcsec], found on the CPU."""
        where = problem.unit.device
        seen, sigma = problem.observation.to("cpu"), problem.inverse_sigma.cpu()
        light = lens_light(seen, sigma, galaxy, middle.cpu())
        values = {name: value.to(where) for name, value in light.values.items()}
        return replace(light, values=values, image=light.image.to(where))

    def _marked(self, problem: LensProblem, front: Tensor) -> LensProblem:
        """The problem with the error of the galaxy's light in its noise, and without light that is too far out."""
        observation = problem.observation
        law = observation.noise.law if isinstance(observation.noise, ModelErrorNoise) else observation.noise
        noise = ModelErrorNoise(law, (self.settings.error * front).square())
        observation = replace(observation, noise=noise)
        sigma = (observation.weight / noise.variance(observation.image.clamp(min=0))).sqrt()
        rest = replace(observation, image=observation.image - front)
        far = problem.positions(observation.camera.grid).norm(dim=1, keepdim=True) > self.settings.about.reach
        objects = grown(rest.significance(sigma) > self.settings.about.bright, self.settings.others.grow)
        return replace(problem, observation=observation, inverse_sigma=sigma).without(far & objects)

    def _broad(self, problem: LensProblem, light: LensLight) -> BroadLight:
        """The broad light that is likeliest where no arcs are."""
        grid, rest = problem.observation.camera.grid, problem.observation.image - light.image
        settings = self.settings.broad
        length, finest = settings.length, settings.finest
        fields = [BroadLight.about(light.image, grid, share, length, finest) for share in settings.shares]
        widest = self._front(replace(problem, broad=fields[-1]), light)
        above = replace(problem.observation, image=problem.observation.image - widest)
        dark = ~grown(above.significance(problem.inverse_sigma) > self.settings.about.bright, 1)
        return max(fields, key=lambda field: float(field.evidence(rest, problem.inverse_sigma * dark)))

    def _front(self, problem: LensProblem, light: LensLight) -> Tensor:
        """The light of the galaxy with what of it is broad, found where no arcs are, (1, 1, H, W) [flux per pixel]."""
        rest, broad = problem.observation.image - light.image, torch.zeros_like(light.image)
        for _ in range(self.settings.galaxy.rounds):
            above = replace(problem.observation, image=rest - broad).significance(problem.inverse_sigma)
            dark = ~grown(above > self.settings.about.bright, 1)
            broad = problem.broad.likeliest(rest, problem.inverse_sigma * dark)  # type: ignore[union-attr]
        return light.image + broad

    def _near(self, problem: LensProblem, light: LensLight) -> tuple[LensProblem, LensLight]:
        """The problem where images of the source can be, with each pixel at its centre, and its light."""
        middle = problem.observation.camera.grid.middle(self.settings.about.reach, self.settings.about.reach)
        return _inner(problem.sampled(1), light, middle.shape, self.settings.about.border_of(problem.observation))

    def _nearer(self, problem: LensProblem, light: LensLight) -> tuple[LensProblem, LensLight]:
        """Its middle that holds all that is bright beside the galaxy, and a margin."""
        grid, front = problem.observation.camera.grid, self._front(problem, light)
        rest = replace(problem.observation, image=problem.observation.image - front)
        bright = rest.significance(problem.inverse_sigma) > self.settings.about.bright
        far = (grid.positions(like=front).abs() * bright).amax((0, 2, 3)) + self.settings.about.margin
        shape = grid.middle(float(far[1]), float(far[0])).shape
        return _inner(problem, light, shape, self.settings.about.border_of(problem.observation))

    def _starts(self, arcs: LensProblem) -> Tensor:
        """Several different lenses with Sersic sources, (n, P): the best first.

        No pixel of the arcs counts for more than a few sigma: faint arcs are many pixels, a bright neighbour is few.
        """
        arcs = capped(arcs, self.settings.rings.cap)
        rings, free = self.settings.rings, free_radius(arcs)
        ends = self._profile(arcs, searched(arcs, rings))
        if free is None:
            return ends[: rings.minima]
        return ends[apart_from_all_before(arcs.space.physical(ends)[free.name].tolist(), rings.apart)][: rings.minima]

    def _profile(self, arcs: LensProblem, starts: Tensor) -> Tensor:
        """Where a Sersic ends behind lenses of several Einstein radii, (n, P).

        From starts (n, P), or from where it is behind a lens that is a little larger or smaller, from the best one on.
        """
        free = free_radius(arcs)
        ends = [self._minimised(arcs, start[None]) for start in starts]
        costs = [self._forgiving(arcs, end) for end in ends]
        if free is None:
            return torch.cat(ends)[torch.stack(costs).argsort()]
        radius = arcs.space.physical(starts)[free.name]
        order = radius.argsort().tolist()
        best = order.index(int(torch.stack(costs).argmin()))
        for way in (order[best:], order[best::-1]):
            for here, there in pairwise(way):
                moved = arcs.unconstrained(arcs.values(ends[here]) | {free.name: radius[there][None]})
                end = self._minimised(arcs, moved)
                cost = self._forgiving(arcs, end)
                if cost < costs[there]:
                    ends[there], costs[there] = end, cost
        return torch.cat(ends)[torch.stack(costs).argsort()]

    def _minimised(self, problem: LensProblem, x: Tensor, stop: Stop | None = None) -> Tensor:
        """Where a state (1, P) ends with a Sersic, its Einstein radius held: others would all fall into one minimum."""
        stop = stop or Stop(self.steps // 3, cosine=1e-3)
        held, start = problem.held(x, self.settings.rings.held, [f"{problem.model.main}.theta_E"])
        return held.let_go(minimised(held, start, stop).x)[1]

    def _forgiving(self, problem: LensProblem, x: Tensor) -> Tensor:
        """The cost of a start () with other objects as well explained as anything could, for what that would take."""
        if not lenses(problem, x):
            return torch.tensor(math.inf, dtype=torch.float64, device=x.device)
        foreign = self._foreign(problem, x)
        square = problem.residual(x).square().reshape_as(foreign.where).double()
        return 0.5 * square[~foreign.where].sum() + foreign.left + foreign.count * self.settings.others.cost

    def _followed(self, near: LensProblem, light: LensLight, arcs: LensProblem, start: Tensor) -> Minimum:
        """Where a start ends with the light free too, and without what it shows to be other objects."""
        problem = capped(self._with(near, light, arcs), self.settings.rings.cap, light.image)
        known = light.values | arcs.values(start[None])
        x = problem.unconstrained(known)
        foreign = Foreign.nothing(light.image)
        for _ in range(self.settings.others.looks):
            x = self._minimised(problem, x, Stop(self.steps, fall=1.0))
            more = self._foreign(problem, x)
            if not more.count:
                break
            foreign, problem = foreign.with_more(more), problem.without(more.where)
        return Minimum(problem, x, foreign)

    def _behind(self, problem: LensProblem, light: LensLight) -> LensProblem:
        """The problem of the arcs alone: the light taken off, the middle of the galaxy left out."""
        observation = problem.observation
        away = (
            observation.camera.grid.positions(like=light.image)
            - centre_of(light.values, "lens_light.0")[:, :, None, None]
        )
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
        x, y = centre_of(light.values, "lens_light.0").flatten().tolist()
        main = problem.model.main
        least = self._core(problem)
        about = problem.centred_on(x, y).space.parameters
        return ParameterSpace([near_the_light(p, main, light, self.settings, least) for p in about])

    def _core(self, problem: LensProblem) -> float:
        """Radius of the middle of a galaxy, where what is left of its light would pass for arcs [arcsec]."""
        about = self.settings.about
        return min(about.core * star_width(problem.observation.camera, problem.unit), about.hidden)

    def _foreign(self, problem: LensProblem, x: Tensor) -> Foreign:
        """Objects outside of the arcs that neither lens light nor source explain."""
        model = problem.shown(x)
        arcs = problem.without_front(model, x)
        values, main = problem.values(x), problem.model.main
        away = problem.positions(problem.observation.camera.grid) - centre_of(values, main)[:, :, None, None]
        allowed = Allowed.outside(away.norm(dim=1, keepdim=True), values[f"{main}.theta_E"], self.settings.others)
        return foreign_objects(problem.observation, model, arcs, allowed, self.settings.others)


def _inner(
    problem: LensProblem, light: LensLight, shape: tuple[int, int], border: int
) -> tuple[LensProblem, LensLight]:
    """The middle of a problem and of its light, without the pixels that light from beyond it reaches."""
    inner = problem.inner(*shape)
    inner = inner.without_border(border)
    return inner, replace(light, image=light.image[_middle_window(light.image, inner.observation.image)])


def _middle_window(whole: Tensor, middle: Tensor) -> tuple[slice, ...]:
    """Where in images (..., H, W) smaller ones are that have the same middle."""
    edges = [(a - b) // 2 for a, b in zip(whole.shape[-2:], middle.shape[-2:], strict=True)]
    cut = [slice(edge, edge + size) for edge, size in zip(edges, middle.shape[-2:], strict=True)]
    return (slice(None), slice(None), *cut)
