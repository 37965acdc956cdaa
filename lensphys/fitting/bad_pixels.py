"""Pixels that no light made: colder than the sky, or sharper than a star."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import unfold

from lensphys.observation import Camera, Observation


def bad_pixels(observation: Observation, inverse_sigma: Tensor, sigma: float) -> Tensor:
    """Return the cold pixels, the hot ones and what cosmic rays hit, of one image, (1, 1, H, W), bool.

    A pixel is cold where it lies that far below the median of its neighbourhood, and hot where it stands that far
    above what a star on it would be, whose light its neighbours would show.

    Args:
        observation: of one image.
        inverse_sigma: one over the noise, (1, 1, H, W), 0 where masked.
        sigma: how far, in units of the noise.
    """
    from scipy.ndimage import median_filter

    image = observation.image
    level = torch.from_numpy(median_filter(image[0, 0].cpu().numpy(), 5))[None, None].to(image)
    above = (image - level) * inverse_sigma
    ring = torch.ones(3, 3).to(image)
    ring[1, 1] = 0
    neighbours = unfold(above, 3, padding=1)[:, ring.flatten() > 0].amax(1).reshape_as(above)
    sharpest = 1.5 * _sharpness(observation)  # a star off the middle of its pixel is less sharp, a noisy one more
    return (above < -sigma) | (above > sigma + sharpest * neighbours.clamp(min=0))


def star(camera: Camera, like: Tensor) -> Tensor:
    """Return a star of flux 1 in the middle of a pixel, as the first camera of a batch sees it, (33, 33)."""
    point = torch.zeros(1, 1, 33, 33).to(like)
    point[..., 16, 16] = 1
    return camera.psf.rows(torch.tensor([0])).blur(point, camera.grid.scale)[0, 0]


def _sharpness(observation: Observation) -> float:
    """How much brighter the pixel that a star is on is than the brightest of its neighbours."""
    seen = star(observation.camera, observation.image)
    around = seen[15:18, 15:18].clone()
    around[1, 1] = 0
    return float(seen[16, 16] / around.amax().clamp(min=1e-6))
