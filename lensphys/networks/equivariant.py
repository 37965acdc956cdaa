"""FSRCNN of group convolutions: a turned image gives the turned answer."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from lensphys.networks.base import Depth, NetworkSettings, Width
from lensphys.networks.fsrcnn import fine_kernel
from lensphys.networks.group_convolution import Group, GroupConv, LiftingConv, UpscalingProjection


class EquivariantFeatures(nn.Sequential):
    """The features of FSRCNN as group convolutions: image (B, C, H, W) -> fields (B, d, G, H, W).

    Each is followed by PReLU, with one slope for all maps of a field.
    """

    def __init__(self, in_channels: int, channels: int, shrunk: int, layers: int, group: Group) -> None:
        super().__init__(LiftingConv(in_channels, channels, 5, group), nn.PReLU(channels))
        for before, after, kernel in [(channels, shrunk, 1), *[(shrunk, shrunk, 3)] * layers, (shrunk, channels, 1)]:
            self.extend([GroupConv(before, after, kernel, group), nn.PReLU(after)])


class EquivariantFSRCNN(nn.Module):
    """FSRCNN whose layers, the upscaling too, are equivariant to turns by 90 degrees, and to reflections for D4.

    Half as many fields as FSRCNN has channels, each with a map for every element of the group: with C4, the mapping
    layers have as many weights as FSRCNN's (5 184) and twice the maps. 10 201 parameters for one channel at x2, with D4
    16 729.

    Args:
        in_channels: of the image.
        out_channels: of the output: each is a scalar on the sky. A tangential deflection changes its sign in a mirror,
            so take C4 where this is the backbone of the deflection network.
        channels: fields of the features (28).
        shrunk: fields of the mapping layers (6).
        layers: mapping layers (4).
        group: ``c4`` or ``d4``.
        scale: any whole upscaling factor.

    Source: Dong, Loy & Tang 2016, arXiv:1608.00367; Cohen & Welling 2016, arXiv:1602.07576.
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
        self.upsample = self.upscaling(channels, out_channels, scale, group)

    @staticmethod
    def upscaling(channels: int, out_channels: int, scale: int, group: Group) -> nn.Module:
        """Return the last layer: fields (B, channels, G, H, W) -> maps (B, out_channels, scale H, scale W)."""
        return UpscalingProjection(channels, out_channels, fine_kernel(scale), scale, group)

    def forward(self, image: Tensor) -> Tensor:
        """Return maps (B, out_channels, scale H, scale W) of images (B, in_channels, H, W)."""
        return self.upsample(self.features(image))


class GroupSettings(NetworkSettings):
    """What FSRCNNs with equivariant features share: see `EquivariantFSRCNN`."""

    channels: Width = 28
    shrunk: Width = 6
    layers: Depth = 4
    group: Group = "c4"


class EquivariantSettings(GroupSettings):
    """FSRCNN of group convolutions: turns (c4), or turns and reflections (d4), of the image turn the answer."""

    module = EquivariantFSRCNN
    name: Literal["equivariant"] = "equivariant"
