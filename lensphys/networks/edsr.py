"""EDSR."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat
from torch import nn

from lensphys.networks.base import Depth, LongSkip, NetworkSettings, Residual, Width
from lensphys.networks.upsampling import shuffled


class EDSRBlock(Residual):
    """conv3 - ReLU - conv3, scaled and added to its input."""

    def __init__(self, channels: int, residual_scaling: float) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            scaling=residual_scaling,
        )


class EDSR(LongSkip):
    """conv3, residual blocks without normalisation, conv3 + long skip, pixel-shuffle stages, conv3.

    Parameters: 1 367 553 for one channel at x2 (baseline). For three channels at x4, as the paper counts, 1 517 571
    (its 1.5 M) and, with 32 blocks of 256 channels and residual scaling 0.1, 43 089 923 (its 43 M). The paper's shift
    by the mean colour of its photographs is left out.

    Args:
        in_channels: of the image.
        out_channels: of the output.
        channels: width (64; 256 for the full model).
        blocks: residual blocks (16; 32 for the full model).
        residual_scaling: what a block's output is multiplied by (1; 0.1 for the full model).
        scale: any whole upscaling factor; one pixel-shuffle stage for each of its prime factors.

    Source: Lim et al. 2017, arXiv:1707.02921, fig. 3 and table 1.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        channels: int = 64,
        blocks: int = 16,
        residual_scaling: float = 1.0,
        scale: int = 2,
    ) -> None:
        inner = (EDSRBlock(channels, residual_scaling) for _ in range(blocks))
        super().__init__(scale, **shuffled(in_channels, channels, out_channels, scale, inner))


class EDSRSettings(NetworkSettings):
    """EDSR, the baseline of 16 blocks of 64 channels; the full model is 32 of 256 with residual scaling 0.1."""

    module = EDSR
    name: Literal["edsr"] = "edsr"
    channels: Width = 64
    blocks: Depth = 16
    residual_scaling: PositiveFloat = 1.0
