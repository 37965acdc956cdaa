"""The residual CNN of S1."""

from __future__ import annotations

from typing import Literal

from torch import nn

from lensphys.networks.base import Depth, LongSkip, NetworkSettings, Residual, Width
from lensphys.networks.upsampling import shuffle_stage


class ResidualBlock(Residual):
    """conv3 - BN - ReLU - conv5 - BN - ReLU, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 5, padding=2, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )


class ResidualCNN(LongSkip):
    """conv3 - BN - ReLU, residual blocks, conv9 + long skip, pixel shuffle, conv3, BN: the SISR network of S1.

    899 974 parameters, S1's 0.9 million, for two outputs at x2.

    Args:
        in_channels: of the image.
        out_channels: of the output at the finer resolution.
        channels: width (S1: 64).
        blocks: residual blocks (S1: 3).
        scale: any whole upscaling factor (S1: 2).
    """

    def __init__(
        self, in_channels: int = 1, out_channels: int = 2, *, channels: int = 64, blocks: int = 3, scale: int = 2
    ) -> None:
        head = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        )
        body = nn.Sequential(
            *(ResidualBlock(channels) for _ in range(blocks)), nn.Conv2d(channels, channels, 9, padding=4)
        )
        upsample = shuffle_stage(channels, scale)
        tail = nn.Sequential(nn.Conv2d(channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels))
        super().__init__(scale, head=head, body=body, upsample=upsample, tail=tail)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


class ResidualSettings(NetworkSettings):
    """Residual CNN of the published physics method (S1): 64 channels, 3 blocks there; 16 and 2 train on two cores."""

    module = ResidualCNN
    name: Literal["residual"] = "residual"
    channels: Width = 64
    blocks: Depth = 3
