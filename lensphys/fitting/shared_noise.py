"""The noise that neighbouring pixels share, measured in the sky of an image."""

from __future__ import annotations

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from lensphys.basics.settings import Strict
from lensphys.fitting.problem import LensProblem
from lensphys.fitting.source import Fitted


class SharedNoise(Strict):
    """How the noise of the sky is compared with the error map.

    Drizzled and resampled images have noise that neighbours share: what is looked for, larger than a pixel, stands out
    of it less than the error map says. Other maps are too large.

    Args:
        bright: signal-to-noise of a 3 x 3 mean that makes a pixel bright; neither those nor their neighbours are sky.
        overstated: variance of the sky over the error map's, of 3 x 3 means and of single pixels, below which the map's
            scale is the sky's; above it and below 1 the map counts as right.
        unlike: the same, below which the map is no noise map of this image, and left to the verdict.
        scatter: by how much of its own scatter the variance must exceed that of white noise.
        least: pixels of sky without which there is nothing to measure.
    """

    bright: PositiveFloat = 5.0
    overstated: PositiveFloat = 0.5
    unlike: PositiveFloat = 0.04
    scatter: PositiveFloat = 3.0
    least: PositiveInt = 100

    def factor(self, problem: LensProblem, x: Tensor) -> Tensor:
        """Return how many times as large as the error map says the variance of 3 x 3 means of the sky is, (B,).

        1 where the excess is within its own scatter, or where it is less and that of single pixels is not: neighbours
        that sharpening made unlike.

        Args:
            problem: images and noise.
            x: a smooth fit, (B, Q).
        """
        observation = problem.observation
        shown = problem.shown(x)
        residual = (observation.image - observation.noise.expected(shown)) * problem.inverse_sigma
        lensed = problem.without_front(shown, x)
        light = torch.maximum(problem.arcs.significance(problem.inverse_sigma), 3 * lensed * problem.inverse_sigma)
        sky = (1 - max_pool2d((light > self.bright).to(residual), 9, stride=1, padding=4)) * (problem.inverse_sigma > 0)
        whole = (avg_pool2d(sky, 3, stride=1) > 0.999).to(residual)
        means = 9 * avg_pool2d(residual * sky, 3, stride=1).square() * whole
        counted = whole.sum((1, 2, 3))
        factor = means.sum((1, 2, 3)) / counted.clamp(min=1)
        pixel = (residual * sky).square().sum((1, 2, 3)) / sky.sum((1, 2, 3)).clamp(min=1)
        factor = torch.where(factor < 1, factor.maximum(pixel.clamp(max=1)), factor)
        too_large = (factor < self.overstated) & (factor > self.unlike)
        wrong = (factor - 1 > self.scatter * (18 / counted.clamp(min=1)).sqrt()) | too_large
        return torch.where(wrong & (counted > self.least), factor, 1.0)

    def counted(self, smooth: Fitted) -> Fitted:
        """Return a smooth fit with the noise of its sky: that which neighbours share, as an effective variance."""
        factor = self.factor(smooth.problem, smooth.x)
        if not bool((factor != 1).any()):
            return smooth
        return Fitted.at(smooth.problem.inflated(factor), smooth.x)
