"""Objects in the frame that are neither the lens nor an image of the source: neighbours and stars."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import max_pool2d

from lensphys.basics.settings import Strict
from lensphys.observation import Observation

_LEVELS = 2.0 ** np.arange(-1, 6)  # of the least significance: the higher, the better are neighbours told apart


class ForeignSettings(Strict):
    """What is taken for another object than the lens and the images of its source.

    Args:
        beyond: it is further out than so many Einstein radii,
        nearest: and further than this: what is nearer must be explained [arcsec].
        signal: its signal-to-noise is above this,
        explained: and the source makes less than this share of what else it leaves there.
        grow: by how much it is larger than what stands out [pixels].
        looks: how often what is left over is looked at for such objects.
        cost: of one, in ln evidence, beside its pixels.
        cost_at_first: the same while starts are compared.
    """

    beyond: PositiveFloat = 1.4
    nearest: PositiveFloat = 1.6
    signal: PositiveFloat = 8.0
    explained: PositiveFloat = 0.5
    grow: PositiveInt = 2
    looks: PositiveInt = 2
    cost: PositiveFloat = 50.0
    cost_at_first: PositiveFloat = 20.0


@dataclass(frozen=True)
class Foreign:
    """Other objects in one image.

    Args:
        where: their pixels, (1, 1, H, W), bool.
        count: how many they are.
    """

    where: Tensor
    count: int

    @classmethod
    def nothing(cls, like: Tensor) -> Foreign:
        """Return that there are none in an image, (1, 1, H, W)."""
        return cls(torch.zeros_like(like, dtype=torch.bool), 0)

    def with_more(self, more: Foreign) -> Foreign:
        """Return both."""
        return Foreign(self.where | more.where, self.count + more.count)


def foreign_objects(
    observation: Observation, model: Tensor, explained: Tensor, allowed: Tensor, settings: ForeignSettings
) -> Foreign:
    """Return bright objects whose light is mostly not explained.

    Args:
        observation: of one image.
        model: everything that is known to shine, (1, 1, H, W) [flux per pixel].
        explained: the images of the source among it, likewise.
        allowed: where such objects may be, (1, 1, H, W), bool.
        settings: how bright they are.
    """
    from scipy.ndimage import label

    sigma = (observation.weight / observation.noise.variance(model.clamp(min=0))).sqrt()
    rest = observation.image - model
    bright = replace(observation, image=rest).significance(sigma)
    planes = (bright, allowed, explained, rest)
    significance, inside, source, left = (plane[0, 0].cpu().numpy() for plane in planes)
    chosen = np.zeros(significance.shape, dtype=np.float32)
    for level in settings.signal * _LEVELS:
        labels, count = label(significance > level)
        for i in range(1, count + 1):
            own = labels == i
            foreign = source[own].sum() < settings.explained * left[own].sum()
            if significance[own].max() > settings.signal and inside[own].all() and foreign:
                chosen[own] = 1
    where = torch.from_numpy(chosen)[None, None].to(bright) > 0
    return Foreign(grown(where, settings.grow), label(chosen)[1])


def grown(which: Tensor, pixels: int) -> Tensor:
    """Return some pixels and those next to them, (1, 1, H, W), bool."""
    return max_pool2d(which.float(), 2 * pixels + 1, stride=1, padding=pixels) > 0
