"""A smooth lens with a Sersic source: where every fit begins."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from lensphys.basics.settings import Positives, Strict
from lensphys.fitting.newton import Stop, minimised
from lensphys.fitting.problem import LensProblem
from lensphys.fitting.remains import poor
from lensphys.fitting.shared_noise import SharedNoise
from lensphys.fitting.source import Fitted, Groups, as_it_is, parted
from lensphys.fitting.starts import START_FACTORS, arc_centre, multistart
from lensphys.fitting.window import Window, seen_whole

_STEPS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


class SmoothFit(Strict):
    """How the smooth lens with a Sersic source of each image is found.

    Args:
        starts: how many are optimised for each image, at most as many as ``factors``.
        steps: at most so many Newton steps a start.
        factors: Einstein radii to start from [radius of the arcs].
        sky: how its noise is compared with the error map.
        off_centre: how far from the middle of the field the centre of the arcs is, for a badly explained image to be
            fitted about it as well [arcsec],
        wander: and about places so far from it on each side [arcsec]: it is the source that arcs are centred on.
        window: pixels that are fitted.
    """

    starts: PositiveInt = 4
    steps: PositiveInt = 30
    factors: Positives = START_FACTORS
    sky: SharedNoise = SharedNoise()
    off_centre: NonNegativeFloat = 0.3
    wander: NonNegativeFloat = 0.1
    window: Window = Window()

    def __call__(self, problem: LensProblem, x: Tensor | None = None) -> Fitted:
        """Return the fit, with the noise of the sky that neighbouring pixels share.

        Args:
            problem: of a smooth lens with a Sersic source.
            x: where to start, (B, P); several starts if None.
        """
        return self.sky.counted(self._anywhere(problem) if x is None else self._from(problem, x))

    def recentred(self, smooth: Fitted) -> Groups:
        """Return the fits; of a lens far from the middle of the field, that about the centre of its arcs."""
        if smooth.problem.model.lens_light:
            return as_it_is(smooth)
        far = (arc_centre(smooth.problem).norm(dim=1) > self.off_centre) & poor(smooth)
        return parted(
            smooth, far, lambda some: [(row, self._about_its_arcs(one)) for row, one in some.apart()], as_it_is
        )

    def _anywhere(self, problem: LensProblem) -> Fitted:
        return self._finished(problem, self._started(problem))

    def _started(self, problem: LensProblem) -> Tensor:
        """Where the best start ends, (B, P), with each pixel at its centre."""
        return multistart(self.window.middle(problem).sampled(1), self.starts, self.steps, self.factors)

    def _finished(self, problem: LensProblem, x: Tensor) -> Fitted:
        """The optimum from a vector (B, P)."""
        inner = self.window.middle(problem)
        fitted = finished(inner, x, self.steps)
        return fitted if inner is problem else seen_whole(fitted, problem)

    def _from(self, problem: LensProblem, x: Tensor) -> Fitted:
        """The fit from a state, or from other starts where that explains an image badly: a false minimum."""
        fit = self._finished(problem, x)
        rows = poor(fit).nonzero()[:, 0]
        if len(rows) == 0:
            return fit
        other = self._anywhere(problem[rows])
        better = (other.end.cost < fit.rows(rows).end.cost).nonzero()[:, 0]
        if len(better) == 0:
            return fit
        x = fit.x.index_copy(0, rows[better], other.x[better])
        noise = fit.problem.observation.noise.merged(rows[better], other.problem[better].observation.noise)
        observation = replace(fit.problem.observation, noise=noise)
        sigma = fit.problem.inverse_sigma.index_copy(0, rows[better], other.problem.inverse_sigma[better])
        return Fitted.at(replace(fit.problem, observation=observation, inverse_sigma=sigma), x)

    def _about_its_arcs(self, smooth: Fitted) -> Fitted:
        """The fit of one image, about the centre of its arcs where that is better."""
        centre = arc_centre(smooth.problem)[0]
        places = (centre + _STEPS.to(centre) * self.wander).tolist()
        tried = [smooth.problem.centred_on(*place) for place in places]
        found = [self._started(problem) for problem in tried]
        costs = [float(problem.sampled(1).cost(x)) for problem, x in zip(tried, found, strict=True)]
        best = costs.index(min(costs))
        other = self.sky.counted(self._finished(tried[best], found[best]))
        return other if bool(other.end.cost < smooth.end.cost) else smooth


def smooth_fit(problem: LensProblem, *, starts: int = 4, steps: int = 30, factors: Positives = START_FACTORS) -> Fitted:
    """Return the best smooth lens with a Sersic source, from several starts with each pixel at its centre.

    Args:
        problem: without sub-halos or fields.
        starts: how many starts are optimised for each image, at most as many as ``factors``.
        steps: at most so many Newton steps a start.
        factors: Einstein radii to start from [radius of the arcs].
    """
    return finished(problem, multistart(problem.sampled(1), starts, steps, factors), steps)


def finished(problem: LensProblem, x: Tensor, steps: int) -> Fitted:
    """Return the optimum from a vector (B, P), with the noise variance of the model renewed twice."""
    for _ in range(2):
        problem = problem.renewed(x)
        end = minimised(problem, x, Stop(steps))
        x = end.x
    return Fitted(problem, end)


def distinct(problem: LensProblem, x: Tensor, apart: float) -> Tensor:
    """Return those of some vectors (n, P) of one image whose mass is not that of one before them, (m, P)."""
    masses = torch.tensor([name.split(".")[0] in problem.model.mass for name in problem.model.names], device=x.device)
    kept: list[int] = []
    for i, own in enumerate(x[:, masses]):
        if all(float((own - x[j, masses]).abs().amax()) > apart for j in kept):
            kept.append(i)
    return x[kept]
