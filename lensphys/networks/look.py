"""A look at a lens: image and instrument give what the lens is likely to be, and how sure one may be of it."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from lensphys.basics.settings import Strict
from lensphys.networks.base import Width
from lensphys.networks.encoder import CELLS, halvings, trunk
from lensphys.networks.pyramid import coordinates

Places = Literal["field", "arcsec"]


class LensLook(nn.Module):
    """Image, its significance and the instrument -> mean and ln standard deviation of each parameter of a lens.

    Args:
        parameters: how many numbers a lens has.
        instrument: how many numbers describe how the image was taken.
        settings: its size, and what it is told and may answer.
    """

    def __init__(self, *, parameters: int, instrument: int, settings: LookSettings) -> None:
        super().__init__()
        self.settings = settings
        self.stages, width = halvings(4, settings.channels, settings.levels)
        self.cells = nn.AdaptiveAvgPool2d(CELLS)
        self.trunk = trunk(width * CELLS**2 + instrument, settings.hidden)
        self.mean = nn.Linear(settings.hidden, parameters)
        self.spread = nn.Linear(settings.hidden, parameters)
        for head in (self.mean, self.spread):  # the first answer is the same for every image
            head.weight.data.mul_(0.1)
            nn.init.zeros_(head.bias)

    def forward(
        self, image: Tensor, significance: Tensor, instrument: Tensor, half_side: float
    ) -> tuple[Tensor, Tensor]:
        """Return mean and ln standard deviation of each parameter, (B, parameters) each.

        Args:
            image: (B, 1, H, W) in units of its brightest pixel.
            significance: (B, 1, H, W) in units of the noise.
            instrument: (B, instrument) numbers of order 1.
            half_side: of the longer side of the field [arcsec].
        """
        settings = self.settings
        where = coordinates(image) * (half_side / settings.half_side if settings.places == "arcsec" else 1)
        planes = torch.cat([image, torch.asinh(significance / 3) / 3, where], dim=1)
        maps = self.cells(self.stages(planes))
        seen = self.trunk(torch.cat([maps.flatten(1), instrument], dim=1))
        return _within(self.mean(seen), settings.far), self.spread(seen).clamp(settings.surest, settings.vaguest)


def _within(mean: Tensor, far: float) -> Tensor:
    """Guesses as they are where they are likely, and never more than ``far`` + 1 off."""
    size = mean.abs()
    return torch.where(size > far, mean.sign() * (far + torch.tanh(size - far)), mean)


class LookSettings(Strict):
    """Encoder that says what a lens is and how sure it is, told the instrument.

    Args:
        channels: width of the first level; it doubles at each of the first two halvings.
        levels: how often the image is halved.
        hidden: width of the trunk.
        places: whether it is told where pixels are in units of the ``field``, or in ``arcsec``, which lenses are
            measured in: for fields of several sizes.
        half_side: the unit of ``arcsec`` places, about that of most cut-outs [arcsec].
        far: standard deviations of the survey's prior beyond which no lens is likely: no guess is further off by more
            than one.
        surest: ln of a parameter's standard deviation, in units of that of the survey's prior, at least.
        vaguest: the same, at most.
    """

    name: Literal["look"] = "look"
    channels: Width = 16
    levels: Annotated[int, Field(ge=2, le=6)] = 4
    hidden: Width = 256
    places: Places = "field"
    half_side: PositiveFloat = 3.0
    far: PositiveFloat = 3.0
    surest: float = -9.0
    vaguest: float = 2.0

    def build(self, parameters: int, instrument: int) -> LensLook:
        """Return the network."""
        return LensLook(parameters=parameters, instrument=instrument, settings=self)
