"""Interpolation: the baselines that any method has to beat."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lensphys.basics.settings import Strict
from lensphys.observation import Observation
from lensphys.prediction import Prediction


class Interpolation(Strict):
    """Interpolation by the kernel of this name; each image's total flux is kept.

    Example:
        >>> import torch
        >>> from lensphys.observation import Instrument
        >>> observation = Instrument.named("model_3").observation(torch.rand(1, 1, 8, 8))
        >>> Interpolation(name="bicubic").predict(observation, 2).image.shape
        torch.Size([1, 1, 16, 16])
    """

    name: Literal["nearest", "bilinear", "bicubic", "lanczos"]

    def predict(self, observation: Observation, scale: int) -> Prediction:
        """Return the interpolated images."""
        image = interpolate(observation.image, scale, self.name)
        observed = observation.camera.reobserved(image)  # the noise, too: nothing of it is learned from what is left
        return Prediction(image, observation.camera.at(scale), observed, noise=observation.sigma(observed))


def interpolate(image: Tensor, scale: int, mode: str) -> Tensor:
    """Return images (B, 1, H, W) interpolated to (B, 1, sH, sW), flux per pixel, total flux kept.

    Args:
        image: (B, 1, H, W) [flux per pixel].
        scale: factor by which pixels become smaller.
        mode: ``nearest``, ``bilinear``, ``bicubic`` or ``lanczos``.
    """
    if mode == "lanczos":
        fine = lanczos(image, scale)
    else:
        corners = None if mode == "nearest" else False  # blocks have no corners to align
        fine = F.interpolate(image, scale_factor=scale, mode=mode, align_corners=corners)
    fine = fine / scale**2
    # Edge pixels count a little more or less than others; masked images may sum to zero, where nothing can be rescaled.
    total, before = fine.flatten(1).sum(1), image.flatten(1).sum(1)
    ratio = (before / total).where((before / total - 1).abs() < 0.1, total.new_ones(()))
    return fine * ratio[:, None, None, None]


def lanczos(image: Tensor, scale: int, lobes: int = 3) -> Tensor:
    """Return values at pixel centres (B, C, H, W) interpolated to (B, C, sH, sW) by the Lanczos kernel.

    At the edge the kernel is cut off and its weights are normalised anew, as Pillow does.

    Args:
        image: (B, C, H, W) [any unit].
        scale: factor by which pixels become smaller; a whole number.
        lobes: of the kernel, which ends so many pixels from its middle.

    Source: Duchon 1979, Journal of Applied Meteorology 18, 1016.

    Example:
        >>> lanczos(torch.ones(1, 1, 4, 5), 3).shape
        torch.Size([1, 1, 12, 15])
    """
    rows, columns = (_lanczos_weights(size, scale, lobes).to(image) for size in image.shape[-2:])
    return rows @ image @ columns.T


def _lanczos_weights(size: int, scale: int, lobes: int) -> Tensor:
    """Return the share of each of ``size`` pixels in each of ``size`` x ``scale`` finer ones, (scale size, size)."""
    fine = (torch.arange(size * scale, dtype=torch.float64) + 0.5) / scale - 0.5
    distance = fine[:, None] - torch.arange(size, dtype=torch.float64)
    weight = torch.sinc(distance) * torch.sinc(distance / lobes) * (distance.abs() < lobes)
    return weight / weight.sum(1, keepdim=True)
