"""Richardson-Lucy deconvolution: the classical way to sharpen an image whose PSF is known."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from lensphys.basics.settings import Strict
from lensphys.methods.interpolation import interpolate
from lensphys.observation import PSF, Observation, block_sum
from lensphys.observation.star import star
from lensphys.prediction import Prediction
from lensphys.tracing.grid import PixelGrid


class RichardsonLucy(Strict):
    """Richardson-Lucy deconvolution of the bicubic image by the instrument's PSF, seen with the target PSF, or its own.

    Noise is not positive but the algorithm wants positive images: it works on the image plus a pedestal, the depth of
    its lowest unmasked pixel.

    Args:
        iterations: the more, the sharper and the noisier.
        cut: share of the PSF's flux that may be left out with its faint edge, for speed.

    Source: Richardson (1972), Lucy (1974), as scikit-image has it.

    Example:
        >>> from lensphys.observation import Instrument
        >>> observation = Instrument.named("model_3").observation(torch.rand(1, 1, 8, 8))
        >>> RichardsonLucy(iterations=2).predict(observation, 2).image.shape
        torch.Size([1, 1, 16, 16])
    """

    name: Literal["richardson_lucy"] = "richardson_lucy"
    iterations: PositiveInt = 10
    cut: PositiveFloat = 1e-4

    def predict(self, observation: Observation, scale: int) -> Prediction:
        """Return the deconvolved images, blurred again to the target PSF, or to the image's own where none is set."""
        camera = observation.camera
        target = camera.at(scale)
        masked = torch.where(observation.weight > 0, observation.image, torch.inf)
        pedestal = (-masked.flatten(1).amin(1)).clamp(min=0)[:, None, None, None]
        pedestal = pedestal.where(pedestal.isfinite(), torch.zeros_like(pedestal))
        fine = interpolate(observation.image, scale, "bicubic") + pedestal / scale**2
        kernels = psf_kernels(camera.psf, target.grid, like=fine, cut=self.cut)
        image = self._deconvolved(fine.clamp(min=0), kernels) - pedestal / scale**2
        observed = block_sum(camera.psf.blur(image, target.grid.scale), camera.grid)
        return Prediction(target.psf.blur(image, target.grid.scale), target, observed)

    def _deconvolved(self, images: Tensor, kernels: Tensor) -> Tensor:
        from skimage.restoration import richardson_lucy

        half = kernels.shape[-1] // 2
        unit = images.flatten(1).mean(1).clamp(min=torch.finfo(images.dtype).tiny)[:, None, None, None]
        padded = F.pad(images / unit, (half,) * 4, mode="replicate").detach().cpu().numpy()
        found = [
            richardson_lucy(image, kernel, num_iter=self.iterations, clip=False)
            for image, kernel in zip(padded[:, 0], kernels[:, 0].detach().cpu().numpy(), strict=True)
        ]
        height, width = images.shape[-2:]
        inner = np.stack(found)[:, None, half : half + height, half : half + width]
        return torch.from_numpy(np.ascontiguousarray(inner)).to(images) * unit


def psf_kernels(psf: PSF, grid: PixelGrid, *, like: Tensor, cut: float = 1e-4) -> Tensor:
    """Return what a PSF makes of a star on the pixels of a grid, (B, 1, K, K) [share of the flux], K odd, in the grid.

    Args:
        psf: any.
        grid: pixels; its shorter side limits the kernel.
        like: (B, 1, H, W), for the batch, the dtype and the device.
        cut: share of the flux that may be left out with the faint edge.
    """
    half = (min(grid.shape) - 1) // 2
    shape = 2 * half + 1, 2 * half + 1
    kernels = star(psf, grid.scale, shape, like=like, count=len(like)).clamp(min=0)
    radius = next(r for r in range(half + 1) if r == half or bool((_inner(kernels, r) > 1 - cut).all()))
    kernels = kernels[..., half - radius : half + radius + 1, half - radius : half + radius + 1]
    return kernels / kernels.sum((2, 3), keepdim=True)


def _inner(kernels: Tensor, radius: int) -> Tensor:
    """The fraction of the flux (B,) within ``radius`` pixels along both axes."""
    half = kernels.shape[-1] // 2
    part = kernels[..., half - radius : half + radius + 1, half - radius : half + radius + 1]
    return part.sum((1, 2, 3)) / kernels.sum((1, 2, 3))
