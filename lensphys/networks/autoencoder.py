"""The adversarial auto-encoder, whose encoder's maps a content loss compares."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lensphys.basics.settings import Strict
from lensphys.networks.base import Width
from lensphys.networks.pyramid import ConvBlock

_CELLS = 4  # the image ends, and begins again, as so many squared


class Autoencoder(nn.Module):
    """Convolutional encoder to a latent vector and decoder back to an image of any size.

    Args:
        channels: width of the first level; it doubles at each of the next two.
        levels: how often the image is halved.
        latent: length of the latent vector.
    """

    def __init__(self, *, channels: int = 16, levels: int = 4, latent: int = 64) -> None:
        super().__init__()
        widths = [channels * 2 ** min(level, 2) for level in range(levels)]
        self.down = nn.ModuleList(ConvBlock(a, b, stride=2) for a, b in pairwise([1, *widths]))
        self.cells = nn.AdaptiveAvgPool2d(_CELLS)
        self.inward = nn.Linear(widths[-1] * _CELLS**2, latent)
        self.outward = nn.Linear(latent, widths[-1] * _CELLS**2)
        self.up = nn.ModuleList(ConvBlock(b, a) for a, b in pairwise([widths[0], *widths]))
        self.tail = nn.Conv2d(widths[0], 1, 3, padding=1)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the encoder's maps, each half as fine as the one before (sizes rounded up).

        Args:
            images: (B, 1, H, W) in units of the LR image's brightest pixel.
        """
        maps = [images]
        for block in self.down:
            maps.append(block(maps[-1]))
        return maps[1:]

    def encode(self, images: Tensor) -> Tensor:
        """Return the latent vectors (B, latent) of images (B, 1, H, W)."""
        return self.inward(self.cells(self.features(images)[-1]).flatten(1))

    def decode(self, latent: Tensor, size: Sequence[int]) -> Tensor:
        """Return images (B, 1, H, W) of latent vectors (B, latent).

        Args:
            latent: the vectors, (B, latent).
            size: H and W [pixels].
        """
        sizes = [[-(-n // 2**level) for n in size] for level in range(len(self.up))]
        x = self.outward(latent).unflatten(1, (-1, _CELLS, _CELLS))
        for block, finer in zip(reversed(self.up), reversed(sizes), strict=True):
            x = block(F.interpolate(x, size=finer, mode="bilinear"))
        return self.tail(x)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images as they come back, (B, 1, H, W), and their latent vectors (B, latent)."""
        latent = self.encode(images)
        return self.decode(latent, images.shape[-2:]), latent


class LatentDiscriminator(nn.Sequential):
    """Tells latent vectors (B, latent) from draws of the prior: logits (B, 1), positive for the prior."""

    def __init__(self, latent: int, hidden: int = 128) -> None:
        super().__init__(
            nn.Linear(latent, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1),
        )


class AutoencoderSettings(Strict):
    """Convolutional auto-encoder with a vector as its latent."""

    name: Literal["autoencoder"] = "autoencoder"
    channels: Width = 16
    levels: Annotated[int, Field(ge=1, le=6)] = 4
    latent: Width = 64

    def build(self) -> Autoencoder:
        """Return the network with fresh weights."""
        return Autoencoder(channels=self.channels, levels=self.levels, latent=self.latent)
