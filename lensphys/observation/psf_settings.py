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

from lensphys.basics.checks import LensphysError, check_positive, is_number
from lensphys.basics.settings import Strict
from lensphys.observation.moffat import MoffatPSF
from lensphys.observation.psf import PSF, GaussianPSF, NoPSF, PixelPSF, UnknownPSF
from lensphys.observation.psf_file import LARGEST_SIDE, read_kernel, usable


class NoPSFSettings(Strict):
    """No PSF: ``none``, since nothing blurs the images, or ``unknown``."""

    kind: Literal["none", "unknown"]

    def build(self, fwhm: Tensor | None = None) -> PSF:
        """Return the PSF, or a Gaussian of these widths (B,) [arcsec]."""
        if fwhm is not None:
            return GaussianPSF(fwhm)
        return NoPSF() if self.kind == "none" else UnknownPSF()


class GaussianPSFSettings(Strict):
    """A Gaussian PSF.

    Args:
        fwhm: full width at half maximum [arcsec].
    """

    kind: Literal["gaussian"]
    fwhm: PositiveFloat = Field(allow_inf_nan=False)

    def build(self, fwhm: Tensor | None = None) -> PSF:
        """Return the PSF, with these widths (B,) [arcsec] in place of its own."""
        return GaussianPSF(self.fwhm if fwhm is None else fwhm)


class MoffatPSFSettings(Strict):
    """A Moffat PSF.

    Args:
        fwhm: full width at half maximum [arcsec].
        beta: slope of the wings, 2 or more, without unit: the light falls as r^(-2 beta).
    """

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
    side: PositiveInt = Field(le=LARGEST_SIDE)
    pixels: str = Field(repr=False)

    @classmethod
    def read(cls, path: Path, pixel_scale: float | None = None) -> KernelPSFSettings:
        """Return the kernel in a file.

        Args:
            path: FITS (the extension named PSF, or the first image, or a PSFEx model) or .npy, (K, K), sum within 10 %
                of 1; an even K is made odd, by recentring.
            pixel_scale: [arcsec]; that of the header, or of the file's first one, if None.

        Raises:
            LensphysError: if the file is missing, faulty or does not hold such a kernel, or has no pixel scale.
        """
        kernel = read_kernel("PSF kernel", path)
        scale = kernel.scale if pixel_scale is None else pixel_scale
        if scale is None:
            raise LensphysError(f"{path} has no pixel scale: give psf.pixel_scale [arcsec] beside psf.file")
        check_positive(f"the pixel scale of {path}", scale)
        return cls.from_kernel(usable(kernel).kernel, scale)

    @classmethod
    def from_kernel(cls, kernel: np.ndarray, pixel_scale: float) -> KernelPSFSettings:
        """Return the settings of a kernel (K, K) with the sum 1, on pixels of this scale [arcsec]."""
        data = kernel.astype("<f4").tobytes()
        pixels = base64.b64encode(zlib.compress(data, 9)).decode("ascii")
        return cls(kind="kernel", pixel_scale=pixel_scale, side=len(kernel), pixels=pixels)

    def build(self, fwhm: Tensor | None = None) -> PSF:
        """Return the PSF; no widths (B,) [arcsec] can be given.

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
        raise LensphysError(f"{where}: beside psf.file only pixel_scale may be given, got {', '.join(unknown)}")
    scale = psf.get("pixel_scale")
    if not isinstance(psf["file"], str):
        raise LensphysError(f"{where}: 'psf.file' must be the path of a FITS or .npy file, got {psf['file']!r}")
    if scale is not None and not is_number(scale):
        raise LensphysError(f"{where}: 'psf.pixel_scale' must be a number [arcsec], got {scale!r}")
    kernel = KernelPSFSettings.read(folder / psf["file"], None if scale is None else float(scale))
    return tree | {"psf": kernel.model_dump()}
