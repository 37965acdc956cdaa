"""Super-resolved FITS files, as they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lensphys.fits.units import is_surface_brightness
from lensphys.fits.written import read_fits_result
from lensphys.prediction import BODY
from lensphys.viewer.result import LensResult, Quantity, surface_brightness, usable


def fits_lens(path: Path, band: str | None = None) -> LensResult:
    """Return the lens of a super-resolved FITS file, seen in a band where it has several.

    Raises:
        LensphysError: if it is none, or damaged.
    """
    found = read_fits_result(path, band)
    header, unit = found.header, str(found.header.get("BUNIT", ""))
    bright = is_surface_brightness(header)
    planes = found.planes if bright else surface_brightness(found.planes, found.pixel_scale, found.scale)
    drawn, remarks = usable(planes, str(path))
    return LensResult(
        path.stem if band is None else f"{path.stem} {band}",
        drawn,
        found.pixel_scale,
        found.scale,
        source_scale=found.source_scale,
        unit=unit if bright else f"{unit or 'flux'} / arcsec²",
        numbers={name: x for name, x in found.numbers.items() if x == x},  # NaN was not found
        parameters=_parameters(found.parameters),
        subhalos=_subhalos(found.subhalos),
        quality=found.quality,
        reasons=found.reasons,
        psf=str(header.get("PSF", "")),
        header=header,
        origin=found.origin,
        remarks=remarks,
    )


def _parameters(table: Mapping[str, Any] | None) -> tuple[Quantity, ...]:
    if table is None:
        return ()
    rows = zip(*(table[name] for name in ("NAME", "VALUE", "ERROR", "UNIT")), strict=True)
    return tuple(Quantity(str(name), float(value), float(error), str(unit)) for name, value, error, unit in rows)


def _subhalos(table: Mapping[str, Any] | None) -> tuple[dict[str, float], ...]:
    if table is None:
        return ()
    columns = {name: table[name.upper()] for name in (*BODY, "mass") if name.upper() in table}
    rows = zip(*columns.values(), strict=True)
    return tuple(dict(zip(columns, map(float, row), strict=True)) for row in rows)
