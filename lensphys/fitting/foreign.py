"""Objects in the frame that are neither the lens nor an image of the source: neighbours and stars."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import max_pool2d

from lensphys.basics.settings import Positives, Strict
from lensphys.observation import Observation

_SQUARE = np.ones((3, 3), dtype=bool)


class ForeignSettings(Strict):
    """What is taken for another object than the lens and the images of its source.

    Args:
        outside: how far out it is, at least [Einstein radii].
        nearest: how far out it is, at least [arcsec]: what is nearer must be explained.
        signal: its signal-to-noise, at least.
        levels: at so many times that signal-to-noise, what hangs together is one object: at higher ones neighbours are
            told apart.
        explained: share of what is left there that is the light of the source, at most.
        faintest: signal-to-noise down to which what is about its middle belongs to it.
        inside: how far out what is about its middle is, at least [Einstein radii].
        grow: by how much it is larger than what stands out [pixels].
        error: share of the light of an ellipse that counts as its error: arcs are none, galaxies and stars nearly are.
        widths: of the Gaussians that make up an ellipse, in units of its own.
        looks: how often what is left over is looked at for such objects.
        cost: of one, in ln evidence, beside what an ellipse would leave of its pixels.
    """

    outside: PositiveFloat = 1.4
    nearest: PositiveFloat = 1.6
    signal: PositiveFloat = 8.0
    levels: Positives = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    explained: PositiveFloat = 0.5
    faintest: PositiveFloat = 3.0
    inside: PositiveFloat = 1.15
    grow: PositiveInt = 2
    error: PositiveFloat = 0.3
    widths: Positives = (0.3, 0.5, 0.8, 1.3, 2.0)
    looks: PositiveInt = 3
    cost: PositiveFloat = 20.0


@dataclass(frozen=True)
class Allowed:
    """Where other objects may be, bool.

    Args:
        middles: where their bright middles may be, (1, 1, H, W).
        outskirts: where what is faint about these may be, likewise.
    """

    middles: Tensor
    outskirts: Tensor

    @classmethod
    def outside(cls, distance: Tensor, theta_E: Tensor, settings: ForeignSettings) -> Allowed:
        """Return that they are outside of the arcs.

        Args:
            distance: of pixels from the lens, (1, 1, H, W) [arcsec].
            theta_E: its Einstein radius, (1,) [arcsec].
            settings: how far out.
        """
        least = (settings.outside * theta_E).clamp(min=settings.nearest)
        return cls(distance > least, distance > settings.inside * theta_E)


@dataclass(frozen=True)
class Foreign:
    """Other objects in one image.

    Args:
        where: their pixels, (1, 1, H, W), bool.
        count: how many they are.
        left: half of chi^2 in these pixels, were each of them an ellipse of light.
    """

    where: Tensor
    count: int
    left: float

    @classmethod
    def nothing(cls, like: Tensor) -> Foreign:
        """Return that there are none in an image, (1, 1, H, W)."""
        return cls(torch.zeros_like(like, dtype=torch.bool), 0, 0.0)

    def with_more(self, more: Foreign) -> Foreign:
        """Return both."""
        return Foreign(self.where | more.where, self.count + more.count, self.left + more.left)


def foreign_objects(
    observation: Observation, model: Tensor, explained: Tensor, allowed: Allowed, settings: ForeignSettings
) -> Foreign:
    """Return bright objects whose light is mostly not explained.

    Args:
        observation: of one image.
        model: everything that is known to shine, (1, 1, H, W) [flux per pixel].
        explained: the images of the source among it, likewise.
        allowed: where they may be.
        settings: how bright they are.
    """
    from scipy.ndimage import binary_dilation

    sigma = (observation.weight / observation.noise.variance(model.clamp(min=0))).sqrt()
    rest = replace(observation, image=observation.image - model)
    planes = (rest.significance(sigma), allowed.middles, allowed.outskirts, explained, rest.image)
    significance, outside, outskirts, source, left = (plane[0, 0].cpu().numpy() for plane in planes)
    middles = np.zeros(left.shape, dtype=bool)
    for level in settings.levels:
        for own in _connected(significance > settings.signal * level):
            foreign = source[own].sum() < settings.explained * left[own].sum()
            if significance[own].max() > settings.signal and outside[own].all() and foreign:
                middles |= own
    about = middles | ((significance > settings.faintest) & outskirts)
    objects = [binary_dilation(own, _SQUARE, settings.grow) for own in _connected(about) if (own & middles).any()]
    noise = np.where(sigma[0, 0].cpu() > 0, 1 / sigma[0, 0].cpu().clamp(min=1e-30), np.inf)
    misfit = sum(_misfit(left, own, noise, settings) for own in objects)
    where = torch.from_numpy(np.any(objects, axis=0) if objects else middles)[None, None].to(rest.image.device)
    return Foreign(where, len(objects), misfit)


def _misfit(light: np.ndarray, own: np.ndarray, noise: np.ndarray, settings: ForeignSettings) -> float:
    """Half of chi^2 of the pixels of an object (H, W), were it Gaussians that share centre and ellipse."""
    from scipy.optimize import nnls

    place, weight = np.argwhere(own), light[own].clip(min=0)
    centre = (weight[:, None] * place).sum(0) / max(weight.sum(), 1e-30)
    away = place - centre
    spread = (weight[:, None, None] * away[:, :, None] * away[:, None]).sum(0) / max(weight.sum(), 1e-30)
    radius = np.einsum("ni,ij,nj->n", away, np.linalg.inv(spread + np.eye(2) / 12), away)
    planes = np.exp(-0.5 * radius / np.array(settings.widths)[:, None] ** 2)
    ellipse = nnls((planes / noise[own]).T, light[own] / noise[own])[0] @ planes
    variance = noise[own] ** 2 + (settings.error * ellipse) ** 2
    return float(0.5 * ((light[own] - ellipse) ** 2 / variance).sum())


def _connected(which: np.ndarray) -> Iterator[np.ndarray]:
    """Connected regions of some pixels, each (H, W) bool."""
    from scipy.ndimage import label

    labels, count = label(which)
    yield from (labels == i for i in range(1, count + 1))


def grown(which: Tensor, pixels: int) -> Tensor:
    """Return some pixels and those next to them, (1, 1, H, W), bool."""
    return max_pool2d(which.float(), 2 * pixels + 1, stride=1, padding=pixels) > 0
