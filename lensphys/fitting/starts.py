"""Where fits of a lens start: from the arcs' own light, several times, because the landscape has false minima."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from lensphys.deflection import DeflectionField
from lensphys.fitting.newton import Stop, minimised
from lensphys.fitting.problem import LensProblem
from lensphys.grid import PixelGrid, polar_from_cartesian
from lensphys.tracing import reconstruct_source

START_FACTORS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25)  # of the arc's flux-weighted radius


def multistart(problem: LensProblem, starts: int, steps: int) -> Tensor:
    """Return the best smooth state of each image, (B, P), after ``steps`` from its ``starts`` best starting points.

    Args:
        problem: of a smooth lens, without sub-halos or fields.
        starts: at most 8.
        steps: at most so many Jacobians a start.
    """
    starts = min(starts, len(START_FACTORS))
    points = starting_points(problem, starts)
    rows = torch.arange(len(problem), device=points.device).repeat_interleave(starts)
    first = minimised(problem[rows], points.flatten(0, 1), Stop(steps, cosine=1e-3))
    best = first.cost.reshape(-1, starts).argmin(1)
    return first.x.reshape(len(problem), starts, -1)[torch.arange(len(problem)), best]


def starting_points(problem: LensProblem, count: int) -> Tensor:
    """Return the ``count`` best starts of each image, (B, count, P), unconstrained."""
    arc = arc_light(problem)[0]
    costs, points = zip(*(_start(problem, arc, factor) for factor in START_FACTORS), strict=True)
    order = torch.stack(costs, dim=1).argsort(1)[:, :count]
    stacked = torch.stack(points, dim=1)
    return torch.gather(stacked, 1, order[:, :, None].expand(-1, -1, stacked.shape[-1]))


def _start(problem: LensProblem, arc: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """Return the cost (B,) and the parameters (B, P) of a lens of ``factor`` times the arc's radius.

    The sources come one after the other: each is where what the ones before leave of the arc projects back to.
    """
    grid = problem.observation.camera.grid
    distance = grid.positions(like=arc).norm(dim=1, keepdim=True)
    radius = (distance * arc).flatten(1).sum(1) / arc.flatten(1).sum(1).clamp(min=1e-30)
    theta_E = (factor * radius).clamp(0.06 * grid.radius, 0.95 * grid.radius)
    values = _typical(problem) | {f"{next(iter(problem.model.mass))}.theta_E": theta_E}
    dark = {f"{name}.amp": torch.zeros_like(theta_E) for name in problem.model.source}
    field = DeflectionField.of(problem.model.deflector(problem.model.completed(values, theta_E)), grid, like=arc)
    data, cost, done = problem.observation.image * problem.inverse_sigma, torch.zeros_like(theta_E), {}
    for source in problem.model.source:
        values |= _source_start(source, problem, arc, field)
        shape = problem.render(problem.unconstrained(values | dark | {f"{source}.amp": problem.unit}))
        model = shape * problem.inverse_sigma
        overlap = (model * data).flatten(1).sum(1).clamp(min=0)
        power = model.square().flatten(1).sum(1).clamp(min=1e-30)
        share = (overlap / power).clamp(min=1e-3)
        done[f"{source}.amp"] = share * problem.unit
        cost = cost - (overlap**2) / power
        found = share[:, None, None, None] * shape
        data, arc = data - found * problem.inverse_sigma, (arc - found).clamp(min=0)
    return cost, problem.unconstrained(values | done)


def _typical(problem: LensProblem) -> dict[str, Tensor]:
    """The means of the priors; of a strength without a prior something near its lower bound."""
    values = problem.model.typical(problem.unit)
    for p in problem.space.parameters:
        if p.logarithmic and p.mean == 0:
            values[p.name] = torch.full_like(problem.unit, p.low**0.75 * p.high**0.25)
    return values


def _source_start(source: str, problem: LensProblem, arc: Tensor, field: DeflectionField) -> dict[str, Tensor]:
    """Where a source projects back to, and how large it is there."""
    grid = problem.observation.camera.grid
    source_grid = PixelGrid(41, 41, grid.radius / 41)
    centre, spread = moments(reconstruct_source(arc, field, source_grid), source_grid)
    return {
        f"{source}.center_x": centre[:, 0],
        f"{source}.center_y": centre[:, 1],
        f"{source}.R_sersic": (1.4 * spread).clamp(min=0.5 * grid.scale),
        f"{source}.n_sersic": torch.ones_like(spread),
    }


def arc_light(problem: LensProblem) -> tuple[Tensor, Tensor]:
    """Return the light that stands 3 sigma out of the noise of a 3 x 3 mean, the rest zero; and if it is any.

    Returns:
        light (B, 1, H, W) and whether anything stands 5 sigma out (B,): of thousands of pixels some pass 3 by chance.
        Of an image where nothing does, all positive light.
    """
    observation = problem.observation
    pedestal = observation.noise.expected(torch.zeros_like(observation.image))
    light = replace(observation, image=observation.image - pedestal).smoothed
    significance = 3 * light * problem.inverse_sigma  # the mean of 9 pixels has a third of their noise
    seen = significance.flatten(1).amax(1) >= 5
    faint = seen[:, None, None, None] & (significance < 3)
    return torch.where(faint, torch.zeros_like(light), light.clamp(min=0)), seen


def moments(image: Tensor, grid: PixelGrid) -> tuple[Tensor, Tensor]:
    """Return the centroid (B, 2) and the rms radius (B,) [arcsec] of images (B, 1, H, W), weighed by their square."""
    weight = image.clamp(min=0).square()
    weight = weight / weight.flatten(1).sum(1).clamp(min=1e-30)[:, None, None, None]
    position = grid.positions(like=image)
    centre = (weight * position).flatten(2).sum(2)
    spread = (weight * (position - centre[:, :, None, None]).square()).flatten(1).sum(1)
    return centre, spread.clamp(min=0).sqrt()


def einstein_radius(field: DeflectionField) -> Tensor:
    """Return the radius (B,) [arcsec] at which the mean radial deflection equals the radius: mean kappa = 1 inside.

    For a network's field, which has no theta_E of its own; about the middle of the grid. NaN where the deflection
    never equals the radius.
    """
    radius = torch.linalg.vector_norm(field.theta, dim=1).flatten()
    bins = max(8, min(field.grid.shape) // 2)
    edge = 0.5 * min(field.grid.shape) * field.grid.scale
    index = (radius / edge * bins).long()
    inside = index < bins
    counts = radius.new_zeros(bins).index_add(0, index[inside], torch.ones_like(radius[inside]))
    radial = polar_from_cartesian(field.alpha, field.theta)[0]  # about the origin, like the radius
    excess = (radial.flatten(1) - radius)[:, inside]
    mean = radius.new_zeros(len(excess), bins).index_add(1, index[inside], excess) / counts.clamp(min=1)
    middle = (torch.arange(bins, dtype=radius.dtype, device=radius.device) + 0.5) * edge / bins
    crossing = (mean[:, :-1] > 0) & (mean[:, 1:] <= 0)
    first = crossing.float().argmax(1, keepdim=True)
    above, below = mean.gather(1, first)[:, 0], mean.gather(1, first + 1)[:, 0]
    where = middle[first[:, 0]] + (edge / bins) * above / (above - below)
    return torch.where(crossing.any(1), where, torch.full_like(where, math.nan))
