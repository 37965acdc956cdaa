"""Where fits of a lens start: from the arcs' own light, several times, because the landscape has false minima."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from lensphys.basics.settings import Positives, Strict
from lensphys.fitting.newton import Stop, minimised
from lensphys.fitting.problem import LensProblem
from lensphys.model import Parameter, ParameterSpace, centre_of
from lensphys.observation.darkness import Darkness
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid
from lensphys.tracing.rays import reconstruct_source

_ORDINARY_STEPS = 15  # of a Sersic behind a lens that is held
START_FACTORS: Positives = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25)  # of the arc's flux-weighted radius


class RingSearch(Strict):
    """How the rings behind a galaxy's light are searched: see `searched`.

    Args:
        widest: Einstein radius that is tried [arcsec].
        radii: how many.
        places: of the source at each radius.
        sizes: of it, half-light radii [arcsec].
        cap: signal-to-noise that a pixel of the arcs counts with at most: a bright neighbour would count for too much.
        compared: and while minima are compared: a coarse source does not explain bright arcs to their noise.
        apart: e-folds between the Einstein radii of two minima.
        held: share of its range by which a parameter of the mass may change while it is held and the source opens, and
            of itself by which the Einstein radius of the best lens may once a Sersic is fitted to the whole image.
        turned: standard deviations of its prior by which any other parameter of the mass may change then.
        inside: share of its range by which the source of that Sersic starts off a bound that it had run into.
        minima: how many are followed.
        reached: ln evidence that it is worth that one more start ends at the same Einstein radius.
    """

    widest: PositiveFloat = 2.2
    radii: PositiveInt = 24
    places: PositiveInt = 5
    sizes: Positives = (0.06, 0.2)
    cap: PositiveFloat = 4.0
    compared: PositiveFloat = 12.0
    apart: PositiveFloat = 0.06
    held: PositiveFloat = 0.01
    turned: PositiveFloat = 0.5
    inside: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    minima: PositiveInt = 10
    reached: NonNegativeFloat = 2.0


def multistart(problem: LensProblem, starts: int, steps: int, factors: Positives = START_FACTORS) -> Tensor:
    """Return the best smooth state of each image, (B, P), after ``steps`` from its ``starts`` best starting points.

    The lens is found with the first source; further ones are added one after the other.

    Args:
        problem: of a smooth lens, without sub-halos or fields.
        starts: at most as many as ``factors``.
        steps: at most so many Jacobians a start.
        factors: Einstein radii to start from [radius of the arcs].
    """
    names = list(problem.model.source)
    x = minima(_of_sources(problem, names[:1]), starts, steps, factors)[:, 0]
    for count in range(2, len(names) + 1):
        start = _with_source(_of_sources(problem, names[: count - 1]), x, _of_sources(problem, names[:count]))
        x = minimised(_of_sources(problem, names[:count]), start, Stop(steps, cosine=1e-3)).x
    return x


def _of_sources(problem: LensProblem, names: list[str]) -> LensProblem:
    """The problem with some of its sources."""
    model = replace(problem.model, source={name: problem.model.source[name] for name in names})
    own = [p for p in problem.space.parameters if p.name in model.names]
    return replace(problem, model=model, space=ParameterSpace(own))


def minima(problem: LensProblem, starts: int, steps: int, factors: Positives = START_FACTORS) -> Tensor:
    """Return where several starts end for a lens and one source, (B, starts, P): the best first; see `multistart`."""
    starts = min(starts, len(factors))
    points = starting_points(problem, starts, factors)
    rows = torch.arange(len(problem), device=points.device).repeat_interleave(starts)
    first = minimised(problem[rows], points.flatten(0, 1), Stop(steps, cosine=1e-3))
    order = first.cost.reshape(-1, starts).argsort(1)
    ends = first.x.reshape(len(problem), starts, -1)
    return torch.gather(ends, 1, order[:, :, None].expand_as(ends))


def starting_points(problem: LensProblem, count: int, factors: Positives = START_FACTORS) -> Tensor:
    """Return the ``count`` best starts of each image, (B, count, P), unconstrained; see `multistart`."""
    arc = significant_light(problem)[0]
    costs, points = zip(*(_start(problem, arc, factor) for factor in factors), strict=True)
    order = torch.stack(costs, dim=1).argsort(1)[:, :count]
    stacked = torch.stack(points, dim=1)
    return torch.gather(stacked, 1, order[:, :, None].expand(-1, -1, stacked.shape[-1]))


def _middle(problem: LensProblem, values: dict[str, Tensor]) -> Tensor:
    """Where the main lens is, (B, 2) [arcsec]."""
    return centre_of(problem.model.completed(values, problem.unit), problem.model.main)


def searched(problem: LensProblem, search: RingSearch) -> Tensor:
    """Return starts of one image, (radii, P), the best first: an SIS of each radius with the source that goes best.

    Of round sources of several sizes at the places that the arcs seem to come from; the amplitude is linear.

    Args:
        problem: of a smooth lens and one source.
        search: what is tried; between the least and the largest Einstein radius that the lens may have.
    """
    free = free_radius(problem)
    if free is None:
        known = problem.model.completed(_typical(problem), problem.unit)
        radii = known[f"{problem.model.main}.theta_E"]
    else:
        radii = torch.linspace(free.low, min(search.widest, free.high), search.radii).to(problem.unit)
    arc = significant_light(problem)[0]
    costs, points = zip(*(_searched_at(problem, arc, radius, search) for radius in radii), strict=True)
    return torch.stack(points)[torch.stack(costs).argsort()]


def ordinary(problem: LensProblem, x: Tensor, factor: float, share: float) -> tuple[LensProblem, Tensor]:
    """Return one image behind a lens as most are, and the vector (1, P) there: its Sersic fitted, the mass held.

    Args:
        problem: of a smooth lens with a Sersic source, nothing held.
        x: where the Einstein radius is from, (1, P).
        factor: on it.
        share: of its range by which a parameter of the mass may change.
    """
    names, values, free = problem.model.mass_names, problem.values(x), free_radius(problem)
    typical = {name: value for name, value in problem.model.typical(problem.unit).items() if name in names}
    if free is not None:
        typical[free.name] = (factor * values[free.name]).clamp(1.01 * free.low, 0.99 * free.high)
    held, start = problem.held(problem.unconstrained(values | typical), share, names)
    return held, minimised(held, start, Stop(_ORDINARY_STEPS)).x


def free_radius(problem: LensProblem) -> Parameter | None:
    """Return the Einstein radius of the main lens as a parameter; None where it is not free."""
    name = f"{problem.model.main}.theta_E"
    return next((p for p in problem.space.parameters if p.name == name), None)


def apart_from_all_before(radii: list[float], apart: float) -> list[int]:
    """Return which of some Einstein radii differ from each one kept before them by so many e-folds.

    Example:
        >>> apart_from_all_before([1.0, 1.05, 1.2, 0.8], 0.1)
        [0, 2, 3]
    """
    kept: list[int] = []
    for i, radius in enumerate(radii):
        if all(abs(math.log(radius / radii[j])) > apart for j in kept):
            kept.append(i)
    return kept


def _searched_at(problem: LensProblem, arc: Tensor, radius: Tensor, search: RingSearch) -> tuple[Tensor, Tensor]:
    """The cost () and the parameters (P,) of the best source behind an SIS of a radius."""
    places, sizes = search.places, search.sizes
    grid = problem.observation.camera.grid
    lens, source = problem.model.main, next(iter(problem.model.source))
    values = _typical(problem) | {f"{lens}.theta_E": radius.expand(1), f"{source}.amp": problem.unit}
    mass = problem.model.deflector(problem.model.completed(values, radius.expand(1)))
    source_grid = PixelGrid(61, 61, grid.radius / 61)
    field = DeflectionField.from_lens(mass, grid, like=arc)
    light = avg_pool2d(reconstruct_source(arc, field, source_grid), 3, stride=1, padding=1)
    peak = (light == max_pool2d(light, 7, stride=1, padding=3)).flatten()
    position = source_grid.positions(like=arc).flatten(2)[0]
    seen_twice = (position - _middle(problem, values)[0, :, None]).norm(dim=0) < radius
    peaks = torch.where(peak & seen_twice, light.flatten(), 0.0)
    brightest = position[:, peaks.topk(places).indices]  # (2, places)
    many = {n: v.expand(places * len(sizes)) for n, v in values.items()}
    many[f"{source}.center_x"], many[f"{source}.center_y"] = brightest.repeat(1, len(sizes))
    many[f"{source}.R_sersic"] = torch.tensor(sizes).to(arc).repeat_interleave(places)
    many[f"{source}.n_sersic"] = torch.ones_like(many[f"{source}.R_sersic"])
    rows = torch.zeros(places * len(sizes), dtype=torch.long, device=arc.device)
    several = problem[rows]
    cost, x = _bright(several, many, source)
    return cost.amin(), x[cost.argmin()]


def _bright(problem: LensProblem, values: dict[str, Tensor], source: str) -> tuple[Tensor, Tensor]:
    """The cost (B,) and the parameters (B, P) of named values with the amplitude that goes best: it is linear."""
    both = torch.cat([problem.render(problem.unconstrained(values)), problem.observation.image], dim=1)
    model, data = problem.filtered((both * problem.inverse_sigma).flatten(2)).unbind(1)
    overlap = (model * data).sum(1).clamp(min=0)
    power = model.square().sum(1).clamp(min=1e-30)
    amp = (overlap / power).clamp(min=1e-3) * problem.unit
    return -(overlap**2) / power, problem.unconstrained(values | {f"{source}.amp": amp})


def _with_source(problem: LensProblem, x: Tensor, more: LensProblem) -> Tensor:
    """A start with one source more: where what an optimum leaves over of the light projects back to."""
    observation, grid = problem.observation, problem.observation.camera.grid
    left = observation.image - problem.render(x)
    arc = significant_light(replace(problem, observation=replace(observation, image=left)))[0]
    source_grid = PixelGrid(41, 41, grid.radius / 41)
    light = reconstruct_source(arc, DeflectionField.from_lens(problem.lens(x).mass, grid, like=arc), source_grid)
    brightest = avg_pool2d(light, 3, stride=1, padding=1).flatten(1).argmax(1)
    place = source_grid.positions(like=arc).flatten(2)[0][:, brightest]
    values = _typical(more) | problem.values(x)
    name, size = list(more.model.source)[-1], problem.first_source(x).half_side / 8
    values |= {f"{name}.center_x": place[0], f"{name}.center_y": place[1], f"{name}.R_sersic": 0.5 * size}
    values |= {f"{name}.n_sersic": torch.ones_like(size), f"{name}.amp": problem.unit}
    shape = (more.render(more.unconstrained(values)) - problem.render(x)) * problem.inverse_sigma
    share = (shape * left * problem.inverse_sigma).flatten(1).sum(1) / shape.square().flatten(1).sum(1).clamp(min=1e-30)
    return more.unconstrained(values | {f"{name}.amp": share.clamp(min=1e-3) * problem.unit})


def _typical(problem: LensProblem) -> dict[str, Tensor]:
    """The means of the priors; of what little is known of, something small: too weak does less harm than too strong."""
    values = {p.name: torch.full_like(problem.unit, p.mean) for p in problem.space.parameters}
    for p in problem.space.parameters:
        if p.logarithmic and p.mean == 0:
            values[p.name] = torch.full_like(problem.unit, p.low**0.75 * p.high**0.25)
        elif p.logarithmic and 1 < p.sigma < math.inf:
            values[p.name] = values[p.name] * math.exp(-p.sigma)
    return values


def _start(problem: LensProblem, arc: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """Return the cost (B,) and the parameters (B, P) of an SIS of ``factor`` times the arc's radius."""
    grid = problem.observation.camera.grid
    lens, source = problem.model.main, next(iter(problem.model.source))
    values = _typical(problem)
    distance = (grid.positions(like=arc) - _middle(problem, values)[:, :, None, None]).norm(dim=1, keepdim=True)
    radius = (distance * arc).flatten(1).sum(1) / arc.flatten(1).sum(1).clamp(min=1e-30)
    theta_E = (factor * radius).clamp(0.06 * grid.radius, 0.95 * grid.radius)
    source_grid = PixelGrid(41, 41, grid.radius / 41)
    values |= {f"{lens}.theta_E": theta_E, f"{source}.amp": problem.unit}
    mass = problem.model.deflector(problem.model.completed(values, theta_E))
    field = DeflectionField.from_lens(mass, grid, like=arc)
    centre, spread = moments(reconstruct_source(arc, field, source_grid), source_grid)
    values |= {f"{source}.center_x": centre[:, 0], f"{source}.center_y": centre[:, 1]}
    values[f"{source}.R_sersic"] = (1.4 * spread).clamp(min=0.5 * grid.scale)
    values[f"{source}.n_sersic"] = torch.ones_like(theta_E)
    return _bright(problem, values, source)


def significant_light(problem: LensProblem) -> tuple[Tensor, Tensor]:
    """Return the light that stands 3 sigma out of the noise of a 3 x 3 mean, the rest zero; and if it is any.

    Returns:
        light (B, 1, H, W) and whether anything stands as far out of the noise as `Darkness` asks, (B,): of the noise
        that the fit takes, while `darkness.shows_light` takes that of a dark sky. Of an image where nothing does, all
        positive light.
    """
    above = problem.arcs.without_pedestal
    light, significance = above.smoothed, above.significance(problem.inverse_sigma)
    seen = significance.flatten(1).amax(1) >= Darkness().seen
    faint = seen[:, None, None, None] & (significance < 3)
    return torch.where(faint, torch.zeros_like(light), light.clamp(min=0)), seen


def arc_centre(problem: LensProblem) -> Tensor:
    """Return the centre of the circle that goes best through the light of the arcs, (B, 2) [arcsec].

    Least squares of x^2 + y^2 - 2 a x - 2 b y - c, weighed by the light: a ring, or arcs that face each other, tell it.

    Source: Kasa 1976 (IEEE Trans. Instrum. Meas. 25, 8).
    """
    arc = significant_light(problem)[0].flatten(2)
    theta = problem.observation.camera.grid.positions(like=arc[..., None]).flatten(2).expand(len(arc), -1, -1)
    terms = torch.cat([2 * theta, torch.ones_like(arc)], dim=1).double()
    weighed = terms * arc
    normal = weighed @ terms.transpose(1, 2)
    right = weighed @ theta.double().square().sum(1)[:, :, None]
    hair = 1e-9 * torch.diagonal(normal, dim1=1, dim2=2).amax(1)[:, None, None] * torch.eye(3).to(normal)
    return torch.linalg.solve(normal + hair, right)[:, :2, 0].to(arc)


def moments(image: Tensor, grid: PixelGrid) -> tuple[Tensor, Tensor]:
    """Return the centroid (B, 2) and the rms radius (B,) [arcsec] of images (B, 1, H, W), weighed by their square."""
    weight = image.clamp(min=0).square()
    weight = weight / weight.flatten(1).sum(1).clamp(min=1e-30)[:, None, None, None]
    position = grid.positions(like=image)
    centre = (weight * position).flatten(2).sum(2)
    spread = (weight * (position - centre[:, :, None, None]).square()).flatten(1).sum(1)
    return centre, spread.clamp(min=0).sqrt()
