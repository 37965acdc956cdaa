"""Result files of `lensphys super-resolve`: FITS, .npz, HDF5 and folders of them, a lens at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lensphys.basics.checks import LensphysError
from lensphys.basics.sentences import counted
from lensphys.data.written import ENDINGS, bands_in
from lensphys.fits.written import bands_of
from lensphys.viewer.arrays import array_results
from lensphys.viewer.from_fits import fits_lens
from lensphys.viewer.result import LensResult

_FITS = (".fits", ".fit")
_REMEDY = "make a result with 'lensphys super-resolve INPUT -o RESULT', and show that"


@dataclass(frozen=True)
class Results:
    """What there is to be shown.

    Args:
        path: the file or the folder.
        lenses: each reads one lens.
        skipped: sentences on the files of a folder that are no results.
        bands: whether they are one lens, in several bands.
    """

    path: Path
    lenses: Sequence[Callable[[], LensResult]]
    skipped: tuple[str, ...] = ()
    bands: bool = False

    @property
    def told(self) -> str:
        """How many there are."""
        count = len(self.lenses)
        return f"one lens in {counted(count, 'band')}" if self.bands else counted(count, "lens", "lenses")


def read_results(path: Path) -> Results:
    """Return the results in a file or a folder; none of them is read yet.

    Raises:
        LensphysError: if there is none; what is in its place is named.
    """
    if path.is_dir():
        return _of_folder(path)
    lenses = _of_file(path)
    return Results(path, lenses, bands=_in_bands(path))


def _of_file(path: Path) -> list[Callable[[], LensResult]]:
    if not path.is_file():
        raise LensphysError(f"there is no result {path}: {_REMEDY}")
    name = path.name.lower()
    if name.endswith(_FITS):
        return [partial(fits_lens, path, band) for band in bands_of(path)]
    if name.endswith(ENDINGS):
        return array_results(path)
    if name.endswith(".npy"):
        raise LensphysError(f"{path} holds images, not results: {_REMEDY}")
    raise LensphysError(
        f"{path} is no result: expected a name that ends in {', '.join((*_FITS, *ENDINGS))}, or a folder"
    )


def _in_bands(path: Path) -> bool:
    return (bands_of(path) if path.name.lower().endswith(_FITS) else bands_in(path)) != [None]


def _of_folder(folder: Path) -> Results:
    files = sorted(p for p in folder.iterdir() if p.name.lower().endswith((*_FITS, *ENDINGS)))
    lenses: list[Callable[[], LensResult]] = []
    skipped = []
    for file in files:
        try:
            lenses += _of_file(file)
        except LensphysError as error:
            skipped.append(str(error))
    if not lenses:
        found = (
            f"of its {len(files)} FITS, .npz and .h5 files none is a result ({skipped[0]})"
            if files
            else "it holds none"
        )
        raise LensphysError(f"there is no result in {folder}: {found}; {_REMEDY}")
    return Results(folder, lenses, tuple(skipped))
