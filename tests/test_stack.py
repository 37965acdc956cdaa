"""Long stacks, read part by part: they are what they are when read at once, and what is shared has one meaning."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits
from lenses import small_lenses
from processes import command, kill_me, killed
from typer.testing import CliRunner

import lensphys as lp
from lensphys.basics.checks import LensphysError
from lensphys.basics.remarks import Tally, of_all
from lensphys.catalogue.work import identity_of
from lensphys.cli import app
from lensphys.data.images import Reading, read_images
from lensphys.data.kept import Kept
from lensphys.data.lens_file import LensFile
from lensphys.data.stack import ImageStack, open_images
from lensphys.fits.image import Choice
from lensphys.methods import READY
from lensphys.methods.super_resolve import super_resolve
from lensphys.observation import Instrument
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.writer import simulate

COUNT, H, W = 9, 16, 20
FEW = 2 * H * W  # pixels: two images at a time


def images() -> np.ndarray:
    """Arcs in noise; image 4 is dark, image 6 has a row of NaN, and the border of image 7 was filled."""
    y, x = np.indices((H, W))
    ring = np.exp(-((np.hypot(y - H / 2, x - W / 2) - 5) ** 2))
    stack = np.random.default_rng(0).normal(0, 0.05, (COUNT, H, W)) + ring
    stack[4], stack[6, 3], stack[7, :, :2] = 0, np.nan, 0
    return stack.astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("stack")
    rng = np.random.default_rng(1)
    np.save(path / "a.npy", images())
    np.save(path / "rms.npy", rng.uniform(0.04, 0.06, (COUNT, H, W)))
    np.save(path / "wht.npy", np.full((H, W), 400.0))
    np.save(path / "exp.npy", np.where(np.arange(W) < 8, 3.6e5, 9e4) * np.ones((H, 1)))
    bad = np.zeros((COUNT, H, W), np.uint8)
    bad[:, 2, :5] = 1
    bad[3, 9] = 1
    np.save(path / "mask.npy", bad)
    fits.writeto(path / "rms.fits", rng.uniform(0.04, 0.06, (COUNT, H, W)).astype("f4"))
    return path


def same(one, other, count: int) -> None:
    """All that a computation depends on."""
    seen, rows = one.observation, torch.arange(count)
    parts = [other.observation[part] for part in rows.split(3)]
    for name in ("image", "weight"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(seen, name))
    variance = torch.cat([part.noise.variance(part.image) for part in parts])
    torch.testing.assert_close(variance, seen.noise.variance(seen.image), rtol=1e-6, atol=0)
    assert other.index.tolist() == one.index.tolist() and other.psf == one.psf


def test_files_may_be_named_in_strings(folder):
    files = {"error": folder / "wht.npy", "mask": folder / "mask.npy"}
    named = Reading(pixel_scale=0.1, **{what: str(file) for what, file in files.items()})
    paths = Reading(pixel_scale=0.1, **files)
    assert identity_of(named) == identity_of(paths)  # of the files' contents
    same(read_images(folder / "a.npy", paths), open_images(folder / "a.npy", named, 2, pixels=FEW), COUNT - 1)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"error": "rms.npy", "mask": "mask.npy"},
        {"error": "rms.fits"},
        {"error": "wht.npy", "choice": Choice(mask_means="bad"), "mask": "mask.npy"},
        {"error": "exp.npy"},
        {"instrument": Instrument.named("euclid_vis"), "sky": "subtract"},
    ],
    ids=["alone", "maps", "FITS map", "weight", "exposure", "instrument"],
)
def test_a_stack_in_parts_is_the_stack(folder, given):
    given = {name: folder / x if isinstance(x, str) and "." in x else x for name, x in given.items()}
    reading = Reading(pixel_scale=0.1, **given)
    whole = read_images(folder / "a.npy", Reading(pixel_scale=0.1, **given))
    stack = open_images(folder / "a.npy", reading, 2, pixels=FEW)
    assert isinstance(stack, ImageStack) and whole.index.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    same(whole, stack, COUNT - 1)
    told = [r for r in whole.remarks if "exposure" not in r and not r.startswith("mask")]
    assert set(told) <= set(stack.remarks)
    assert sum(r.startswith("mask mask.npy: ") for r in stack.remarks) == ("mask" in given)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_fits_cube_is_a_stack(folder, tmp_path, packed):
    pixels, sigma = images(), np.random.default_rng(1).uniform(0.04, 0.06, (COUNT, H, W)).astype("f4")
    flags = np.zeros((COUNT, H, W), "i2")
    flags[3, 9] = 1
    maps = [fits.ImageHDU(sigma, name="ERR"), fits.ImageHDU(flags, name="DQ")]
    head = fits.Header({"PIXSCALE": 0.1})
    path = tmp_path / ("a.fits.gz" if packed else "a.fits")
    fits.HDUList([fits.PrimaryHDU(pixels[:, None], head), *maps]).writeto(path, checksum=True)
    np.save(tmp_path / "ERR.npy", sigma)
    np.save(tmp_path / "DQ.npy", flags)
    reading = Reading(pixel_scale=0.1, error=tmp_path / "ERR.npy", mask=tmp_path / "DQ.npy")
    whole = read_images(folder / "a.npy", reading)
    for pieces in (open_images(path, Reading(), 2), open_images(path, Reading(), 2, pixels=FEW)):
        same(whole, pieces, COUNT - 1)
    some = open_images(path, Reading(), 2, np.array([3, 6]))
    assert torch.equal(some.observation.image, whole.observation.image[[3, 5]])
    assert len(lp.read(path)) == COUNT - 1 and lp.read(path).image.shape == (COUNT - 1, H, W)


def test_flags_of_a_stack_keep_all_their_bits(tmp_path):
    flags = np.full((COUNT, H, W), 1 << 30, "i4")
    flags[:, 2, 3] += 1  # DO_NOT_USE: a float32 loses it beside so high a bit
    head = fits.Header({"PIXSCALE": 0.1, "TELESCOP": "JWST"})
    hdus = [fits.PrimaryHDU(images()[:, None], head), fits.ImageHDU(flags, name="DQ")]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    seen = read_images(tmp_path / "a.fits", Reading(bad_pixels="keep")).observation.weight[:, 0]
    assert not seen[:, 2, 3].any() and seen[:, 2, 4].all()


def test_flags_in_a_file_of_their_own_are_of_the_telescope_of_the_stack(tmp_path):
    flags = np.zeros((H, W), "i2")
    flags[2, 3], flags[2, 4] = 1, 4  # DO_NOT_USE, JUMP_DET
    np.save(tmp_path / "dq.npy", flags)
    fits.writeto(tmp_path / "a.fits", images()[:, None], fits.Header({"PIXSCALE": 0.1, "TELESCOP": "JWST"}))
    reading = Reading(mask=tmp_path / "dq.npy", bad_pixels="keep")
    whole = read_images(tmp_path / "a.fits", reading)
    same(whole, open_images(tmp_path / "a.fits", reading, 2, pixels=FEW), COUNT - 1)
    assert not whole.observation.weight[:, 0, 2, 3].any() and whole.observation.weight[:, 0, 2, 4].all()


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="only Linux counts what a process reads")
def test_padding_is_found_in_imported_images_as_in_their_file(folder):
    from lensphys.data.importing import Importing, import_images

    instrument, stack = Instrument.named("euclid_vis"), np.load(folder / "a.npy")[:3]
    stack[:, :, -6:] = 0
    np.save(folder / "padded.npy", stack)
    import_images([folder / "padded.npy"], folder / "padded.h5", Importing(instrument=instrument))
    plain = read_images(folder / "padded.npy", Reading(instrument=instrument))
    found = read_images(folder / "padded.h5", Reading())
    assert torch.equal(found.observation.weight, plain.observation.weight) and found.observation.weight.min() == 0
    assert any("a border of one value" in remark for remark in found.remarks)


def test_a_long_fits_cube_is_read_as_it_is_wanted(tmp_path):
    def read_bytes() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    peaks = {}
    for count in (160, 800):
        path = tmp_path / f"{count}.fits"
        cube = np.random.default_rng(0).normal(0, 1, (count, 1, 64, 64)).astype("f4") + 0.5
        fits.PrimaryHDU(cube, fits.Header({"PIXSCALE": 0.1})).writeto(path, checksum=True)
        tracemalloc.start()
        found = open_images(path, Reading(bad_pixels="keep"), 2, pixels=8 * 64 * 64)
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    before = read_bytes()
    part = found.observation[torch.tensor([70, 333])].image
    assert read_bytes() - before < 0.1 * path.stat().st_size
    np.testing.assert_array_equal(part.numpy(), cube[[70, 333]])
    assert isinstance(found, ImageStack) and peaks[800] < 1.3 * peaks[160] < cube.nbytes


def test_all_masks_beside_a_fits_cube_count(tmp_path):
    """Flags of all images and of each, and objects: of the lens itself in one image, where they are not used."""
    shared, flags, objects = np.zeros((H, W), "i2"), np.zeros((COUNT, H, W), "i2"), np.zeros((COUNT, H, W), "i2")
    shared[1, 3], flags[3, 9], objects[:, 13, 4] = 1, 1, 1
    objects[5] = 1
    masks = {"BPM": shared, "DQ": flags, "OBJMASK": objects, "LENS_MASK": shared}
    path, pixels = tmp_path / "a.fits", np.random.default_rng(2).normal(0, 0.05, (COUNT, 1, H, W)).astype("f4")
    pixels[..., 6:10, 8:12] += 3
    hdus = [fits.ImageHDU(values, name=name) for name, values in masks.items()]
    fits.HDUList([fits.PrimaryHDU(pixels, fits.Header({"PIXSCALE": 0.1})), *hdus]).writeto(path)
    good = (shared == 0) & (flags == 0) & (objects == 0)
    good[5] = (shared == 0) & (flags[5] == 0)
    for found in (open_images(path, Reading(), 2), open_images(path, Reading(), 2, pixels=FEW)):
        everything = found.observation[torch.arange(COUNT)]
        np.testing.assert_array_equal(everything.mask[:, 0].numpy(), good)
        told = "\n".join(found.remarks)
        assert "mask DQ and BPM, objects OBJMASK; not used: LENS_MASK" in told and "LENS_MASK is not used, by" in told
        assert f"OBJMASK: {COUNT - 1} pixels of objects are masked" in told
        assert "OBJMASK is not used: in 1 of the images it marks the lens's own light, in the middle" in told


def test_what_a_fits_cube_is_must_be_said(tmp_path):
    head = fits.Header({"PIXSCALE": 0.1})
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(images()[:4], head).writeto(path)
    asked = ["super-resolve", str(path), "--method", "bicubic", "-o"]
    for out, words in (
        ("b.npz", "a.fits is a cube: give --rows : if"),
        ("b.fits", "or give --rows : if each is a lens"),
    ):
        done = CliRunner().invoke(app, [*asked, str(tmp_path / out)])
        assert done.exit_code == 2 and words in done.output
    done = CliRunner().invoke(app, [*asked, str(tmp_path / "b.npz"), "--rows", "1:3"])
    assert done.exit_code == 0, done.output
    assert np.load(tmp_path / "b.npz")["index"].tolist() == [1, 2]
    for name, values, words in (("WHT", 1.0, "is a weight of a stack"), ("MASK", 0.0, "give --mask-means")):
        hdus = [fits.PrimaryHDU(images()[:4, None], head), fits.ImageHDU(np.full((4, H, W), values), name=name)]
        fits.HDUList(hdus).writeto(path, overwrite=True)
        with pytest.raises(LensphysError, match=words):
            open_images(path, Reading(), 2)
    fits.PrimaryHDU(images()[:4, None], head).writeto(path, checksum=True, overwrite=True)
    changed = bytearray(path.read_bytes())
    changed[4000] ^= 1
    path.write_bytes(changed)
    with pytest.raises(LensphysError, match="a.fits does not match its own checksum"):
        open_images(path, Reading(), 2)


@pytest.mark.parametrize("way", ["(N, 1, H, W)", "(N, H, W)", "tiles"])
def test_a_killed_fits_stack_goes_on(tmp_path, monkeypatch, way):
    cube = np.concatenate([images()] * 5)[:, None]
    head = fits.Header({"PIXSCALE": 0.1})
    array = cube if way == "(N, 1, H, W)" else cube[:, 0]
    hdus = [fits.PrimaryHDU(), (fits.CompImageHDU if way == "tiles" else fits.ImageHDU)(array, head, name="SCI")]
    path = tmp_path / ("a.fits.fz" if way == "tiles" else "a.fits")
    fits.HDUList(hdus).writeto(path)
    rows = [] if way == "(N, 1, H, W)" else ["--rows", ":"]
    asked = ["super-resolve", path, "--method", "bicubic", *rows, "-o"]
    assert command(*asked, tmp_path / "whole.npz")[0] == 0
    keep = Kept.keep
    with monkeypatch.context() as patch:
        patch.setattr(Kept, "keep", lambda self, i, planes: kill_me() if i == 2 else keep(self, i, planes))
        assert killed(command, *asked, tmp_path / "b.npz")
    assert len(list((tmp_path / ".b.npz.parts").glob("0*.npz"))) == 2 and not (tmp_path / "b.npz").exists()
    done: list[int] = []
    monkeypatch.setattr(Kept, "keep", lambda self, i, planes: (done.append(i), keep(self, i, planes)))
    assert command(*asked, tmp_path / "b.npz")[0] == 0
    assert done == [2] and (tmp_path / "b.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_a_pixel_scale_that_is_given_goes_before_that_of_a_stack(tmp_path):
    fits.writeto(tmp_path / "a.fits", images()[:, None], fits.Header({"PIXSCALE": "unknown"}))
    whole = read_images(tmp_path / "a.fits", Reading(pixel_scale=0.1))
    same(whole, open_images(tmp_path / "a.fits", Reading(pixel_scale=0.1), 2, pixels=FEW), COUNT - 1)


def test_a_stack_has_a_band_and_two_scales_as_an_image_has(tmp_path):
    head = fits.Header({"PIXSCALE": 0.2, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 8.0, "CRPIX2": 8.0})
    head.update({"CRVAL1": 10.0, "CRVAL2": 20.0, "CD1_1": -0.1 / 3600, "CD2_2": 0.1 / 3600})
    sci = fits.ImageHDU(images()[:, None], head, name="VIS_SCI")
    fits.HDUList([fits.PrimaryHDU(), sci]).writeto(tmp_path / "a.fits")
    rms = [fits.ImageHDU(np.full((H, W), x, "f4"), name=name) for name, x in (("NIR_RMS", 9), ("VIS_RMS", 0.05))]
    fits.HDUList([fits.PrimaryHDU(), *rms]).writeto(tmp_path / "rms.fits")
    found = read_images(tmp_path / "a.fits", Reading(error=tmp_path / "rms.fits"))
    assert any("has PIXSCALE 0.2 and a WCS of 0.1" in remark for remark in found.remarks)
    assert float(found.observation.noise.sigma.median()) == pytest.approx(0.05)


def test_some_rows_of_a_stack(folder):
    rows, reading = np.array([1, 3, 4, 6, 8]), Reading(pixel_scale=0.1, error=folder / "rms.npy")
    few = read_images(folder / "a.npy", reading, rows)
    stack = open_images(folder / "a.npy", reading, 2, rows, pixels=FEW)
    assert few.index.tolist() == [1, 3, 6, 8]
    same(few, stack, 4)
    whole = read_images(folder / "a.npy", reading)
    same(few, whole.at(np.flatnonzero(np.isin(whole.index, rows))), 4)


def test_what_becomes_of_an_image_does_not_depend_on_those_beside_it(folder):
    """Holes are filled by chance, which each image has of its own."""
    stack = images()
    stack[5, 2:4] = np.nan
    np.save(folder / "holes.npy", stack)
    whole = read_images(folder / "holes.npy", Reading(pixel_scale=0.1))
    alone = read_images(folder / "holes.npy", Reading(pixel_scale=0.1), rows=np.array([6]))
    assert torch.equal(alone.observation.noise.sigma[0], whole.observation.noise.sigma[list(whole.index).index(6)])


def test_a_file_of_lenses_in_parts(tmp_path):
    path = simulate(Recipe.named("varied", ["height=16", "width=16"]), 3, tmp_path / "a.h5", seed=1)
    whole, stack = read_images(path), open_images(path, Reading(), 2, pixels=2 * 16 * 16)
    assert isinstance(stack, ImageStack)
    same(whole, stack, len(whole.index))
    assert stack.carried is not None and whole.carried is not None
    assert stack.carried.columns["label"].tolist() == whole.carried.columns["label"].tolist()
    found = [super_resolve(READY["bicubic"], x.observation, 2, batch_size=2, quiet=True) for x in (whole, stack)]
    np.testing.assert_array_equal(found[1]["image"], found[0]["image"])


def test_the_results_of_a_long_file_are_a_file_of_lenses(tmp_path, monkeypatch):
    monkeypatch.setattr("lensphys.data.stack._PIXELS", 2 * 16 * 16)
    monkeypatch.setattr(open_images, "__defaults__", (None, 2 * 16 * 16))
    path = simulate(Recipe.named("model_3", ["height=16", "width=16"]), 3, tmp_path / "a.h5", seed=1)
    done = CliRunner().invoke(app, ["super-resolve", str(path), "-o", str(tmp_path / "b.h5"), "--method", "bicubic"])
    assert done.exit_code == 0, done.output
    with LensFile(path) as before, LensFile(tmp_path / "b.h5") as after:
        np.testing.assert_array_equal(after.read("lr"), before.read("lr"))
        assert after.labels.tolist() == before.labels.tolist() and after.is_result


def test_faulty_stacks(folder, tmp_path):
    np.save(tmp_path / "dark.npy", np.zeros((5, H, W), np.float32))
    with pytest.raises(LensphysError, match="holds no image that can be used: the first one is zero everywhere"):
        open_images(tmp_path / "dark.npy", Reading(pixel_scale=0.1), 2, pixels=FEW)
    with pytest.raises(LensphysError, match="image 4 of .*a.npy is zero everywhere"):
        open_images(folder / "a.npy", Reading(pixel_scale=0.1), 2, np.array([4]), pixels=FEW)
    np.save(tmp_path / "e.npy", np.ones((3, H, W)))
    with pytest.raises(LensphysError, match=r"or of the stack, \(9, 16, 20\), got \(3, 16, 20\)"):
        open_images(folder / "a.npy", Reading(pixel_scale=0.1, error=tmp_path / "e.npy"), 2, pixels=FEW)


def test_remarks_on_parts_become_one():
    words = "{} pixels in {} images"
    parts = [["a", Tally(words, 3, 1)], ["a", Tally(words, 4, 2), "b"], []]
    assert of_all(parts) == ["a", "7 pixels in 3 images", "b"]


def test_observations_in_memory_are_some_too():
    seen = small_lenses(3).observation
    assert torch.equal(seen[torch.tensor([2])].image, seen.image[2:])
