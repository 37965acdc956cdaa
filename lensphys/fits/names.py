"""What archives call the arrays of a FITS file: one table of names, for every reader of FITS."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

IMAGE, DEVIATION, VARIANCE, INVERSE_VARIANCE, WEIGHT = (
    "image",
    "standard deviation",
    "variance",
    "inverse variance",
    "weight",
)
FLAGS, MASK, GOOD, PSF, OTHER = "flags", "mask", "good pixels", "PSF", "other"
NOISE = (DEVIATION, VARIANCE, INVERSE_VARIANCE, WEIGHT)  # the surest first
MASKS = (MASK, FLAGS, GOOD)

# Who writes it: ARC lensphys and lens modellers; SCI, ERR, DQ HST and JWST; WHT, DRZ, DRC, CTX drizzled images; IMAGE,
# VARIANCE, MASK Rubin and HSC; SCI, WGT, MSK DES; INVVAR, MASKBITS Legacy Surveys and unWISE; IVAR SDSS and MaNGA;
# FLUX, RMS Euclid (VIS_FLUX); SCIDATA, ERRDATA, QUALDATA the ESO; PSF_DATA PSFEx; OVERSAMP, DET_DIST STPSF.
NAMES: dict[str, tuple[str, ...]] = {
    IMAGE: (
        "ARC", "SCI", "SCIENCE", "SCIDATA", "IMAGE", "IMG", "FLUX", "DATA", "DRZ", "DRC", "SIGNAL", "COADD", "BGSUB",
    ),
    DEVIATION: (
        "ERR", "ERROR", "ERRORS", "ERRDATA", "RMS", "SIGMA", "STD", "STDDEV", "STDEV", "UNC", "UNCERT", "UNCERTAINTY",
        "NOISE", "NOISE_MAP", "NOISEMAP", "ERROR_MAP", "RMS_MAP", "RMSMAP",
    ),
    VARIANCE: ("VAR", "VARIANCE", "VARIANCE_MAP"),
    INVERSE_VARIANCE: ("IVAR", "INVVAR", "INV_VAR", "INVERSE_VARIANCE", "WGT"),
    WEIGHT: ("WHT", "WEIGHT", "WEIGHTS", "WEIGHT_MAP", "EXP", "EXPOSURE", "EXPMAP", "NEXP", "COVERAGE"),
    FLAGS: (
        "DQ", "DATA_QUALITY", "QUALITY", "QUALDATA", "FLAG", "FLAGS", "FLG", "MSK", "MASKBITS", "BPM", "BADPIX",
        "BAD_PIXELS",
    ),
    MASK: ("MASK",),
    GOOD: ("GOOD", "GOODPIX", "GOOD_PIXELS", "USE"),
    PSF: ("PSF", "KERNEL", "PSF_KERNEL", "OVERSAMP", "DET_SAMP", "OVERDIST", "DET_DIST", "PSF_DATA", "PSFIMAGE"),
    OTHER: (
        "CTX", "CON", "CONTEXT", "VAR_POISSON", "VAR_RNOISE", "VAR_FLAT", "VAR_RES", "AREA", "MODEL", "RESIDUAL",
        "RESID", "CHI2", "BKG", "BACKGROUND", "SKY", "SEG", "SEGMAP", "SEGMENTATION", "DETECTED", "SOURCE", "ALPHA",
        "KAPPA", "CONSTRAINED", "TRUTH", "NIMAGE",
    ),
}  # fmt: skip
_ROLES = {name: role for role, names in NAMES.items() for name in names}

# ESO data interface: HDUCLAS2 says what an extension is, HDUCLAS3 how it is written
_ESO = {
    ("DATA", ""): IMAGE,
    ("ERROR", "MSE"): VARIANCE,
    ("ERROR", "RMSE"): DEVIATION,
    ("ERROR", "INVMSE"): INVERSE_VARIANCE,
    ("QUALITY", "MASKZERO"): GOOD,
    ("QUALITY", "MASKONE"): FLAGS,
    ("QUALITY", "FLAG32BIT"): FLAGS,
    ("QUALITY", "FLAG16BIT"): FLAGS,
}

# Planes of a bit mask (header MP_NAME = bit: Rubin, HSC) whose pixels are no measurement. What is only said of a pixel
# (DETECTED, INEXACT_PSF, CLIPPED, REJECTED, BRIGHT_OBJECT, NOT_DEBLENDED, ...) leaves it good.
BAD_PLANES = (
    "BAD", "SAT", "INTRP", "CR", "EDGE", "SUSPECT", "NO_DATA", "UNMASKEDNAN", "CROSSTALK", "STREAK", "SPIKE",
    "VIGNETTED", "ITL_DIP",
)  # fmt: skip
# Bits of FLAGS that make a pixel bad, by telescope; elsewhere each does. JWST and Roman: DO_NOT_USE alone (jwst data
# products documentation, "data quality flags"). HST: all but 64, a warm pixel whose dark is taken off (ACS and WFC3
# data handbooks, tables of the DQ array).
BAD_BITS = {"JWST": 1, "ROMAN": 1, "HST": ~64}


_ENDING = re.compile(r"\.(FITS?|FTS|NPY|NPZ)(\.\w+)?$")


@dataclass(frozen=True)
class Meaning:
    """What a name says: the role of an array, None if it says nothing, its band ("" if none), and the known name."""

    role: str | None
    band: str = ""
    name: str = ""


def meaning(name: str) -> Meaning:
    """Return what an extension's name means: ``VIS_RMS`` is the standard deviation of the band VIS.

    Example:
        >>> meaning("VIS_RMS")
        Meaning(role='standard deviation', band='VIS', name='RMS')
    """
    words = re.split(r"[_\-. ]+", name.strip().upper())
    for size in range(len(words), 0, -1):  # the longest name that ends, or else begins it
        for known, band in ((words[-size:], words[:-size]), (words[:size], words[size:])):
            if (role := _ROLES.get("_".join(known))) is not None:
                return Meaning(role, "_".join(band), "_".join(known))
    return Meaning(None)


def meaning_of_class(second: str, third: str) -> Meaning:
    """Return what the ESO's HDUCLAS2 and HDUCLAS3 mean."""
    second, third = second.strip().upper(), third.strip().upper()
    return Meaning(_ESO.get((second, third)) or _ESO.get((second, "")))


def meaning_of_file(path: Path) -> Meaning:
    """Return what a file's own name says of its only array: ``coadd-invvar-r.fits.gz``, ``W1_i.weight.fits``."""
    words = re.split(r"[_\-. ]+", _ENDING.sub("", path.name.upper()))
    known = [word for word in (*words, *map("_".join, pairwise(words))) if word in _ROLES]
    return Meaning(_ROLES[known[-1]], "", known[-1]) if known else Meaning(None)
