"""The amortised fit: one look at the image gives the lens, the source and a correction to the potential."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lensphys.basics.settings import Strict
from lensphys.networks.base import Width
from lensphys.networks.pyramid import ConvBlock, coordinates

CELLS = 4  # the image ends as so many squared


def halvings(planes: int, channels: int, levels: int) -> tuple[nn.Sequential, int]:
    """Return blocks that halve images so often, and how many maps they end with.

    Args:
        planes: of an image.
        channels: width of the first level; it doubles at each of the first two halvings.
        levels: how often the image is halved.
    """
    widths = [channels * 2 ** min(level, 2) for level in range(levels)]
    pairs = zip([planes, *widths[:-1]], widths, strict=True)
    return nn.Sequential(*(ConvBlock(a, b, stride=2) for a, b in pairs)), widths[-1]


def trunk(inputs: int, hidden: int) -> nn.Sequential:
    """Return two layers from all that was seen to what the heads read."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU())


class LensEncoder(nn.Module):
    """Image and instrument -> macro, source and psi heads.

    Args:
        macro: how many numbers lens and source have.
        modes: modes of psi along each axis.
        instrument: how many numbers describe how the image was taken.
        channels: width of the first level; it doubles at each of the first two halvings.
        levels: how often the image is halved.
    """

    def __init__(
        self, *, macro: int, modes: int, instrument: int, channels: int = 24, levels: int = 4, hidden: int = 192
    ) -> None:
        super().__init__()
        self.modes = modes
        self.stages, width = halvings(3, channels, levels)
        self.cells = nn.AdaptiveAvgPool2d(CELLS)
        self.trunk = trunk(width * CELLS**2 + instrument, hidden)
        self.macro = nn.Linear(hidden, macro)
        self.psi = nn.Linear(hidden, modes**2)
        for head in (self.macro, self.psi):  # the first answer is the same for every image
            head.weight.data.mul_(0.1)
        nn.init.zeros_(self.psi.bias)

    def forward(self, image: Tensor, instrument: Tensor) -> tuple[Tensor, Tensor]:
        """Return macro parameters (B, macro) and psi (B, modes, modes), in units of their priors.

        Args:
            image: (B, 1, H, W) in units of its brightest pixel.
            instrument: (B, instrument) numbers of order 1.
        """
        maps = self.cells(self.stages(torch.cat([image, coordinates(image)], dim=1)))
        seen = self.trunk(torch.cat([maps.flatten(1), instrument], dim=1))
        return self.macro(seen), self.psi(seen).unflatten(1, (self.modes, self.modes)) / math.sqrt(self.modes)


class EncoderSettings(Strict):
    """Encoder with macro, source and psi heads, told the instrument."""

    name: Literal["encoder"] = "encoder"
    channels: Width = 24
    levels: Annotated[int, Field(ge=2, le=6)] = 4
    modes: Annotated[int, Field(ge=2, le=40)] = 10

    def build(self, macro: int, instrument: int) -> LensEncoder:
        """Return the network."""
        return LensEncoder(
            macro=macro, modes=self.modes, instrument=instrument, channels=self.channels, levels=self.levels
        )
