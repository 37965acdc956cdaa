"""A row of the catalogue: what is told of a lens, and where in a result it stands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from astropy.io.fits import Header

Row = dict[str, Any]
_DIGITS = 10  # of a degree: below it there is but rounding


@dataclass(frozen=True)
class Column:
    """A column of the catalogue.

    Args:
        name: of the column.
        kind: of its values: str, int or float.
        unit: as astropy writes it.
        description: a few words.
    """

    name: str
    kind: type
    unit: str
    description: str


def _measured(name: str, unit: str, description: str) -> list[Column]:
    return [Column(name, float, unit, description), Column(f"{name}_error", float, unit, f"1 sigma of {name}")]


COLUMNS = [
    Column("number", int, "", "of the lens in this catalogue, from 0"),
    Column("file", str, "", "where the image is"),
    Column("image", int, "", "number of the image in its file, for stacks"),
    Column("status", str, "", "done, or failed"),
    Column("ra", float, "deg", "middle of the image, ICRS where the file says nothing else"),
    Column("dec", float, "deg", "middle of the image"),
    *_measured("theta_E", "arcsec", "Einstein radius of the main lens"),
    *_measured("theta_E_total", "arcsec", "radius within which the mean convergence of all mass is 1"),
    *_measured("e1", "", "ellipticity of the main lens, along the pixels"),
    *_measured("e2", "", "ellipticity of the main lens, along the diagonals"),
    *_measured("gamma1", "", "external shear, along the pixels"),
    *_measured("gamma2", "", "external shear, along the diagonals"),
    *_measured("slope", "", "of the mass density, 2 is isothermal; where it was fitted"),
    *_measured("source_flux", "", "of the source without the lens, in the flux unit of the file"),
    *_measured("source_radius", "arcsec", "holds half of the source's flux"),
    *_measured("magnification", "", "flux of the image over that of the source"),
    Column("subhalos", int, "", "sub-halos found"),
    Column("false_subhalos", float, "", "sub-halos that a smooth lens would have, by calibration"),
    Column("chi2", float, "", "chi^2 per degree of freedom"),
    Column("quality", str, "", "good, suspect or bad: what the fit says of itself"),
    Column("reasons", str, "", "why it is not good; of a failed one why it failed"),
    Column("result", str, "", "file of the super-resolved image"),
    Column("seconds", float, "s", "time that it took, on one worker"),
]
OF_MAIN = ("e1", "e2")
OF_SHEAR = ("gamma1", "gamma2")
PLAIN = ("theta_E_total", "source_flux", "source_radius", "magnification")


def failed(number: int, file: str, image: int | None, reason: str) -> Row:
    """Return the row of a lens of which nothing was made."""
    return {"number": number, "file": file, "image": image, "status": "failed", "reasons": reason}


def row_of(result: Mapping[str, Any], place: int, header: Header | None) -> Row:
    """Return what a result says of one of its images.

    Args:
        result: of `lensphys.methods.super_resolve.super_resolve`.
        place: of the image.
        header: of the image in a FITS file.
    """
    row: Row = {"status": "done"} | _position(header, result["residual"].shape[-2:])
    for name in ("theta_E", "false_subhalos", "chi2"):
        if name in result:
            row[name] = _number(result[name][place])
    if "subhalos" in result:
        row["subhalos"] = int(result["subhalos"][place])
    if "quality" in result:
        row |= {name: str(result[name][place]) for name in ("quality", "reasons")}
    return row | _parameters(result, place)


def _parameters(result: Mapping[str, Any], place: int) -> Row:
    """Ellipticity and slope of the main lens, shear, and what is derived, with their errors."""
    if "parameters" not in result:
        return {}
    names = [str(name) for name in result["parameter_names"]]
    main = next((name.removesuffix(".theta_E") for name in names if name.endswith(".theta_E")), "")
    shear = next((name.removesuffix(".gamma1") for name in names if name.endswith(".gamma1")), "")
    wanted = {name: f"{main}.{name}" for name in OF_MAIN} | {name: f"{shear}.{name}" for name in OF_SHEAR}
    wanted |= {name: name for name in PLAIN} | {"slope": f"{main}.gamma"}
    row: Row = {}
    for name, full in wanted.items():
        if full in names:
            k = names.index(full)
            row[name] = _number(result["parameters"][place, k])
            row[f"{name}_error"] = _number(result["errors"][place, k])
    if "theta_E" in names:
        row["theta_E_error"] = _number(result["errors"][place, names.index("theta_E")])
    return row


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(float(value)) else None


def _position(header: Header | None, shape: tuple[int, int]) -> Row:
    """Right ascension and declination of the middle of an image, where its header has a place on the sky."""
    if header is None or "CTYPE1" not in header:
        return {}
    from lensphys.fits.header import celestial

    try:
        wcs = celestial(header)
        if wcs is None:
            return {}
        sky = wcs.pixel_to_world((shape[1] - 1) / 2, (shape[0] - 1) / 2).icrs
    except Exception:  # wcslib raises errors of any type; what could not be told is not told
        return {}
    return {"ra": round(float(sky.ra.deg), _DIGITS) % 360, "dec": round(float(sky.dec.deg), _DIGITS) + 0.0}
