"""Files at the command line: what is said of them, and what goes first."""

import warnings

import h5py
import numpy as np
import pytest
from astropy.io import fits
from typer.testing import CliRunner

from lensphys import cli
from lensphys.cli import app
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.writer import simulate


def run(*words) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.fixture(scope="module")
def lenses(tmp_path_factory):
    recipe = Recipe.named("model_2", ["height=16", "width=16"])
    return simulate(recipe, 1, tmp_path_factory.mktemp("lenses") / "a.h5")


def cut_out(path, **planes):
    image = np.random.default_rng(0).normal(0, 0.1, (16, 16)).astype("f4")
    image[6:10, 6:10] += 3
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(image, fits.Header({"PIXSCALE": 0.1}), name="VIS_FLUX")]
    fits.HDUList([*hdus, *(fits.ImageHDU(data, name=name) for name, data in planes.items())]).writeto(path)
    return path


def test_what_was_read_is_printed_and_written(tmp_path):
    path = cut_out(tmp_path / "a.fits", VIS_RMS=np.full((16, 16), 0.1), VIS_WHT=np.ones((16, 16)))
    code, output = run("super-resolve", path, "-o", tmp_path / "b.fits", "--method", "bicubic", "--band", "vis")
    told = "a.fits: image VIS_FLUX, noise VIS_RMS; not used: VIS_WHT"
    assert code == 0 and f"note: {told}" in output
    assert told in "".join(fits.getheader(tmp_path / "b.fits")["HISTORY"])
    with fits.open(tmp_path / "b.fits") as hdus:
        assert hdus[0].verify_checksum() == hdus[0].verify_datasum() == 1


def test_names_with_letters_of_any_language(tmp_path):
    path = cut_out(tmp_path / "lens_é_ß.fits", VIS_PSF=np.ones((1, 1)), VIS_RMS=np.full((16, 16), 0.1))
    code, _ = run("super-resolve", path, "-o", tmp_path / "ü.fits", "--method", "bicubic")
    assert code == 0 and fits.getheader(tmp_path / "ü.fits")["PSF"].endswith("(lens_\\xe9_\\xdf.fits[VIS_PSF])")


def test_of_one_image_that_can_be_used_its_number_stays(tmp_path):
    sky = np.random.default_rng(0).normal(0, 0.1, (4, 16, 16)).astype("f4")
    sky[:2] = 0
    np.save(tmp_path / "a.npy", sky)
    options = ["--pixel-scale", 0.1, "--method", "bicubic"]
    assert run("super-resolve", tmp_path / "a.npy", "-o", tmp_path / "one.npz", "--rows", "0:3", *options)[0] == 0
    with np.load(tmp_path / "one.npz") as found:
        assert found["index"].tolist() == [2] and found["image"].shape == (1, 32, 32)


def test_a_surface_brightness_says_where_it_is_one(tmp_path):
    image = np.random.default_rng(0).normal(0, 0.1, (16, 16))
    np.savez(tmp_path / "a.npz", image=image, err=0.1, psf=np.ones((1, 1)), pixel_scale=0.1, unit="MJy/sr")
    code, output = run("super-resolve", tmp_path / "a.npz", "-o", tmp_path / "b.npz", "--method", "nearest")
    assert code == 0 and "flux per pixel: of pixels s times as small, s^2 times it is MJy/sr again" in output
    with np.load(tmp_path / "b.npz") as found:
        np.testing.assert_allclose(4 * found["image"][0, ::2, ::2], image, rtol=1e-5)


def test_the_sense_of_a_mask_can_be_said(tmp_path):
    half = (np.indices((16, 16))[1] < 8).astype("u1")
    path = cut_out(tmp_path / "a.fits", MASK=half)
    options = ["-o", tmp_path / "b.fits", "--method", "bicubic", "--overwrite"]
    code, output = run("super-resolve", path, *options)
    assert code == 2 and "a.fits[MASK] is not zero on 50 % of the lens: give --mask-means" in output
    code, output = run("super-resolve", path, *options, "--mask-means", "bad")
    assert code == 0 and "MASK: 128 of 256 pixels count, those where it is zero" in output
    code, output = run("super-resolve", path, *options, "--mask-means", "maybe")
    assert code == 2 and "unknown --mask-means 'maybe': choose one of bad, good" in output


def test_the_psf_of_a_file_goes_before_that_of_weights(lenses, tmp_path):
    code, output = run(
        "super-resolve", lenses, "-o", tmp_path / "b.h5", "--rows", 0, "--weights", "model_3", "--refine", 0
    )
    assert code == 0 and "the instrument is that of the file, not that of the training (HST WFC3" in output
    with h5py.File(tmp_path / "b.h5") as file:
        assert file.attrs["psf"] == 'Gaussian of FWHM 0.16" (Euclid VIS, legacy Model 2)'


def test_results_are_read_back(lenses, tmp_path):
    assert run("super-resolve", lenses, "-o", tmp_path / "b.h5", "--method", "bicubic")[0] == 0
    code, output = run("doctor", tmp_path / "b.h5")
    assert "damaged" not in output and "0 errors" in output and code == 0
    code, output = run("evaluate", "--data", tmp_path / "b.h5", "--method", "bicubic", "-o", tmp_path / "e")
    assert code == 2 and "b.h5 holds super-resolved images and no truth: evaluate the file they come from" in output


def test_what_packages_will_change_does_not_reach_the_user(monkeypatch, recwarn):
    monkeypatch.setattr(cli, "app", lambda: warnings.warn("soon", FutureWarning, stacklevel=1))
    cli.main()
    assert not recwarn.list
