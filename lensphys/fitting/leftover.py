"""What the physics does not explain: the low-resolution residual, shrunk by its own signal-to-noise and upsampled."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from lensphys.observation import Observation
from lensphys.tracing.grid import PixelGrid


@dataclass(frozen=True)
class ResidualSignal:
    """The part of a residual that is signal.

    Args:
        share: of each pixel's residual that is taken for signal, (B, 1, H, W), 0 to 1.
        signal: (B, 1, H, W) [flux per pixel].
        variance: of ``signal`` about the truth, (B, 1, H, W) [flux^2].
    """

    share: Tensor
    signal: Tensor
    variance: Tensor

    def upsampled(self, observation: Observation, grid: PixelGrid) -> tuple[Tensor, Tensor]:
        """Return signal and standard deviation on a finer grid, each (B, 1, H', W') [flux per pixel of that grid]."""
        signal = replace(observation, image=self.signal).interpolated(grid)
        sigma = replace(observation, image=self.variance.sqrt()).interpolated(grid, mode="bilinear")
        return signal, sigma


def residual_signal(observation: Observation, clean: Tensor, reach: int = 2) -> ResidualSignal:
    """Return what of y - E[model] stands out of the noise, by block thresholding.

    In a window of L = (2 reach + 1)^2 pixels (those of them that count) the residual is multiplied by
    (1 - lambda / chi^2)+, chi^2 the window's mean squared residual in units of the noise: the Wiener factor estimated
    from the data, with lambda - ln lambda = 1 + 2 ln(N) / L so that pure noise passes in none of the N pixels' windows.
    Where the model is right nothing is added; nor where the noise is only estimated and the model is dark.

    Args:
        observation: images (B, 1, H, W).
        clean: their models, (B, 1, H, W) [flux per pixel].
        reach: pixels from the middle of the window to its edge.

    Source: Cai 1999 (BlockJS), with the threshold for any block size of Cai & Silverman 2001.
    """
    residual = (observation.image - observation.noise.expected(clean)) * observation.weight
    variance = observation.noise.variance(clean)
    pad, window = (reach,) * 4, 2 * reach + 1

    def local(x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, pad), window, stride=1)

    unmasked = local(observation.weight).clamp(min=1 / window**2)
    chi2 = local(residual.square() / variance) / unmasked
    threshold = _threshold(observation.weight[0].numel(), window**2 * unmasked)
    share = (1 - threshold / chi2.clamp(min=1e-6)).clamp(min=0) * observation.weight
    if not observation.noise.known:
        share = share * (clean > 2 * variance.sqrt())
    return ResidualSignal(share, share * residual, share * variance + (1 - share).square() * share * residual.square())


def _threshold(pixels: int, unmasked: Tensor) -> Tensor:
    """Solve lambda - ln lambda = 1 + 2 ln(N) / L for lambda > 1, by fixed-point iteration (the slope is below 1).

    L is the number of unmasked pixels of each window: at the edge of the image or of a mask there are fewer.
    """
    right = 1 + 2 * math.log(max(pixels, 2)) / unmasked
    value = 2 * right
    for _ in range(50):
        value = right + value.log()
    return value
