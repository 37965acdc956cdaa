"""Losses between images, for supervised training."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from lensphys.basics.checks import check_same_shape
from lensphys.basics.settings import Strict


class ImageLossSettings(Strict):
    """Mean absolute (``l1``), mean squared (``mse``) or Charbonnier difference of two images."""

    kind: Literal["l1", "mse", "charbonnier"] = "l1"
    weight: Annotated[float, Field(ge=0)] = 1.0

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Return the unweighted loss of images (B, 1, H, W) against their targets, a scalar.

        Raises:
            LensphysError: if the shapes differ.
        """
        check_same_shape("image", image.shape, "target", target.shape)
        if self.kind == "l1":
            return F.l1_loss(image, target)
        if self.kind == "mse":
            return F.mse_loss(image, target)
        return torch.sqrt((image - target).square() + 1e-6).mean()
