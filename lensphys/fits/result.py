"""Super-resolved images as FITS, with their place on the sky."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from lensphys.basics.outputs import whole_file
from lensphys.basics.version import VERSION
from lensphys.fits.header import described, rescaled_header
from lensphys.fits.units import is_surface_brightness

Array = NDArray[Any]

# planes on the large pixels, and what they are
_LARGE = {"lr": "the image as it was read", "model": "of the image, by the method", "residual": "image - model"}
# numbers of an image in the header: keyword, name of the result, comment
_NUMBERS = (
    ("THETA_E", "theta_E", "[arcsec] Einstein radius"),
    ("CHI2", "chi2", "per pixel, LR"),
    ("SUBGAIN", "best_gain", "ln likelihood by one sub-halo at its best"),
    ("SUBEVID", "substructure_evidence", "ln evidence with / without substructure"),
)


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
        results: ``image`` (1, sH, sW) [flux per pixel], and where there are any ``sigma, constrained, alpha, kappa,
            source, source_scale, lr, model, residual, lens_light, chi2, theta_E, subhalos, psf, psf_kernel,
            psf_scale``, the table and the verdict: see `images.write_images`.
        scale: s.
        pixel_scale: of the low-resolution image [arcsec].
        provenance: becomes HISTORY.

    Raises:
        LensphysError: if the file cannot be written.
    """
    fine = _result_header(rescaled_header(header, scale), results, pixel_scale / scale)
    unit = str(header.get("BUNIT", ""))
    factor, source_unit, source_factor = 1, f"{unit}/arcsec2" if unit else "1/arcsec2", 1.0
    if is_surface_brightness(header):  # flux per pixel in units of BUNIT times a large pixel, back to BUNIT
        factor, source_unit, source_factor = scale**2, unit, pixel_scale**2
    hdus = [fits.PrimaryHDU(results["image"][0] * factor, _with_origin(fine, provenance))]
    if "sigma" in results:
        hdus.append(_extension("SIGMA", results["sigma"][0] * factor, fine, unit, "standard deviation of the image"))
    if "constrained" in results:
        share = "deflection: 1 by the data, 0 by the prior"
        hdus.append(_extension("CONSTRAINED", results["constrained"][0], fine, "", share))
    if "alpha" in results:
        hdus.append(_extension("ALPHA", results["alpha"][0], fine, "arcsec", "x (along columns), y; not RA and Dec"))
    if "kappa" in results:
        hdus.append(_extension("KAPPA", results["kappa"][0], fine, "", "convergence"))
    if "source" in results:
        plain = fits.Header([("PIXSCALE", float(results["source_scale"]), "[arcsec] source plane")])
        source = results["source"][0] * source_factor
        hdus.append(_extension("SOURCE", source, plain, source_unit, "source plane, centred on the lens axis"))
    large = _result_header(described(header), results, pixel_scale)
    for name, comment in _LARGE.items():
        if name in results:
            hdus.append(_extension(name.upper(), results[name][0], large, unit, comment))
    if "lens_light" in results and np.any(results["lens_light"][0]):
        light = results["lens_light"][0]
        hdus.append(_extension("ARC", results["lr"][0] - light, large, unit, "input without the lens galaxy"))
        hdus.append(_extension("LENSLIGHT", light, large, unit, "model of the lens galaxy's light"))
    if "psf_kernel" in results:
        plain = fits.Header([("PIXSCALE", float(results["psf_scale"]), "[arcsec]")])
        hdus.append(_extension("PSF", results["psf_kernel"], plain, "", "of the image"))
    hdus += _tables(results)
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
    """The header of every plane of a result: what was found, in place of what others published."""
    new["PIXSCALE"] = (pixel_scale, "[arcsec]")
    if "THETA_E" in new:
        new["THETA_E0"] = (new.pop("THETA_E"), "THETA_E of the input")
    for key, name, comment in _NUMBERS:
        if name in results:
            value = float(results[name][0])
            new[key] = (value if np.isfinite(value) else None, comment)  # FITS has no NaN in headers
    if "subhalos" in results:
        new["SUBHALOS"] = (int(results["subhalos"][0]), "sub-halos found")
    if "false_subhalos" in results:
        new["SUBFALSE"] = (float(results["false_subhalos"][0]), "those of a smooth lens, by calibration")
    if "quality" in results:
        new["QUALITY"] = (str(results["quality"][0]), "good, suspect or bad: by the fit itself")
        new["REASONS"] = str(results["reasons"][0]) or "none"
    if "psf" in results:
        new["PSF"] = str(results["psf"])
    new["LENSPHYS"] = (VERSION, "version that super-resolved this image")
    return new


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
    columns = [
        fits.Column("NAME", f"{max(map(len, names))}A", array=names),
        fits.Column("VALUE", "D", array=results["parameters"][0]),
        fits.Column("ERROR", "D", array=results["errors"][0]),
        fits.Column("UNIT", "16A", array=units),
    ]
    tables = [fits.BinTableHDU.from_columns(columns, name="PARAMETERS")]
    found = np.isfinite(results["bodies"][0]).all(1)
    bodies = results["bodies"][0][found]
    if len(bodies):
        body = [
            fits.Column(name.upper(), "D", unit="" if name == "gain" else "arcsec", array=bodies[:, i])
            for i, name in enumerate(map(str, results["body_columns"]))
        ]
        if "body_masses" in results:
            body.append(fits.Column("MASS", "D", unit="solMass", array=results["body_masses"][0][found]))
        tables.append(fits.BinTableHDU.from_columns(body, name="SUBHALOS"))
    return tables


def _extension(name: str, data: Array, header: fits.Header, unit: str, comment: str) -> Any:
    hdu = fits.ImageHDU(np.asarray(data, dtype=np.float32), header.copy(), name=name)
    hdu.header["BUNIT"] = (unit, comment)
    return hdu
