"""The discriminator of SRGAN."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from lensphys.basics.settings import Strict
from lensphys.networks.base import Depth, Width


class Discriminator(nn.Module):
    """conv3 - LeakyReLU, then pairs of conv3 - BN - LeakyReLU of stride 2 and 1, global mean, two dense layers.

    Strides halve the image and double the width, up to eight times the first. The published network flattens a 96 px
    patch; the global mean makes it fit images of any size from 16 px on.

    Args:
        channels: of the first layer (64).
        stages: how often the image is halved (4).

    Source: Ledig et al. 2017, arXiv:1609.04802, fig. 4.
    """

    def __init__(self, channels: int = 64, stages: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, padding=1), nn.LeakyReLU(0.2)]
        width = channels
        for stage in range(stages):
            layers += _block(width, width, stride=2)
            if stage < stages - 1:
                wider = min(2 * width, 8 * channels)
                layers += _block(width, wider, stride=1)
                width = wider
        self.features = nn.Sequential(*layers)
        self.decision = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Linear(2 * width, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return how real images (B, 1, H, W) look, as logits (B, 1)."""
        return self.decision(self.features(image))


def _block(width: int, wider: int, *, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(width, wider, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(wider),
        nn.LeakyReLU(0.2),
    ]


class DiscriminatorSettings(Strict):
    """SRGAN's discriminator."""

    name: Literal["srgan"] = "srgan"
    channels: Width = 64
    stages: Depth = 4

    def build(self) -> Discriminator:
        """Return the network with fresh weights."""
        return Discriminator(self.channels, self.stages)
