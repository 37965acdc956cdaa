"""RDN."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lensphys.networks.base import Depth, LongSkip, NetworkSettings, Width
from lensphys.networks.upsampling import shuffle_stages


class ResidualDenseBlock(nn.Module):
    """conv3 - ReLU layers, each on all maps before it; local feature fusion by conv1, added to the input."""

    def __init__(self, channels: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(channels + i * growth, growth, 3, padding=1) for i in range(layers))
        self.fusion = nn.Conv2d(channels + layers * growth, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return x + fusion of all layers, (B, C, H, W)."""
        maps = x
        for layer in self.layers:
            maps = torch.cat([maps, torch.relu(layer(maps))], dim=1)
        return x + self.fusion(maps)


class DenseFeatures(nn.Module):
    """conv3, residual dense blocks, and the fusion of what each of them gives: conv1, conv3."""

    def __init__(self, channels: int, growth: int, blocks: int, layers: int) -> None:
        super().__init__()
        self.shallow = nn.Conv2d(channels, channels, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualDenseBlock(channels, growth, layers) for _ in range(blocks))
        self.fusion = nn.Sequential(
            nn.Conv2d(blocks * channels, channels, 1), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the fused features (B, C, H, W)."""
        x = self.shallow(x)
        maps = [x := block(x) for block in self.blocks]
        return self.fusion(torch.cat(maps, dim=1))


class RDN(LongSkip):
    """Two conv3, residual dense blocks, global feature fusion of all blocks + long skip, pixel shuffle, conv3.

    With D = 16, C = 8, G = 64, 22 121 089 parameters for one channel at x2 (22 123 395 for three).

    Args:
        in_channels: of the image.
        out_channels: of the output.
        channels: width between the blocks (G0 = 64).
        growth: maps that a layer adds (G = 64).
        blocks: residual dense blocks (D = 16).
        layers: convolutions a block (C = 8).
        scale: any whole upscaling factor; one pixel-shuffle stage for each of its prime factors.

    Source: Zhang et al. 2018, arXiv:1802.08797, fig. 2 and 3.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        channels: int = 64,
        growth: int = 64,
        blocks: int = 16,
        layers: int = 8,
        scale: int = 2,
    ) -> None:
        super().__init__(
            scale,
            head=nn.Conv2d(in_channels, channels, 3, padding=1),
            body=DenseFeatures(channels, growth, blocks, layers),
            upsample=shuffle_stages(channels, scale),
            tail=nn.Conv2d(channels, out_channels, 3, padding=1),
        )


class RDNSettings(NetworkSettings):
    """RDN with 16 residual dense blocks of 8 layers that add 64 channels each; 22 million parameters."""

    module = RDN
    name: Literal["rdn"] = "rdn"
    channels: Width = 64
    growth: Width = 64
    blocks: Depth = 16
    layers: Depth = 8
