"""The Moffat PSF: the core and the wings of a star seen through the air."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.observation.per_image import Blurring
from lensphys.observation.psf import check_widths, convolved, widest


@dataclass(frozen=True)
class MoffatPSF(Blurring):
    """A circular Moffat profile, (1 + r^2 / a^2)^-beta, sampled at pixel centres and normalised.

    The kernel is a square that holds all of the light but ``lost``, or more; nothing comes in from outside of the
    image.

    Args:
        fwhm: full width at half maximum [arcsec]: a number, or a tensor (B,) with one for each image.
        beta: how fast the wings fall, without unit, 2 or more; 4.765 is turbulent air, a large one a Gaussian.
        lost: share of the light that may be cut off with the wings, between 0 and 1.

    Raises:
        LensphysError: if a width is not positive and finite, beta is below 2, or ``lost`` is not between 0 and 1.

    Source: Moffat 1969, A&A 3, 455; Trujillo et al. 2001, MNRAS 328, 977.
    """

    fwhm: float | Tensor
    beta: float
    lost: float = 1e-3
    _widest: float = field(init=False, repr=False, compare=False)  # known here, so that no blur makes a GPU wait

    def __post_init__(self) -> None:
        check_widths(self.fwhm)
        if not 2 <= self.beta < math.inf:
            raise LensphysError(
                f"beta of a Moffat PSF must be 2 or more and finite, got {self.beta}: below, its wings hardly end"
            )
        if not 0 < self.lost < 1:
            raise LensphysError(f"the light that a Moffat PSF has lost must be between 0 and 1, got {self.lost}")
        object.__setattr__(self, "_widest", widest(self.fwhm))

    @property
    def extent(self) -> float:
        """The full width at half maximum [arcsec], of the widest."""
        return widest(self.fwhm)

    def kernel(self, scale: float, *, like: Tensor) -> Tensor:
        """Return the kernels on pixels of ``scale`` [arcsec], (B or 1, 1, K, K); dtype and device of ``like``."""
        fwhm = torch.as_tensor(self.fwhm, dtype=like.dtype, device=like.device).reshape(-1, 1, 1, 1) / scale
        radius_per_fwhm = 0.5 * math.sqrt((self.lost ** (1 / (1 - self.beta)) - 1) / (2 ** (1 / self.beta) - 1))
        radius = math.ceil(radius_per_fwhm * self._widest / scale - 0.5)
        x = torch.arange(-radius, radius + 1, dtype=like.dtype, device=like.device)
        r2 = x[:, None] ** 2 + x**2
        # each kernel ends at its own radius: an image looks the same in any batch
        inside = torch.maximum(x[:, None].abs(), x.abs()) <= (radius_per_fwhm * fwhm - 0.5).ceil()
        kernel = (1 + 4 * (2 ** (1 / self.beta) - 1) * r2 / fwhm**2) ** -self.beta * inside
        return kernel / kernel.sum((2, 3), keepdim=True)

    def blur(self, image: Tensor, scale: float) -> Tensor:
        """Return the blurred image (B, 1, H, W); scale in arcsec."""
        kernel = self.kernel(scale, like=image)
        return image if kernel.shape[-1] == 1 else convolved(image, kernel)
