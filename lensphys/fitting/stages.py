"""From images to lenses: a smooth lens, the light of its galaxy, and what else the images show, each where it pays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lensphys.basics.settings import Strict
from lensphys.fitting.beyond_smooth import BeyondSmooth
from lensphys.fitting.doubts import doubtful
from lensphys.fitting.lens_light import LensLightSettings
from lensphys.fitting.lit_or_not import LitOrNot
from lensphys.fitting.newton import Stop, minimised
from lensphys.fitting.point_sources import PointSources
from lensphys.fitting.problem import LensProblem
from lensphys.fitting.sampling import Sampling, well_sampled
from lensphys.fitting.second_source import SecondSource
from lensphys.fitting.smooth import SmoothFit, smooth_fit
from lensphys.fitting.source import Fitted, Groups, Rival, as_it_is, each, parted
from lensphys.fitting.starts import significant_light
from lensphys.fitting.verdict import VerdictSettings
from lensphys.fitting.window import Window, seen_whole
from lensphys.observation import Observation


@dataclass(frozen=True)
class LensFit:
    """The best lens and source of each image of a batch, in groups of images that share a model.

    Args:
        groups: rows of the batch and the fit of each group; every row is in one of them.
        seen: (B,), whether anything stands 5 sigma out of the noise; else the fit means nothing.
        smooth_theta_E: (B,) [arcsec], Einstein radius of the smooth lens with a Sersic that the fits went out from.
        rival: the best other lens behind a galaxy's light.
        doubts: why a fit is not to be believed as it stands, sentences by the row of the image.
        left_out: (B,), how many pixels were left out of the fit: other objects and bad pixels; None if none can be.
    """

    groups: Groups
    seen: Tensor
    smooth_theta_E: Tensor
    rival: Rival
    doubts: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    left_out: Tensor | None = None

    @classmethod
    def from_smooth(cls, smooth: Fitted, groups: Groups | None = None) -> LensFit:
        """Return what has become of a smooth fit; the smooth fit itself if nothing is given."""
        values = smooth.problem.values(smooth.x)
        none = torch.full_like(smooth.problem.unit, torch.nan)
        theta_E = values.get(f"{smooth.problem.model.main}.theta_E", none)
        rival = smooth.rival or Rival.none(smooth.problem.unit)
        return cls(as_it_is(smooth) if groups is None else groups, significant_light(smooth.problem)[1], theta_E, rival)

    def apart(self) -> Iterator[tuple[Tensor, Fitted]]:
        """Return each image on its own: its row, (1,), and its fit."""
        for rows, group in self.groups:
            for row, (_, fit) in zip(rows.split(1), group.apart(), strict=True):
                yield row, fit

    def with_doubts(self, more: Mapping[int, tuple[str, ...]]) -> LensFit:
        """Return the fits with more doubts, sentences by the row of the image."""
        rows = {*self.doubts, *more}
        return replace(self, doubts={row: (*self.doubts.get(row, ()), *more.get(row, ())) for row in rows})

    def with_smooth(self, rows: Tensor, other: LensFit) -> LensFit:
        """Return the fits with the smooth radius and the rival of another fit of some images (indices)."""
        theta_E = self.smooth_theta_E.index_copy(0, rows, other.smooth_theta_E)
        return replace(self, smooth_theta_E=theta_E, rival=self.rival.with_another(rows, other.rival))

    def with_another(self, row: Tensor, other: LensFit, doubts: tuple[str, ...]) -> LensFit:
        """Return the fits with another one of an image.

        Args:
            row: of the image, (1,).
            other: a fit of this image alone.
            doubts: sentences on it.
        """
        kept = [(rows, (rows != row).nonzero()[:, 0], fit) for rows, fit in self.groups]
        groups = [(rows[others], fit.rows(others)) for rows, others, fit in kept if len(others)]
        groups += [(row, fit) for _, fit in other.groups]
        return replace(self.with_smooth(row, other), groups=groups, doubts={**self.doubts, int(row): doubts})


def in_front_of_arcs(found: LensFit) -> dict[int, tuple[str, ...]]:
    """Return what is to be said of images with sub-halos and objects that were left out, by their rows.

    A star or a small galaxy upon an arc looks like a knot of the source, magnified by a sub-halo.
    """
    words = "an object upon the arcs, as those that were left out, can pass for a sub-halo: look whether there is one"
    some = {int(row) for row, fit in found.apart() if fit.problem.subhalos}
    left_out = [] if found.left_out is None else (found.left_out > 0).nonzero()[:, 0].tolist()
    return {row: (words,) for row in left_out if row in some}


def fit_lens(observation: Observation, *, starts: int = 4, steps: int = 60) -> LensFit:
    """Fit SIE + shear + Sersic to each image of a batch, by Levenberg-Marquardt from several starts.

    The starts are SIS lenses of `starts.START_FACTORS` times the arc's radius, each with the source that it
    back-projects; the ``starts`` that fit best go on with each pixel at its centre, and the best of them is finished
    with the camera's own sampling and the noise variance of the model, renewed twice.

    Args:
        observation: images (B, 1, H, W) and how they were taken.
        starts: how many starts are optimised for each image, at most as many as `starts.START_FACTORS`.
        steps: half as many Jacobians at most for each start, and after them twice for the best.

    Raises:
        LensphysError: if an image holds NaN, or no positive pixel.
    """
    with torch.no_grad():
        problem = LensProblem.from_observation(observation)
        return LensFit.from_smooth(smooth_fit(problem, starts=starts, steps=steps // 2))


class Refinement(Strict):
    """How the lens of each image is found.

    A smooth lens with a Sersic source, about the centre of its arcs; the light of its galaxy where there is one; points
    enough a pixel; then, from the pixels that hold the arcs, whatever explains them better.

    Args:
        beyond: what is tried beyond a smooth lens and a Sersic.
        smooth: how these are found.
        lens_light: how the light of a lens galaxy is found where there is one; None to look for none.
        sampling: of the light in a pixel.
        window: pixels that are fitted where an image is not explained at once.
        verdict: where a fit is suspect or bad; beside what it calls a sky, and noise that is not white, no sub-halos
            are looked for.
        points: how stars and images of a quasar are told where nothing explains an image; None to look for none.
        second: when what is left over is the arc of another source; None not to ask.
    """

    beyond: BeyondSmooth = BeyondSmooth()
    smooth: SmoothFit = SmoothFit()
    lens_light: LensLightSettings | None = LensLightSettings()
    sampling: Sampling = Sampling()
    window: Window = Window()
    verdict: VerdictSettings = VerdictSettings()
    points: PointSources | None = PointSources()
    second: SecondSource | None = SecondSource()

    def __call__(self, problem: LensProblem, x: Tensor | None = None) -> LensFit:
        """Return the optimum of each image.

        Args:
            problem: of a smooth lens with a Sersic source.
            x: where to start, (B, P); several starts if None.
        """
        with torch.no_grad():
            found = self._found(problem, x)
            if self.points is not None:
                found = self._without_points(problem, found, self.points)
            if self.second is not None:
                found = found.with_doubts(self._second_sources(problem, found, self.second))
        left_out = problem.observation.n_unmasked
        for rows, group in found.groups:
            left_out[rows] -= group.problem.observation.n_unmasked
        found = replace(found, left_out=left_out)
        return found.with_doubts(in_front_of_arcs(found))

    def _second_sources(
        self, problem: LensProblem, found: LensFit, settings: SecondSource
    ) -> dict[int, tuple[str, ...]]:
        """What is to be said of images with the arc of another source, by their rows."""
        doubts: dict[int, tuple[str, ...]] = {}
        for row, fit in found.apart():
            arc = settings.arc(problem[row], fit) if bool(found.seen[row]) else None
            if arc is not None:
                doubts[int(row)] = (f'an arc {arc.radius:.2g}" from the lens is not explained: a second source?',)
        return doubts

    def shortened(self, rounds: int) -> Refinement:
        """Return the same with at most so many rounds of each search for sub-halos."""
        return self.model_copy(update={"beyond": self.beyond.shortened(rounds)})

    def _without_points(self, problem: LensProblem, found: LensFit, settings: PointSources) -> LensFit:
        """The fits; without stars and images of a quasar where they are what is not explained."""
        for row, fit in found.apart():
            points = settings.found(fit) if bool(found.seen[row]) else None
            if not points:
                continue
            other = self._found(problem[row].without(points.where), None)
            ((_, without),) = other.groups
            if settings.confirmed(points, fit, without):
                doubts = (*other.doubts.get(0, ()), *settings.doubts(points, without))
                found = found.with_another(row, other, doubts)
        return found

    def _found(self, problem: LensProblem, x: Tensor | None) -> LensFit:
        """The optimum of each image, with all that it shows."""
        smooth = self.smooth(problem, x)
        whole = LensFit.from_smooth(smooth)
        lit = parted(smooth, whole.seen, self._centred_and_lit, lambda _: [])
        for rows, group in lit:
            whole = whole.with_smooth(rows, LensFit.from_smooth(group))
        sampled = each(lit, self._well_sampled)
        groups, doubts = parted(smooth, whole.seen, lambda _: [], as_it_is), dict[int, tuple[str, ...]]()
        for rows, group in sampled:
            unsure = doubtful(group, self.verdict)
            doubts |= {int(rows[i]): (why,) for i, why in unsure.items()}
            groups += [(rows[part], fit) for part, fit in self._explained(group, list(unsure))]
        return replace(whole, groups=groups, doubts=doubts)

    def alone(self, problem: LensProblem) -> Fitted:
        """Return the smooth fit of one image with a Sersic, and the light of its lens galaxy where it has one."""
        ((_, found),) = each(self._centred_and_lit(self.smooth(problem)), self._well_sampled)
        return found

    def middle(self, whole: LensProblem, x: Tensor) -> LensProblem:
        """Return the problem of the pixels in the middle that hold all bright ones; of all where these are many."""
        if self.lens_light is None or not whole.model.lens_light:
            return self.window.middle(whole)
        return self.window.lit_middle(whole, x, self.lens_light)

    def _centred_and_lit(self, smooth: Fitted) -> Groups:
        """The smooth fits about the centres of their arcs, with the light of a galaxy where there is one."""
        centred = self.smooth.recentred(smooth)
        if self.lens_light is None:
            return centred
        beyond = self.beyond
        return each(centred, LitOrNot(self.lens_light, beyond.source, beyond.steps, self.smooth.sky, beyond.edge))

    def _well_sampled(self, smooth: Fitted) -> Groups:
        return well_sampled(smooth, self.sampling)

    def _explained(self, smooth: Fitted, unsure: list[int]) -> Groups:
        """What explains images; without sub-halos in those rows in which sky or noise is not known."""
        those = torch.zeros(len(smooth.x), dtype=torch.bool, device=smooth.x.device)
        those[unsure] = True
        without = self.beyond.without_subhalos()
        return parted(
            smooth,
            those,
            lambda some: self._near_the_arcs(some, without),
            lambda some: self._near_the_arcs(some, self.beyond),
        )

    def _near_the_arcs(self, smooth: Fitted, beyond: BeyondSmooth) -> Groups:
        """What explains images, from the pixels in the middle that hold all bright ones."""
        whole, inner = smooth.problem, self.middle(smooth.problem, smooth.x)
        if inner is whole:
            return beyond(smooth)
        return [(rows, self._on_the_whole(fit, whole[rows])) for rows, fit in beyond(Fitted.at(inner, smooth.x))]

    def _on_the_whole(self, inner: Fitted, whole: LensProblem) -> Fitted:
        """The fit of the middle of images, as one of the whole; fitted to that where it does not hold outside."""
        seen = seen_whole(inner, whole)
        outside = seen.problem.chi2(seen.x) > self.beyond.stuck
        if not bool((outside & (inner.problem.chi2(inner.x) < self.beyond.stuck)).any()):
            return seen
        return replace(seen, end=minimised(seen.problem, seen.x, Stop(self.beyond.steps // 3)))
