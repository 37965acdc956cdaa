"""Layouts of FITS files as archives write them: image, noise, mask and PSF are found in each, or it is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.wcs import WCS
from typer.testing import CliRunner

from lensphys.basics.checks import LensphysError
from lensphys.cli import app
from lensphys.data.images import Reading, read_images
from lensphys.fits.file import MOST_PIXELS, MOST_UNPACKED
from lensphys.fits.header import SCALE_KEYS
from lensphys.fits.image import Choice
from lensphys.fits.kernel import Kernel
from lensphys.fits.names import BAD_PLANES, NAMES, Meaning, meaning, meaning_of_file
from lensphys.observation import PixelPSF, UnknownPSF
from lensphys.observation.units import ZERO_POINTS

H, W, SCALE, SIGMA = 24, 28, 0.1, 0.1
SHAPE = (H, W)


def _image() -> np.ndarray:
    """Sky of rms 0.1 and an arc in the middle."""
    sky = np.random.default_rng(0).normal(0, SIGMA, SHAPE).astype("f4")
    sky[10:14, 9:19] += 3
    return sky


def _star(size: int = 7, fwhm: float = 2.5) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    star = np.exp(-0.5 * (x**2 + y**2) / (fwhm / 2.355) ** 2)
    return (star / star.sum()).astype("f4")


def _disc(radius: float) -> np.ndarray:
    y, x = np.indices(SHAPE)
    return np.hypot(x - (W - 1) / 2, y - (H - 1) / 2) < radius


IMAGE, STAR, DISC = _image(), _star(), _disc(9)
ERR = np.full(SHAPE, SIGMA, "f4")
EXPOSED = np.full(SHAPE, 900, "f4")
HEAD = {"PIXSCALE": SCALE}
# 2 bad columns, and a bleed of 12 pixels beside the lens
BAD = np.zeros(SHAPE, "i4")
BAD[:, :2] = 1
BAD[2:4, 10:16] = 1
FAULTS = int(BAD.sum())
TWICE = int((BAD | BAD[::-1]).sum())  # of two masks, one upside down
DETECTED = np.where(IMAGE > 1, 32, 0).astype("i4")
PLANES = {"MP_BAD": 0, "MP_SAT": 1, "HIERARCH MP_DETECTED": 5, "HIERARCH MP_NO_DATA": 8}
OTHER = 1 + np.zeros(SHAPE, "f4")


def primary(data=None, **cards) -> fits.PrimaryHDU:
    return fits.PrimaryHDU(data, fits.Header(cards))


def ext(name: str, data, version: int = 1, **cards) -> fits.ImageHDU:
    return fits.ImageHDU(data, fits.Header(cards), name=name, ver=version)


def unnamed(data, **cards) -> fits.ImageHDU:
    return fits.ImageHDU(data, fits.Header(cards))


def sci(data=IMAGE, name: str = "SCI", **cards) -> fits.ImageHDU:
    return ext(name, data, **{**HEAD, **cards})


def tiled(data, name: str = "SCI", **how) -> fits.CompImageHDU:
    return fits.CompImageHDU(data, fits.Header(HEAD), name=name, **how)


def table(name: str = "CATALOG") -> fits.BinTableHDU:
    return fits.BinTableHDU.from_columns([fits.Column("A", "E", array=np.ones(3))], name=name)


def psfex(oversampled: int = 1) -> fits.BinTableHDU:
    terms = np.stack([_star(15, 2.5 * oversampled), OTHER[:15, :15], -OTHER[:15, :15]])
    column = fits.Column("PSF_MASK", f"{terms.size}E", dim="(15,15,3)", array=terms[None])
    hdu = fits.BinTableHDU.from_columns([column], name="PSF_DATA")
    hdu.header.update({"PSFNAXIS": 3, "PSFAXIS1": 15, "PSFAXIS2": 15, "PSFAXIS3": 3, "PSF_SAMP": 1 / oversampled})
    hdu.header.update({"POLNAXIS": 2, "POLNAME1": "X_IMAGE", "POLZERO1": 512.0, "POLSCAL1": 1024.0, "POLDEG1": 1})
    return hdu


def scaled_integers() -> fits.PrimaryHDU:
    stored = np.round((IMAGE - 0.2) / 1e-4).astype("i4")
    hdu = fits.PrimaryHDU(stored, fits.Header(HEAD))
    hdu.header.update({"BSCALE": 1e-4, "BZERO": 0.2, "BLANK": -999999})
    return hdu


def blanked() -> fits.ImageHDU:
    hdu = fits.ImageHDU(np.where(BAD, -32768, np.round(1000 * IMAGE)).astype("i2"), fits.Header(HEAD), name="SCI")
    hdu.header.update({"BLANK": -32768, "BSCALE": 1e-3})
    return hdu


@dataclass(frozen=True)
class Layout:
    """HDUs, and what they mean: where the image is, sigma if it is known, bad pixels, the scale of the PSF."""

    hdus: Callable[[], list]
    image: str = "SCI"
    sigma: float | None = None
    bad: int = 0
    psf: float | None = None
    choice: Choice = field(default_factory=Choice)
    says: str = ""
    almost: float = 0.0  # how far the pixels may be from the image


def euclid(band: str, image=IMAGE) -> list:
    return [
        ext(f"{band}_FLUX", image, **HEAD, FILTER=band),
        ext(f"{band}_PSF", STAR),
        ext(f"{band}_RMS", ERR),
        ext(f"{band}_WHT", EXPOSED),
    ]


def constant(name: str, value: float) -> fits.ImageHDU:
    return fits.ImageHDU(None, fits.Header({"NPIX1": W, "NPIX2": H, "PIXVALUE": value}), name=name)


def chip(image=IMAGE, noise=ERR, star=STAR, flags=0 * BAD, **cards) -> list:
    """One of several with the same names and no version."""
    maps = {"ERR": noise, "PSF": star, "DQ": flags}
    return [ext("SCI", image, **HEAD, **cards), *(ext(name, array, **cards) for name, array in maps.items())]


OTHER_CHIP = chip(2 * IMAGE, 3 * ERR, _star(9, 4), 1 - BAD)


def hst() -> list:
    chips = []
    for version, image in ((1, IMAGE), (2, IMAGE[::-1])):
        chips += [
            ext("SCI", image, version, **HEAD),
            ext("ERR", version * ERR, version),
            ext("DQ", (version - 1) * np.ones(SHAPE, "i2"), version),
        ]
    return [primary(TELESCOP="HST"), *chips]


LAYOUTS: dict[str, Layout] = {
    "a plane of an ESO cube, with the planes of its noise and flags": Layout(
        lambda: [primary(), ext("DATA", np.stack([0 * IMAGE, IMAGE]), HDUCLAS2="DATA", **HEAD),
                 ext("STAT", np.stack([9 * ERR**2, ERR**2]), HDUCLAS2="ERROR", HDUCLAS3="MSE"),
                 ext("DQ", np.stack([0 * BAD, BAD]))],
        "DATA[1]", SIGMA, FAULTS, choice=Choice(extension="DATA[1]"),
    ),
    "HST drizzled, seven extensions": Layout(
        lambda: [primary(TELESCOP="HST", EXPTIME=2000.0), sci(BUNIT="ELECTRONS/S"), ext("WHT", 1 / ERR**2),
                 ext("CTX", BAD), table("HDRTAB"), ext("D2IMARR", STAR), ext("EXPMAP", OTHER)],
        "SCI", SIGMA,
    ),
    # the plainest
    "primary": Layout(lambda: [primary(IMAGE, **HEAD)], "PRIMARY"),
    "primary and err": Layout(lambda: [primary(IMAGE, **HEAD), ext("ERR", ERR)], "PRIMARY", 0.1),
    "primary and unnamed": Layout(
        lambda: [primary(IMAGE, **HEAD), unnamed(ERR)], "PRIMARY", says="image PRIMARY; not used: 1"
    ),
    "unnamed extension": Layout(lambda: [primary(), unnamed(IMAGE, **HEAD)], "1"),
    "table before": Layout(lambda: [primary(), table(), unnamed(IMAGE, **HEAD)], "2"),
    "table of another kind": Layout(lambda: [primary(), sci(), table("PSF")]),
    "unknown name": Layout(lambda: [primary(), sci(name="LENS_CUTOUT")], "LENS_CUTOUT"),
    # HST, JWST, drizzled images
    "jwst i2d": Layout(
        lambda: [primary(TELESCOP="JWST"), sci(), ext("ERR", ERR), ext("CON", BAD), ext("WHT", EXPOSED),
                 ext("VAR_POISSON", ERR**2), ext("VAR_RNOISE", ERR**2), ext("VAR_FLAT", ERR**2)],
        sigma=0.1, says="image SCI, noise ERR; not used: CON, WHT, VAR_POISSON, VAR_RNOISE, VAR_FLAT",
    ),
    "jwst cal": Layout(  # flags beside DO_NOT_USE are no fault
        lambda: [primary(TELESCOP="JWST"), sci(), ext("ERR", ERR), ext("DQ", (BAD | 4).astype("u4"))],
        sigma=0.1, bad=FAULTS, says="those without DO_NOT_USE",
    ),
    "hst flt": Layout(hst, sigma=0.1, says="2 images (SCI, SCI,2): the first is taken, choose another one with --ext"),
    "hst, arrays of one value": Layout(
        lambda: [primary(TELESCOP="HST"), sci(), constant("ERR", 0.1), constant("DQ", 0)], sigma=0.1,
        says="image SCI, noise ERR, mask DQ",
    ),
    "hst, raw, its errors zero": Layout(
        lambda: [primary(TELESCOP="HST"), sci(), constant("ERR", 0.0)], says="image SCI\n"
    ),
    "hst, flags of one value": Layout(
        lambda: [primary(TELESCOP="HST"), sci(), constant("DQ", 1)], says="DQ is not used: every pixel has a bad flag"
    ),
    "chips of two sizes": Layout(
        lambda: [primary(), sci(), ext("SCI", OTHER[:20], 2, **HEAD)],
        says="2 images (SCI (24, 28), SCI,2 (20, 28)): the first is taken, choose another one with --ext",
    ),
    "bands of two sizes": Layout(
        lambda: [primary(), sci(name="VIS_FLUX"), ext("NIR_FLUX", OTHER[:20], **HEAD)], "VIS_FLUX",
        says="2 images (VIS_FLUX (24, 28), NIR_FLUX (20, 28)): the first is taken, choose another one with --band",
    ),
    "hst flt, warm pixels": Layout(
        lambda: [primary(TELESCOP="HST"), sci(), ext("ERR", ERR), ext("DQ", (BAD * 16 | DETECTED * 2).astype("i2"))],
        sigma=0.1, bad=FAULTS, says="those without a bad flag of HST",
    ),
    "dq of nobody": Layout(lambda: [primary(), sci(), ext("DQ", BAD * 256)], bad=FAULTS, says="those without a flag"),
    "dq first": Layout(lambda: [primary(), ext("DQ", BAD), sci(name="DATA")], "DATA", bad=FAULTS),
    "dq of every pixel": Layout(
        lambda: [primary(), ext("DQ", np.ones(SHAPE, "i2")), sci()], says="DQ is not used: every pixel has a flag"
    ),
    "drz": Layout(
        lambda: [primary(), sci(name="DRZ"), ext("WHT", EXPOSED), ext("CTX", BAD)], "DRZ", 0.1,
        says="noise: a.fits[WHT], a weight, taken for an exposure map and scaled to the noise of the sky",
    ),
    "drz, inverse variance": Layout(
        lambda: [primary(), sci(), ext("WHT", 1 / ERR**2), ext("CTX", BAD)], sigma=0.1,
        says="noise: a.fits[WHT], a weight, taken for an inverse variance: so the sky scatters",
    ),
    "wht first": Layout(lambda: [primary(), ext("WHT", 1 / ERR**2), sci()], sigma=0.1),
    "rms first": Layout(lambda: [primary(), ext("RMS", ERR), sci(name="IMAGE")], "IMAGE", 0.1),
    "arc before sci": Layout(lambda: [primary(), sci(2 * IMAGE), sci(name="ARC"), ext("ERR", ERR)], "ARC", 0.1),
    "lower case": Layout(lambda: [primary(), sci(name="sci"), ext("err", ERR)], sigma=0.1),
    # Rubin, HSC
    "rubin": Layout(
        lambda: [primary(), sci(name="IMAGE"), ext("MASK", BAD * 258 | DETECTED, **PLANES), ext("VARIANCE", ERR**2)],
        "IMAGE", 0.1, FAULTS, says="those without BAD, SAT, NO_DATA",
    ),
    "hsc, by EXTTYPE": Layout(
        lambda: [primary(), unnamed(IMAGE, EXTTYPE="IMAGE", **HEAD),
                 unnamed(BAD * 2 | DETECTED, EXTTYPE="MASK", **PLANES), unnamed(ERR**2, EXTTYPE="VARIANCE")],
        "IMAGE", 0.1, FAULTS,
    ),
    "rubin, unsigned": Layout(
        lambda: [primary(), sci(name="IMAGE"), ext("MASK", (BAD * 258).astype("u4"), **PLANES)], "IMAGE", bad=FAULTS
    ),
    "planes of the primary image": Layout(
        lambda: [primary(IMAGE, **HEAD), ext("MASK", DETECTED, **PLANES)], "PRIMARY", bad=0
    ),
    # surveys
    "euclid": Layout(
        lambda: [primary(), *euclid("VIS"), *euclid("NIR_Y", 2 * IMAGE)], "VIS_FLUX", 0.1, psf=SCALE,
        says="2 images (VIS_FLUX, NIR_Y_FLUX): the first is taken, choose another one with --band",
    ),
    "euclid, other band": Layout(
        lambda: [primary(), *euclid("VIS", 2 * IMAGE), *euclid("NIR_Y")], "NIR_Y_FLUX", 0.1, psf=SCALE,
        choice=Choice(band="nir_y"), says="noise NIR_Y_RMS, PSF NIR_Y_PSF; not used: VIS_FLUX",
    ),
    "euclid, by extension": Layout(
        lambda: [primary(), *euclid("VIS", 2 * IMAGE), *euclid("NIR_H")], "NIR_H_FLUX", 0.1, psf=SCALE,
        choice=Choice(extension="NIR_H_FLUX"),
    ),
    "band with a hyphen": Layout(
        lambda: [primary(), sci(2 * IMAGE, "VIS"), sci(name="NIR-H"), ext("NIR-H_RMS", ERR), ext("nir-h psf", STAR),
                 ext("VIS_RMS", 2 * ERR)],
        "NIR-H", 0.1, psf=SCALE, choice=Choice(band="nir_h"), says="noise NIR-H_RMS, PSF NIR-H PSF; not used",
    ),
    "filter with a hyphen": Layout(
        lambda: [primary(), sci(FILTER="NIR-H"), ext("RMS_NIR_H", ERR)], sigma=0.1, choice=Choice(band="nir h")
    ),
    "band by BAND": Layout(
        lambda: [primary(), sci(2 * IMAGE, BAND="g"), ext("SCI", IMAGE, 2, **HEAD, BAND="r")], "SCI,2",
        choice=Choice(band="r"),
    ),
    "images named for what was masked in them": Layout(
        lambda: [primary(), sci(name="SCI_MASKED"), ext("ERR_MASKED", ERR)], "SCI_MASKED", 0.1
    ),
    "a scale that is a text": Layout(lambda: [primary(), ext("SCI", IMAGE, PIXSCALE="0.1")]),
    "band by FILTER": Layout(
        lambda: [primary(), sci(2 * IMAGE, "CHIP1", FILTER="g"), sci(IMAGE, "CHIP2", FILTER="r")], "CHIP2",
        choice=Choice(band="R"),
    ),
    "chips of two filters": Layout(
        lambda: [primary(), *chip(2 * IMAGE, 3 * ERR, _star(9, 4), BAD[::-1].copy(), FILTER="F814W"),
                 *chip(flags=BAD, FILTER="F606W")],
        "SCI", 0.1, FAULTS, SCALE, Choice(band="F606W"),
        says="image SCI, noise ERR, mask DQ, PSF PSF; not used: SCI, ERR, PSF, DQ\nDQ: 612 of 672",
    ),
    "chips of two filters, in disorder": Layout(
        lambda: [primary(), ext("ERR", 3 * ERR, FILTER="B"), ext("ERR", ERR, FILTER="A"), sci(2 * IMAGE, FILTER="B"),
                 sci(FILTER="A"), ext("PSF", STAR)],
        "SCI", 0.1, psf=SCALE, choice=Choice(band="a"),
    ),
    "chips in order": Layout(
        lambda: [primary(), *OTHER_CHIP, *chip(flags=BAD)], "SCI", 0.1, FAULTS, SCALE, Choice(extension="5"),
    ),
    "the first of chips in order": Layout(
        lambda: [primary(), *chip(flags=BAD), *OTHER_CHIP], "SCI", 0.1, FAULTS, SCALE, Choice(extension="1"),
    ),
    "noise of the other filter alone": Layout(
        lambda: [primary(), sci(FILTER="A"), sci(2 * IMAGE, FILTER="B"), ext("ERR", ERR, FILTER="B")],
        says="image SCI; not used: SCI, ERR",
    ),
    "masks of one name beside one image": Layout(
        lambda: [primary(), sci(FILTER="A"), ext("MASK", BAD, FILTER="A"), ext("MASK", BAD[::-1].copy(), 2)], bad=TWICE,
    ),
    "an array of another kind, asked for": Layout(
        lambda: [primary(), ext("DQ", BAD), ext("MODEL", IMAGE, **HEAD), ext("DQ", BAD), sci(2 * IMAGE)], "MODEL",
        bad=FAULTS, choice=Choice(extension="MODEL"),
    ),
    "band after the name": Layout(lambda: [primary(), sci(name="SCI_F814W"), ext("ERR_F814W", ERR)], "SCI_F814W", 0.1),
    "noise named after its image": Layout(lambda: [primary(), sci(name="FLUX"), ext("FLUX_ERR", ERR)], "FLUX", 0.1),
    "noise of another band": Layout(lambda: [primary(), sci(name="VIS_FLUX"), ext("NIR_H_RMS", ERR)], "VIS_FLUX"),
    "des": Layout(
        lambda: [primary(), sci(), ext("MSK", BAD), ext("WGT", 1 / ERR**2)], sigma=0.1, bad=FAULTS,
        says="noise: a.fits[WGT], an inverse variance, made standard deviations",
    ),
    "des, tile-compressed": Layout(
        lambda: [primary(), tiled(IMAGE, quantize_level=0, compression_type="GZIP_2"), tiled(BAD, "MSK"),
                 tiled(1 / ERR**2, "WGT", quantize_level=0, compression_type="GZIP_2")], sigma=0.1, bad=FAULTS,
    ),
    "legacy": Layout(
        lambda: [primary(), sci(name="IMAGE"), ext("INVVAR", 1 / ERR**2), ext("MASKBITS", BAD)], "IMAGE", 0.1, FAULTS
    ),
    "legacy cube": Layout(
        lambda: [primary(np.stack([0 * IMAGE, IMAGE, 2 * IMAGE]), BANDS="grz", **HEAD)], "PRIMARY[1]",
        choice=Choice(band="r"),
    ),
    "sdss": Layout(lambda: [primary(IMAGE, **HEAD), ext("IVAR", 1 / ERR**2), ext("MASK", BAD)], "PRIMARY", 0.1, FAULTS),
    "unwise": Layout(lambda: [primary(IMAGE, **HEAD), ext("STD", ERR), ext("N", OTHER)], "PRIMARY", 0.1),
    "eso": Layout(
        lambda: [primary(), unnamed(IMAGE, HDUCLASS="ESO", HDUCLAS1="IMAGE", HDUCLAS2="DATA", **HEAD),
                 unnamed(ERR**2, HDUCLAS2="ERROR", HDUCLAS3="MSE"),
                 unnamed(BAD, HDUCLAS2="QUALITY", HDUCLAS3="MASKONE")], "1", 0.1, FAULTS,
    ),
    "eso, other senses": Layout(
        lambda: [primary(), ext("A", IMAGE, HDUCLAS2="DATA", **HEAD), ext("B", 1 / ERR, HDUCLAS2="ERROR",
                 HDUCLAS3="INVRMSE"), ext("C", 1 - BAD, HDUCLAS2="QUALITY", HDUCLAS3="MASKZERO")], "A", 0.1, FAULTS,
    ),
    "eso, a class against a name": Layout(
        lambda: [primary(), sci(name="DATA", HDUCLAS2="DATA"), ext("ERR", ERR**2, HDUCLAS2="ERROR", HDUCLAS3="MSE"),
                 ext("DQ", 1 - BAD, HDUCLAS2="QUALITY", HDUCLAS3="MASKZERO")], "DATA", 0.1, FAULTS,
        says="noise: a.fits[ERR], a variance, made standard deviations",
    ),
    "eso, standard deviations named STAT": Layout(
        lambda: [primary(), sci(name="DATA"), ext("STAT", ERR, HDUCLAS2="ERROR", HDUCLAS3="RMSE")], "DATA", 0.1
    ),
    "eso, an error of a kind that nobody knows": Layout(
        lambda: [primary(), unnamed(9 * ERR, HDUCLAS2="ERROR", HDUCLAS3="MAD"), unnamed(IMAGE, **HEAD)], "2"
    ),
    "eso, the header of the image copied": Layout(
        lambda: [primary(), sci(HDUCLAS2="DATA"), ext("ERR", ERR, HDUCLAS2="DATA")], sigma=0.1
    ),
    "ERR in the square of the image's unit": Layout(
        lambda: [primary(), sci(BUNIT="nJy"), ext("ERR", ERR**2 / 1e6, BUNIT="uJy^2")], sigma=0.1,
        says="a variance, made standard deviations, by its unit, uJy2",
    ),
    "ERR by the second, the image not": Layout(
        lambda: [primary(), sci(BUNIT="electron", EXPTIME=50.0), ext("ERR", ERR / 50, BUNIT="electron/s")], sigma=0.1,
        says="standard deviations, from electron / s to electron by the exposure of 50 s",
    ),
    "the image by the second, its IVAR not": Layout(
        lambda: [primary(), sci(BUNIT="counts/s", EXPTIME=3.0), ext("IVAR", (3 * ERR) ** -2, BUNIT="counts^-2")],
        sigma=0.1, says="an inverse variance, made standard deviations, from 1 / ct2 to ct / s by the exposure of 3 s",
    ),
    "a weight in an inverse square": Layout(
        lambda: [primary(), sci(BUNIT="nJy"), ext("WHT", 1 / ERR**2, BUNIT="nJy-2")], sigma=0.1,
        says="an inverse variance, made standard deviations, by its unit, 1 / nJy2",
    ),
    "a weight in seconds that looks like an inverse variance": Layout(
        lambda: [primary(), sci(BUNIT="nJy"), ext("WHT", 0.25 / ERR**2, BUNIT="s")], sigma=0.1,
        says="taken for an exposure map and scaled to the noise of the sky",
    ),
    "a variance that has the image's unit": Layout(
        lambda: [primary(), sci(BUNIT="nJy"), ext("VARIANCE", ERR**2, BUNIT="nJy")], sigma=0.1
    ),
    "spectrograph": Layout(lambda: [primary(), sci(name="FLUX"), ext("VAR", ERR**2), ext("SKY", OTHER)], "FLUX", 0.1),
    "spitzer": Layout(
        lambda: [primary(IMAGE, BUNIT="MJy/sr", **HEAD), ext("UNC", ERR), ext("COV", EXPOSED)], "PRIMARY", 0.1,
        says="image PRIMARY, noise UNC; not used: COV",
    ),
    "spitzer, coverage alone": Layout(
        lambda: [primary(IMAGE, **HEAD), ext("COV", EXPOSED)], "PRIMARY", 0.1, says="taken for an exposure map"
    ),
    "vista, confidence map": Layout(
        lambda: [primary(), sci(), ext("CONF", np.full(SHAPE, 95, "i2"))], sigma=0.1, says="a.fits[CONF], a weight"
    ),
    "hst flt of the infrared": Layout(
        lambda: [primary(TELESCOP="HST"), sci(BUNIT="ELECTRONS/S"), ext("ERR", ERR), ext("DQ", (BAD * 16).astype("i2")),
                 ext("SAMP", OTHER), ext("TIME", EXPOSED)], sigma=0.1, bad=FAULTS,
    ),
    "euclid, one detector": Layout(
        lambda: [primary(), sci(name="3-4-E.SCI"), ext("3-4-E.RMS", ERR), ext("3-4-E.FLG", BAD)], "3-4-E.SCI", 0.1,
        FAULTS,
    ),
    "decam, chips by name": Layout(
        lambda: [primary(), sci(name="S29"), sci(IMAGE[::-1], "S30"), sci(name="N1")], "S29",
        says="3 arrays of no known name (S29, S30, N1): the first is taken",
    ),
    "calibrations before the image": Layout(
        lambda: [primary(), ext("FLAT", IMAGE[::-1], **HEAD), ext("DARK", IMAGE.T, **HEAD), ext("GAINMAP", OTHER),
                 ext("SEGM", DETECTED), ext("SNR", IMAGE / ERR), sci(name="FRAME")], "FRAME",
        says="image FRAME; not used: FLAT, DARK, GAINMAP, SEGM, SNR",
    ),
    "a flat-fielded image is one": Layout(lambda: [primary(), sci(name="FLAT_SCI")], "FLAT_SCI"),
    "a small picture beside": Layout(
        lambda: [primary(), sci(name="FULL"), sci(IMAGE[::2, ::2].copy(), "SMALL")], "FULL",
        says="2 arrays of no known name (FULL (24, 28), SMALL (12, 14)): the first is taken, else give --ext",
    ),
    "galfit": Layout(
        lambda: [primary(), sci(name="INPUT"), ext("MODEL", OTHER), ext("RESIDUAL", IMAGE - OTHER)], "INPUT",
        says="not used: MODEL, RESIDUAL",
    ),
    # modellers
    "pyautolens": Layout(lambda: [primary(), sci(name="DATA"), ext("NOISE_MAP", ERR), ext("PSF", STAR)], "DATA", 0.1,
                         psf=SCALE),
    "lens, ones count": Layout(
        lambda: [primary(), sci(), ext("ERR", ERR), ext("MASK", 1 - BAD)], sigma=0.1, bad=FAULTS,
        says="those where it is not zero",
    ),
    "lens, ones are bad": Layout(
        lambda: [primary(), sci(), ext("ERR", ERR), ext("MASK", BAD)], sigma=0.1, bad=FAULTS,
        says="those where it is zero",
    ),
    "nothing is masked": Layout(lambda: [primary(), sci(), ext("MASK", 0 * BAD)]),
    "mask of floats": Layout(lambda: [primary(), sci(), ext("MASK", np.where(BAD, np.nan, 1.0))], bad=FAULTS),
    "mask of zero and NaN": Layout(
        lambda: [primary(), sci(), ext("MASK", np.where(BAD, np.nan, 0.0))], bad=FAULTS,
        says="those where it is zero (100 % of the middle, where the lens is), and none where it is NaN",
    ),
    "flags of zero and NaN": Layout(
        lambda: [primary(TELESCOP="JWST"), sci(), ext("DQ", np.where(BAD, np.nan, 4.0))], bad=FAULTS,
        says="those without DO_NOT_USE, and none where it is NaN",
    ),
    "objects that are NaN": Layout(
        lambda: [primary(), sci(), ext("OBJMASK", np.where(BAD, np.nan, 0.0))], bad=FAULTS,
        says=f"OBJMASK: {FAULTS} pixels of objects are masked",
    ),
    "mask of 255": Layout(lambda: [primary(), sci(), ext("MASK", (255 * (1 - BAD)).astype("u1"))], bad=FAULTS),
    "a ring that counts": Layout(
        lambda: [primary(), sci(), ext("MASK", DISC.astype("u1"))], bad=int((~DISC).sum())
    ),
    "all beyond a ring is bad": Layout(
        lambda: [primary(), sci(), ext("MASK", (~DISC).astype("u1"))], bad=int((~DISC).sum())
    ),
    "asked for bad": Layout(
        lambda: [primary(), sci(), ext("MASK", BAD * 6)], bad=FAULTS, choice=Choice(mask_means="bad")
    ),
    "asked for good": Layout(
        lambda: [primary(), sci(), ext("MASK", BAD)], bad=H * W - FAULTS, choice=Choice(mask_means="good")
    ),
    "bad pixel map": Layout(lambda: [primary(), sci(), ext("BPM", BAD.astype("u1"))], bad=FAULTS),
    "good pixels": Layout(lambda: [primary(), sci(), ext("GOODPIX", 1 - BAD)], bad=FAULTS),
    "good pixels in other words": Layout(lambda: [primary(), sci(), ext("VALIDPIX", 1 - BAD)], bad=FAULTS),
    "good pixels in a mask": Layout(
        lambda: [primary(), sci(), ext("GOOD_PIXEL_MASK", 1 - BAD)], bad=FAULTS, says="those where it is not zero"
    ),
    "cosmic rays": Layout(lambda: [primary(), sci(), ext("COSMICS", BAD.astype("u1"))], bad=FAULTS),
    "our own result": Layout(
        lambda: [primary(IMAGE, **HEAD), ext("SIGMA", ERR), ext("KAPPA", OTHER), ext("ALPHA", np.ones((2, *SHAPE)))],
        "PRIMARY", 0.1, says="not used: KAPPA, ALPHA",
    ),
    # storage
    "tile-compressed, quantised": Layout(lambda: [primary(), tiled(IMAGE, quantize_level=64.0)], almost=0.02),
    "tile-compressed, no name": Layout(
        lambda: [primary(), tiled(IMAGE, "", quantize_level=0, compression_type="GZIP_2")], "1"
    ),
    "scaled integers": Layout(lambda: [scaled_integers()], "PRIMARY", almost=1e-3),
    "integers with a blank": Layout(lambda: [primary(), blanked()], bad=FAULTS, almost=0.25),
    "five axes": Layout(lambda: [primary(IMAGE[None, None, None], **HEAD)], "PRIMARY"),
    "doubles": Layout(lambda: [primary(), sci(IMAGE.astype("f8"))]),
    "one plane": Layout(lambda: [primary(IMAGE[None], **HEAD)], "PRIMARY"),
    "radio": Layout(lambda: [primary(IMAGE[None, None], **HEAD)], "PRIMARY"),
    "noise in one plane": Layout(lambda: [primary(), sci(IMAGE[None]), ext("ERR", ERR[None])], sigma=0.1),
    "plane of a cube": Layout(
        lambda: [primary(np.stack([0 * IMAGE, IMAGE]), **HEAD)], "PRIMARY[1]", choice=Choice(extension="PRIMARY[1]")
    ),
    "second chip": Layout(
        lambda: [primary(), ext("SCI", 2 * IMAGE, 1, **HEAD), ext("ERR", 2 * ERR, 1), ext("SCI", IMAGE, 2, **HEAD),
                 ext("ERR", ERR, 2)], "SCI,2", 0.1, choice=Choice(extension="sci, 2"),
    ),
    "by number": Layout(lambda: [primary(), sci(2 * IMAGE), sci(name="B")], "B", choice=Choice(extension="2")),
    "noise in another unit": Layout(
        lambda: [primary(), sci(BUNIT="nJy"), ext("ERR", ERR / 1e3, BUNIT="uJy")], sigma=0.1
    ),
    "variance in another unit": Layout(
        lambda: [primary(), sci(BUNIT="nJy"), ext("VARIANCE", ERR**2 / 1e6, BUNIT="uJy2")], sigma=0.1
    ),
    "variance in the unit of its image": Layout(  # as many write it
        lambda: [primary(), sci(BUNIT="nJy"), ext("VARIANCE", ERR**2, BUNIT="nJy")], sigma=0.1
    ),
    "error image before its image": Layout(
        lambda: [primary(), ext("RMS.IMAGE", ERR), sci(name="SCI.IMAGE"), ext("FLAG.IMAGE", BAD)],
        "SCI.IMAGE", 0.1, FAULTS,
    ),
    "numbered": Layout(
        lambda: [primary(), ext("ERR1", ERR), sci(name="SCI1"), ext("DQ1", BAD), ext("ERR2", 2 * ERR),
                 sci(2 * IMAGE, "SCI2")],
        "SCI1", 0.1, FAULTS, says="choose another one with --band",
    ),
    "a model is no image": Layout(
        lambda: [primary(), ext("MODEL_IMAGE", OTHER), ext("BACKGROUND_IMAGE", OTHER), sci(name="DATA_IMAGE")],
        "DATA_IMAGE",
    ),
    "an exposure is one": Layout(lambda: [primary(), sci(name="EXP1_SCI"), ext("EXP1_ERR", ERR)], "EXP1_SCI", 0.1),
    "words in full": Layout(
        lambda: [primary(), sci(name="Science Image"), ext("Error Map", ERR), ext("Point Spread Function", STAR),
                 ext("Bad Pixel Mask", BAD)], "SCIENCE IMAGE", 0.1, FAULTS, psf=SCALE,
    ),
    "maps of the sky": Layout(
        lambda: [primary(), sci(), ext("BKG", OTHER), ext("BKG_RMS", ERR), ext("PSF_MODEL", STAR)], sigma=0.1, psf=SCALE
    ),
    "the plainest of two": Layout(lambda: [primary(), sci(), ext("SKY_RMS", 3 * ERR), ext("RMS", ERR)], sigma=0.1),
    "noise of all before a part": Layout(
        lambda: [primary(), sci(), ext("SKY_ERR", 3 * ERR), ext("TOTAL_ERR", ERR), ext("READ_VAR", ERR**2)], sigma=0.1,
        says="noise TOTAL_ERR; not used: SKY_ERR, READ_VAR",
    ),
    "variance of all before a part": Layout(
        lambda: [primary(), sci(), ext("BKG_RMS", 0.3 * ERR), ext("WHT", EXPOSED), ext("VAR", ERR**2)], sigma=0.1,
        says="noise VAR; not used: BKG_RMS, WHT",
    ),
    "flags of a band": Layout(
        lambda: [primary(), sci(name="VIS_SCI"), ext("VIS_DQ_MASK", BAD), ext("VIS_SCI_ERR", ERR)],
        "VIS_SCI", 0.1, FAULTS,
    ),
    "image of two": Layout(
        lambda: [primary(), sci(name="FLUX"), sci(2 * IMAGE), ext("SCI_ERR", 2 * ERR), ext("FLUX_ERR", ERR)],
        "FLUX", 0.1,
        choice=Choice(extension="FLUX"), says="noise FLUX_ERR",
    ),
    "bits of a telescope in a mask": Layout(
        lambda: [primary(TELESCOP="JWST"), sci(), ext("DQ_MASK", BAD | 4)], bad=FAULTS,
        says="those without DO_NOT_USE",
    ),
    "an inverted mask": Layout(
        lambda: [primary(), sci(), ext("INV_BPM", 1 - BAD)], bad=FAULTS, says="those where it is not zero"
    ),
    "weight map in one word": Layout(lambda: [primary(), sci(), ext("WEIGHTMAP", 1 / ERR**2)], sigma=0.1),
    "muse": Layout(lambda: [primary(), sci(name="DATA"), ext("STAT", ERR**2), ext("DQ", BAD)], "DATA", 0.1, FAULTS),
    "ccddata, variance": Layout(
        lambda: [primary(IMAGE, **HEAD), ext("MASK", BAD.astype("u1")),
                 ext("UNCERT", ERR**2, UTYPE="VarianceUncertainty")], "PRIMARY", 0.1, FAULTS,
    ),
    "ccddata, inverse variance": Layout(
        lambda: [primary(IMAGE, **HEAD), ext("UNCERT", 1 / ERR**2, UTYPE="InverseVariance")], "PRIMARY", 0.1,
    ),
    "pan-starrs": Layout(
        lambda: [primary(), sci(name="o1234.ima"), ext("o1234.wt", 1 / ERR**2), ext("o1234.mask", BAD)], "O1234.IMA",
        0.1, FAULTS,
    ),
    "good mask": Layout(lambda: [primary(), sci(), ext("GOODMASK", 1 - BAD)], bad=FAULTS),
    "exposure time, pixel by pixel": Layout(lambda: [primary(), sci(), ext("EXPTIME", EXPOSED)], sigma=0.1),
    "stack of one channel": Layout(
        lambda: [primary(np.stack([0 * IMAGE, IMAGE])[:, None], **HEAD)], "PRIMARY[1]", choice=Choice(extension="0[1]")
    ),
    "flags of floats": Layout(
        lambda: [primary(TELESCOP="JWST"), sci(), ext("DQ", (BAD | 4).astype("f4"))], bad=FAULTS
    ),
    "any error map is no image": Layout(lambda: [primary(), ext("NOISE", ERR), sci(name="THING")], "THING", 0.1),
    "weight that is a variance": Layout(
        lambda: [primary(), sci(), ext("WT", ERR**2)], sigma=0.1, says="a weight, taken for a variance"
    ),
    "drizzle's inverse variance": Layout(lambda: [primary(), sci(), ext("IVM", 1 / ERR**2)], sigma=0.1),
    "variance of the noise": Layout(lambda: [primary(), sci(), ext("NOISE_VARIANCE", ERR**2)], sigma=0.1),
    "planes without a name": Layout(
        lambda: [primary(), unnamed(IMAGE, **HEAD), unnamed(BAD * 2 | DETECTED, **PLANES)], "1", bad=FAULTS,
        says="those without BAD, SAT, NO_DATA",
    ),
    "bands alone": Layout(
        lambda: [primary(), sci(2 * IMAGE, "G"), sci(name="R"), ext("G_VAR", 4 * ERR**2), ext("R_VAR", ERR**2)], "R",
        0.1, choice=Choice(band="r"),
    ),
    "two of no known name": Layout(
        lambda: [primary(), sci(name="CUTOUT_A"), sci(2 * IMAGE, "CUTOUT_B")], "CUTOUT_A",
        says="2 arrays of no known name (CUTOUT_A, CUTOUT_B): the first is taken, else give --ext",
    ),
    "objects": Layout(
        lambda: [primary(), sci(), ext("DQ", BAD), ext("OBJMASK", BAD[::-1].astype("u1"))],
        bad=int((BAD | BAD[::-1]).sum()),
        says=f"OBJMASK: {FAULTS} pixels of objects are masked",
    ),
    "two masks of flags": Layout(
        lambda: [primary(), sci(), ext("CRMASK", BAD), ext("SATMASK", BAD[::-1].copy())], bad=TWICE,
        says="image SCI, mask CRMASK and SATMASK\n",
    ),
    "masks of two senses": Layout(
        lambda: [primary(), sci(), ext("MASK", 1 - BAD), ext("DQ", BAD[::-1].copy()), ext("GOODPIX", 1 - BAD)],
        bad=TWICE, says=f"GOODPIX: {H * W - FAULTS} of {H * W} pixels count, those where it is not zero",
    ),
    "masks, one without a sense": Layout(
        lambda: [primary(), sci(), ext("BPM", BAD), ext("MASK", 2 * BAD[::-1] | 4 * BAD)], bad=TWICE,
        choice=Choice(mask_means="bad"), says="MASK: 600 of 672 pixels count, those where it is zero\nBPM: 612 of 672",
    ),
    "the sense that is said is that of a MASK alone": Layout(
        lambda: [primary(), sci(), ext("BPM", BAD), ext("MASK", 2 - 2 * BAD[::-1])], bad=TWICE,
        choice=Choice(mask_means="good"),
    ),
    "masks of a band and of none": Layout(
        lambda: [primary(), *euclid("VIS"), ext("VIS_FLG", BAD), ext("FLG", BAD[::-1].copy()),
                 ext("NIR_H_FLG", 1 - BAD), ext("NIR_H_FLUX", 2 * IMAGE, **HEAD)],
        "VIS_FLUX", 0.1, TWICE, psf=SCALE, says="mask VIS_FLG and FLG",
    ),
    "two masks of objects": Layout(
        lambda: [primary(), sci(), ext("STAR_MASK", BAD), ext("OBJMASK", BAD[::-1].copy()),
                 ext("SRCMASK", BAD * 0 + 1)],
        bad=TWICE, says=f"STAR_MASK: {FAULTS} pixels of objects are masked",
    ),
    "objects and the lens": Layout(
        lambda: [primary(), sci(), ext("OBJECT_MASK", (IMAGE > 1).astype("u1"))],
        says="OBJECT_MASK is not used: it marks 100 % of the lens's own light, in the middle",
    ),
    "the lens is marked": Layout(
        lambda: [primary(), sci(), ext("LENS_MASK", DISC.astype("u1"))],
        says="LENS_MASK is not used, by its name it marks the lens, which is modelled: give it as --mask",
    ),
    # PSFs
    "psf of its filter": Layout(
        lambda: [primary(), sci(FILTER1="CLEAR1L", FILTER2="F814W"), ext("PSF_F814W", STAR)], psf=SCALE
    ),
    "psf of the filter of the primary header": Layout(
        lambda: [primary(FILTER="F814W"), sci(), ext("PSF_F814W", STAR), ext("PSF_F160W", STAR)], psf=SCALE,
        says="PSF_F160W is not used, by its name it is of F160W",
    ),
    "psf of another filter": Layout(
        lambda: [primary(), sci(FILTER="F814W"), ext("PSF", STAR, FILTER="F160W")], psf=SCALE,
        says="a.fits[PSF] is of the filter F160W, and the image of F814W: is it the right PSF?",
    ),
    "psf of its own scale": Layout(lambda: [primary(), sci(), ext("PSF", _star(15, 5), PIXSCALE=0.05)], psf=0.05),
    "psf by stpsf": Layout(lambda: [primary(), sci(), ext("PSF", _star(15, 5), PIXELSCL=0.05, OVERSAMP=2)], psf=0.05),
    "psf by oversampling": Layout(lambda: [primary(), sci(), ext("PSF", _star(15, 5), OVERSAMP=2)], psf=0.05),
    "psf by wcs": Layout(
        lambda: [primary(), sci(), ext("PSF", STAR, CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CDELT1=-0.1 / 3600,
                                       CDELT2=0.1 / 3600)], psf=0.1,
    ),
    "psf named kernel": Layout(lambda: [primary(), sci(), ext("KERNEL", STAR)], psf=SCALE),
    "psfex": Layout(lambda: [primary(), sci(), psfex()], psf=SCALE, says="a PSFEx model, evaluated in the middle"),
    "psfex, oversampled": Layout(lambda: [primary(), sci(), psfex(2)], psf=SCALE / 2),
}  # fmt: skip


def written(path: Path, hdus: list) -> Path:
    fits.HDUList(hdus).writeto(path)
    return path


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(tmp_path, layout):
    images = read_images(written(tmp_path / "a.fits", layout.hdus()), Reading(choice=layout.choice))
    seen, told = images.observation, "\n".join(images.remarks)
    np.testing.assert_allclose(seen.image[0, 0].numpy(), IMAGE, rtol=0, atol=layout.almost)
    assert f"a.fits: image {layout.image}" in told and layout.says in told
    sigma = seen.noise.variance(seen.image).sqrt()
    # a weight is scaled to the sky's noise, which one image tells to a few per cent
    assert float(sigma.median()) == pytest.approx(SIGMA, rel=0.1)
    assert ("no noise is known" in told) == (layout.sigma is None)
    assert (0 if seen.mask is None else int((~seen.mask).sum())) == layout.bad
    if layout.psf is None:
        assert "no PSF is known" in told
    else:
        assert isinstance(seen.camera.psf, PixelPSF) and seen.camera.psf.scale == pytest.approx(layout.psf)
        assert torch.isclose(seen.camera.psf.kernel.sum(), torch.tensor(1.0, dtype=torch.float64))


MASKED = (
    "DQ_MASK", "FLAG_MASK", "QUALITY_MASK", "QUALITY_FLAGS", "SATURATION_MASK", "COSMIC_RAY_MASK", "EDGE_MASK",
    "COMBINED_MASK", "FIT_MASK", "BAD_PIX_MASK", "MASK_CR", "BADPIXELMASK",
)  # fmt: skip
NOISY = {
    ERR[0, 0]: ("FLUX_ERR", "FULL_ERR", "NOISE_TOT", "POISSON_ERR", "ERR_IMAGE", "ERRIMAGE"),
    ERR[0, 0] ** 2: ("FLUX_VAR", "VARIANCE_TOTAL", "COMBINED_VAR"),
    ERR[0, 0] ** -2: ("INVERSEVARIANCE", "FLUX_IVAR", "INVERSE_VAR", "VAR_INV", "SCI_INV_VARIANCE"),
}


@pytest.mark.parametrize("said", [{}, {"FILTER": "VIS"}], ids=["no band", "a band"])
@pytest.mark.parametrize("name", MASKED)
def test_words_that_say_what_a_mask_is_are_no_bands(tmp_path, name, said):
    found = read_images(written(tmp_path / "a.fits", [primary(), sci(**said), ext(name, BAD)]))
    assert int((~found.observation.mask).sum()) == FAULTS and f"mask {name}" in found.remarks[0]


@pytest.mark.parametrize("said", [{}, {"FILTER": "VIS"}], ids=["no band", "a band"])
@pytest.mark.parametrize(("value", "name"), [(value, name) for value, names in NOISY.items() for name in names])
def test_words_that_say_what_noise_is_are_no_bands(tmp_path, value, name, said):
    """A variance and an inverse variance stay what they are."""
    hdus = [primary(), sci(**said), ext(name, np.full(SHAPE, value, "f4"))]
    seen = read_images(written(tmp_path / "a.fits", hdus)).observation
    assert float(seen.noise.variance(seen.image).sqrt().median()) == pytest.approx(SIGMA)


@pytest.mark.parametrize("name", ["ERR2", "PSF_VIS", "PSF1", "PSFMODEL", "TRUE_MASK"])
def test_where_no_image_says_a_band_no_word_is_one(tmp_path, name):
    array = STAR if "PSF" in name else BAD if "MASK" in name else ERR
    found = read_images(written(tmp_path / "a.fits", [primary(IMAGE, **HEAD), ext(name, array)]))
    assert "not used" not in found.remarks[0] and name in found.remarks[0]


@pytest.mark.parametrize(
    ("name", "band"), [("NIR_H_RMS", "NIR_H"), ("PSF_F160W", "F160W"), ("PSF_ERR", "PSF"), ("FLAT_MASK", "FLAT")]
)
def test_what_is_of_another_band_or_array_is_not_used_and_told(tmp_path, name, band):
    hdus = [primary(), sci(FILTER="VIS"), ext("ERR", ERR), ext(name, ERR)]
    told = read_images(written(tmp_path / "a.fits", hdus)).remarks
    assert told[0] == f"a.fits: image SCI, noise ERR; not used: {name}"
    assert f"{name} is not used, by its name it is of {band}: name it otherwise if it is of SCI" in told


@pytest.mark.parametrize("name", ["INVERSE_RMS", "LOG_ERR", "RELATIVE_ERR"])
def test_what_is_another_quantity_than_noise_is_not_taken_for_it(tmp_path, name):
    told = read_images(written(tmp_path / "a.fits", [primary(), sci(), ext(name, ERR)])).remarks
    assert told[0] == f"a.fits: image SCI; not used: {name}"


def spoilt(path: Path, key: str, value: str, hdus: list) -> Path:
    """A file of which one card has a value that cannot be read."""
    written(path, hdus)
    raw = path.read_bytes()
    start = raw.index(f"{key:8s}=".encode())
    path.write_bytes(raw[:start] + f"{key:8s}= {value}".ljust(80).encode() + raw[start + 80 :])
    return path


SKY = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 14.5, "CRPIX2": 12.5, "CRVAL1": 146.7, "CRVAL2": 10.1,
    "CD1_1": -0.1 / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.1 / 3600,
}  # fmt: skip


@pytest.mark.parametrize("value", ["09:46:56.7", "NaN", "abc"])
@pytest.mark.parametrize("key", ["CRVAL1", "CRPIX2", "CD1_2"])
def test_nothing_of_a_wcs_is_used_of_which_a_card_cannot_be_read(tmp_path, key, value):
    path = spoilt(tmp_path / "a.fits", key, value, [primary(LONPOLE=180.0), sci(**SKY)])
    found = read_images(path)
    assert f"{key} cannot be read, and nothing of that WCS is used: repair it" in found.remarks
    assert found.header is not None and not {"LONPOLE", *SKY} & set(found.header)
    bare = spoilt(tmp_path / "b.fits", key, value, [primary(IMAGE, **SKY)])
    with pytest.raises(LensphysError, match=rf"has no pixel scale \({key} cannot be read.*: give --pixel-scale"):
        read_images(bare)


def test_cards_that_cannot_be_read_are_named(tmp_path):
    path = spoilt(tmp_path / "a.fits", "SEEING", "NaN", [primary(SEEING=1.0), sci(**SKY)])
    found = read_images(path)
    assert "cards that cannot be read are left out: SEEING" in found.remarks
    assert found.header is not None and found.header["CRVAL1"] == 146.7


def test_an_alternate_wcs_goes_by_itself(tmp_path):
    path = spoilt(
        tmp_path / "a.fits", "CRVAL1B", "NaN", [primary(IMAGE, **SKY, **{f"{key}B": SKY[key] for key in SKY})]
    )
    header = read_images(path).header
    assert header is not None and "CRVAL1" in header and "CRVAL2B" not in header


def test_what_was_lost_of_integers_is_masked_though_no_blank_says_so(tmp_path):
    """-32768, the end of the integers, in two columns and a patch inside of the image."""
    stored = np.where(BAD, -32768, np.round(100 * IMAGE)).astype("i2")
    seen = read_images(written(tmp_path / "a.fits", [primary(stored, **HEAD)])).observation
    np.testing.assert_array_equal(seen.weight[0, 0].numpy() == 0, BAD > 0)


REFUSED: dict[str, tuple[Callable[[], list], Choice, str]] = {
    "noise by the second, of nobody knows how many": (
        lambda: [primary(), sci(BUNIT="electron"), ext("ERR", ERR, BUNIT="e-/s")],
        Choice(),
        r"ERR\] is in electron / s, the image in electron, and its header has no EXPTIME: set it, or save both",
    ),
    "nothing": (lambda: [primary()], Choice(), r"a.fits has no image \(H, W\): save .* \(it holds nothing\)"),
    "an event list": (
        lambda: [primary(), table("EVENTS"), table("GTI")],
        Choice(),
        r"no image \(H, W\).*it holds EVENTS \(a table\), GTI \(a table\)",
    ),
    "exposures and planes": (
        lambda: [primary(np.stack([np.stack([IMAGE] * 3)] * 2), **HEAD)],
        Choice(),
        r"has the shape \(2, 3, 24, 28\), expected one image \(H, W\): save one plane",
    ),
    "no pixels": (lambda: [primary(), ext("SCI", np.zeros((0, 5), "f4"))], Choice(), "expected one image"),
    "flags alone": (lambda: [primary(), ext("DQ", BAD), ext("SNR", IMAGE)], Choice(), r"no image \(H, W\)"),
    "err on its side": (
        lambda: [primary(), sci(), ext("ERR", ERR.T)],
        Choice(),
        r"ERR\] must have the shape of the image, \(24, 28\), got \(28, 24\)",
    ),
    "oblong pixels": (
        lambda: [primary(), ext("SCI", IMAGE, CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CDELT1=-1e-5, CDELT2=2e-5)],
        Choice(),
        r'pixels of 0.036" x 0.072": resample it onto square ones',
    ),
    "psf that peaks at one": (lambda: [primary(), sci(), ext("PSF", STAR / STAR.max())], Choice(), "divide it by its"),
    "noise alone": (lambda: [primary(), ext("ERR", ERR)], Choice(), r"no image \(H, W\).*it holds ERR \(24, 28\)"),
    "a cube": (
        lambda: [primary(np.stack([IMAGE] * 3), **HEAD)],
        Choice(),
        r"\[PRIMARY\] has the shape \(3, 24, 28\), expected .*: choose a plane with --ext 'PRIMARY\[0\]'",
    ),
    "colours": (
        lambda: [primary(np.stack([IMAGE] * 3, -1), **HEAD)],
        Choice(),
        r"shape \(24, 28, 3\), .*: its planes are last, save one as \(H, W\) = \(24, 28\)",
    ),
    "no such plane": (
        lambda: [primary(np.stack([IMAGE] * 3), **HEAD)],
        Choice(extension="0[3]"),
        r"\(3, 24, 28\), and no plane 3",
    ),
    "no such extension": (
        lambda: [primary(), sci()],
        Choice(extension="SCI,2"),
        r"has no image SCI,2: it holds SCI \(24",
    ),
    "no extension": (lambda: [primary(), sci()], Choice(extension="a[b]"), r"--ext a\[b\] is not NAME, NAME,VERSION"),
    "no such band": (
        lambda: [primary(), *euclid("VIS")],
        Choice(band="NIR"),
        "no image of the band NIR: choose one of VIS",
    ),
    "no band": (
        lambda: [primary(), sci()],
        Choice(band="r"),
        r"no image of the band r: no image in it says its band \(it holds SCI \(24, 28\)",
    ),
    "two bands of a cube": (
        lambda: [primary(np.stack([IMAGE] * 3), BANDS="grz", **HEAD)],
        Choice(band="rz"),
        "no image of the band rz: choose one of g, r, z",
    ),
    "half of the lens": (
        lambda: [primary(), sci(), ext("MASK", (np.indices(SHAPE)[1] < W // 2).astype("u1"))],
        Choice(),
        r"a.fits\[MASK\] is not zero on 50 % of the lens: give --mask-means good or --mask-means bad",
    ),
    "bits without names": (
        lambda: [primary(), sci(), ext("MASK", BAD * 2 | DETECTED)],
        Choice(),
        r"a.fits\[MASK\] is a bit mask \(2, 32\) without names of its bits \(MP_...\): give --mask-means bad if",
    ),
    "magnitudes": (
        lambda: [primary(), sci(BUNIT="mag/arcsec2")],
        Choice(),
        r"\[SCI\] holds magnitudes or another logarithm \(mag/arcsec2\)",
    ),
    "asinh magnitudes": (
        lambda: [primary(IMAGE, BSOFTEN=1.0, BOFFSET=0.1, **HEAD)],
        Choice(),
        r"a.fits\[PRIMARY\] holds asinh magnitudes, by BSOFTEN: save the fluxes",
    ),
    "another logarithm": (
        lambda: [primary(), sci(BUNIT="log10(flux)")],
        Choice(),
        r"logarithm \(log10\(flux\)\): save",
    ),
    "a variance that is none": (
        lambda: [primary(), sci(IMAGE / 100), ext("IVAR", ERR / 100)],
        Choice(),
        r"IVAR\] looks like standard deviations, not like an inverse variance: if so, name its extension ERR",
    ),
    "tiny pixels": (
        lambda: [primary(), ext("SCI", IMAGE, PIXSCALE=1e-5)],
        Choice(),
        r'a.fits has pixels of 1e-05" by PIXSCALE: repair PIXSCALE \(arcsec\), or give --pixel-scale',
    ),
    "huge pixels": (
        lambda: [primary(), ext("SCI", IMAGE, PIXSCALE=100.0)],
        Choice(),
        r'has pixels of 100" by PIXSCALE: repair',
    ),
    "a degree": (
        lambda: [primary(), ext("SCI", IMAGE, CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CDELT1=-0.1, CDELT2=0.1)],
        Choice(),
        r'has pixels of 360" by CDELT1: repair CDELT1 \(degrees\), or give --pixel-scale',
    ),
    "no scale": (
        lambda: [primary(), ext("SCI", IMAGE, PIXELSCL="large")],
        Choice(),
        r"PIXELSCL = 'large', expected a number",
    ),
    "err of another shape": (
        lambda: [primary(), sci(), ext("ERR", ERR[1:])],
        Choice(),
        r"ERR\] must have the shape of the image, \(24, 28\), got \(23, 28\)",
    ),
    "no psfex": (
        lambda: [primary(), sci(), table("PSF_DATA")],
        Choice(),
        r"\[PSF_DATA\] is no PSFEx model: it lacks PSF_SAMP",
    ),
    "psf of nothing": (
        lambda: [primary(), sci(), ext("PSF", STAR, OVERSAMP=0)],
        Choice(),
        r"\[PSF\] has OVERSAMP = 0, expected a number above zero",
    ),
    "images before their noise": (
        lambda: [primary(), sci(), sci(2 * IMAGE), ext("ERR", ERR), ext("ERR", 2 * ERR)],
        Choice(),
        r"a.fits has 2 arrays ERR, and neither FILTER nor their order says which is of SCI, extension 1: give --error, "
        r"or each its EXTVER",
    ),
    "masks before their images": (
        lambda: [primary(), ext("DQ", BAD), sci(), ext("DQ", BAD), sci(2 * IMAGE)],
        Choice(),
        r"has 2 arrays DQ, and neither FILTER nor their order says which is of SCI, extension 2: give --mask, or each",
    ),
    "psfs of bands that no image says": (
        lambda: [primary(), sci(), ext("PSF_G", STAR), ext("PSF_VIS", STAR)],
        Choice(),
        r"a.fits has PSF_G, PSF_VIS, and no image that says its band: give --psf, or a FILTER to SCI",
    ),
    "psf cube": (
        lambda: [primary(), sci(), ext("PSF", np.stack([STAR] * 2))],
        Choice(),
        r"\(2, 7, 7\): a PSF kernel must be one image \(K, K\)",
    ),
}


@pytest.mark.parametrize(("hdus", "choice", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_layouts(tmp_path, hdus, choice, message):
    with pytest.raises(LensphysError, match=message) as caught:
        read_images(written(tmp_path / "a.fits", hdus()), Reading(choice=choice))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"\x89PNG\r\n\x1a\n", "not a FITS file, but a picture, whose values are no fluxes"),
        (b"<HTML><body>Log in", "but a web page, as archives send"),
        (b"#ASDF 1.0.0", "but an ASDF file: save its data, err and dq"),
        (b"\x93NUMPY", "but an .npy file"),
        (b"nonsense", "it does not begin with SIMPLE"),
    ],
)
def test_what_is_no_fits_file_is_told(tmp_path, start, words):
    path = tmp_path / "a.fits"
    path.write_bytes(start + bytes(100))
    with pytest.raises(LensphysError, match=words):
        read_images(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.PNG", "is a picture, whose"), ("a.asdf", "SCI, ERR and DQ of a FITS"), ("a.x", "kind of")],
)
def test_other_kinds_of_files_are_told(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(LensphysError, match=words):
        read_images(tmp_path / name)


@pytest.mark.parametrize(("name", "words"), [("a.PNG", "is a picture, whose"), ("a.asdf", "is an ASDF file: save")])
def test_other_kinds_of_files_are_told_by_all_who_read_images(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"x")
    for command in (["doctor", name], ["import", name, "-o", "a.h5"]):
        found = CliRunner().invoke(app, [str(tmp_path / x) if x.startswith("a.") else x for x in command])
        assert found.exit_code == 2 and words in found.output


BEAM = {"BUNIT": "Jy/beam", "BMAJ": 0.6 / 3600, "BMIN": 0.4 / 3600, "BPA": 30.0}
STEPS = {"CDELT1": -SCALE / 3600, "CDELT2": SCALE / 3600}
AXES = {"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "CRVAL1": 150.0, "CRVAL2": 60.0, "CRPIX1": 9.0, "CRPIX2": 4.0}
COS, SIN = float(np.cos(0.7)), float(np.sin(0.7))


@pytest.mark.parametrize(
    "sky",
    [
        {**STEPS},
        {**STEPS, "CDELT1": SCALE / 3600},  # east is right
        {**STEPS, "PC1_1": COS, "PC1_2": -SIN, "PC2_1": SIN, "PC2_2": COS},
    ],
    ids=["north is up", "mirrored", "rotated"],
)
def test_the_beam_of_an_interferometer_lies_on_the_sky_as_its_header_says(tmp_path, sky):
    path = written(tmp_path / "a.fits", [primary(IMAGE, **{**AXES, **sky, **BEAM})])
    found = read_images(path)
    beam = 'a beam of 0.6" x 0.4" at 30 deg from north to east (BMAJ, BMIN, BPA)'
    told = f'PSF: the header, FWHM 0.49", 23 x 23 pixels of 0.1": {beam}'
    assert told in found.remarks
    psf = found.observation.camera.psf
    kernel = psf.kernel.double().numpy()
    y, x = np.indices(kernel.shape) - 11
    widths, axes = np.linalg.eigh([[(kernel * a * b).sum() for b in (x, y)] for a in (x, y)])
    assert kernel.sum() == pytest.approx(1) and psf.scale == pytest.approx(SCALE)
    assert SCALE * np.sqrt(8 * np.log(2) * widths) == pytest.approx([0.4, 0.6], rel=2e-3)
    wcs, (dx, dy) = WCS(fits.getheader(path)), axes[:, 1]
    middle, tip = wcs.pixel_to_world([13.5, 13.5 + dx], [11.5, 11.5 + dy])
    assert middle.position_angle(tip).deg % 180 == pytest.approx(30, abs=0.1)


def test_a_beam_without_a_sky_or_narrower_than_pixels_suffice_for(tmp_path):
    path = written(tmp_path / "a.fits", [primary(IMAGE, **{**HEAD, **BEAM, "BPA": 90.0, "BMIN": 0.11 / 3600})])
    psf = read_images(path).observation.camera.psf
    line = psf.kernel.numpy()[33] > 0.5 * psf.kernel.max().item()
    assert psf.scale == pytest.approx(SCALE / 3) and 16 < line.sum() < 20  # of 0.6" along x: north is up
    given = read_images(path, Reading(psf=Kernel(STAR.astype("f8"), where="mine"))).observation.camera.psf
    assert np.allclose(given.kernel, STAR)


@pytest.mark.parametrize(
    ("cards", "words"),
    [
        (
            {"BPA": None},
            'a beam of 0.6" x 0.4" (BMAJ, BMIN, BPA), and BPA does not say where its long axis lies; it is',
        ),
        ({"BMAJ": 0.6}, "wider than the image: are BMAJ and BMIN in degrees?; it is not used: give --psf, a kernel"),
        ({"BMIN": 0.05 / 3600}, "narrower than a pixel; it is not used"),
        ({"LENSPHYS": "0.4.0"}, "that of the image before it was super-resolved; it is not used"),
        ({"BMAJ": 0.0}, ""),
        ({"BMAJ": "0.3 arcsec"}, ""),
    ],
)
def test_a_beam_that_is_not_used_is_told(tmp_path, cards, words):
    path = written(tmp_path / "a.fits", [primary(IMAGE, **{**HEAD, **BEAM, **cards})])
    images = read_images(path)
    assert isinstance(images.observation.camera.psf, UnknownPSF)
    assert [words in remark for remark in images.remarks if "a beam of" in remark] == ([True] if words else [])


HUGE = {  # of bad pixels
    "ERR": lambda bad: np.where(bad, 1e8, ERR),
    "VARIANCE": lambda bad: np.where(bad, 1e20, ERR**2),
    "IVAR": lambda bad: np.where(bad, 1e-20, 1 / ERR**2),
    "WHT": lambda bad: np.where(bad, 1e-20, 1 / ERR**2),
    "EXPOSURE": lambda bad: np.where(bad, 1e-6, EXPOSED),
}


@pytest.mark.parametrize("share", ["border", "half"])
@pytest.mark.parametrize("name", HUGE)
def test_pixels_of_a_huge_noise_are_masked(tmp_path, name, share):
    bad = ~_disc(11) if share == "border" else np.arange(H)[:, None] + 0 * np.arange(W) >= 14
    hdus = [primary(), sci(), ext(name, HUGE[name](bad).astype("f4"))]
    found = read_images(written(tmp_path / "a.fits", hdus))
    seen, told = found.observation, f"{int(bad.sum())} pixels whose noise is over 1000 times that of most are masked"
    assert np.array_equal(seen.mask[0, 0].numpy(), ~bad)
    assert float(seen.noise.variance(seen.image).sqrt().median()) == pytest.approx(SIGMA, rel=0.1)
    assert f"a.fits[{name}]: {told}" in found.remarks and "in the unit" not in "".join(found.remarks)


def test_names_with_braces(tmp_path):
    hdus = [primary(), sci(), ext("MASK_{1}", BAD), ext("OBJMASK_{}", BAD), ext("ERR_{X", np.where(BAD, 0, ERR))]
    found = read_images(written(tmp_path / "a.fits", hdus))
    assert int((~found.observation.mask).sum()) == FAULTS
    assert f"a.fits[ERR_{{X]: {FAULTS} values that are not positive and finite are masked" in found.remarks


def test_bright_pixels_keep_their_noise(tmp_path):
    noise = ERR * np.where(IMAGE > 1, 300, 1)
    found = read_images(written(tmp_path / "a.fits", [primary(), sci(), ext("ERR", noise)]))
    assert found.observation.mask is None


def test_a_noise_map_that_is_named_wrongly_is_refused(tmp_path):
    image = written(tmp_path / "a.fits", [primary(IMAGE, **HEAD)])
    written(tmp_path / "a.weight.fits", [primary(1 / ERR**2)])
    assert meaning_of_file(Path("W1_i.weight.fits.gz")).role == meaning_of_file(Path("w.weight.npy")).role == "weight"
    found = read_images(image, Reading(error=tmp_path / "a.weight.fits")).observation.noise.sigma
    assert torch.allclose(found, torch.tensor(SIGMA))
    small = written(tmp_path / "b.fits", [primary(IMAGE * 0.01, **HEAD)])
    noise = written(tmp_path / "noise.fits", [primary((ERR * 0.01) ** -2)])
    with pytest.raises(LensphysError, match="noise.fits looks like an inverse variance, not like standard deviations"):
        read_images(small, Reading(error=noise))


def test_the_table_of_names():
    names = [name for known in NAMES.values() for name in known]
    assert len(names) == len(set(names))
    for role, known in NAMES.items():
        for name in known:
            assert meaning(name.lower()).role == role and meaning(f"NIR_Y_{name}") == Meaning(role, "NIR_Y", name)
    assert meaning("LENS").role is None and meaning("").role is None
    assert meaning("ERR_STAT") == Meaning("standard deviation", "", "ERR") and meaning("VIS_STAT").role == "variance"
    files = {"j1000_drz_wht.fits": "weight", "coadd-invvar-r.fits.gz": "inverse variance", "a.fits": None}
    files |= {"noise_map.npy": "standard deviation", "psf.fits": "PSF"}
    files |= {"inverse_var.fits": "inverse variance", "dq_mask.npy": "flags", "mask_objects_2.npy": "mask of objects"}
    assert {name: meaning_of_file(Path(name)).role for name in files} == files


def test_the_page_on_files_has_the_whole_vocabulary():
    page = (Path(__file__).parents[1] / "docs" / "files.md").read_text()
    for role, known in NAMES.items():
        assert f"| {role} | {', '.join(known)} |" in page
    assert f"those without {', '.join(BAD_PLANES)} |" in page
    assert f"{', '.join(SCALE_KEYS[:-1])} or {SCALE_KEYS[-1]} (arcsec)" in page
    assert f"MAGZERO, {', '.join(k for k in ZERO_POINTS if k != 'MAGZERO')}" in page.replace(" or ", ", ")
    assert f"{MOST_UNPACKED >> 20} MiB unpacked" in page and MOST_PIXELS == 8192**2
