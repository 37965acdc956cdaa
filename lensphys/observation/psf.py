"""Point spread functions: an image of a star, as objects that blur."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar, Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lensphys.basics.checks import LensphysError, check_finite, check_positive
from lensphys.basics.constants import remembered
from lensphys.observation.per_image import Blurring

FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))
_LARGEST_MATRIX = 384  # pixels along a side of what is made: up to here by one matrix, else a block at a time
_BLOCK = 32  # pixels
_MOST_KNOWN = 16  # responses that a kernel keeps: a spectrum for each size of image and pixel


class PSF(Protocol):
    """What blurs an image. The flux inside the field is kept, but for what leaves it at the edge."""

    @property
    def extent(self) -> float:
        """The size on the sky [arcsec]: the FWHM of a profile, the side of a kernel, 0 for none."""
        ...

    @property
    def words(self) -> str:
        """What it is, in a few words: its kind and its size."""
        ...

    @property
    def shared(self) -> bool:
        """Whether it is the same for all images."""
        ...

    @property
    def known(self) -> bool:
        """Whether anybody said how images were blurred."""
        ...

    def blur(self, image: Tensor, scale: float) -> Tensor:
        """Return the blurred image (B, 1, H, W) of an image (B, 1, H, W) with pixels of ``scale`` [arcsec]."""
        ...

    def summed(self, image: Tensor, scale: float, points: int) -> Tensor:
        """Return the blurred image of an image (B, 1, H, W) with pixels of ``scale`` [arcsec], on larger pixels.

        Summed into pixels ``points`` times as large, (B, 1, H / points, W / points).
        """
        ...

    def rows(self, index: Tensor) -> Self:
        """Return the PSF of some images of the batch, by their indices (n,)."""
        ...

    def joined(self, others: Sequence[Self], order: Tensor) -> Self:
        """Return the PSF of a batch from that of its first part, those of the others, and their order (B,)."""
        ...

    def to(self, device: torch.device | str) -> Self:
        """Return the PSF with its tensors on a device."""
        ...


@dataclass(frozen=True)
class NoPSF(Blurring):
    """No blur at all."""

    @property
    def words(self) -> str:
        """None, or that it is unknown."""
        return "none" if self.known else "unknown"

    @property
    def extent(self) -> float:
        """Zero."""
        return 0.0

    def blur(self, image: Tensor, scale: float) -> Tensor:
        """Return the image (B, 1, H, W) as it is."""
        return image


@dataclass(frozen=True)
class UnknownPSF(NoPSF):
    """No blur, since nobody said how images were blurred: what is fitted to them cannot be trusted."""

    known: ClassVar[bool] = False


@dataclass(frozen=True)
class GaussianPSF(Blurring):
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
        check_widths(self.fwhm)
        object.__setattr__(self, "_widest", widest(self.fwhm))

    @property
    def extent(self) -> float:
        """The full width at half maximum [arcsec], of the widest."""
        return widest(self.fwhm)

    def profiles(self, scale: float, like: Tensor) -> Tensor:
        """Return the PSF along a line of pixels of a scale [arcsec], (B or 1, K), K odd; on the device of ``like``."""
        sigma = torch.as_tensor(self.fwhm, dtype=like.dtype, device=like.device).reshape(-1, 1) / FWHM_PER_SIGMA / scale
        radius = int(self.truncate * self._widest / FWHM_PER_SIGMA / scale + 0.5)
        x = torch.arange(-radius, radius + 1, dtype=like.dtype, device=like.device)
        # each kernel ends at its own radius: an image looks the same in any batch
        kernel = torch.exp(-0.5 * (x / sigma) ** 2) * (x.abs() <= (self.truncate * sigma + 0.5).floor())
        return kernel / kernel.sum(1, keepdim=True)

    def blur(self, image: Tensor, scale: float) -> Tensor:
        """Return the blurred image (B, 1, H, W); scale in arcsec."""
        kernel = self.profiles(scale, image)
        radius = kernel.shape[1] // 2
        if radius == 0:
            return image
        if max(image.shape[-2:]) <= _LARGEST_MATRIX:
            return _along_both(image, *(_band(kernel, n) for n in image.shape[-2:]))
        return _in_blocks(image, kernel, 1)

    def summed(self, image: Tensor, scale: float, points: int) -> Tensor:
        """Return the blurred image (B, 1, H, W) summed, see `PSF.summed`: one matrix an axis does both."""
        if max(image.shape[-2:]) > _LARGEST_MATRIX * points:
            return _in_blocks(image, self.profiles(scale, image), points)
        if isinstance(self.fwhm, Tensor):
            kernel = self.profiles(scale, image)
            return _along_both(image, *(_summing(kernel, n, points) for n in image.shape[-2:]))
        where = image.dtype, image.device
        return _along_both(image, *(_known_summing(self, scale, n, points, *where) for n in image.shape[-2:]))


def _along_both(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Images (B, 1, H, W) times matrices (B or 1, m, H) along y and (B or 1, n, W) along x, (B, 1, m, n)."""
    if len(rows) == 1:  # one large product along x in place of many small ones
        return (rows[0] @ image) @ columns[0].T
    return rows[:, None] @ image @ columns[:, None].transpose(-1, -2)


def _summing(kernel: Tensor, n: int, points: int) -> Tensor:
    """The matrices (B, n / points, n) that convolve n pixels with kernels (B, K) and add them up by so many."""
    return _band(kernel, n).unflatten(1, (-1, points)).sum(2)


@remembered(64)  # a fit asks for the same few thousands of times
def _known_summing(
    psf: GaussianPSF, scale: float, n: int, points: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """The matrix (1, n / points, n) of a Gaussian of one width."""
    return _summing(psf.profiles(scale, torch.empty(0, dtype=dtype, device=device)), n, points)


def _in_blocks(image: Tensor, kernel: Tensor, points: int) -> Tensor:
    """Images (B, 1, H, W) convolved with kernels (B or 1, K) along both axes, then summed by so many pixels.

    The edge pixels are repeated outside. Each block of pixels is a matrix times those that it sees.
    """
    blocks = _block(kernel, points)[:, None, None]
    for _ in range(2):
        image = _along_rows(image, blocks, kernel.shape[1] // 2, points).transpose(-1, -2)
    return image


def _along_rows(image: Tensor, block: Tensor, radius: int, points: int) -> Tensor:
    """Images (B, 1, H, W) convolved and summed along their rows, (B, 1, H, W / points): see `_block`."""
    width = image.shape[-1]
    step = _BLOCK * points
    missing = -width % step
    seen = F.pad(image, (radius, missing + radius, 0, 0), mode="replicate").unfold(-1, block.shape[-2], step)
    return (seen @ block).flatten(-2)[..., : width // points]


def _block(kernel: Tensor, points: int) -> Tensor:
    """The matrices (B, S, n) that make n summed pixels of the S that they see, for kernels (B, K)."""
    wide = F.conv1d(kernel[:, None], kernel.new_ones(1, 1, points), padding=points - 1)[:, 0]
    first = points * torch.arange(_BLOCK, device=kernel.device)
    seen = torch.arange(wide.shape[1], device=kernel.device)[:, None] + first
    blank = kernel.new_zeros(len(kernel), _BLOCK * points + kernel.shape[1] - 1, _BLOCK)
    return blank.scatter_(1, seen.expand(len(kernel), -1, -1), wide[:, :, None].expand(-1, -1, _BLOCK))


def _band(kernel: Tensor, n: int) -> Tensor:
    """The matrices (B, n, n) that convolve n pixels with kernels (B, K), the edge pixels repeated outside."""
    radius = kernel.shape[1] // 2
    x = torch.arange(-radius, radius + 1, device=kernel.device)
    read = (torch.arange(n, device=kernel.device)[:, None] + x).clamp(0, n - 1).expand(len(kernel), -1, -1)
    blank = kernel.new_zeros(len(kernel), n, n)
    return blank.scatter_add(2, read, kernel[:, None].expand(-1, n, -1))


@dataclass(frozen=True)
class PixelPSF(Blurring):
    """A kernel on pixels, as telescopes publish it, one for all images; nothing comes in from outside of the image.

    Its pixels need not be those of the image: `at` resamples it.

    Args:
        kernel: (K, K), K odd, sum 1 [share of a point's flux].
        scale: pixel scale of the kernel [arcsec].

    Raises:
        LensphysError: if the kernel is even-sized, not square, not finite or does not sum to 1 within 1 %.
    """

    kernel: Tensor
    scale: float
    _known: dict[Hashable, tuple[list[int], Tensor]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

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
        total = float(k.detach().sum())
        if abs(total - 1) > 0.01:
            raise LensphysError(f"a PSF kernel must sum to 1, this one sums to {total:.4g}: divide it by its sum")

    @property
    def shared(self) -> bool:
        """Always: its kernel is that of every image."""
        return True

    def rows(self, index: Tensor) -> Self:
        """Return the same PSF: its kernel is that of every image."""
        return self

    @property
    def extent(self) -> float:
        """The side of the kernel [arcsec]."""
        return len(self.kernel) * self.scale

    @property
    def words(self) -> str:
        """That it is a kernel, and its side."""
        return f'kernel, {self.extent:.3g}" along a side'

    def at(self, scale: float) -> Tensor:
        """Return the kernel on pixels of another scale [arcsec], normalised and odd-sized, (K', K').

        A kernel holds its own pixel, of the side s: it is what a star looks like on such pixels. A cubic spline through
        its growing sum shares it out to finer pixels, which add up to it again, and rebins it into coarser ones: on
        pixels of the side S its second moment grows by (S^2 - s^2) / 12, which is less than nothing where S < s. A
        kernel of a single pixel stands for no blur.
        """
        kernel = self.kernel
        if len(kernel) > 1 and not math.isclose(scale, self.scale, rel_tol=1e-3):
            weight = _resampling(len(kernel), scale / self.scale).to(kernel)
            kernel = weight @ kernel @ weight.T
        return kernel / kernel.sum()

    def blur(self, image: Tensor, scale: float) -> Tensor:
        """Return the blurred image (B, 1, H, W); scale in arcsec."""
        return convolved(image, self.at(scale).to(image)[None, None])

    def summed(self, image: Tensor, scale: float, points: int) -> Tensor:
        """Return the blurred image (B, 1, H, W) summed, see `PSF.summed`: by an FFT, only the pixels that count."""
        seen = image.shape[-2:]
        key = (scale, points, *seen, image.dtype, image.device)
        known = self._known.get(key)  # a fit asks for the same few thousands of times
        if known is None:
            kernel = self.at(scale).to(image.device)
            shape = [points * _fast_size(math.ceil((n + len(kernel) - 1) / points)) for n in seen]
            known = shape, _response(kernel, shape, points).to(image.dtype.to_complex())
            if len(self._known) >= _MOST_KNOWN:
                self._known.pop(next(iter(self._known)), None)
            self._known[key] = known
        shape, response = known
        spectrum = torch.fft.rfft2(image, s=shape) * response
        rows = torch.fft.ifft(spectrum.unflatten(-2, (points, -1)).mean(-3), dim=-2)[..., : seen[0] // points, :]
        return torch.fft.irfft(_folded(rows, shape[1], points), n=shape[1] // points)[..., : seen[1] // points]


def _response(kernel: Tensor, shape: list[int], points: int) -> Tensor:
    """What convolves with a kernel (K, K) and adds each pixel up with the next: a half spectrum (H, W / 2 + 1)."""
    reach = torch.arange(points, device=kernel.device) + len(kernel) // 2
    spectrum = torch.fft.rfft2(kernel.double(), s=shape)
    y, x = (
        torch.exp(2j * math.pi * waves(n, dtype=torch.float64, device=kernel.device)[:, None] * reach).sum(1)
        for waves, n in zip((torch.fft.fftfreq, torch.fft.rfftfreq), shape, strict=True)
    )
    return spectrum * y[:, None] * x


def _folded(spectrum: Tensor, width: int, points: int) -> Tensor:
    """The half spectrum of rows of which every so manieth number is kept, from theirs (..., width / 2 + 1)."""
    fewer = width // points
    last, total = fewer // 2, torch.zeros((), device=spectrum.device)
    for first in range(0, width, fewer):
        if 2 * first < width:
            total = total + spectrum[..., first : first + last + 1]
        else:  # of a real row, which is the mirror image of the other half
            total = total + spectrum[..., width - first - last : width - first + 1].flip(-1).conj()
    return total / points


@remembered(64)  # a fit asks for the same few thousands of times
def _resampling(size: int, ratio: float) -> Tensor:
    """Return what turns K pixels into K' that are ``ratio`` times as large, along one axis, (K', K)."""
    from scipy.interpolate import make_interp_spline

    number = max(1, 2 * math.ceil((size / ratio - 1) / 2 - 1e-9) + 1)  # they cover the kernel
    x = (np.arange(number) - (number - 1) / 2) * ratio
    edges = np.arange(size + 1) - size / 2
    grown = np.concatenate([np.zeros((1, size)), np.eye(size).cumsum(0)])
    inside = make_interp_spline(edges, grown, k=min(3, size))
    low, high = (np.clip(edge, *edges[[0, -1]]) for edge in (x - ratio / 2, x + ratio / 2))
    return torch.from_numpy(inside(high) - inside(low))


def convolved(image: Tensor, kernel: Tensor) -> Tensor:
    """Return images convolved with kernels; nothing comes in from outside of the image.

    Args:
        image: (B, 1, H, W) [any unit].
        kernel: (B or 1, 1, K, K) [share of a point's flux], K odd.

    Returns:
        (B, 1, H, W) [unit of the image].
    """
    size, half = kernel.shape[-1], kernel.shape[-1] // 2
    shape = [_fast_size(n + size - 1) for n in image.shape[-2:]]
    spectrum = torch.fft.rfft2(image, s=shape) * torch.fft.rfft2(kernel, s=shape)
    full = torch.fft.irfft2(spectrum, s=shape)
    return full[..., half : half + image.shape[-2], half : half + image.shape[-1]]


@lru_cache(maxsize=64)
def _fast_size(size: int) -> int:
    """The next number of pixels for which an FFT is fast."""
    from scipy.fft import next_fast_len

    return int(next_fast_len(size, real=True))


def widest(fwhm: float | Tensor) -> float:
    """Return the largest of some widths, a number or any shape [arcsec]."""
    return float(fwhm.detach().max()) if isinstance(fwhm, Tensor) else float(fwhm)


def check_widths(fwhm: float | Tensor) -> None:
    """Raise unless every width, a number or (B,) [arcsec], is positive and finite.

    Raises:
        LensphysError: with the value that came.
    """
    for extreme in (fwhm.detach().min(), fwhm.detach().max()) if isinstance(fwhm, Tensor) else (fwhm,):
        check_positive("PSF FWHM", float(extreme))
