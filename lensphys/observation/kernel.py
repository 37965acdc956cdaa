"""The PSF of a camera as a kernel on pixels, for files and other tools."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from lensphys.observation.camera import Camera
from lensphys.observation.moffat import MoffatPSF
from lensphys.observation.psf import FWHM_PER_SIGMA, PSF, NoPSF, PixelPSF
from lensphys.observation.star import star

Array = NDArray[Any]

_SIDE = 33  # of the image of a star [pixels]


def psf_kernel(camera: Camera) -> tuple[Array, float] | None:
    """Return the PSF on the pixels on which a camera blurs, those of the image or its supersampled ones.

    Of a batch whose images differ in it, that of the first one.

    Returns:
        The kernel (K, K), K odd, with the sum 1, and the scale of its pixels [arcsec]; None without a PSF.
    """
    if isinstance(camera.psf, NoPSF):
        return None
    scale = camera.grid.scale / (camera.supersampling if camera.blurs_first else 1)
    kernel = _kernel(camera.psf, scale).double().numpy()
    return kernel / kernel.sum(), scale


@singledispatch
def _kernel(psf: PSF, scale: float) -> torch.Tensor:
    """The kernel (K, K) of a PSF on pixels of a scale [arcsec]: what it makes of a star, if it has none itself."""
    half = math.ceil(3 * psf.extent / scale) + 1  # 5 sigma are 2.1 FWHM
    shape = 2 * half + 1, 2 * half + 1
    image = star(psf, scale, shape, like=torch.empty(0, dtype=torch.float64))[0, 0]
    edge = int((image[half] > 0).nonzero()[0])
    return image[edge : len(image) - edge, edge : len(image) - edge]


@_kernel.register
def _(psf: PixelPSF, scale: float) -> torch.Tensor:
    return psf.at(scale)


@_kernel.register
def _(psf: MoffatPSF, scale: float) -> torch.Tensor:
    return psf.kernel(scale, like=torch.empty(0, dtype=torch.float64))[0, 0]


def first_star(camera: Camera, like: Tensor) -> Tensor:
    """Return a star on the pixels of the first camera of a batch, (33, 33) [share of the flux per pixel].

    Args:
        camera: pixels and PSF.
        like: gives dtype and device, any shape.
    """
    return star(camera.rows(torch.tensor([0])).psf, camera.grid.scale, (_SIDE, _SIDE), like=like)[0, 0]


def from_beyond(profile: Tensor) -> Tensor:
    """Return the share of a star's light that the n-th pixel from a border gets from beyond it, (K // 2,).

    Args:
        profile: of a star along the way to the border, (K,), K odd [share of its light].
    """
    half = len(profile) // 2
    return profile.flip(0).cumsum(0)[:half].flip(0)  # all that is more than n pixels from its middle


def star_width(camera: Camera, like: Tensor) -> float:
    """Return sigma of the Gaussian whose middle pixel holds as much of a star's light as the PSF's [arcsec].

    Args:
        camera: pixels and PSF.
        like: gives dtype and device, any shape.
    """
    peak = float(first_star(camera, like).amax())
    return camera.grid.scale / math.sqrt(2 * math.pi * max(peak, 1e-6))


def star_fwhm(camera: Camera, like: Tensor) -> float:
    """Return the full width at half maximum of that Gaussian [arcsec]: see `star_width`."""
    return FWHM_PER_SIGMA * star_width(camera, like)
