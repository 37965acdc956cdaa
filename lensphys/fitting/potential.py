"""A correction psi to the lens's potential, for what neither a smooth lens nor sub-halos describe: a Gaussian field."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from pydantic import model_validator
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.basics.settings import Strict
from lensphys.fitting.evidence import linear_evidence
from lensphys.fitting.newton import Stop, minimised
from lensphys.fitting.parametrised import PotentialCorrection
from lensphys.fitting.problem import LensProblem
from lensphys.fitting.source import Fitted, Groups
from lensphys.model import CosineBasis, FieldPrior


class FieldPriors(Strict):
    """What a survey's lenses have in common, before an image is seen.

    Args:
        potential: prior of psi; its amplitude in arcsec^3.
    """

    potential: FieldPrior = FieldPrior(amplitude=0.01, scale=2.0, slope=2.5)
    modes: ClassVar[int] = 24  # along each axis of the field of view

    @model_validator(mode="before")
    @classmethod
    def _before_the_free_source(cls, tree: Any) -> Any:
        """Runs of older versions name a prior of the source's light, which was 0 in all of them."""
        if isinstance(tree, dict) and "light" in tree:
            if tree["light"].get("amplitude", 0.0) != 0:
                raise LensphysError("priors.light no longer exists: `refine` fits a source of any shape")
            tree = {name: value for name, value in tree.items() if name != "light"}
        return tree

    def correction(self, problem: LensProblem, strength: Tensor) -> PotentialCorrection:
        """Return the field of view's correction, its amplitude times ``strength`` (B,)."""
        basis = CosineBasis(self.modes, 2.2 * problem.radius)
        sigma = self.potential.sigma(basis, like=strength)
        return PotentialCorrection(basis, sigma * strength[:, None, None])


@dataclass(frozen=True)
class Trial:
    """How a potential correction is tried.

    Args:
        strengths: of the survey's amplitude.
        gain: ln of the evidence that it must gain.
        steps: Newton steps.
        hopeful: so many times what the linearised problem promises it may gain: where another model is further ahead,
            it is not tried.
    """

    strengths: tuple[float, ...] = (1.0, 0.3)
    gain: float = 4.0
    steps: int = 4
    hopeful: float = 1.5


def with_potential(fitted: Fitted, priors: FieldPriors, trial: Trial = Trial(), target: Tensor | None = None) -> Groups:
    """Return the fits, with a correction to the potential of those images for which it pays, by its evidence.

    Args:
        fitted: images that share a model, without a correction, at their optimum.
        priors: of the survey.
        trial: how strong, and what it must gain.
        target: evidence of another model of each image, (B,): where this one cannot come near it none is fitted.
    """
    best, choice = fitted.evidence + trial.gain, torch.zeros_like(fitted.evidence, dtype=torch.long)
    tried = [fitted]
    for strength in trial.strengths:
        start = _opened(fitted, priors, torch.full_like(fitted.problem.unit, strength))
        if target is not None:
            promised = linear_evidence(start.problem, start.end.normal) - fitted.evidence
            if bool((fitted.evidence + trial.hopeful * promised < target).all()):
                break
        part = _corrected(start, trial.steps)
        choice = torch.where(part.evidence > best, len(tried), choice)
        best = torch.maximum(best, part.evidence)
        tried.append(part)
        if not bool((choice > 0).any()):
            break
    groups = [((choice == i).nonzero()[:, 0], part) for i, part in enumerate(tried)]
    return [(rows, part.rows(rows)) for rows, part in groups if len(rows)]


def corrected(
    fitted: Fitted, priors: FieldPriors, strength: Tensor, steps: int, *, start: Tensor | None = None
) -> Fitted:
    """Return the joint optimum with a correction to the potential.

    Args:
        fitted: images that share a model, without a correction, at their optimum.
        priors: of the survey.
        strength: of the survey's amplitude, (B,).
        steps: at most so many Newton steps.
        start: a proposed psi, (B, m, m) [arcsec^3]: where that lowers the cost, else from none.
    """
    none = _opened(fitted, priors, strength)
    if start is None:
        return _corrected(none, steps)
    problem = none.problem
    trial = torch.cat([fitted.x, proposed(fitted.problem, start, priors) / strength[:, None]], dim=1)
    x = torch.where((problem.cost(trial) < problem.cost(none.x))[:, None], trial, none.x)
    return _corrected(Fitted.at(problem, x), steps)


def _opened(fitted: Fitted, priors: FieldPriors, strength: Tensor) -> Fitted:
    """The fits where they are with a potential that may be corrected."""
    problem = replace(fitted.problem, potential=priors.correction(fitted.problem, strength))
    return Fitted.at(problem, torch.cat([fitted.x, fitted.x.new_zeros(len(fitted.x), problem.sizes[3])], dim=1))


def _corrected(start: Fitted, steps: int) -> Fitted:
    """The joint optimum from a start."""
    stop = Stop(steps, fall=0.3)
    return Fitted(start.problem, minimised(start.problem, start.x, stop, damping=1e-4, start=start.end.normal))


def proposed(problem: LensProblem, psi: Tensor, priors: FieldPriors) -> Tensor:
    """Return proposed coefficients (B, m, m) [arcsec^3] in units of the survey's prior, for all its modes, (B, M)."""
    sigma = priors.correction(problem, torch.ones_like(problem.unit)).sigma
    missing = sigma.shape[-1] - psi.shape[-1]
    z = torch.nn.functional.pad(psi, (0, missing, 0, missing)) / sigma.clamp(min=1e-30)
    return torch.where(sigma > 0, z, 0.0).flatten(1)
