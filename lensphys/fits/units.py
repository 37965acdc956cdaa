"""BUNIT, the unit of an image, as archives spell it."""

from __future__ import annotations

import re
import warnings

from astropy import units as u
from astropy.io import fits

# words that astropy does not know, or knows as something else in capitals (S is a siemens)
_SPELLINGS = {
    "electron": "electron", "electrons": "electron", "elec": "electron", "el": "electron",
    "e-": "electron", "e": "electron", "ele": "electron",
    "count": "ct", "counts": "ct", "ct": "ct", "cts": "ct", "cps": "ct/s", "dn": "adu", "adu": "adu", "adus": "adu",
    "per": "/", "s": "s", "sec": "s", "second": "s", "seconds": "s", "pixel": "pix", "pixels": "pix",
    "sr": "sr", "ster": "sr", "steradian": "sr", "steradians": "sr", "arcsec2": "arcsec2", "sqarcsec": "arcsec2",
    "mjy": "MJy", "njy": "nJy", "ujy": "uJy", "microjy": "uJy", "microjansky": "uJy", "jy": "Jy", "jansky": "Jy",
    "nanojansky": "nJy", "nanomaggy": "nmgy", "nanomaggies": "nmgy", "nmgy": "nmgy", "nmgys": "nmgy",
    "angstrom": "Angstrom", "angstroms": "Angstrom", "ang": "Angstrom",
    "erg": "erg", "ergs": "erg", "cm2": "cm2", "hz": "Hz", "beam": "beam", "w": "W", "m2": "m2",
}  # fmt: skip
_MAGNITUDES = ("mag", "mags", "magnitude", "magnitudes")  # ABmag, too
_LOGARITHMS = ("log", "ln", "dex", "asinh")
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
    """Return whether BUNIT says that a pixel holds flux per solid angle or beam (MJy/sr), not flux."""
    unit = unit_of(header)
    if unit is None:  # not a unit, but perhaps words of one
        words = re.split(r"[^A-Za-z0-9]+", _respelled(str(header.get("BUNIT", ""))))
        return any(word in ("sr", "arcsec", "arcsec2", "beam") for word in words)
    if isinstance(unit, u.FunctionUnitBase):
        return False
    unit = unit.decompose()
    return any(base in (u.rad, u.beam) and power < 0 for base, power in zip(unit.bases, unit.powers, strict=True))


def is_magnitude(header: fits.Header) -> bool:
    """Return whether BUNIT says that a pixel holds a logarithm."""
    unit = unit_of(header)
    if unit is None:  # not a unit, but perhaps words of one
        words = re.split(r"[^a-z]+", unit_text(header).lower())
        return any(word.endswith(_MAGNITUDES) or word in _LOGARITHMS for word in words)
    return isinstance(unit, u.FunctionUnitBase) or u.mag in getattr(unit, "bases", [unit])


def _respelled(text: str) -> str:
    """The text with every word that stands in the table as astropy spells it, in capitals or not."""
    return re.sub(r"[A-Za-z]+-?2?(?![A-Za-z])", lambda word: _SPELLINGS.get(word[0].lower(), word[0]), text)
