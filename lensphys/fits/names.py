"""What archives call the arrays of a FITS file: one table of names, for every reader of FITS."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

IMAGE, DEVIATION, VARIANCE, INVERSE_VARIANCE, WEIGHT = (
    "image",
    "standard deviation",
    "variance",
    "inverse variance",
    "weight",
)
FLAGS, MASK, GOOD, PSF, OTHER = "flags", "mask", "good pixels", "PSF", "other"
OBJECTS, OF_LENS = "mask of objects", "mask of the lens"
INVERSE_DEVIATION = "inverse standard deviation"  # said by a class alone, by no name
NOISE = (DEVIATION, VARIANCE, INVERSE_VARIANCE, INVERSE_DEVIATION, WEIGHT)  # the surest first
MASKS = (MASK, FLAGS, GOOD)

# Who writes it: ARC lensphys and lens modellers; SCI, ERR, DQ HST and JWST; WHT, DRZ, DRC, CTX drizzled images; IMAGE,
# VARIANCE, MASK Rubin and HSC; SCI, WGT, MSK DES; INVVAR, MASKBITS Legacy Surveys and unWISE; IVAR SDSS and MaNGA;
# FLUX, RMS Euclid (VIS_FLUX); SCIDATA, ERRDATA, QUALDATA, STAT the ESO; COV Spitzer; CONF VISTA and the INT; PSF_DATA
# PSFEx; OVERSAMP, DET_DIST STPSF.
NAMES: dict[str, tuple[str, ...]] = {
    IMAGE: (
        "ARC", "SCI", "SCIENCE", "SCIDATA", "IMAGE", "IMG", "FLUX", "DATA", "DRZ", "DRC", "SIGNAL", "COADD", "BGSUB",
        "SKYSUB", "SKY_SUB", "SKY_SUBTRACTED", "BKG_SUB", "BKG_SUBTRACTED", "BACKGROUND_SUBTRACTED", "PSF_MATCHED",
    ),
    DEVIATION: (
        "ERR", "ERROR", "ERRORS", "ERRDATA", "RMS", "SIGMA", "STD", "STDDEV", "STDEV", "UNC", "UNCERT", "UNCERTAINTY",
        "UNCERTAINTIES", "NOISE", "ERRS", "SIG", "FLUXERR", "DATAERR",
    ),
    VARIANCE: ("VAR", "VARIANCE", "VARIANCES", "STAT"),
    INVERSE_VARIANCE: ("IVAR", "IVM", "INVVAR", "INV_VAR", "INVERSE_VARIANCE", "INVERSE_VAR", "WGT"),
    WEIGHT: (
        "WHT", "WT", "WEIGHT", "WEIGHTS", "EXP", "EXPOSURE", "EXPTIME", "NEXP", "COVERAGE", "COV", "CONF", "CONFIDENCE",
    ),
    FLAGS: (
        "DQ", "DATA_QUALITY", "QUALITY", "QUALDATA", "FLAG", "FLAGS", "FLG", "MSK", "MASKBITS", "BITMASK", "BPM",
        "BADPIX", "BAD_PIXELS", "BAD_PIXEL", "BAD_PIXEL_MASK", "BADMASK", "BAD_MASK", "MASK_BAD", "BPMASK", "CRMASK",
        "CR_MASK", "SATMASK", "SAT_MASK", "COSMIC_MASK", "COSMICS", "COSMIC_RAYS", "SATURATED", "HOTPIX", "DEADPIX",
        "QUAL", "DQARR", "PIXMASK", "BAD", "MASKED", "INVALID",
    ),
    MASK: ("MASK",),
    GOOD: (
        "GOOD", "GOODPIX", "GOOD_PIXEL", "GOOD_PIXELS", "GOODMASK", "GOOD_MASK", "GOOD_PIXEL_MASK", "MASK_GOOD",
        "VALID", "VALID_MASK", "VALIDPIX", "VALID_PIXELS", "USE",
    ),
    OBJECTS: (
        "OBJMASK", "OBJ_MASK", "OBJECT_MASK", "OBJECTS_MASK", "MASK_OBJECTS", "STARMASK", "STAR_MASK", "MASK_STARS",
        "NEIGHBOUR_MASK", "NEIGHBOR_MASK", "COMPANION_MASK", "CONTAMINANT_MASK", "SOURCE_MASK", "SRCMASK",
        "DETECTION_MASK",
    ),
    OF_LENS: (
        "LENSMASK", "LENS_MASK", "MASK_LENS", "GALAXY_MASK", "LENS_GALAXY_MASK", "DEFLECTOR_MASK", "ARCMASK",
        "ARC_MASK", "MASK_ARC",
    ),
    PSF: (
        "PSF", "EPSF", "POINT_SPREAD_FUNCTION", "KERNEL", "PSF_KERNEL", "OVERSAMP", "DET_SAMP", "OVERDIST", "DET_DIST",
        "PSF_DATA", "PSFIMAGE",
    ),
    OTHER: (
        "CTX", "CON", "CONTEXT", "VAR_POISSON", "VAR_RNOISE", "VAR_FLAT", "VAR_RES", "AREA", "MODEL", "RESIDUAL",
        "RESID", "CHI2", "BKG", "BACKGROUND", "SKY", "SEG", "SEGMAP", "SEGMENTATION", "DETECTED", "SOURCE", "ALPHA",
        "KAPPA", "CONSTRAINED", "TRUTH", "NIMAGE", "LENSLIGHT", "LENS_LIGHT", "SEGM", "SNR", "S2N", "SAMP",
        "WAVELENGTH", "FLAT", "DARK", "BIAS", "GAIN",
    ),
}  # fmt: skip
_ROLES = {form: role for role, names in NAMES.items() for name in names for form in (name, name.replace("_", ""))}
# Words beside a name that say nothing of a band (WEIGHT_MAP, ERROR_IMAGE, PSF_MODEL, BKG_RMS)
FILLERS = frozenset(
    ("MAP", "IMAGE", "IMG", "DATA", "ARRAY", "PIXEL", "MODEL", "STAR", "BKG", "BACKGROUND", "SKY", "TOTAL")
)
# Words that say of which kind a map is, not of which band; where an image is named so, they are its own all the same
_FAULTS = frozenset(("BAD", "CR", "COSMIC", "SAT", "SATURATION", "EDGE", "HOT", "DEAD", "DEFECT"))  # flags, of a MASK
_INVERSE = frozenset(("INV", "INVERSE"))
_ALL, _PART = frozenset(("TOTAL", "TOT", "FULL")), frozenset(("SKY", "BKG", "BACKGROUND", "POISSON", "SHOT", "READ"))
_KINDS = frozenset(("RAY", "PIX", "FIT", "COMBINED", "FINAL")) | _FAULTS | _INVERSE | _ALL | _PART
_NO_NOISE = frozenset(("LOG", "REL", "RELATIVE", "FRACTIONAL", "SQUARED"))  # beside a noise's name: another quantity
_KIN = (NOISE, (*MASKS, OBJECTS, OF_LENS), (PSF,))
# Of several names in one the surest tells: MODEL_IMAGE is no image, ERROR_IMAGE a noise map. What may as well be said
# of an image (EXP_1_SCI, GOOD_IMAGE, FLAT_SCI) goes no further than the name of an image does.
_ALSO_SAID_OF_IMAGES = ("EXP", "EXPOSURE", "EXPTIME", "GOOD", "USE", "VALID", "FLAT", "DARK", "BIAS", "GAIN")
_LESS_SURE = dict.fromkeys(_ALSO_SAID_OF_IMAGES, 0) | {
    "STAT": 1,  # ERR_STAT is no variance
    **dict.fromkeys(("BAD", "MASKED", "INVALID"), -1),  # MASKED_SCI and SCI_MASKED are images
}
_NOISES = frozenset(name for role in NOISE for name in NAMES.get(role, ()) if name not in _ALSO_SAID_OF_IMAGES)

# ESO data interface: HDUCLAS2 says what an extension is, HDUCLAS3 how it is written
_ESO = {
    ("DATA", ""): IMAGE,
    ("ERROR", ""): OTHER,  # of a kind that nothing says
    ("QUALITY", ""): FLAGS,
    ("ERROR", "MSE"): VARIANCE,
    ("ERROR", "RMSE"): DEVIATION,
    ("ERROR", "INVMSE"): INVERSE_VARIANCE,
    ("ERROR", "INVRMSE"): INVERSE_DEVIATION,
    ("QUALITY", "MASKZERO"): GOOD,
    ("QUALITY", "MASKONE"): FLAGS,
    ("QUALITY", "FLAG32BIT"): FLAGS,
    ("QUALITY", "FLAG16BIT"): FLAGS,
}

_CCDDATA = {  # UTYPE of the extension UNCERT, by astropy.nddata
    "stddevuncertainty": DEVIATION,
    "varianceuncertainty": VARIANCE,
    "inversevariance": INVERSE_VARIANCE,
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

    @property
    def words(self) -> list[str]:
        """Those of the band."""
        return [word for word in self.band.split("_") if word]


def meaning(name: str) -> Meaning:
    """Return what an extension's name means: ``VIS_RMS`` is the standard deviation of the band VIS.

    Of several known names the surest tells, of those that are as sure the last: ``RMS.IMAGE`` is no image.

    Example:
        >>> meaning("VIS_RMS")
        Meaning(role='standard deviation', band='VIS', name='RMS')
    """
    words = [part for word in plain(name).split("_") for part in _parted(word)]
    runs = _known(words)
    if not runs:
        return Meaning(None)
    names = {run: "_".join(words[slice(*run)]) for run in runs}
    start, end = max(runs, key=lambda run: (_sureness(names[run]), run[1]))
    if _ROLES[names[start, end]] == MASK:  # which of the masks, says another name: DQ_MASK
        start, end = next((run for run in runs if _ROLES[names[run]] in (FLAGS, GOOD, OBJECTS, OF_LENS)), (start, end))
    known, beside = names[start, end], words[:start] + words[end:]
    role = _turned(_ROLES[known], frozenset(beside))
    idle = FILLERS | _NOISES if role in NOISE else FILLERS
    return Meaning(role, "_".join(word for word in beside if word not in idle), known)


def is_of(word: str, role: str | None, apart: bool) -> bool:
    """Return whether a word beside the name of a map, which no image has, still says what the map is of.

    Example:
        >>> [is_of(word, "mask", apart=False) for word in ("DQ", "PSF", "VIS")]
        [False, True, False]

    Args:
        word: in capitals.
        role: of the map, None for no known one.
        apart: whether the images of the file say bands, of which a word that is not known may be another one.
    """
    known = _ROLES.get(word)
    if known is None:
        return apart and word not in _KINDS
    return known != IMAGE and not any(role in kin and known in kin for kin in _KIN)


def part_of_noise(name: str) -> int:
    """Return 0 of a noise map that is of all noise by its name (TOTAL_ERR), 2 of a part of it (SKY_ERR), else 1."""
    words = set(plain(name).split("_"))
    return 0 if words & _ALL else 2 if words & _PART else 1


def _turned(role: str, beside: frozenset[str]) -> str:
    """The role of a map, by the words beside its name: an inverse variance is none that is a variance."""
    if beside & _INVERSE and role in (*NOISE, *MASKS):
        return INVERSE_VARIANCE if role == VARIANCE else MASK if role in MASKS else OTHER
    if beside & _NO_NOISE and role in NOISE:
        return OTHER
    return FLAGS if role == MASK and beside & _FAULTS else role


def plain(name: str) -> str:
    """Return a name in capitals, whatever stands between its words: ``NIR-H`` and ``nir_h`` are one band.

    Example:
        >>> plain("nir-h")
        'NIR_H'
    """
    return re.sub(r"[_\-. ]+", "_", name.strip().upper())


def _parted(word: str) -> list[str]:
    """A word in its parts, where one of them is known: SCI1, WEIGHTMAP and PSFMODEL."""
    found = None if word in _ROLES else re.fullmatch(r"(\D+?)(MAP|MODEL|IMAGE|IMG|ARRAY|\d+)", word)
    return [found[1], found[2]] if found is not None and found[1] in _ROLES else [word]


def _known(words: list[str]) -> list[tuple[int, int]]:
    """Where known names begin and end, less those that are a part of a longer one."""
    found: list[tuple[int, int]] = []
    for size in range(len(words), 0, -1):
        for start in range(len(words) - size + 1):
            inside = any(first <= start and start + size <= last for first, last in found)
            if not inside and "_".join(words[start : start + size]) in _ROLES:
                found.append((start, start + size))
    return found


def _sureness(known: str) -> int:
    return _LESS_SURE.get(known, {IMAGE: 0, OTHER: 1}.get(_ROLES[known], 2))


def role_by_class(second: str, third: str, named: str | None) -> str | None:
    """Return the role of an array by the ESO's HDUCLAS2 and HDUCLAS3, which go before its name but for DATA.

    Args:
        second: HDUCLAS2.
        third: HDUCLAS3, which says how noise and flags are written.
        named: the role that its name says, None if none.
    """
    second, third = second.strip().upper(), third.strip().upper()
    found = _ESO.get((second, third))
    if found is None or second == "DATA":  # many copy the header of the image, and do not change it
        return named or found or _ESO.get((second, ""))
    return found


def meaning_of_uncertainty(kind: str) -> str | None:
    """Return the role of an uncertainty that astropy wrote, of its class's name in UTYPE; None of another word."""
    return _CCDDATA.get(kind.strip().lower())


def meaning_of_file(path: Path) -> Meaning:
    """Return what a file's own name says of its only array: ``coadd-invvar-r.fits.gz``, ``W1_i.weight.fits``."""
    return meaning(_ENDING.sub("", path.name.upper()))
