"""A smooth lens with a Sersic source: where every fit begins."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lensphys.fitting.newton import Stop, minimised
from lensphys.fitting.problem import LensProblem
from lensphys.fitting.source import Fitted
from lensphys.fitting.starts import multistart


def finished(problem: LensProblem, x: Tensor, steps: int) -> Fitted:
    """Return the optimum, with the noise variance of the model renewed twice."""
    for _ in range(2):
        problem = problem.renewed(x)
        end = minimised(problem, x, Stop(steps))
        x = end.x
    return Fitted(problem, end)


def smooth_fit(problem: LensProblem, *, starts: int = 4, steps: int = 30) -> Fitted:
    """Return the best smooth lens with a Sersic source, from several starts with each pixel at its centre.

    Args:
        problem: without sub-halos or fields.
        starts: how many starts are optimised for each image, at most 8.
        steps: at most so many Newton steps a start.
    """
    return finished(problem, multistart(at_centres(problem), starts, steps), steps)


def at_centres(problem: LensProblem) -> LensProblem:
    """Return the problem with each pixel at its centre: quick, and good enough to tell minima apart."""
    camera = replace(problem.observation.camera, supersampling=1)
    return replace(problem, observation=replace(problem.observation, camera=camera))


def distinct(problem: LensProblem, x: Tensor, apart: float) -> Tensor:
    """Return those of some vectors (n, P) of one image whose mass is not that of one before them, (m, P)."""
    masses = torch.tensor([name.split(".")[0] in problem.model.mass for name in problem.model.names], device=x.device)
    kept: list[int] = []
    for i, own in enumerate(x[:, masses]):
        if all(float((own - x[j, masses]).abs().amax()) > apart for j in kept):
            kept.append(i)
    return x[kept]
