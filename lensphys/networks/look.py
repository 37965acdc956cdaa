"""A look at a lens: image and instrument give what the lens is likely to be, and how sure one may be of it."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lensphys.basics.settings import Strict
from lensphys.networks.base import Width
from lensphys.networks.encoder import CELLS, halvings, trunk
from lensphys.networks.pyramid import coordinates

Places = Literal["field", "arcsec"]
_HALF_SIDE = 3.0  # arcsec: the unit of places, about that of most cut-outs
_FAR = 3.0  # standard deviations of the survey's prior, beyond which no lens is likely
_SURE = -9.0, 2.0  # ln of a standard deviation, at least and at most


class LensLook(nn.Module):
    """Image, its significance and the instrument -> mean and ln standard deviation of each parameter of a lens.

    Args:
        parameters: how many numbers a lens has.
        instrument: how many numbers describe how the image was taken.
        channels: width of the first level; it doubles at each of the first two halvings.
        levels: how often the image is halved.
        hidden: width of the trunk.
        places: what it is told of where a pixel is: see `LookSettings`.
    """

    def __init__(
        self, *, parameters: int, instrument: int, channels: int, levels: int, hidden: int, places: Places
    ) -> None:
        super().__init__()
        self.places = places
        self.stages, width = halvings(4, channels, levels)
        self.cells = nn.AdaptiveAvgPool2d(CELLS)
        self.trunk = trunk(width * CELLS**2 + instrument, hidden)
        self.mean = nn.Linear(hidden, parameters)
        self.spread = nn.Linear(hidden, parameters)
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
        where = coordinates(image) * (half_side / _HALF_SIDE if self.places == "arcsec" else 1)
        planes = torch.cat([image, torch.asinh(significance / 3) / 3, where], dim=1)
        maps = self.cells(self.stages(planes))
        seen = self.trunk(torch.cat([maps.flatten(1), instrument], dim=1))
        return _within(self.mean(seen)), self.spread(seen).clamp(*_SURE)


def _within(mean: Tensor) -> Tensor:
    """Guesses as they are where they are likely, and never more than `_FAR` + 1 off."""
    size = mean.abs()
    return torch.where(size > _FAR, mean.sign() * (_FAR + torch.tanh(size - _FAR)), mean)


class LookSettings(Strict):
    """Encoder that says what a lens is and how sure it is, told the instrument.

    ``places``: whether it is told where pixels are in units of the ``field``, or in ``arcsec``, which lenses are
    measured in: for fields of several sizes.
    """

    name: Literal["look"] = "look"
    channels: Width = 16
    levels: Annotated[int, Field(ge=2, le=6)] = 4
    hidden: Width = 256
    places: Places = "field"

    def build(self, parameters: int, instrument: int) -> LensLook:
        """Return the network."""
        return LensLook(
            parameters=parameters,
            instrument=instrument,
            channels=self.channels,
            levels=self.levels,
            hidden=self.hidden,
            places=self.places,
        )
