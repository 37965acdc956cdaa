"""BUNIT, the unit of an image, as archives spell it."""

from __future__ import annotations

import re
import warnings

from astropy import units as u
from astropy.io import fits

from lensphys.fits.file import shown

# Words that astropy does not know, or knows as something else in capitals (S is a siemens), without their powers. In
# small letters; capitals stand for themselves where they matter.
_SPELLINGS = {
    "electron": "electron", "electrons": "electron", "elec": "electron", "el": "electron",
    "e": "electron", "ele": "electron",
    "count": "ct", "counts": "ct", "ct": "ct", "cts": "ct", "cps": "ct/s", "dn": "adu", "adu": "adu", "adus": "adu",
    "per": "/", "s": "s", "sec": "s", "second": "s", "seconds": "s", "pixel": "pix", "pixels": "pix", "px": "pix",
    "sr": "sr", "ster": "sr", "sterad": "sr", "str": "sr", "steradian": "sr", "steradians": "sr",
    "arcsec": "arcsec", "arcsecond": "arcsec", "arcseconds": "arcsec", "arcmin": "arcmin", "deg": "deg", "mas": "mas",
    "mJy": "mJy", "mjy": "MJy", "megajansky": "MJy", "millijansky": "mJy",
    "njy": "nJy", "ujy": "uJy", "microjy": "uJy", "microjansky": "uJy", "jy": "Jy", "jansky": "Jy",
    "nanojansky": "nJy", "nanomaggy": "nmgy", "nanomaggies": "nmgy", "nmgy": "nmgy", "nmgys": "nmgy",
    "angstrom": "Angstrom", "angstroms": "Angstrom", "ang": "Angstrom",
    "erg": "erg", "ergs": "erg", "cm": "cm", "hz": "Hz", "w": "W", "m": "m", "km": "km",
    "beam": "beam", "beams": "beam", "bm": "beam", "kelvin": "K",
}  # fmt: skip
_BEAMS = ("sr", "arcsec", "arcmin", "beam", "K")  # words of a surface brightness, of a unit that cannot be read
_MAGNITUDE = re.compile(r"(ab|st|vega|asinh|inst)?_?(mags?|magnitudes?|luptitudes?|luptmags?)_?(ab|st|vega)?")
_LOGARITHMS = ("log", "ln", "dex", "db", "asinh")
# what stands in BUNIT where there is no unit
_NO_UNIT = ("none", "null", "unitless", "dimensionless", "arbitrary", "unknown", "undefined", "n/a", "na", "-", "1")


def unit_text(header: fits.Header) -> str:
    """Return what BUNIT says; nothing where it says that there is no unit."""
    text = str(header.get("BUNIT", "")).strip()
    return "" if text.lower() in _NO_UNIT else text


def unit_of(header: fits.Header) -> u.UnitBase | None:
    """Return the unit of an image; None if its header has no BUNIT, or one that no one could read."""
    text = unit_text(header)
    if not text:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", u.UnitsWarning)  # FITS would rather have one slash
        for spelling in (text, _respelled(text)):
            unit = u.Unit(spelling, parse_strict="silent")
            if not isinstance(unit, u.UnrecognizedUnit) and u.S not in getattr(unit, "bases", [unit]):
                return None if unit == u.MJy else unit  # of a pixel: a millijansky in capitals
    return None


def is_surface_brightness(header: fits.Header) -> bool:
    """Return whether BUNIT says that a pixel holds flux per solid angle or beam (MJy/sr, K of a beam), not flux."""
    unit = unit_of(header)
    if unit is None:  # not a unit, but perhaps words of one
        words = re.split(r"[^A-Za-z]+", _respelled(unit_text(header)))
        return any(word in _BEAMS for word in words)
    if isinstance(unit, u.FunctionUnitBase):
        return False
    powers = {
        base: power for one in (unit, unit.decompose()) for base, power in zip(one.bases, one.powers, strict=True)
    }
    return powers.get(u.K, 0) > 0 or any(powers.get(base, 0) < 0 for base in (u.rad, u.beam, u.pc, u.kpc))


def is_magnitude(header: fits.Header) -> bool:
    """Return whether BUNIT says that a pixel holds a logarithm."""
    unit = unit_of(header)
    if unit is None:  # not a unit, but perhaps words of one
        words = re.split(r"[^a-z_]+", unit_text(header).lower())
        return any(_MAGNITUDE.fullmatch(word) or word.rstrip("_") in _LOGARITHMS for word in words)
    return isinstance(unit, u.FunctionUnitBase) or u.dex in unit.decompose().bases  # mag and dB are multiples of dex


def unread(header: fits.Header) -> list[str]:
    """Return what is to be said of a BUNIT that cannot be read."""
    if not unit_text(header) or unit_of(header) is not None or is_surface_brightness(header):
        return []
    return [f"BUNIT {shown(unit_text(header))} is no unit that can be read: it is taken for flux per pixel"]


def _respelled(text: str) -> str:
    """The text with every word that stands in the table as astropy spells it, in capitals or not."""
    text = re.sub(r"(?i)\bsq(?:uare)?[. _]*(arcsec\w*|arcmin\w*|deg\w*)", lambda found: f"{found[1]}^2", text)
    text = re.sub(r"(?i)(?<![a-z0-9.])e-(?!\d)", "electron", text)
    return re.sub(r"(?<![0-9.])[A-Za-z]+|(?<=[0-9.])[A-Za-z]{2,}", _word, text)


def _word(found: re.Match[str]) -> str:
    return _SPELLINGS.get(found[0], _SPELLINGS.get(found[0].lower(), found[0]))
