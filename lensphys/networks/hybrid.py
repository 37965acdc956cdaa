"""FSRCNN with equivariant features and an ordinary upscaling."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from lensphys.networks.base import Depth, NetworkSettings, Width
from lensphys.networks.equivariant import EquivariantFeatures
from lensphys.networks.fsrcnn import upscaling_deconvolution
from lensphys.networks.group_convolution import ORDER, Group


class HybridFSRCNN(nn.Module):
    """Equivariant features; a transposed convolution that may tell their orientations apart.

    The features keep the symmetry, the upscaling need not: for a PSF or a drizzle that is not symmetric. 16 473
    parameters for one channel at x2.

    Args:
        in_channels: of the image.
        out_channels: of the output.
        channels: fields of the features (28, with C4 112 maps).
        shrunk: fields of the mapping layers (6).
        layers: mapping layers (4).
        group: of the features, ``c4`` or ``d4``.
        scale: any whole upscaling factor.

    Source: as `EquivariantFSRCNN`.
    """

    upsampling = ("upsample",)

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        channels: int = 28,
        shrunk: int = 6,
        layers: int = 4,
        group: Group = "c4",
        scale: int = 2,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.features = EquivariantFeatures(in_channels, channels, shrunk, layers, group)
        self.upsample = upscaling_deconvolution(channels * ORDER[group], out_channels, scale)

    def forward(self, image: Tensor) -> Tensor:
        """Return maps (B, out_channels, scale H, scale W) of images (B, in_channels, H, W)."""
        return self.upsample(self.features(image).flatten(1, 2))


class HybridSettings(NetworkSettings):
    """FSRCNN with equivariant features (c4 or d4) and an ordinary transposed convolution."""

    module = HybridFSRCNN
    name: Literal["hybrid"] = "hybrid"
    channels: Width = 28
    shrunk: Width = 6
    layers: Depth = 4
    group: Group = "c4"
