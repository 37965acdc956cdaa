"""Several lenses behind one image of a galaxy and its arcs: which of them is the likeliest."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from lensphys.fitting.foreign import Foreign
from lensphys.fitting.lens_light import LensLightSettings
from lensphys.fitting.problem import LensProblem
from lensphys.fitting.source import Fitted, Rival, freed
from lensphys.fitting.starts import apart_from_all_before, free_radius
from lensphys.model import centre_of


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

    @property
    def theta_E(self) -> Tensor:
        """Einstein radius, (1,) [arcsec]."""
        return self.problem.values(self.x)[f"{self.problem.model.main}.theta_E"]


@dataclass(frozen=True)
class Compared:
    """How likely a minimum is.

    Args:
        minimum: with the lens, and the Sersic about which the source varies, of the free source.
        merit: ln of the evidence, less for a source with much structure; -inf if nothing is lensed.
    """

    minimum: Minimum
    merit: float


@dataclass(frozen=True)
class Comparison:
    """Compares minima by their evidence with a coarse free source: a Sersic fits real arcs too badly to tell.

    Args:
        settings: how.
        near: the problem where images of the source can be.
        front: light of the galaxy, (1, 1, H, W) [flux per pixel].
        free: whether the source is freed; else they are compared with Sersics.
    """

    settings: LensLightSettings
    near: LensProblem
    front: Tensor
    free: bool

    def best(self, minima: list[Minimum]) -> tuple[Minimum, Rival]:
        """Return the likeliest, and of those with another Einstein radius the furthest that is nearly as likely.

        Where none is nearly as likely, the likeliest of them.
        """
        compared = self._counted([self.compared(minimum) for minimum in minima])
        found = sorted(compared, key=lambda one: -one.merit)
        apart = apart_from_all_before([float(one.minimum.theta_E) for one in found], self.settings.rings.apart)
        best, *others = [found[i] for i in apart]
        if not others:
            return best.minimum, Rival.none(best.minimum.x[:, 0])
        near = [one for one in others if one.merit > best.merit - self.settings.minima.near]
        other = max(near, key=lambda one: abs(math.log(one.minimum.theta_E / best.minimum.theta_E)), default=others[0])
        theta_E = other.minimum.theta_E
        behind = torch.tensor(best.merit - other.merit, dtype=torch.float64).nan_to_num()
        return best.minimum, Rival(theta_E, behind.to(theta_E).expand(1))

    def _counted(self, found: list[Compared]) -> list[Compared]:
        """The minima with what it is worth that other starts, with other sources, end at the same Einstein radius.

        The evidence knows how well a minimum fits, but not how wide the valley about it is.
        """
        rings = self.settings.rings
        radii = [math.log(float(one.minimum.theta_E)) for one in found]
        there = [radius for radius, one in zip(radii, found, strict=True) if one.merit > -math.inf]
        return [
            replace(one, merit=one.merit + rings.reached * (sum(abs(radius - r) < rings.apart for r in there) - 1))
            for radius, one in zip(radii, found, strict=True)
        ]

    def compared(self, minimum: Minimum) -> Compared:
        """Return how likely a minimum is with a free source, in as many modes as suit it best, and its lens then.

        Other objects count with what an ellipse of light would leave of them.
        """
        paid = minimum.foreign.left + minimum.foreign.count * self.settings.others.cost
        sigma = torch.where(minimum.problem.inverse_sigma > 0, self._capped.inverse_sigma, 0.0)
        problem = replace(minimum.problem, inverse_sigma=sigma)
        if not self.free:
            merit = float(Fitted.at(problem, minimum.x).evidence) - paid
            return Compared(minimum, merit if lenses(problem, minimum.x) else -math.inf)
        held = problem.held(minimum.x, self.settings.rings.held, problem.model.mass_names)
        levels = freed(*held, self.settings.minima.source, frames=1)
        return max((self._judged(minimum, fit, paid) for fit in levels), key=lambda one: one.merit)

    def _judged(self, minimum: Minimum, fit: Fitted, paid: float) -> Compared:
        """A minimum with a free source, whose other objects cost so much."""
        found = replace(minimum, x=fit.problem.parts(fit.x)[0])
        twice = float(seen_twice(fit.problem, fit.x, self.settings.minima.second)) >= self.settings.minima.twice
        merit = float(fit.evidence) - paid - self.settings.minima.structure * self._structure(fit, found)
        return Compared(found, merit if twice and lenses(found.problem, found.x) else -math.inf)

    def _structure(self, fit: Fitted, sersic: Minimum) -> float:
        """One minus the overlap of the arcs of a free source and of its Sersic, in units of the noise: 0 to 1."""
        free, plain = (
            problem.without_front(problem.shown(x), x) * sersic.problem.inverse_sigma
            for problem, x in ((fit.problem, fit.x), (sersic.problem, sersic.x))
        )
        return 1 - float(torch.cosine_similarity(free.flatten(), plain.flatten(), dim=0))

    @cached_property
    def _capped(self) -> LensProblem:
        return capped(self.near, self.settings.rings.compared, self.front)


def capped(problem: LensProblem, cap: float, front: Tensor | None = None) -> LensProblem:
    """Return the problem with so much noise in bright arcs that no pixel's signal-to-noise is above a cap.

    Args:
        problem: of some images.
        cap: the signal-to-noise.
        front: light that is not the arcs', (B, 1, H, W) [flux per pixel]; None for none.
    """
    image = problem.observation.image if front is None else problem.observation.image - front
    arcs = image.clamp(min=0) / cap
    sigma = (problem.inverse_sigma.clamp(min=1e-30).square().reciprocal() + arcs.square()).rsqrt()
    return replace(problem, inverse_sigma=torch.where(problem.inverse_sigma > 0, sigma, 0.0))


def lenses(problem: LensProblem, x: Tensor) -> bool:
    """Return whether the source of one image has a second image, of a lens whose size is not at its bounds."""
    values = problem.values(x)
    main, source = problem.model.main, next(iter(problem.model.source))
    theta_E, free = float(values[f"{main}.theta_E"]), free_radius(problem)
    inside = free is None or 1.1 * free.low < theta_E < free.high / 1.02
    return inside and float((centre_of(values, source) - centre_of(values, main)).norm()) < theta_E


def seen_twice(problem: LensProblem, x: Tensor, second: float) -> Tensor:
    """Return the share of the light of arcs that an isothermal lens shows twice, (B,), of lenses with a radius.

    Where it is small it is the source that has the shape of the arcs, and the lens does next to nothing.

    Args:
        problem: of some images.
        x: the fit, (B, Q).
        second: how far from the lens the second image is, at least [Einstein radii].
    """
    lens, theta = problem.lens(x), problem.positions(problem.observation.camera.grid)
    main, beta = problem.model.main, theta - lens.mass(theta)
    light = lens.source(beta).clamp(min=0) * (problem.inverse_sigma > 0)
    radius = (beta - centre_of(lens.values, main)[:, :, None, None]).norm(dim=1, keepdim=True)
    twice = radius < (1 - second) * lens.values[f"{main}.theta_E"][:, None, None, None]
    return (light * twice).sum((1, 2, 3)) / light.sum((1, 2, 3)).clamp(min=1e-30)
