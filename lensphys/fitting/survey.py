"""Empirical Bayes: what the images of a survey together say of the prior of a field."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lensphys.fitting.fields import POTENTIAL, FieldPriors, fit_field, sampled
from lensphys.fitting.problem import LensProblem, LensState
from lensphys.model import CosineBasis, FieldPrior


def learned_potential(
    problem: LensProblem, state: LensState, priors: FieldPriors, *, rounds: int = 6, seed: int = 0
) -> FieldPrior:
    """Return amplitude, scale and slope of the potential's prior that the images of a survey are most likely under.

    Expectation maximisation: in each round the field of every image is fitted and drawn from its posterior, and the
    prior is fitted to the mean power of optimum and scatter, mode by mode: where the data say nothing the scatter is
    the prior's own, so that such modes keep it.

    Args:
        problem: images and noise.
        state: smooth optimum of each image.
        priors: where to start.
        rounds: of expectation maximisation.
        seed: of the draws.

    Source: Dempster, Laird & Rubin 1977.
    """
    generator = torch.Generator().manual_seed(seed)
    full = torch.ones_like(problem.unit)
    for _ in range(rounds):
        with torch.no_grad():
            best = fit_field(problem, state, priors, POTENTIAL, full, steps=1)
            drawn = sampled(problem, best, priors, POTENTIAL, full, generator)
            power = (best.potential.square() + (drawn.potential - best.potential).square()).mean(0)
        prior = _fitted(power, problem.potential, priors.potential)
        priors = priors.model_copy(update={"potential": prior})
    return priors.potential


def _fitted(power: Tensor, basis: CosineBasis, start: FieldPrior) -> FieldPrior:
    """Return the spectrum that fits the mean power of the modes, (n, n), in the Gaussian likelihood (Whittle)."""
    k = basis.wavenumbers(power)
    k2 = (k[:, None] ** 2 + k**2).flatten()[1:].double()
    seen = power.flatten()[1:].double()
    numbers = torch.tensor(
        [math.log(start.amplitude), math.log(start.scale), math.log(start.slope)], dtype=torch.float64
    ).requires_grad_()
    optimiser = torch.optim.LBFGS([numbers], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        """Return Whittle's negative log likelihood a mode, and leave its gradient behind."""
        optimiser.zero_grad()
        amplitude, scale, slope = numbers.exp()
        expected = amplitude**2 * (1 + k2 / scale**2) ** -slope
        value = (seen / expected + torch.log(expected)).mean()
        value.backward()
        return value

    optimiser.step(loss)
    amplitude, scale, slope = numbers.detach().exp().tolist()
    return FieldPrior(amplitude=amplitude, scale=scale, slope=slope)
