"""An image as a source."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lensphys.checks import check_images, check_same_shape
from lensphys.grid import PixelGrid
from lensphys.model.component import LightProfile, Value, offset


@dataclass(frozen=True)
class ImageSource(LightProfile):
    """An image as a source: a real galaxy, or a reconstruction; zero outside of its pixels.

    Args:
        image: (B or 1, 1, H, W) [flux / arcsec^2].
        grid: its pixels in the source plane.
        mode: interpolation, ``bilinear`` or ``bicubic``.
        center_x: where the middle of the image stands [arcsec], a number or (B,).
        center_y: [arcsec].

    Raises:
        LensphysError: if the image is not on the grid.
    """

    image: Tensor
    grid: PixelGrid
    mode: str = "bilinear"
    center_x: Value = 0.0
    center_y: Value = 0.0
    lenstronomy = "INTERPOL"

    def __post_init__(self) -> None:
        check_images("source image", self.image)
        check_same_shape("source image", self.image.shape[-2:], "source grid", self.grid.shape)

    def __call__(self, beta: Tensor) -> Tensor:
        """Return the surface brightness (B, 1, H, W) at beta (B or 1, 2, H, W) [arcsec]."""
        x, y = offset(beta, self.center_x, self.center_y)
        return self.grid.sample(self.image, torch.stack([x, y], dim=1), mode=self.mode)
