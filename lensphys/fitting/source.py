"""The free source: from the fit of a Sersic to a galaxy of any shape, jointly with its lens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from lensphys.fitting.evidence import best_prior, evidence, reweighed
from lensphys.fitting.newton import Optimum, Stop, minimised
from lensphys.fitting.problem import FreeField, LensProblem
from lensphys.model import Frame, Modes, SourcePrior
from lensphys.settings import Strict

_SURVEY = tuple(SourcePrior(amplitude=a, scale=k) for a in (0.3, 0.6, 1.2, 2.4) for k in (6.0, 12.0, 24.0))


class FreeSourceSettings(Strict):
    """How a source is freed.

    Args:
        modes: along each axis of the frame, level by level: the coarse field finds the lens, the fine one the knots.
        priors: of the field; the image chooses by its evidence.
        bright: signal-to-noise of a 3 x 3 mean above which a pixel shows the source: those set the frame.
        within: share of these pixels that the frame holds.
        margin: of the frame beyond them.
        largest: half side of a frame, at most [arcsec].
    """

    modes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (10, 16, 24, 32)
    priors: Annotated[tuple[SourcePrior, ...], Field(min_length=1)] = _SURVEY
    bright: PositiveFloat = 4.0
    within: Annotated[float, Field(gt=0, le=1)] = 0.98
    margin: PositiveFloat = 1.1
    largest: PositiveFloat = 2.5


@dataclass(frozen=True)
class Fitted:
    """Images that share a model, at their optimum.

    Args:
        problem: images, model and noise.
        end: where the fit ended.
        evidence: of each image, (B,).
    """

    problem: LensProblem
    end: Optimum
    evidence: Tensor

    @classmethod
    def of(cls, problem: LensProblem, end: Optimum) -> Fitted:
        """Return a fit with its evidence."""
        return cls(problem, end, evidence(problem, end))

    @classmethod
    def at(cls, problem: LensProblem, x: Tensor) -> Fitted:
        """Return a fit that stays where it is."""
        normal = problem.normal(x)
        return cls.of(problem, Optimum(x, normal.cost, normal.cosine, normal.hessian))

    @property
    def x(self) -> Tensor:
        """The vector, (B, Q)."""
        return self.end.x

    def rows(self, index: Tensor) -> Fitted:
        """Return the fits of some images (indices)."""
        return Fitted(self.problem[index], self.end.rows(index), self.evidence[index])


Groups = list[tuple[Tensor, Fitted]]  # rows of a batch, and the fit of those images, which share a model


def source_frame(problem: LensProblem, x: Tensor, settings: FreeSourceSettings) -> Frame:
    """Return the square about each Sersic that holds what the bright pixels show of the source."""
    lens, theta = problem.lens(x), problem.observation.camera.grid.positions(like=x)
    sersic = problem.sersic(x)
    centre = torch.stack([torch.as_tensor(c) for c in (sersic.center_x, sersic.center_y)], dim=1)[:, :, None, None]
    away = (theta - lens.mass(theta) - centre).abs().amax(1).flatten(1)
    light = (problem.observation.smoothed * problem.inverse_sigma * 3)[:, 0].flatten(1)
    away = torch.where(light > settings.bright, away, torch.nan)
    half = settings.margin * torch.nanquantile(away, settings.within, dim=1).nan_to_num(settings.largest)
    least = 4 * problem.observation.camera.grid.scale
    return Frame.about(sersic, half.clamp(least, settings.largest))


def freed(problem: LensProblem, x: Tensor, settings: FreeSourceSettings) -> Fitted:
    """Return the joint optimum of lens and free source, from the optimum of a Sersic.

    Args:
        problem: whose source is a Sersic.
        x: its optimum, (B, Q), without sub-halos or potential.
        settings: how.
    """
    own, frame = x, source_frame(problem, x, settings)
    coarse = _level(problem, own, frame, None, settings.modes[0], settings, Stop(10, fall=3.0))
    own = coarse.parts[0]
    frame = source_frame(coarse.problem_of_sersic, own, settings)
    level = _level(problem, own, frame, None, settings.modes[0], settings, Stop(10, fall=3.0))
    for modes in settings.modes[1:]:
        last = modes == settings.modes[-1]
        level = _level(problem, level.parts[0], frame, level, modes, settings, Stop(12, fall=0.3 if last else 2.0))
    return Fitted.of(level.problem, level.end)


@dataclass(frozen=True)
class _Level:
    problem: LensProblem
    end: Optimum

    @property
    def parts(self) -> tuple[Tensor, ...]:
        return self.problem.parts(self.end.x)

    @property
    def problem_of_sersic(self) -> LensProblem:
        return replace(self.problem, free=None)


def _level(
    problem: LensProblem,
    own: Tensor,
    frame: Frame,
    before: _Level | None,
    count: int,
    settings: FreeSourceSettings,
    stop: Stop,
) -> _Level:
    """The optimum with so many modes, from that with fewer: the prior is chosen where it starts and where it ends."""
    modes = Modes(count)
    sigma = modes.sigma(SourcePrior(), 2 * frame.half_side)
    g = torch.zeros_like(sigma)
    if before is not None and before.problem.free is not None:
        coarse = before.problem.free
        square = coarse.modes.square(before.parts[2] * coarse.sigma)
        g = modes.grown(square) / sigma
    problem = replace(problem, free=FreeField(modes, frame, sigma))
    x = torch.cat([own, g], dim=1)
    if before is None:
        x = minimised(problem, x, Stop(3, fall=10.0)).x
    index = best_prior(problem, x, settings.priors)
    choices = torch.stack([modes.sigma(p, 2 * frame.half_side) for p in settings.priors], dim=1)
    problem, x = reweighed(problem, x, choices[torch.arange(len(x)), index])
    return _Level(problem, minimised(problem, x, stop))
