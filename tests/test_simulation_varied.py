"""The recipe in which every image has its own lens, PSF and noise; and recipes without it stay as they were."""

from __future__ import annotations

import json
import math

import h5py
import numpy as np
import pytest
import torch
from lenstronomy.Data.imaging_data import ImageData
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel

from lensphys.basics.checks import LensphysError
from lensphys.data import LensFile
from lensphys.data.images import Reading, read_images
from lensphys.model import SIE, Sersic, Shear
from lensphys.observation import GaussianPSF, Instrument
from lensphys.simulation import Recipe, simulate
from lensphys.simulation.plan import Plan
from lensphys.tracing.deflection import DeflectionField
from lensphys.training.batches import Batches
from lensphys.training.loop import TrainingSettings

EXTREME = ["conditions.psf_fwhm={kind: uniform, low: 0.05, high: 0.5}"]
CONDITIONS = ("psf_fwhm", "exposure_time", "background_rms")


@pytest.fixture(scope="module", params=["torch", "lenstronomy"])
def path(tmp_path_factory, request):
    """Eight lenses without substructure whose PSFs differ up to ten times in width."""
    recipe, out = Recipe.named("varied", EXTREME), tmp_path_factory.mktemp("varied") / f"{request.param}.h5"
    return simulate(recipe, 8, out, classes=["no_sub"], seed=4, engine=request.param)


def model(file: LensFile) -> tuple[Sersic, SIE]:
    """The truth of all images in our own profiles, (B,) each."""
    trees = [file.lens_model(i) for i in range(len(file))]

    def numbers(key: str, position: int) -> dict[str, torch.Tensor]:
        tables = [tree[key][position] for tree in trees]
        return {k: torch.tensor([t[k] for t in tables], dtype=torch.float64) for k in tables[0]}

    return Sersic(**numbers("kwargs_source", 0)), SIE(**numbers("kwargs_lens", 0)) + Shear(**numbers("kwargs_lens", 1))


def test_each_image_was_taken_as_the_file_says(path):
    """Our profiles, the file's PSF widths and noise give chi^2 = 1 for each image; its neighbour's do not."""
    with LensFile(path) as file:
        taken = file.observation()
        source, mass = model(file)
        assert float(taken.camera.psf.fwhm.max() / taken.camera.psf.fwhm.min()) > 3
        field = DeflectionField.from_lens(mass, taken.camera.grid, like=torch.empty(0, dtype=torch.float64))
        clean = taken.camera.render(source, field)
        assert torch.from_numpy(file.read("theta_E")).tolist() == mass.profiles[0].theta_E.tolist()
        # centre-of-pixel images of float32, the same on LR and HR pixels
        assert float((clean - torch.from_numpy(file.read("lr_clean"))).abs().max() / clean.max()) < 1e-5
        fine = taken.camera.at(2)
        hr = fine.render(source, DeflectionField.from_lens(mass, fine.grid, like=clean))
        assert float((hr - torch.from_numpy(file.read("hr_clean"))).abs().max() / hr.max()) < 1e-5
        chi2 = taken.chi2(clean) / taken.n_unmasked
        assert bool(((chi2 > 0.9) & (chi2 < 1.1)).all()), chi2  # 1 +- sqrt(2 / 4096) = 0.02
        other = taken.camera.rows(torch.arange(8).roll(1)).render(source, field)
        assert float((taken.chi2(other) / taken.n_unmasked).median()) > 2
        shuffled = taken.noise.rows(torch.arange(8).roll(1)).variance(clean)
        ratio = ((taken.image - clean) ** 2 / shuffled).mean((1, 2, 3))
        assert float(ratio.log().abs().mean()) > 0.5  # with its own noise: 0.02


def test_the_engine_blurs_as_lenstronomy_does(path):
    with LensFile(path) as file:
        for i in (0, 5):
            tree = file.lens_model(i)
            for name, pixels, scale in (("lr_clean", 64, 0.08), ("hr_clean", 128, 0.04)):
                corner = -(pixels - 1) / 2 * scale
                data = ImageData(
                    image_data=np.zeros((pixels, pixels)),
                    ra_at_xy_0=corner,
                    dec_at_xy_0=corner,
                    transform_pix2angle=np.eye(2) * scale,
                )
                image = ImageModel(
                    data,
                    PSF("GAUSSIAN", fwhm=float(file.read("psf_fwhm", i)[0])),
                    lens_model_class=LensModel(tree["lens_model_list"]),
                    source_model_class=LightModel(tree["source_light_model_list"]),
                ).image(tree["kwargs_lens"], tree["kwargs_source"])
                # stored as float32; the torch engine computes light in it, too
                tolerance = 2e-7 if path.stem == "lenstronomy" else 1e-5
                assert np.abs(image - file.read(name, i)[0, 0]).max() < tolerance * image.max()


def test_the_file_gives_back_what_was_drawn(path):
    with h5py.File(path) as raw, LensFile(path) as file:
        assert {name: raw[name].attrs["unit"] for name in CONDITIONS} == {
            "psf_fwhm": "arcsec", "exposure_time": "s", "background_rms": "e-/s per pixel"
        }  # fmt: skip
        assert all(raw[name].shape == (8,) and len(set(raw[name][:])) == 8 for name in CONDITIONS)
        recipe = Recipe.parse(json.loads(raw.attrs["recipe"]), "attribute")
        assert recipe == Recipe.named("varied", EXTREME) and recipe.conditions is not None
        part, whole = file.observation([6, 1, 6]), file.observation()[torch.tensor([6, 1, 6])]
        assert torch.equal(part.image, whole.image)
        assert torch.equal(part.camera.psf.fwhm, whole.camera.psf.fwhm)
        assert torch.equal(part.noise.variance(part.image), whole.noise.variance(part.image))
        assert part.noise.exposure_time.flatten().tolist() == pytest.approx(raw["exposure_time"][:][[6, 1, 6]].tolist())


def test_training_and_users_see_the_conditions_of_each_image(path):
    """The batches of a training, and `read_images`, with the run's instrument, another one, and a user's own."""
    with LensFile(path) as file:
        fwhm, rms = (torch.from_numpy(file.read(name)).float() for name in ("psf_fwhm", "background_rms"))
        batches = Batches(file, TrainingSettings(epochs=1, batch_size=4), 0, needs_truth=True)
        index = batches.of_epoch(0, 0, 1)[0]
        batch = batches.read(index, torch.device("cpu"))
        taken, truth = batch.observation, batch.truth
        assert torch.equal(taken.camera.psf.fwhm, fwhm[index]) and len(truth) == 4
        assert torch.equal(taken.noise.background_rms.flatten(), rms[index])
    for instrument in (None, Instrument.named("model_3")):
        taken = read_images(path, Reading(instrument=instrument)).observation
        assert torch.equal(taken.camera.psf.fwhm, fwhm)
        assert torch.equal(taken.noise.background_rms.flatten(), rms)
    other = read_images(path, Reading(instrument=Instrument.named("model_2"))).observation
    assert other.camera.psf == GaussianPSF(0.16) and other.noise.exposure_time == 2264


def test_the_recipe_spans_what_it_says(tmp_path):
    recipe = Recipe.named("varied", ["height=64", "upscale=1"])
    with LensFile(simulate(recipe, 40, tmp_path / "a.h5", classes=["no_sub"])) as file:
        source, mass = model(file)
        sie, shear = mass.profiles
        low, high = file.read("theta_E").min(), file.read("theta_E").max()
        assert 0.6 <= low < 0.7 and 1.3 < high <= 1.4
        for size, most in ((torch.hypot(sie.e1, sie.e2), 0.3), (torch.hypot(shear.gamma1, shear.gamma2), 0.08)):
            assert 0.7 * most < float(size.max()) <= most
        assert 0.03 < float(sie.center_x.std()) < 0.07  # 0.05 +- 0.006
        assert float(source.R_sersic.max()) > 0.36 and float(source.n_sersic.min()) < 1.2
        fluxes = [LightModel(["SERSIC_ELLIPSE"]).total_flux(file.lens_model(i)["kwargs_source"])[0] for i in range(40)]
        assert 4 < max(fluxes) / min(fluxes) < 5.02
        clean = file.read("lr_clean").max((1, 2, 3))
        sn = clean / np.sqrt(file.read("background_rms") ** 2 + clean / file.read("exposure_time"))
        assert 20 < np.percentile(sn, 5) < 60 and 150 < np.percentile(sn, 95) < 400


@pytest.mark.parametrize("name", ["axion", "cdm"])
def test_substructure_is_that_of_the_other_recipes(name):
    varied, legacy = Recipe.named("varied"), Recipe.named("model_3")
    assert varied.classes[name] == legacy.classes[name]
    assert varied.z_source_convention == legacy.z_source_convention


def test_noisy_hr_images_have_the_sky_of_their_pixels(tmp_path):
    changes = [*EXTREME, "hr_noise=true", "conditions.background_rms=0.4"]
    with LensFile(simulate(Recipe.named("varied", changes), 2, tmp_path / "a.h5", classes=["no_sub"])) as file:
        clean = file.read("hr_clean").astype(np.float64)
        variance = 0.2**2 + clean / file.read("exposure_time")[:, None, None, None]
        chi2 = ((file.read("hr") - clean) ** 2 / variance).mean((1, 2, 3))
        assert chi2 == pytest.approx([1, 1], abs=5 * math.sqrt(2 / 128**2))


def test_instruments_in_counts_may_vary_their_psf(tmp_path):
    recipe = Recipe.named(
        "model_1_older", ["height=20", "width=24", "conditions={psf_fwhm: {kind: uniform, low: 0.05, high: 0.2}}"]
    )
    with LensFile(simulate(recipe, 2, tmp_path / "a.h5", classes=["no_sub"])) as file:
        fwhm = file.read("psf_fwhm")
        assert fwhm[0] != fwhm[1] and file.observation().camera.psf.fwhm.tolist() == pytest.approx(fwhm.tolist())


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ("varied", ["conditions={exposure_time: 100}"], "make the noise together: give both or neither"),
        ("varied", ["conditions.fwhm=0.1"], "unknown key 'conditions.fwhm'"),
        (
            "varied",
            ["conditions.psf_fwhm=-0.1"],
            "'conditions.psf_fwhm': must be positive, got -0.1",
        ),
        ("model_1", ["conditions={exposure_time: 100, background_rms: 0.1}"], "'conditions' may only draw psf_fwhm"),
    ],
)
def test_faulty_conditions_are_refused(recipe, changes, message, tmp_path):
    with pytest.raises(LensphysError, match=message):
        simulate(Recipe.named(recipe, changes), 1, tmp_path / "x.h5")


# A seed must give the same lenses for ever: these are what commit 021e134 (one engine,
# noise from torch) drew with seed 5. Number of lenses, theta_E of the main one, theta_E and x of the last
# body, the sum of the numbers of the source.
SCENES = {
    ("model_1", "axion", 0): (101, 1.2814905676172956, 0.02219606772533436, 0.14626043073583175, 21.345127586550557),
    ("model_1", "axion", 7): (101, 1.2814905676172956, 0.02219606772533436, 0.334512499481315, 21.12942763794855),
    ("model_1", "cdm", 0): (26, 1.2814905676172956, 0.0752528484261222, -0.44436642771061935, 20.745177267795082),
    ("model_1", "cdm", 7): (26, 1.2814905676172956, 0.08029782213636535, 0.04900539929247151, 20.771797405170854),
    ("model_1_older", "axion", 3): (
        102,
        1.2814905676172956,
        0.02219606772533436,
        -0.171929885536867,
        21.37343368455573,
    ),
    ("model_1_older", "cdm", 3): (27, 1.2814905676172956, 0.003865774173193884, 1.3098462568818285, 21.292265365446724),
    ("model_2", "axion", 3): (101, 0.8128249069934249, 0.017677336774269588, -0.171929885536867, 260.9591578278006),
    ("model_2", "cdm", 3): (26, 0.8128249069934249, 0.0030787702037340233, 1.3098462568818285, 260.8779895086916),
    ("model_3", "axion", 3): (101, 0.8128249069934249, 0.017677336774269588, -0.171929885536867, 325.1763865136561),
    ("model_3", "cdm", 3): (26, 0.8128249069934249, 0.0030787702037340233, 1.3098462568818285, 325.0952181945471),
    ("varied", "axion", 0): (102, 1.1167283820980083, 0.017677336774269588, -0.3983123192562414, 59.437130920116324),
    ("varied", "axion", 7): (102, 0.9494440562395178, 0.017677336774269588, 0.025173605206068612, 180.0220095298485),
    ("varied", "cdm", 0): (27, 1.286446861244299, 0.036907985173836234, 0.6472297959689923, 22.18003287058469),
    ("varied", "cdm", 7): (27, 0.9230021303018439, 0.05611495294206324, 1.4572396528312874, 102.47591119475969),
}

# What guards the noise streams and the hash that lets a run go on: both may change, but only on purpose (`_STREAMS` in
# the plan grows with the former). Identity, and the sum of the LR images 2 and 4 (cdm, axion).
FILES = {
    "model_1": ("93e338eaac9e2735488a7e77f9497926f1983c12acd4217f3e5a5788d0e17223", 8117, 2309),
    "model_1_older": ("0f227698666f8cafe11b64f9498c07b81f437f89aea674eaa6b5115ef6e0372e", 9488, 2734),
    "model_2": ("a722e3569593d67bd0008f80d8175507bbb38ae3c0827884b03ab26960d487b1", 642.47824, 1333.5842),
    "model_2_zp24": ("8fd4dfb9e55b43617c04b8f4e02bff5c39d19ffe9810b22e39d081d9f04414d9", 131.91942, 273.86727),
    "model_3": ("ed6bd50b9478bb4701b7ef946a67a747abe1d6c410e5833dc8055d590c87c682", 533.7933, 1139.4379),
    "varied": ("08e6c7473ebdbef0529e66cd9c81b73c271eff9f0109d7fc1031da4dca9516da", 36.75227, 74.917766),
}


@pytest.mark.parametrize("key", SCENES)
def test_the_lenses_of_a_seed_stay_what_they_were(key):
    name, class_name, index = key
    plan = Plan.from_recipe(Recipe.named(name), 1, seed=5)
    position = int(index) * len(plan.classes) + plan.classes.index(class_name)
    scene = plan.drawn(position).scene
    last = scene.kwargs_lens[-1]
    numbers = (len(scene.kwargs_lens), scene.theta_E, last["theta_E"], last["center_x"])
    assert (*numbers, sum(scene.kwargs_source[0].values())) == pytest.approx(SCENES[key], rel=1e-12)


@pytest.mark.parametrize("name", FILES)
def test_recipes_make_the_files_they_made(name, tmp_path):
    out = simulate(Recipe.named(name, ["height=20", "width=24", "hr_noise=false"]), 3, tmp_path / "a.h5", seed=5)
    with LensFile(out) as file:
        identity, *sums = FILES[name]
        assert file.identity == identity
        assert file.lr([2, 4]).double().sum((1, 2, 3)).tolist() == pytest.approx(sums, rel=1e-6)
        for condition in CONDITIONS:
            if name == "varied":
                assert len(set(file.read(condition))) == 9
                continue
            with pytest.raises(LensphysError, match=f"has no /{condition}"):
                file.read(condition)
