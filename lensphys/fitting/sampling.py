"""How many points a pixel's light is summed from: as many as the source's steepness and the noise ask for."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from lensphys.basics.settings import Strict
from lensphys.fitting.newton import Stop, minimised
from lensphys.fitting.source import Fitted, Groups


class Sampling(Strict):
    """When pixels are sampled more finely than the camera says.

    Args:
        unseen: chi^2 by which an image may change when the points along a pixel's side are doubled.
        fall: of the cost that more points must bring: images that were simulated with few points keep theirs.
        most: points along the side of a pixel.
        steps: Newton steps with more points.
    """

    unseen: PositiveFloat = 10.0
    fall: NonNegativeFloat = 1.0
    most: PositiveInt = 10
    steps: PositiveInt = 20


def well_sampled(fitted: Fitted, sampling: Sampling) -> Groups:
    """Return the fits with enough points a pixel, in groups of images that share their number.

    A camera with one point a pixel is left alone: such data are evaluated at pixel centres.

    Args:
        fitted: images that share a model, at their optimum.
        sampling: when more points are tried.
    """
    rows = torch.arange(len(fitted.x), device=fitted.x.device)
    if fitted.problem.observation.camera.supersampling == 1:
        return [(rows, fitted)]
    finer = [(row, _finer(fitted.rows(row), sampling)) for row in rows.split(1)]
    kept = [row for row, fit in finer if fit is None]
    groups: Groups = [(row, fit) for row, fit in finer if fit is not None]
    return groups + ([(torch.cat(kept), fitted.rows(torch.cat(kept)))] if kept else [])


def _finer(fitted: Fitted, sampling: Sampling) -> Fitted | None:
    """One image fitted with as many more points as it asks for; None if it asks for none."""
    best: Fitted | None = None
    while (trial := _doubled(fitted, sampling)) is not None and trial.end.cost < fitted.end.cost - sampling.fall:
        best = fitted = trial
    return best


def _doubled(fitted: Fitted, sampling: Sampling) -> Fitted | None:
    """One image fitted with twice as many points along a pixel's side; None if they would not be seen."""
    points = fitted.problem.observation.camera.supersampling
    more = min(2 * points, sampling.most)
    if more <= points:
        return None
    finer = fitted.problem.sampled(more)
    change = (finer.render(fitted.x) - fitted.problem.render(fitted.x)) * finer.inverse_sigma
    if float(change.square().sum()) < sampling.unseen:
        return None
    return Fitted(finer, minimised(finer, fitted.x, Stop(sampling.steps)))
