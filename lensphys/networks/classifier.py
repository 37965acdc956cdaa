"""The substructure classifier, whose maps a perceptual loss compares."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from lensphys.basics.settings import Strict
from lensphys.networks.base import Depth, Width


class ClassifierBlock(nn.Module):
    """conv3 - BN - ReLU - conv3 - BN, added to its input, ReLU; the first convolution may halve the image.

    What joins input and output where they differ is a convolution, with a BN of its own if ``normalised``.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, normalised: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        same = stride == 1 and in_channels == out_channels
        joint: nn.Module = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
        joint = nn.Sequential(joint, nn.BatchNorm2d(out_channels)) if normalised else joint
        self.skip = nn.Identity() if same else joint

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (B, out_channels, H', W') of maps (B, in_channels, H, W): H' = ceil(H / stride), likewise W'."""
        return (self.skip(x) + self.body(x)).relu()


class SubstructureClassifier(nn.Module):
    """Residual CNN for images of any size: conv5, levels of residual blocks, global average pooling, linear.

    Args:
        channels: width of the first level; it doubles at each halving.
        blocks: residual blocks a level.
        levels: the image is halved between them.
        classes: how many.
        in_channels: of the images.
        first: what looks at the images, (B, in_channels, H, W) -> (B, channels, ...); conv5 - BN - ReLU if None.
        normalised: see `ClassifierBlock`.

    Source: He et al. 2016, arXiv:1512.03385; S1's feature-GAN compares the maps of such a classifier, truncated.
    """

    def __init__(
        self,
        *,
        channels: int = 24,
        blocks: int = 2,
        levels: int = 3,
        classes: int = 3,
        in_channels: int = 1,
        first: nn.Module | None = None,
        normalised: bool = False,
    ) -> None:
        super().__init__()
        widths = [channels * 2**level for level in range(levels)]
        self.first = first or nn.Sequential(
            nn.Conv2d(in_channels, channels, 5, padding=2, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        repeated = [[ClassifierBlock(width, width) for _ in range(blocks - 1)] for width in widths]
        opening = [ClassifierBlock(channels, channels)]
        opening += [ClassifierBlock(a, b, stride=2, normalised=normalised) for a, b in pairwise(widths)]
        self.levels = nn.ModuleList(nn.Sequential(o, *r) for o, r in zip(opening, repeated, strict=True))
        self.head = nn.Linear(widths[-1], classes)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the maps after each level, (B, channels 2^l, H / 2^l, W / 2^l), sizes rounded up.

        Args:
            images: (B, in_channels, H, W) in units of the LR image's brightest pixel.
        """
        maps = [self.first(images)]
        for level in self.levels:
            maps.append(level(maps[-1]))
        return maps[1:]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, classes) of images (B, in_channels, H, W)."""
        return self.head(self.features(images)[-1].mean((-2, -1)))


class ClassifierSettings(Strict):
    """Substructure classifier; 0.39 million parameters before the pooling, as S1's truncated one."""

    name: Literal["classifier"] = "classifier"
    channels: Width = 24
    blocks: Depth = 2
    levels: Depth = 3
    classes: Annotated[int, Field(ge=2)] = 3

    def build(self) -> SubstructureClassifier:
        """Return the network with fresh weights."""
        return SubstructureClassifier(
            channels=self.channels, blocks=self.blocks, levels=self.levels, classes=self.classes
        )
