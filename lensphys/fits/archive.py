"""An .npz of one lens, read as a FITS file is: its arrays are known by the names of `lensphys.fits.names`."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from lensphys.basics.checks import LensphysError, shortened
from lensphys.fits.names import IMAGE, NOISE, PSF, meaning

_CARDS = {"pixel_scale": "PIXSCALE", "unit": "BUNIT", "bunit": "BUNIT", "exposure_time": "EXPTIME", "filter": "FILTER"}
_OF_PSF = {
    "psf_scale": "PIXSCALE",
    "psf_pixel_scale": "PIXSCALE",
    "psf_oversampling": "OVERSAMP",
    "oversampling": "OVERSAMP",
}


def archive(name: str, path: Path) -> fits.HDUList:
    """Return the arrays of an .npz as extensions, and its numbers and texts as cards of the primary header.

    ``image`` (H, W) with ``err`` (one number, too), ``mask``, ``psf`` and the like beside it; ``pixel_scale``
    [arcsec]; ``psf_scale`` [arcsec] or ``psf_oversampling`` where the kernel is not on the image's pixels.

    Args:
        name: what the file is called in messages.
        path: the file.

    Raises:
        LensphysError: if it is cut short, no .npz, or holds Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if not hasattr(file, "files"):
                raise LensphysError(f"{name} {path} is no .npz archive: save arrays by name with numpy.savez")
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, LensphysError):
            raise
        raise LensphysError(
            f"{name} {path} is not a whole .npz archive of numbers: save it anew with numpy.savez "
            f"({shortened(str(error))})"
        ) from None
    for key in (*_CARDS, *_OF_PSF):
        if key in arrays and arrays[key].size != 1:
            raise LensphysError(f"{path}[{key}] has the shape {arrays[key].shape}: it must be one value")
        if key in arrays and arrays[key].dtype.kind == "f" and not np.isfinite(arrays[key]):
            raise LensphysError(f"{path}[{key}] is {arrays[key].item()}: it must be a finite number")
    maps = {key: x for key, x in arrays.items() if key not in (*_CARDS, *_OF_PSF)}
    maps |= _of_every_pixel(maps)
    extensions = (_extension(key, x, arrays, path) for key, x in maps.items() if x.ndim > 1)
    return fits.HDUList([_primary(arrays), *extensions])


def _of_every_pixel(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One number for the noise (``sigma``, ``variance``), as a map."""
    shapes = [x.shape[-2:] for key, x in arrays.items() if x.ndim > 1 and meaning(key).role in (None, IMAGE)]
    numbers = {
        key: x for key, x in arrays.items() if x.size == 1 and x.dtype.kind in "iuf" and meaning(key).role in NOISE
    }
    return {key: np.full(shapes[0], x.item(), np.float32) for key, x in numbers.items()} if shapes else {}


def _primary(arrays: dict[str, np.ndarray]) -> fits.PrimaryHDU:
    header = _cards(arrays, _CARDS)
    if "provenance" in arrays:
        header["LENSPHYS"] = True  # a result of ours, of which version is in its provenance
    return fits.PrimaryHDU(header=header)


def _extension(key: str, array: np.ndarray, arrays: dict[str, np.ndarray], path: Path) -> fits.ImageHDU:
    plain = array.astype(np.uint8) if array.dtype == bool else array
    if plain.dtype.kind not in "iuf":
        raise LensphysError(f"{path}[{key[:40]}] holds {array.dtype} values: save real numbers, as float32")
    header = _cards(arrays, _OF_PSF) if meaning(key).role == PSF else fits.Header()
    if plain.dtype.kind == "f" and plain.dtype.itemsize not in (4, 8):  # FITS has no others
        plain = plain.astype(np.float32 if plain.dtype.itemsize == 2 else np.float64)
    return fits.ImageHDU(plain, header, name=key)


def _cards(arrays: dict[str, np.ndarray], names: dict[str, str]) -> fits.Header:
    known = {card: arrays[key] for key, card in names.items() if key in arrays}
    return fits.Header({card: _plain(x.item()) for card, x in known.items()})


def _plain(value: Any) -> Any:
    """A value as FITS can hold it: micro in letters of ASCII."""
    return value.translate({0xB5: "u", 0x3BC: "u"}) if isinstance(value, str) else value
