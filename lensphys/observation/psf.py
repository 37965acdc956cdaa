"""Point spread functions: an image of a star, as objects that blur."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from lensphys.checks import LensphysError, check_finite, check_positive
from lensphys.grid import PixelGrid
from lensphys.observation.per_image import PerImage

_FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))
_LARGEST_DIRECT_KERNEL = 15  # pixels; above it the FFT is faster


class PSF(Protocol):
    """What blurs an image. The flux inside the field is kept, but for what leaves it at the edge."""

    def blur(self, image: Tensor, scale: float) -> Tensor:
        """Return the blurred image (B, 1, H, W) of an image (B, 1, H, W) with pixels of ``scale`` [arcsec]."""
        ...

    def rows(self, index: Tensor) -> Self:
        """Return the PSF of some images (indices) of the batch."""
        ...

    def to(self, device: torch.device | str) -> Self:
        """Return the PSF with its tensors on a device."""
        ...


@dataclass(frozen=True)
class NoPSF(PerImage):
    """No blur at all."""

    def blur(self, image: Tensor, scale: float) -> Tensor:
        """Return the image as it is."""
        return image


@dataclass(frozen=True)
class GaussianPSF(PerImage):
    """A circular Gaussian, sampled at pixel centres and normalised; edge pixels are repeated outside of the image.

    This is lenstronomy's ``GAUSSIAN`` to the last digit (``scipy.ndimage.gaussian_filter``, ``mode="nearest"``).

    Args:
        fwhm: full width at half maximum [arcsec]: a number, or a tensor (B,) with one for each image.
        truncate: radius at which the kernel ends [sigma].

    Raises:
        LensphysError: if a width is not positive and finite.
    """

    fwhm: float | Tensor
    truncate: float = 5.0
    _widest: float = field(init=False, repr=False, compare=False)  # known here, so that no blur makes a GPU wait

    def __post_init__(self) -> None:
        widths = torch.as_tensor(self.fwhm, dtype=None if isinstance(self.fwhm, Tensor) else torch.float64).detach()
        for extreme in (widths.min(), widths.max()):
            check_positive("PSF FWHM", float(extreme))
        object.__setattr__(self, "_widest", float(widths.max()))

    def blur(self, image: Tensor, scale: float) -> Tensor:
        """Return the blurred image (B, 1, H, W); scale in arcsec."""
        sigma = (
            torch.as_tensor(self.fwhm, dtype=image.dtype, device=image.device).reshape(-1, 1) / _FWHM_PER_SIGMA / scale
        )
        radius = int(self.truncate * self._widest / _FWHM_PER_SIGMA / scale + 0.5)
        if radius == 0:
            return image
        x = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
        # each kernel ends at its own radius: an image looks the same in any batch
        kernel = torch.exp(-0.5 * (x / sigma) ** 2) * (x.abs() <= (self.truncate * sigma + 0.5).floor())
        kernel = (kernel / kernel.sum(1, keepdim=True)).expand(len(image), -1)
        planes = F.pad(image, (radius,) * 4, mode="replicate").transpose(0, 1)
        planes = F.conv2d(planes, kernel[:, None, :, None], groups=len(image))
        return F.conv2d(planes, kernel[:, None, None, :], groups=len(image)).transpose(0, 1)


@dataclass(frozen=True)
class PixelPSF(PerImage):
    """A kernel on pixels, as telescopes publish it, one for all images; nothing comes in from outside of the image.

    Args:
        kernel: (K, K), K odd, sum 1.
        scale: pixel scale of the kernel [arcsec].

    Raises:
        LensphysError: if the kernel is even-sized, not square, not finite or does not sum to 1 within 1 %.
    """

    kernel: Tensor
    scale: float

    def __post_init__(self) -> None:
        k = self.kernel
        if k.ndim != 2 or k.shape[0] != k.shape[1]:
            raise LensphysError(f"a PSF kernel must be square (K, K), got {tuple(k.shape)}")
        if len(k) % 2 == 0:
            raise LensphysError(
                f"a PSF kernel must have an odd number of pixels, so that one is its centre, got {len(k)} x {len(k)}: "
                "resample it onto an odd grid"
            )
        check_finite("the PSF kernel", k)
        check_positive("PSF pixel scale", self.scale)
        total = float(k.sum())
        if abs(total - 1) > 0.01:
            raise LensphysError(f"a PSF kernel must sum to 1, this one sums to {total:.4g}: divide it by its sum")

    def rows(self, index: Tensor) -> Self:
        """Return the same PSF: its kernel is that of every image."""
        return self

    def at(self, scale: float) -> Tensor:
        """Return the kernel on pixels of another scale (bicubic, normalised, odd-sized), (K', K')."""
        if math.isclose(scale, self.scale, rel_tol=1e-3):
            return self.kernel / self.kernel.sum()
        grid = PixelGrid(len(self.kernel), len(self.kernel), self.scale)
        size = max(1, 2 * int((len(self.kernel) * self.scale / scale - 1) / 2) + 1)
        positions = PixelGrid(size, size, scale).positions(like=self.kernel)
        kernel = grid.sample(self.kernel[None, None], positions, mode="bicubic")[0, 0]
        return kernel / kernel.sum()

    def blur(self, image: Tensor, scale: float) -> Tensor:
        """Return the blurred image (B, 1, H, W); scale in arcsec."""
        kernel = self.at(scale).to(image)
        size, half = len(kernel), len(kernel) // 2
        if size <= _LARGEST_DIRECT_KERNEL:
            return F.conv2d(image, kernel.flip(0, 1)[None, None], padding=half)
        shape = [n + size - 1 for n in image.shape[-2:]]
        spectrum = torch.fft.rfft2(image, s=shape) * torch.fft.rfft2(kernel, s=shape)
        full = torch.fft.irfft2(spectrum, s=shape)
        return full[..., half : half + image.shape[-2], half : half + image.shape[-1]]
