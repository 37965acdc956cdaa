"""Masks in files of their own: found, read in the right sense, or refused."""

import json

import h5py
import numpy as np
import pytest
from astropy.io import fits
from typer.testing import CliRunner

from lensphys.basics.checks import LensphysError
from lensphys.cli import app
from lensphys.data.contents import InMemory
from lensphys.data.images import Reading, read_images
from lensphys.fits.image import Choice
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.writer import simulate

H, W = 20, 24
HEADER = fits.Header({"PIXSCALE": 0.05})
BAD = np.zeros((H, W), bool)
BAD[2:4, 3:9] = True


def image() -> np.ndarray:
    """Sky of rms 0.1, and a bright spot in the middle."""
    pixels = np.random.default_rng(0).normal(0, 0.1, (H, W)).astype(np.float32)
    pixels[8:12, 10:14] += 5
    return pixels


@pytest.fixture
def cut_out(tmp_path):
    fits.writeto(tmp_path / "a.fits", image(), HEADER)
    return tmp_path / "a.fits"


@pytest.fixture
def stack(tmp_path):
    np.save(tmp_path / "stack.npy", np.stack([image()] * 3))
    return tmp_path / "stack.npy"


def saved(path, array, name=None, **header):
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        hdu = fits.ImageHDU(array, fits.Header(header), name=name) if name else fits.PrimaryHDU(array)
        fits.HDUList([hdu] if name is None else [fits.PrimaryHDU(), hdu]).writeto(path)
    return path


def good(images) -> np.ndarray:
    return images.observation.mask[:, 0].numpy()


PLANES = {"MP_SAT": 1, "MP_CLIP": 5}
FILES = {
    "ones are bad": ("mask.npy", BAD.astype("u1"), None, {}),
    "ones are good": ("mask.npy", (~BAD).astype("f4"), None, {}),
    "truth values": ("mask.npy", BAD, None, {}),
    "good by its name": ("good.npy", np.where(BAD, 0, 7), None, {}),
    "flags by the file's name": ("lens_dq.fits", BAD * np.int32(4), None, {}),
    "flags by the extension": ("x.fits", BAD * np.int32(68), "DQ", {}),
    "flags of a telescope": ("x.fits", BAD * np.int32(1) + 2, "DQ", {"TELESCOP": "JWST"}),
    "planes with names": ("x.fits", np.where(BAD, 34, 32).astype("i4"), "MASK", PLANES),
}


@pytest.mark.parametrize("name", FILES)
def test_each_sense_is_recognised(cut_out, tmp_path, name):
    file, array, extension, header = FILES[name]
    images = read_images(cut_out, Reading(mask=saved(tmp_path / file, array, extension, **header)))
    assert np.array_equal(good(images)[0], ~BAD)
    told = [remark for remark in images.remarks if remark.startswith(f"mask {file}")]
    assert len(told) == 1 and f"{H * W - BAD.sum()} of {H * W} pixels count, those" in told[0]


def test_it_takes_the_place_of_the_files_own(tmp_path):
    own = fits.ImageHDU(np.roll(BAD, 6, 0).astype("u1"), name="MASK")
    fits.HDUList([fits.PrimaryHDU(image(), HEADER), own]).writeto(tmp_path / "a.fits")
    images = read_images(tmp_path / "a.fits", Reading(mask=saved(tmp_path / "mask.npy", BAD)))
    assert np.array_equal(good(images)[0], ~BAD)
    assert images.remarks[0] == "a.fits: image PRIMARY; not used: MASK"


def test_the_sense_can_be_said(cut_out, tmp_path):
    half = np.indices((H, W))[1] < W // 2
    path = saved(tmp_path / "mask.npy", half)
    with pytest.raises(LensphysError, match="mask.npy is not zero on 50 % of the lens: give --mask-means good"):
        read_images(cut_out, Reading(mask=path))
    images = read_images(cut_out, Reading(mask=path, choice=Choice(mask_means="good")))
    assert np.array_equal(good(images)[0], half)


def ring_and_annulus(inner: float, outer: float, lens_light: float) -> tuple[np.ndarray, np.ndarray]:
    """An Einstein ring of 12 pixels about a galaxy, and where its pixels lie between two radii."""
    y, x = np.mgrid[-30:30, -30:30] + 0.5
    r = np.hypot(x, y)
    noise = np.random.default_rng(0).normal(0, 0.03, r.shape)
    pixels = np.exp(-((r - 12) ** 2) / 4) * (0.7 + 0.3 * np.sign(x)) + lens_light * np.exp(-r / 3) + noise
    return pixels.astype("f4"), (r > inner) & (r < outer)


@pytest.mark.parametrize("lens_light", [0, 3])
@pytest.mark.parametrize(("inner", "outer"), [(4, 20), (8, 16), (10, 14)])
@pytest.mark.parametrize("means", ["good", "bad"])
def test_a_ring_about_the_middle_is_what_counts_in_either_sense(tmp_path, inner, outer, lens_light, means):
    pixels, annulus = ring_and_annulus(inner, outer, lens_light)
    fits.writeto(tmp_path / "a.fits", pixels, HEADER)
    path = saved(tmp_path / "mask.npy", annulus if means == "good" else ~annulus)
    images = read_images(tmp_path / "a.fits", Reading(mask=path, bad_pixels="keep"))
    assert np.array_equal(good(images)[0], annulus)


@pytest.mark.parametrize("means", ["good", "bad"])
@pytest.mark.parametrize("off", [(-22, -22), (-36, -36)], ids=["part of it in the middle", "none"])
def test_a_mask_about_a_lens_off_the_middle_is_not_inverted(tmp_path, off, means):
    y, x = np.mgrid[-48:48, -48:48] + 0.5
    r = np.hypot(x - off[0], y - off[1])
    pixels = np.exp(-((r - 8) ** 2) / 4) + np.random.default_rng(0).normal(0, 0.03, r.shape)
    fits.writeto(tmp_path / "a.fits", pixels.astype("f4"), HEADER)
    path = saved(tmp_path / "mask.npy", r < 14 if means == "good" else r >= 14)
    with pytest.raises(LensphysError, match="of the middle, and the light lies elsewhere: give --mask-means good or"):
        read_images(tmp_path / "a.fits", Reading(mask=path))
    images = read_images(tmp_path / "a.fits", Reading(mask=path, choice=Choice(mask_means=means)))
    assert np.array_equal(good(images)[0], r < 14)


def test_a_mask_of_a_neighbour_that_is_brighter_than_the_lens_is_read(tmp_path):
    y, x = np.mgrid[-48:48, -48:48] + 0.5
    r, other = np.hypot(x, y), np.hypot(x - 30, y - 30)
    pixels = np.exp(-((r - 4) ** 2)) + 9 * np.exp(-other / 3) + np.random.default_rng(0).normal(0, 0.03, r.shape)
    fits.writeto(tmp_path / "a.fits", pixels.astype("f4"), HEADER)
    images = read_images(tmp_path / "a.fits", Reading(mask=saved(tmp_path / "mask.npy", other < 18)))
    assert np.array_equal(good(images)[0], other >= 18)


def test_a_ring_without_light_is_not_what_counts(tmp_path):
    pixels, edge = ring_and_annulus(26, 29, 0)  # where an aperture ends, say
    fits.writeto(tmp_path / "a.fits", pixels, HEADER)
    images = read_images(tmp_path / "a.fits", Reading(mask=saved(tmp_path / "mask.npy", edge)))
    assert np.array_equal(good(images)[0], ~edge)


def test_an_array_says_where_its_pixels_count_unless_that_leaves_the_lens_out():
    """A disk on half of the lens may be meant in either sense: an array is True where a pixel counts."""
    pixels, disk = ring_and_annulus(0, 12, 0)
    images = read_images(InMemory(pixels, disk), Reading(pixel_scale=0.05, bad_pixels="keep"))
    assert np.array_equal(good(images)[0], disk)
    with pytest.raises(LensphysError, match="the mask of the array masks the lens"):
        read_images(InMemory(pixels, ~ring_and_annulus(0, 20, 0)[1]), Reading(pixel_scale=0.05))


def test_one_for_a_stack_and_one_each(stack, tmp_path):
    one = read_images(stack, Reading(pixel_scale=0.05, mask=saved(tmp_path / "one.npy", BAD)))
    assert good(one).shape == (3, H, W) and (good(one) == ~BAD).all()
    each = np.stack([np.roll(BAD, k, 1) for k in range(3)])
    images = read_images(
        stack, Reading(pixel_scale=0.05, mask=saved(tmp_path / "each.npy", each), choice=Choice(mask_means="bad"))
    )
    assert np.array_equal(good(images), ~each)


def test_images_that_are_left_out_take_their_masks_along(tmp_path):
    pixels = np.stack([image(), np.zeros((H, W), np.float32), image()])
    each = np.stack([np.roll(BAD, k, 1) for k in range(3)])
    np.save(tmp_path / "a.npy", pixels)
    images = read_images(tmp_path / "a.npy", Reading(pixel_scale=0.05, mask=saved(tmp_path / "mask.npy", each)))
    assert images.index.tolist() == [0, 2] and np.array_equal(good(images), ~each[[0, 2]])


@pytest.mark.parametrize(
    ("file", "array", "name", "fault"),
    [
        ("m.npy", BAD[1:], None, "m.npy must have the shape of the image, .20, 24., got"),
        ("m.npy", image(), None, "m.npy holds other numbers than those of a mask"),
        ("m.npy", BAD * 2 + np.roll(BAD, 9, 0), None, "m.npy is a bit mask .1, 2. without names of its bits"),
        ("m.npy", np.ones((H, W), complex), None, "m.npy holds complex128 values"),
        ("m.npy", np.zeros((H, W), bool) | (np.indices((H, W))[0] % 2 > 0), None, "is not zero on 50 % of the lens"),
        ("m.fits", image(), "SCI", r"m.fits holds no mask: it holds SCI \(20, 24\)"),
        ("m.fits", image(), "ERR", "m.fits holds no mask"),
    ],
)
def test_what_is_no_mask_is_refused(cut_out, tmp_path, file, array, name, fault):
    with pytest.raises(LensphysError, match=fault):
        read_images(cut_out, Reading(mask=saved(tmp_path / file, array, name)))


def test_all_masked_is_refused(cut_out, tmp_path):
    with pytest.raises(LensphysError, match="has no pixel that counts"):
        read_images(cut_out, Reading(mask=saved(tmp_path / "good.npy", np.zeros((H, W)))))


def run(*arguments):
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    return done.exit_code, done.output


def test_the_command_tells_it_and_keeps_it(cut_out, tmp_path):
    mask = saved(tmp_path / "mask.npy", BAD)
    code, output = run("super-resolve", cut_out, "-o", tmp_path / "b.fits", "--method", "bicubic", "--mask", mask)
    told = "mask mask.npy: 468 of 480 pixels count, those where it is zero"
    assert code == 0 and f"note: {told}" in output
    assert told in "".join(fits.getheader(tmp_path / "b.fits")["HISTORY"])
    code, output = run("super-resolve", cut_out, "-o", mask, "--mask", mask, "--method", "bicubic")
    assert code == 2 and np.array_equal(np.load(mask), BAD)


def test_a_file_of_lenses_takes_one(tmp_path):
    lenses = simulate(Recipe.named("model_2", ["height=16", "width=16"]), 2, tmp_path / "a.h5")
    mask = saved(tmp_path / "mask.npy", np.pad(np.ones((1, 3), bool), ((0, 15), (0, 13))))
    code, output = run("super-resolve", lenses, "-o", tmp_path / "b.h5", "--method", "bicubic", "--mask", mask)
    assert code == 0 and "253 of 256 pixels count" in output
    with h5py.File(tmp_path / "b.h5") as file:
        assert "253 of 256 pixels count" in json.dumps(dict(file.attrs), default=str)
