"""SRResNet."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from lensphys.networks.base import Depth, NetworkSettings, Residual, Width
from lensphys.networks.upsampling import prime_factors, shuffle_stage


class SRBlock(Residual):
    """conv3 - BN - PReLU - conv3 - BN, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.PReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )


class SRResNet(nn.Module):
    """conv9 - PReLU, residual blocks, conv3 - BN + long skip, pixel-shuffle stages, conv9.

    With 18 blocks, 1 526 869 parameters for one channel at x2.

    Args:
        in_channels: of the image.
        out_channels: of the output.
        channels: width (64).
        blocks: residual blocks (the paper has 16, S2 and ours 18).
        scale: any whole upscaling factor; one pixel-shuffle stage for each of its prime factors.

    Source: Ledig et al. 2017, arXiv:1609.04802, fig. 4.
    """

    upsampling = ("tail",)

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
        stages = [shuffle_stage(channels, p, nn.PReLU()) for p in prime_factors(scale)]
        self.tail = nn.Sequential(*stages, nn.Conv2d(channels, out_channels, 9, padding=4))

    def forward(self, image: Tensor) -> Tensor:
        """Return maps (B, out_channels, scale H, scale W) of images (B, in_channels, H, W)."""
        x = self.head(image)
        return self.tail(x + self.body(x))


class SRResNetSettings(NetworkSettings):
    """SRResNet with 18 blocks of 64 channels."""

    module = SRResNet
    name: Literal["srresnet"] = "srresnet"
    channels: Width = 64
    blocks: Depth = 18
