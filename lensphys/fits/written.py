"""Super-resolved FITS files, read again: what `lensphys.fits.result` wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from lensphys.basics.checks import LensphysError
from lensphys.fits.file import FitsFile, Hdu, opened, shown
from lensphys.fits.header import pixel_scale
from lensphys.fits.numbers import NUMBERS
from lensphys.fits.planes import IMAGE, PLANES

Array = NDArray[Any]

_PLANES = {plane.extension: plane.name for plane in PLANES.values() if plane is not IMAGE}
_CARDS = {name: number.card for name, number in NUMBERS.items()}
_ENTRY = re.compile(r"lensphys (\w+): (.*)", re.DOTALL)
_LINE = 72  # characters of a HISTORY card
_IMAGE = "_SCI"  # what the image of a band is called, after its name


@dataclass(frozen=True)
class FitsResult:
    """What a FITS result holds, in the units of the file.

    Args:
        planes: ``image`` (sH, sW) and what else there is of `PLANES`, ``alpha`` (2, sH, sW).
        header: of the super-resolved image; where there are several bands, below what is said of all of them.
        pixel_scale: of the super-resolved image [arcsec].
        scale: s, the factor by which pixels are smaller.
        source_scale: pixel scale of the source [arcsec], 0 where there is none.
        numbers: by their names in Python, NaN for those that were not found.
        parameters: columns ``NAME``, ``VALUE``, ``ERROR`` and ``UNIT`` of all parameters, and ``COVARIANCE`` with each;
            None if there are none.
        subhalos: columns of all sub-halos, by their names in the file; None if there are none.
        origin: provenance.
    """

    planes: dict[str, Array]
    header: fits.Header
    pixel_scale: float
    scale: int
    source_scale: float = 0.0
    numbers: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, Any] | None = None
    subhalos: Mapping[str, Array] | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def quality(self) -> str:
        """``good``, ``suspect`` or ``bad``; nothing of a method that cannot tell."""
        return str(self.header.get("QUALITY", "")).strip()

    @property
    def reasons(self) -> str:
        """Of the verdict."""
        reasons = str(self.header.get("REASONS", "")).strip()
        return "" if reasons == "none" else reasons


def bands_of(path: Path) -> list[str | None]:
    """Return the bands of a FITS result, of one that is not by bands None alone.

    Raises:
        LensphysError: if it is an image that is still to be super-resolved, or no FITS file.
    """
    with opened("result", path) as file:
        return list(_images_of(file, path))


def read_fits_result(path: Path, band: str | None = None) -> FitsResult:
    """Return what a super-resolved FITS file holds.

    Args:
        path: the file.
        band: of a result of several bands.

    Raises:
        LensphysError: if it is no result, damaged, or of several bands and ``band`` is none of them.
    """
    with opened("result", path) as file:
        images = _images_of(file, path)
        chosen = chosen_band(str(path), images, band)
        first, before = images[chosen], "" if chosen is None else f"{chosen}_"
        hdus = {hdu.name.upper(): hdu for hdu in file.hdus}
        own = {key: hdus[before + name] for name, key in _PLANES.items() if before + name in hdus}
        planes = {"image": first.image()} | {key: hdu.image() for key, hdu in own.items() if hdu.shape}
        header = first.header.copy()
        if before:
            own_cards = {number.card for number in NUMBERS.values() if number.own and number.card in header}
            of_all = {*_CARDS.values(), "QUALITY", "REASONS"} - own_cards
            header.update({k: v for k, v in file.primary.items() if k in of_all})
        side = header.get("PIXSCALE") or pixel_scale(header, str(path))
        if side is None:
            raise LensphysError(f"{path} has no pixel scale (PIXSCALE or a WCS): super-resolve again")
        origin = provenance_of(file.primary)
        return FitsResult(
            planes,
            header,
            float(side),
            _scale(planes, origin),
            float(own["source"].header.get("PIXSCALE", 0)) if "source" in own else 0.0,
            {name: _number(header[card]) for name, card in _CARDS.items() if card in header},
            _columns(hdus.get("PARAMETERS"), "NAME", "UNIT"),
            _columns(hdus.get("SUBHALOS")),
            origin,
        )


def _images_of(file: FitsFile, path: Path) -> dict[str | None, Hdu]:
    found = super_resolved(file)
    if not found:
        raise LensphysError(
            f"{path} is an image, not a result: run 'lensphys super-resolve {path.name} -o RESULT.fits'"
        )
    return found


def super_resolved(file: FitsFile) -> dict[str | None, Hdu]:
    """Return the super-resolved images of a result, of each band, or the only one, as None; of other files nothing."""
    if "LENSPHYS" not in file.primary:
        return {}
    if file.hdus and file.hdus[0].number == 0:
        return {None: file.hdus[0]}
    return {hdu.name[: -len(_IMAGE)].upper(): hdu for hdu in file.arrays if hdu.name.upper().endswith(_IMAGE)}


def chosen_band(where: str, bands: Collection[str | None], band: str | None) -> str | None:
    """Return the band that is asked for, as the result calls it.

    Args:
        where: what the result is called in messages.
        bands: of the result; None alone where it is not by bands.
        band: that is asked for, in capitals or not; None for none.

    Raises:
        LensphysError: if there is no such band, or there are several and none is chosen.
    """
    known = {None if name is None else name.upper(): name for name in bands}
    asked = None if band is None else band.upper()
    if asked in known:
        return known[asked]
    if None in known:
        raise LensphysError(f"{where} has no bands: leave the band {shown(band)} out")
    told = "" if band is None else f", and none is {shown(band)}"
    raise LensphysError(f"{where} is a result of several bands{told}: choose the band {' or '.join(map(str, bands))}")


def _scale(planes: Mapping[str, Any], origin: Mapping[str, Any]) -> int:
    large = planes.get("residual")
    if large is not None and large.ndim == 2:
        return max(1, round(planes["image"].shape[-1] / large.shape[-1]))
    return int(origin.get("scale", 1))


def _number(value: Any) -> float:
    """The value of a card; of one without a value NaN: FITS has no other."""
    return float(value) if isinstance(value, int | float) else float("nan")


def _columns(table: Hdu | None, *texts: str) -> dict[str, Any] | None:
    if table is None:
        return None
    found: dict[str, Any] = {name: table.column(name) for name in table.columns if name not in texts}
    return found | {name: np.array([text.strip() for text in table.texts(name)]) for name in texts}


def provenance_of(header: fits.Header) -> dict[str, Any]:
    """Return what the HISTORY of a result says of its origin; of several, the last."""
    text: dict[str, str] = {}
    name = ""
    for line in map(str, header.get("HISTORY", [])):
        entry = _ENTRY.match(line)
        if entry is not None:
            name = entry[1]
            text[name] = ""
        if name:
            text[name] += line.ljust(_LINE)
    return {name: _read(lines) for name, lines in text.items()}


def _read(lines: str) -> Any:
    entry = _ENTRY.match(lines)
    words = "" if entry is None else entry[2].strip()
    try:
        return json.loads(words)
    except ValueError:
        return words
