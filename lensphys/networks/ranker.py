"""The ranker of RankSRGAN: how natural an image looks, learned from pairs."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lensphys.basics.settings import Strict
from lensphys.networks.base import Depth, Width
from lensphys.networks.contrast import PEAK, normalised_pixels


class Ranker(nn.Module):
    """conv3 - LeakyReLU in pairs of stride 1 and 2, global mean pooling, two dense layers; one arm of the Siamese pair.

    It looks at the local contrast, as NIQE does. In the light itself, where the texture that NIQE judges is a
    thousandth of the peak, it would learn instead which network an image is of.

    Margin ranking leaves the zero and the scale of the scores free, and a sigmoid is flat far from zero: in training
    they are brought to zero mean and unit variance over the batch, afterwards by the means of these two, so that a
    score depends on its own image alone. There is no other normalisation.

    Args:
        channels: of the first layer (64); they double with each stage.
        stages: how often the image is halved (4).

    Source: Zhang et al. 2019, arXiv:1908.06382, fig. 4.
    """

    def __init__(self, channels: int = 64, stages: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 1
        for stage in range(stages):
            wider = channels * 2**stage
            layers += [nn.Conv2d(width, wider, 3, padding=1), nn.LeakyReLU(0.2)]
            layers += [nn.Conv2d(wider, wider, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
            width = wider
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.score = nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(0.2), nn.Linear(width, 1))
        self.standard = nn.BatchNorm1d(1, affine=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return scores (B, 1) of images (B, 1, H, W) [units of the LR peak], the lower the more natural, as NIQE."""
        with torch.autocast(image.device.type, enabled=False):  # variances are small differences of large numbers
            contrast, _ = normalised_pixels(PEAK * image.float())
        return self.standard(self.score(self.features(contrast)))


class RankerSettings(Strict):
    """RankSRGAN's ranker."""

    name: Literal["ranker"] = "ranker"
    channels: Width = 64
    stages: Depth = 4

    def build(self) -> Ranker:
        """Return the network with fresh weights."""
        return Ranker(self.channels, self.stages)
