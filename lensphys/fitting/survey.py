"""Empirical Bayes: what the images of a survey together say of the prior of a field."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lensphys.fitting.posterior import Posterior
from lensphys.fitting.potential import FieldPriors, corrected
from lensphys.fitting.source import Fitted
from lensphys.model import CosineBasis, FieldPrior


def learned_potential(smooth: Fitted, priors: FieldPriors, *, rounds: int = 6, seed: int = 0) -> FieldPrior:
    """Return amplitude, scale and slope of the potential's prior that the images of a survey are most likely under.

    Expectation maximisation: in each round the field of every image is fitted and drawn from its posterior, and the
    prior is fitted to the mean power of optimum and scatter, mode by mode: where the data say nothing the scatter is
    the prior's own, so that such modes keep it.

    Args:
        smooth: fits of a smooth lens to the images.
        priors: where to start.
        rounds: of expectation maximisation.
        seed: of the draws.

    Source: Dempster, Laird & Rubin 1977.
    """
    images = torch.arange(len(smooth.x)).split(1)
    for step in range(rounds):
        with torch.no_grad():
            power = torch.stack([_power(smooth.rows(i), priors, seed + step * len(images) + int(i)) for i in images])
        basis = priors.correction(smooth.problem, smooth.problem.unit).basis
        priors = priors.model_copy(update={"potential": _fitted(power.mean(0), basis, priors.potential)})
    return priors.potential


def _power(smooth: Fitted, priors: FieldPriors, seed: int) -> Tensor:
    """Mean square of the coefficients of one image's potential over its posterior, (n, n) [arcsec^6]."""
    best = corrected(smooth, priors, torch.ones_like(smooth.problem.unit), 1)
    sigma = priors.correction(smooth.problem, torch.ones_like(smooth.problem.unit)).sigma
    drawn = Posterior.from_fit(best).drawn(1, seed)[0]
    here, there = (best.problem.parts(x)[3].reshape(sigma.shape) * sigma for x in (best.x, drawn))
    return (here.square() + (there - here).square())[0]


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
