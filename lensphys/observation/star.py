"""What a PSF makes of a point."""

from __future__ import annotations

from torch import Tensor

from lensphys.observation.psf import PSF


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
