"""From images to lenses: a smooth lens, sub-halos, a free source and a potential, each where it pays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lensphys.fitting.doubts import doubtful, explains_little
from lensphys.fitting.freer_mass import FreerMass
from lensphys.fitting.lens_light import LensLightSettings, looks_like_a_galaxy
from lensphys.fitting.newton import Optimum, Stop, minimised
from lensphys.fitting.potential import FieldPriors, with_potential
from lensphys.fitting.problem import LensProblem
from lensphys.fitting.remains import left_over, poor, sky_noise
from lensphys.fitting.sampling import Sampling, well_sampled
from lensphys.fitting.shown import evidence_ratio, largest_gain, told
from lensphys.fitting.smooth import at_centres, distinct, finished, smooth_fit
from lensphys.fitting.source import Fitted, FreeSourceSettings, Groups, Rival, Shown, freed, raised
from lensphys.fitting.starts import arc_centre, minima, significant_light
from lensphys.fitting.subhalos import Search, add_subhalos, candidates, pruned
from lensphys.fitting.verdict import VerdictSettings
from lensphys.fitting.with_light import LitLens, wide_light_held
from lensphys.observation import Observation

_STEPS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


@dataclass(frozen=True)
class LensFit:
    """The best lens and source of each image of a batch, in groups of images that share a model.

    Args:
        groups: rows of the batch and the fit of each group; every row is in one of them.
        seen: (B,), whether anything stands 5 sigma out of the noise; else the fit means nothing.
        smooth_theta_E: (B,) [arcsec], Einstein radius of the smooth lens with a Sersic that the fits went out from.
        rival: the best other lens behind a galaxy's light.
        doubts: why no sub-halos are looked for in an image, by its row.
        left_out: (B,), how many pixels were left out of the fit: other objects and bad pixels; None if none can be.
    """

    groups: Groups
    seen: Tensor
    smooth_theta_E: Tensor
    rival: Rival
    doubts: Mapping[int, str] = field(default_factory=dict)
    left_out: Tensor | None = None

    @classmethod
    def from_smooth(cls, smooth: Fitted, groups: Groups | None = None) -> LensFit:
        """Return what has become of a smooth fit; the smooth fit itself if nothing is given."""
        rows = torch.arange(len(smooth.x), device=smooth.x.device)
        values = smooth.problem.values(smooth.x)
        none = torch.full_like(smooth.problem.unit, torch.nan)
        theta_E = values.get(f"{smooth.problem.model.main}.theta_E", none)
        rival = smooth.rival or Rival.none(smooth.problem.unit)
        return cls([(rows, smooth)] if groups is None else groups, significant_light(smooth.problem)[1], theta_E, rival)


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
        problem = LensProblem.from_observation(observation)
        return LensFit.from_smooth(smooth_fit(problem, starts=starts, steps=steps // 2))


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
        unexplained: chi^2 per pixel above which a potential is tried: it costs as much as all the rest.
        bright: signal-to-noise of a 3 x 3 mean that makes a pixel bright.
        overstated: variance of 3 x 3 means of the sky over the error map's, below which the map's scale is the sky's.
        unlike: the same, below which the map is no noise map of this image, and left to the verdict.
        margin: pixels about the bright ones that are fitted with them, where an image is not explained at once.
        crop: share of an image that these may hold; if they hold more it is fitted whole.
        stuck: chi^2 per pixel behind a free source above which the fit stands in a false minimum.
        apart: by what some parameter of the mass must differ between two minima, of its unconstrained values.
        off_centre: how far from the middle of the field the centre of the arcs is, for a badly explained image to be
            fitted about it as well [arcsec],
        wander: and about places so far from it on each side [arcsec]: it is the source that arcs are centred on.
        first_level: of the source's modes, where sub-halos are looked for first: a finer source would take their part.
        sampling: of the light in a pixel.
        edge: share of the range of a main lens's parameter next to a bound that counts as the bound.
        verdict: what is called a sky, and noise that is not white: beside them no sub-halos are looked for.
        explained: share of what a smooth lens leaves over that sub-halos must explain where much is left beside them.
        freer_mass: what else the smooth mass may be; None for that which is asked for alone.
        lens_light: how the light of a lens galaxy is found where there is one; None to look for none.
    """

    search: Search = Search()
    priors: FieldPriors = FieldPriors()
    source: FreeSourceSettings | None = FreeSourceSettings()
    search_free: Search = Search(kept=0.8, candidates_per_round=1)
    steps: int = 30
    starts: int = 4
    unexplained: float = 1.2
    bright: float = 5.0
    overstated: float = 0.5
    unlike: float = 0.04
    margin: float = 6.0
    crop: float = 0.8
    stuck: float = 1.5
    apart: float = 0.1
    off_centre: float = 0.3
    wander: float = 0.1
    first_level: int = 1
    sampling: Sampling = Sampling()
    edge: float = 0.005
    verdict: VerdictSettings = VerdictSettings()
    explained: float = 0.5
    freer_mass: FreerMass | None = FreerMass()
    lens_light: LensLightSettings | None = LensLightSettings()

    def __call__(self, problem: LensProblem, x: Tensor | None = None) -> LensFit:
        """Return the optimum of each image.

        Args:
            problem: of a smooth lens with a Sersic source.
            x: where to start, (B, P); several starts if None.
        """
        with torch.no_grad():
            smooth = smooth_fit(problem, starts=self.starts, steps=self.steps) if x is None else self._from(problem, x)
            smooth = self.with_sky_noise(smooth)
            first = LensFit.from_smooth(smooth)
            theta_E, rival = first.smooth_theta_E, first.rival
            seen = significant_light(smooth.problem)[1]
            dark, lit = (~seen).nonzero()[:, 0], seen.nonzero()[:, 0]
            groups: Groups = [(dark, smooth.rows(dark))] if len(dark) else []
            doubts: dict[int, str] = {}
            if len(lit):
                found = self._centred_and_lit(smooth.rows(lit))
                for rows, group in found:
                    own = LensFit.from_smooth(group)
                    theta_E[lit[rows]] = own.smooth_theta_E
                    rival.theta_E[lit[rows]], rival.behind[lit[rows]] = own.rival.theta_E, own.rival.behind
                sampled = each(found, lambda _, group: well_sampled(group, self.sampling))
                for rows, group in sampled:
                    doubts |= {int(lit[rows[i]]): why for i, why in doubtful(group, self.verdict).items()}
                groups += [(lit[rows], g) for rows, g in each(sampled, lambda _, group: self._with_claims(group))]
            left_out = problem.observation.n_unmasked
            for rows, group in groups:
                left_out[rows] -= group.problem.observation.n_unmasked
            whole = LensFit.from_smooth(smooth, groups)
            return replace(whole, smooth_theta_E=theta_E, rival=rival, doubts=doubts, left_out=left_out)

    def smooth(self, problem: LensProblem) -> Fitted:
        """Return the smooth fit of one image with a Sersic, and the light of its lens galaxy where it has one."""
        plain = self.with_sky_noise(smooth_fit(problem, starts=self.starts, steps=self.steps))
        ((_, found),) = each(self._centred_and_lit(plain), lambda _, group: well_sampled(group, self.sampling))
        return found

    def middle(self, whole: LensProblem, x: Tensor) -> LensProblem:
        """Return the problem of the pixels in the middle that hold all bright ones; of all where these are many."""
        height, width = self._window(whole)
        if height * width > self.crop * whole.observation.image[0].numel():
            return whole
        inner = whole.inner(height, width)
        if self.lens_light is not None and whole.model.lens_light:
            inner = wide_light_held(inner, x, self.lens_light.held)
        return inner

    def _centred_and_lit(self, smooth: Fitted) -> Groups:
        return each(self._recentred(smooth), lambda _, group: self._with_lens_light(group))

    def _with_lens_light(self, smooth: Fitted) -> Groups:
        """The smooth fits; where a galaxy seems to be in front and that explains an image better, with its light."""
        if self.lens_light is None or smooth.problem.model.lens_light:
            return [(torch.arange(len(smooth.x), device=smooth.x.device), smooth)]
        groups: Groups = []
        plain: list[Tensor] = []
        for row in torch.arange(len(smooth.x), device=smooth.x.device).split(1):
            own = smooth.rows(row)
            better = self._lit(own, self.lens_light) if left_over(own) or self._astray(own) else None
            if better is None:
                plain.append(row)
            else:
                groups.append((row, better))
        return groups + ([(torch.cat(plain), smooth.rows(torch.cat(plain)))] if plain else [])

    def _lit(self, smooth: Fitted, settings: LensLightSettings) -> Fitted | None:
        """One image with the light of its lens galaxy, if it has one and that explains it better.

        With the noise as it is given: a galaxy that is not fitted looks like noise that neighbours share.
        """
        problem = smooth.problem.inflated(smooth.problem.inflation.reciprocal())
        smooth = Fitted.at(problem, smooth.x)
        ring = f"{problem.model.main}.theta_E" in problem.values(problem.parts(smooth.x)[0])
        if not ring or not looks_like_a_galaxy(problem.observation, problem.inverse_sigma, settings):
            return None
        plain, astray = self._coarse(smooth, settings), self._astray(smooth)
        if not astray and not left_over(plain):
            return None
        fit = LitLens(settings, self.source, self.steps)(problem)
        lit = replace(self.with_sky_noise(fit), rival=fit.rival)
        lost = self._astray(lit)
        if self._at_bounds(lit, "lens_light.0.e") or (lost and not astray):
            return None  # an arc was taken for a galaxy: none is so flat, and its mass is where its light is
        no_lens = astray and not lost
        return lit if no_lens or _likelier(self._coarse(lit, settings), plain) else None

    def _coarse(self, smooth: Fitted, settings: LensLightSettings) -> Fitted:
        """The middle of one image behind a source that is free in few modes, each pixel at its centre."""
        problem = at_centres(smooth.problem)
        problem = problem.inner(*problem.observation.camera.grid.middle(settings.reach, settings.reach).shape)
        if self.source is None:
            return Fitted.at(problem, smooth.x)
        few = self.source.model_copy(update={"modes": self.source.modes[:2]})
        return freed(problem, smooth.x, few, frames=1)[-1]

    def _recentred(self, smooth: Fitted) -> Groups:
        """The smooth fits; of a lens far from the middle of the field, that about the centre of its arcs."""
        if smooth.problem.model.lens_light:
            return [(torch.arange(len(smooth.x), device=smooth.x.device), smooth)]
        centre, bad = arc_centre(smooth.problem), poor(smooth)
        far = (centre.norm(dim=1) > self.off_centre) & bad
        groups: Groups = []
        for i in far.nonzero().flatten().tolist():
            row = torch.tensor([i], device=smooth.x.device)
            about = [
                smooth.problem[row].centred_on(*(centre[i] + step).tolist()) for step in _STEPS.to(centre) * self.wander
            ]
            tried = [smooth_fit(problem, starts=self.starts, steps=self.steps) for problem in about]
            other = self.with_sky_noise(min(tried, key=lambda fit: float(fit.end.cost)))
            if bool(other.end.cost < smooth.rows(row).end.cost):
                groups.append((row, other))
        moved = {int(row) for row, _ in groups}
        others = torch.tensor([i for i in range(len(smooth.x)) if i not in moved], device=smooth.x.device)
        return groups + ([(others, smooth.rows(others))] if len(others) else [])

    def sky_noise(self, problem: LensProblem, x: Tensor) -> Tensor:
        """Return how the variance of the sky's 3 x 3 means compares with the error map's, (B,): see `sky_noise`."""
        return sky_noise(problem, x, self.bright, self.overstated, self.unlike)

    def with_sky_noise(self, smooth: Fitted) -> Fitted:
        """Return the fit with the noise of its sky: that which neighbours share, as an effective variance."""
        factor = self.sky_noise(smooth.problem, smooth.x)
        if not bool((factor != 1).any()):
            return smooth
        return Fitted.at(smooth.problem.inflated(factor), smooth.x)

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

    def _with_claims(self, smooth: Fitted) -> Groups:
        """What explains images badly explained so far; without sub-halos where sky or noise is not known."""
        unsure = sorted(doubtful(smooth, self.verdict))
        others = [i for i in range(len(smooth.x)) if i not in unsure]
        none = {name: getattr(self, name).model_copy(update={"rounds": 0}) for name in ("search", "search_free")}
        groups: Groups = []
        for rows, refinement in ((unsure, replace(self, **none)), (others, self)):
            if rows:
                index = torch.tensor(rows, device=smooth.x.device)
                groups += [(index[part], group) for part, group in refinement._near_the_arcs(smooth.rows(index))]
        return groups

    def _near_the_arcs(self, smooth: Fitted) -> Groups:
        """What explains images badly explained so far, from the pixels in the middle that hold all bright ones."""
        whole, inner = smooth.problem, self.middle(smooth.problem, smooth.x)
        if inner is whole:
            return self._explained(smooth)
        found = self._explained(Fitted.at(inner, smooth.x))
        return [(rows, self._on_the_whole(group, whole[rows])) for rows, group in found]

    def _on_the_whole(self, inner: Fitted, whole: LensProblem) -> Fitted:
        """The fit of the middle of images, as one of the whole; fitted to that where it does not hold outside."""
        seen = seen_whole(inner, whole)
        outside = seen.problem.chi2(seen.x) > self.stuck
        if not bool((outside & (inner.problem.chi2(inner.x) < self.stuck)).any()):
            return seen
        return replace(seen, end=minimised(seen.problem, seen.x, Stop(self.steps // 3)))

    def _window(self, problem: LensProblem) -> tuple[int, int]:
        """How many pixels in the middle, along y and x, hold all bright pixels of all images and a margin."""
        grid = problem.observation.camera.grid
        bright = problem.arcs.significance(problem.inverse_sigma) > self.bright
        theta = grid.positions(like=problem.unit).abs().expand(len(problem), -1, -1, -1)
        margin = self.margin * grid.scale
        if problem.front is not None and self.lens_light is not None:  # what is further out are other objects
            bright = bright & (theta.norm(dim=1, keepdim=True) < self.lens_light.reach)
            margin = max(margin, self.lens_light.margin)
        far_x, far_y = (float((theta[:, i] * bright[:, 0]).max()) + margin for i in (0, 1))
        return grid.middle(far_y, far_x).shape

    def _explained(self, smooth: Fitted) -> Groups:
        """What explains images that a smooth lens and a Sersic do not: sub-halos, or a source of any shape, or both."""
        if self.source is None:
            return told(self._with_substructure(smooth, self.search), smooth, self.search)
        fine = self._fine(smooth)
        rows, others = fine.nonzero()[:, 0], (~fine).nonzero()[:, 0]
        nothing_more: Groups = [(rows, self._let_go(smooth.rows(rows)))] if len(rows) else []
        groups = told(nothing_more, smooth, self.search)
        if len(others):
            groups += [(others[part], group) for part, group in self._of_any_shape(smooth.rows(others), self.source)]
        return groups

    def _fine(self, smooth: Fitted) -> Tensor:
        """Which images a smooth lens and a Sersic explain: nothing left, no sub-halo and no freer source pays, (B,)."""
        fine = ~poor(smooth)
        for row in fine.nonzero().flatten().tolist():
            fit = smooth.rows(torch.tensor([row], device=smooth.x.device))
            if len(candidates(fit, self.search).best(1, 0.0, self.search.gain)):
                fine[row] = False
            elif self.source is not None:
                coarse = freed(fit.problem, fit.x, self.source.model_copy(update={"modes": self.source.modes[:1]}))[-1]
                fine[row] = coarse.evidence <= fit.evidence
        return fine

    def _of_any_shape(self, smooth: Fitted, source: FreeSourceSettings) -> Groups:
        """What explains images that need more than a smooth lens and a Sersic."""
        levels = freed(smooth.problem, smooth.x, source)
        stuck = levels[-1].problem.chi2(levels[-1].x) > self.stuck
        well = (~stuck).nonzero()[:, 0]
        groups: Groups = []
        if len(well):
            found = self._beside_a_sersic(smooth.rows(well), [level.rows(well) for level in levels])
            groups += [(well[part], group) for part, group in found]
        for i in stuck.nonzero().flatten().tolist():
            row = torch.tensor([i], device=smooth.x.device)
            one = smooth.rows(row)
            best = self._elsewhere(one, [level.rows(row) for level in levels], source)
            groups += [(row, group) for _, group in self._beside_a_sersic(one, best)]
        return groups

    def _elsewhere(self, smooth: Fitted, levels: list[Fitted], source: FreeSourceSettings) -> list[Fitted]:
        """One image whose free source leaves too much, a false minimum: the best from there and from other starts."""
        tried = [levels]
        if len(smooth.problem.model.source) == 1 and not smooth.problem.model.lens_light:
            ends = minima(at_centres(smooth.problem), 2 * self.starts, self.steps)[0]
            for x in distinct(smooth.problem, torch.cat([smooth.x, ends]), self.apart)[1 : self.starts + 1]:
                tried.append(freed(smooth.problem, x[None], source))
        return max(tried, key=lambda some: float(some[-1].evidence))

    def _beside_a_sersic(self, smooth: Fitted, levels: list[Fitted]) -> Groups:
        """The best of a free source and a Sersic, each with the substructure that it shows, image by image."""
        return [
            (row, self._best_of(smooth.rows(row), [level.rows(row) for level in levels]))
            for row in torch.arange(len(smooth.x), device=smooth.x.device).split(1)
        ]

    def _best_of(self, smooth: Fitted, levels: list[Fitted]) -> Fitted:
        """The best model of one image; what a Sersic needs beside it is looked for only while it may still win."""
        smooth = self._let_go(smooth)
        if self._astray(levels[-1]):
            return likeliest([smooth, levels[-1]])
        free = self._free(levels)
        # where the noise is unknown each fit has its own, and evidences do not compare
        known = smooth.problem.observation.noise.known
        target = torch.stack([fit.evidence for fit in free]).amax(0) if known else None
        ((_, sersic),) = self._with_substructure(smooth, self.search, target)
        best, plain = likeliest([sersic, *free]), likeliest([smooth, free[0]])
        left, before = (float(fit.problem.chi2(fit.x)) for fit in (best, plain))
        if best.problem.subhalos and left > self.stuck and explains_little(left, before, self.explained):
            best = plain  # something else is there
        gain = largest_gain(smooth, self.search) if free[0].shown is None or plain is smooth else free[0].shown.gain
        shown = Shown(gain, evidence_ratio(best, plain))
        if self.freer_mass is not None:
            best = self._against(self.freer_mass, best, smooth if best.problem.free is None else free[0])
        return replace(best, shown=shown)

    def _against(self, mass: FreerMass, best: Fitted, plain: Fitted) -> Fitted:
        """The likeliest of a fit, a smooth mass with more freedom, and that with the sub-halos that remain.

        Args:
            mass: with more freedom.
            best: the fit, with sub-halos or without.
            plain: the fit without them, of the same source.
        """
        claims = best.problem.subhalos > 0
        wanted = mass.share * float(evidence_ratio(best, plain)) if claims else mass.alone
        search = self.search if best.problem.free is None else self.search_free
        smooth, tried = plain.with_noise_of(best.problem), [best]
        for multipoles in mass.multipoles:
            freer = mass.freed(smooth, multipoles)
            if float(freer.end.normal.promise - smooth.end.normal.promise) < wanted:
                continue
            smooth = self._optimum(freer)
            tried.append(smooth)
            if claims:
                tried.append(pruned(self._optimum(mass.freed(best, multipoles)), search))
        return likeliest(tried)

    def _let_go(self, smooth: Fitted) -> Fitted:
        """The smooth fit with nothing held."""
        problem, x = smooth.problem.let_go(smooth.x)
        if problem is smooth.problem:
            return smooth
        return self._optimum(replace(smooth, problem=problem, end=Optimum(problem, x)))

    def _optimum(self, fitted: Fitted) -> Fitted:
        """The optimum that is nearest to a fit."""
        return replace(fitted, end=minimised(fitted.problem, fitted.x, Stop(self.steps)))

    def _astray(self, fitted: Fitted) -> bool:
        """Whether the main lens of one image stands at a bound: what is fitted is no lens, and has no sub-halos."""
        return self._at_bounds(fitted, f"{fitted.problem.model.main}.")

    def _at_bounds(self, fitted: Fitted, names: str) -> bool:
        """Whether a parameter of one image stands at a bound whose name begins so."""
        problem, x = fitted.problem.let_go(fitted.x)
        at = problem.space.at_bounds(problem.parts(x)[0], self.edge)[0]
        return any(bool(flag) and name.startswith(names) for name, flag in zip(problem.model.names, at, strict=True))

    def _free(self, levels: list[Fitted]) -> list[Fitted]:
        """One image behind a free source: as it is, and with the sub-halos that its levels of modes show one by one."""
        source, search = self.source, self.search_free
        smooth = Fitted.at(levels[-1].problem.renewed(levels[-1].x), levels[-1].x)
        found = candidates(smooth, search)
        promising = len(found.best(1, 0.0, search.gain)) > 0
        smooth = replace(smooth, shown=Shown(found.largest[None], torch.zeros_like(smooth.evidence)))
        if source is None or not (promising or bool(poor(smooth))):
            return [smooth]
        fit = levels[min(self.first_level, len(levels) - 1)]
        for modes in source.modes[self.first_level :]:
            if modes > fit.problem.free.modes.count:  # type: ignore[union-attr]
                fit = raised(pruned(fit, search), modes, source)
            ((_, fit),) = add_subhalos(fit, search)
        fit = pruned(fit, search)
        ((_, fit),) = self._with_potential(fit)
        return [smooth, fit]

    def _with_substructure(self, fitted: Fitted, search: Search, target: Tensor | None = None) -> Groups:
        """Sub-halos that stand when all of them are there, then a potential where something is left."""
        found = each(add_subhalos(fitted, search, target), lambda _, group: one_by_one(group, search))
        return each(found, lambda rows, group: self._with_potential(group, None if target is None else target[rows]))

    def _with_potential(self, fitted: Fitted, target: Tensor | None = None) -> Groups:
        if self.priors.potential.amplitude == 0:
            return [(torch.arange(len(fitted.x)), fitted)]
        bad = poor(fitted) & (fitted.problem.chi2(fitted.x) > self.unexplained)
        rows, good = bad.nonzero()[:, 0], (~bad).nonzero()[:, 0]
        groups: Groups = [(good, fitted.rows(good))] if len(good) else []
        if len(rows):
            best = None if target is None else target[rows]
            groups += [
                (rows[part], group) for part, group in with_potential(fitted.rows(rows), self.priors, target=best)
            ]
        return groups


def each(groups: Groups, stage: Callable[[Tensor, Fitted], Groups]) -> Groups:
    """Return what a stage makes of each group, with the rows of the whole batch."""
    return [(rows[part], group) for rows, fitted in groups for part, group in stage(rows, fitted)]


def seen_whole(fitted: Fitted, whole: LensProblem) -> Fitted:
    """The fit of the middle of images, as one of the whole images with the noise of its model."""
    problem = whole_problem(fitted.problem, whole, fitted.x)
    return replace(Fitted(problem, fitted.end.at_cost(problem.cost(fitted.x))), shown=fitted.shown)


def whole_problem(inside: LensProblem, whole: LensProblem, x: Tensor) -> LensProblem:
    """Return the problem of the middle of images with all pixels of the whole images, and the noise of a vector."""
    noise = whole.observation.noise if inside.observation.noise.known else inside.observation.noise
    observation = replace(whole.observation, noise=noise)
    problem = replace(inside, observation=observation, inverse_sigma=whole.inverse_sigma, broad=whole.broad)
    return problem.renewed(x)


def one_by_one(fitted: Fitted, search: Search) -> Groups:
    """Return the fits without the sub-halos that do not stand, image by image: see `pruned`."""
    if not fitted.problem.subhalos:
        return [(torch.arange(len(fitted.x), device=fitted.x.device), fitted)]
    rows = torch.arange(len(fitted.x), device=fitted.x.device).split(1)
    return [(row, pruned(fitted.rows(row), search)) for row in rows]


def likeliest(fits: list[Fitted]) -> Fitted:
    """Return the likeliest of several fits of one image, all judged with the noise of that which leaves least over."""
    least = min(fits, key=lambda f: float(f.problem.chi2(f.x)))
    return max(fits, key=lambda fit: float(fit.with_noise_of(least.problem).evidence))


def _likelier(lit: Fitted, plain: Fitted) -> bool:
    """Whether a fit of one image with its galaxy's light is likelier than one without, judged by the noise alone.

    The fit with the light counts what its model may be wrong by as noise: behind it the other would look well, too.
    """
    sigma = torch.where(lit.problem.inverse_sigma > 0, plain.problem.inverse_sigma, 0.0)
    both = (lit, plain)
    first, second = (float(Fitted.at(replace(fit.problem, inverse_sigma=sigma), fit.x).evidence) for fit in both)
    return first > second
