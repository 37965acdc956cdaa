"""SRResNet."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import PositiveInt
from torch import Tensor, nn

from lensphys.settings import Strict


class SRBlock(nn.Module):
    """conv3 - BN - PReLU - conv3 - BN, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.PReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return x + body(x), (B, C, H, W)."""
        return x + self.body(x)


class SRResNet(nn.Module):
    """conv9 - PReLU, residual blocks, conv3 - BN + long skip, pixel-shuffle stages, conv9.

    Args:
        in_channels: of the image.
        out_channels: of the output.
        channels: width (64).
        blocks: residual blocks (the paper has 16, S2 and ours 18).
        scale: any whole upscaling factor; one pixel-shuffle stage for each of its prime factors.

    Source: Ledig et al. 2017, arXiv:1609.04802, fig. 4.
    """

    def __init__(
        self, in_channels: int = 1, out_channels: int = 1, *, channels: int = 64, blocks: int = 18, scale: int = 2
    ) -> None:
        super().__init__()
        self.scale = scale
        self.head = nn.Sequential(nn.Conv2d(in_channels, channels, 9, padding=4), nn.PReLU())
        self.body = nn.Sequential(
            *(SRBlock(channels) for _ in range(blocks)),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        stages = [
            nn.Sequential(nn.Conv2d(channels, channels * p**2, 3, padding=1), nn.PixelShuffle(p), nn.PReLU())
            for p in prime_factors(scale)
        ]
        self.tail = nn.Sequential(*stages, nn.Conv2d(channels, out_channels, 9, padding=4))

    def forward(self, image: Tensor) -> Tensor:
        """Return maps (B, out_channels, scale H, scale W) of images (B, in_channels, H, W)."""
        x = self.head(image)
        return self.tail(x + self.body(x))


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


class SRResNetSettings(Strict):
    """SRResNet with 18 blocks of 64 channels."""

    name: Literal["srresnet"]
    channels: PositiveInt = 64
    blocks: PositiveInt = 18

    def build(self, out_channels: int, scale: int) -> SRResNet:
        """Return the network."""
        return SRResNet(1, out_channels, channels=self.channels, blocks=self.blocks, scale=scale)
