"""An image as a source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lensphys.basics.checks import LensphysError, check_images, check_same_shape
from lensphys.model.component import CENTRE, LightProfile, Named, Value, check_one, offset
from lensphys.tracing.grid import PixelGrid


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

    Example:
        >>> galaxy = ImageSource.from_image([[1.0, 3.0], [1.0, 3.0]], pixel_scale=0.05)
        >>> galaxy.brightness(0.0, 0.0).item()  # flux / arcsec^2
        2.0
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

    @classmethod
    def from_image(
        cls,
        image: ArrayLike | Tensor,
        pixel_scale: float,
        *,
        mode: str = "bilinear",
        center_x: Value = 0.0,
        center_y: Value = 0.0,
    ) -> ImageSource:
        """Return the source that an image of a galaxy shows.

        Args:
            image: (H, W) [flux / arcsec^2], rows growing with y.
            pixel_scale: in the source plane [arcsec].
            mode: interpolation, ``bilinear`` or ``bicubic``.
            center_x: where the middle of the image stands [arcsec].
            center_y: [arcsec].

        Raises:
            LensphysError: if it is not one image.

        Example:
            >>> ImageSource.from_image([[1.0, 2.0], [3.0, 4.0]], 0.5).brightness([-0.25, 0.25], 0.25).tolist()
            [3.0, 4.0]
        """
        pixels = image if isinstance(image, Tensor) else torch.as_tensor(np.asarray(image, dtype=np.float64))
        if pixels.ndim != 2:
            raise LensphysError(f"the image of a source must have the shape (H, W), got {tuple(pixels.shape)}")
        height, width = pixels.shape
        return cls(pixels[None, None], PixelGrid(height, width, pixel_scale), mode, center_x, center_y)

    def __repr__(self) -> str:
        height, width = self.grid.shape
        return (
            f'ImageSource of {height} x {width} pixels of {self.grid.scale:.4g}" at ({self.center_x}, {self.center_y})'
        )

    def to_lenstronomy(self) -> list[Named]:
        """Return it in lenstronomy's words, of one lens: whose interpolation is bilinear.

        Raises:
            LensphysError: if it is of several lenses.
        """
        check_one("the images are", len(self.image))
        place = {name: self._number(name) for name in CENTRE}
        seen = {"image": self.image[0, 0].cpu().numpy(), "amp": 1.0, "phi_G": 0.0, "scale": self.grid.scale}
        return [(self.lenstronomy, seen | place)]

    def __call__(self, beta: Tensor) -> Tensor:
        """Return the surface brightness (B, 1, H, W) at beta (B or 1, 2, H, W) [arcsec]."""
        x, y = offset(beta, self.center_x, self.center_y)
        image = self.image.to(beta)
        return self.grid.sample(image, torch.stack([x, y], dim=1), mode=self.mode)
