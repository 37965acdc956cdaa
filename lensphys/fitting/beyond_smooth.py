"""What an image shows beyond a smooth lens and a Sersic: a free source, sub-halos, a freer mass, a potential."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from lensphys.basics.settings import Positives, Strict
from lensphys.fitting.freer_mass import FreerMass
from lensphys.fitting.newton import Optimum, Stop, minimised
from lensphys.fitting.potential import FieldPriors, with_potential
from lensphys.fitting.psf_moments import PSFMoments, optimum, promised
from lensphys.fitting.remains import astray, explains_little, poor
from lensphys.fitting.shown import evidence_ratio, first_look, largest_gain, told
from lensphys.fitting.smooth import distinct
from lensphys.fitting.source import (
    Fitted,
    FreeSourceSettings,
    Groups,
    Shown,
    as_it_is,
    each,
    freed,
    parted,
    raised,
    with_finer,
)
from lensphys.fitting.starts import START_FACTORS, minima, ordinary
from lensphys.fitting.subhalos import Candidates, Search, add_subhalos, candidates, pruned


class BeyondSmooth(Strict):
    """What is tried beyond a smooth lens and a Sersic, and kept where the evidence wants it, image by image.

    Args:
        search: for sub-halos behind a Sersic source.
        priors: of the potential.
        source: how a source is freed; None for Sersics alone.
        search_free: for sub-halos behind a free source.
        freer_mass: what else the smooth mass may be; None for that which is asked for alone.
        psf: how far the PSF may be off; None to believe it.
        steps: Newton steps with everything free.
        starts: of images in a false minimum.
        factors: Einstein radii to start from then [radius of the arcs].
        unexplained: chi^2 per pixel above which a potential is tried: it costs as much as all the rest.
        settled: chi^2 per pixel that a free source leaves at most where nothing else is tried: it takes up some noise.
        stuck: chi^2 per pixel behind a free source above which other minima of a Sersic's lens are tried, too.
        ordinary: lenses as most are that are tried where a free source leaves more than that, of so many times the
            Einstein radius: a Sersic takes the structure of a rich source for that of the lens.
        held: share of its range by which a parameter of such a lens may change while the source opens; the next one
            where the one before leaves more than that, too.
        apart: by what some parameter of the mass must differ between two minima, of its unconstrained values.
        tries: starts from which sub-halos are looked for, one after the other while something is left.
        first_level: of the source's modes, where sub-halos are looked for first: a finer source would take their part,
            and a coarser one leaves them its own, so that it has its turn where something is left.
        worth: ln evidence by which a model with sub-halos must be ahead of one without.
        explained: share of what a smooth lens leaves over that sub-halos must explain where much is left beside them.
        edge: share of the range of a main lens's parameter next to a bound that counts as the bound.
    """

    search: Search = Search()
    priors: FieldPriors = FieldPriors()
    source: FreeSourceSettings | None = FreeSourceSettings()
    search_free: Search = Search(kept=0.8, candidates_per_round=1)
    freer_mass: FreerMass | None = FreerMass()
    psf: PSFMoments | None = PSFMoments()
    steps: PositiveInt = 30
    starts: PositiveInt = 4
    factors: Positives = START_FACTORS
    unexplained: PositiveFloat = 1.2
    settled: PositiveFloat = 1.0
    stuck: PositiveFloat = 1.5
    ordinary: Positives = (0.94, 1.0, 1.06, 1.12)
    held: Positives = (0.05, 0.02)
    apart: PositiveFloat = 0.1
    tries: PositiveInt = 2
    first_level: NonNegativeInt = 1
    worth: NonNegativeFloat = 5.0
    explained: PositiveFloat = 0.5
    edge: PositiveFloat = 0.005

    def __call__(self, smooth: Fitted) -> Groups:
        """Return what explains images, in groups that share a model.

        Args:
            smooth: fits of a smooth lens and a Sersic, at their optimum.
        """
        if self.source is None:
            looks = first_look(smooth, self.search)
            return told(self._with_substructure(smooth, self.search, first=looks), smooth, largest_gain(looks))
        source = self.source
        fine, gain = self._fine(smooth, source)
        return parted(
            smooth,
            fine,
            lambda some: self._nothing_more(some, gain[fine]),
            lambda some: self._of_any_shape(some, source),
        )

    def search_behind(self, source_is_free: bool) -> Search:
        """Return the search for sub-halos behind a Sersic, or behind a free source."""
        return self.search_free if source_is_free else self.search

    def without_subhalos(self) -> BeyondSmooth:
        """Return the same without any search for sub-halos."""
        return self.shortened(0)

    def shortened(self, rounds: int) -> BeyondSmooth:
        """Return the same with at most so many rounds of each search."""
        search, search_free = (s.model_copy(update={"rounds": rounds}) for s in (self.search, self.search_free))
        return self.model_copy(update={"search": search, "search_free": search_free})

    def _fine(self, smooth: Fitted, source: FreeSourceSettings) -> tuple[Tensor, Tensor]:
        """Which images a smooth lens and a Sersic explain, and what a sub-halo would gain in those, (B,) each.

        Nothing is left in them, no sub-halo and no freer source pays.
        """
        fine, gain = ~poor(smooth), torch.zeros_like(smooth.evidence)
        for row in fine.nonzero().flatten().tolist():
            fit = smooth.rows(smooth.index[row : row + 1])
            found = candidates(fit, self.search)
            gain[row] = found.largest
            if len(found.best(1, 0.0, self.search.gain)):
                fine[row] = False
            else:
                coarse = freed(fit.problem, fit.x, source.model_copy(update={"modes": source.modes[:1]}))[-1]
                fine[row] = coarse.evidence <= fit.evidence
        return fine, gain

    def _nothing_more(self, smooth: Fitted, gain: Tensor) -> Groups:
        return told(as_it_is(self._let_go(smooth)), smooth, gain)

    def _of_any_shape(self, smooth: Fitted, source: FreeSourceSettings) -> Groups:
        """What explains images that need more than a smooth lens and a Sersic."""
        levels = freed(smooth.problem, smooth.x, source)
        left = levels[-1].problem.chi2(levels[-1].x) > self.settled
        groups: Groups = []
        for row, one in smooth.apart():
            own = [level.rows(row) for level in levels]
            starts = self._elsewhere(one, own, source) if bool(left[row]) else [own]
            groups.append((row, self._best_of(one, starts, source)))
        return groups

    def _elsewhere(self, smooth: Fitted, levels: list[Fitted], source: FreeSourceSettings) -> list[list[Fitted]]:
        """One image whose free source leaves something: its levels, and those from other starts, likeliest first."""
        tried = [levels]
        if len(smooth.problem.model.source) > 1 or smooth.problem.model.lens_light:
            return tried
        for held in self.held:
            tried.append(self._behind_an_ordinary_lens(smooth, source, held))
            if left_of(tried[-1][-1]) <= self.settled:
                break
        if left_of(levels[-1]) > self.stuck:
            ends = minima(smooth.problem.sampled(1), 2 * self.starts, self.steps, self.factors)[0]
            for x in distinct(smooth.problem, torch.cat([smooth.x, ends]), self.apart)[1 : self.starts + 1]:
                tried.append(freed(smooth.problem, x[None], source))
        return sorted(tried, key=lambda some: -float(some[-1].evidence))

    def _behind_an_ordinary_lens(self, smooth: Fitted, source: FreeSourceSettings, held: float) -> list[Fitted]:
        """The levels of one image from the likeliest of several lenses that are as most are, and held to it so much."""
        coarse, (problem, x) = source.model_copy(update={"modes": source.modes[:1]}), smooth.problem.let_go(smooth.x)
        starts = [ordinary(problem, x, factor, held) for factor in self.ordinary]
        found = [freed(*start, coarse)[-1] for start in starts]
        return with_finer(max(found, key=lambda fit: float(fit.evidence)), source)

    def _best_of(self, smooth: Fitted, starts: list[list[Fitted]], source: FreeSourceSettings) -> Fitted:
        """The best model of one image; what a Sersic needs beside it is looked for only while it may still win."""
        smooth, end = self._let_go(smooth), starts[0][-1]
        if astray(end, self.edge):
            return likeliest([smooth, end])
        free = self._free_from(starts, source)
        # where the noise is unknown each fit has its own, and evidences do not compare
        known = smooth.problem.observation.noise.known
        target = torch.stack([fit.evidence for fit in free]).amax(0) if known else None
        looks = first_look(smooth, self.search)
        ((_, sersic),) = self._with_substructure(smooth, self.search, target, looks)
        best, plain = likeliest([sersic, *free]), likeliest([smooth, free[0]])
        if best.problem.subhalos and not self._believed(best, plain):
            best = plain
        seen = None if plain is smooth else free[0].shown
        gain = largest_gain(looks) if seen is None else seen.gain
        shown = Shown(gain, evidence_ratio(best, plain))
        beside = smooth if best.problem.free is None else free[0]
        if self.freer_mass is not None:
            best = self._against(self.freer_mass, best, beside)
        if self.psf is not None and best.problem.subhalos:
            best = self._beside_psf(self.psf, best, beside)
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
        search = self.search_behind(best.problem.free is not None)
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

    def _beside_psf(self, psf: PSFMoments, best: Fitted, plain: Fitted) -> Fitted:
        """A fit with the sub-halos that remain when its PSF may be off, or without any where that explains them.

        Args:
            psf: how far it may be off.
            best: the fit, with sub-halos.
            plain: a fit without them, of the same source.
        """
        plain = Fitted.at(*plain.problem.with_model(best.problem.model, plain.x)).with_noise_of(best.problem)
        off = psf.integrated(plain)
        if float(promised(plain, off)) < psf.share * float(evidence_ratio(best, plain)):
            return best
        search = self.search_behind(best.problem.free is not None)
        kept = pruned(optimum(psf.integrated(best), Stop(self.steps)), search)
        found = max((optimum(off, Stop(self.steps)), kept), key=lambda fit: float(fit.evidence))
        if found.problem.subhalos == best.problem.subhalos:
            return best
        fewer = self._optimum(Fitted.at(replace(found.problem, broad=best.problem.broad), found.x))
        return replace(fewer, psf_wider=psf.wider(found))

    def _let_go(self, smooth: Fitted) -> Fitted:
        """The smooth fit with nothing held."""
        problem, x = smooth.problem.let_go(smooth.x)
        if problem is smooth.problem:
            return smooth
        return self._optimum(replace(smooth, problem=problem, end=Optimum(problem, x)))

    def _optimum(self, fitted: Fitted) -> Fitted:
        """The optimum that is nearest to a fit."""
        return replace(fitted, end=minimised(fitted.problem, fitted.x, Stop(self.steps)))

    def _believed(self, best: Fitted, plain: Fitted) -> bool:
        """Whether the sub-halos of one image are more than what a model without them would do as well."""
        if float(evidence_ratio(best, plain)) < self.worth:
            return False
        left = left_of(best)  # where it is much, something else is there
        return left < self.stuck or not explains_little(left, left_of(plain), self.explained)

    def _free_from(self, starts: list[list[Fitted]], source: FreeSourceSettings) -> list[Fitted]:
        """One image behind a free source: from its likeliest start, and from others while something is left."""
        found = self._free(starts[0], source, self.first_level)
        others = [(levels, self.first_level) for levels in starts[1 : self.tries]] + [(starts[0], 0)]
        for levels, first in others:
            if bool(poor(likeliest(found))):
                found += self._free(levels, source, first)[1:]
        return found

    def _free(self, levels: list[Fitted], source: FreeSourceSettings, first: int) -> list[Fitted]:
        """One image behind a free source: as it is, and with the sub-halos that its levels of modes show one by one."""
        search = self.search_free
        smooth = Fitted.at(levels[-1].problem.renewed(levels[-1].x), levels[-1].x)
        found = candidates(smooth, search)
        promising = len(found.best(1, 0.0, search.gain)) > 0
        smooth = replace(smooth, shown=Shown(found.largest[None], torch.zeros_like(smooth.evidence)))
        if not (promising or bool(poor(smooth))):
            return [smooth]
        fit = levels[min(first, len(levels) - 1)]
        for modes in source.modes[first:]:
            if modes > fit.problem.free.modes.count:  # type: ignore[union-attr]
                fit = raised(pruned(fit, search), modes, source)
            ((_, fit),) = add_subhalos(fit, search)
        fit = pruned(fit, search)
        ((_, fit),) = self._with_potential(fit)
        return [smooth, fit]

    def _with_substructure(
        self, fitted: Fitted, search: Search, target: Tensor | None = None, first: list[Candidates] | None = None
    ) -> Groups:
        """Sub-halos that stand when all of them are there, then a potential where something is left.

        Args:
            fitted: without.
            search: for sub-halos.
            target: evidence of another model of one image, (1,): the search ends where this one cannot come near it.
            first: the candidates of each image, where they are known.
        """
        found = each(add_subhalos(fitted, search, target, first), lambda group: one_by_one(group, search))
        return each(found, lambda group: self._with_potential(group, target))

    def _with_potential(self, fitted: Fitted, target: Tensor | None = None) -> Groups:
        """The fits, with a potential where much is left and that pays."""
        if self.priors.potential.amplitude == 0:
            return as_it_is(fitted)
        bad = poor(fitted) & (fitted.problem.chi2(fitted.x) > self.unexplained)
        return parted(fitted, bad, lambda some: with_potential(some, self.priors, target=target), as_it_is)


def one_by_one(fitted: Fitted, search: Search) -> Groups:
    """Return the fits without the sub-halos that do not stand, image by image: see `pruned`."""
    if not fitted.problem.subhalos:
        return as_it_is(fitted)
    return [(row, pruned(one, search)) for row, one in fitted.apart()]


def left_of(fit: Fitted) -> float:
    """Return chi^2 per pixel that a fit leaves of one image."""
    return float(fit.problem.chi2(fit.x))


def likeliest(fits: list[Fitted]) -> Fitted:
    """Return the likeliest of several fits of one image, all judged with the noise of that which leaves least over."""
    least = min(fits, key=left_of)
    return max(fits, key=lambda fit: float(fit.with_noise_of(least.problem).evidence))
