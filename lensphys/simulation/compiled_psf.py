"""The Gaussian PSF by a compiled kernel, without gradients, on a processor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lensphys.observation import PSF, GaussianPSF


@dataclass(frozen=True)
class CompiledGaussianPSF(GaussianPSF):
    """A `GaussianPSF` that blurs several times as fast."""

    def blur(self, image: Tensor, scale: float) -> Tensor:
        """Return the blurred image (B, 1, H, W); scale in arcsec."""
        from lensphys.model import kernels

        # summed in float64: the sum of a line that is padded for wider ones is then the same to float32
        lines = self.profiles(scale, image.double()).to(image.dtype).expand(len(image), -1).contiguous()
        planes = image[:, 0].contiguous()
        out = torch.empty_like(planes)
        kernels.blur(planes.numpy(), lines.numpy(), out.numpy())
        return out[:, None]


def compiled_psf(psf: PSF) -> PSF:
    """Return a PSF that does the same, compiled where there is a kernel for it."""
    return CompiledGaussianPSF(psf.fwhm, psf.truncate) if isinstance(psf, GaussianPSF) else psf
