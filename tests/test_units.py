"""BUNIT as archives spell it, and what an instrument's noise is in the unit of an image."""

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits

from lensphys.basics.checks import LensphysError
from lensphys.data.images import Reading, read_images
from lensphys.fits.units import is_magnitude, is_surface_brightness, unit_of
from lensphys.observation import ExposureNoise, Instrument
from lensphys.observation.units import unit_ratio

H, W, TIME = 24, 28, 2264.0
EUCLID = Instrument.named("euclid_vis")  # 4 x 566 s, e-/s, 25.72 mag
DECAM = Instrument.parse(
    {
        "version": 1,
        "description": "a camera in ADU/s",
        "pixel_scale": 0.2,
        "unit": "ADU/s",
        "gain": 4.0,
        "zero_point": 24.0,
        "psf": {"kind": "gaussian", "fwhm": 0.7},
        "noise": {"kind": "exposure", "read_noise": 6.0, "sky_brightness": 21.0, "exposure_time": 100.0},
    },
    "a camera",
)

SPELLINGS = {
    "electron/s": u.electron / u.s,
    "e-/s": u.electron / u.s,
    "ELECTRONS/S": u.electron / u.s,
    "electrons": u.electron,
    "e-": u.electron,
    "COUNTS": u.ct,
    "counts/second": u.ct / u.s,
    "cps": u.ct / u.s,
    "ADU": u.adu,
    "DN/S": u.adu / u.s,
    "MJY/SR": u.MJy / u.sr,
    "MJy sr-1": u.MJy / u.sr,
    "nanomaggies": u.nmgy,
    "UJY": u.uJy,
    "mJy": u.mJy,
    "ELECTRON": u.electron,
    "electrons per second": u.electron / u.s,
    "MJY/STER": u.MJy / u.sr,
    "ERG/S/CM2/ARCSEC2": u.erg / u.s / u.cm**2 / u.arcsec**2,
    "ERG/S/CM^2/ARCSEC^2": u.erg / u.s / u.cm**2 / u.arcsec**2,
    "ERG S-1 CM-2 ARCSEC-2": u.erg / u.s / u.cm**2 / u.arcsec**2,
    "NJY/ARCSEC**2": u.nJy / u.arcsec**2,
    "COUNTS/S/ARCSEC^2": u.ct / u.s / u.arcsec**2,
    "JY/SQ ARCSEC": u.Jy / u.arcsec**2,
    "MJY SR-1": u.MJy / u.sr,
    "MJy/sterad": u.MJy / u.sr,
    "JY BEAM-1": u.Jy / u.beam,
    "mJy/bm": u.mJy / u.beam,
    "W/M**2/SR": u.W / u.m**2 / u.sr,
    "1E-20 ERG/S/CM2": 1e-20 * u.erg / u.s / u.cm**2,
    "Kelvin": u.K,
}


@pytest.mark.parametrize(("text", "unit"), SPELLINGS.items(), ids=SPELLINGS)
def test_spellings(text, unit):
    assert unit_of(fits.Header({"BUNIT": text})) == unit


def test_what_is_no_unit():
    for text in ("", "foo", "1E-17 erg/s/cm^2/Ang/spaxel", "none", "unitless", "MJY"):
        assert unit_of(fits.Header({"BUNIT": text})) is None
    assert unit_of(fits.Header()) is None


BRIGHTNESS = ("MJy/sr", "MJY/SR", "MJy sr-1", "Jy/beam", "JY/BEAM", "mJy/arcsec2", "erg/s/cm2/arcsec2",
              "10**-17 erg/s/cm2/arcsec2", "W/m2/sr", "ELECTRON/S/ARCSEC2", "flux of somebody / arcsec^2", "K", "mK",
              "K km/s", "L_sun/pc2", "Jy/beam area", "counts/sec/sq.arcsec",
              *(text for text in SPELLINGS if any(word in text for word in ("SR", "ARCSEC", "BEAM"))))  # fmt: skip


@pytest.mark.parametrize("text", BRIGHTNESS)
def test_surface_brightness_in_any_spelling(text):
    assert is_surface_brightness(fits.Header({"BUNIT": text}))


@pytest.mark.parametrize(
    "text", ["mag", "ABmag", "mag/arcsec2", "AB MAGNITUDES", "magAB", "dex", "dB", "luptitude", "log10(flux)"]
)
def test_magnitudes_in_any_spelling(text):
    assert is_magnitude(fits.Header({"BUNIT": text}))


@pytest.mark.parametrize("text", ["", "electron/s", "nanomaggy", "nanomaggies per thing", "foo", "none"])
def test_fluxes_are_no_magnitudes(text):
    assert not is_magnitude(fits.Header({"BUNIT": text}))


@pytest.mark.parametrize(
    "text", ["", "electron/s", "nJy", "counts/s", "mJy/pixel", "sroads", "erg/s/cm2/Hz", "DN", "W/M2"]
)
def test_flux_in_a_pixel(text):
    assert not is_surface_brightness(fits.Header({"BUNIT": text}))


@pytest.mark.parametrize(("unit", "known"), [("foo", False), ("MJY", False), ("nJy", True), ("none", True)])
def test_a_unit_that_cannot_be_read_is_told(tmp_path, unit, known):
    image = np.random.default_rng(0).normal(1, 1, (H, W)).astype("f4")
    fits.PrimaryHDU(image, fits.Header({"BUNIT": unit, "PIXSCALE": 0.1})).writeto(tmp_path / "a.fits")
    told = f"BUNIT {unit} is no unit that can be read: it is taken for flux per pixel"
    assert (told in read_images(tmp_path / "a.fits").remarks) != known


def ratio(instrument=EUCLID, scale=0.1, **cards):
    return unit_ratio(fits.Header(cards), instrument, "a.fits", scale)


NANOJANSKY = 3631e9 * 10 ** (-0.4 * 25.72)  # of 1 e-/s
RATIOS = {
    "the same": (EUCLID, {"BUNIT": "electron/s"}, 1),
    "electrons": (EUCLID, {"BUNIT": "ELECTRONS", "EXPTIME": TIME}, TIME),
    "adu": (EUCLID, {"BUNIT": "ADU", "EXPTIME": TIME, "GAIN": 3.5}, TIME / 3.5),
    "adu by the second": (EUCLID, {"BUNIT": "DN/s", "CCDGAIN": 2.0}, 1 / 2),
    "counts with a gain": (EUCLID, {"BUNIT": "counts/s", "GAIN": 2.0}, 1 / 2),
    "a camera's own": (DECAM, {"BUNIT": "adu/s"}, 1),
    "electrons of that": (DECAM, {"BUNIT": "electron/s"}, 4),
    "sums of that": (DECAM, {"BUNIT": "adu", "EXPTIME": 100.0}, 100),
    "nanojansky": (EUCLID, {"BUNIT": "nJy"}, NANOJANSKY),
    "microjansky": (EUCLID, {"BUNIT": "uJy"}, NANOJANSKY / 1e3),
    "nanomaggies": (EUCLID, {"BUNIT": "nanomaggy"}, NANOJANSKY / 3631),
    "per pixel": (EUCLID, {"BUNIT": "nJy/pixel"}, NANOJANSKY),
    "per steradian": (EUCLID, {"BUNIT": "MJy/sr"}, NANOJANSKY / 1e15 / (0.1 / 206264.806) ** 2),
    "cgs": (EUCLID, {"BUNIT": "erg/s/cm2/Hz"}, NANOJANSKY / 1e9 * 1e-23),
    "zero point": (EUCLID, {"MAGZERO": 24.6}, 10 ** (0.4 * (24.6 - 25.72))),
    "zero point of HST's archive": (EUCLID, {"MAGZPNT": 24.6}, 10 ** (0.4 * (24.6 - 25.72))),
    "flux of magnitude zero": (EUCLID, {"FLUXMAG0": 63095734448.0}, 10 ** (0.4 * (27.0 - 25.72))),
}


@pytest.mark.parametrize(("instrument", "cards", "expected"), RATIOS.values(), ids=RATIOS)
def test_how_many_units_of_the_image_make_one_of_the_instrument(instrument, cards, expected):
    found = ratio(instrument, **cards)
    assert found.value == pytest.approx(expected, rel=1e-3)
    assert bool(found.remarks) == (expected != 1)


def test_what_is_assumed_is_said():
    assert ratio().remarks == ("a.fits has no BUNIT: it is taken to be in e-/s, as the instrument is",)
    assert ratio(BUNIT="none").remarks == ratio().remarks
    assert ratio(BUNIT="counts/s").remarks == ("a.fits is in counts and has no GAIN: they are taken for electrons",)
    assert ratio(BUNIT="electron/s", EXPTIME=566.0).remarks == ()  # of one exposure
    told = ratio(BUNIT="electron/s", EXPTIME=1000.0).remarks
    assert told == ("a.fits was exposed for 1000 s, the noise is that of the instrument's 2264 s",)
    told = ratio(BUNIT="electron", EXPTIME=TIME).remarks
    assert told == ("a.fits is in electron, 2264 of which are 1 e-/s of the instrument: its noise is converted",)


WRONG = {
    "no gain": ({"BUNIT": "adu", "EXPTIME": 1.0}, "a.fits has BUNIT adu and no GAIN in its header: set GAIN there, or"),
    "no time": ({"BUNIT": "electron"}, "a.fits has BUNIT electron and no EXPTIME in its header: set EXPTIME there, or"),
    "zero": ({"BUNIT": "electron", "EXPTIME": 0.0}, "BUNIT electron and EXPTIME 0.0, no number above zero, in its hea"),
    "no unit": (
        {"BUNIT": "foo"},
        "a.fits has BUNIT foo, which is no unit that can be read: write it as e-/s, electron,",
    ),
    "photons": ({"BUNIT": "photons/s"}, "BUNIT photons/s, which is no unit that can be read"),
    "mega or milli": ({"BUNIT": "MJY"}, "BUNIT MJY, which is no unit that can be read"),
    "per beam": (
        {"BUNIT": "Jy/beam"},
        "BUNIT Jy/beam, which cannot be brought to the e-/s of the instrument: give --e",
    ),
    "a zero point in words": ({"MAGZERO": "23.9"}, "has MAGZERO = '23.9', expected a magnitude: repair it"),
    "no flux of magnitude zero": ({"FLUXMAG0": 0.0}, "has FLUXMAG0 = 0.0, expected a flux above zero: repair it"),
    "a wavelength": ({"BUNIT": "erg/s/cm2/Angstrom"}, "cannot be brought to the e-/s of the instrument"),
}


@pytest.mark.parametrize(("cards", "message"), WRONG.values(), ids=WRONG)
def test_units_that_cannot_be_brought_to_the_instruments(cards, message):
    with pytest.raises(LensphysError, match=message):
        ratio(**cards)


def test_no_zero_point():
    dark = EUCLID.model_copy(update={"zero_point": None})
    with pytest.raises(LensphysError, match="is in nJy, and the instrument has no zero_point: give --error"):
        ratio(dark, BUNIT="nJy")


@pytest.mark.parametrize(("unit", "factor"), [("electron", TIME), ("nJy", NANOJANSKY), ("adu", TIME / 3.5)])
def test_the_noise_of_an_instrument_is_that_of_the_images_unit(tmp_path, unit, factor):
    light = np.random.default_rng(0).normal(0, 0.01, (H, W)).astype("f4")
    light[10:14, 10:16] += 0.5

    def seen(name, image, **cards):
        header = fits.Header({"PIXSCALE": EUCLID.pixel_scale, **cards})
        fits.PrimaryHDU(image, header).writeto(tmp_path / name)
        return read_images(tmp_path / name, Reading(instrument=EUCLID)).observation

    own = seen("own.fits", light, BUNIT="electron/s")
    other = seen("other.fits", light * np.float32(factor), BUNIT=unit, EXPTIME=TIME, GAIN=3.5)
    assert isinstance(other.noise, ExposureNoise)
    assert other.noise.variance(other.image) == pytest.approx(own.noise.variance(own.image) * factor**2, rel=1e-3)
    assert other.chi2(0 * other.image) == pytest.approx(own.chi2(0 * own.image), rel=1e-3)


def test_a_known_error_map_needs_no_unit(tmp_path):
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(np.eye(24), fits.Header({"PIXSCALE": 0.1, "BUNIT": "adu"}), name="SCI")]
    fits.HDUList([*hdus, fits.ImageHDU(np.ones((24, 24)), name="ERR")]).writeto(tmp_path / "a.fits")
    remarks = read_images(tmp_path / "a.fits", Reading(instrument=EUCLID)).remarks
    assert not [remark for remark in remarks if "adu" in remark]
