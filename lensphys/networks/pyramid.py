"""The compact deflection backbone: an encoder-decoder that sees the whole image and trains on two cores."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lensphys.networks.base import Depth, NetworkSettings, Width


class ConvBlock(nn.Sequential):
    """Two times conv3 - GroupNorm - GELU; the first one may halve the image."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        layers: list[nn.Module] = []
        for channels, step in ((in_channels, stride), (out_channels, 1)):
            layers += [nn.Conv2d(channels, out_channels, 3, stride=step, padding=1)]
            layers += [nn.GroupNorm(math.gcd(8, out_channels), out_channels), nn.GELU()]
        super().__init__(*layers)


class PyramidCNN(nn.Module):
    """Encoder-decoder with skips, coordinate channels and bilinear upsampling.

    A deflection is smooth and set by the whole ring, so most of the work happens on coarse maps; the coordinates tell a
    pixel where it stands about the lens, which a plain CNN with the reach of S1's (25 pixels) cannot know. 493 522
    parameters for two outputs.

    Args:
        in_channels: of the image.
        out_channels: of the output at the finer resolution.
        channels: width of the finest level; it doubles at each of the first two halvings.
        levels: how often the image is halved.
        scale: any whole upscaling factor.
    """

    upsampling = ("up", "tail")

    def __init__(
        self, in_channels: int = 1, out_channels: int = 2, *, channels: int = 16, levels: int = 4, scale: int = 2
    ) -> None:
        super().__init__()
        self.scale = scale
        widths = [channels * 2 ** min(level, 2) for level in range(levels + 1)]
        self.first = ConvBlock(in_channels + 2, widths[0])
        self.down = nn.ModuleList(ConvBlock(a, b, stride=2) for a, b in pairwise(widths))
        self.whole = nn.Linear(widths[-1], widths[-1])
        self.up = nn.ModuleList(ConvBlock(b + a, a) for a, b in pairwise(widths))
        self.tail = nn.Conv2d(widths[0], out_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return maps (B, out_channels, scale H, scale W) of images (B, in_channels, H, W)."""
        maps = [self.first(torch.cat([image, coordinates(image)], dim=1))]
        for block in self.down:
            maps.append(block(maps[-1]))
        x = maps.pop()
        x = x + self.whole(x.mean((-2, -1)))[:, :, None, None]
        for block in reversed(self.up):
            skip = maps.pop()
            x = block(torch.cat([F.interpolate(x, size=skip.shape[-2:], mode="bilinear"), skip], dim=1))
        fine = [n * self.scale for n in image.shape[-2:]]
        return F.interpolate(self.tail(x), size=fine, mode="bicubic")


def coordinates(image: Tensor) -> Tensor:
    """Return x and y of each pixel, (B, 2, H, W), -1 and 1 at the ends of the longer side."""
    height, width = image.shape[-2:]
    half = max(height, width) / 2
    y = (torch.arange(height, dtype=image.dtype, device=image.device) - (height - 1) / 2) / half
    x = (torch.arange(width, dtype=image.dtype, device=image.device) - (width - 1) / 2) / half
    return torch.stack(torch.meshgrid(x, y, indexing="xy")).expand(len(image), -1, -1, -1)


class PyramidSettings(NetworkSettings):
    """Compact encoder-decoder that sees the whole ring; trains on two cores."""

    module = PyramidCNN
    name: Literal["pyramid"] = "pyramid"
    channels: Width = 16
    levels: Depth = 4
