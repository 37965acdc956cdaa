"""How well images are explained, with what it took: the evidence, by which models and priors are compared."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lensphys.fitting.newton import Normal, Optimum, factored
from lensphys.fitting.problem import LensProblem
from lensphys.model import SourcePrior


def evidence(problem: LensProblem, end: Optimum | Normal) -> Tensor:
    """Return ln of the evidence of each image, (B,), but for a constant that all models of the image share.

    Laplace's approximation: -cost - 1/2 ln det H in units of the priors.

    Args:
        problem: at whose optimum
        end: the fit or its normal equations stand.

    Source: MacKay 1992 (Neural Computation 4, 415); Suyu et al. 2006 (MNRAS 371, 983).
    """
    volume = end.half_logdet + problem.subhalos * problem.bodies.volume
    return -end.cost - volume - (0 if problem.filter is None else problem.filter.volume)


def linear_evidence(problem: LensProblem, normal: Normal) -> Tensor:
    """Return ln of the evidence at the optimum of the problem linearised where it has some normal equations, (B,)."""
    return evidence(problem, normal) + normal.promise


def reweighed(problem: LensProblem, x: Tensor, sigma: Tensor) -> tuple[LensProblem, Tensor]:
    """Return problem and vector (B, Q) with other prior standard deviations (B, M) of the source's field."""
    if problem.free is None:
        return problem, x
    own, bodies, g, psi = problem.parts(x)
    g = g * problem.free.sigma / sigma
    return replace(problem, free=replace(problem.free, sigma=sigma)), torch.cat([own, bodies, g, psi], dim=1)


def reweighed_normal(problem: LensProblem, x: Tensor, normal: Normal, sigma: Tensor) -> Normal:
    """Return the normal equations of a vector (B, Q) under other prior standard deviations (B, M): see `reweighed`."""
    if problem.free is None:
        return normal
    part = _field(problem)
    ratio, scale = (sigma / problem.free.sigma).double(), torch.ones_like(normal.gradient)
    scale[:, part] = ratio
    g = x[:, part].double()
    hessian, gradient = normal.hessian * scale[:, :, None] * scale[:, None], normal.gradient * scale
    torch.diagonal(hessian, dim1=1, dim2=2)[:, part] += 1 - ratio.square()
    gradient[:, part] += g / ratio - g * ratio
    cost = normal.cost + 0.5 * (g / ratio).square().sum(1) - 0.5 * g.square().sum(1)
    return Normal.from_derivatives(cost, gradient, hessian)


def best_prior(
    problem: LensProblem, x: Tensor, priors: tuple[SourcePrior, ...], normal: Normal | None = None
) -> Tensor:
    """Return the index (B,) of the prior of the source's field that an image is most likely under: `prior_evidence`."""
    return prior_evidence(problem, x, priors, normal).argmax(1)


def prior_evidence(
    problem: LensProblem, x: Tensor, priors: tuple[SourcePrior, ...], normal: Normal | None = None
) -> Tensor:
    """Return ln of the evidence of each image under each prior of the source's field, (B, priors), but for a constant.

    By that of the problem linearised about a vector: no prior needs a fit of its own.

    Args:
        problem: with a free source.
        x: near the optimum under any of them, (B, Q).
        priors: to choose from.
        normal: the normal equations there, where they are known.
    """
    if problem.free is None:
        raise ValueError("the source of this problem is not free: there is no prior to choose")
    part, normal, found = _field(problem), problem.normal(x) if normal is None else normal, []
    g = x[:, part].double()
    for prior in priors:
        sigma = problem.free.modes.sigma(prior, 2 * problem.free.frame.half_side)
        precision = (problem.free.sigma / sigma).double().square()  # in units of the present prior
        hessian, gradient = normal.hessian.clone(), normal.gradient.clone()
        torch.diagonal(hessian, dim1=1, dim2=2)[:, part] += precision - 1
        gradient[:, part] += (precision - 1) * g
        factor = factored(hessian)
        fall = 0.5 * torch.linalg.solve_triangular(factor, gradient[:, :, None], upper=False).square().sum((1, 2))
        cost = normal.cost + 0.5 * ((precision - 1) * g.square()).sum(1) - fall
        volume = torch.diagonal(factor, dim1=1, dim2=2).log().sum(1) - 0.5 * precision.log().sum(1)
        found.append(-cost - volume)
    return torch.stack(found, dim=1)


def _field(problem: LensProblem) -> slice:
    """Where in a vector the coefficients of the source's field are."""
    start = sum(problem.sizes[:2])
    return slice(start, start + problem.sizes[2])
