"""FITS cut-outs of real lenses, to read, and super-resolved ones with their place on the sky, to write."""

from __future__ import annotations

import gzip
import json
import re
import string
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from astropy.wcs.utils import proj_plane_pixel_scales
from numpy.typing import NDArray

import lensphys
from lensphys.checks import LensphysError, check_file
from lensphys.outputs import whole_file

Array = NDArray[Any]

_NOT_THE_IMAGE = ("ERR", "MASK", "PSF")
# what describes the array in the file that was read, not the image
_STRUCTURE = re.compile(
    r"(SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|GROUPS|EXTNAME|EXTVER|EXTLEVEL|INHERIT|BSCALE|BZERO|BLANK"
    r"|CHECKSUM|DATASUM|DATAMIN|DATAMAX|LTV\d|LTM\d_\d)"
)
_DISTORTION_TABLES = ("CPDIS1", "CPDIS2", "CQDIS1", "CQDIS2", "D2IMDIS1", "D2IMDIS2")


@dataclass(frozen=True)
class FitsImage:
    """What a FITS cut-out holds.

    Args:
        image: (H, W) float32; NaN and infinite values as they are in the file.
        header: of the image.
        extension: where the image was found.
        error: (H, W), standard deviation, or None.
        mask: (H, W), nonzero where a pixel counts, or None.
        psf: (K, K) kernel, or None.
        psf_scale: pixel scale of the kernel [arcsec], if its own header has one.
    """

    image: Array
    header: fits.Header
    extension: str
    error: Array | None = None
    mask: Array | None = None
    psf: Array | None = None
    psf_scale: float | None = None


def read_fits_image(path: Path) -> FitsImage:
    """Return the image of a FITS file: ARC (lens light subtracted), else SCI, else the first one; and ERR, MASK, PSF.

    Raises:
        LensphysError: if the file is missing, cut short, not FITS, or has no (H, W) image.
    """
    with _opened("input", path) as hdus:
        found = _images(hdus)
        named = [name for name in ("ARC", "SCI") if name in found]
        others = [n for n, hdu in found.items() if n not in _NOT_THE_IMAGE and len(hdu.shape) == 2]
        if not named and not others:
            raise LensphysError(f"{path} has no image (H, W): save the cut-out as the primary image or as SCI")
        name = (named or others)[0]
        planes = {n: _plane(path, n, found[n]) for n in (name, *_NOT_THE_IMAGE) if n in found}
        psf_scale = pixel_scale(found["PSF"].header, f"{path}[PSF]") if "PSF" in found else None
        header = found[name].header.copy()
    _check_rescalable(path, header)
    return FitsImage(
        planes[name], header, name, planes.get("ERR"), planes.get("MASK"), planes.get("PSF"), psf_scale
    )  # fmt: skip


def read_fits_plane(name: str, path: Path, extension: str) -> tuple[Array, float | None]:
    """Return one image (H, W) of a FITS file and its pixel scale [arcsec], None if its header has none.

    Args:
        name: what the file is called in the message.
        path: the file.
        extension: taken where it is present, else the first image is.

    Raises:
        LensphysError: if the file is missing, cut short, not FITS, or has no such image.
    """
    with _opened(name, path) as hdus:
        found = _images(hdus)
        flat = [n for n, hdu in found.items() if n == extension or len(hdu.shape) == 2]
        if not flat:
            raise LensphysError(f"{name} {path} has no image (H, W): save it as the primary image")
        chosen = extension if extension in flat else flat[0]
        return _plane(path, chosen, found[chosen]), pixel_scale(found[chosen].header, f"{path}[{chosen}]")


@contextmanager
def _opened(name: str, path: Path) -> Iterator[fits.HDUList]:
    check_file(name, path)
    try:
        # unpacked here, because astropy takes the end of a cut archive for the end of the file
        data = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
        with warnings.catch_warnings():
            # astropy would go on with the extensions before the damage
            warnings.filterwarnings("error", message="(?s).*(truncated|corrupt)")
            with fits.open(BytesIO(data), lazy_load_hdus=False) as hdus:
                yield hdus
    except LensphysError:
        raise
    except (OSError, EOFError, ValueError, TypeError, KeyError, IndexError, Warning, fits.VerifyError, zlib.error) as e:
        raise LensphysError(
            f"{name} {path} is not a whole FITS file (cut short, or another format): {str(e)[:60]!r}"
        ) from None


def _images(hdus: fits.HDUList) -> dict[str, Any]:
    """The HDUs that hold an array, by name (the first of each), in the order of the file."""
    found: dict[str, Any] = {}
    for i, hdu in enumerate(hdus):
        if hdu.is_image and len(hdu.shape):
            found.setdefault(hdu.name or str(i), hdu)
    return found


def _plane(path: Path, name: str, hdu: Any) -> Array:
    if len(hdu.shape) != 2 or 0 in hdu.shape:
        raise LensphysError(f"{path}[{name}] has the shape {hdu.shape}, expected one image (H, W): save one plane")
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is masked or refused as such
        return np.ascontiguousarray(hdu.data, dtype=np.float32)  # FITS is big-endian, torch is not


def pixel_scale(header: fits.Header, where: str) -> float | None:
    """Return the pixel scale of a header [arcsec]: of its celestial WCS, else of PIXSCALE, else None.

    Args:
        header: of an image.
        where: what the image is called in the message.

    Raises:
        LensphysError: if the WCS is faulty, or the pixels are not square within 1 %.
    """
    scale = header.get("PIXSCALE")
    wcs = None
    if any(key in header for key in ("CD1_1", "CD1_2", "CDELT1", "PC1_1")):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FITSFixedWarning)
                wcs = WCS(header, naxis=2)
            x, y = (3600 * proj_plane_pixel_scales(wcs.celestial)) if wcs.has_celestial else (0.0, 0.0)
        except (ValueError, KeyError, TypeError) as error:
            raise LensphysError(f"{where} has a faulty WCS: repair it, or give --pixel-scale ({error})") from None
        if wcs.has_celestial:
            if not (x > 0 and y > 0 and abs(x / y - 1) <= 0.01):
                raise LensphysError(f'{where} has pixels of {x:.4g}" x {y:.4g}": resample it onto square ones')
            return float(np.sqrt(x * y))
    if scale is None:
        return None
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not scale > 0:
        raise LensphysError(f"{where} has PIXSCALE = {scale!r}, expected arcsec above zero: give --pixel-scale")
    return float(scale)


def rescaled_header(header: fits.Header, factor: int) -> fits.Header:
    """Return a header for pixels ``factor`` times as small: the sky stays where it is.

    The outer edge of the first pixel is at 0.5 in FITS, so CRPIX' = (CRPIX - 0.5) factor + 0.5. CD, or CDELT beside PC
    and CROTA, shrink; SIP coefficients follow their powers of a pixel. Alternate descriptions (CRPIX1A) go along.

    Args:
        header: of the image with large pixels.
        factor: how many small pixels make a large one, along a side.
    """
    new = _described(header)
    for alt in ("", *string.ascii_uppercase):  # FITS: what is not there is 0 for CRPIX and 1 for CDELT
        if any(f"{key}{alt}" in new for key in ("CTYPE1", "CRPIX1", "CDELT1", "PC1_1", "CD1_1")):
            has_cd = any(f"CD{i}_{j}{alt}" in new for i in "12" for j in "12")
            for axis in "12":
                new.setdefault(f"CRPIX{axis}{alt}", 0.0)
                if not has_cd:
                    new.setdefault(f"CDELT{axis}{alt}", 1.0)
    for key in list(new):
        if re.fullmatch(r"CRPIX[12][A-Z]?", key):
            new[key] = (new[key] - 0.5) * factor + 0.5
        elif re.fullmatch(r"(CD[12]_[12]|CDELT[12])[A-Z]?", key):
            new[key] = new[key] / factor
        elif power := re.fullmatch(r"[AB]P?_(\d)_(\d)", key):
            new[key] = new[key] * float(factor) ** (1 - int(power[1]) - int(power[2]))
    return new


def _check_rescalable(path: Path, header: fits.Header) -> None:
    """Raise now if the WCS cannot be rescaled, not after the long computation."""
    tables = [key for key in _DISTORTION_TABLES if key in header]
    if tables:
        raise LensphysError(f"{path} has a WCS with distortion tables ({tables[0]}): drizzle the image first")
    try:
        rescaled_header(header, 2)
    except (TypeError, ValueError) as error:
        raise LensphysError(f"{path} has a WCS with values that are not numbers: repair it ({error})") from None


def _described(header: fits.Header) -> fits.Header:
    """A copy without the cards that describe the file which was read."""
    new = header.copy(strip=True)
    for key in {key for key in new if _STRUCTURE.fullmatch(key)}:
        new.remove(key, remove_all=True)
    return new


def is_surface_brightness(header: fits.Header) -> bool:
    """Return whether BUNIT says that a pixel holds flux per solid angle (MJy/sr), not flux."""
    return re.search(r"\bsr\b|steradian|arcsec", str(header.get("BUNIT", ""))) is not None


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
            source, source_scale, residual, chi2, theta_E, subhalos``, the table and the verdict: see
            `images.write_images`.
        scale: s.
        pixel_scale: of the low-resolution image [arcsec].
        provenance: becomes HISTORY.

    Raises:
        LensphysError: if the file cannot be written.
    """
    fine = _result_header(header, results, scale, pixel_scale, provenance)
    unit = str(header.get("BUNIT", ""))
    factor, source_unit, source_factor = 1, f"{unit}/arcsec2" if unit else "1/arcsec2", 1.0
    if is_surface_brightness(header):  # flux per pixel in units of BUNIT times a large pixel, back to BUNIT
        factor, source_unit, source_factor = scale**2, unit, pixel_scale**2
    hdus = [fits.PrimaryHDU(results["image"][0] * factor, fine)]
    sky = rescaled_header(header, scale)
    if "sigma" in results:
        hdus.append(_extension("SIGMA", results["sigma"][0] * factor, sky, unit, "standard deviation of the image"))
    if "constrained" in results:
        share = "deflection: 1 by the data, 0 by the prior"
        hdus.append(_extension("CONSTRAINED", results["constrained"][0], sky, "", share))
    if "alpha" in results:
        hdus.append(_extension("ALPHA", results["alpha"][0], sky, "arcsec", "x (along columns), y; not RA and Dec"))
    if "kappa" in results:
        hdus.append(_extension("KAPPA", results["kappa"][0], sky, "", "convergence"))
    if "source" in results:
        plain = fits.Header([("PIXSCALE", float(results["source_scale"]), "[arcsec] source plane")])
        source = results["source"][0] * source_factor
        hdus.append(_extension("SOURCE", source, plain, source_unit, "source plane, centred on the lens axis"))
    if "residual" in results:
        hdus.append(_extension("RESIDUAL", results["residual"][0], _described(header), unit, "image - model"))
    hdus += _tables(results)
    # an open file, because astropy would read meaning into the temporary name
    with whole_file(path) as temporary, temporary.open("wb") as file:
        fits.HDUList(hdus).writeto(file, output_verify="silentfix+ignore")


def _result_header(
    header: fits.Header, results: Mapping[str, Any], scale: int, pixel_scale: float, provenance: Mapping[str, Any]
) -> fits.Header:
    new = rescaled_header(header, scale)
    new["PIXSCALE"] = (pixel_scale / scale, "[arcsec]")
    if "THETA_E" in new:  # what others published must not pass for our result
        new["THETA_E0"] = (new.pop("THETA_E"), "THETA_E of the input")
    for key, name, comment in (("THETA_E", "theta_E", "[arcsec] Einstein radius"), ("CHI2", "chi2", "per pixel, LR")):
        if name in results:
            value = float(results[name][0])
            new[key] = (value if np.isfinite(value) else None, comment)  # FITS has no NaN in headers
    if "subhalos" in results:
        new["SUBHALOS"] = (int(results["subhalos"][0]), "sub-halos found")
    if "quality" in results:
        new["QUALITY"] = (str(results["quality"][0]), "good, suspect or bad: by the fit itself")
        new["REASONS"] = str(results["reasons"][0]) or "none"
    new["LENSPHYS"] = (lensphys.__version__, "version that super-resolved this image")
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


def read_fits_cube(name: str, path: Path) -> Array:
    """Return the first array of a FITS file that is an image (H, W) or a stack of them (N, H, W), float32.

    Args:
        name: what the file is called in the message.
        path: the file.

    Raises:
        LensphysError: if the file is missing, cut short, not FITS, or has no such array.
    """
    with _opened(name, path) as hdus:
        for hdu in _images(hdus).values():
            if len(hdu.shape) in (2, 3):
                return np.ascontiguousarray(hdu.data, dtype=np.float32)
    raise LensphysError(f"{name} {path} has no image (H, W) or stack of images (N, H, W)")
