"""Results in arrays, read again: what `lensphys.data.results` wrote as .npz or HDF5."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from astropy.io.fits import Header

from lensphys.basics.checks import LensphysError
from lensphys.data.hdf5 import ENDINGS as HDF5
from lensphys.data.hdf5 import damage, opened
from lensphys.data.lens_file import RESULT
from lensphys.fits.numbers import NUMBERS
from lensphys.fits.written import chosen_band

ENDINGS = (".npz", *HDF5)
# what several bands share, as an .npz of them calls it
_SHARED = {
    "parameter_names": "parameter_name",
    "parameters": "parameter_value",
    "errors": "parameter_error",
    "parameter_units": "parameter_unit",
    **{name: name for name in (*NUMBERS, "quality", "reasons")},
}
_AGAIN = "super-resolve again"
_NAMES = ("parameter_names", "parameter_units")  # of all lenses alike


def is_result(path: Path) -> bool:
    """Return whether a file of images is a result of lensphys itself, by its cards or names; no if it is damaged."""
    name = path.name.lower()
    try:
        if name.endswith((".fits", ".fit")):
            return "LENSPHYS" in Header.fromfile(path)
        if name.endswith(".npz"):
            with ZipFile(path) as file:
                return "provenance.npy" in file.namelist()
        if name.endswith(ENDINGS):
            with opened(path) as result:
                return result.attrs.get("kind") == RESULT
    except (OSError, ValueError, BadZipFile, LensphysError):
        pass  # whoever reads it says why
    return False


def plain(text: Any) -> str:
    """Return a text as it is in Python: HDF5 has bytes."""
    return text.decode() if isinstance(text, bytes) else str(text)


def scales_of(path: Path, origin: Mapping[str, Any]) -> tuple[float, int]:
    """Return the pixel scale of the low-resolution images [arcsec], and by how much pixels are smaller.

    Raises:
        LensphysError: if the provenance of the file has neither.
    """
    try:
        return float(origin["pixel_scale_lr"]), int(origin["scale"])
    except (KeyError, TypeError, ValueError):
        raise LensphysError(
            f"{path} does not say its pixel scale (it is of lensphys 0.1): super-resolve again"
        ) from None


def open_arrays(path: Path, band: str | None = None) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Return the arrays of an .npz or HDF5 result, each read when it is first wanted, and its provenance.

    Args:
        path: the file.
        band: of an .npz of several bands.

    Raises:
        LensphysError: if it is another file, or damaged; if it has several bands and ``band`` is none of them.
    """
    if path.suffix.lower() == ".npz":
        return _of_npz(path, band)
    arrays, origin = _of_hdf5(path)
    chosen_band(str(path), [None], band)
    return arrays, origin


def bands_in(path: Path) -> list[str | None]:
    """Return the bands of an .npz or HDF5 result, of one that is not by bands None alone.

    Raises:
        LensphysError: if it is another file, or damaged.
    """
    return _bands(_archive(path)) if path.suffix.lower() == ".npz" else [None]


class _Loaded(dict[str, Any]):
    """The arrays of an .npz archive, each read when it is first wanted, by their names there."""

    def __init__(self, archive: Any, names: Mapping[str, str]) -> None:
        super().__init__(dict.fromkeys(names))
        self.archive, self.names = archive, names

    def __getitem__(self, name: str) -> Any:
        if super().__getitem__(name) is None:
            self[name] = self.archive[self.names[name]]
        return super().__getitem__(name)


class _OfBand(_Loaded):
    """The arrays of a band, and what all bands share, with an axis for the one lens."""

    def __init__(self, archive: Any, band: str) -> None:
        own = {name.removeprefix(f"{band}_"): name for name in archive.files if name.startswith(f"{band}_")}
        of_itself = {name for name in own if name in NUMBERS and NUMBERS[name].own}
        shared = {n: there for n, there in _SHARED.items() if there in archive.files and n not in of_itself}
        super().__init__(archive, own | shared)
        for name, there in shared.items():
            if name not in _NAMES:
                self[name] = archive[there][None]


def _of_npz(path: Path, band: str | None) -> tuple[Mapping[str, Any], dict[str, Any]]:
    archive = _archive(path)
    with damage(str(path), _AGAIN):
        origin = json.loads(str(archive["provenance"]))
        chosen = chosen_band(str(path), _bands(archive), band)
        if chosen is not None:
            return _OfBand(archive, chosen), origin | {"pixel_scale_lr": origin["pixel_scale_lr"][chosen]}
        origin |= {"psf": str(archive["psf"])} if "psf" in archive.files else {}
        return _Loaded(archive, {name: name for name in archive.files}), origin


def _archive(path: Path) -> Any:
    """The archive of an .npz result, none of its arrays read."""
    with damage(str(path), _AGAIN):
        archive = np.load(path, allow_pickle=False)
        if "provenance" not in archive.files or not _bands(archive):
            raise LensphysError(f"{path} is no result of 'lensphys super-resolve': it lacks image and provenance")
        return archive


def _bands(archive: Any) -> list[str | None]:
    if "image" in archive.files:
        return [None]
    return [name.removesuffix("_image") for name in archive.files if name.endswith("_image")]


def _of_hdf5(path: Path) -> tuple[Mapping[str, Any], dict[str, Any]]:
    file = opened(path)
    with damage(str(path)):
        if file.attrs.get("kind") != RESULT or "image" not in file:
            raise LensphysError(
                f"{path} holds lenses, not results: run 'lensphys super-resolve {path.name} -o RESULT.h5'"
            )
        return file, {name: _entry(value) for name, value in file.attrs.items()}


def _entry(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value
