"""Local contrast: an image as NIQE and the ranker see it, faint texture on the sky no smaller than that of the arcs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PEAK = 255.0  # of the images that the constant below was chosen for
_CONSTANT = 1.0
_LEAST = 1e-12  # variance: the slope of a square root is infinite at zero


def normalised_pixels(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return (I - mu) / (sigma + 1) and sigma, mu and sigma being local in a Gaussian window of 7 x 7 pixels.

    Args:
        image: (B, 1, H, W), 0 to 255.

    Returns:
        each (B, 1, H, W); the MSCN coefficients (mean subtracted, contrast normalised), the local standard deviation.

    Source: Mittal, Soundararajan & Bovik 2013, IEEE Signal Processing Letters 20, 209, eq. 1 to 3.
    """
    x = torch.arange(-3, 4, dtype=image.dtype, device=image.device)
    window = torch.exp(-0.5 * (x / (7 / 6)) ** 2)
    window = window / window.sum()

    def local_mean(y: Tensor) -> Tensor:
        y = F.pad(y, (3, 3, 3, 3), mode="replicate")
        return F.conv2d(F.conv2d(y, window[None, None, :, None]), window[None, None, None, :])

    mean = local_mean(image)
    deviation = (local_mean(image**2) - mean**2).abs().clamp(min=_LEAST).sqrt()
    return (image - mean) / (deviation + _CONSTANT), deviation
