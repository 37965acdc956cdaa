"""Results that were written, opened again in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from lensphys.api.images import places
from lensphys.api.result import Result
from lensphys.api.words import in_python
from lensphys.basics.checks import LensphysError, check_file
from lensphys.basics.remote import local
from lensphys.data.hdf5 import damage
from lensphys.data.written import ENDINGS, open_arrays, plain, scales_of
from lensphys.fits.numbers import NUMBERS
from lensphys.fits.planes import PLANES, names
from lensphys.fits.units import is_surface_brightness
from lensphys.fits.written import FitsResult, read_fits_result
from lensphys.prediction import BODY
from lensphys.tracing.grid import PixelGrid

Array = NDArray[Any]

_FITS = (".fits", ".fit")
_LIGHT = (*names("fine", light=True), *names("large", light=True))
_TEXTS = ("parameter_names", "parameter_units", "body_columns", "quality", "reasons")
_KNOWN = (
    *PLANES, *_TEXTS, "source_scale", *NUMBERS, "parameters", "errors", "covariance", "bodies",
    "body_masses", "index",
)  # fmt: skip


def read_result(path: str | Path, *, band: str | None = None) -> Result:
    """Return a result that was written by `Result.write` or ``lensphys super-resolve``: FITS, .npz or .h5.

    It has all that the file has: ``image``, ``sigma``, ``kappa``, ``source``, ``table``, ``quality`` and so on, and
    ``plot``. A file holds the low-resolution image and its noise, but not how it was taken: what needs its PSF raises
    an error.

    Args:
        path: the file.
        band: of a result of several bands, which to take.

    Raises:
        LensphysError: if it is no result or damaged, or of several bands and ``band`` is none of them.

    Example::

        result = lp.read_result("lens_sr.fits")
        print(result.quality, result.theta_E, result.table)
        result.plot()
    """
    with in_python():
        path = local(path)
        check_file("result", path)
        planes, origin, large, scale = _read(path, band)
        if "image" not in planes or not np.isfinite(planes["image"]).any():
            raise LensphysError(f"{path} holds no super-resolved image with a finite pixel: super-resolve again")
    height, width = (side // scale for side in planes["image"].shape[-2:])
    index = planes.get("index", np.arange(len(planes["image"])))
    name = path.name if band is None else f"{path.name} {band}"
    single = len(index) == 1
    seen = WrittenImages(name, PixelGrid(height, width, large), index, single, planes.get("lr"), planes.get("noise"))
    return WrittenResult(seen, planes, scale, dict(origin))


def _read(path: Path, band: str | None) -> tuple[dict[str, Any], Mapping[str, Any], float, int]:
    """The planes and the provenance of a file, its large pixels [arcsec], and how many of its small ones make one."""
    name = path.name.lower()
    if name.endswith(_FITS):
        found = read_fits_result(path, band)
        return _of_fits(found), found.origin, found.pixel_scale * found.scale, found.scale
    if not name.endswith(ENDINGS):
        raise LensphysError(f"{path} is no result: expected a name that ends in {', '.join((*_FITS, *ENDINGS))}")
    arrays, origin = open_arrays(path, band)
    large, scale = scales_of(path, origin)
    with damage(str(path)):
        return {key: _in_memory(key, arrays[key]) for key in _KNOWN if key in arrays}, origin, large, scale


def _of_fits(found: FitsResult) -> dict[str, Any]:
    """The planes of one image as they were before they were written: light in flux per pixel."""
    bright = is_surface_brightness(found.header)
    small = found.scale**2 if bright else 1.0
    factor = {"image": small, "sigma": small, "source": (found.pixel_scale * found.scale) ** 2 if bright else 1.0}
    planes: dict[str, Any] = {name: (plane / factor.get(name, 1.0))[None] for name, plane in found.planes.items()}
    planes |= {name: np.array([number]) for name, number in found.numbers.items()}
    if "source" in planes:
        planes["source_scale"] = found.source_scale
    if found.quality:
        planes |= {"quality": np.array([found.quality]), "reasons": np.array([found.reasons])}
    if found.parameters is not None:
        planes |= {"parameter_names": found.parameters["NAME"], "parameter_units": found.parameters["UNIT"]}
        planes |= {"parameters": found.parameters["VALUE"][None], "errors": found.parameters["ERROR"][None]}
        if "COVARIANCE" in found.parameters:
            planes["covariance"] = found.parameters["COVARIANCE"][None]
    if "subhalos" in planes:
        planes |= _bodies(found.subhalos)
    return planes


def _bodies(table: Mapping[str, Array] | None) -> dict[str, Any]:
    """The sub-halos of one image, (1, K, 7), and their masses, (1, K), where these are known."""
    if table is None:
        return {"bodies": np.zeros((1, 0, len(BODY))), "body_columns": np.array(BODY)}
    masses = {"body_masses": table["MASS"][None]} if "MASS" in table else {}
    return {"bodies": np.stack([table[n.upper()] for n in BODY], 1)[None], "body_columns": np.array(BODY), **masses}


def _in_memory(name: str, stored: Any) -> Any:
    if name in _TEXTS:
        return np.array([plain(text) for text in stored])
    found = np.asarray(stored[()])
    return found[:, 0] if name in _LIGHT and found.ndim == 4 else found  # of a file of lenses, with its channel


@dataclass(frozen=True)
class WrittenImages:
    """What a file of results holds of the images that were super-resolved.

    Args:
        name: of the file.
        grid: pixels of the low-resolution images.
        index: the number of each image in the file that was read, (N,).
        single: whether it is one image (H, W), and not a stack (N, H, W).
        lr: the images as they were read, (N, H, W) [flux per pixel]; None where the file does not hold them.
        sigma: the noise of each pixel by itself, (N, H, W) [flux per pixel], NaN where one was left out; None likewise.
    """

    name: str
    grid: PixelGrid
    index: Array
    single: bool
    lr: Array | None
    sigma: Array | None

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int | slice | Sequence[int]) -> WrittenImages:
        """Return one image of a stack, or some."""
        place = places(index, len(self))
        lr, sigma = (None if plane is None else plane[place] for plane in (self.lr, self.sigma))
        return replace(self, index=self.index[place], single=isinstance(index, int | np.integer), lr=lr, sigma=sigma)

    @property
    def image(self) -> Array:
        """The pixels, (H, W) or (N, H, W) [flux per pixel].

        Raises:
            LensphysError: if the file does not hold them.
        """
        if self.lr is None:
            raise LensphysError(f"{self.name} does not hold the image that was super-resolved: read it with lp.read")
        return self.lr[0] if self.single else self.lr

    @property
    def pixel_scale(self) -> float:
        """Side of a pixel [arcsec]."""
        return self.grid.scale

    @property
    def noise(self) -> Array:
        """Standard deviation of each pixel by itself, (H, W) or (N, H, W) [flux per pixel]; NaN: left out.

        Raises:
            LensphysError: if the file does not hold it.
        """
        if self.sigma is None:
            raise self._lacks("the noise")
        return self.sigma[0] if self.single else self.sigma

    @property
    def mask(self) -> Array:
        """Which pixels were fitted, (H, W) or (N, H, W).

        Raises:
            LensphysError: if the file does not hold it.
        """
        if self.sigma is None:
            raise self._lacks("the mask")
        return np.isfinite(self.noise)

    @property
    def psf(self) -> NoReturn:
        """Not in a result."""
        raise self._lacks("the PSF")

    @property
    def set(self) -> NoReturn:
        """Not in a result."""
        raise self._lacks("the PSF")

    def _lacks(self, what: str) -> LensphysError:
        return LensphysError(f"{self.name} is a result, without {what} of its images: read those with lp.read")


@dataclass(frozen=True, repr=False)
class WrittenResult(Result):
    """A result in memory that was written before: see `read_result`.

    Args:
        images: what the file holds of those that were super-resolved.
    """

    images: WrittenImages  # type: ignore[assignment]  # less than `Images`: what it lacks says so

    def save(self, path: Path) -> None:
        """Refuse: the file is there already."""
        raise LensphysError(f"{self.images.name} is a file already: copy it, or super-resolve again to write {path}")

    @property
    def residual(self) -> Array:
        """Low-resolution image less its model, (H, W) [flux per pixel]; 0 where masked.

        Raises:
            LensphysError: if the file does not hold it.
        """
        found = super().residual
        if found is None:
            raise LensphysError(f"{self.images.name} holds no residual: super-resolve again")
        return found
