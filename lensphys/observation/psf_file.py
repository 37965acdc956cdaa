"""PSF kernels from files: one reader for instruments and for a user's own, and what makes their kernels usable."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveFloat

from lensphys.basics.checks import LensphysError, check_file, check_positive
from lensphys.basics.settings import Strict
from lensphys.observation.psf import PixelPSF

if TYPE_CHECKING:
    from lensphys.fits.given import Subject
    from lensphys.fits.kernel import CubePlane, Kernel

Array = NDArray[Any]

LARGEST_SIDE = 4095  # pixels, 64 MiB


class KernelChecks(Strict):
    """What a kernel in a file may be off by.

    Args:
        least_sum: of its pixels, where 1 is right: below it a kernel is refused; above, it is divided by its sum: on
            disk some of the wings are missing.
        largest_sum: above it, likewise.
        rounding: difference of the sum from 1 that is not worth a word.
        edge: brightness at the edge, over the peak, above which a kernel is far too small, or no star.
        off_centre: of the centroid [kernel pixels], below which the middle pixel is as good.
    """

    least_sum: PositiveFloat = 0.9
    largest_sum: PositiveFloat = 1.1
    rounding: PositiveFloat = 1e-3
    edge: PositiveFloat = 0.1
    off_centre: PositiveFloat = 0.1


@dataclass(frozen=True)
class Star:
    """A kernel that can blur: odd-sized, finite, with the sum 1; and what was done to it.

    Args:
        kernel: (K, K) float64 [share of a point's flux].
        remarks: what was done, or is to be said, in words that follow the kernel's name.
    """

    kernel: Array
    remarks: tuple[str, ...] = ()

    def sentence(self, where: str, scale: float) -> str:
        """Return the sentence for the user on a kernel of this file and extension, and pixel scale [arcsec]."""
        done = f": {'; '.join(self.remarks)}" if self.remarks else ""
        return f'PSF: {where}, {len(self.kernel)} x {len(self.kernel)} pixels of {scale:.4g}"{done}'


def read_kernel(name: str, path: Path, image: Subject | None = None, plane: CubePlane | None = None) -> Kernel:
    """Return the PSF in a file.

    Args:
        name: what the file is called in messages.
        path: FITS (an extension named PSF, or the first image, or a PSFEx model) or .npy.
        image: of which it is, where a FITS file has several.
        plane: which one of a cube the image is, where the file has a kernel for each.

    Raises:
        LensphysError: if the file is missing or faulty, or has several and nothing tells which one.
    """
    from lensphys.fits.file import opened  # astropy, which simulating and fitting do without
    from lensphys.fits.given import Subject
    from lensphys.fits.kernel import Kernel, kernel_in, same_plane

    if path.suffix.lower() == ".npy":
        return Kernel(same_plane(_read_npy(name, path), plane), where=str(path))
    check_file(name, path)
    with opened(name, path) as file:
        return kernel_in(file, image or Subject(), plane)


def usable(kernel: Kernel, checks: KernelChecks = KernelChecks()) -> Star:
    """Return a kernel with the sum 1 and an odd number of pixels.

    Raises:
        LensphysError: if it is no image of a star: not square, not finite, or its sum is not 1 within 10 %.
    """
    values, remarks = kernel.values, list(kernel.remarks)
    _check(kernel, checks)
    total = float(values.sum())
    values = values / total
    if abs(total - 1) > checks.rounding:
        remarks.append(f"divided by its sum, {total:.4g}")
    if len(values) % 2 == 0:
        values = centred(values, len(values) - 1, checks)
        remarks.append(f"recentred from {len(kernel.values)} pixels a side onto {len(values)}")
    elif (off := float(np.abs(offset(values)).max())) > checks.off_centre:
        remarks.append(f"its centroid is {off:.2g} of its pixels off its middle")
    if (edge := edge_over_peak(values)) > checks.edge:
        remarks.append(f"it is cut off where it still has {100 * edge:.0f} % of its peak: is it a star?")
    return Star(values, tuple(remarks))


def offset(kernel: Array) -> Array:
    """Return where the centroid of a kernel's core lies, from its middle, (y, x) [its pixels].

    The core is what stands over a tenth of the peak: wings carry the sky's residual far out.
    """
    core = np.clip(kernel - 0.1 * kernel.max(), 0, None)
    axes = np.indices(kernel.shape) - (np.array(kernel.shape)[:, None, None] - 1) / 2
    return np.asarray((axes * core).sum((1, 2)) / core.sum())


def edge_over_peak(kernel: Array) -> float:
    """Return the mean brightness along the edge of a kernel (K, K), over that of its brightest pixel."""
    edge = np.concatenate([kernel[0], kernel[-1], kernel[1:-1, 0], kernel[1:-1, -1]])
    return float(edge.mean() / kernel.max()) if len(kernel) > 1 else 0.0


def centred(kernel: Array, size: int, checks: KernelChecks = KernelChecks()) -> Array:
    """Return a kernel with its centroid on the middle pixel, (size, size), sum 1.

    Whole pixels are cut off; only what is left of the way, if it is worth it, is a cubic spline's.
    """
    from scipy.ndimage import map_coordinates

    centre = (len(kernel) - 1) / 2 + offset(kernel)
    centre = np.where(np.abs(centre - np.round(centre)) < checks.off_centre, np.round(centre), centre)
    steps = np.arange(size) - (size - 1) / 2
    rows, columns = np.meshgrid(centre[0] + steps, centre[1] + steps, indexing="ij")
    moved = map_coordinates(kernel, [rows, columns], order=3, mode="constant")
    return moved / moved.sum()


def centred_psf(psf: PixelPSF, checks: KernelChecks = KernelChecks()) -> PixelPSF:
    """Return a kernel PSF whose centroid is its middle pixel: what it blurs stays where it is."""
    values = psf.kernel.double().cpu().numpy()
    if np.abs(offset(values)).max() <= checks.off_centre:
        return psf
    return replace(psf, kernel=torch.from_numpy(centred(values, len(values), checks)).to(psf.kernel))


def _check(kernel: Kernel, checks: KernelChecks) -> None:
    values, where = kernel.values, kernel.where
    if max(values.shape, default=0) > LARGEST_SIDE:
        raise LensphysError(
            f"{where} has the shape {values.shape}, a PSF kernel at most {LARGEST_SIDE} pixels a side: cut it"
        )
    if values.ndim != 2 or values.shape[0] != values.shape[1] or len(values) < 1:
        raise LensphysError(f"{where}: a PSF kernel must be square (K, K), got {values.shape}")
    if kernel.scale is not None:
        check_positive(f"the pixel scale of {where}", kernel.scale)
    if not np.isfinite(values).all():
        raise LensphysError(f"{where} holds NaN or infinite values: a PSF kernel must be finite")
    total = float(values.sum())
    if total <= 0:
        raise LensphysError(f"{where} sums to {total:.4g}: a PSF kernel must have light, and sum to 1")
    if not checks.least_sum <= total <= checks.largest_sum:
        raise LensphysError(
            f"{where} sums to {total:.4g}, a PSF kernel must sum to 1 within 10 %: divide it by its sum"
        )


def _read_npy(name: str, path: Path) -> Array:
    check_file(name, path)
    try:
        found = np.load(path, allow_pickle=False)
        if getattr(found, "dtype", np.dtype(bool)).kind not in "iuf":
            raise TypeError(f"it holds {getattr(found, 'dtype', 'an archive')}")
        return np.asarray(found, dtype=np.float64)
    except (ValueError, TypeError, OSError, EOFError, MemoryError, SyntaxError) as error:
        raise LensphysError(f"{name} {path} is not a plain .npy file of numbers: {str(error)[:60]}") from None
