"""The PSF of a camera as a kernel on pixels, for files and other tools."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any

import torch
from numpy.typing import NDArray

from lensphys.observation.camera import Camera
from lensphys.observation.moffat import MoffatPSF
from lensphys.observation.psf import PSF, NoPSF, PixelPSF
from lensphys.observation.star import star

Array = NDArray[Any]


def psf_kernel(camera: Camera) -> tuple[Array, float] | None:
    """Return the PSF on the pixels on which a camera blurs, those of the image or its supersampled ones.

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
