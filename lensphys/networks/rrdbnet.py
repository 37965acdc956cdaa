"""RRDBNet, the generator of ESRGAN."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from lensphys.networks.base import Depth, LongSkip, NetworkSettings, Residual, Width
from lensphys.networks.upsampling import prime_factors

_SLOPE = 0.2  # of every LeakyReLU
_LAYERS = 5  # convolutions a dense block
_DENSE_BLOCKS = 3  # in a residual-in-residual block


def _small(in_channels: int, out_channels: int) -> nn.Conv2d:
    """conv3 that starts small, as in the paper: so a deep network without normalisation trains."""
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    nn.init.kaiming_normal_(conv.weight, a=_SLOPE)
    conv.weight.data.mul_(0.1)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


class DenseBlock(nn.Module):
    """Five conv3, each on all maps before it, LeakyReLU between them; scaled and added to the input."""

    def __init__(self, channels: int, growth: int, residual_scaling: float) -> None:
        super().__init__()
        self.residual_scaling = residual_scaling
        widths = [growth] * (_LAYERS - 1) + [channels]
        self.layers = nn.ModuleList(_small(channels + i * growth, width) for i, width in enumerate(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Return x + residual_scaling * body(x), (B, C, H, W)."""
        maps = x
        *inner, last = self.layers
        for layer in inner:
            maps = torch.cat([maps, nn.functional.leaky_relu(layer(maps), _SLOPE)], dim=1)
        return x + self.residual_scaling * last(maps)


class RRDB(Residual):
    """Three dense blocks in a row, scaled and added to their input."""

    def __init__(self, channels: int, growth: int, residual_scaling: float) -> None:
        super().__init__(
            *(DenseBlock(channels, growth, residual_scaling) for _ in range(_DENSE_BLOCKS)), scaling=residual_scaling
        )


class RRDBNet(LongSkip):
    """conv3, residual-in-residual dense blocks, conv3 + long skip, nearest-neighbour stages with conv3, two conv3.

    With 23 blocks, 16 658 753 parameters for one channel at x2; 16 697 987 for three at x4, the paper's factor (it
    gives no figure).

    Args:
        in_channels: of the image.
        out_channels: of the output.
        channels: width between the blocks (64).
        growth: maps that a layer adds (32).
        blocks: residual-in-residual dense blocks (23).
        residual_scaling: what the output of each residual part is multiplied by (0.2).
        scale: any whole upscaling factor; one nearest-neighbour stage for each of its prime factors.

    Source: Wang et al. 2018, arXiv:1809.00219, fig. 3 and 4, sec. 3.1.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        channels: int = 64,
        growth: int = 32,
        blocks: int = 23,
        residual_scaling: float = 0.2,
        scale: int = 2,
    ) -> None:
        head = nn.Conv2d(in_channels, channels, 3, padding=1)
        body = nn.Sequential(
            *(RRDB(channels, growth, residual_scaling) for _ in range(blocks)),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        upsample = nn.Sequential()
        for p in prime_factors(scale):
            conv = nn.Conv2d(channels, channels, 3, padding=1)
            upsample.append(nn.Sequential(nn.Upsample(scale_factor=p), conv, nn.LeakyReLU(_SLOPE)))
        tail = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(channels, out_channels, 3, padding=1),
        )
        super().__init__(scale, head=head, body=body, upsample=upsample, tail=tail)


class RRDBNetSettings(NetworkSettings):
    """RRDBNet, the generator of ESRGAN, with 23 blocks of 64 channels; 16.7 million parameters."""

    module = RRDBNet
    name: Literal["rrdbnet"] = "rrdbnet"
    channels: Width = 64
    growth: Width = 32
    blocks: Depth = 23
    residual_scaling: PositiveFloat = 0.2
