"""Stars, and the images of a quasar: points of light that no galaxy makes, left out of the fit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import max_pool2d

from lensphys.basics.sentences import counted
from lensphys.basics.settings import Strict
from lensphys.fitting.problem import LensProblem
from lensphys.fitting.remains import explains_little
from lensphys.fitting.source import Fitted
from lensphys.model import Gaussian, centre_of
from lensphys.observation import Observation
from lensphys.observation.validity import psf_width


@dataclass(frozen=True)
class Points:
    """Point sources in one image.

    Args:
        place: (n, 2) [arcsec].
        where: the pixels in which they are brighter than a share of the noise, (1, 1, H, W), bool.
    """

    place: Tensor
    where: Tensor

    def __len__(self) -> int:
        return len(self.place)

    @classmethod
    def none(cls, like: Tensor) -> Points:
        """Return that there are none in an image (1, 1, H, W)."""
        return cls(like.new_zeros(0, 2), torch.zeros_like(like, dtype=torch.bool))


class PointSources(Strict):
    """How point sources are told from galaxies, where the best lens explains an image badly.

    A place is one where the image has a maximum, the lens leaves too much about it, and a star on a sloping background
    leaves far less; where there is none, for arcs are no slope, the places are those of the brightest stars. They are
    believed if a lens explains the rest, and stars what it then leaves in these places.

    Args:
        chi2: chi^2 per pixel of the fit above which they are looked for,
        left: and about a maximum.
        signal: signal-to-noise of a star, at least.
        better: share of chi^2 about a maximum that it may leave.
        alike: share of the largest signal-to-noise of a star that the brightest have at least.
        radius: of what is looked at about a maximum [FWHM of the PSF, with the pixel].
        turns: in which its place is found, with
        points: along the side of a pixel.
        faint: in units of a pixel's noise, what of a star is left in the image.
        most: so many are left out at most: the brightest.
        arcs: how far from the lens a point is an image of a quasar, and no star [Einstein radii].
        explained: share of what is left too much that must be explained by leaving them out.
    """

    chi2: PositiveFloat = 1.5
    left: PositiveFloat = 3.0
    signal: PositiveFloat = 20.0
    better: PositiveFloat = 0.5
    alike: PositiveFloat = 0.3
    radius: PositiveFloat = 1.5
    turns: PositiveInt = 3
    points: PositiveInt = 5
    faint: PositiveFloat = 0.3
    most: PositiveInt = 8
    arcs: PositiveFloat = 1.5
    explained: NonNegativeFloat = 0.5

    def found(self, fit: Fitted) -> Points:
        """Return what may be point sources in one image; none where the fit explains it.

        Args:
            fit: the best lens of the image.
        """
        problem, observation = fit.problem, fit.problem.arcs
        if float(problem.chi2(fit.x)) < self.chi2:
            return Points.none(problem.inverse_sigma)
        chi2 = problem.residual(fit.x).square().reshape_as(problem.inverse_sigma)
        value = observation.image * problem.inverse_sigma
        maxima = (value == max_pool2d(value, 3, stride=1, padding=1)) & (value > self.signal / 3)
        stars, better = [], []
        for place in problem.positions(observation.camera.grid)[0][:, maxima[0, 0]].T:
            near = self._near(problem, place)
            left = float(chi2[near].sum())
            star = self._star(problem, observation.image, place, near) if left > self.left * int(near.sum()) else None
            if star is not None and star.signal > self.signal:
                stars.append(star)
                better.append(star.left < self.better * left)
        least = self.alike * max((star.signal for star in stars), default=0.0)
        chosen = [star for star, told in zip(stars, better, strict=True) if told] if any(better) else stars
        chosen = sorted((star for star in chosen if star.signal >= least), key=lambda star: -star.signal)[: self.most]
        where = torch.zeros_like(maxima)
        for star in chosen:
            where |= star.image * problem.inverse_sigma > self.faint
        place = torch.stack([star.place for star in chosen]) if chosen else value.new_zeros(0, 2)
        return Points(place, where)

    def confirmed(self, points: Points, before: Fitted, after: Fitted) -> bool:
        """Return whether the lens explains one image once they are left out, and stars what it then leaves there."""
        was, left = (float(fit.problem.chi2(fit.x)) for fit in (before, after))
        if left > self.chi2 and explains_little(left, was, self.explained):
            return False
        seen = replace(
            after.problem, observation=before.problem.observation, inverse_sigma=before.problem.inverse_sigma
        )
        rest = seen.observation.image - seen.shown(after.x)
        for place in points.place:
            near = self._near(seen, place)
            star = self._star(seen, rest, place, near)
            if star is None or star.left > self.left * int(near.sum()):
                return False
        return True

    def doubts(self, points: Points, fit: Fitted) -> tuple[str, ...]:
        """Return a sentence on those that stand where arcs are; stars elsewhere hide nothing."""
        values, main = fit.problem.values(fit.x), fit.problem.model.main
        away = (points.place - centre_of(values, main)).norm(dim=1)
        near = int((away < self.arcs * values[f"{main}.theta_E"]).sum())
        return (f"{counted(near, 'point source')}, of a quasar perhaps, left out of the fit",) if near else ()

    def _near(self, problem: LensProblem, place: Tensor) -> Tensor:
        """The pixels about a place that count, (1, 1, H, W), bool."""
        observation = problem.observation
        radius = self.radius * float(psf_width(observation)) * observation.camera.grid.scale
        away = problem.positions(observation.camera.grid) - place[:, None, None]
        return (away.norm(dim=1, keepdim=True) < radius) & (problem.inverse_sigma > 0)

    def _star(self, problem: LensProblem, image: Tensor, place: Tensor, near: Tensor) -> _Star | None:
        """The star on a sloping background that explains an image near a place best; None if it leaves the place."""
        observation = problem.observation
        scale, own = observation.camera.grid.scale, problem.inverse_sigma[near]
        slope = (problem.positions(observation.camera.grid) - place[:, None, None])[0][:, near[0, 0]]
        data, start, step = (image[near] * own).double(), place, 0.1 * scale
        for _ in range(self.turns):
            shifts = place.new_tensor([[0.0, 0.0], [step, 0.0], [0.0, step]])
            middle, right, up = (seen_star(observation, place + shift, self.points)[near] for shift in shifts)
            moves = [(right - middle) / step, (up - middle) / step]
            columns = torch.stack([middle, *moves, torch.ones_like(own), *slope]).double() * own
            numbers = torch.linalg.lstsq(columns.T, data[:, None]).solution[:, 0]
            flux, error = float(numbers[0]), float(torch.linalg.pinv(columns @ columns.T)[0, 0].sqrt())
            if flux <= 0:
                return None
            place = place + (numbers[1:3] / flux).clamp(-scale, scale).to(place)
        if float((place - start).norm()) > 2 * scale:
            return None
        left = float((data - numbers @ columns).square().sum())
        return _Star(place, flux * seen_star(observation, place, self.points), flux / error, left)


@dataclass(frozen=True)
class _Star:
    """A point source: its place (2,) [arcsec], its image [flux per pixel], its signal-to-noise, what it leaves."""

    place: Tensor
    image: Tensor
    signal: float
    left: float


def seen_star(observation: Observation, place: Tensor, points: int) -> Tensor:
    """Return a star of flux 1 at a place (2,) [arcsec], with so many points a pixel, in one image, (1, 1, H, W)."""
    camera = replace(observation.camera, supersampling=points)
    fine = camera.grid.resampled(points)
    light = Gaussian(1.0, 0.5 * fine.scale, 0.0, 0.0, place[0].reshape(1), place[1].reshape(1))
    seen = camera.expose(light(fine.positions(like=place)) * fine.pixel_area)
    return seen / seen.sum().clamp(min=1e-12)
