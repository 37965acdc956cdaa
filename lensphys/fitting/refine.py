"""From any starting state to the joint optimum of lens, sub-halos, potential and source."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lensphys.fitting.fields import LIGHT, POTENTIAL, FieldPriors, field_strength, fit_field
from lensphys.fitting.lens import LensFit, finish, minimised, multistart
from lensphys.fitting.problem import LensProblem, LensState
from lensphys.fitting.subhalos import Search, add_subhalos

_UNEXPLAINED = 1.2  # chi^2 per pixel above which a field is tried: it costs as much as all the rest
_POOR = 3.0  # sigma of chi^2 above its expectation, where a smooth lens does not do


@dataclass(frozen=True)
class Refinement:
    """How far a state is refined.

    Args:
        search: for sub-halos; its rounds are those of the refinement.
        priors: of the fields.
        steps: Levenberg-Marquardt steps on the smooth lens.
        starts: of images that the given state explains badly, beside that state.
    """

    search: Search = Search()
    priors: FieldPriors = FieldPriors()
    steps: int = 30
    starts: int = 4

    def __call__(self, problem: LensProblem, state: LensState | None = None) -> LensFit:
        """Return the optimum; at no stage does the cost rise.

        Args:
            problem: images and noise.
            state: where to start; several starts if None.
        """
        with torch.no_grad():
            if state is None:
                fit = finish(problem, multistart(problem, self.starts, self.steps), self.steps)
            else:
                fit = self._restarted(finish(problem, LensState.smooth(state.macro), self.steps))
            problem, state = self._with_field(fit.problem, fit.state, LIGHT)
            problem, state = add_subhalos(problem, state, self.search)
            problem, state = self._with_field(problem, state, POTENTIAL)
            end = minimised(problem, state, steps=self.search.steps)
            return LensFit(state.moved(end.x), problem, end.gradient_norm, fit.seen)

    def _restarted(self, fit: LensFit) -> LensFit:
        """Try other starts for the images that the fit explains badly: it may stand in a false minimum."""
        problem = fit.problem
        rows = poor(problem, fit.state).nonzero()[:, 0]
        if len(rows) == 0:
            return fit
        part = problem[rows]
        other = finish(part, multistart(part, self.starts, self.steps), self.steps)
        better = other.problem.cost(other.state) < other.problem.cost(fit.state[rows])
        rows, part = rows[better], other.problem[better]
        macro = fit.state.macro.index_copy(0, rows, other.state.macro[better])
        return replace(fit, state=LensState.smooth(macro), problem=problem.with_rows(rows, part))

    def _with_field(self, problem: LensProblem, state: LensState, which: int) -> tuple[LensProblem, LensState]:
        """Add a field where something is left to explain and the held-out pixels vote for it."""
        if self.priors.of(which).amplitude == 0:
            return problem, state
        chi2 = reduced_chi2(problem, state)
        rows = (significant(problem, chi2) & (chi2 > _UNEXPLAINED)).nonzero()[:, 0]
        if len(rows) == 0:
            return problem, state
        part, some = problem[rows], state[rows]
        strength = field_strength(part, some, self.priors, which)
        pays = strength > 0
        rows, part, some, strength = rows[pays], part[pays], some[pays], strength[pays]
        if len(rows) == 0:
            return problem, state
        fitted = fit_field(part, some, self.priors, which, strength)
        return problem.with_rows(rows, part.renewed(fitted)), state.with_rows(rows, fitted)


def poor(problem: LensProblem, state: LensState) -> Tensor:
    """Return which images the model leaves more of than the noise allows, (B,), by chi^2."""
    return significant(problem, reduced_chi2(problem, state))


def significant(problem: LensProblem, chi2: Tensor) -> Tensor:
    """Return which values (B,) of chi^2 per counted pixel stand out of the scatter of pure noise, (B,)."""
    return chi2 - 1 > _POOR * (2 / problem.observation.counted).sqrt()


def reduced_chi2(problem: LensProblem, state: LensState) -> Tensor:
    """Return chi^2 per counted pixel, (B,)."""
    return problem.residual(state).square().sum(1) / problem.observation.counted
