"""PSF kernels in FITS files: images of a star, on pixels of their own scale, and PSFEx models, which are evaluated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from lensphys.basics.checks import LensphysError, check_whole, is_number
from lensphys.fits.file import MOST_PIXELS, FitsFile, Hdu
from lensphys.fits.given import Subject, map_for
from lensphys.fits.header import filter_of, kernel_scale, same_scale, stated_scale, with_numbers
from lensphys.fits.names import IMAGE, PSF

Array = NDArray[Any]

_PSFEX = "PSF_DATA"
POINTS = "PIXPOINT"  # our card for `Kernel.points`
_MOST_POINTS = 32
# STPSF; others; STPSF where nothing else stands
OVERSAMPLINGS = ("OVERSAMP", "OVERSMPL", "OVRSAMP", "OVSAMP", "SUBSAMP", "OSAMP", "SAMPLING", "DET_SAMP")
_ASSUMED = "as large as {}, since its header says no other"
_OF_IMAGE, _OF_RESULT = _ASSUMED.format("the image's"), _ASSUMED.format("those of the result")


@dataclass(frozen=True)
class CubePlane:
    """Which one of a cube an image is.

    Args:
        number: of the plane, counted from 0.
        count: of all planes.
    """

    number: int
    count: int


def same_plane(values: Array, plane: CubePlane | None) -> Array:
    """Return the plane of the same number of a cube of as many, (count, H, W); any other array as it is."""
    if plane is not None and values.ndim == 3 and len(values) == plane.count:
        return values[plane.number]
    return values


@dataclass(frozen=True)
class Kernel:
    """A PSF as a file has it.

    Args:
        values: (K, K) float64, not yet normalised.
        scale: pixel scale [arcsec], None if the file does not say.
        oversampling: how many of its pixels make one of the image's, along a side, where there is no scale.
        where: the file and the extension, for messages.
        remarks: what is to be said of it, in words that follow its name.
        band: of which it is, "" if the file does not say.
        points: along the side of a pixel of the image, where the light that it blurs is taken; None if the file does
            not say.
    """

    values: Array
    scale: float | None = None
    oversampling: float = 1.0
    where: str = ""
    remarks: tuple[str, ...] = ()
    band: str = ""
    points: int | None = None

    def contradiction(self, pixel: float) -> list[str]:
        """Return what is to be said of a scale that is the image's [arcsec] beside an oversampling that denies it."""
        if self.scale is None or self.oversampling == 1 or not same_scale(self.scale, pixel):
            return []  # a finer one may be of the detector, whose pixels a drizzled image does not have
        return [
            f'{self.label} says both pixels of {self.scale:.4g}" and {self.oversampling:g} to a side of those of the '
            f'image ({pixel:.4g}"): the first is taken, is it right?'
        ]

    @property
    def label(self) -> str:
        """The file and the extension, without folders."""
        return Path(self.where).name

    @property
    def of_result(self) -> Kernel:
        """The kernel as one for the result, whose pixels it has where its header says no others."""
        return replace(self, remarks=tuple(_OF_RESULT if told == _OF_IMAGE else told for told in self.remarks))

    def scale_on(self, pixel: float) -> float:
        """Return the pixel scale [arcsec] of the kernel of an image with pixels of this scale [arcsec]."""
        return self.scale or pixel / self.oversampling


def kernel_in(file: FitsFile, image: Subject = Subject(), plane: CubePlane | None = None) -> Kernel:
    """Return the PSF of a file of its own: what is named so, that of the image's band first, else the first image.

    Args:
        file: that.
        image: of which it is, where the file has several.
        plane: which one of its cube the image is; that one of a cube of kernels, too.

    Raises:
        LensphysError: if there is none, or several and nothing tells which one.
    """
    named = sorted(filter(holds_kernel, file.hdus), key=lambda hdu: hdu.shape == ())  # images before tables
    other = file.arrays_of(None, IMAGE)
    if not named and not other:
        raise LensphysError(f"{file.name} {file.path} holds no image of a PSF: it holds {file.contents}")
    hdu, told = map_for(file, named or other, image)
    kernel = kernel_of(hdu, file, plane)
    return replace(kernel, remarks=(*kernel.remarks, *told))


def holds_kernel(hdu: Hdu) -> bool:
    """Return whether an extension is a PSF by its name: an image, or the table of a PSFEx model."""
    return hdu.meaning.role == PSF and (bool(hdu.shape) or hdu.name == _PSFEX)


def kernel_of(hdu: Hdu, file: FitsFile, plane: CubePlane | None = None) -> Kernel:
    """Return the kernel in an extension; what it does not say of its pixels, the primary header may.

    Args:
        hdu: the extension.
        file: that it is in.
        plane: which one of its cube the image is; that one of a cube of kernels, too.

    Raises:
        LensphysError: if it is no image (K, K), or its header is faulty.
    """
    if not hdu.shape:
        return _evaluated(hdu)
    values = same_plane(hdu.array(), plane)
    if values.ndim != 2:
        remedy = "save one of its planes as a file" if len(hdu.shape) > 2 else "give another file"
        raise LensphysError(f"{hdu.where} has the shape {hdu.shape}: a PSF kernel must be one image (K, K); {remedy}")
    own = with_numbers(hdu.header)
    common = fits.Header() if any(other.number == 0 for other in file.hdus) else with_numbers(file.primary)
    found = ((key, header[key]) for header in (own, common) for key in OVERSAMPLINGS if key in header)
    key, oversampling = next(found, (None, 1))
    # beside an oversampling a WCS may be the image's own; an empty primary header speaks for all
    scale = stated_scale(own, hdu.where) if key else kernel_scale(own, hdu.where)
    scale = scale or (None if key else kernel_scale(common, hdu.where))
    remarks = [f"plane {plane.number} of {plane.count}"] if plane is not None and values.shape != hdu.shape else []
    remarks += [_OF_IMAGE] if scale is None and key is None else []
    band = filter_of(hdu.header) or filter_of(file.primary)
    if not is_number(oversampling) or not 0 < oversampling < float("inf"):
        raise LensphysError(f"{hdu.where} has {key} = {repr(oversampling)[:20]}, expected a number above zero")
    return Kernel(values.astype(np.float64), scale, float(oversampling), hdu.where, tuple(remarks), band, _points(hdu))


def _points(hdu: Hdu) -> int | None:
    points = hdu.header.get(POINTS)
    return None if points is None else check_whole(f"{POINTS} of {hdu.where}", points, 1, _MOST_POINTS)


def _evaluated(hdu: Hdu) -> Kernel:
    """The PSFEx model in the middle of its field, where every polynomial term but the first is zero.

    Source: PSFEx manual, "The .psf file": PSF_MASK (terms, K, K) on pixels of PSF_SAMP image pixels; the polynomial's
    variables are (x - POLZEROi) / POLSCALi.
    """
    header, axes = hdu.header, [hdu.header.get(f"PSFAXIS{i}", 1) for i in (1, 2, 3)]
    axes = [axis if isinstance(axis, int) else 0 for axis in axes]
    step = header.get("PSF_SAMP")
    if not isinstance(step, int | float) or not step > 0 or min(axes) < 1 or np.prod(axes, dtype=float) > MOST_PIXELS:
        raise LensphysError(f"{hdu.where} is no PSFEx model: it lacks PSF_SAMP or PSFAXIS1, 2, 3")
    terms = hdu.column("PSF_MASK").ravel()
    if terms.size != np.prod(axes):
        raise LensphysError(f"{hdu.where} has {terms.size} values in PSF_MASK, its PSFAXIS1, 2, 3 say {axes}")
    values = terms.reshape(axes[2], axes[1], axes[0])[0]
    remarks = ("a PSFEx model, evaluated in the middle of its field",) if axes[2] > 1 else ("a PSFEx model",)
    return Kernel(values, None, 1 / float(step), hdu.where, remarks)
