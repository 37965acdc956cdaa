"""Sub-halos, found one after the other where they explain most of what lens and source leave over.

Sub-halos are sparse: a Gaussian field smooths the one that is there and fits noise where none is. Here each is a body
of its own that enters only if it gains more in likelihood than its three numbers cost, with everything else free to
take its part: lens, other sub-halos, and the source. All of them are optimised together after each round.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from lensphys.basics.blocks import block
from lensphys.basics.settings import Positives, Strict
from lensphys.fitting.bodies import gain_by_error
from lensphys.fitting.brightness import Brightness
from lensphys.fitting.newton import Normal, Stop, minimised
from lensphys.fitting.problem import LensProblem
from lensphys.fitting.source import Fitted, Groups
from lensphys.tracing.grid import PixelGrid

_POINTS_AT_ONCE = 1 << 18  # of derivative maps: what stays in caches


class Search(Strict):
    """How sub-halos are looked for.

    Args:
        gain: what a sub-halo must gain in ln likelihood, before and after all is fitted anew. A place that is searched
            for among hundreds costs about 6 by chance alone (ln of their number); 12 is a 5 sigma detection.
        kept: share of this gain that must be left after all is fitted anew.
        stands: what it must gain in the end, when all that was found is there: calibrated on smooth lenses.
        rounds: at most so many rounds; 0 to look for none.
        candidates_per_round: at most so many new sub-halos a round and image.
        promising: share of the gain above which a place is tried again each round; the others, when those are done.
        steps: Newton steps after each round.
        step: between places that are tried [arcsec], no finer than the pixels.
        reach: how far from a bright pixel a sub-halo can be seen [arcsec].
        bright: signal-to-noise of a 3 x 3 mean that makes a pixel bright.
        largest: strength theta_E^2 beyond which it is no sub-halo [arcsec^2].
        apart: pixels between two candidates of a round.
        falling: what all rounds to come gain, in units of the last: each finds less than the one before. Where that is
            too little beside another model the search ends.
        doubtful: of the weakest sub-halos, so many are tried without,
        sure: but none that by its error gains so many times what it must.
        shares: of the strength that the linear estimate gives, to start from: where the first falls short of what it
            promised by a half, the next is tried too.
    """

    gain: NonNegativeFloat = 12.0
    kept: NonNegativeFloat = 0.5
    stands: NonNegativeFloat = 14.0
    rounds: NonNegativeInt = 12
    candidates_per_round: PositiveInt = 2
    promising: NonNegativeFloat = 0.25
    steps: PositiveInt = 8
    step: PositiveFloat = 0.1
    reach: PositiveFloat = 0.3
    bright: PositiveFloat = 4.0
    largest: PositiveFloat = 0.02
    apart: PositiveFloat = 3.0
    falling: PositiveFloat = 5.0
    doubtful: PositiveInt = 2
    sure: PositiveFloat = 3.0
    shares: Positives = (1.0, 0.3)

    @property
    def attempts(self) -> list[slice]:
        """Which candidates of a round are added together: first all, then each alone."""
        alone = [slice(i, i + 1) for i in range(self.candidates_per_round)]
        return alone if self.candidates_per_round == 1 else [slice(0, self.candidates_per_round), *alone]


@dataclass(frozen=True)
class Candidates:
    """Places of one image where another sub-halo was tried.

    Args:
        place: (C, 2) [arcsec].
        strength: theta_E^2 that the data want there, (C,) [arcsec^2].
        gain: what it would gain in ln likelihood, all else free, (C,).
        response: how all else would move, unconstrained, (C, Q).
    """

    place: Tensor
    strength: Tensor
    gain: Tensor
    response: Tensor

    def __len__(self) -> int:
        return len(self.place)

    def __getitem__(self, which: list[int] | slice) -> Candidates:
        return Candidates(self.place[which], self.strength[which], self.gain[which], self.response[which])

    @property
    def largest(self) -> Tensor:
        """The gain of the best place, a scalar; 0 where there is none."""
        return self.gain.max() if len(self) else self.gain.sum()

    def best(self, count: int, apart: float, least: float) -> Candidates:
        """Return up to ``count`` places that gain more than ``least``, ``apart`` [arcsec] from each other."""
        left, chosen = self.gain.clone(), []
        for _ in range(count):
            if len(left) == 0 or float(left.max()) <= least:
                break
            best = int(left.argmax())
            chosen.append(best)
            left[(self.place - self.place[best]).norm(dim=1) <= apart] = 0
        return self[chosen]


def add_subhalos(
    fitted: Fitted, search: Search, target: Tensor | None = None, first: list[Candidates] | None = None
) -> Groups:
    """Return the fits with the sub-halos that pay, in groups of images with as many of them.

    Args:
        fitted: images that share a model, at their optimum.
        search: how to look.
        target: evidence of another model of each image, (B,): where this one cannot come near it the search ends.
        first: the `candidates` of each image, where they are known.
    """
    done: Groups = []
    lookout = _Lookout(search, dict(enumerate(first or [])))
    active: Groups = [(torch.arange(len(fitted.problem), device=fitted.x.device), fitted)]
    for left in range(search.rounds, 0, -1):
        following: Groups = []
        for rows, group in active:
            grown, rest = _round(rows, group, lookout)
            done += rest
            for part, fit in grown:
                before = group.evidence[torch.isin(rows, part)]
                hopeful = torch.ones_like(part, dtype=torch.bool)
                if target is not None:
                    hopeful = fit.evidence + min(left - 1, search.falling) * (fit.evidence - before) > target[part]
                for kept, place in ((hopeful, following), (~hopeful, done)):
                    index = kept.nonzero()[:, 0]
                    if len(index):
                        place.append((part[index], fit.rows(index)))
        active = following
        if not active:
            break
    return done + active


class _Lookout:
    """Where each image of a batch may show another sub-halo.

    Args:
        search: how to look.
        first: the candidates of some images, before anything is added.
    """

    def __init__(self, search: Search, first: dict[int, Candidates]) -> None:
        self.search, self._first = search, first
        self._promising: dict[int, Tensor] = {}

    def best(self, row: int, fitted: Fitted) -> Candidates:
        """Return the candidates of a round: among the places of an image that promised some gain, else among all."""
        tries = [self._promising[row], None] if row in self._promising else [None]
        for place in tries:
            found = self._first.pop(row) if row in self._first else candidates(fitted, self.search, place)
            if place is None:
                self._promising[row] = found.place[found.gain > self.search.promising * self.search.gain]
            apart = self.search.apart * fitted.problem.observation.camera.grid.scale
            best = found.best(self.search.candidates_per_round, apart, self.search.gain)
            if len(best):
                break
        return best


def _round(rows: Tensor, group: Fitted, lookout: _Lookout) -> tuple[Groups, Groups]:
    """One more round for a group: what has grown, and what has not."""
    search, images = lookout.search, torch.arange(len(rows), device=rows.device).split(1)
    chosen = [lookout.best(row, group.rows(i)) for row, i in zip(rows.tolist(), images, strict=True)]
    left, grown = list(range(len(rows))), []
    for part in search.attempts:  # all of a round together; where they lead astray, one after the other alone
        some = [i for i in left if len(chosen[i]) >= part.stop]
        if some:
            index = torch.tensor(some, device=rows.device)
            better, fit = _tried(group.rows(index), [chosen[i][part] for i in some], search)
            taken = index[better].tolist()
            if taken:
                grown.append((rows[taken], fit))
                left = [i for i in left if i not in taken]
    return grown, [(rows[left], group.rows(torch.tensor(left, device=rows.device)))] if left else []


def _tried(group: Fitted, chosen: list[Candidates], search: Search) -> tuple[Tensor, Fitted]:
    """Add the same number of sub-halos to each image: for which the cost falls enough, and the fits of those."""
    trial = replace(group.problem, subhalos=group.problem.subhalos + len(chosen[0]))
    wanted = torch.stack([c.gain.sum() for c in chosen])
    end = None
    for share in search.shares:
        x = torch.cat([_with_bodies(group.rows(torch.tensor([i])), c, share) for i, c in enumerate(chosen)])
        new = minimised(trial, x, Stop(search.steps, cosine=1e-3, fall=0.1), damping=1e-3)
        end = new if end is None else end.lower(new)
        if bool((group.end.cost - end.cost > 0.5 * wanted).all()):
            break
    if end is None:
        return torch.zeros_like(group.end.cost, dtype=torch.bool), group
    better = end.cost < group.end.cost - search.kept * search.gain
    rows = better.nonzero()[:, 0]
    if len(rows) == 0:
        return better, group
    return better, Fitted.at(trial[rows].renewed(end.x[rows]), end.x[rows])


def _with_bodies(fitted: Fitted, new: Candidates, share: float) -> Tensor:
    """The vector (1, Q) of one image with new sub-halos at a share of their strength, and all else as it answers."""
    own, bodies, g, psi = fitted.problem.parts(fitted.x + share * new.response.sum(0))
    more = torch.cat([(share * new.strength).log()[:, None], new.place], dim=1).flatten()[None]
    return torch.cat([own, bodies, more.to(own), g, psi], dim=1)


def candidates(fitted: Fitted, search: Search, place: Tensor | None = None) -> Candidates:
    """Return where another sub-halo would gain how much in one image, with lens, sub-halos and source free.

    With J the whitened derivatives by all that is fitted, H = J^T J + priors and c the derivative by the strength of a
    body at a place: gain = (c^T r)^2 / (2 c^T P c), P = 1 - J H^-1 J^T.

    Args:
        fitted: one image, at its optimum.
        search: how to look.
        place: where, (C, 2) [arcsec]; within reach of the bright pixels if None.
    """
    problem, x = fitted.problem, fitted.x
    place = places(problem, search) if place is None else place
    residual, columns = problem.system(x)
    normal = fitted.normal_of(residual, columns)
    body = whitened_bodies(problem, x, place)[0]  # (C, N)
    own, pull = torch.linalg.vector_norm(body, dim=1).double().square(), (body @ residual[0]).double()
    answer = Answer(pull, own, (columns[0] @ body.T).double())
    return candidates_of(place, normal, answer, search, x)


@dataclass(frozen=True)
class Answer:
    """How the residuals and everything that is fitted answer to weak bodies at C places, in float64.

    Args:
        pull: c^T r, (C,) [arcsec^-2].
        own: c^T c, (C,) [arcsec^-4].
        cross: J^T c, (Q, C) [arcsec^-2].
    """

    pull: Tensor
    own: Tensor
    cross: Tensor


def candidates_of(place: Tensor, normal: Normal, body: Answer, search: Search, like: Tensor) -> Candidates:
    """Return the candidates at places (C, 2) of a fit with some normal equations: see `candidates`."""
    factor = normal.factor
    whitened = torch.linalg.solve_triangular(factor[0], body.cross, upper=False)
    step = -torch.linalg.solve_triangular(factor[0], normal.gradient[0][:, None], upper=False)
    pull = body.pull - (whitened * step).sum(0)
    power = (body.own - whitened.square().sum(0)).clamp(min=1e-12)
    power = power + 1e-3 * body.own  # what all else mimics is no detection
    strength = pull / power
    gain = torch.where(strength > 0, 0.5 * strength.square() * power, 0.0)
    strength = strength.clamp(1e-8, search.largest)
    answer = torch.linalg.solve_triangular(factor[0].T, step - whitened * strength, upper=True)
    return Candidates(place, strength.to(like), gain.to(like), answer.T.to(like))


def pruned(fitted: Fitted, search: Search) -> Fitted:
    """Return the fit of one image without the sub-halos that gain less than they must: by their error, or fitted anew.

    The weakest first: each is taken out, all else is fitted, and it stays out if the cost rises by less than the gain.
    One that has left the field goes, whatever it gains: it stands for a shear that the model lacks.

    Args:
        fitted: one image, at its optimum.
        search: what a sub-halo must gain.
    """
    kept = 0
    while fitted.problem.subhalos > kept:
        own, bodies, g, psi = fitted.problem.parts(fitted.x)
        variance = fitted.end.normal.covariance[0].diagonal()
        variance = variance[own.shape[1] : own.shape[1] + bodies.shape[1] : 3]  # of ln strength
        gains = gain_by_error(variance)
        gone = _outside(fitted)
        weakest = gone[0] if gone else int(variance.argsort(descending=True)[kept])
        if not gone and float(gains[weakest]) > search.sure * search.gain:
            break
        index = torch.tensor([i for i in range(bodies.shape[1]) if i // 3 != weakest], dtype=torch.long)
        trial = replace(fitted.problem, subhalos=fitted.problem.subhalos - 1)
        x = torch.cat([own, bodies[:, index], g, psi], dim=1)
        end = minimised(trial, x, Stop(search.steps, fall=0.1), damping=1e-3)
        uncertain = float(gains[weakest]) < search.gain  # by its error it may be none
        if gone or uncertain or float(end.cost - fitted.end.cost) < search.stands:
            fitted = Fitted(trial, end)
        else:
            kept += 1
            if kept >= search.doubtful:
                break
    return fitted


def _outside(fitted: Fitted) -> list[int]:
    """Which sub-halos of one image are outside of its field."""
    problem = fitted.problem
    place = problem.parts(fitted.x)[1].unflatten(1, (-1, 3))[0, :, 1:]
    edge = problem.positions(problem.observation.camera.grid)[0].abs().amax((1, 2))
    return (place.abs() > edge).any(1).nonzero()[:, 0].tolist()


def places(problem: LensProblem, search: Search) -> Tensor:
    """Return places (C, 2) [arcsec] within reach of the bright pixels of one image."""
    grid = problem.observation.camera.grid
    theta = problem.positions(grid)
    light = problem.arcs.significance(problem.inverse_sigma)[0, 0]
    bright = theta[0][:, light > search.bright].T
    step = max(search.step, grid.scale)
    height, width = (max(1, round(n * grid.scale / step)) for n in grid.shape)
    tried = PixelGrid(height, width, step).positions(like=theta)
    tried = tried[0].flatten(1).T
    if len(bright) == 0:
        return tried[:0]
    near = torch.cat([torch.cdist(part, bright).amin(1) for part in tried.split(1024)])
    return tried[near <= search.reach]


def whitened_bodies(problem: LensProblem, x: Tensor, place: Tensor) -> Tensor:
    """Return the whitened derivatives of one image by the strength of a body, (1, C, N) [arcsec^-2].

    Args:
        problem: of one image.
        x: its fit, (1, Q).
        place: of the bodies, (C, 2) [arcsec].
    """
    grid = problem.coarse
    theta, slope = problem.positions(grid), Brightness(problem, x, grid).source_gradient
    weight = problem.whitening(problem.render(x))
    size = max(1, block(_POINTS_AT_ONCE, theta) // theta[0, 0].numel())
    if len(place) == 0:  # nothing is bright beside the galaxy, and no FFT is of nothing
        return x.new_zeros(1, 0, weight.numel())
    columns = [problem.over_noise(problem.bodies.strengths(p, theta, slope), weight) for p in place.split(size)]
    return problem.filtered(torch.cat(columns, dim=1))
