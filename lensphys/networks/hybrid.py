"""FSRCNN with equivariant features and an ordinary upscaling."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from lensphys.networks.equivariant import EquivariantFSRCNN, GroupSettings
from lensphys.networks.fsrcnn import upscaling_deconvolution
from lensphys.networks.group_convolution import ORDER, Group


class HybridFSRCNN(EquivariantFSRCNN):
    """Equivariant features; a transposed convolution that may tell their orientations apart.

    The features keep the symmetry, the upscaling need not: for a PSF or a drizzle that is not symmetric. 16 473
    parameters for one channel at x2.

    Arguments and source as of `EquivariantFSRCNN`.
    """

    @staticmethod
    def upscaling(channels: int, out_channels: int, scale: int, group: Group) -> nn.Module:
        """Return the last layer: maps (B, channels G, H, W) -> maps (B, out_channels, scale H, scale W)."""
        return upscaling_deconvolution(channels * ORDER[group], out_channels, scale)

    def forward(self, image: Tensor) -> Tensor:
        """Return maps (B, out_channels, scale H, scale W) of images (B, in_channels, H, W)."""
        return self.upsample(self.features(image).flatten(1, 2))


class HybridSettings(GroupSettings):
    """FSRCNN with equivariant features (c4 or d4) and an ordinary transposed convolution."""

    module = HybridFSRCNN
    name: Literal["hybrid"] = "hybrid"
