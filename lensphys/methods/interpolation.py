"""Interpolation: the baselines that any method has to beat."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from lensphys.methods.prediction import Prediction
from lensphys.observation import Observation, block_sum
from lensphys.settings import Strict


class Interpolation(Strict):
    """Bicubic or bilinear interpolation; flux per pixel, and each image's total flux is kept.

    Example:
        >>> import torch
        >>> from lensphys.observation import Instrument
        >>> observation = Instrument.named("model_3").observation(torch.rand(1, 1, 8, 8))
        >>> Interpolation(name="bicubic").predict(observation, 2).image.shape
        torch.Size([1, 1, 16, 16])
    """

    name: Literal["bicubic", "bilinear"]

    def predict(self, observation: Observation, scale: int) -> Prediction:
        """Return the interpolated images."""
        image = interpolate(observation.image, scale, self.name)
        return Prediction(image, observation.camera.at(scale), block_sum(image, observation.camera.grid))


def interpolate(image: Tensor, scale: int, mode: str) -> Tensor:
    """Return images (B, 1, H, W) interpolated to (B, 1, sH, sW), flux per pixel, total flux kept."""
    fine = F.interpolate(image, scale_factor=scale, mode=mode, align_corners=False) / scale**2
    # Edge pixels count a little more or less than others; masked images may sum to zero, where nothing can be rescaled.
    total, before = fine.flatten(1).sum(1), image.flatten(1).sum(1)
    ratio = (before / total).where((before / total - 1).abs() < 0.1, total.new_ones(()))
    return fine * ratio[:, None, None, None]
