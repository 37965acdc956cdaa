"""Super-resolved FITS files: what `lensphys.fits.result` wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from astropy.io import fits

from lensphys.basics.checks import LensphysError
from lensphys.fits.file import FitsFile, Hdu, opened
from lensphys.fits.header import pixel_scale
from lensphys.fits.units import is_surface_brightness
from lensphys.prediction import BODY
from lensphys.viewer.result import LensResult, Quantity, surface_brightness, usable

_PLANES = {
    name: name.lower() for name in ("SIGMA", "CONSTRAINED", "ALPHA", "KAPPA", "SOURCE", "LR", "MODEL", "RESIDUAL")
} | {"LENSLIGHT": "lens_light"}
_ENTRY = re.compile(r"lensphys (\w+): (.*)", re.DOTALL)
_LINE = 72  # characters of a HISTORY card


def check_fits_result(path: Path) -> None:
    """Raise unless a FITS file is a result, by its primary header.

    Raises:
        LensphysError: if it is an image that is still to be super-resolved, or no FITS file.
    """
    with opened("result", path) as file:
        _check(file, path)


def _check(file: FitsFile, path: Path) -> None:
    if "LENSPHYS" not in file.primary or not file.hdus or file.hdus[0].number != 0:
        raise LensphysError(
            f"{path} is an image, not a result: run 'lensphys super-resolve {path.name} -o RESULT.fits', and show that"
        )


def read_fits_result(path: Path) -> LensResult:
    """Return the lens of a super-resolved FITS file.

    Raises:
        LensphysError: if it is none, or damaged.
    """
    with opened("result", path) as file:
        _check(file, path)
        hdus = {hdu.name.upper(): hdu for hdu in file.hdus}
        header = file.hdus[0].header
        planes = {"image": file.hdus[0].image()}
        planes |= {key: hdus[name].image() for name, key in _PLANES.items() if name in hdus and hdus[name].shape}
        side = header.get("PIXSCALE") or pixel_scale(header, str(path))
        if side is None:
            raise LensphysError(f"{path} has no pixel scale (PIXSCALE or a WCS): super-resolve again")
        origin = provenance_of(header)
        scale = _scale(planes, origin)
        unit, bright = str(header.get("BUNIT", "")), is_surface_brightness(header)
        planes = planes if bright else surface_brightness(planes, float(side), scale)
        drawn, remarks = usable(planes, str(path))
        return LensResult(
            path.stem,
            drawn,
            float(side),
            scale,
            source_scale=float(hdus["SOURCE"].header.get("PIXSCALE", 0)) if "SOURCE" in hdus else 0.0,
            unit=unit if bright else f"{unit or 'flux'} / arcsec²",
            numbers=_numbers(header),
            parameters=_parameters(hdus.get("PARAMETERS")),
            subhalos=_subhalos(hdus.get("SUBHALOS")),
            quality=str(header.get("QUALITY", "")).strip(),
            reasons=_reasons(header),
            psf=str(header.get("PSF", "")),
            header=header,
            origin=origin,
            remarks=remarks,
        )


def _scale(planes: dict[str, Any], origin: dict[str, Any]) -> int:
    large = planes.get("residual")
    if large is not None and large.ndim == 2:
        return max(1, round(planes["image"].shape[-1] / large.shape[-1]))
    return int(origin.get("scale", 1))


def _numbers(header: fits.Header) -> dict[str, float]:
    cards = {"chi2": "CHI2", "theta_E": "THETA_E", "subhalos": "SUBHALOS", "false_subhalos": "SUBFALSE"}
    return {name: float(header[card]) for name, card in cards.items() if isinstance(header.get(card), int | float)}


def _reasons(header: fits.Header) -> str:
    reasons = str(header.get("REASONS", "")).strip()
    return "" if reasons == "none" else reasons


def _parameters(table: Hdu | None) -> tuple[Quantity, ...]:
    if table is None:
        return ()
    columns = (table.texts("NAME"), table.column("VALUE"), table.column("ERROR"), table.texts("UNIT"))
    rows = zip(*columns, strict=True)
    return tuple(Quantity(name.strip(), float(value), float(error), unit.strip()) for name, value, error, unit in rows)


def _subhalos(table: Hdu | None) -> tuple[dict[str, float], ...]:
    if table is None:
        return ()
    columns = {name: table.column(name.upper()) for name in (*BODY, "mass") if name.upper() in table.columns}
    rows = zip(*columns.values(), strict=True)
    return tuple(dict(zip(columns, map(float, row), strict=True)) for row in rows)


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
