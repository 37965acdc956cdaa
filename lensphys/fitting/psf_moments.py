"""A PSF whose second moments are not those that are said: sub-halos are believed only beside it."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.nn.functional import pad

from lensphys.basics.settings import Strict
from lensphys.fitting.broad_light import BroadLight
from lensphys.fitting.newton import Optimum, Stop, minimised
from lensphys.fitting.source import Fitted
from lensphys.observation.validity import psf_width


class PSFMoments(Strict):
    """How far the PSF's second moments, its width and its elongation, may be from those that are said.

    What a PSF of another width leaves of arcs is what sub-halos explain. To first order in its moments that is the
    model's own image, twice differentiated, and it is integrated over.

    Args:
        sigma: standard deviation of each moment, in units of the PSF's variance: twice that of its width.
        share: of the evidence that sub-halos gain, which the moments must promise for a smooth lens to be tried.
    """

    sigma: PositiveFloat = 0.1
    share: NonNegativeFloat = 0.25

    def integrated(self, fit: Fitted) -> Fitted:
        """Return a fit where it is, with the moments of its PSF integrated over."""
        problem = fit.problem
        modes = self.modes(fit)
        broad = BroadLight(modes if problem.broad is None else torch.cat([problem.broad.modes, modes], dim=1))
        problem = replace(problem, broad=broad)
        return replace(fit, problem=problem, end=Optimum(problem, fit.x))

    def wider(self, fit: Fitted) -> Tensor:
        """Return by what share of its width the PSF is likely to be wider than said, (B,): of an `integrated` fit."""
        problem = fit.problem
        if problem.broad is None:
            raise ValueError("nothing is integrated over in this fit: ask one that `integrated` returned")
        rest = problem.observation.image - problem.observation.noise.expected(problem.render(fit.x))
        xx, yy, _ = problem.broad.coefficients(rest, problem.inverse_sigma)[:, -3:].unbind(1)
        return self.sigma * (xx + yy) / 4  # half of the mean of both

    def modes(self, fit: Fitted) -> Tensor:
        """Return what one standard deviation of each moment changes in the arcs, (B, 3, H, W): xx, yy, xy.

        A galaxy in front makes good for its own, as its Gaussians take any width.
        """
        problem = fit.problem
        variance = psf_width(problem.observation).square() / (4 * math.pi)  # of a Gaussian that is as wide [pixels^2]
        arcs = replace(problem, broad=None).without_front(problem.render(fit.x), fit.x)
        clean = pad(arcs, (1, 1, 1, 1), mode="replicate")
        middle = clean[..., 1:-1, 1:-1]
        xx = clean[..., 1:-1, 2:] - 2 * middle + clean[..., 1:-1, :-2]
        yy = clean[..., 2:, 1:-1] - 2 * middle + clean[..., :-2, 1:-1]
        xy = (clean[..., 2:, 2:] - clean[..., 2:, :-2] - clean[..., :-2, 2:] + clean[..., :-2, :-2]) / 4
        return self.sigma * variance[:, None, None, None] * torch.cat([xx / 2, yy / 2, xy], dim=1)


def promised(fit: Fitted, off: Fitted) -> Tensor:
    """Return what the moments promise to gain in ln of the evidence, (B,).

    Args:
        fit: at its optimum.
        off: the same, `PSFMoments.integrated`.
    """
    return off.evidence + off.end.normal.promise - fit.evidence - fit.end.normal.promise


def optimum(off: Fitted, stop: Stop) -> Fitted:
    """Return the optimum that is nearest to an `integrated` fit."""
    return replace(off, end=minimised(off.problem, off.x, stop, start=off.end.normal))
