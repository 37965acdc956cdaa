"""Pixels that no light made: colder than the sky, or sharper than a star."""

from __future__ import annotations

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import pad

from lensphys.basics.scatter import GAUSSIAN
from lensphys.basics.settings import Strict
from lensphys.observation.camera import Observation
from lensphys.observation.kernel import first_star
from lensphys.observation.noise import white_noise

_WAYS = ((1, 0), (0, 1))  # to a neighbour: along x, and along y


class BadPixels(Strict):
    """What tells a pixel that no light made.

    Args:
        sigma: in units of the noise, that of the map or of the sky where this is larger: how far a cold pixel is below
            zero and below what is about it, and a hot one above what its neighbours would show of a star.
        sharper: than a star in the middle of a pixel, by so much: noise makes some light look so.
        sky: side of the square whose median is what is about a cold pixel, and
        level: a hot one [pixels].
    """

    sigma: PositiveFloat = 5.0
    sharper: PositiveFloat = 1.5
    sky: PositiveInt = 7
    level: PositiveInt = 5

    def found(self, observation: Observation) -> Tensor:
        """Return the cold pixels, the hot ones and what cosmic rays hit, of images, (B, 1, H, W), bool.

        Whatever a telescope sees is as wide as its PSF at least, in every direction: a pixel is hot where both of its
        neighbours along x, or along y, are too faint for that, as about a cosmic ray's track. Beside a masked pixel,
        and at the borders, that cannot be told.
        """
        rows = torch.arange(len(observation)).split(1)
        return torch.cat([self._of_one(observation[row]) for row in rows])

    def _of_one(self, observation: Observation) -> Tensor:
        image = observation.image
        sigma = observation.noise.variance(image.clamp(min=0)).sqrt().maximum(white_noise(image))
        if not observation.noise.known:  # neighbours may share it, so that it is taken for less than it is
            sigma = sigma.maximum(GAUSSIAN * (image - image.median()).abs().median())
        inverse_sigma = (observation.weight > 0) / sigma
        value = image * inverse_sigma
        cold = (value < -self.sigma) & ((image - _median(image, self.sky)) * inverse_sigma < -self.sigma)
        above = (image - _median(image, self.level)) * inverse_sigma
        seen, hot = first_star(observation.camera, image), torch.zeros_like(cold)
        middle = divmod(int(seen.argmax()), seen.shape[1])  # a kernel may be off its own middle
        known = torch.where(observation.weight > 0, value.clamp(min=0), torch.inf)
        for way in _WAYS:
            beside = torch.maximum(*_beside(known, *way))
            sharpest = self.sharper * seen[middle] / torch.maximum(*_beside(seen, *way))[middle].clamp(min=1e-6)
            hot |= above > self.sigma * torch.hypot(sharpest, sharpest.new_tensor(1.0)) + sharpest * beside
        return cold | hot


def _beside(image: Tensor, x: int, y: int) -> tuple[Tensor, Tensor]:
    """Both neighbours of each pixel of images (..., H, W) on a line; infinite beyond the borders."""
    wide, (height, width) = pad(image, (1, 1, 1, 1), value=torch.inf), image.shape[-2:]
    ahead, behind = (wide[..., 1 + s * y : 1 + s * y + height, 1 + s * x : 1 + s * x + width] for s in (1, -1))
    return ahead, behind


def _median(image: Tensor, side: int) -> Tensor:
    """The median of the square about each pixel of one image, (1, 1, H, W)."""
    from scipy.ndimage import median_filter

    return torch.from_numpy(median_filter(image[0, 0].cpu().numpy(), side))[None, None].to(image)
