"""What a PSF makes of a point."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lensphys.observation.psf import PSF

if TYPE_CHECKING:
    from lensphys.observation.camera import Camera

_SIDE = 33  # of the image of a star [pixels]


def star(psf: PSF, scale: float, shape: tuple[int, int], *, like: Tensor, count: int = 1) -> Tensor:
    """Return stars of flux 1 in the middle of the middle pixel, (count, 1, H, W) [share of the flux per pixel].

    Args:
        psf: of one camera, or of as many as there are stars.
        scale: of the pixels [arcsec].
        shape: H and W; the middle is the pixel at half of them, rounded down.
        like: gives dtype and device, any shape.
        count: how many.
    """
    point = like.new_zeros(count, 1, *shape)
    point[..., shape[0] // 2, shape[1] // 2] = 1
    return psf.blur(point, scale)


def first_star(camera: Camera, like: Tensor) -> Tensor:
    """Return a star on the pixels of the first camera of a batch, (33, 33) [share of the flux per pixel].

    Args:
        camera: pixels and PSF.
        like: gives dtype and device, any shape.
    """
    return star(camera.rows(torch.tensor([0])).psf, camera.grid.scale, (_SIDE, _SIDE), like=like)[0, 0]


def star_width(camera: Camera, like: Tensor) -> float:
    """Return sigma of the Gaussian whose middle pixel holds as much of a star's light as the PSF's [arcsec].

    Args:
        camera: pixels and PSF.
        like: gives dtype and device, any shape.
    """
    peak = float(first_star(camera, like).amax())
    return camera.grid.scale / math.sqrt(2 * math.pi * max(peak, 1e-6))
