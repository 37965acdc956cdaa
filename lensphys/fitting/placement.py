"""Where an image lies on the sky of another one, and what a lens looks like from there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lensphys.basics.rows import Rows
from lensphys.model import LightProfile, MassProfile
from lensphys.model.component import CENTRE, TURNING

PLACED = {"x": "arcsec", "y": "arcsec", "rotation": "rad", "flux": "ln"}  # the numbers in their order, and their units


@dataclass(frozen=True)
class Placement(Rows):
    """A position theta of an image is R(rotation) theta + (x, y) on the sky of another one.

    Args:
        numbers: (B, 4): x and y [arcsec], rotation [rad] from x to y, and ln of how many times as bright the image
            shows everything.
    """

    numbers: Tensor

    @classmethod
    def identity(cls, like: Tensor) -> Placement:
        """Return that of images (B,) that lie where the other one does."""
        return cls(like.new_zeros(len(like), len(PLACED)))

    @property
    def factor(self) -> Tensor:
        """How many times as bright everything is, (B, 1, 1, 1)."""
        return self.numbers[:, 3].exp()[:, None, None, None]

    def turned(self, vector: Tensor, sign: float = 1.0) -> Tensor:
        """Return vectors (B or 1, 2, H, W) of the image as they are on the sky; of the sky on the image by sign -1."""
        angle = sign * self.numbers[:, 2, None, None]
        x, y = vector[:, 0], vector[:, 1]
        return torch.stack([angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y], dim=1)

    def sky(self, theta: Tensor) -> Tensor:
        """Return where positions (B or 1, 2, H, W) [arcsec] of the image are on the sky."""
        return self.turned(theta) + self.numbers[:, :2, None, None]

    def image(self, position: Tensor) -> Tensor:
        """Return where positions (B or 1, 2, H, W) [arcsec] of the sky are on the image."""
        return self.turned(position - self.numbers[:, :2, None, None], -1.0)

    @property
    def inverse(self) -> Placement:
        """The placement of the other image on this one."""
        x, y = self.image(torch.zeros_like(self.numbers[:, :2, None, None]))[:, :, 0, 0].unbind(1)
        return Placement(torch.stack([x, y, -self.numbers[:, 2], -self.numbers[:, 3]], dim=1))

    def about(self, other: Placement) -> Placement:
        """Return the placement on the sky of another image, both of which are placed on that of a third."""
        place = other.image(self.numbers[:, :2, None, None])[:, :, 0, 0]
        return Placement(torch.cat([place, self.numbers[:, 2:] - other.numbers[:, 2:]], dim=1))

    def values(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the parameters ``member.parameter``, (B,) each, of components of the image as they are on the sky.

        Centres move, pairs of parameters turn as `TURNING` says, and angles ``phi`` with the sky.
        """
        new = dict(values)
        for name in {name.rpartition(".")[0] for name in values}:
            x, y = (f"{name}.{c}" for c in CENTRE)
            if x in values and y in values:
                place = torch.stack([values[x], values[y]], dim=1)[:, :, None, None]
                new[x], new[y] = self.sky(place)[:, :, 0, 0].unbind(1)
            for a, b, order in TURNING:
                first, second = f"{name}.{a}", f"{name}.{b}"
                if first in values and second in values:
                    times = values[f"{name}.{order}"] if isinstance(order, str) else order
                    cos, sin = (times * self.numbers[:, 2]).cos(), (times * self.numbers[:, 2]).sin()
                    new[first] = cos * values[first] - sin * values[second]
                    new[second] = sin * values[first] + cos * values[second]
        turning = (name for name in values if name.rpartition(".")[2].startswith("phi"))
        return new | {name: values[name] + self.numbers[:, 2] for name in turning}


@dataclass(frozen=True)
class PlacedMass(MassProfile):
    """Mass as it deflects on an image that lies elsewhere.

    Args:
        mass: on the sky.
        placement: of the image.
    """

    mass: MassProfile
    placement: Placement

    def __call__(self, theta: Tensor) -> Tensor:
        """Return the deflection (B, 2, H, W) at positions (B or 1, 2, H, W) of the image [arcsec]."""
        return self.placement.turned(self.mass(self.placement.sky(theta)), -1.0)


@dataclass(frozen=True)
class PlacedLight(LightProfile):
    """Light as an image shows it that lies elsewhere.

    Args:
        light: on the sky, or in the source plane.
        placement: of the image.
    """

    light: LightProfile
    placement: Placement

    def __call__(self, position: Tensor) -> Tensor:
        """Return the brightness (B, 1, H, W) at positions (B or 1, 2, H, W) of the image [arcsec]."""
        return self.light(self.placement.sky(position)) * self.placement.factor
