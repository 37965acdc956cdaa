"""The deflection network: a backbone with radial and tangential heads that yields a `DeflectionField`."""

from __future__ import annotations

import torch
from pydantic import PositiveFloat, model_validator
from torch import Tensor, nn

from lensphys.basics.checks import check_images
from lensphys.basics.settings import Strict
from lensphys.networks.base import last_layer
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid


class PolarHeadSettings(Strict):
    """Bounds of the two heads [arcsec]; the published ones, 0.5..1.6 and 0.0025 * 1.1 / 2, are the defaults.

    ``radial_low`` above zero makes alpha positive by construction; a correction has bounds about zero. ``gain``
    scales the last layer's weights at the start: 1 as published, 0 to begin from a field that is alike for every image.
    """

    radial_low: float = 0.5
    radial_high: float = 1.6
    tangential_limit: PositiveFloat = 0.0025 * 1.1 / 2
    gain: float = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> PolarHeadSettings:
        if self.radial_low >= self.radial_high:
            raise ValueError(f"radial_low {self.radial_low} must be below radial_high {self.radial_high}")
        return self


class DeflectionNetwork(nn.Module):
    """LR image -> alpha_r and alpha_t at the finer resolution -> `DeflectionField`.

    Args:
        backbone: images (B, 1, H, W) -> maps (B, 2, sH, sW), with attributes ``scale`` and ``upsampling``; any network
            of this folder.
        head: bounds of the two parts.
    """

    def __init__(self, backbone: nn.Module, head: PolarHeadSettings) -> None:
        super().__init__()
        self.backbone = backbone
        self.bounds = head
        last_layer(backbone).weight.data.mul_(head.gain)  # type: ignore[operator]

    @property
    def upsampling(self) -> tuple[str, ...]:
        """The parts of the backbone that upscale, and all that comes after them."""
        return tuple(f"backbone.{part}" for part in self.backbone.upsampling)  # type: ignore[union-attr]

    @property
    def scale(self) -> int:
        """The upscaling factor."""
        return int(self.backbone.scale)  # type: ignore[arg-type]

    def forward(self, image: Tensor, grid: PixelGrid) -> DeflectionField:
        """Return the deflection of normalised images (B, 1, H, W) that stand on ``grid``."""
        check_images("image", image)
        radial, tangential = torch.sigmoid(self.backbone(image).float()).chunk(2, dim=1)
        b = self.bounds
        return DeflectionField.from_polar(
            b.radial_low + (b.radial_high - b.radial_low) * radial,
            b.tangential_limit * (2 * tangential - 1),
            grid.resampled(self.scale),
        )
