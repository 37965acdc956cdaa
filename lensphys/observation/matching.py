"""The kernel that turns one PSF into a wider one."""

from __future__ import annotations

import torch
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.observation.psf import PSF
from lensphys.observation.star import star


def matching_kernel(sharp: PSF, wide: PSF, scale: float, *, size: int, like: Tensor, floor: float = 1e-3) -> Tensor:
    """Return the kernel which, convolved with ``sharp``, gives ``wide``.

    The ratio of their transfer functions, regularised where the sharp one vanishes.

    Args:
        sharp: the PSF that an image has.
        wide: the PSF that it shall have.
        scale: pixel scale [arcsec].
        size: pixels of the kernel, odd.
        like: gives dtype and device.
        floor: of the sharp transfer function, a share of its peak: below it the ratio is noise.

    Returns:
        (1 or B, 1, size, size), sum 1.

    Raises:
        LensphysError: if ``size`` is even.

    Source: Aniano et al. 2011, arXiv:1106.5065, eq. 5, with a Wiener floor in place of their cut.
    """
    if size % 2 == 0:
        raise LensphysError(f"the size of a kernel must be odd, so that one pixel is its centre, got {size}")
    stars = (star(psf, scale, (size, size), like=like.double()) for psf in (sharp, wide))
    have, want = (torch.fft.rfft2(torch.fft.ifftshift(seen, dim=(-2, -1))) for seen in stars)
    ratio = want * have.conj() / (have.abs().square() + floor**2)
    kernel = torch.fft.fftshift(torch.fft.irfft2(ratio, s=(size, size)), dim=(-2, -1))
    return (kernel / kernel.sum((-2, -1), keepdim=True)).to(like)
