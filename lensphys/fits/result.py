"""Super-resolved images as FITS, with their place on the sky."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from lensphys.basics.outputs import whole_file
from lensphys.basics.version import VERSION
from lensphys.fits.header import described, rescaled_header
from lensphys.fits.numbers import NUMBERS, numbers_of
from lensphys.fits.planes import IMAGE, LENS_LIGHT, PLANES, Plane
from lensphys.fits.units import is_surface_brightness

Array = NDArray[Any]

_ARC = Plane("arc", "the arcs", "input without the lens galaxy", "large", light=True)
_PSF = Plane("psf", "the PSF", "of the image")
# of a sub-halo: unit and comment of each column
_COLUMNS = {
    "gain": ("", "ln(L/L'): all / without this one, by its error"),
    "mass": ("solMass", "total"),
}
_OWN = (*(number.card for number in NUMBERS.values()), "QUALITY", "REASONS", "PSF")  # cards of a result
_CARD = 80  # characters of a card
_OF_INPUT = "---- of the input: its cards as they were read, its WCS on these pixels"
_OF_RESULT = "---- of the result: what lensphys found"


def write_fits(
    path: Path,
    header: fits.Header,
    results: Mapping[str, Any],
    *,
    scale: int,
    pixel_scale: float,
    provenance: Mapping[str, Any],
) -> None:
    """Write one super-resolved image, whole or not at all.

    Args:
        path: the file.
        header: of the low-resolution image.
        results: ``image`` (1, sH, sW) [flux per pixel], and where there are any the other `PLANES`, ``source_scale,
            chi2, theta_E, subhalos, psf, psf_kernel, psf_scale``, the table and the verdict: see
            `images.write_images`.
        scale: s.
        pixel_scale: of the low-resolution image [arcsec].
        provenance: becomes HISTORY.

    Raises:
        LensphysError: if the file cannot be written.
    """
    first, *others = _planes(header, results, scale=scale, pixel_scale=pixel_scale)
    primary = fits.PrimaryHDU(first.data, _with_origin(first.header, provenance))
    _written(path, [primary, *others, *_tables(results)])


@dataclass(frozen=True)
class BandResult:
    """The result of one band of several.

    Args:
        header: of the low-resolution image.
        results: as for `write_fits`.
        pixel_scale: of the low-resolution image [arcsec].
    """

    header: fits.Header
    results: Mapping[str, Any]
    pixel_scale: float


def write_bands(
    path: Path,
    bands: Mapping[str, BandResult],
    *,
    scale: int,
    table: Mapping[str, Array],
    found: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> None:
    """Write the super-resolved images of one lens in several bands, whole or not at all.

    The planes of a band are named by it, as archives do: ``VIS_SCI``, ``VIS_SIGMA``, ``VIS_MODEL``. What all of them
    share is in PARAMETERS, SUBHALOS and the primary header.

    Args:
        path: the file.
        bands: by their names.
        scale: factor by which pixels are smaller.
        table: of all parameters: ``name``, ``value``, ``error`` and ``unit``.
        found: of all bands: `NUMBERS` (1,), ``quality`` and ``reasons`` (1,), for the primary header.
        provenance: becomes HISTORY.

    Raises:
        LensphysError: if the file cannot be written.
    """
    head = fits.Header(_found(found))
    hdus: list[Any] = [fits.PrimaryHDU(header=_with_origin(head, provenance))]
    for band, one in bands.items():
        first, *others = _planes(one.header, one.results, scale=scale, pixel_scale=one.pixel_scale)
        hdus.append(fits.ImageHDU(first.data, first.header, name=f"{band}_SCI"))
        for hdu in others:
            hdu.name = f"{band}_{hdu.name}"
            hdus.append(hdu)
    hdus.append(_parameters(table))
    hdus += _bodies(next(iter(bands.values())).results)
    _written(path, hdus)


def _planes(header: fits.Header, results: Mapping[str, Any], *, scale: int, pixel_scale: float) -> list[Any]:
    """All images of a result, the super-resolved one first."""
    heads = {
        "fine": _result_header(rescaled_header(header, scale), results, pixel_scale / scale),
        "large": _result_header(described(header), results, pixel_scale),
        "source": fits.Header([("PIXSCALE", float(results.get("source_scale", 0.0)), "[arcsec] source plane")]),
    }
    unit = str(header.get("BUNIT", ""))
    units = {"fine": unit, "large": unit, "source": f"{unit}/arcsec2" if unit else "1/arcsec2"}
    factors = {"fine": 1.0, "large": 1.0, "source": 1.0}
    if is_surface_brightness(header):  # flux per pixel in units of BUNIT times a large pixel, back to BUNIT
        factors |= {"fine": scale**2, "source": pixel_scale**2}
        units["source"] = unit

    def extension(plane: Plane) -> Any:
        values = results[plane.name][0] * (factors[plane.pixels] if plane.light else 1.0)
        return _extension(plane, values, heads[plane.pixels], units[plane.pixels] if plane.light else plane.unit)

    lit = "lens_light" in results and bool(np.any(results["lens_light"][0]))
    found = [p for p in PLANES.values() if p.name in results and p is not IMAGE and (lit or p is not LENS_LIGHT)]
    hdus = [fits.ImageHDU(results["image"][0] * factors["fine"], heads["fine"]), *map(extension, found)]
    if lit:
        hdus.append(_extension(_ARC, results["lr"][0] - results["lens_light"][0], heads["large"], unit))
    if "psf_kernel" in results:
        plain = fits.Header([("PIXSCALE", float(results["psf_scale"]), "[arcsec]")])
        hdus.append(_extension(_PSF, results["psf_kernel"], plain, ""))
    return hdus


def _written(path: Path, hdus: list[Any]) -> None:
    # an open file, because astropy would read meaning into the temporary name
    with whole_file(path) as temporary, temporary.open("wb") as file:
        _dated_by_nothing(fits.HDUList(hdus)).writeto(file, output_verify="silentfix+ignore")


def _dated_by_nothing(hdus: fits.HDUList) -> fits.HDUList:
    """The list with checksums whose comments tell no time, as astropy's would: the same result is the same bytes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hdus.verify("silentfix+ignore")
        hdus.update_extend()
    for hdu in hdus:
        hdu.add_checksum(when="HDU checksum")
    return hdus


def _result_header(new: fits.Header, results: Mapping[str, Any], pixel_scale: float) -> fits.Header:
    """The header of every plane of a result: the cards of the input, and below them those of what was found."""
    unit = (new.get("BUNIT"), new.comments["BUNIT"]) if "BUNIT" in new else None
    head = _of_input(new)
    head.append(("COMMENT", _OF_RESULT), end=True)
    for key, value, comment in [("PIXSCALE", pixel_scale, "[arcsec]"), *_found(results)]:
        head.append((key, value, comment), end=True)
    if unit is not None:
        head.append(("BUNIT", *unit), end=True)
    return head


def _of_input(header: fits.Header) -> fits.Header:
    """What the input says, below a heading; its cards that have the names of a result's get a 0 at their ends."""
    kept = [card for card in header.cards if card.value not in (_OF_INPUT, _OF_RESULT)]  # it may be a result itself
    new = fits.Header([("COMMENT", _OF_INPUT), *kept])
    for key in ("PIXSCALE", "BUNIT", "LENSPHYS"):
        new.remove(key, ignore_missing=True, remove_all=True)
    for key in filter(new.__contains__, _OWN):
        other = f"{key[:7]}0"
        new.remove(other, ignore_missing=True, remove_all=True)
        new.rename_keyword(key, other)
        comment = f"{key} of the input"
        room = _CARD - len(fits.Card(other, new[other]).image.rstrip())
        new.comments[other] = comment if len(f" / {comment}") <= room else ""
    return new


def _card(value: Any) -> Any:
    """What a header holds of a value: FITS has no NaN and no infinity there."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _found(results: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    """The cards of what was found: keyword, value and comment."""
    numbers = numbers_of(results).items()
    cards = [(NUMBERS[name].card, _card(value), NUMBERS[name].comment) for name, value in numbers]
    if "quality" in results:
        cards.append(("QUALITY", str(results["quality"][0]), "good, suspect or bad: by the fit itself"))
        cards.append(("REASONS", str(results["reasons"][0]) or "none", ""))
    if "psf" in results:
        cards.append(("PSF", str(results["psf"]).encode("ascii", "backslashreplace").decode(), ""))
    return [*cards, ("LENSPHYS", VERSION, "version that super-resolved this image")]


def _with_origin(header: fits.Header, provenance: Mapping[str, Any]) -> fits.Header:
    new = header.copy()
    for name, entry in provenance.items():
        new.add_history(f"lensphys {name}: {json.dumps(entry, default=str)}")
    return new


def _tables(results: Mapping[str, Any]) -> list[Any]:
    """All parameters with their errors, and the sub-halos: binary tables, where there are any."""
    if "parameters" not in results:
        return []
    names, units = (list(map(str, results[key])) for key in ("parameter_names", "parameter_units"))
    table = {"name": names, "value": results["parameters"][0], "error": results["errors"][0], "unit": units}
    if "covariance" in results:
        table["covariance"] = results["covariance"][0]
    return [_parameters(table), *_bodies(results)]


def _parameters(table: Mapping[str, Any]) -> Any:
    """The table of all parameters: ``name``, ``value``, ``error`` and ``unit``, and ``covariance`` with all of them."""
    names = list(map(str, table["name"]))
    columns = [
        fits.Column("NAME", f"{max(map(len, names))}A", array=names),
        fits.Column("VALUE", "D", array=table["value"]),
        fits.Column("ERROR", "D", array=table["error"]),
        fits.Column("UNIT", "16A", array=list(map(str, table["unit"]))),
    ]
    if "covariance" in table:
        columns.append(fits.Column("COVARIANCE", f"{len(names)}D", array=table["covariance"]))
    return fits.BinTableHDU.from_columns(columns, name="PARAMETERS")


def _bodies(results: Mapping[str, Any]) -> list[Any]:
    """The sub-halos, where there are any."""
    if "bodies" not in results:
        return []
    found = np.isfinite(results["bodies"][0]).all(1)
    bodies = results["bodies"][0][found]
    if len(bodies) == 0:
        return []
    body = [
        fits.Column(name.upper(), "D", unit=_COLUMNS.get(name, ("arcsec",))[0], array=bodies[:, i])
        for i, name in enumerate(map(str, results["body_columns"]))
    ]
    if "body_masses" in results:
        body.append(fits.Column("MASS", "D", unit=_COLUMNS["mass"][0], array=results["body_masses"][0][found]))
    table = fits.BinTableHDU.from_columns(body, name="SUBHALOS")
    for i, column in enumerate(body, 1):
        table.header.comments[f"TTYPE{i}"] = _COLUMNS.get(column.name.lower(), ("", ""))[1]
    return [table]


def _extension(plane: Plane, data: Array, header: fits.Header, unit: str) -> Any:
    hdu = fits.ImageHDU(np.asarray(data, dtype=np.float32), header.copy(), name=plane.extension)
    hdu.header["BUNIT"] = (unit, plane.comment)
    return hdu
