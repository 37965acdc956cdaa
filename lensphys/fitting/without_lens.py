"""Whether galaxies explain an image as well as a lens does: then no arc, or no second image, is to be seen in it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from lensphys.basics.settings import Strict
from lensphys.fitting.galaxy_light import Clipping, GalaxyLight, LensLight, brightest, lens_light
from lensphys.fitting.problem import LensProblem
from lensphys.fitting.source import Fitted
from lensphys.observation import Observation


@dataclass(frozen=True)
class Unlensed:
    """Galaxies that explain one image without a lens.

    Args:
        others: how many there are beside the one in the middle.
        gain: what the arcs of a lens would explain more than the others, in ln likelihood.
    """

    others: int
    gain: float


class WithoutLens(Strict):
    """When an image is explained by a galaxy, or by two of them, instead of a lens.

    A galaxy is fitted to the image, to the image together with another object, and in the same way to what the arcs of
    the lens leave of it. Galaxies are elliptical, of two shapes about one centre, with any profile.

    Args:
        number: ln likelihood that the arcs must gain for each number that they take and other galaxies do not,
        gain: and in all.
        within: how far from the middle of the field the brightest light is, at most [half widths].
        reach: how far from there a galaxy may be [arcsec].
        light: how a galaxy is fitted, to all of the image.
        first: how it is fitted at first where there may be another object, which is clipped.
        other: how that is fitted, in what the galaxy leaves.
        turns: in which both are.

    Source: Akaike 1974 (IEEE Trans. Autom. Control 19, 716), for ``number``.
    """

    number: NonNegativeFloat = 1.0
    gain: PositiveFloat = 12.0
    within: PositiveFloat = 0.3
    reach: PositiveFloat = 3.0
    light: GalaxyLight = GalaxyLight(clipping=None, rounds=3, inner=1.0)
    first: GalaxyLight = GalaxyLight(clipping=Clipping())
    other: GalaxyLight = GalaxyLight(clipping=None, rounds=2, inner=0.3, widest=0.3, gaussians=8)
    turns: PositiveInt = 3

    def explains(self, fitted: Fitted, numbers: float) -> Unlensed | None:
        """Return the galaxies that explain one image without a lens; None if none do.

        None, too, if the brightest light is not in the middle of the field, as that of a galaxy: arcs are about it.

        Args:
            fitted: the fit of one image.
            numbers: how many the data determine of everything that is fitted.
        """
        problem = fitted.problem
        image = problem.observation.without_pedestal.to("cpu")
        if float(brightest(image, self.reach).norm()) > self.within * image.camera.grid.radius:
            return None
        seen = _Seen(problem, image, self.reach)
        arcs = problem.without_front(problem.shown(fitted.x), fitted.x)
        beside = seen.chi2(arcs + seen.galaxy(self.light, arcs).image.to(arcs))
        error = min(1.0, max(1e-6, beside / float(problem.observation.n_unmasked)))  # of a map that is too large
        least = self.gain + self.number * max(0.0, numbers - _of_galaxy(problem))
        alone = Unlensed(0, 0.5 * (seen.chi2(seen.galaxy(self.light).image) - beside) / error)
        if alone.gain < least:
            return alone
        galaxy, gain = seen.galaxy(self.first), alone.gain
        for turn in range(self.turns):
            other = seen.galaxy(self.other, galaxy.image)
            galaxy = seen.galaxy(self.light, other.image)
            before, gain = gain, 0.5 * (seen.chi2(galaxy.image + other.image) - beside) / error
            enough = max(self.gain, least - self.number * len(other.values))
            if gain - (self.turns - 1 - turn) * (before - gain) > enough:  # each turn brings less than the one before
                return None
        return Unlensed(1, gain)


@dataclass(frozen=True)
class _Seen:
    """One image, without what is dark, the problem of explaining it, and how far from its middle galaxies may be."""

    problem: LensProblem
    image: Observation
    reach: float

    def galaxy(self, settings: GalaxyLight, beside: Tensor | None = None) -> LensLight:
        """Return the galaxy that is likeliest beside other light, (1, 1, H, W) [flux per pixel]."""
        image = self.image.image
        rest = self.image if beside is None else replace(self.image, image=image - beside.to(image))
        return lens_light(rest, self.problem.inverse_sigma.cpu(), settings, brightest(rest, self.reach))

    def chi2(self, light: Tensor) -> float:
        """Return chi^2 of a model, (1, 1, H, W) [flux per pixel]."""
        return float(self.problem.whitened_rest(light.to(self.problem.inverse_sigma)).double().square().sum())


def _of_galaxy(problem: LensProblem) -> float:
    """How many of the numbers of a fit are those of the galaxy's light."""
    light = [name for name in problem.model.names if name.rpartition(".")[0] in problem.model.lens_light]
    return len(light) + (0.0 if problem.filter is None else float(problem.filter.fitted))
