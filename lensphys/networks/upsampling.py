"""Upscaling by a whole factor in stages: convolution and pixel shuffle, one stage for each prime factor."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import nn


def prime_factors(n: int) -> list[int]:
    """Return the prime factors of n, smallest first.

    Example:
        >>> prime_factors(12)
        [2, 2, 3]
    """
    for p in range(2, math.isqrt(n) + 1):
        if n % p == 0:
            return [p, *prime_factors(n // p)]
    return [n] if n > 1 else []


def shuffle_stage(channels: int, factor: int, *after: nn.Module) -> nn.Sequential:
    """Return conv3 - pixel shuffle - ``after``, (B, C, H, W) -> (B, C, factor H, factor W).

    Source: Shi et al. 2016, arXiv:1609.05158.
    """
    return nn.Sequential(nn.Conv2d(channels, channels * factor**2, 3, padding=1), nn.PixelShuffle(factor), *after)


def shuffle_stages(channels: int, scale: int) -> nn.Sequential:
    """Return a `shuffle_stage` for each prime factor of ``scale``; no stage, the identity, for a scale of 1."""
    return nn.Sequential(*(shuffle_stage(channels, p) for p in prime_factors(scale)))


def shuffled(
    in_channels: int, channels: int, out_channels: int, scale: int, blocks: Iterable[nn.Module]
) -> dict[str, nn.Module]:
    """Return the parts of a `LongSkip` that widens by conv3, ends its blocks by conv3, shuffles, and narrows by conv3.

    Args:
        in_channels: of the image.
        channels: width.
        out_channels: of the output.
        scale: any whole upscaling factor.
        blocks: (B, channels, H, W) -> the same; made after the head, so that a seed gives the same weights.
    """
    return {
        "head": nn.Conv2d(in_channels, channels, 3, padding=1),
        "body": nn.Sequential(*blocks, nn.Conv2d(channels, channels, 3, padding=1)),
        "upsample": shuffle_stages(channels, scale),
        "tail": nn.Conv2d(channels, out_channels, 3, padding=1),
    }
