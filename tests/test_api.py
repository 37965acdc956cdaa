"""What ``import lensphys as lp`` offers: its names, and that it does what the command line does."""

from __future__ import annotations

import ast
import gc
import inspect
import re
import runpy
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from astropy import constants as const
from astropy import units
from astropy.cosmology import FlatLambdaCDM
from astropy.io import fits
from astropy.wcs import WCS
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from typer.testing import CliRunner

import lensphys as lp
from lensphys.api.fit import plain
from lensphys.api.redshifts import Redshifts
from lensphys.api.words import as_arguments
from lensphys.cli import app
from lensphys.data.images import read_images
from lensphys.methods import READY
from lensphys.model import LIGHT, MASS, CosineBasis, Frame, FreeSource, Modes, PotentialField
from lensphys.tracing.deflection import DeflectionField

ROOT = Path(__file__).parents[1]
HST = ROOT / "examples" / "hst_like_lens.fits"
FAINT = np.random.default_rng(0).normal(0.0, 0.02, (64, 64)) + np.eye(64)  # [flux per pixel]
PLAIN = {"source": {"kind": "sersic"}, "subhalos": None, "potential": None}  # SIE + shear + Sersic: fast


@pytest.fixture(autouse=True)
def _no_notes():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lp.Note)
        yield


@pytest.fixture(scope="module")
def hst() -> lp.Images:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lp.Note)
        return lp.read(HST)


@pytest.fixture(scope="module")
def lens() -> lp.Lens:
    return lp.SIE(theta_E=1.1, e1=0.1, e2=-0.05) + lp.Shear(gamma1=0.03, gamma2=0.01)


@pytest.fixture(scope="module")
def seen(lens) -> lp.Images:
    source = lp.Sersic(amp=10.0, R_sersic=0.2, n_sersic=1.0, center_x=0.08)
    return lp.observe(lens, source, "euclid_vis", height=40, width=36)


@pytest.fixture(scope="module")
def fitted(seen) -> lp.Fit:
    return lp.fit(seen, model=PLAIN)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> lp.Lenses:
    recipe = lp.Recipe.named("model_3", ["height=40", "width=40"])
    return lp.simulate(recipe, 3, tmp_path_factory.mktemp("data") / "lenses.h5", classes=["no_sub"], seed=3)


# names


def test_the_import_loads_nothing_and_every_name_is_there():
    code = """
import sys, lensphys as lp
print([m for m in ("torch", "numpy", "pydantic", "astropy", "matplotlib", "h5py", "typer") if m in sys.modules])
print(sorted(dir(lp)) == sorted(lp.__all__))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.stdout.split("\n")[:2] == ["[]", "True"], done.stderr
    assert all(callable(getattr(lp, name)) for name in lp.__all__ if name != "__version__")


def test_a_component_loads_no_files_no_training_and_no_compiler():
    code = """
import sys, lensphys.model.compiled, lensphys as lp  # numba is loaded by the first call of a kernel
lp.SIE(theta_E=1.0).deflection(1.0, 0.0)
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300)
    loaded = set(done.stdout.split())
    assert "torch" in loaded, done.stderr
    assert not {"astropy", "matplotlib", "h5py", "lightning_fabric", "lenstronomy", "numba"} & loaded


def test_type_checkers_know_the_same_names():
    tree = ast.parse((ROOT / "lensphys" / "__init__.py").read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    told = {alias.asname: node.module for node in block.body for alias in node.names}  # type: ignore[attr-defined]
    assert told == lp._PLACES


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="has no attribute 'Sie': it has Dataset, EPL"):
        _ = lp.Sie


@pytest.mark.parametrize("name", [name for name in dir(lp) if name != "__version__"])
def test_every_public_name_says_what_it_is_with_an_example(name):
    told = inspect.getdoc(getattr(lp, name)) or ""
    assert "Example:" in told, f"{name} has no example"


@pytest.mark.parametrize("component", [*MASS.values(), *LIGHT.values()])
def test_every_component_says_what_its_parameters_are(component):
    told = inspect.getdoc(component) or ""
    assert [p.name for p in component.parameters if not re.search(rf"\b{p.name}: .*\S", told)] == []


# reading


def test_arrays_are_read_as_files_are(hst, tmp_path):
    with fits.open(HST) as hdus:
        image, noise = (hdus[name].data.astype("f4") for name in ("SCI", "ERR"))
        star = hdus["PSF"].data.astype(float)
    coarse = star[3:-4, 3:-4][:24, :24].reshape(6, 4, 6, 4).sum((1, 3))
    np.save(tmp_path / "image.npy", image[None])
    np.save(tmp_path / "rms.npy", noise)
    np.save(tmp_path / "psf.npy", coarse / coarse.sum())
    other = {"psf": tmp_path / "psf.npy", "noise": tmp_path / "rms.npy"}
    stack = lp.read(tmp_path / "image.npy", pixel_scale=0.05, **other)
    array = lp.read(image, pixel_scale=0.05, psf=coarse / coarse.sum(), noise=noise)
    assert array.set.fingerprint == stack.set.fingerprint
    assert torch.equal(array.set.observation.camera.psf.kernel, stack.set.observation.camera.psf.kernel)
    assert array.image.shape == (80, 80) and stack.image.shape == (1, 80, 80) and stack[0].image.shape == (80, 80)
    assert np.array_equal(array.image, image) and np.allclose(array.noise, noise)
    assert np.array_equal(hst.image, image) and np.allclose(hst.noise, noise)


def arcs() -> np.ndarray:
    """A ring on a sky of rms 0.01."""
    ring = np.exp(-((np.hypot(*np.mgrid[-16:16, -16:16]) - 8) ** 2) / 8)
    return ring + np.random.default_rng(0).normal(0, 0.01, ring.shape)


def test_the_unit_of_a_quantity_is_used_as_bunit_is(tmp_path):
    instrument = lp.Instrument.named("euclid_vis")
    rate = units.electron / units.s
    plain = lp.read(arcs(), instrument=instrument)
    same = lp.read(arcs() * rate, instrument=instrument)
    assert np.array_equal(same.image, plain.image) and np.array_equal(same.noise, plain.noise)
    assert any("the array is in electron / s" in remark for remark in same.remarks)
    flux = lp.read(arcs() * units.uJy, instrument=instrument)  # by the zero point, as a file of that BUNIT
    fits.writeto(tmp_path / "a.fits", arcs(), fits.Header({"BUNIT": "uJy", "PIXSCALE": plain.pixel_scale}))
    assert np.allclose(flux.noise, lp.read(tmp_path / "a.fits", instrument=instrument).noise, rtol=1e-6)
    assert not np.allclose(flux.noise, plain.noise, rtol=0.1)
    with pytest.raises(lp.LensphysError, match="the array holds magnitudes or another logarithm .*: give fluxes"):
        lp.read(20 * np.ones((32, 32)) * units.ABmag, pixel_scale=0.1)
    with pytest.raises(lp.LensphysError, match="the array has BUNIT m"):  # no flux at all
        lp.read(arcs() * units.m, instrument=instrument)


def test_the_unit_of_the_noise_is_brought_to_that_of_the_image():
    image, pixel = arcs() * units.uJy, {"pixel_scale": 0.1}
    of = [
        lp.read(image, noise=noise, **pixel).noise
        for noise in (0.01, 10 * units.nJy, np.full((32, 32), 10.0) * units.nJy, np.full((32, 32), 1e-4) * units.uJy**2)
    ]
    for one in of:
        assert one == pytest.approx(0.01, rel=1e-5)


def test_ccddata_comes_with_all_that_it_holds():
    from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, UnknownUncertainty
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [-0.05 / 3600, 0.05 / 3600]
    image = np.random.default_rng(0).normal(0, 0.1, (32, 32))
    image[12:20, 12:20] += 5
    masked = np.zeros((32, 32), dtype=bool)
    masked[3, 4] = True
    psf = np.outer(*2 * [[0.25, 0.5, 0.25]])
    known = {"unit": "electron/s", "mask": masked, "wcs": wcs, "psf": psf}
    ccd = CCDData(image, uncertainty=InverseVariance(np.full((32, 32), 100.0)), **known)
    read = lp.read(ccd)
    assert read.pixel_scale == pytest.approx(0.05) and "CCDData" in repr(read)
    assert read.set.observation.noise.variance(torch.zeros(1, 1, 32, 32)).sqrt().mean() == pytest.approx(0.1)
    assert (read.set.observation.weight == 0).nonzero().tolist() == [[0, 0, 3, 4]]
    assert lp.read(ccd, pixel_scale=0.1).pixel_scale == 0.1
    small = CCDData(image, uncertainty=StdDevUncertainty(np.full((32, 32), 100.0), unit="electron / ks"), **known)
    assert lp.read(small).noise == pytest.approx(0.1)
    with pytest.raises(lp.LensphysError, match="uncertainty of the images is of an unknown kind"):
        lp.read(CCDData(image, uncertainty=UnknownUncertainty(image), **known))


def test_masked_arrays_keep_their_masks():
    bad = np.zeros(ONE.shape, bool)
    bad[3:5, 6:9] = True
    image = np.ma.masked_array(np.where(bad, 99.0, ONE), bad)
    found = lp.read(image, pixel_scale=0.1, noise=0.1)
    assert np.array_equal(found.mask, ~bad) and "6 NaN or infinite pixels are masked" in "".join(found.remarks)
    noise = np.ma.masked_array(np.full(ONE.shape, 0.1), bad)
    assert np.array_equal(lp.read(ONE, pixel_scale=0.1, noise=noise).mask, ~bad)
    with pytest.raises(lp.LensphysError, match="NaN"):
        lp.read(ONE, pixel_scale=0.1, noise=0.1, psf=np.ma.masked_array(np.ones((3, 3)) / 9, np.eye(3)))


def test_one_number_for_the_noise_and_for_the_extension():
    assert (lp.read(ONE, pixel_scale=0.1, noise=0.2).noise == np.float32(0.2)).all()
    assert (lp.read(HST, ext=1).image == lp.read(HST).image).all()


def test_what_images_say_of_themselves(hst):
    assert repr(hst) == '1 image of 80 x 80 pixels of 0.05" (hst_like_lens.fits), PSF: hst_like_lens.fits[PSF]'
    assert hst.psf.shape == (31, 31) and np.isclose(hst.psf.sum(), 1) and np.isclose(hst.psf_scale, 0.0125)
    x, y = hst.positions
    assert np.isclose(x[0, 0], -1.975) and np.isclose(x[0, 1] - x[0, 0], 0.05) and np.allclose(x, y.T)
    masked = lp.read(hst.image, mask=np.arange(6400).reshape(80, 80) > 99, pixel_scale=0.05, instrument="hst_acs_f814w")
    assert "100 pixels masked" in repr(masked) and not masked.mask[0, 0] and masked.mask[-1, -1]


def test_a_stack_is_cut_as_lists_are(data):
    stack = data.images
    assert len(stack) == 3 and len(stack[1:]) == 2 and len(stack[[0, 2]]) == 2
    assert np.array_equal(stack[1:][1].image, stack[2].image) and np.array_equal(stack[-1].image, stack[2].image)
    with pytest.raises(lp.LensphysError, match="there are 3 images, 0 to 2: 5 is none"):
        stack[5]


def test_a_file_is_read_with_one_note_at_the_callers_line():
    with pytest.warns(lp.Note, match="(?s)image SCI, noise ERR.*PSF: hst_like_lens.fits") as found:
        lp.read(HST)
    assert len(found) == 1 and found[0].filename == __file__
    with pytest.warns(lp.Note) as found:
        lp.super_resolve(HST, method="nearest")
    assert len(found) == 1 and found[0].filename == __file__


ONE = np.exp(-0.5 * np.hypot(*np.mgrid[-8:8, -8:8]) ** 2 / 9)
SIS, SOURCE = lp.SIS(theta_E=1.0), lp.Sersic(amp=5.0, R_sersic=0.2, n_sersic=1.0)
REFUSED: list[tuple[Any, str]] = [
    (lambda: lp.read(ONE), "the array has no pixel scale: give pixel_scale in arcsec, or instrument"),
    (lambda: lp.read(ONE, pixel_scale=0.1, band="VIS"), "^band is about FITS files, and the array is none"),
    (lambda: lp.read(ONE[0], pixel_scale=0.1), r"the array must hold real numbers in the shape .* got float64 \(16,\)"),
    (lambda: lp.read(ONE + 1j, pixel_scale=0.1), "must hold real numbers"),
    (lambda: lp.read(ONE, pixel_scale=0.1, mask=np.ones((3, 3))), r"mask and image must have the same shape"),
    (lambda: lp.read(ONE, pixel_scale=0.1, psf=np.ones((3, 3))), "the PSF given sums to 9"),
    (lambda: lp.read(ONE, pixel_scale=0.1, noise=np.ones((3, 3))), "the noise must have the shape of the image"),
    (lambda: lp.read(HST, mask=np.ones((3, 3))), r"the mask must have the shape of the image"),
    (lambda: lp.read(HST, mask=np.full((80, 80), 0.5)), "a mask must hold truth values, or 0 and 1"),
    (lambda: lp.read(ONE, pixel_scale=0.1, mask="mask.fits"), "the mask of an array is an array, True where a pixel"),
    (lambda: lp.read(HST, mask_means="fine"), "unknown mask_means 'fine'"),
    (lambda: lp.read("nowhere.fits"), "input not found: nowhere.fits"),
    (lambda: lp.read({1: ONE}, pixel_scale=0.1), "images are a file or an array, got dict"),
    (lambda: lp.read(ONE, pixel_scale=0.1, noise={"sky": 1}), "noise must be a number, an error map .* got {'sky': 1}"),
    (lambda: lp.read(ONE, pixel_scale=0.1, noise=True), "noise must be a number, an error map .* got True"),
    (lambda: lp.read(ONE, pixel_scale=0.1, noise=ONE > 0.5), r"noise must be a number, an error map .* got array\(\["),
    (lambda: lp.read(HST, noise=np.True_), "noise must be a number, an error map .* got np.True_"),
    (lambda: lp.read(ONE, pixel_scale=0.1, noise=[1.0]), "the noise must have the shape of the image"),
    (lambda: lp.observe(SIS, SOURCE, "euclid_vis", seed="a"), "seed must be a whole number of 0 or more, got 'a'"),
    (lambda: lp.read(HST, noise=0.1), "one number for the noise is for arrays"),
    (lambda: lp.read(ONE, pixel_scale="0.1"), r"pixel_scale must be a number \[arcsec\], got '0.1'"),
    (lambda: lp.read(ONE, pixel_scale=True), r"pixel_scale must be a number \[arcsec\], got True"),
    (lambda: lp.read(ONE, pixel_scale=0.1, psf=np.eye(3) * 1j), r"must be a kernel \(K, K\) or a file of one, got arr"),
    (lambda: lp.read(ONE, pixel_scale=0.1, instrument=3), "instrument must be a preset, a YAML file or an Instrument"),
    (lambda: lp.read(ONE, pixel_scale=0.1, mask=0.5 * ONE), "a mask must hold truth values, or 0 and 1"),
    (lambda: lp.super_resolve(HST, weights="model_1", refine=-1), "refine must be a whole number of 0 or more, got -1"),
    (lambda: lp.super_resolve(HST, weights="model_1", refine=0.5), "refine must be a whole number of 0 or more"),
    (lambda: lp.read(FAINT, pixel_scale=0.05, noise=4e-4), "like a variance, .*: if so, give its square root"),
    (lambda: lp.read(np.zeros((0, 0)), pixel_scale=0.05), r"must have 8 x 8 pixels or more, got \(1, 0, 0\)"),
    (lambda: lp.super_resolve(HST, method="bicubic", weights="model_1"), "give one of weights and method"),
    (lambda: lp.super_resolve(HST, method="best"), "unknown method 'best'"),
    (lambda: lp.super_resolve(HST, weights="model_9"), "weights model_9 not found: it is no run folder"),
    (lambda: lp.super_resolve(HST, model=PLAIN, weights="model_1"), "model says what .* and weights asks for another"),
    (
        lambda: lp.super_resolve(HST, method="bicubic", batch_size=0),
        "batch_size must be a whole number of 1 or",
    ),
    (lambda: lp.super_resolve(HST, 2.5, method="bicubic"), "scale must be a whole number from 1 to 16, got 2.5"),
    (lambda: lp.fit(HST, model=[1]), r"model must be a YAML file, a mapping or a FitModel, got \[1\]"),
    (
        lambda: lp.super_resolve(HST, method="bicubic", z_lens="a", z_source=1.0),
        "between 0 and z_source, got 'a' and 1.0",
    ),
    (lambda: lp.super_resolve(HST, method="bicubic", z_lens=0.5), "give z_lens and z_source, or neither"),
    (lambda: lp.super_resolve(HST, method="bicubic", device="tpu"), "unknown device 'tpu'"),
    (lambda: lp.fit(HST, model={"lens": {"kind": "cube"}}), "cube"),
    (lambda: lp.simulate("model_3", 1, "lenses.fits"), "lenses.fits: give the name of a file that ends in .h5"),
    (lambda: lp.simulate("model_30", 1), "unknown recipe 'model_30'"),
    (lambda: lp.train("nowhere.h5", "run", epochs=1), "nowhere.h5"),
    (lambda: lp.train("nowhere.h5", "run", epochs=1, batch=3), r"training.*batch"),
    (lambda: lp.load("nowhere"), "weights nowhere not found"),
    (lambda: lp.super_resolve(HST, method="bicubic", workers=0), "workers must be a whole number of 1 or more, got 0"),
    (lambda: lp.super_resolve(HST, refine=2), "refine 2 goes on from a network's answer: give weights or a run$"),
    (lambda: lp.simulate("model_3", 1.5), "^n must be a whole number of 1 or more, got 1.5"),
    (lambda: lp.simulate("model_3", 1, seed="a"), "^seed must be a whole number of 0 or more, got 'a'"),
    (lambda: lp.simulate("euclid_vis", 1), "euclid_vis is an instrument, which any recipe takes: give model_4"),
    (lambda: lp.observe(SOURCE, SIS, "euclid_vis"), "observe takes a mass and then a source of light, got Sersic"),
    (
        lambda: lp.observe(SIS, SOURCE, "euclid_vis", height=64.5),
        "height must be a whole number of 1 or more",
    ),
    (lambda: lp.Dataset.exposures("lens.fits"), "exposures takes a list of images or files, got a single one"),
    (lambda: lp.Dataset.bands([HST]), "bands takes the images by the names of their bands"),
    (lambda: SIS.deflection("a", 1), r"positions are two numbers or arrays of one shape \[arcsec\], got 'a' and 1"),
    (lambda: SIS.deflection([1, 2], [1, 2, 3]), r"got an array of shape \(2,\) and an array of shape \(3,\)"),
    (lambda: lp.NFW(Rs=0, alpha_Rs=1), "NFW: Rs must be positive, got 0"),
]


@pytest.mark.parametrize("call, message", REFUSED, ids=[message[:30] for _, message in REFUSED])
def test_mistakes_are_told_in_the_words_of_python(call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(lp.LensphysError, match=message) as found:
        call()
    assert "--" not in str(found.value)


# rooms and files that are reached from the command line alone, or whose options are those of git
_COMMANDS = ("cli", "interop", "evaluation", "viewer", "catalogue", "downstream", "data/importing.py",
             "data/sources.py", "data/merging.py", "basics/provenance.py")  # fmt: skip
_NOT_REACHED = {"set", "scheduler", "shard-size"}  # assignments, and what no function here hands on


def arguments() -> set[str]:
    """The arguments of all public functions and methods."""
    offered = [getattr(lp, name) for name in lp.__all__]
    kinds = [inspect.getmembers(kind, inspect.isroutine) for kind in offered if inspect.isclass(kind)]
    public = [method for members in kinds for name, method in members if not name.startswith("_")]
    functions = [one for one in offered if inspect.isfunction(one)]
    made_by_hand = [lp.Dataset.__init__]
    return {name for one in (*functions, *public, *made_by_hand) for name in signature_of(one)}


def signature_of(function: Any) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # of some that are written in C, and of what is kept once it is known
        return []


def test_every_option_in_a_message_is_an_argument_in_python():
    known, looked_at, folder = arguments(), 0, Path(lp.__file__).parent
    for path in folder.rglob("*.py"):
        if path.relative_to(folder).as_posix().startswith(_COMMANDS):
            continue
        tree = ast.parse(path.read_text())
        holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        docs = {ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, holders)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or node.value in docs:
                continue
            for option in re.findall(r"--([a-z][a-z-]*[a-z])", node.value.replace("--rows :", "")):
                looked_at += 1
                said = as_arguments(f"--{option}")
                fine = said in known or said.startswith("'lensphys ") or option in _NOT_REACHED
                assert fine, f"{path}: {option} is {said} in Python: {node.value}"
    assert looked_at > 50


# super-resolving


def test_the_command_line_writes_the_same(hst, tmp_path):
    CliRunner().invoke(app, ["super-resolve", str(HST), "-o", str(tmp_path / "cli.fits"), "--method", "bicubic"])
    ours = lp.super_resolve(hst, method="bicubic").write(tmp_path / "api.fits")
    with fits.open(tmp_path / "cli.fits") as cli, fits.open(ours) as api:
        assert [hdu.name for hdu in cli] == [hdu.name for hdu in api]
        assert all(np.array_equal(a.data, b.data) for a, b in zip(cli, api, strict=True))
        assert api[0].header["HISTORY"] == cli[0].header["HISTORY"]
        sky = WCS(api[0].header).pixel_to_world(79.5, 79.5)
    assert np.isclose(sky.ra.deg, 150.1) and np.isclose(sky.dec.deg, 2.2)


def test_what_a_method_does_not_give_is_none(hst):
    result = lp.super_resolve(hst, 3, method="bicubic")
    assert result.image.shape == (240, 240) and result.residual.shape == (80, 80) and result.chi2 > 0
    absent = ("sigma", "kappa", "alpha", "source", "source_scale", "table", "subhalos", "quality", "theta_E")
    assert all(getattr(result, name) is None for name in absent) and result.reasons == []
    assert "3 times as fine" in repr(result) and "does not judge" in repr(result)


def test_results_are_written_in_all_formats_and_never_over_others(hst, tmp_path):
    result = lp.super_resolve(hst, method="bicubic")
    with np.load(result.write(tmp_path / "a.npz")) as file:
        assert np.array_equal(file["image"][0], result.image)
    with h5py.File(result.write(tmp_path / "a.h5")) as file:
        assert np.array_equal(file["image"][0], result.image) and file.attrs["scale"] == 2
    with pytest.raises(lp.LensphysError, match="exists: remove it, or choose another path, or give overwrite"):
        result.write(tmp_path / "a.npz")
    result.write(tmp_path / "a.npz", overwrite=True)
    array = lp.super_resolve(lp.read(ONE, pixel_scale=0.1), method="bicubic")
    with pytest.raises(lp.LensphysError, match="only a FITS input gives a FITS output"):
        array.write(tmp_path / "b.fits")
    with pytest.raises(lp.LensphysError, match="unknown kind of file"):
        array.write(tmp_path / "b.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "a.npz"]


def test_a_target_psf_may_be_an_array(hst, tmp_path):
    star = np.exp(-0.5 * np.hypot(*np.mgrid[-7:8, -7:8]) ** 2 / 2)
    np.save(tmp_path / "star.npy", star / star.sum())
    given = [lp.super_resolve(hst, method="bicubic", target_psf=t) for t in (tmp_path / "star.npy", star / star.sum())]
    kernels = [result.images.set.observation.camera.target_psf.kernel for result in given]
    assert torch.equal(*kernels) and torch.allclose(kernels[0].sum(), torch.tensor(1.0, dtype=torch.float64))
    assert given[1].provenance["target_psf"] == "target the target PSF"


# fitting


def test_a_fit_finds_the_lens_and_its_components_give_what_its_images_show(lens, seen, fitted):
    assert fitted.quality == "good" and fitted.reasons == [] and 0.8 < fitted.chi2 < 1.2
    rows = {row["name"]: row for row in fitted.table}
    for name, truth in {"lens.theta_E": 1.1, "lens.e1": 0.1, "shear.gamma1": 0.03, "source.R_sersic": 0.2}.items():
        assert abs(rows[name]["value"] - truth) < 4 * rows[name]["error"]
    assert rows["lens.theta_E"]["unit"] == "arcsec" and fitted.theta_E == rows["theta_E"]["value"]
    result, (x, y) = fitted.super_resolve(2), lp.positions(80, 72, 0.0505)
    assert np.allclose(fitted.lens.deflection(x, y), result.alpha, atol=1e-5)
    assert np.allclose(fitted.lens.convergence(x, y)[10:20], result.kappa[10:20], rtol=0.02)
    side = lp.positions(100, 100, result.source_scale)
    assert np.allclose(fitted.source.brightness(*side), result.source, rtol=1e-4)
    assert repr(fitted.lens).startswith("SIE(theta_E=1.1")
    (curve,), (true,) = fitted.lens.critical_curves(), lens.critical_curves()
    assert np.isclose(np.ptp(curve[0]), np.ptp(true[0]), atol=0.03)


def test_a_fit_in_the_words_of_lenstronomy(fitted):
    words, (x, y) = fitted.to_lenstronomy(), lp.positions(40, 36, 0.101)
    assert words["lens_model_list"] == ["SIE", "SHEAR"] and words["lens_light_model_list"] == []
    bent = LensModel(words["lens_model_list"]).alpha(x.ravel(), y.ravel(), words["kwargs_lens"])
    assert np.allclose(np.stack(fitted.lens.deflection(x, y)).reshape(2, -1), bent, atol=1e-6)
    behind = x.ravel() - bent[0], y.ravel() - bent[1]
    theirs = LightModel(words["source_light_model_list"]).surface_brightness(*behind, words["kwargs_source"])
    assert np.allclose(fitted.source.brightness(*behind), theirs, rtol=1e-3)
    with pytest.raises(lp.LensphysError, match=r"there are 2 fits: choose one, as fit\[0\].to_lenstronomy\(\)"):
        replace(fitted, fits=fitted.fits * 2).to_lenstronomy()


@pytest.mark.parametrize("scale", [2.5, 0.5, 0, True, 17])
def test_a_fit_is_rendered_at_whole_scales_alone(fitted, scale):
    with pytest.raises(lp.LensphysError, match="scale must be a whole number from 1 to 16"):
        fitted.super_resolve(scale)


def test_a_fit_super_resolves_as_the_method_does(seen, fitted):
    alone = lp.super_resolve(seen, 2, model=PLAIN)
    again = fitted.super_resolve(2)
    assert np.array_equal(alone.image, again.image) and np.array_equal(alone.sigma, again.sigma)
    assert alone.table.pformat() == again.table.pformat() and len(alone.subhalos) == 0
    assert alone.provenance["model"] == again.provenance["model"]
    assert alone.image.shape == (80, 72) and alone.kappa.shape == (80, 72) and alone.source.shape == (100, 100)


def test_components_of_a_fit_in_single_precision_answer_in_double():
    free = FreeSource(
        lp.Sersic(*torch.tensor([[10.0], [0.3], [1.0], [0.1], [0.0], [0.0], [0.0]])),
        torch.full((1, len(Modes(4))), 0.1),
        Modes(4),
        Frame(torch.zeros(1), torch.zeros(1), torch.ones(1), torch.ones(1)),
    )
    bent = PotentialField(torch.full((1, 3, 3), 0.02), CosineBasis(3, 5.0)) + lp.SIE(torch.tensor([1.1]))
    x, y = lp.positions(5, 6, 0.1)
    assert plain(free).brightness(x, y).dtype == plain(bent).convergence(x, y).dtype == np.float64
    assert np.allclose(free.brightness(x, y), free.brightness(x.astype("f4"), y.astype("f4")), rtol=1e-4)
    assert np.allclose(bent.potential(x, y), bent.potential(x.astype("f4"), y.astype("f4")), rtol=1e-4)
    assert repr(plain(bent)).endswith("SIE(theta_E=1.1, e1=0.0, e2=0.0, center_x=0.0, center_y=0.0)")


def test_fits_of_a_stack_are_taken_apart(data):
    fits_ = lp.fit(data.images[:2], model=PLAIN)
    assert len(fits_) == 2 and fits_.theta_E.shape == (2,) and list(fits_.quality) == ["good", "good"]
    assert set(fits_.table["image"]) == {0, 1}
    assert np.isclose(fits_[1].theta_E, fits_.theta_E[1]) and "image" not in fits_[1].table.colnames
    assert np.isclose(fits_[1].lens.profiles[0].theta_E, fits_.theta_E[1])
    with pytest.raises(lp.LensphysError, match=r"there are 2 fits: choose one, as fit\[0\].lens"):
        _ = fits_.lens


# simulating and training


def test_an_observation_is_that_of_the_camera(lens):
    source = lp.Sersic(amp=10.0, R_sersic=0.2, n_sersic=1.0)
    clean = lp.observe(lens, source, "euclid_vis", height=32, width=30, seed=None)
    camera = lp.Instrument.named("euclid_vis").camera(32, 30)
    fine = camera.grid.resampled(camera.supersampling)
    like = torch.zeros((), dtype=torch.float64)
    truth = camera.render(source, DeflectionField.from_lens(lens, fine, like=like))[0, 0].float().numpy()
    assert np.array_equal(clean.image, truth)
    noisy = [lp.observe(lens, source, "euclid_vis", height=32, width=30, seed=s).image for s in (1, 1, 2)]
    assert np.array_equal(noisy[0], noisy[1]) and not np.array_equal(noisy[0], noisy[2])
    assert 0.9 < ((noisy[0] - truth) / clean.noise).std() < 1.1
    front = lp.Sersic(amp=5.0, R_sersic=0.5, n_sersic=1.0)
    lit = lp.observe(lens, source, "euclid_vis", height=32, width=30, seed=None, lens_light=front)
    assert (lit.image - clean.image).min() > 0


def test_the_truth_is_in_the_unit_of_the_images(tmp_path):
    made = lp.simulate("model_1", 2, tmp_path / "lenses.h5", classes=["no_sub"])  # /hr_clean of it is a rate, lr counts
    light, truth = made.images.image.sum((1, 2)), made.truth.sum((1, 2))
    assert made.read("flux_scale").min() > 100
    np.testing.assert_allclose(light, truth, rtol=0.15)


def test_simulated_lenses_have_images_and_truth(data):
    assert re.fullmatch(
        r'3 lenses \(no_sub\) of 40 x 40 pixels of 0.08", truth 2 times as fine: .*lenses.h5', repr(data)
    )
    assert data.truth.shape == (3, 80, 80) and data.images.image.shape == (3, 40, 40)
    again = lp.simulate(lp.Recipe.named("model_3", ["height=40", "width=40"]), 3, classes=["no_sub"], seed=3)
    assert np.array_equal(again.images.image, data.images.image)
    path = again.path
    assert path.exists()
    again.close()
    del again
    gc.collect()
    assert not path.exists()


@pytest.mark.slow
def test_what_an_image_does_not_say_is_that_of_the_training_however_the_network_is_named(data, tmp_path):
    image, told = data.images[0].image, []
    np.save(tmp_path / "a.npy", image)
    for given, weights in ((image, "model_3"), (image, lp.load("model_3")), (tmp_path / "a.npy", lp.load("model_3"))):
        result = lp.super_resolve(given, weights=weights, refine=0)
        told.append(result.images.set.psf)
        assert result.images.noise == pytest.approx(data.images[0].noise, rel=1e-6)
    done = CliRunner().invoke(
        app, ["super-resolve", f"{tmp_path}/a.npy", "-o", f"{tmp_path}/a.npz", "--weights", "model_3", "--refine", "0"]
    )
    assert f"PSF: that of the instrument of the training ({told[0]})" in done.output
    assert told == ["HST WFC3 F160W, legacy Model 3"] * 3


def test_shipped_weights_by_name_by_folder_and_as_they_were_loaded(data):
    network = lp.load("model_3")
    folder = ROOT / "lensphys" / "weights" / "model_3"
    given = [lp.super_resolve(data.images, weights=w, refine=0) for w in ("model_3", folder, network)]
    assert all(np.array_equal(given[0].image, other.image) for other in given[1:])
    assert given[0].sigma.shape == (3, 80, 80) and given[0].quality.shape == (3,) and len(given[0].reasons) == 3
    assert np.array_equal(given[0][1].image, given[0].image[1]) and given[0][1].image.shape == (80, 80)
    assert given[0][1].theta_E == given[0].theta_E[1]


def test_any_method_object_will_do(hst):
    assert np.array_equal(
        lp.super_resolve(hst, method=READY["bicubic"]).image, lp.super_resolve(hst, method="bicubic").image
    )


LOSS = {"observation": {"form": "log"}, "variation_density": {"weight": 0.05}}


def test_a_training_on_lr_images(data, tmp_path):
    method = {"name": "physics", "network": {"name": "pyramid", "channels": 4}, "source": "joint", "loss": LOSS}
    network = lp.train(data, tmp_path / "run", method, epochs=1, batch_size=2, learning_rate=1e-3)
    result = lp.super_resolve(data.images[0], weights=network)
    assert result.image.shape == (80, 80) and np.isfinite(result.image).all() and result.alpha is not None
    loaded = lp.super_resolve(data.images[0], weights=tmp_path / "run")
    assert np.array_equal(loaded.image, result.image)
    with pytest.raises(lp.LensphysError, match="already holds a run: go on with it"):
        lp.train(data, tmp_path / "run", method, epochs=1)


# figures


def test_a_result_knows_what_its_cards_say(fitted, hst):
    found = fitted.super_resolve(2)
    assert found.numbers["subhalos"] == 0 and found.numbers["noise_scale"] == 1
    assert lp.super_resolve(hst, method="bicubic").numbers == {}


def test_a_result_is_drawn_with_all_that_it_has(fitted, hst, tmp_path):
    figure = fitted.super_resolve(2).plot()
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles[:2] == ['LR, 0.101" pixels', 'SR, 0.0505" pixels'] and titles[2].startswith("LR residual / noise")
    assert titles[3:] == ["$\\sigma$ of SR", "$\\kappa$", "source"]
    ring = figure.axes[1].lines
    assert len(ring) == 1 and np.isclose(np.ptp(ring[0].get_xdata()), 2.4, atol=0.3)  # the critical curve alone
    figure.savefig(tmp_path / "a.png")
    assert [ax.get_title() for ax in fitted.plot().axes][1] == 'model, 0.101" pixels'
    assert figure.axes[2].images[0].get_clim() == (-4.0, 4.0)  # sigma of the noise
    assert fitted.plot(sigmas=2.5).axes[2].images[0].get_clim() == (-2.5, 2.5)
    assert len([ax for ax in lp.super_resolve(hst, method="bicubic").plot().axes if ax.get_title()]) == 3


def test_images_are_drawn(data, hst):
    assert [ax.get_title() for ax in data.images.plot().axes if ax.get_title()] == ["image 0", "image 1", "image 2"]
    assert [ax.get_title() for ax in data.images.plot(most=1).axes if ax.get_title()] == ["image 0"]
    assert hst.plot().axes[0].get_title() == "hst_like_lens.fits"


def test_the_drawn_lens_is_what_its_command_draws(tmp_path):
    runpy.run_path(str(ROOT / "examples" / "draw_hst_lens.py"))["main"](tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits") as new, fits.open(HST) as ours:
        assert np.allclose(new["SCI"].data, ours["SCI"].data, atol=1e-5) and HST.stat().st_size < 200_000
        assert read_images(HST).observation.camera.grid.scale == pytest.approx(0.05)


def test_an_array_may_mask_a_file(hst):
    good = np.ones(hst.image.shape, dtype=bool)
    good[:9] = False
    seen = lp.read(HST, mask=good)
    assert not seen.mask[:9].any() and seen.mask[9:].mean() > 0.95


def test_an_array_that_masks_the_lens_is_refused():
    ring = np.hypot(*np.mgrid[-16:16, -16:16]) - 8
    image = np.exp(-(ring**2) / 8) + 0.01 * np.random.default_rng(1).standard_normal((32, 32))
    good = np.abs(ring) < 6
    given = {"pixel_scale": 0.1, "noise": 0.01, "psf": np.ones((1, 1))}
    assert int(lp.read(image, mask=good, **given).mask.sum()) == good.sum()
    with pytest.raises(lp.LensphysError, match="masks the lens"):
        lp.read(image, mask=~good, **given)
    with pytest.raises(lp.LensphysError, match=r"must be a kernel \(K, K\) or a file of one, got 0.1"):
        lp.read(image, pixel_scale=0.1, noise=0.01, psf=0.1)


@pytest.mark.parametrize("value", ["1", None, True, 1200 * units.mas])
def test_a_value_of_a_component_is_a_number(value):
    with pytest.raises(lp.LensphysError, match=r"SIE: theta_E takes numbers \[arcsec\], got"):
        lp.SIE(theta_E=value)


def test_some_images_come_in_the_order_in_which_they_are_named():
    stack = np.arange(3.0)[:, None, None] + np.random.default_rng(0).uniform(1, 2, (3, 8, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lp.Note)
        seen = lp.read(stack, pixel_scale=0.1)
        result = lp.super_resolve(seen, 2, method="bicubic")
    for wanted in ([2, 0], [1, 1], [0]):
        assert seen[wanted].image == pytest.approx(seen.image[wanted])
        assert result[wanted].image == pytest.approx(result.image[wanted])
        assert list(result[wanted].images.index) == wanted
    assert seen[::-1].image == pytest.approx(seen.image[::-1])
    assert seen[np.array([True, False, True])].image == pytest.approx(seen.image[[0, 2]])


@pytest.mark.parametrize("ending", [".fits", ".npz", ".h5"])
def test_a_result_keeps_the_redshifts_that_its_masses_were_computed_with(tmp_path, hst, ending):
    seen = hst
    if ending != ".fits":
        np.savez(tmp_path / "a.npz", image=hst.image, noise=hst.noise, pixel_scale=hst.pixel_scale)
        seen = lp.read(tmp_path / "a.npz")
    else:
        header = hst.set.header.copy()
        header.update({"Z_LENS": 0.5, "Z_SOURCE": 2.5})
        seen = replace(hst, set=replace(hst.set, header=header))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", lp.Note)
        found = lp.super_resolve(seen, method="bicubic", z_lens=0.3, z_source=2.5)
    said = [str(w.message) for w in told]
    assert said == (["the header says Z_LENS 0.5: masses are by z_lens 0.3"] if ending == ".fits" else [])
    found.write(tmp_path / f"b{ending}")
    again = lp.read_result(tmp_path / f"b{ending}")
    assert (again.provenance["z_lens"], again.provenance["z_source"]) == (0.3, 2.5)
    assert (again.planes["z_lens"].tolist(), again.planes["z_source"].tolist()) == ([0.3], [2.5])
    if ending == ".fits":
        head = fits.getheader(tmp_path / "b.fits")
        assert [head[name] for name in ("Z_LENS", "Z_SOURCE", "Z_LENS0", "Z_SOURC0")] == [0.3, 2.5, 0.5, 2.5]


def test_the_mass_within_the_einstein_radius_is_that_of_the_critical_density(tmp_path):
    """pi (D_d theta_E)^2 c^2 D_s / (4 pi G D_d D_ds), with its error and a covariance that stays in order."""
    planes = {
        "chi2": np.ones(2),
        "parameters": np.array([[0.1, 1.2], [0.2, np.nan]], "f4"),
        "errors": np.array([[0.01, 0.03], [0.02, np.nan]], "f4"),
        "parameter_names": np.array(["lens.e1", "theta_E_total"]),
        "parameter_units": np.array(["", "arcsec"]),
        "covariance": np.full((2, 2, 2), 0.5),
    }
    found = Redshifts(0.3, 1.5).completed(planes)
    cosmology = FlatLambdaCDM(H0=70, Om0=0.3, Ob0=0.05)
    near, far = (cosmology.angular_diameter_distance(z) for z in (0.3, 1.5))
    between = cosmology.angular_diameter_distance_z1z2(0.3, 1.5)
    mass = ((1.2 * units.arcsec).to(units.rad).value ** 2 * const.c**2 * near * far / (4 * const.G * between)).to(
        units.solMass
    )
    assert list(found["parameter_names"]) == ["lens.e1", "theta_E_total", "einstein_mass"]
    assert list(found["parameter_units"]) == ["", "arcsec", "solMass"]
    assert found["parameters"][0, 2] == pytest.approx(mass.value, rel=1e-5) and np.isnan(found["parameters"][1, 2])
    assert found["errors"][0, 2] == pytest.approx(2 * mass.value * 0.03 / 1.2, rel=1e-5)
    assert np.array_equal(found["covariance"][:, :2, :2], planes["covariance"])
    assert np.isnan(found["covariance"][:, 2]).all() and found["covariance"].shape == (2, 3, 3)
    assert "parameters" not in Redshifts(0.3, 1.5).completed({"chi2": np.ones(2)})


def test_fitting_and_super_resolving_are_the_same_in_inference_mode(lens):
    def found() -> Any:
        seen = lp.observe(lens, lp.Sersic(amp=5.0, R_sersic=0.2, n_sersic=1.0), "euclid_vis", height=24, width=24)
        return lp.super_resolve(seen, model=PLAIN).image

    with torch.inference_mode():
        inside = found()
    assert np.array_equal(inside, found())


def test_a_kernel_on_finer_pixels_says_its_scale(hst, tmp_path):
    y, x = np.mgrid[-20:21, -20:21] * 0.02
    sigma = 0.06
    fine = np.exp(-(x**2 + y**2) / 2 / sigma**2)
    fine /= fine.sum()
    seen = lp.read(hst.image, psf=fine, psf_scale=0.02, noise=0.01, pixel_scale=0.05)
    np.savez(tmp_path / "a.npz", image=hst.image, psf=fine, psf_scale=0.02, sigma=0.01, pixel_scale=0.05)
    same = lp.read(tmp_path / "a.npz")
    assert np.allclose(seen.psf, same.psf) and seen.psf_scale == same.psf_scale
    r2 = np.arange(len(seen.psf)) - len(seen.psf) // 2
    width = np.sqrt((seen.psf.sum(0) * r2**2).sum()) * seen.psf_scale
    assert width == pytest.approx(sigma, rel=0.05)
    told = next(line for line in seen.remarks if line.startswith("PSF: "))
    assert f'FWHM {2.3548 * sigma:.2g}", 41 x 41 pixels of 0.02"' in told
    with pytest.raises(lp.LensphysError, match="psf_scale is for a PSF that is an array"):
        lp.read(HST, psf_scale=0.02)
    with pytest.raises(lp.LensphysError, match=r"psf_scale must be a number \[arcsec\], got '0.1'"):
        lp.read(hst.image, psf=fine, psf_scale="0.1", pixel_scale=0.05)


def test_tensors_and_lists_are_arrays(hst):
    plain = lp.read(hst.image, psf=hst.psf, noise=hst.noise, mask=hst.mask, pixel_scale=0.05)
    tensors = [torch.tensor(x, requires_grad=x.dtype.kind == "f") for x in (hst.image, hst.psf, hst.noise, hst.mask)]
    for image, psf, noise, mask in (tensors, [x.tolist() for x in tensors]):
        seen = lp.read(image, psf=psf, noise=noise, mask=mask, pixel_scale=0.05)
        assert np.array_equal(seen.image, plain.image) and np.array_equal(seen.noise, plain.noise)
        assert np.allclose(seen.psf, plain.psf) and np.array_equal(seen.mask, plain.mask)
    for wrong in ([[1.0, 2.0], [3.0]], ["a.fits", "b.fits"]):
        with pytest.raises(lp.LensphysError, match="nested lists of numbers"):
            lp.read(wrong, pixel_scale=0.05)
