"""Telescopes: presets against lenstronomy's, published depths, gain, kernels from files, and messages."""

from __future__ import annotations

import base64
import json
import math
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from astropy.io import fits
from lenstronomy.SimulationAPI.observation_api import SingleBand
from lenstronomy.SimulationAPI.ObservationConfig import DES, HST, JWST, LSST, Euclid, Roman
from lenstronomy.Util.data_util import bkg_noise, magnitude2cps
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.observation import Conditions, GaussianPSF, Instrument, MoffatPSF, NoPSF, PixelPSF, instrument_names

pytestmark = pytest.mark.usefixtures("float64")

TELESCOPES = [name for name in instrument_names() if not name.startswith("model_")]
KEYS = {
    "pixel_scale": "pixel_scale",
    "magnitude_zero_point": "zero_point",
    "read_noise": "noise.read_noise",
    "sky_brightness": "noise.sky_brightness",
    "exposure_time": "noise.exposure_time",
    "num_exposures": "noise.num_exposures",
    "seeing": "psf.fwhm",
    "psf_type": "psf.kind",
}
# Every number of lenstronomy 1.14's preset is ours, but for these: (ours, theirs, why). ccd_gain is not compared: in
# e-/s it means nothing, there as here.
AIR = ("moffat", "GAUSSIAN", "a Gaussian has none of the wings of turbulent air")
PIXEL_SKY = "theirs is per pixel, and their noise formula multiplies it by the area of a pixel again"
CODE = "theirs means that a kernel must be given"
PAIRS = "theirs counts the exposures of two filters"
THEIRS: dict[str, tuple[Any, dict[str, tuple[Any, Any, str]]]] = {
    "euclid_vis": (lambda: Euclid.Euclid("VIS"), {}),
    "euclid_nisp_h": (lambda: Euclid.Euclid("H"), {}),
    "hst_wfc3_f160w": (
        lambda: HST.HST("WFC3_F160W", psf_type="GAUSSIAN"),
        {
            "magnitude_zero_point": (25.9463, 25.96, "the AB zero point that they give their TDLMC_F160W"),
            "seeing": (0.151, 0.08, "theirs is the side of a pixel, half of what diffraction allows"),
            "read_noise": (7.5, 4, "12 e- a ramp on 0.128 arcsec, drizzled to 0.08"),
            "exposure_time": (1350.0, 5400.0, "four dithers, each of them read out"),
            "num_exposures": (4, 1, "likewise: the total is theirs"),
        },
    ),
    "jwst_nircam_f150w": (
        lambda: JWST.JWST("F150W"),
        {
            "magnitude_zero_point": (27.87, 28.02, "theirs is that of images in MJy/sr on pixels of 0.031 arcsec"),
            "sky_brightness": (22.42, 29.96, PIXEL_SKY),
            "exposure_time": (257.68, 257, "rounded"),
            "num_exposures": (4, 8, PAIRS),
            "psf_type": ("gaussian", "PIXEL", CODE),
        },
    ),
    "jwst_nircam_f277w": (
        lambda: JWST.JWST("F277W"),
        {
            "magnitude_zero_point": (27.86, 26.49, "theirs is that of images in MJy/sr on pixels of 0.063 arcsec"),
            "sky_brightness": (22.96, 28.96, PIXEL_SKY),
            "exposure_time": (257.68, 257, "rounded"),
            "num_exposures": (4, 8, PAIRS),
            "psf_type": ("gaussian", "PIXEL", CODE),
        },
    ),
    "roman_f129": (lambda: Roman.Roman("F129", survey_mode="wide_area"), {}),
    "rubin_lsst_i": (
        lambda: LSST.LSST("i", coadd_years=10),
        {"num_exposures": (368, 460, "184 visits of two exposures are the design, 230 the stretch goal"),
         "psf_type": AIR},
    ),
    "des_i": (lambda: DES.DES("i"), {"psf_type": AIR}),
}  # fmt: skip


def numbers(name: str) -> dict[str, Any]:
    """The numbers of a preset under lenstronomy's names."""
    tree = Instrument.named(name).model_dump()
    found = {}
    for theirs, ours in KEYS.items():
        value: Any = tree
        for part in ours.split("."):
            value = value[part]
        found[theirs] = value
    return found


def test_the_telescopes_are_the_documented_ones():
    assert set(TELESCOPES) == {*THEIRS, "hst_acs_f814w", "hst_wfc3_f390w", "hsc_i"}


@pytest.mark.parametrize("name", THEIRS)
def test_a_preset_is_lenstronomys_but_for_the_named_differences(name):
    make, differences = THEIRS[name]
    theirs, ours = dict(make().kwargs_single_band()), numbers(name)
    for key in KEYS:
        if key in differences:
            assert (ours[key], theirs[key]) == differences[key][:2], key
            assert ours[key] != theirs[key]
        elif key == "psf_type":
            assert (ours[key], theirs[key]) == ("gaussian", "GAUSSIAN")
        else:
            assert ours[key] == theirs[key], key


@pytest.mark.parametrize("name", TELESCOPES)
def test_noise_and_flux_are_lenstronomys(name):
    instrument, of = Instrument.named(name), numbers(name)
    sky = magnitude2cps(of["sky_brightness"], of["magnitude_zero_point"])
    noise = instrument.noise_of(torch.zeros(1, 1, 4, 4))
    expected = bkg_noise(of["read_noise"], of["exposure_time"], sky, of["pixel_scale"], of["num_exposures"])
    assert noise.background_rms == pytest.approx(expected, rel=1e-12)
    assert noise.exposure_time == pytest.approx(of["exposure_time"] * of["num_exposures"], rel=1e-12)
    assert instrument.flux(21.3) == pytest.approx(magnitude2cps(21.3, of["magnitude_zero_point"]), rel=1e-12)


@pytest.mark.parametrize("name", TELESCOPES)
def test_every_telescope_integrates_its_pixels_in_a_plausible_world(name):
    instrument = Instrument.named(name)
    assert instrument.supersampling == "auto" and instrument.camera(8, 8).supersampling == 4
    assert instrument.unit == "e-/s"
    assert 19 < instrument.noise.sky_brightness < 24  # no place on Earth or beside it is darker
    # a PSF of less than 0.8 pixels would mean a telescope that nobody builds
    assert 0.8 * instrument.pixel_scale < instrument.psf.fwhm < 6 * instrument.pixel_scale


@pytest.mark.parametrize("name", TELESCOPES)
def test_every_number_of_a_telescope_names_its_source(name):
    import lensphys.observation as package

    lines = (Path(package.__file__).parent / "instruments" / f"{name}.yaml").read_text().splitlines()
    for key in ("pixel_scale", "zero_point", "fwhm", "read_noise", "sky_brightness", "exposure_time", "num_exposures"):
        (at,) = (i for i, line in enumerate(lines) if f"{key}: " in line and not line.strip().startswith("#"))
        assert "#" in lines[at] or lines[at - 1].strip().startswith("#"), key


def star(instrument: Instrument, pixels: int = 41) -> Tensor:
    """A star of one unit in the middle of a pixel."""
    camera = instrument.camera(pixels, pixels)
    points = camera.supersampling
    flux = torch.zeros(1, 1, pixels * points, pixels * points)
    middle = pixels // 2 * points
    flux[..., middle : middle + points, middle : middle + points] = points**-2
    return camera.expose(flux)[0, 0]


def test_hsc_reaches_its_published_depth():
    instrument = Instrument.named("hsc_i")
    image, noise = star(instrument), instrument.noise_of(torch.zeros(1, 1, 4, 4))
    signal = instrument.flux(26.2) * image  # Aihara et al. 2019, table 2: 5 sigma, of a PSF fit
    assert float((signal**2 / noise.variance(signal)).sum().sqrt()) == pytest.approx(5, rel=0.05)


@pytest.mark.parametrize(("name", "depth"), [("jwst_nircam_f150w", 27.35), ("jwst_nircam_f277w", 27.99)])
def test_cosmos_web_reaches_its_published_depth(name, depth):
    """Casey et al. 2023, table 2: 5 sigma in an aperture of 0.15" radius, four exposures."""
    instrument = Instrument.named(name)
    scale, image = instrument.pixel_scale, star(instrument)
    x = (torch.arange(41) - 20) * scale
    inside = (x[:, None] ** 2 + x**2).sqrt() < 0.15
    rms = instrument.noise_of(torch.zeros(1, 1, 4, 4)).background_rms * math.sqrt(math.pi * 0.15**2 / scale**2)
    faintest = 5 * rms / float(image[inside].sum())
    # a Gaussian has no wings; the sky of the field and how the ramps are fitted are not known better
    assert instrument.zero_point - 2.5 * math.log10(faintest) == pytest.approx(depth, abs=0.35)


@pytest.mark.parametrize(
    ("name", "throughput", "width", "pivot"),
    [("jwst_nircam_f150w", 0.476, 0.318, 1.501), ("jwst_nircam_f277w", 0.412, 0.672, 2.776)],
)
def test_the_derived_zero_points_of_nircam(name, throughput, width, pivot):
    photons = 3631e-26 / 6.62607e-34 * 25.4 * throughput * width / pivot  # of magnitude 0, a second
    assert Instrument.named(name).zero_point == pytest.approx(2.5 * math.log10(photons), abs=0.005)


@pytest.mark.parametrize(("name", "theirs"), [("jwst_nircam_f150w", "F150W"), ("jwst_nircam_f277w", "F277W")])
def test_what_lenstronomys_nircam_numbers_are(name, theirs):
    """The evidence for two of the named differences: a zero point of MJy/sr, and a sky in magnitudes per pixel."""
    preset, scale = JWST.JWST(theirs).kwargs_single_band(), Instrument.named(name).pixel_scale
    jansky = 1e6 * (scale * math.pi / 180 / 3600) ** 2  # of a pixel of 1 MJy/sr
    assert preset["magnitude_zero_point"] == pytest.approx(-2.5 * math.log10(jansky / 3631), abs=0.02)
    sky = preset["sky_brightness"] + 2.5 * math.log10(scale**2)
    assert numbers(name)["sky_brightness"] == pytest.approx(sky, abs=0.005)


# ---------------------------------------------------------------- round trips


@pytest.mark.parametrize("name", instrument_names())
def test_a_preset_survives_json_and_yaml(name, tmp_path):
    instrument = Instrument.named(name)
    assert Instrument.parse(json.loads(instrument.model_dump_json()), "file") == instrument
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(instrument.model_dump(mode="json")))
    assert Instrument.named(str(path)) == instrument


BASE: dict[str, Any] = {
    "version": 1,
    "description": "mine",
    "pixel_scale": 0.2,
    "unit": "e-/s",
    "zero_point": 27.0,
    "psf": {"kind": "gaussian", "fwhm": 0.7},
    "noise": {
        "kind": "exposure", "read_noise": 8.0, "sky_brightness": 20.5, "exposure_time": 100.0, "num_exposures": 5,
    },
}  # fmt: skip


def written(folder: Path, **changes: Any) -> str:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(BASE | changes))
    return str(path)


def made(folder: Path, **changes: Any) -> Instrument:
    return Instrument.named(written(folder, **changes))


# ---------------------------------------------------------------- gain


def test_the_noise_in_adu_is_lenstronomys(tmp_path):
    gain = 2.3
    # our zero point is the magnitude of 1 ADU/s, theirs of 1 e-/s
    mine = made(tmp_path, unit="ADU/s", gain=gain, zero_point=27.0 - 2.5 * math.log10(gain))
    theirs = SingleBand(pixel_scale=0.2, exposure_time=100.0, magnitude_zero_point=27.0, read_noise=8.0, ccd_gain=gain,
                        sky_brightness=20.5, seeing=0.7, num_exposures=5, data_count_unit="ADU")  # fmt: skip
    image = torch.rand(1, 1, 4, 5) * 30
    noise = mine.noise_of(image)
    assert noise.background_rms == pytest.approx(theirs.background_noise, rel=1e-12)
    np.testing.assert_allclose(noise.variance(image).sqrt().numpy(), theirs.estimate_noise(image.numpy()), rtol=1e-12)
    assert mine.flux(22.0) == pytest.approx(theirs.magnitude2cps(22.0), rel=1e-12)


def test_adu_are_electrons_divided_by_the_gain(tmp_path):
    gain, image = 2.3, torch.rand(2, 1, 4, 5) * 30
    electrons = made(tmp_path)
    adu = made(tmp_path, unit="ADU/s", gain=gain, zero_point=27.0 - 2.5 * math.log10(gain))
    assert adu.flux(22.0) == pytest.approx(electrons.flux(22.0) / gain)
    torch.testing.assert_close(adu.noise_of(image).variance(image),
                               electrons.noise_of(image).variance(image * gain) / gain**2)  # fmt: skip
    # what was drawn for each image is in the instrument's unit and in seconds
    time, rms = torch.tensor([300.0, 900.0]), torch.tensor([0.1, 0.2])
    known = adu.noise_of(image, Conditions(exposure_time=time, background_rms=rms))
    expected = electrons.noise_of(image, Conditions(exposure_time=time, background_rms=rms * gain))
    torch.testing.assert_close(known.variance(image), expected.variance(image * gain) / gain**2)
    # counts of a bright star are Poisson in electrons, not in ADU
    many = torch.full((1, 1, 100, 100), 500.0)
    noisy = adu.noise_of(many).sample(many, torch.Generator().manual_seed(3))
    assert float(noisy.var()) == pytest.approx(
        float(500 / (gain * 500) + adu.noise_of(many).background_rms ** 2), rel=0.05
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unit": "ADU/s"}, "'gain': the unit ADU/s needs a gain in e-/ADU, got None"),
        ({"gain": 2.0}, "'gain': a gain means nothing for the unit e-/s: leave it out, or use ADU/s, got 2.0"),
        ({"unit": "counts", "gain": 2.0}, "'gain': a gain means nothing for the unit counts"),
        ({"unit": "ADU/s", "gain": 0.0}, "'gain': .*greater than 0, got 0.0"),
        ({"unit": "ADU/s", "gain": float("inf")}, "'gain': .*finite number, got inf"),
        ({"pixel_scale": 0.0}, "'pixel_scale': .*greater than or equal to 0.0001, got 0.0"),
        ({"pixel_scale": 3600.0}, "'pixel_scale': .*less than or equal to 60, got 3600.0"),
        ({"pixel_scale": float("nan")}, "'pixel_scale': "),
        ({"zero_point": float("nan")}, "'zero_point': .*finite number, got nan"),
        ({"supersampling": 0}, "'supersampling': .*greater than 0, got 0"),
        ({"noise": BASE["noise"] | {"read_noise": -1.0}}, "'noise.read_noise': .*equal to 0, got -1.0"),
        ({"noise": BASE["noise"] | {"exposure_time": -5.0}}, "'noise.exposure_time': .*than 0, got -5.0"),
        ({"noise": BASE["noise"] | {"num_exposures": -4}}, "'noise.num_exposures': .*than 0, got -4"),
        ({"noise": BASE["noise"] | {"num_exposures": 0}}, "'noise.num_exposures': .*than 0, got 0"),
        ({"psf": {"kind": "moffat", "fwhm": 0.7}}, "missing key 'psf.beta'"),
        ({"psf": {"kind": "moffat", "fwhm": 0.7, "beta": 1.5}}, "'psf.beta': .*equal to 2, got 1.5"),
        ({"psf": {"kind": "gaussian", "fwhm": 0.0}}, "'psf.fwhm': .*greater than 0, got 0.0"),
        ({"psf": {"kind": "airy", "fwhm": 0.7}}, "'psf': .*airy"),
    ],
)
def test_faulty_numbers_are_refused_by_name(tmp_path, changes, message):
    with pytest.raises(LensphysError, match=message) as caught:
        made(tmp_path, **changes)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- the width of a sample


def test_a_width_keeps_the_kind_of_psf(tmp_path):
    width = Conditions(psf_fwhm=torch.tensor([0.6, 0.9]))
    moffat = made(tmp_path, psf={"kind": "moffat", "fwhm": 0.7, "beta": 2.5})
    assert moffat.psf_of() == MoffatPSF(0.7, 2.5)
    found = moffat.psf_of(width)
    assert isinstance(found, MoffatPSF) and found.beta == 2.5 and found.fwhm is width.psf_fwhm
    for psf, own in (({"kind": "none"}, NoPSF()), ({"kind": "gaussian", "fwhm": 0.7}, GaussianPSF(0.7))):
        instrument = made(tmp_path, psf=psf)
        assert instrument.psf_of() == own
        assert isinstance(instrument.psf_of(width), GaussianPSF)


# ---------------------------------------------------------------- kernels


def kernel(size: int = 15, total: float = 1.0) -> np.ndarray:
    x = np.arange(size) - size // 2
    k = np.exp(-0.5 * (x[:, None] ** 2 + x**2) / 2.0**2) * (1 + 0.3 * np.tanh(x[:, None] - 0.5 * x))
    return total * k / k.sum()


def with_kernel(folder: Path, **psf: Any) -> Instrument:
    return made(folder, psf={"kind": "kernel", **psf})


@pytest.mark.parametrize("total", [1.0, 0.92, 1.08])
def test_a_kernel_becomes_part_of_the_instrument(tmp_path, total):
    np.save(tmp_path / "psf.npy", kernel(total=total))
    instrument = with_kernel(tmp_path, file="psf.npy", pixel_scale=0.1)
    (tmp_path / "psf.npy").unlink()
    again = Instrument.parse(json.loads(instrument.model_dump_json()), "file")
    assert again == instrument
    for found in (instrument.psf_of(), again.psf_of()):
        assert isinstance(found, PixelPSF)
        assert found.scale == 0.1
        np.testing.assert_allclose(found.kernel.numpy(), kernel(), rtol=1e-6)
        assert float(found.kernel.sum()) == pytest.approx(1, abs=1e-12)
    # a copy of it on disk needs no other file
    path = tmp_path / "other" / "copy.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(instrument.model_dump(mode="json")))
    assert Instrument.named(str(path)) == instrument
    assert len(repr(instrument)) < 1000
    assert float(star(instrument).sum()) == pytest.approx(1, rel=1e-3)


def test_the_pixel_scale_comes_from_the_header_unless_it_is_given(tmp_path):
    header = fits.Header({"PIXSCALE": 0.05})
    fits.PrimaryHDU(kernel(), header).writeto(tmp_path / "primary.fits")
    wcs = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CD1_1": -0.04 / 3600, "CD2_2": 0.04 / 3600,
                       "CD1_2": 0.0, "CD2_1": 0.0})  # fmt: skip
    image, psf = fits.ImageHDU(np.ones((5, 5)), name="SCI"), fits.ImageHDU(kernel(), wcs, name="PSF")
    fits.HDUList([fits.PrimaryHDU(), image, psf]).writeto(tmp_path / "many.fits")
    whole = fits.PrimaryHDU(header=header)
    fits.HDUList([whole, fits.ImageHDU(kernel(), name="PSF")]).writeto(tmp_path / "whole.fits")
    for file, scale in (("primary.fits", 0.05), ("many.fits", 0.04), ("whole.fits", 0.05)):
        found = with_kernel(tmp_path, file=file)
        assert found.psf.pixel_scale == pytest.approx(scale)
        assert found.psf.side == 15
        assert with_kernel(tmp_path, file=str(tmp_path / file), pixel_scale=0.03).psf.pixel_scale == 0.03


def test_a_kernel_has_no_width_to_vary(tmp_path):
    np.save(tmp_path / "psf.npy", kernel())
    instrument = with_kernel(tmp_path, file="psf.npy", pixel_scale=0.1)
    with pytest.raises(LensphysError, match="psf_fwhm cannot vary an instrument whose PSF is a kernel"):
        instrument.psf_of(Conditions(psf_fwhm=torch.tensor([0.6])))


def test_a_damaged_kernel_is_noticed(tmp_path):
    np.save(tmp_path / "psf.npy", kernel())
    tree = with_kernel(tmp_path, file="psf.npy", pixel_scale=0.1).model_dump()
    for damage in ({"side": 13}, {"pixels": "not base64"}, {"pixels": tree["psf"]["pixels"][:-8]}):
        broken = Instrument.parse(tree | {"psf": tree["psf"] | damage}, "file")
        with pytest.raises(LensphysError, match="the PSF kernel of the instrument is damaged: read it from its file"):
            broken.psf_of()


def test_a_kernel_longer_than_it_says_is_not_unpacked(tmp_path):
    np.save(tmp_path / "psf.npy", kernel())
    tree = with_kernel(tmp_path, file="psf.npy", pixel_scale=0.1).model_dump()
    packer = zlib.compressobj(9)
    block = bytes(2**20)
    bomb = b"".join([*(packer.compress(block) for _ in range(256)), packer.flush()])  # 256 MiB in 260 kB
    broken = Instrument.parse(tree | {"psf": tree["psf"] | {"pixels": base64.b64encode(bomb).decode()}}, "file")
    tracemalloc.start()
    with pytest.raises(LensphysError, match="the PSF kernel of the instrument is damaged: read it from its file"):
        broken.psf_of()
    assert tracemalloc.get_traced_memory()[1] < 2e6
    tracemalloc.stop()
    with pytest.raises(LensphysError, match="side"):
        Instrument.parse(tree | {"psf": tree["psf"] | {"side": 10**10}}, "file")


@pytest.mark.parametrize(
    ("array", "psf", "message"),
    [
        (np.zeros((1, 4097)), {}, r"shape \(1, 4097\), a PSF kernel at most 4095 pixels a side: cut it"),
        (None, {}, r"PSF kernel not found: .*psf\.npy is not a file"),
        (kernel(), {"pixel_scale": None}, r"psf\.npy has no pixel scale: give psf\.pixel_scale \[arcsec\] beside"),
        (kernel(), {"pixel_scale": 0.0}, r"pixel scale of .*psf\.npy must be positive and finite, got 0\.0"),
        (kernel(), {"pixel_scale": "0.1 arcsec"}, r"'psf\.pixel_scale' must be a number \[arcsec\], got '0\.1 arcsec'"),
        (kernel(), {"file": 3}, r"'psf\.file' must be the path of a FITS or \.npy file, got 3"),
        (kernel(), {"fwhm": 0.7}, r"mine\.yaml: beside psf\.file only pixel_scale may be given, got fwhm"),
        (kernel()[None], {}, r"psf\.npy: a PSF kernel must be square \(K, K\), got \(1, 15, 15\)"),
        (kernel()[1:], {}, r"psf\.npy: a PSF kernel must be square \(K, K\), got \(14, 15\)"),
        (np.full((5, 5), np.nan), {}, r"psf\.npy holds NaN or infinite values"),
        (kernel(total=0.8), {}, r"psf\.npy sums to 0\.8, a PSF kernel must sum to 1 within 10 %: divide it by its sum"),
        (kernel(total=1e4), {}, r"psf\.npy sums to 1e\+04, a PSF kernel must"),
        (np.array(["a"]), {}, r"psf\.npy is not a plain \.npy file of numbers"),
    ],
)
def test_faulty_kernel_files(tmp_path, array, psf, message):
    if array is not None:
        np.save(tmp_path / "psf.npy", array)
    with pytest.raises(LensphysError, match=message) as caught:
        with_kernel(tmp_path, **({"file": "psf.npy", "pixel_scale": 0.1} | psf))
    assert "\n" not in str(caught.value)


def test_faulty_fits_kernels(tmp_path):
    (tmp_path / "psf.fits").write_text("not a FITS file")
    with pytest.raises(LensphysError, match=r"psf\.fits is not a FITS file: it does not begin with SIMPLE"):
        with_kernel(tmp_path, file="psf.fits")
    fits.PrimaryHDU().writeto(tmp_path / "empty.fits")
    with pytest.raises(LensphysError, match=r"empty\.fits holds no image of a PSF: it holds nothing"):
        with_kernel(tmp_path, file="empty.fits")
    with pytest.raises(LensphysError, match=r"unknown key 'psf\.file'"):
        Instrument.parse(BASE | {"psf": {"kind": "kernel", "file": "psf.fits"}}, "a tree without a folder")
