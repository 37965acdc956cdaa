"""The user's images: what is read, what is assumed and said, what is refused, and what is written."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.wcs import WCS

from lensphys.basics.checks import LensphysError
from lensphys.data.contents import InMemory, images_in
from lensphys.data.images import Reading, read_images, with_target_psf
from lensphys.data.lens_file import LensFile
from lensphys.data.noise_maps import sky_deviation
from lensphys.data.results import check_output, write_images
from lensphys.fits.image import Choice
from lensphys.observation import ErrorMap, ExposureNoise, GaussianPSF, Instrument, PixelPSF, SkyNoise, UnknownPSF
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.writer import simulate
from lensphys.tracing.grid import PixelGrid
from lensphys.training.batches import Batches, BatchSettings

H, W = 12, 16
STACK = f"a.npy is a stack: {{}} images of {H} x {W} pixels, each by itself"
SCALE = 'a.npy says no pixel scale: 0.101" of the instrument (Euclid VIS, legacy Model 2)'
EUCLID = Instrument.named("model_2")
SLACS = Path(__file__).parents[2] / "shared" / "real" / "hst_slacs"


def stack(n: int = 2, height: int = H, width: int = W) -> np.ndarray:
    """Sky of rms 0.1 about 0, and a bright spot."""
    images = np.random.default_rng(0).normal(0, 0.1, (n, height, width)).astype(np.float32)
    images[:, 5:8, 5:8] += 3
    return images


def saved(path: Path, array) -> Path:
    np.save(path, array)
    return path


def cut_out(path: Path, **planes) -> Path:
    hdus = [fits.PrimaryHDU()]
    for name, data in planes.items():
        hdus.append(fits.ImageHDU(data, fits.Header({"PIXSCALE": 0.05}) if name in ("SCI", "ARC") else None, name=name))
    fits.HDUList(hdus).writeto(path)
    return path


FLAT = "it is cut off where it still has 100 % of its peak: is it a star?"  # what is told of `kernel`


def kernel(size: int = 5, total: float = 1.0) -> np.ndarray:
    return np.full((size, size), total / size**2, np.float32)


@pytest.fixture(scope="module")
def lenses(tmp_path_factory) -> Path:
    recipe = Recipe.named("model_2", ["height=12", "width=16"])
    return simulate(recipe, 1, tmp_path_factory.mktemp("lenses") / "a.h5")


@pytest.fixture
def npy(tmp_path) -> Path:
    return saved(tmp_path / "a.npy", stack())


def test_a_stack_and_an_instrument(npy):
    images = read_images(npy, Reading(instrument=EUCLID))
    seen = images.observation
    assert torch.equal(seen.image[:, 0], torch.from_numpy(stack()))  # no flip: rows are y, columns are x
    assert seen.camera.grid == PixelGrid(H, W, 0.101) and seen.camera.supersampling == 1 and seen.mask is None
    assert seen.camera.psf == GaussianPSF(0.16) and isinstance(seen.noise, ExposureNoise)
    question = "the instrument's noise is over 5 times smaller than the scatter of the sky: is the image in the"
    assert images.header is None and images.remarks[:2] == [STACK.format(2), SCALE]
    preset = [f"{what}: that of the instrument ({EUCLID.description})" for what in ("PSF", "noise")]
    assert images.remarks[2:4] == preset
    assert [remark.startswith(question) for remark in images.remarks[4:]] == [True]
    faint = stack() * np.float32(0.1)
    assert read_images(saved(npy, faint), Reading(instrument=EUCLID)).remarks == [STACK.format(2), SCALE, *preset]
    assert read_images(saved(npy, faint[0]), Reading(instrument=EUCLID, pixel_scale=0.101)).remarks == preset


@pytest.mark.parametrize(
    ("name", "cards", "asked"),
    [
        ("euclid_vis", {"TELESCOP": "JWST", "FILTER": "F150W"}, True),
        ("jwst_nircam_f150w", {"TELESCOP": "JWST", "FILTER": "F150W"}, False),
        ("jwst_nircam_f277w", {"TELESCOP": "JWST", "FILTER": "F150W"}, True),
        ("euclid_vis", {"TELESCOP": "EUCLID", "FILTER": "VIS"}, False),
        ("hsc_i", {"TELESCOP": "Subaru", "FILTER": "HSC-I"}, False),
        ("model_1", {"TELESCOP": "HST"}, False),
        ("hst_acs_f814w", {}, False),
    ],
)
@pytest.mark.parametrize("way", ["instrument", "fallback"])
def test_an_instrument_that_the_header_contradicts_is_questioned(tmp_path, name, cards, asked, way):
    instrument = Instrument.named(name)
    head = {"BUNIT": "counts/s" if instrument.unit == "counts" else "electron/s", "EXPTIME": 1.0, "PIXSCALE": 0.1}
    fits.writeto(tmp_path / "a.fits", stack()[0], fits.Header({**head, **cards}))
    remarks = read_images(tmp_path / "a.fits", Reading(**{way: instrument})).remarks
    assert sum("by its header, the instrument is" in remark for remark in remarks) == asked
    whose = "the instrument" if way == "instrument" else "the instrument of the training"
    assert f"PSF: that of {whose} ({instrument.description})" in remarks
    assert f"noise: that of {whose} ({instrument.description})" in remarks


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<i4", "u2"])
def test_any_type_of_number(tmp_path, dtype):
    array = (100 + 10 * stack()).astype(dtype)
    image = read_images(saved(tmp_path / "a.npy", array), Reading(instrument=EUCLID)).observation.image
    assert image.dtype == torch.float32 and np.array_equal(image[:, 0], array.astype(np.float32))


def test_a_stack_in_memory_and_a_cube_of_fits_are_told_too(tmp_path):
    told = f" is a stack: 3 images of {H} x {W} pixels, each by itself"
    assert read_images(InMemory(stack(3)), Reading(pixel_scale=0.1)).remarks[0] == "the array" + told
    assert not any("stack" in remark for remark in read_images(InMemory(stack(1)[0]), Reading(pixel_scale=0.1)).remarks)
    fits.writeto(tmp_path / "a.fits", stack(3)[:, None], fits.Header({"PIXSCALE": 0.1}))
    assert "a.fits" + told in read_images(tmp_path / "a.fits").remarks


def test_nothing_known_is_said(npy):
    images = read_images(npy, Reading(pixel_scale=0.07))
    assert images.observation.camera.psf == UnknownPSF() and images.observation.camera.grid.scale == 0.07
    assert isinstance(images.observation.noise, SkyNoise)
    assert [r.split(":")[0] for r in images.remarks[1:]] == ["no PSF is known", "no noise is known"]


def test_an_npz_is_read_as_a_fits_file_is(tmp_path):
    planes = {"SCI": stack()[0], "ERR": np.full((H, W), 0.2, np.float32), "PSF": kernel()}
    fits_file = cut_out(tmp_path / "a.fits", **planes)
    mask = np.ones((H, W), bool)
    mask[0] = False
    np.savez(tmp_path / "a.npz", **planes, good=mask, pixel_scale=0.07, psf_scale=0.035, unit="counts/s")
    one, other = (
        read_images(tmp_path / "a.npz").observation,
        read_images(fits_file, Reading(pixel_scale=0.07)).observation,
    )
    assert torch.equal(one.image, other.image) and torch.equal(one.noise.sigma, other.noise.sigma)
    assert one.camera.grid == PixelGrid(H, W, 0.07) and one.camera.psf.scale == 0.035
    assert one.mask[0, 0].tolist() == mask.tolist()
    assert read_images(tmp_path / "a.npz").header["BUNIT"] == "counts/s"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": np.array(["a", "b"])[None]}, "holds .* values: save real numbers"),
        ({"image": np.array([[None]])}, "a.npz is not a whole .npz archive of numbers"),
        ({"image": np.stack([stack()] * 2)}, r"shape \(.*\), expected one image \(H, W\)"),
        ({"err": stack()[0]}, "a.npz has no image"),
        (
            {"image": stack()[0], "pixel_scale": [0.1, 0.1]},
            r"a.npz\[pixel_scale\] has the shape \(2,\): it must be one",
        ),
    ],
)
def test_faulty_npz(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(LensphysError, match=message):
        read_images(tmp_path / "a.npz", Reading(pixel_scale=0.1))


@pytest.mark.parametrize("dtype", [">f2", "<f2", np.longdouble, ">f8"])
@pytest.mark.parametrize("key", ["psf", "kernel"])
def test_any_type_of_number_in_an_npz_and_any_name_of_a_psf(tmp_path, dtype, key):
    star = np.array([[0.0, 0.125, 0.0], [0.125, 0.5, 0.125], [0.0, 0.125, 0.0]])
    arrays = {"image": stack()[0].astype(dtype), key: star.astype(dtype), "psf_scale": 0.05, "unit": "µJy"}
    np.savez(tmp_path / "a.npz", err=0.3, pixel_scale=0.1, **arrays)
    found = read_images(tmp_path / "a.npz")
    np.testing.assert_allclose(found.observation.image[0, 0], stack()[0], rtol=2e-3, atol=1e-3)
    assert found.observation.camera.psf.scale == pytest.approx(0.05) and found.header["BUNIT"] == "uJy"


@pytest.mark.parametrize("axes", [(), (1,)], ids=["(N, H, W)", "(N, 1, H, W)"])
def test_a_stack_in_an_npz(tmp_path, axes):
    pixels = stack(3)
    sigma = np.stack([np.full((H, W), 0.1 * (1 + i), np.float32) for i in range(3)])
    planes = {"image": pixels.reshape(3, *axes, H, W), "err": sigma.reshape(3, *axes, H, W)}
    np.savez(tmp_path / "a.npz", **planes, pixel_scale=0.1)
    found = read_images(tmp_path / "a.npz")
    assert torch.equal(found.observation.image[:, 0], torch.from_numpy(pixels)) and images_in(tmp_path / "a.npz") == 3
    assert torch.equal(found.observation.noise.sigma[:, 0], torch.from_numpy(sigma))
    last = read_images(tmp_path / "a.npz", rows=np.array([2]))
    assert last.index.tolist() == [2] and torch.equal(last.observation.image[0, 0], torch.from_numpy(pixels[2]))
    plane = read_images(tmp_path / "a.npz", Reading(choice=Choice(extension="image[1]")))
    assert torch.equal(plane.observation.image[0, 0], torch.from_numpy(pixels[1]))


@pytest.mark.parametrize("key", ["exposure_time", "pixel_scale", "unit", "filter", "psf_scale", "psf_oversampling"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_what_an_npz_says_of_its_image_is_no_map(tmp_path, key, shape):
    value = "nJy" if key == "unit" else "F200W" if key == "filter" else 2.0
    given = {"image": stack()[0], "err": np.full((H, W), 0.2), "pixel_scale": 0.1, key: np.full(shape, value)}
    np.savez(tmp_path / "a.npz", **given)
    found = read_images(tmp_path / "a.npz")
    assert found.remarks[0] == "a.npz: image IMAGE, noise ERR"
    if key == "exposure_time":
        assert found.header["EXPTIME"] == 2.0


def test_an_image_without_light_is_named_with_its_extension(tmp_path):
    ones = fits.ImageHDU(np.ones((H, W), np.float32), fits.Header({"PIXSCALE": 0.1}), name="WEIRD")
    fits.HDUList([fits.PrimaryHDU(), ones, fits.ImageHDU(stack()[0], name="X")]).writeto(tmp_path / "a.fits")
    with pytest.raises(LensphysError, match=r"a.fits\[WEIRD\] \(--ext takes another array\) is 1 everywhere"):
        read_images(tmp_path / "a.fits")


def test_zeros_that_were_observed_beside_nan_count(tmp_path):
    """A sky in steps has zeros of its own, which are no part of a patch of pixels that are no number."""
    image = np.round(np.random.default_rng(0).normal(0, 1, (24, 28)), 2).astype("f4")
    image[10:14, 9:19] += 30
    image[:4] = np.nan
    image[4, ::3] = image[9, 5] = 0
    fits.writeto(tmp_path / "a.fits", image, fits.Header({"PIXSCALE": 0.1}))
    seen = read_images(tmp_path / "a.fits", Reading(bad_pixels="keep")).observation
    assert np.array_equal(seen.mask[0, 0].numpy(), np.isfinite(image))


def test_a_cut_npz(tmp_path):
    np.savez(tmp_path / "a.npz", image=stack()[0])
    for size in (0, 50, 300):
        (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:size])
        with pytest.raises(LensphysError, match="b.npz is not a whole .npz archive"):
            read_images(tmp_path / "b.npz", Reading(pixel_scale=0.1))


def test_some_rows_of_a_stack_are_read_as_among_all(tmp_path):
    images, error = stack(4), np.stack([np.full((H, W), 0.1 * k, np.float32) for k in (1, 2, 3, 4)])
    images[1] = 0
    path, error = saved(tmp_path / "a.npy", images), saved(tmp_path / "e.npy", error)
    whole = read_images(path, Reading(pixel_scale=0.1, error=error))
    some = read_images(path, Reading(pixel_scale=0.1, error=error), rows=np.arange(1, 3))
    assert whole.index.tolist() == [0, 2, 3] and some.index.tolist() == [2]
    assert torch.equal(some.observation.image, whole.at(np.array([1])).observation.image)
    assert torch.equal(some.observation.noise.sigma, torch.full((1, 1, H, W), 0.3))
    assert all(f"image 1 of {path} is zero" in "".join(images.remarks) for images in (whole, some))


def test_what_is_given_goes_first(tmp_path, npy):
    psf, error = saved(tmp_path / "psf.npy", kernel()), saved(tmp_path / "error.npy", np.full((H, W), 0.2))
    images = read_images(npy, Reading(instrument=EUCLID, psf=psf, error=error, pixel_scale=0.05))
    camera = images.observation.camera
    assert camera.grid.scale == 0.05 and isinstance(camera.psf, PixelPSF) and camera.psf.scale == 0.05
    assert camera.supersampling == 2
    assert images.observation.noise.variance(images.observation.image).sqrt() == pytest.approx(0.2)
    assert images.remarks == [
        STACK.format(2),
        'the pixels have 0.05", not the 0.101" of the instrument',
        f'PSF: psf.npy, FWHM 0.23", 5 x 5 pixels of 0.05": {FLAT}',
        "noise: error.npy, standard deviations",
    ]


def test_the_sky_of_an_instrument_follows_the_pixel(npy):
    noise = [
        read_images(npy, Reading(instrument=EUCLID, pixel_scale=s)).observation.noise.background_rms
        for s in (0.101, 0.202)
    ]
    read_out = 4 * 4.2**2 / 2264**2
    assert (noise[1] ** 2 - read_out) / (noise[0] ** 2 - read_out) == pytest.approx(4, rel=1e-3)


def test_a_fits_file_goes_before_the_instrument(tmp_path):
    error = np.full((H, W), 0.3, np.float32)
    path = cut_out(tmp_path / "a.fits", SCI=stack()[0], ERR=error, PSF=kernel(31))  # a PSF larger than the image
    images = read_images(path, Reading(instrument=EUCLID))
    assert images.observation.camera.grid == PixelGrid(H, W, 0.05) and images.observation.camera.supersampling == 2
    assert images.observation.camera.psf.kernel.shape == (31, 31) and images.observation.camera.psf.scale == 0.05
    assert torch.equal(images.observation.noise.sigma[0, 0], torch.from_numpy(error))
    assert images.header["PIXSCALE"] == 0.05
    given = fits.PrimaryHDU(kernel(7), fits.Header({"PIXSCALE": 0.025}))
    given.writeto(tmp_path / "psf.fits")
    images = read_images(
        path, Reading(psf=tmp_path / "psf.fits", error=saved(tmp_path / "e.npy", 2 * error), pixel_scale=0.06)
    )
    assert images.observation.camera.psf.kernel.shape == (7, 7) and images.observation.camera.psf.scale == 0.025
    assert images.observation.camera.grid.scale == 0.06
    assert torch.equal(images.observation.noise.sigma[0, 0], torch.from_numpy(2 * error))


def test_the_mask_says_which_pixels_count(tmp_path):
    mask, error = np.ones((H, W), np.uint8), np.full((H, W), 0.1, np.float32)
    mask[:, :4] = 0
    error[0, 10], error[1, 10], error[2, 10], error[3, 10] = 0, -1, np.nan, np.inf
    image = stack()[0]
    image[4, 10] = np.nan
    images = read_images(cut_out(tmp_path / "a.fits", ARC=image, ERR=error, MASK=mask))
    expected = mask.astype(bool)
    expected[:5, 10] = False
    assert np.array_equal(images.observation.mask[0, 0], expected)
    assert torch.isfinite(images.observation.image).all() and images.observation.image[0, 0, 4, 10] == 0
    assert (images.observation.noise.sigma == 0.1).all()  # the median stands in
    assert images.remarks == [
        "a.fits: image ARC, noise ERR, mask MASK",
        "MASK: 144 of 192 pixels count, those where it is not zero (100 % of the middle, where the lens is)",
        "1 NaN or infinite pixel is masked",
        "no PSF is known: the image is taken as it is, without blur (give --psf or --instrument)",
        "noise: a.fits[ERR], standard deviations",
        "a.fits[ERR]: 4 values that are not positive and finite are masked",
    ]


def test_surface_brightness_is_said(tmp_path):
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(stack()[0], fits.Header({"PIXSCALE": 0.03, "BUNIT": "MJy/sr"})).writeto(path)
    assert any("a surface brightness (MJy/sr)" in remark for remark in read_images(path).remarks)


def test_bad_pixels_of_a_stack_are_masked_in_their_image(tmp_path):
    array = stack(3)
    array[1, 0, :3] = [np.nan, np.inf, -np.inf]
    images = read_images(saved(tmp_path / "a.npy", array), Reading(instrument=EUCLID))
    assert (~images.observation.mask).flatten(1).sum(1).tolist() == [0, 3, 0]
    assert torch.isfinite(images.observation.image).all()
    assert images.remarks[:2] == [STACK.format(3), SCALE]
    assert images.remarks[2] == "3 NaN or infinite pixels are masked, images that have some: 1"
    array[2, 4, 3:6] = [1.6e38, -1e30, 1e20]  # what stands for a lack of a number
    images = read_images(saved(tmp_path / "a.npy", array), Reading(instrument=EUCLID))
    assert (~images.observation.mask).flatten(1).sum(1).tolist() == [0, 3, 3]
    assert images.remarks[3] == "3 pixels beyond 1e+15 are masked, images that have some: 1"


def test_bad_pixels_do_not_pass_for_a_lack_of_noise(tmp_path):
    array = stack(1, 64, 64)
    whole = SkyNoise.from_image(torch.from_numpy(array)[None]).sigma.mean()
    array[:, :, :28] = np.nan  # 44 %
    sigma = read_images(saved(tmp_path / "a.npy", array), Reading(pixel_scale=0.05)).observation.noise.sigma.mean()
    assert sigma == pytest.approx(float(whole), rel=0.1) and whole == pytest.approx(0.1, rel=0.1)


def test_error_maps_of_a_stack(tmp_path, npy):
    for shape in [(H, W), (1, H, W), (2, H, W)]:
        error = np.random.default_rng(1).uniform(0.1, 0.2, shape).astype(np.float32)
        noise = read_images(npy, Reading(instrument=EUCLID, error=saved(tmp_path / "e.npy", error))).observation.noise
        assert np.array_equal(noise.sigma[-1, 0], error.reshape(-1, H, W)[-1])


def test_our_own_files(lenses, tmp_path):
    with LensFile(lenses) as file:
        seen = read_images(lenses).observation
        assert torch.equal(seen.image, file.lr()) and seen.camera == file.instrument.camera(12, 16)
    assert isinstance(seen.noise, ExposureNoise)
    psf = saved(tmp_path / "psf.npy", kernel())
    seen = read_images(lenses, Reading(psf=psf, instrument=Instrument.named("model_3"))).observation
    assert isinstance(seen.camera.psf, PixelPSF) and seen.camera.supersampling == 1 and seen.camera.grid.scale == 0.101
    assert seen.noise.exposure_time == 5400


BAD_ARRAYS = {
    "one line": (stack()[0, 0], r"must be a stack of images \(N, H, W\), got \(16,\): reshape it"),
    "channels": (
        np.ones((2, 3, H, W)),
        r"must be a stack of images \(N, H, W\), got \(2, 3, 12, 16\): save stack\[:, 0\]",
    ),
    "a row": (np.ones(9), r"must be a stack of images \(N, H, W\), got \(9,\): reshape it"),
    "colours": (np.ones((32, 32, 3)), r"images \(N, H, W\) must have 8 x 8 pixels or more, got \(32, 32, 3\)"),
    "empty": (np.ones((0, 32, 32)), r"must have 8 x 8 pixels or more, got \(0, 32, 32\)"),
    "objects": (np.array([[["a", None]]], dtype=object), "holds Python objects: save an array of numbers"),
    "texts": (np.full((2, H, W), "1.0"), "holds <U3 values: save real numbers, as float32"),
    "complex": (np.ones((2, H, W), complex), "holds complex128 values: save real numbers"),
    "booleans": (np.ones((2, H, W), bool), "holds bool values: save real numbers"),
    "zero": (stack(1) * 0, "a.npy is zero everywhere: there is nothing to super-resolve"),
    "all zero": (stack() * 0, "a.npy holds no image that can be used: the first one is zero everywhere"),
    "negative": (-np.abs(stack(1)) - 1, "a.npy has no positive pixel: there is nothing to super-resolve"),
    "constant": (np.ones((1, H, W)), "a.npy is 1 everywhere: there is nothing to super-resolve"),
    "bad": (np.where(np.arange(H * W).reshape(H, W) < 97, np.nan, stack(1)), "has 97 NaN or infinite pixels of 192"),
    "too faint": (stack() * 1e-19, r"values up to 3.*e-19, and their squares .* float32: divide it .* by 1e-19"),
    "too bright": (stack() * 1e20, "up to 3.*e[+]20, and their squares .* write 1e20 before its unit"),
    "overflowing": (np.full((1, H, W), 1e300), "192 NaN or infinite pixels of 192, more than half"),
}


@pytest.mark.parametrize(("array", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_arrays(tmp_path, array, message):
    with pytest.raises(LensphysError, match=message):
        read_images(saved(tmp_path / "a.npy", array), Reading(pixel_scale=0.05))


def test_images_that_show_nothing_are_left_out_by_their_number(tmp_path):
    array = np.concatenate([stack(), stack(3)])
    array[1], array[3], array[4, :6] = 0, np.nan, -5
    error = np.full(array.shape, 0.1) * np.arange(1, 6)[:, None, None]
    images = read_images(
        saved(tmp_path / "a.npy", array), Reading(pixel_scale=0.05, error=saved(tmp_path / "error.npy", error))
    )
    assert images.index.tolist() == [0, 2, 4]
    told = [remark for remark in images.remarks if "left out" in remark]
    assert len(told) == 2
    assert "image 1 of" in told[0] and "is zero everywhere" in told[0]
    assert "image 3 of" in told[1] and "192 NaN or infinite pixels of 192" in told[1]
    torch.testing.assert_close(images.observation.image[:, 0], torch.from_numpy(array[[0, 2, 4]]).float())
    assert images.observation.noise.sigma.mean((1, 2, 3)).tolist() == pytest.approx([0.1, 0.3, 0.5])
    assert images.at(np.array([1, 2])).index.tolist() == [2, 4]


def test_an_empty_border_does_not_count(tmp_path):
    array = stack()
    array[0, :3], array[1, :, -2:] = 0, 7.5
    images = read_images(saved(tmp_path / "a.npy", array), Reading(pixel_scale=0.05))
    weight = images.observation.weight[:, 0]
    assert weight[0, :3].sum() == 0 and weight[0, 3:].all()
    assert weight[1, :, -2:].sum() == 0 and weight[1, :, :-2].all()
    assert f"a border of one value, {3 * W + 2 * H} pixels, is masked, images that have one: 2" in images.remarks


def test_patches_of_one_value_do_not_count(tmp_path):
    array = stack()
    array[1, 8:11, 7:10] = -99
    images = read_images(saved(tmp_path / "a.npy", array), Reading(pixel_scale=0.05))
    weight = images.observation.weight[:, 0]
    assert weight[0].all() and weight[1, 8:11, 7:10].sum() == 0 and weight[1].sum() == H * W - 9
    assert "patches of one value, 9 pixels, are masked, images that have some: 1" in images.remarks


@pytest.mark.parametrize("factor", [1e-5, 1e5])
def test_a_noise_map_in_another_unit_is_questioned(tmp_path, npy, factor):
    sigma = saved(tmp_path / "rms.npy", np.full((H, W), factor * float(stack().std()), np.float32))
    told = read_images(npy, Reading(instrument=EUCLID, error=sigma)).remarks[-1]
    assert told.startswith("noise: rms.npy, standard deviations, over 5 times ") and "in the unit of the image?" in told


def test_one_number_for_the_noise_of_an_npz(tmp_path):
    np.savez(tmp_path / "a.npz", image=stack()[0], sigma=0.3, pixel_scale=0.1)
    assert (read_images(tmp_path / "a.npz").observation.noise.sigma == 0.3).all()


def test_pixels_of_a_kernel_that_cannot_be_those_of_the_image(tmp_path, npy):
    path = tmp_path / "psf.fits"
    for scale in (100.0, 1e-4):
        fits.writeto(path, kernel(), fits.Header({"PIXSCALE": scale}), overwrite=True)
        with pytest.raises(
            LensphysError, match=f'psf.fits.* has pixels of {scale:.4g}", and the image pixels of 0.05": '
        ):
            read_images(npy, Reading(pixel_scale=0.05, psf=path))


def test_bad_npy_files(tmp_path, npy):
    cut = tmp_path / "cut.npy"
    for content in (npy.read_bytes()[:-10], npy.read_bytes()[:20], b"", b"hello"):
        cut.write_bytes(content)
        with pytest.raises(LensphysError, match=r"input .*cut.npy is not a whole .npy file: save it anew"):
            read_images(cut, Reading(pixel_scale=0.05))
    with open(cut, "wb") as file:
        np.savez(file, a=stack())
    with pytest.raises(LensphysError, match=r"is an .npz archive: save one array"):
        read_images(cut, Reading(pixel_scale=0.05))


@pytest.mark.parametrize("name", ["a.npy", "a.fits", "a.h5"])
def test_missing_files(tmp_path, npy, name):
    (tmp_path / "a.npy").rename(tmp_path / "b.npy")
    with pytest.raises(LensphysError, match=f"input not found: .*{name} is not a file"):
        read_images(tmp_path / name)
    for option in ("psf", "error"):
        with pytest.raises(LensphysError, match=f"not found: .*{name} is not a file"):
            read_images(tmp_path / "b.npy", Reading(instrument=EUCLID, **{option: tmp_path / name}))
    (tmp_path / "c.h5").write_text("hello")
    with pytest.raises(LensphysError, match=r"PSF file .*c.h5 is not a FITS file: it does not begin with SIMPLE"):
        read_images(tmp_path / "b.npy", Reading(instrument=EUCLID, psf=tmp_path / "c.h5"))


def test_truncated_and_foreign_hdf5(lenses, tmp_path):
    (tmp_path / "cut.h5").write_bytes(lenses.read_bytes()[:3000])
    with pytest.raises(LensphysError, match=r"cut.h5 is not a whole HDF5 file"):
        read_images(tmp_path / "cut.h5")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["lr"] = stack()
    with pytest.raises(LensphysError, match=r"foreign.h5 was not written by lensphys"):
        read_images(tmp_path / "foreign.h5")


def test_unknown_kinds(tmp_path):
    (tmp_path / "a.dat").write_text("")
    with pytest.raises(LensphysError, match=r"unknown kind of file .*a.dat: expected a name that ends in one of .fits"):
        read_images(tmp_path / "a.dat")


def test_no_pixel_scale(tmp_path, npy):
    fits.PrimaryHDU(stack()[0]).writeto(tmp_path / "a.fits")
    for path in (npy, tmp_path / "a.fits"):
        with pytest.raises(LensphysError, match=r"has no pixel scale: give --pixel-scale in arcsec, or --instrument"):
            read_images(path)
        with pytest.raises(LensphysError, match=r"pixel scale must be positive and finite, got -1"):
            read_images(path, Reading(pixel_scale=-1.0))
    assert read_images(tmp_path / "a.fits", Reading(pixel_scale=0.04)).observation.camera.grid.scale == 0.04


def test_pixels_that_are_not_square(tmp_path):
    sky = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -1e-5, "CDELT2": 2e-5}
    fits.PrimaryHDU(stack()[0], fits.Header(sky)).writeto(tmp_path / "a.fits")
    with pytest.raises(LensphysError, match=r'a.fits has pixels of 0.036" x 0.072": resample it onto square ones'):
        read_images(tmp_path / "a.fits")


BAD_PSFS = {
    "sum": (kernel(5, 0.85), "sums to 0.85, a PSF kernel must sum to 1 within 10 %: divide it by its sum"),
    "oblong": (np.ones((3, 5)) / 15, r"must be square \(K, K\), got \(3, 5\)"),
    "nan": (np.full((3, 3), np.nan), "holds NaN or infinite values: a PSF kernel must be finite"),
}


@pytest.mark.parametrize(("psf", "message"), BAD_PSFS.values(), ids=BAD_PSFS)
def test_bad_psfs(tmp_path, npy, psf, message):
    with pytest.raises(LensphysError, match=message):
        read_images(npy, Reading(instrument=EUCLID, psf=saved(tmp_path / "psf.npy", psf)))
    with pytest.raises(LensphysError, match=message):
        read_images(cut_out(tmp_path / "a.fits", SCI=stack()[0], PSF=psf.astype(np.float32)))


def test_bad_error_maps_and_masks(tmp_path, npy):
    for shape in [(W, H), (3, H, W), (1, 1, H, W)]:
        error = saved(tmp_path / "e.npy", np.ones(shape))
        with pytest.raises(LensphysError, match=r"e.npy must have the shape of the image, \(12, 16\), or"):
            read_images(npy, Reading(instrument=EUCLID, error=error))
    with pytest.raises(LensphysError, match=r"has no value that is positive and finite: it must hold the noise"):
        read_images(npy, Reading(instrument=EUCLID, error=saved(tmp_path / "e.npy", np.zeros((H, W)))))
    path = cut_out(tmp_path / "a.fits", SCI=stack()[0], ERR=np.ones((H, W + 1)))
    with pytest.raises(
        LensphysError, match=r"a.fits\[ERR\] must have the shape of the image, \(12, 16\), got \(12, 17\)"
    ):
        read_images(path)
    path = cut_out(tmp_path / "b.fits", SCI=stack()[0], MASK=np.ones((H, W + 1)))
    with pytest.raises(
        LensphysError, match=r"b.fits\[MASK\] \(12, 17\) and .*b.fits\[SCI\] \(12, 16\) must have the same"
    ):
        read_images(path)
    path = cut_out(tmp_path / "c.fits", SCI=stack()[0], GOOD=np.zeros((H, W)))
    with pytest.raises(LensphysError, match=r"the image has no pixel that counts"):
        read_images(path)
    few = np.zeros((H, W))
    few[3, :7] = 1
    with pytest.raises(LensphysError, match=r"the image has 7 of 192 pixels that count, too few for a lens"):
        read_images(cut_out(tmp_path / "d.fits", SCI=stack()[0], GOOD=few))


def test_a_pixel_scale_that_overrules_a_header_is_told(tmp_path):
    path = cut_out(tmp_path / "a.fits", SCI=stack()[0])
    told = 'pixels of 0.1" as given, not of 0.05" as in the header'
    assert [told in remark for remark in read_images(path, Reading(pixel_scale=0.1)).remarks].count(True) == 1
    assert not any("as given" in remark for remark in read_images(path, Reading(pixel_scale=0.0502)).remarks)


def test_outputs_that_cannot_be(tmp_path):
    for source, good, bad in [
        ("a.fits", "b.fits", "b.npz"),
        ("a.fits.gz", "b.FIT", "b.fits.gz"),
        ("a.npy", "b.npz", "b.npy"),
        ("a.h5", "b.hdf5", "b.fits"),
    ]:
        check_output(tmp_path / source, tmp_path / "new" / good)
        with pytest.raises(LensphysError, match=rf"output of {source} must be named \*\..*, got .*{bad}"):
            check_output(tmp_path / source, tmp_path / bad)
    assert list(tmp_path.iterdir()) == []  # looking leaves no trace
    with pytest.raises(LensphysError, match="a.tiff is a picture"):
        check_output(Path("a.tiff"), Path("b.fits"))
    with pytest.raises(LensphysError, match=r"is the input: choose another name"):
        check_output(tmp_path / "a.fits", tmp_path / "new" / ".." / "a.fits")
    (tmp_path / "folder.fits").mkdir()
    with pytest.raises(LensphysError, match=r"cannot write .*folder.fits: it is a folder"):
        check_output(tmp_path / "a.fits", tmp_path / "folder.fits")
    (tmp_path / "file").write_text("")
    with pytest.raises(LensphysError, match=r"cannot write .*b.fits: Not a directory"):
        check_output(tmp_path / "a.fits", tmp_path / "file" / "deeper" / "b.fits")


def results(n: int, scale: int = 2) -> dict:
    fine = (scale * H, scale * W)
    return {
        "image": np.repeat(np.repeat(stack(n), scale, 1), scale, 2) / scale**2,
        "sigma": np.full((n, *fine), 0.1, np.float32),
        "constrained": np.ones((n, *fine), np.float32),
        "alpha": np.ones((n, 2, *fine), np.float32),
        "kappa": np.ones((n, *fine), np.float32),
        "source": np.ones((n, 10, 10), np.float32),
        "source_scale": 0.01,
        "residual": np.zeros((n, H, W), np.float32),
        "chi2": np.full(n, 1.1),
        "theta_E": np.full(n, 1.2),
        "subhalos": np.full(n, 3),
    }


def test_npz_out(npy, tmp_path):
    images, made = read_images(npy, Reading(instrument=EUCLID)), results(2)
    write_images(tmp_path / "b.npz", images, made, 2, {"commit": None, "input": Path("a.npy")})
    with np.load(tmp_path / "b.npz", allow_pickle=False) as file:
        assert set(file) == {*made, "provenance", "psf"}
        assert str(file["psf"]) == 'Gaussian of FWHM 0.16" (Euclid VIS, legacy Model 2)'
        assert all(np.array_equal(file[name], made[name]) for name in made)
        assert file["image"].sum() == pytest.approx(stack().sum(), rel=1e-5)
        assert json.loads(str(file["provenance"])) == {
            "commit": None,
            "input": "a.npy",
            "scale": 2,
            "pixel_scale_lr": EUCLID.pixel_scale,
        }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npy", "b.npz"]


def test_hdf5_out(lenses, tmp_path):
    images, made = read_images(lenses), results(3)
    write_images(tmp_path / "b.h5", images, made, 2, {"commit": None, "versions": {"a": "1"}, "method": "fit"})
    with h5py.File(tmp_path / "b.h5") as file:
        assert file.attrs["kind"] == "lensphys super-resolved images"
        assert file.attrs["method"] == "fit" and json.loads(file.attrs["versions"]) == {"a": "1"}
        assert file.attrs["scale"] == 2 and file.attrs["pixel_scale_lr"] == 0.101
        assert np.array_equal(file["image"][:, 0], made["image"]) and file["image"] == file["hr"]  # stored once
        assert all(np.array_equal(file[name][()], made[name]) for name in made if name != "image")


def test_results_of_a_lens_file_are_a_lens_file(lenses, tmp_path):
    images, made = read_images(str(lenses)), results(3)
    write_images(str(tmp_path / "b.h5"), images, made, 2, {"method": "fit"})
    with LensFile(lenses) as before, LensFile(tmp_path / "b.h5") as after:
        assert after.is_result and not before.is_result
        assert after.classes == before.classes and np.array_equal(after.labels, before.labels)
        assert after.instrument == before.instrument and after.upscale == 2 and after.target is None
        assert torch.equal(after.lr(), before.lr()) and np.array_equal(after.read("hr")[:, 0], made["image"])
        assert after.identity != before.identity
        assert after._open().attrs["input_identity"] == before.identity
    assert "b.h5 is a result of lensphys: its LR images are what is read" in read_images(tmp_path / "b.h5").remarks
    with LensFile(tmp_path / "b.h5") as lenses, pytest.raises(LensphysError, match="too few for a batch of 16"):
        Batches(lenses, BatchSettings(), 0, needs_truth=True)  # a training finds its pairs there
    np.save(tmp_path / "sharp.npy", kernel())
    write_images(tmp_path / "c.h5", with_target_psf(images, tmp_path / "sharp.npy", 2), made, 2, {})
    with LensFile(tmp_path / "c.h5") as after:
        psf = after.target.psf_of()
        assert isinstance(psf, PixelPSF) and psf.kernel.shape == (5, 5) and psf.scale == pytest.approx(0.0505)


def test_the_files_own_instrument_goes_before_that_of_a_training(lenses, npy):
    other = Instrument.named("model_3")
    images = read_images(lenses, Reading(fallback=other))
    assert images.observation.camera.psf == GaussianPSF(0.16) and images.observation.camera.grid.scale == 0.101
    told = "the instrument is that of the file, not that of the training (HST WFC3 F160W, legacy Model 3)"
    assert images.remarks == [told]
    assert read_images(lenses, Reading(fallback=EUCLID)).remarks == []
    assert read_images(lenses, Reading(fallback=EUCLID, instrument=other)).observation.camera.psf == other.psf_of()
    assert read_images(npy, Reading(fallback=other)).observation.camera.psf == other.psf_of()


def test_options_of_fits_files_alone(npy):
    with pytest.raises(LensphysError, match="--ext, --band is about FITS files, and .*a.npy is none"):
        read_images(npy, Reading(choice=Choice("SCI", "VIS")))


def test_stacks_with_a_channel(tmp_path):
    seen = read_images(str(saved(tmp_path / "a.npy", stack()[:, None])), Reading(instrument=EUCLID)).observation
    assert torch.equal(seen.image[:, 0], torch.from_numpy(stack()))


def test_noise_maps_of_other_kinds(tmp_path, npy):
    sigma = np.full((H, W), 0.1, np.float32)
    for name, values in (("rms", sigma), ("variance", sigma**2), ("ivar", sigma**-2)):
        noise = read_images(
            npy, Reading(instrument=EUCLID, error=saved(tmp_path / f"{name}.npy", values))
        ).observation.noise
        assert torch.allclose(noise.sigma, torch.tensor(0.1))
    path = saved(tmp_path / "wht.npy", np.where(np.arange(W) < 8, 400, 100).repeat(H).reshape(W, H).T.astype("f4"))
    found = read_images(npy, Reading(instrument=EUCLID, error=path))
    assert torch.allclose(found.observation.noise.sigma[0, 0, 0, [0, -1]], torch.tensor([0.05, 0.1]))
    assert "noise: wht.npy, a weight, taken for an inverse variance: so the sky scatters" in found.remarks
    exposed = saved(tmp_path / "exp.npy", np.where(np.arange(W) < 8, 3600, 900).repeat(H).reshape(W, H).T)
    found = read_images(npy, Reading(instrument=EUCLID, error=exposed))
    left, right = found.observation.noise.sigma[0, 0, 0, [0, -1]]
    assert left / right == pytest.approx(0.5) and "exposure map and scaled" in found.remarks[-1]
    for values, kind in ((sigma**4, "a variance"), (sigma**-2, "an inverse variance")):
        image = saved(tmp_path / "i.npy", stack(1) * (sigma if kind == "a variance" else 1))
        with pytest.raises(LensphysError, match=f"e.npy looks like {kind}, not like standard deviations: if so, name"):
            read_images(image, Reading(instrument=EUCLID, error=saved(tmp_path / "e.npy", values)))
    with pytest.raises(LensphysError, match="a.npy is the image itself: give the file of its noise"):
        read_images(npy, Reading(instrument=EUCLID, error=npy))


def test_the_scatter_of_the_sky_is_that_of_the_side_without_light():
    noise = np.random.default_rng(0).normal(0, 2, (60, 60))
    bright = noise + 300 * (np.indices((60, 60)).min(0) > 45)
    assert sky_deviation(noise) == pytest.approx(2, rel=0.1) == sky_deviation(bright)
    assert sky_deviation(-bright) == pytest.approx(sky_deviation(bright))
    assert sky_deviation(np.zeros((4, 4))) == 0


@pytest.mark.parametrize(("unit", "power"), [("nJy", 1), ("nJy2", 2), ("nJy-2", -2)])
def test_the_unit_of_a_noise_map_tells_its_kind(tmp_path, unit, power):
    fits.PrimaryHDU(stack()[0], fits.Header({"PIXSCALE": 0.05, "BUNIT": "nJy"})).writeto(tmp_path / "a.fits")
    fits.PrimaryHDU(np.full((H, W), 0.3**power), fits.Header({"BUNIT": unit})).writeto(tmp_path / "b.fits")
    noise = read_images(tmp_path / "a.fits", Reading(error=tmp_path / "b.fits")).observation.noise
    assert torch.allclose(noise.sigma, torch.tensor(0.3))


def test_what_was_read_is_told(tmp_path):
    path = cut_out(tmp_path / "a.fits", SCI=stack()[0], RMS=np.full((H, W), 0.1), PSF=kernel(), CTX=np.ones((H, W)))
    images = read_images(str(path))
    assert images.remarks == [
        "a.fits: image SCI, noise RMS, PSF PSF; not used: CTX",
        'PSF: a.fits[PSF], FWHM 0.23", 5 x 5 pixels of 0.05": as large as the image\'s, '
        f"since its header says no other; {FLAT}",
        "noise: a.fits[RMS], standard deviations",
    ]
    write_images(str(tmp_path / "b.fits"), images, results(1), 2, {"read": images.remarks})
    with fits.open(tmp_path / "b.fits") as hdus:
        assert hdus[0].header["PSF"] == hdus["SIGMA"].header["PSF"] == 'kernel, 0.25" along a side (a.fits[PSF])'
        assert "not used: CTX" in "".join(hdus[0].header["HISTORY"])
        assert hdus["PSF"].data.sum() == pytest.approx(1, abs=1e-5)
        assert hdus["SIGMA"].header["PIXSCALE"] == hdus["KAPPA"].header["PIXSCALE"] == 0.025
    again = read_images(tmp_path / "b.fits")  # the result's own PSF and sigma are found in it
    assert again.observation.camera.psf.extent == pytest.approx(images.observation.camera.psf.extent, rel=0.15)
    assert isinstance(again.observation.noise, ErrorMap)


def test_fits_out(tmp_path):
    images = read_images(cut_out(tmp_path / "a.fits", SCI=stack()[0]))
    write_images(tmp_path / "b.fits", images, results(1), 2, {})
    with fits.open(tmp_path / "b.fits") as hdus:
        assert hdus[0].header["PIXSCALE"] == 0.025 and hdus[0].header["THETA_E"] == 1.2
        assert hdus[0].header["SUBHALOS"] == 3
        for name in ("SIGMA", "CONSTRAINED"):
            assert hdus[name].data.shape == hdus[0].data.shape
        assert hdus[0].data.sum() == pytest.approx(stack()[0].sum(), rel=1e-5)


def test_results_that_cannot_be_written(npy, tmp_path):
    images = read_images(npy, Reading(instrument=EUCLID))
    with pytest.raises(LensphysError, match=r"super-resolved image and input at scale 3 must have the same shape"):
        write_images(tmp_path / "b.npz", images, results(2), 3, {})
    with pytest.raises(LensphysError, match=r"only a FITS input gives a FITS output, choose .npz or .h5"):
        write_images(tmp_path / "b.fits", images, results(2), 2, {})
    for name in ("b.npz", "b.h5"):
        with pytest.raises(LensphysError, match=f"cannot write .*{name}"):
            write_images(npy / name, images, results(2), 2, {})


@pytest.mark.skipif(not SLACS.is_dir(), reason="no real data beside the checkout")
def test_real_lenses(tmp_path):
    paths = sorted(SLACS.glob("*.fits"))
    assert len(paths) == 7
    for path in paths:
        images = read_images(path)
        seen, header = images.observation, images.header
        assert seen.image.shape == (1, 1, header["NAXIS2"], header["NAXIS1"]) and seen.image.dtype == torch.float32
        assert seen.camera.grid.scale == pytest.approx(header["PIXSCALE"], rel=2e-3)
        assert isinstance(seen.camera.psf, PixelPSF) and seen.camera.supersampling == 2
        assert isinstance(seen.noise, ErrorMap) and torch.isfinite(seen.image).all()
        # MASK is where the arcs are: a ring at the published Einstein radius counts, the edge does not
        x, y = seen.camera.grid.positions()[0]
        ring = (torch.hypot(x, y) / header["THETA_E"] - 1).abs() < 0.15
        assert seen.mask[0, 0][ring].all() and not seen.mask.all()
        high, (h, w) = tmp_path / path.name, seen.camera.grid.shape
        write_images(high, images, {"image": np.zeros((1, 2 * h, 2 * w), np.float32)}, 2, {})
        with fits.open(high) as hdus:
            there = WCS(hdus[0].header).all_pix2world(20.5, 40.5, 0)
            assert np.allclose(there, WCS(header).all_pix2world(10, 20, 0), rtol=0, atol=1e-6 / 3600)


def test_a_fingerprint_tells_how_images_were_taken():
    image = np.random.default_rng(0).normal(1, 0.1, (2, 12, 12)).astype("f4")

    def taken(fwhm: float = 0.16, scale: float = 0.1, pixels: np.ndarray = image) -> str:
        instrument = Instrument.named("euclid_vis").model_copy(update={"pixel_scale": scale})
        instrument = instrument.model_copy(update={"psf": instrument.psf.model_copy(update={"fwhm": fwhm})})
        return read_images(InMemory(pixels), Reading(instrument=instrument)).fingerprint

    assert taken() == taken()
    assert len({taken(), taken(fwhm=0.4), taken(scale=0.2), taken(pixels=image + 1)}) == 4
