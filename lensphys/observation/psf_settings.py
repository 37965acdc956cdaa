"""The PSF of an instrument: settings that build it, and kernels read from files into them."""

from __future__ import annotations

import base64
import binascii
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from lensphys.checks import LensphysError, check_file, check_positive
from lensphys.observation.moffat import MoffatPSF
from lensphys.observation.psf import PSF, GaussianPSF, NoPSF, PixelPSF
from lensphys.settings import Strict

_SCALE_KEYS = ("PIXELSCL", "PIXSCALE")  # STPSF; TinyTim and drizzled images
_LARGEST_SIDE = 4095  # pixels, 64 MiB
_NORMALISABLE = (0.9, 1.1)  # kernels on disk lack some of the wings


class NoPSFSettings(Strict):
    """No PSF."""

    kind: Literal["none"]

    def build(self, fwhm: Tensor | None = None) -> PSF:
        """Return the PSF, or a Gaussian of these widths (B,) [arcsec]."""
        return NoPSF() if fwhm is None else GaussianPSF(fwhm)


class GaussianPSFSettings(Strict):
    """A Gaussian PSF; FWHM in arcsec."""

    kind: Literal["gaussian"]
    fwhm: PositiveFloat = Field(allow_inf_nan=False)

    def build(self, fwhm: Tensor | None = None) -> PSF:
        """Return the PSF, with these widths (B,) [arcsec] in place of its own."""
        return GaussianPSF(self.fwhm if fwhm is None else fwhm)


class MoffatPSFSettings(Strict):
    """A Moffat PSF; FWHM in arcsec, beta 2 or more."""

    kind: Literal["moffat"]
    fwhm: PositiveFloat = Field(allow_inf_nan=False)
    beta: float = Field(ge=2, allow_inf_nan=False)

    def build(self, fwhm: Tensor | None = None) -> PSF:
        """Return the PSF, with these widths (B,) [arcsec] in place of its own."""
        return MoffatPSF(self.fwhm if fwhm is None else fwhm, self.beta)


class KernelPSFSettings(Strict):
    """A PSF kernel on pixels of any size, held here and not on disk: what names an instrument needs no other file.

    In an instrument's YAML file: ``{kind: kernel, file: psf.fits, pixel_scale: 0.03}``, the file beside the YAML one;
    without ``pixel_scale``, that of the FITS header.

    Args:
        pixel_scale: [arcsec].
        side: K, number of pixels along a side, at most 4095.
        pixels: (K, K) float32, little-endian, compressed by zlib, in base64.
    """

    kind: Literal["kernel"]
    pixel_scale: PositiveFloat = Field(allow_inf_nan=False)
    side: PositiveInt = Field(le=_LARGEST_SIDE)
    pixels: str = Field(repr=False)

    @classmethod
    def read(cls, path: Path, pixel_scale: float | None = None) -> KernelPSFSettings:
        """Return the kernel in a file.

        Args:
            path: FITS (the HDU named PSF, or the first image) or .npy, (K, K) with K odd, sum within 10 % of 1.
            pixel_scale: [arcsec]; that of the header, or of the file's first one, if None.

        Raises:
            LensphysError: if the file is missing, faulty or does not hold such a kernel, or has no pixel scale.
        """
        check_file("PSF kernel", path)
        kernel, own = _read_npy(path) if path.suffix.lower() == ".npy" else _read_fits(path)
        scale = own if pixel_scale is None else pixel_scale
        if scale is None:
            raise LensphysError(f"{path} has no pixel scale: give psf.pixel_scale [arcsec] beside psf.file")
        check_positive(f"the pixel scale of {path}", scale)
        if not np.isfinite(kernel).all():
            raise LensphysError(f"{path} holds NaN or infinite values: a PSF kernel must be finite")
        if max(kernel.shape, default=0) > _LARGEST_SIDE:
            raise LensphysError(
                f"{path} has the shape {kernel.shape}, a PSF kernel at most {_LARGEST_SIDE} pixels a side: cut it"
            )
        total, (low, high) = float(kernel.sum()), _NORMALISABLE
        if not low <= total <= high:
            raise LensphysError(f"{path} sums to {total:.4g}, a PSF kernel must to 1 within 10 %: divide it by its sum")
        try:
            PixelPSF(torch.from_numpy(kernel / total), scale)
        except LensphysError as error:
            raise LensphysError(f"{path}: {error}") from None
        data = (kernel / total).astype("<f4").tobytes()
        pixels = base64.b64encode(zlib.compress(data, 9)).decode("ascii")
        return cls(kind="kernel", pixel_scale=scale, side=len(kernel), pixels=pixels)

    def build(self, fwhm: Tensor | None = None) -> PSF:
        """Return the PSF.

        Raises:
            LensphysError: if widths are given, which a kernel does not have, or the kernel is damaged.
        """
        if fwhm is not None:
            raise LensphysError("psf_fwhm cannot vary an instrument whose PSF is a kernel: leave it out of the recipe")
        try:
            # no further than one byte too many: a short text may hold any number of bytes
            stream, most = zlib.decompressobj(), 4 * self.side**2 + 1
            data = stream.decompress(base64.b64decode(self.pixels, validate=True), most)
            whole = stream.eof
        except (binascii.Error, zlib.error, ValueError):
            data, whole = b"", False
        if not whole or len(data) != 4 * self.side**2:
            raise LensphysError("the PSF kernel of the instrument is damaged: read it from its file again")
        kernel = np.frombuffer(data, "<f4").reshape(self.side, self.side).astype(np.float64)
        return PixelPSF(torch.from_numpy(kernel / kernel.sum()), self.pixel_scale)


PSFSettings = NoPSFSettings | GaussianPSFSettings | MoffatPSFSettings | KernelPSFSettings


def with_kernel_read(tree: dict[str, Any], folder: Path, where: str) -> dict[str, Any]:
    """Return the tree of an instrument with the kernel in place of the file that it names, if it names one.

    Args:
        tree: as YAML gives it.
        folder: where relative paths start.
        where: what the tree is called in the message.

    Raises:
        LensphysError: if the file or its kernel is faulty.
    """
    psf = tree.get("psf")
    if not isinstance(psf, dict) or psf.get("kind") != "kernel" or "file" not in psf:
        return tree
    if unknown := sorted(map(str, psf.keys() - {"kind", "file", "pixel_scale"})):
        raise LensphysError(f"{where}: beside psf.file there is pixel_scale and nothing else, got {', '.join(unknown)}")
    scale = psf.get("pixel_scale")
    if not isinstance(psf["file"], str):
        raise LensphysError(f"{where}: 'psf.file' must be the path of a FITS or .npy file, got {psf['file']!r}")
    if isinstance(scale, bool) or not isinstance(scale, int | float | None):
        raise LensphysError(f"{where}: 'psf.pixel_scale' must be a number [arcsec], got {scale!r}")
    kernel = KernelPSFSettings.read(folder / psf["file"], None if scale is None else float(scale))
    return tree | {"psf": kernel.model_dump()}


def _read_npy(path: Path) -> tuple[np.ndarray, None]:
    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64), None
    except (ValueError, TypeError, OSError, EOFError) as error:
        raise LensphysError(f"{path} is not a plain .npy file of numbers: {error}") from None


def _read_fits(path: Path) -> tuple[np.ndarray, float | None]:
    from astropy.io import fits

    try:
        with fits.open(path) as hdus:
            images = [hdu for hdu in hdus if hdu.is_image and hdu.header.get("NAXIS", 0) > 0]
            images.sort(key=lambda hdu: hdu.name != "PSF")  # stable: the first image, but for one of that name
            if not images:
                raise LensphysError(f"{path} holds no image")
            own = _header_scale(images[0].header)  # a kernel without one stands on the pixels of the file's images
            return np.asarray(images[0].data, dtype=np.float64), own or _header_scale(hdus[0].header)
    except (OSError, TypeError, ValueError) as error:
        if isinstance(error, LensphysError):
            raise
        raise LensphysError(f"{path} is not a FITS or .npy file that can be read: {error}") from None


def _header_scale(header: Any) -> float | None:
    for key in _SCALE_KEYS:
        if key in header:
            return float(header[key])
    if not any(key in header for key in ("CD1_1", "CDELT1")):
        return None
    from astropy.wcs import WCS
    from astropy.wcs.utils import proj_plane_pixel_scales

    wcs = WCS(header, naxis=2)
    return 3600 * float(np.sqrt(np.prod(proj_plane_pixel_scales(wcs.celestial)))) if wcs.has_celestial else None
