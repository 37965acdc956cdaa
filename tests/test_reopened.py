"""Results that are opened again have what they had when they were written."""

import warnings

import numpy as np
import pytest
from astropy.io import fits
from results import BODY, PIXEL, SCALE, SIDE, Known, covariance, fits_result, h5_result, npz_result
from typer.testing import CliRunner

import lensphys as lp
from lensphys.api.result import Result
from lensphys.cli import app
from lensphys.data.images import Reading, read_images
from lensphys.data.joint import JointFile, write_joint
from lensphys.fits.image import Choice
from lensphys.viewer.reading import read_results

PLANES = ("image", "sigma", "kappa", "alpha", "constrained", "source", "residual")


def fresh(path, method=None) -> Result:
    """The result in memory of a file that `results` super-resolved."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lp.Note)
        images = lp.read(path, pixel_scale=None if path.suffix == ".fits" else PIXEL)
    return lp.super_resolve(images, SCALE, method=Known() if method is None else method)


def same(again: Result, before: Result) -> None:
    for name in PLANES:
        assert np.array(getattr(again, name)) == pytest.approx(np.array(getattr(before, name)), rel=1e-5), name
    assert np.array(again.images.image) == pytest.approx(np.array(before.images.image))
    assert again.source_scale == pytest.approx(before.source_scale) and again.pixel_scale == before.pixel_scale
    assert np.array(again.chi2) == pytest.approx(np.array(before.chi2))
    assert np.array_equal(again.theta_E, before.theta_E) and np.array_equal(again.quality, before.quality)
    assert again.reasons == before.reasons and repr(again) == repr(before)
    assert again.table.colnames == before.table.colnames and again.subhalos["theta_E"][0] == pytest.approx(BODY[2])
    assert len(again) > 1 or np.array_equal(again.covariance, before.covariance, equal_nan=True)
    for column in ("name", "value", "error", "unit"):
        assert list(again.table[column]) == pytest.approx(list(before.table[column]), nan_ok=True)


@pytest.mark.parametrize("unit", ["electron/s", "MJy/sr"])
def test_a_fits_result_is_what_it_was(tmp_path, unit):
    path = fits_result(tmp_path, unit)
    again = lp.read_result(path)
    same(again, fresh(tmp_path / "lens.fits"))
    titles = [ax.get_title() for ax in again.plot().axes]
    assert "LR residual / noise" in " ".join(titles) and "source" in titles


def test_covariance_and_draws(tmp_path):
    """Of the parameters that have one, in the order of the table."""
    result = lp.read_result(fits_result(tmp_path))
    names, known = list(result.table["name"]), covariance(1)
    place = [names.index(name) for name in known.names]
    assert result.covariance[np.ix_(place, place)] == pytest.approx(known.values[0].numpy())
    assert np.isfinite(result.covariance).sum() == 9 and result.covariance.shape == (len(names), len(names))
    draws = result.samples(20000, seed=3)
    assert draws.colnames == [n for n in names if n in known.names] and len(draws) == 20000
    drawn = np.array([draws[name] for name in known.names])
    assert np.cov(drawn) / known.values[0].numpy() == pytest.approx(np.ones((3, 3)), rel=0.05)
    assert drawn.mean(1) == pytest.approx([result.table["value"][i] for i in place], abs=0.003)
    assert np.array_equal(result.samples(5, 1)["lens.e1"], result.samples(5, 1)["lens.e1"])
    assert not np.array_equal(result.samples(5, 1)["lens.e1"], result.samples(5, 2)["lens.e1"])


def test_draws_of_what_has_none_are_refused(tmp_path):
    stack = lp.read_result(npz_result(tmp_path, 3))
    with pytest.raises(lp.LensphysError, match=r"there are 3 images: choose one, as result\[0\]"):
        stack.samples()
    assert stack[1].covariance.shape == stack.planes["covariance"].shape[1:]
    with pytest.raises(lp.LensphysError, match="count must be a whole number of 1 or more, got 0"):
        stack[1].samples(0)
    bare = lp.read_result(fits_result(tmp_path, method="bicubic"))
    assert bare.covariance is None
    with pytest.raises(lp.LensphysError, match="there are no errors to draw from: fit the image"):
        bare.samples()


@pytest.mark.parametrize("make", [npz_result, h5_result])
def test_a_stack_is_what_it_was_and_may_be_cut(tmp_path, make):
    path = make(tmp_path, 3)
    again = lp.read_result(path)
    before = fresh(tmp_path / ("stack.npy" if path.suffix == ".npz" else "images.npy"))
    same(again, before)
    assert again.image.shape == (3, SCALE * SIDE, SCALE * SIDE) and len(again) == 3
    assert np.array_equal(again[1].image, again.image[1]) and again[1].quality == before[1].quality
    assert again.plot(2).axes and again[[0, 2]].images.index.tolist() == [0, 2]
    with pytest.raises(lp.LensphysError, match="there are 3 images, 0 to 2: 3 is none"):
        again[3]


def test_noise_and_residual_in_a_file_tell_chi2(tmp_path):
    path = fits_result(tmp_path, method="bicubic")
    with fits.open(path) as hdus:
        ratio = hdus["RESIDUAL"].data / hdus["NOISE"].data
        assert np.sum(ratio**2) / ratio.size == pytest.approx(hdus[0].header["CHI2"], rel=1e-5)
    again = lp.read_result(path)
    assert again.images.mask.all() and again.images.noise == pytest.approx(0.02) and again.noise.shape == (SIDE, SIDE)


def test_a_method_without_a_lens_has_none_again(tmp_path):
    again = lp.read_result(fits_result(tmp_path, method="bicubic"))
    assert again.sigma is None and again.kappa is None and again.table is None and again.quality is None
    assert again.image.shape == (SCALE * SIDE, SCALE * SIDE) and again.plot().axes


def test_what_a_file_lacks_is_told(tmp_path):
    path = fits_result(tmp_path)
    again = lp.read_result(path)
    with pytest.raises(lp.LensphysError, match="lens_sr.fits is a result, without the PSF of its images: .*lp.read"):
        _ = again.images.psf
    with fits.open(path) as hdus:
        fits.HDUList([hdu for hdu in hdus if hdu.name != "NOISE"]).writeto(tmp_path / "older.fits")
    older = lp.read_result(tmp_path / "older.fits")
    with pytest.raises(lp.LensphysError, match="older.fits is a result, without the noise of its images: .*lp.read"):
        _ = older.images.noise
    assert "LR residual / its scatter" in " ".join(ax.get_title() for ax in older.plot().axes)
    with pytest.raises(lp.LensphysError, match="lens_sr.fits is a file already: copy it"):
        again.write(tmp_path / "copy.fits")
    for wrong, told in (
        (tmp_path / "lens.fits", "lens.fits is an image, not a result: run 'lensphys super-resolve"),
        (tmp_path / "none.fits", "result not found: .*none.fits is not a file"),
        (tmp_path / "a.txt", r"a.txt is no result: expected a name that ends in .fits"),
    ):
        (tmp_path / "a.txt").write_text("")
        with pytest.raises(lp.LensphysError, match=told):
            lp.read_result(wrong)
    with pytest.raises(lp.LensphysError, match="has no bands: leave the band VIS out"):
        lp.read_result(path, band="VIS")


def test_some_of_none(tmp_path):
    assert lp.read_result(h5_result(tmp_path))[:0].verdict == ["quality: of no image"]


@pytest.mark.parametrize("evidence", [3.0, np.nan])
@pytest.mark.parametrize("ending", ["fits", "npz"])
def test_a_band_of_several(tmp_path, ending, evidence):
    one = fresh(fits_result(tmp_path).with_name("lens.fits"))
    images = read_images(tmp_path / "lens.fits")
    table = {"name": np.array(["a"]), "value": np.array([1.5]), "error": np.array([0.1]), "unit": np.array(["arcsec"])}
    planes = {name: plane for name, plane in one.planes.items() if name not in ("quality", "reasons")}
    bands = {"VIS": (images, planes), "NIR_H": (images, planes | {"image": 2 * planes["image"]})}
    assert one.chi2 != 1.1
    numbers, words = {"theta_E": 0.95, "chi2": 1.1, "evidence": evidence}, {"quality": "suspect", "reasons": "a; b"}
    write_joint(tmp_path / f"b.{ending}", JointFile(bands, table, numbers, words, SCALE, {"scale": SCALE}))
    with pytest.raises(lp.LensphysError, match="b.* is a result of several bands: choose the band VIS or NIR_H"):
        lp.read_result(tmp_path / f"b.{ending}")
    again = lp.read_result(tmp_path / f"b.{ending}", band="NIR_H")
    assert again.image == pytest.approx(2 * one.image) and again.pixel_scale == one.pixel_scale
    assert (again.quality, again.reasons, again.theta_E) == ("suspect", ["a", "b"], 0.95)
    assert list(again.table["name"]) == ["a"] and again.table["value"][0] == 1.5
    assert again.plot().axes
    done = CliRunner().invoke(app, ["show", f"{tmp_path}/b.{ending}", "--no-open"])
    assert done.exit_code == 0 and "one lens in 2 bands" in done.output and "catalogue" not in done.output
    results = read_results(tmp_path / f"b.{ending}")
    assert results.told == "one lens in 2 bands" and again.chi2 == pytest.approx(one.chi2)
    shown = [lens() for lens in results.lenses]
    assert [lens.name for lens in shown] == ["b VIS", "b NIR_H"]
    assert shown[1].planes["image"] == pytest.approx(2 * shown[0].planes["image"])
    assert shown[1].numbers["theta_E"] == 0.95 and shown[1].numbers["chi2"] == pytest.approx(one.chi2)


def test_a_result_as_an_input_is_called_one(tmp_path):
    path = fits_result(tmp_path)
    assert any("lens_sr.fits is a result of lensphys" in remark for remark in read_images(path).remarks)
    assert not any("is a result" in remark for remark in read_images(tmp_path / "lens.fits").remarks)
    with fits.open(path, mode="append") as hdus:  # as of a lens whose galaxy shines
        hdus.append(fits.ImageHDU(hdus["LR"].data, hdus["LR"].header, name="ARC"))
    again = read_images(path)
    assert any("PRIMARY was super-resolved before" in remark for remark in again.remarks)
    assert again.observation.image.shape[-2:] == fits.getdata(path).shape
    before = read_images(path, Reading(choice=Choice(extension="LR"))).observation
    assert before.image[0, 0].numpy() == pytest.approx(fits.getdata(path, "LR"))
    assert before.noise.sigma[0, 0].numpy() == pytest.approx(fits.getdata(path, "NOISE"))
    remarks = read_images(npz_result(tmp_path, 1), Reading(pixel_scale=PIXEL)).remarks
    assert any("stack.npz is a result of lensphys: IMAGE was super-resolved before" in remark for remark in remarks)
