"""RCAN, in full and compact."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from lensphys.networks.base import Depth, LongSkip, NetworkSettings, Residual, Width
from lensphys.networks.upsampling import shuffled


class ChannelAttention(nn.Module):
    """Each map times a weight between 0 and 1 that the means of all maps decide on."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        squeezed = max(channels // reduction, 1)
        self.weight_of = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(squeezed, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted maps, (B, C, H, W)."""
        return x * self.weight_of(x)


class RCABlock(Residual):
    """conv3 - ReLU - conv3 - channel attention, added to its input."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            ChannelAttention(channels, reduction),
        )


class ResidualGroup(Residual):
    """Blocks with channel attention and conv3, added to their input."""

    def __init__(self, channels: int, blocks: int, reduction: int) -> None:
        super().__init__(
            *(RCABlock(channels, reduction) for _ in range(blocks)), nn.Conv2d(channels, channels, 3, padding=1)
        )


class RCAN(LongSkip):
    """conv3, residual groups, conv3 + long skip, pixel-shuffle stages, conv3.

    Parameters for one channel at x2: 15 442 337 in full (15 444 643 for three; the paper's "about 16 M" are 15 592 355
    at x4), 2 306 413 compact. The paper's shift by the mean colour of its photographs is left out.

    Args:
        in_channels: of the image.
        out_channels: of the output.
        channels: width (64).
        groups: residual groups (10).
        blocks: blocks with channel attention in a group (20).
        reduction: by how much the channel attention squeezes the channels (16).
        scale: any whole upscaling factor; one pixel-shuffle stage for each of its prime factors.

    Source: Zhang et al. 2018, arXiv:1807.02758, fig. 2 to 4.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        channels: int = 64,
        groups: int = 10,
        blocks: int = 20,
        reduction: int = 16,
        scale: int = 2,
    ) -> None:
        inner = (ResidualGroup(channels, blocks, reduction) for _ in range(groups))
        super().__init__(scale, **shuffled(in_channels, channels, out_channels, scale, inner))


class _Settings(NetworkSettings):
    """What the two sizes share."""

    module = RCAN
    channels: Width = 64
    groups: Depth
    blocks: Depth
    reduction: Width = 16


class RCANSettings(_Settings):
    """RCAN with 10 groups of 20 blocks with channel attention; 15.4 million parameters."""

    name: Literal["rcan"] = "rcan"
    groups: Depth = 10
    blocks: Depth = 20


class CompactRCANSettings(_Settings):
    """RCAN with 3 groups of 9 blocks; 2.3 million parameters, as the compact one of S1, whose form is not published."""

    name: Literal["rcan_compact"] = "rcan_compact"
    groups: Depth = 3
    blocks: Depth = 9
