"""From images to lenses: a smooth lens, sub-halos, a free source and a potential, each where it pays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lensphys.fitting.newton import Stop, minimised
from lensphys.fitting.potential import FieldPriors, with_potential
from lensphys.fitting.problem import LensProblem
from lensphys.fitting.source import Fitted, FreeSourceSettings, Groups, freed
from lensphys.fitting.starts import arc_light, multistart
from lensphys.fitting.subhalos import Search, add_subhalos
from lensphys.observation import Observation

_POOR = 3.0  # sigma of chi^2 above its expectation, where a model does not do
_UNEXPLAINED = 1.2  # chi^2 per pixel above which a potential is tried: it costs as much as all the rest


@dataclass(frozen=True)
class LensFit:
    """The best lens and source of each image of a batch, in groups of images that share a model.

    Args:
        groups: rows of the batch and the fit of each group; every row is in one of them.
        seen: (B,), whether anything stands 5 sigma out of the noise; else the fit means nothing.
        smooth_theta_E: (B,) [arcsec], Einstein radius of the smooth lens with a Sersic that the fits went out from.
    """

    groups: Groups
    seen: Tensor
    smooth_theta_E: Tensor

    @classmethod
    def of(cls, smooth: Fitted, groups: Groups | None = None) -> LensFit:
        """Return what has become of a smooth fit; the smooth fit itself if nothing is given."""
        rows = torch.arange(len(smooth.x), device=smooth.x.device)
        values = smooth.problem.values(smooth.x)
        none = torch.full_like(smooth.problem.unit, torch.nan)
        theta_E = values.get(f"{next(iter(smooth.problem.model.mass))}.theta_E", none)
        return cls([(rows, smooth)] if groups is None else groups, arc_light(smooth.problem)[1], theta_E)


def finished(problem: LensProblem, x: Tensor, steps: int) -> Fitted:
    """Return the optimum, with the noise variance of the model renewed twice."""
    for _ in range(2):
        problem = problem.renewed(x)
        end = minimised(problem, x, Stop(steps))
        x = end.x
    return Fitted.of(problem, end)


def smooth_fit(problem: LensProblem, *, starts: int = 4, steps: int = 30) -> Fitted:
    """Return the best smooth lens with a Sersic source, from several starts with each pixel at its centre.

    Args:
        problem: without sub-halos or fields.
        starts: how many starts are optimised for each image, at most 8.
        steps: at most so many Newton steps a start.
    """
    camera = problem.observation.camera
    quick = replace(problem, observation=replace(problem.observation, camera=replace(camera, supersampling=1)))
    return finished(problem, multistart(quick, starts, steps), steps)


def fit_lens(observation: Observation, *, starts: int = 4, steps: int = 60) -> LensFit:
    """Fit SIE + shear + Sersic to each image of a batch, by Levenberg-Marquardt from several starts.

    The starts are SIS lenses of `starts.START_FACTORS` times the arc's radius, each with the source that it
    back-projects; the ``starts`` that fit best go on with each pixel at its centre, and the best of them is finished
    with the camera's own sampling and the noise variance of the model, renewed twice.

    Args:
        observation: images (B, 1, H, W) and how they were taken.
        starts: how many starts are optimised for each image, at most 8.
        steps: at most so many Jacobians a start.

    Raises:
        LensphysError: if an image holds NaN, or no positive pixel.
    """
    with torch.no_grad():
        problem = LensProblem.of(observation)
        return LensFit.of(smooth_fit(problem, starts=starts, steps=steps // 2))


@dataclass(frozen=True)
class Refinement:
    """How far a fit is refined.

    Args:
        search: for sub-halos behind a Sersic source.
        priors: of the potential.
        source: how a source is freed; None for Sersics alone.
        search_free: for sub-halos behind a free source.
        steps: Newton steps on the smooth lens.
        starts: of images that the given state explains badly, beside that state.
    """

    search: Search = Search()
    priors: FieldPriors = FieldPriors()
    source: FreeSourceSettings | None = FreeSourceSettings()
    search_free: Search = Search(kept=0.8, a_round=1)
    steps: int = 30
    starts: int = 4

    def __call__(self, problem: LensProblem, x: Tensor | None = None) -> LensFit:
        """Return the optimum of each image.

        Args:
            problem: of a smooth lens with a Sersic source.
            x: where to start, (B, P); several starts if None.
        """
        with torch.no_grad():
            smooth = smooth_fit(problem, starts=self.starts, steps=self.steps) if x is None else self._from(problem, x)
            seen = arc_light(smooth.problem)[1]
            badly = poor(smooth) & seen
            good, bad = (~badly).nonzero()[:, 0], badly.nonzero()[:, 0]
            groups: Groups = [(good, smooth.rows(good))] if len(good) else []
            for rows, group in self._explained(smooth.rows(bad)) if len(bad) else []:
                groups.append((bad[rows], group))
            return LensFit.of(smooth, groups)

    def _from(self, problem: LensProblem, x: Tensor) -> Fitted:
        """The smooth fit from a state, or from other starts where that explains an image badly: a false minimum."""
        fit = finished(problem, x, self.steps)
        rows = poor(fit).nonzero()[:, 0]
        if len(rows) == 0:
            return fit
        other = smooth_fit(problem[rows], starts=self.starts, steps=self.steps)
        better = (other.end.cost < fit.rows(rows).end.cost).nonzero()[:, 0]
        if len(better) == 0:
            return fit
        x = fit.x.index_copy(0, rows[better], other.x[better])
        noise = fit.problem.observation.noise.merged(rows[better], other.problem[better].observation.noise)
        observation = replace(fit.problem.observation, noise=noise)
        sigma = fit.problem.inverse_sigma.index_copy(0, rows[better], other.problem.inverse_sigma[better])
        return Fitted.at(replace(fit.problem, observation=observation, inverse_sigma=sigma), x)

    def _explained(self, smooth: Fitted) -> Groups:
        """What explains images that a smooth lens and a Sersic do not: sub-halos, or a source of any shape, or both."""
        if self.source is None:
            return self._with_substructure(smooth, self.search)
        free = freed(smooth.problem, smooth.x, self.source)
        free = Fitted.at(free.problem.renewed(free.x), free.x)
        sersic = self._with_substructure(smooth, self.search, free.evidence)
        return each(sersic, lambda rows, group: self._compared(group, free.rows(rows)))

    def _compared(self, sersic: Fitted, free: Fitted) -> Groups:
        """The better of a Sersic with substructure and a free source with or without, image by image."""
        chosen: Groups = []
        for row in torch.arange(len(sersic.x), device=sersic.x.device).split(1):
            ((_, full),) = self._with_substructure(free.rows(row), self.search_free)
            chosen.append((row, better_of(sersic.rows(row), full)))
        return chosen

    def _with_substructure(self, fitted: Fitted, search: Search, target: Tensor | None = None) -> Groups:
        """Sub-halos, then a potential where something is left."""
        return each(add_subhalos(fitted, search, target), lambda _, group: self._with_potential(group))

    def _with_potential(self, fitted: Fitted) -> Groups:
        if self.priors.potential.amplitude == 0:
            return [(torch.arange(len(fitted.x)), fitted)]
        bad = poor(fitted) & (fitted.problem.chi2(fitted.x) > _UNEXPLAINED)
        rows, good = bad.nonzero()[:, 0], (~bad).nonzero()[:, 0]
        groups: Groups = [(good, fitted.rows(good))] if len(good) else []
        if len(rows):
            groups += [(rows[part], group) for part, group in with_potential(fitted.rows(rows), self.priors)]
        return groups


def each(groups: Groups, stage: Callable[[Tensor, Fitted], Groups]) -> Groups:
    """Return what a stage makes of each group, with the rows of the whole batch."""
    return [(rows[part], group) for rows, fitted in groups for part, group in stage(rows, fitted)]


def better_of(a: Fitted, b: Fitted) -> Fitted:
    """Return the likelier of two fits of one image, both judged with the noise of that which leaves less over."""
    judge = a.problem if float(a.problem.chi2(a.x)) < float(b.problem.chi2(b.x)) else b.problem
    inverse_sigma, noise = judge.inverse_sigma, judge.observation.noise
    ours = [
        Fitted.at(
            replace(f.problem, inverse_sigma=inverse_sigma, observation=replace(f.problem.observation, noise=noise)),
            f.x,
        ).evidence
        for f in (a, b)
    ]
    return a if float(ours[0]) >= float(ours[1]) else b


def poor(fitted: Fitted) -> Tensor:
    """Return which images the model leaves more of than the noise allows, (B,), by chi^2."""
    return significant(fitted.problem, fitted.problem.chi2(fitted.x))


def significant(problem: LensProblem, chi2: Tensor) -> Tensor:
    """Return which values (B,) of chi^2 per counted pixel stand out of the scatter of pure noise, (B,)."""
    return chi2 - 1 > _POOR * (2 / problem.observation.counted).sqrt()
