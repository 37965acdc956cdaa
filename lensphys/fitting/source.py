"""The free source: from the fit of a Sersic to a galaxy of any shape, jointly with its lens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from lensphys.basics.rows import Rows, chosen_rows
from lensphys.basics.settings import Strict
from lensphys.fitting.evidence import best_prior, evidence, reweighed, reweighed_normal
from lensphys.fitting.newton import AtOptimum, Normal, Optimum, Stop, minimised
from lensphys.fitting.parametrised import FreeField
from lensphys.fitting.problem import LensProblem
from lensphys.model import Envelope, Frame, Modes, SourcePrior

_SURVEY = tuple(SourcePrior(amplitude=a, scale=k) for a in (0.3, 0.6, 1.2, 2.4) for k in (6.0, 12.0, 24.0))


class FreeSourceSettings(Strict):
    """How a source is freed.

    Args:
        modes: along each axis of the frame, level by level: the coarse field finds the lens, the fine one the knots.
        priors: of the field; the image chooses by its evidence.
        bright: signal-to-noise of a 3 x 3 mean above which a pixel shows the source: those set the frame.
        within: share of these pixels that the frame holds.
        margin: by what factor the frame is larger than that.
        largest: half side of a frame, at most [arcsec].
        frame: whether it stays where it is, or moves and grows with its Sersic: then no size of a source is likelier by
            the field's length scales, and the slope of the mass and the magnification are not led astray by them.
        envelope: what the field multiplies, and how far.
        fall: of the cost, half of chi^2 and priors, in a step, below which the last level has converged,
        fall_between: and below which the levels before it have.
    """

    modes: Annotated[tuple[PositiveInt, ...], Field(min_length=1, strict=False)] = (10, 18, 32)
    priors: Annotated[tuple[SourcePrior, ...], Field(min_length=1, strict=False)] = _SURVEY
    bright: PositiveFloat = 4.0
    within: Annotated[float, Field(gt=0, le=1)] = 0.98
    margin: PositiveFloat = 1.1
    largest: PositiveFloat = 2.5
    frame: Literal["still", "moving"] = "still"
    envelope: Envelope = Envelope()
    fall: PositiveFloat = 0.5
    fall_between: PositiveFloat = 8.0


@dataclass(frozen=True)
class Shown(Rows):
    """What of substructure images show, whether or not any of it was kept.

    Args:
        gain: in ln likelihood, of the best place for a sub-halo beside the best model without substructure, with lens
            and source free, (B,).
        ratio: ln of the evidence of the fit over that of the best model without substructure, (B,); 0 for the latter.
    """

    gain: Tensor
    ratio: Tensor


@dataclass(frozen=True)
class Rival(Rows):
    """The best other lens that was found for images.

    Args:
        theta_E: its Einstein radius, (B,) [arcsec]; NaN where none was compared.
        behind: ln of the evidence of the fit over that of the other, (B,).
    """

    theta_E: Tensor
    behind: Tensor

    @classmethod
    def none(cls, like: Tensor) -> Rival:
        """Return that no other lens was compared, for images (B,)."""
        return cls(torch.full_like(like, torch.nan), torch.full_like(like, torch.inf))

    def with_another(self, rows: Tensor, other: Rival) -> Rival:
        """Return them with others for some images (indices)."""
        theta_E, behind = self.theta_E.index_copy(0, rows, other.theta_E), self.behind.index_copy(0, rows, other.behind)
        return Rival(theta_E, behind)


@dataclass(frozen=True)
class Fitted(AtOptimum[LensProblem]):
    """Images that share a model, at their optimum.

    Args:
        problem: images, model and noise.
        end: where the fit ended.
        shown: of substructure; None where nobody looked.
        rival: another lens; None where none was compared.
        joint_evidence: of all images of the lens, (B,), and
        determined: how many numbers the data of each image determine, (B,), where it is one of several images of a lens
            and the curvature is not of its own data alone.
        psf_wider: share of its width by which a PSF that is off explains what sub-halos would, (B,); None where none
            does.
    """

    shown: Shown | None = None
    rival: Rival | None = None
    joint_evidence: Tensor | None = None
    determined: Tensor | None = None
    psf_wider: Tensor | None = None

    @property
    def index(self) -> Tensor:
        """All rows of the batch, (B,)."""
        return torch.arange(len(self.x), device=self.x.device)

    def apart(self) -> Groups:
        """Return each image on its own."""
        return [(row, self.rows(row)) for row in self.index.split(1)]

    @property
    def evidence(self) -> Tensor:
        """Of each image, (B,)."""
        return evidence(self.problem, self.end) if self.joint_evidence is None else self.joint_evidence

    def rows(self, index: Tensor) -> Fitted:
        """Return the fits of some images (indices)."""
        own = self.problem[index]
        end = self.end.rows(index, own if self.end.problem is self.problem else None)
        parts = (self.shown, self.rival, self.joint_evidence, self.determined, self.psf_wider)
        return Fitted(own, end, *(chosen_rows(part, index) for part in parts))

    def with_noise_of(self, other: LensProblem) -> Fitted:
        """Return the fit where it is, judged with the noise of another problem of the same images."""
        noise, inverse_sigma = other.observation.noise, other.inverse_sigma
        if self.problem.inverse_sigma is inverse_sigma and self.problem.observation.noise is noise:
            return self
        observation = replace(self.problem.observation, noise=noise)
        return Fitted.at(replace(self.problem, inverse_sigma=inverse_sigma, observation=observation), self.x)

    @property
    def where_fitted(self) -> Fitted:
        """The fit on those pixels that it was made on, where it is seen on others as well."""
        problem = self.end.problem
        if not isinstance(problem, LensProblem):
            return self
        return Fitted(problem, Optimum(problem, self.x, known=self.end.normal))

    def normal_of(self, residual: Tensor, columns: Tensor) -> Normal:
        """Return the normal equations, from `LensProblem.system` (B, N) and (B, Q, N) there if not known yet."""
        if self.end.problem is not self.problem:
            return self.problem.normal_of(self.x, residual, columns)
        return self.end.kept(lambda: self.problem.normal_of(self.x, residual, columns))


Groups = list[tuple[Tensor, Fitted]]  # rows of a batch, and the fit of those images, which share a model
Stage = Callable[[Fitted], Groups]


def each(groups: Groups, stage: Stage) -> Groups:
    """Return what a stage makes of each group, with the rows of the whole batch."""
    return [(rows[part], group) for rows, fitted in groups for part, group in stage(fitted)]


def parted(fitted: Fitted, those: Tensor, stage: Stage, others: Stage) -> Groups:
    """Return what one stage makes of those images of a batch (flags (B,)), and another of the others."""
    rows = (those.nonzero()[:, 0], stage), ((~those).nonzero()[:, 0], others)
    return [pair for index, made in rows if len(index) for pair in each([(index, fitted.rows(index))], made)]


def as_it_is(fitted: Fitted) -> Groups:
    """Return images as they are: the stage that changes nothing."""
    return [(fitted.index, fitted)]


def source_frame(problem: LensProblem, x: Tensor, settings: FreeSourceSettings) -> Frame:
    """Return the square about each Sersic of a fit (B, Q) that holds what the bright pixels show of the source."""
    lens, theta = problem.lens(x), problem.positions(problem.observation.camera.grid)
    sersic = problem.sersic(x)
    centre = torch.stack([torch.as_tensor(c) for c in (sersic.center_x, sersic.center_y)], dim=1)[:, :, None, None]
    away = (theta - lens.mass(theta) - centre).abs().amax(1).flatten(1)
    light = problem.arcs.significance(problem.inverse_sigma)[:, 0].flatten(1)
    away = torch.where(light > settings.bright, away, torch.nan)
    half = settings.margin * torch.nanquantile(away, settings.within, dim=1).nan_to_num(settings.largest)
    least = 4 * problem.observation.camera.grid.scale
    frame = Frame.from_sersic(sersic, half.clamp(least, settings.largest), settings.envelope)
    return frame.moving(sersic) if settings.frame == "moving" else frame


def freed(problem: LensProblem, x: Tensor, settings: FreeSourceSettings, frames: int = 2) -> list[Fitted]:
    """Return the joint optimum of lens and free source, from that of a Sersic: one for each level of modes.

    The coarse field finds the lens; with it the frame is chosen anew, and the fine one finds the knots. What the
    problem holds is let go of once the coarse field is there: a field that opens takes any lens that is near.

    Args:
        problem: whose source is a Sersic.
        x: its optimum, (B, Q), without sub-halos or potential.
        settings: how.
        frames: how often the frame is chosen.
    """
    for _ in range(frames):
        coarse = _opened(problem, x, source_frame(problem, x, settings), settings.modes[0], settings)
        x = coarse.problem.parts(coarse.x)[0]
    return with_finer(_let_go(coarse, settings), settings)


def with_finer(coarse: Fitted, settings: FreeSourceSettings) -> list[Fitted]:
    """Return the optimum at the first level of modes and those at the finer ones after it."""
    levels = [coarse]
    for modes in settings.modes[1:]:
        levels.append(raised(levels[-1], modes, settings))
    return levels


def _let_go(fitted: Fitted, settings: FreeSourceSettings) -> Fitted:
    """The optimum with nothing held."""
    problem, x = fitted.problem.let_go(fitted.x)
    if problem is fitted.problem:
        return fitted
    return Fitted(problem, minimised(problem, x, Stop(10, fall=settings.fall_between)))


def raised(fitted: Fitted, count: int, settings: FreeSourceSettings) -> Fitted:
    """Return the optimum with so many modes of the source along each axis, from that with fewer or as many.

    Its prior is chosen anew, by the evidence about where the fit starts.

    Args:
        fitted: with a free source.
        count: modes.
        settings: the priors to choose from.
    """
    own, bodies, g, psi = fitted.problem.parts(fitted.x)
    before = fitted.problem.free
    if before is None:
        raise ValueError("the source of this fit is not free: there are no modes to raise")
    modes = Modes(count)
    sigma = modes.sigma(SourcePrior(), 2 * before.frame.half_side)
    g = modes.grown(before.modes.square(g * before.sigma)) / sigma
    problem = replace(fitted.problem, free=FreeField(modes, before.frame, sigma))
    fall = settings.fall if count == settings.modes[-1] else settings.fall_between
    start = Optimum(problem, torch.cat([own, bodies, g, psi], dim=1))
    return _settled(start, problem, settings, Stop(12, fall=fall), damping=1e-3)


def _opened(problem: LensProblem, x: Tensor, frame: Frame, count: int, settings: FreeSourceSettings) -> Fitted:
    """The optimum with a source that is free for the first time."""
    modes = Modes(count)
    sigma = modes.sigma(SourcePrior(), 2 * frame.half_side)
    problem = replace(problem, free=FreeField(modes, frame, sigma))
    near = minimised(problem, torch.cat([x, torch.zeros_like(sigma)], dim=1), Stop(3, fall=10.0))
    return _settled(near, problem, settings, Stop(10, fall=settings.fall_between))


def _settled(
    start: Optimum, problem: LensProblem, settings: FreeSourceSettings, stop: Stop, damping: float = 1e-2
) -> Fitted:
    """The optimum under the likeliest prior."""
    free, x, normal = problem.free, start.x, start.normal
    if free is not None:
        index = best_prior(problem, x, settings.priors, normal)
        sigma = torch.stack([free.modes.sigma(p, 2 * free.frame.half_side) for p in settings.priors], dim=1)
        sigma = sigma[torch.arange(len(x), device=x.device), index]
        normal = reweighed_normal(problem, x, normal, sigma)
        problem, x = reweighed(problem, x, sigma)
    return Fitted(problem, minimised(problem, x, stop, damping=damping, start=normal))
