"""Headers of FITS images: the pixel scale, the same sky on smaller pixels, and what of a file's header stays."""

from __future__ import annotations

import re
import string
import warnings
from collections.abc import Iterable

import numpy as np
from astropy import log as astropy_log
from astropy import units
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from astropy.wcs.utils import proj_plane_pixel_scales

from lensphys.basics.checks import LensphysError, is_number
from lensphys.basics.settings import PositivePair, Strict
from lensphys.basics.sizes import PIXEL_SCALES
from lensphys.fits.file import SKY, FitsFile, Hdu, shown

# what describes the array in the file that was read, not the image
_STRUCTURE = re.compile(
    r"(SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|GROUPS|EXTNAME|EXTVER|EXTLEVEL|INHERIT|BSCALE|BZERO|BLANK"
    r"|CHECKSUM|DATASUM|DATAMIN|DATAMAX|LTV\d|LTM\d_\d|NEXTEND|EXT_\d+|HDUCLAS\d?|HDUCLASS|HDUDOC|HDUVERS"
    r"|SCIDATA|ERRDATA|QUALDATA)"
)
# of a cube: frequency, polarisation
_OTHER_AXES = re.compile(
    r"((CTYPE|CRPIX|CRVAL|CDELT|CUNIT|CROTA|CNAME|CRDER|CSYER)[3-9]|(CD|PC)([3-9]_\d|\d_[3-9])|P[VS][3-9]_\d+)[A-Z]?"
)
_AXES = re.compile("WCSAXES[A-Z]?")
NO_SKY = "cannot be read, and nothing of that WCS is used: repair it"
_DISTORTION_TABLES = ("CPDIS1", "CPDIS2", "CQDIS1", "CQDIS2", "D2IMDIS1", "D2IMDIS2")
# [arcsec]: STPSF; drizzled images and TinyTim; older cameras
SCALE_KEYS = ("PIXELSCL", "PIXSCALE", "PIXSCAL1", "SECPIX", "SECPIX1", "PIXELSCALE")
_STEPS = ("CD1_1", "CD1_2", "CDELT1", "PC1_1")  # of a WCS
_SIDE = re.compile("|".join((*SCALE_KEYS, "PIXSCAL2", "SECPIX2", r"(CD[12]_[12]|CDELT[12])[A-Z]?")))
_POINT, _SIP = re.compile(r"CRPIX[12][A-Z]?"), re.compile(r"[AB]P?_(\d)_(\d)")
_PLACE = re.compile(r"(CRVAL[12]|PC[12]_[12]|CROTA[12]|LONPOLE|LATPOLE)[A-Z]?")
_AREA = re.compile("PIXAR_SR|PIXAR_A2")  # JWST


def pixel_scale(header: fits.Header, where: str) -> float | None:
    """Return the pixel scale of an image [arcsec]: of its celestial WCS, else of PIXSCALE and the like, else None.

    Args:
        header: of an image.
        where: what the image is called in the message.

    Raises:
        LensphysError: if the WCS is faulty, or the pixels are not square within 1 %.
    """
    return _sky_scale(header, where) or stated_scale(header, where)


def kernel_scale(header: fits.Header, where: str) -> float | None:
    """Return the pixel scale of a PSF kernel [arcsec]: stated, else of a WCS or of steps with a unit, else None.

    Args:
        header: of the kernel.
        where: what the kernel is called in the message.

    Raises:
        LensphysError: if what is stated is no positive number, or the WCS is faulty.
    """
    return stated_scale(header, where) or _sky_scale(header, where) or _plain_step(header)


def _plain_step(header: fits.Header) -> float | None:
    """CDELT1 of axes that are no coordinates of the sky, if CUNIT1 is an angle [arcsec]."""
    try:
        step = abs(float(header["CDELT1"])) * units.Unit(str(header["CUNIT1"])).to("arcsec")
    except (KeyError, TypeError, ValueError):
        return None
    return step if 0 < step < float("inf") else None


def filter_of(header: fits.Header) -> str:
    """Return the filter of an image in capitals, nothing where no card names one: FILTER, FILTER1 and 2, BAND."""
    told = (str(header.get(key, "")).strip().upper() for key in ("FILTER", "FILTER1", "FILTER2", "BAND"))
    return next((name for name in told if name and not name.startswith("CLEAR")), "")


def has_steps(header: fits.Header) -> bool:
    """Return whether a header says how large a pixel is on the sky, for a WCS."""
    return _first_of(_STEPS, header) is not None


def _first_of(keys: Iterable[str], header: fits.Header) -> str | None:
    """The first of some cards that a header has."""
    return next((key for key in keys if key in header), None)


def celestial(header: fits.Header) -> WCS | None:
    """Return the celestial WCS of an image, without a word of astropy's; None if it has none.

    Raises:
        Exception: of any type, as wcslib and astropy do, if it is faulty.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        level = astropy_log.level
        astropy_log.setLevel("ERROR")  # SIP coefficients of a header that does not name them
        try:
            wcs = WCS(header, naxis=2)
        finally:
            astropy_log.setLevel(level)
    return wcs.celestial if wcs.has_celestial else None


def reason(error: Exception) -> str:
    """Return what wcslib or astropy found wrong, without the place in their code."""
    return shown(str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__)


def scale_key(header: fits.Header) -> str:
    """Return the card that gives the pixel scale of an image: of its WCS, else PIXSCALE or the like.

    Raises:
        LensphysError: if the WCS is faulty.
    """
    sky = _first_of(_STEPS, header)
    return sky if sky and _sky_scale(header, sky) is not None else _first_of(SCALE_KEYS, header) or ""


class UsualScales(Strict):
    """Which pixel scales an image of a lens can have [arcsec]: no telescope that sees lenses has others.

    Args:
        questioned: below the first and above the second one, it is asked whether the unit is right.
        refused: below the first and above the second one, an image is not read.
    """

    questioned: PositivePair = (1e-3, 10.0)
    refused: PositivePair = PIXEL_SCALES


def questioned_scale(scale: float, key: str, where: str, usual: UsualScales = UsualScales()) -> list[str]:
    """Return the question that a strange pixel scale calls for.

    Args:
        scale: [arcsec].
        key: the card or the option that gave it.
        where: what the image is called in messages.
        usual: scales.

    Raises:
        LensphysError: if it is none that an image of a lens can have.
    """
    unit = "arcsec" if key in SCALE_KEYS or key.startswith("-") else "degrees"
    low, high = usual.refused
    if not low <= scale <= high:
        remedy = f"give it in {unit}" if key == "--pixel-scale" else f"repair {key} ({unit}), or give --pixel-scale"
        raise LensphysError(f'{where} has pixels of {scale:.4g}" by {key}: {remedy}')
    low, high = usual.questioned
    return [] if low <= scale <= high else [f'{where} has pixels of {scale:.4g}" by {key}: is that in {unit}?']


def same_scale(scale: float, other: float, tolerance: float = 0.01) -> bool:
    """Return whether two pixel scales, in the same unit, differ by a share ``tolerance`` or less: headers round them.

    Example:
        >>> same_scale(0.1005, 0.1), same_scale(0.102, 0.1)
        (True, False)
    """
    return abs(scale / other - 1) <= tolerance


def scale_conflict(header: fits.Header, where: str) -> list[str]:
    """Return what is to be said where the WCS of an image and its PIXSCALE, or the like, are not of one mind.

    Raises:
        LensphysError: if one of the two is faulty.
    """
    sky, stated = _sky_scale(header, where), stated_scale(header, where)
    if sky is None or stated is None or same_scale(stated, sky):
        return []
    key = _first_of(SCALE_KEYS, header)
    return [f'{where} has {key} {stated:.4g} and a WCS of {sky:.4g}": the WCS is taken (else give --pixel-scale)']


def scale_overruled(header: fits.Header, scale: float) -> list[str]:
    """Return what is to be said where a header has another pixel scale than what was given in its place [arcsec]."""
    try:
        said = pixel_scale(header, "")
    except LensphysError:
        return []  # that is why one was given
    if said is None or same_scale(scale, said):
        return []
    return [f'pixels of {scale:.4g}" as given, not of {said:.4g}" as in the header, whose WCS the result keeps']


def stated_scale(header: fits.Header, where: str) -> float | None:
    """Return the pixel scale that a card states (PIXSCALE and the like) [arcsec]; None where none does.

    Raises:
        LensphysError: if it is no positive number.
    """
    key = _first_of(SCALE_KEYS, header)
    if key is None:
        return None
    scale = header[key]
    if not is_number(scale) or not 0 < scale < float("inf"):
        raise LensphysError(f"{where} has {key} = {shown(repr(scale))}, expected arcsec above zero: give --pixel-scale")
    return float(scale)


def _sky_scale(header: fits.Header, where: str) -> float | None:
    if not has_steps(header):
        return None
    try:
        wcs = celestial(header)
        return None if wcs is None else wcs_scale(wcs, where)
    except LensphysError:
        raise
    except Exception as error:  # wcslib and astropy raise errors of any type
        raise LensphysError(f"{where} has a faulty WCS: repair it, or give --pixel-scale ({reason(error)})") from None


def wcs_scale(wcs: WCS, where: str) -> float:
    """Return the side of a pixel of a WCS of the sky [arcsec].

    Raises:
        LensphysError: if the pixels are not square within 1 %.
    """
    x, y = 3600 * proj_plane_pixel_scales(wcs)
    if not (x > 0 and y > 0 and same_scale(x, y)):
        raise LensphysError(f'{where} has pixels of {x:.4g}" x {y:.4g}": resample it onto square ones')
    return float(np.sqrt(x * y))


def rescaled_header(header: fits.Header, factor: int) -> fits.Header:
    """Return a header for pixels ``factor`` times as small: the sky stays where it is.

    The outer edge of the first pixel is at 0.5 in FITS, so CRPIX' = (CRPIX - 0.5) factor + 0.5. CD, or CDELT beside PC
    and CROTA, shrink, and so do PIXSCALE, PIXAR_SR and the like; SIP coefficients follow their powers of a pixel.
    Alternate descriptions (CRPIX1A) go along.

    Args:
        header: of the image with large pixels.
        factor: how many small pixels make a large one, along a side.
    """
    new = described(header)
    for alt in ("", *string.ascii_uppercase):  # FITS: what is not there is 0 for CRPIX and 1 for CDELT
        if any(f"{key}{alt}" in new for key in ("CTYPE1", "CRPIX1", "CDELT1", "PC1_1", "CD1_1")):
            has_cd = any(f"CD{i}_{j}{alt}" in new for i in "12" for j in "12")
            for axis in "12":
                new.setdefault(f"CRPIX{axis}{alt}", 0.0)
                if not has_cd:
                    new.setdefault(f"CDELT{axis}{alt}", 1.0)
    for key in list(new):
        if _POINT.fullmatch(key):
            new[key] = (new[key] - 0.5) * factor + 0.5
        elif _SIDE.fullmatch(key):
            new[key] = new[key] / factor
        elif _AREA.fullmatch(key):
            new[key] = new[key] / factor**2
        elif power := _SIP.fullmatch(key):
            new[key] = new[key] * float(factor) ** (1 - int(power[1]) - int(power[2]))
    return new


def check_rescalable(where: str, header: fits.Header) -> None:
    """Raise now if the WCS cannot be rescaled, not after the long computation.

    Raises:
        LensphysError: if it has distortion tables, or texts for numbers.
    """
    if (table := _first_of(_DISTORTION_TABLES, header)) is not None:
        raise LensphysError(f"{where} has a WCS with distortion tables ({table}): drizzle the image first")
    for key, value in header.items():
        if _is_number(key) and not isinstance(value, int | float):
            raise LensphysError(f"{where} has {key} = {shown(repr(value))}, expected a number: repair it")


def described(header: fits.Header) -> fits.Header:
    """Return a copy without the cards that describe the file which was read, nor axes beside the image's two."""
    new = header.copy(strip=True)
    for key in {key for key in new if _STRUCTURE.fullmatch(key) or _OTHER_AXES.fullmatch(key)}:
        new.remove(key, remove_all=True)
    for key in [key for key in new if _AXES.fullmatch(key) and new[key] != 2]:
        new[key] = 2
    return new


def header_of(hdu: Hdu, file: FitsFile) -> fits.Header:
    """Return the header of an extension with what the primary one alone says: telescope, filter, exposure, dates.

    The place on the sky is taken only where the extension has none of its own.
    """
    new, own_sky = hdu.header.copy(), any(SKY.fullmatch(key) for key in (*hdu.header, *hdu.lost))
    for card in described(file.primary).cards:
        inherited = card.keyword not in ("", "COMMENT", "HISTORY", *new)
        if inherited and not (own_sky and SKY.fullmatch(card.keyword)):
            new.append(card, end=True)
    return with_numbers(new)


def with_numbers(header: fits.Header) -> fits.Header:
    """Return a header in which what sizes and places of pixels say as a text (PIXSCALE = '0.1') is a number."""
    texts = [key for key, value in header.items() if isinstance(value, str) and _is_number(key)]
    new = header.copy() if texts else header
    for key in texts:
        try:
            new[key] = float(header[key])
        except ValueError:
            continue  # it is refused where it is needed
    return new


def _is_number(key: str) -> bool:
    return any(form.fullmatch(key) for form in (_POINT, _SIDE, _AREA, _SIP, _PLACE))


def lost_cards(hdu: Hdu, file: FitsFile) -> list[str]:
    """Return what is to be said of cards of an extension, and of the primary header, that cannot be read."""
    lost = dict.fromkeys((*hdu.lost, *file.lost))
    sky = [key for key in lost if SKY.fullmatch(key)]
    told = [f"{', '.join(map(shown, sky[:4]))} {NO_SKY}"] if sky else []
    others = [shown(key) for key in lost if key not in sky]
    return told + ([f"cards that cannot be read are left out: {', '.join(others[:6])}"] if others else [])
