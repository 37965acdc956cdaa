import dataclasses
import json
import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from lenstronomy.Data.imaging_data import ImageData
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from scipy.stats import kstest

from lensphys.basics.checks import LensphysError
from lensphys.basics.settings import read_yaml
from lensphys.data import LensFile
from lensphys.observation import Conditions, Instrument, RectifiedCountNoise
from lensphys.simulation import Recipe, recipe_names, simulate
from lensphys.simulation.bodies import Host
from lensphys.simulation.cosmology import deflection_scale, einstein_radius_of_solar_mass
from lensphys.simulation.detector import draw_detector
from lensphys.simulation.plan import Plan
from lensphys.simulation.sample import Samples, Seeds, draw, render
from lensphys.simulation.scene import Scene, draw_scene

MODELS = ["model_1", "model_2", "model_3"]
CLASSES = ["no_sub", "axion", "cdm"]
PARITY = Path(__file__).parents[2] / "shared" / "legacy" / "parity.npz"
SMALL = ["height=12", "width=16"]  # H != W, and fast


def engine_of(recipe: Recipe, engine: str = "lenstronomy"):
    return Plan.from_recipe(recipe, 1, engine=engine).build_engine()


def sample_of(recipe: Recipe, name: str, index: int = 0, seed: int = 0, engine: str = "lenstronomy") -> Samples:
    drawn = draw(recipe, Instrument.named(recipe.instrument), name, Seeds.for_sample(seed, name, index, "x"))
    return render(recipe, engine_of(recipe, engine), [drawn])


@pytest.fixture(scope="module")
def parity():
    if not PARITY.is_file():
        pytest.skip("the legacy samples are not here")
    return np.load(PARITY)


# --- physics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["lenstronomy", "torch"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", CLASSES)
def test_engine_matches_the_legacy_data(parity, model, name, engine):
    engine = engine_of(Recipe.named(model), engine)
    for i in range(2):
        part = {k: parity[f"{model}/{name}/{i}/{k}"] for k in ("points_theta_E_x_y", "main_theta_E", "source_center")}
        points = [dict(zip(("theta_E", "center_x", "center_y"), p, strict=True)) for p in part["points_theta_E_x_y"].T]
        main = {"theta_E": float(part["main_theta_E"]), "center_x": 0.0, "center_y": 0.0}
        x, y = part["source_center"]
        source = {"amp": 20.0 if model == "model_1" else 1.0, "R_sersic": 0.25, "n_sersic": 1.0, "e1": -0.1, "e2": 0.1}
        source |= {"center_x": x, "center_y": y}
        names = ["SIS"] + ["POINT_MASS"] * len(points)
        image = engine.render([Scene(names, [main, *points], ["SERSIC_ELLIPSE"], [source])], Conditions())
        for key, mine in (("lr", image.lr[0, 0]), ("hr", image.hr[0, 0]), ("alpha_hr", image.alpha_hr[0])):
            theirs = parity[f"{model}/{name}/{i}/{key}"]
            # the legacy arrays are float32
            assert np.abs(mine.numpy() - theirs).max() <= 1e-5 * np.abs(theirs).max(), key


@pytest.mark.parametrize("model", MODELS)
def test_masses_give_the_legacy_einstein_radii(parity, model):
    recipe = Recipe.named(model)
    scale = deflection_scale(recipe.z_lens, recipe.z_source, recipe.z_source_convention)
    assert scale == (1.0 if model == "model_1" else pytest.approx(0.63428, abs=5e-6))
    scene = draw_scene(recipe, Instrument.named(recipe.instrument), "axion", np.random.default_rng(0))
    assert scene.theta_E == pytest.approx(float(parity[f"{model}/axion/0/main_theta_E"]), rel=1e-9)
    points = parity[f"{model}/axion/0/points_theta_E_x_y"]
    assert scene.lens_model_list == ["SIS"] + ["POINT_MASS"] * 100
    assert scene.kwargs_lens[1]["theta_E"] == pytest.approx(points[0, 0], rel=1e-9)
    # the half-length of the vortex against the stored axion mass
    end = math.hypot(*points[1:, -1])
    assert end == pytest.approx(0.03 * 1e-22 / float(parity[f"{model}/axion/0/axion_mass"]), rel=1e-9)
    mine = scene.kwargs_lens[-1]
    assert math.hypot(mine["center_x"], mine["center_y"]) == pytest.approx(0.03 * 1e-22 / scene.axion_mass, rel=1e-9)


def test_einstein_radius_of_the_main_lens():
    assert 1e12**0.5 * einstein_radius_of_solar_mass(0.5, 1.0, "luminosity") == pytest.approx(1.2814905676, rel=1e-9)


def test_subhalo_masses_follow_the_power_law():
    recipe = Recipe.named("model_2", ["classes.cdm.number=20000", "classes.cdm.slope=-1.9"])
    host = Host(0.1, -0.2, recipe.masses)
    points = recipe.classes["cdm"].sample(np.random.default_rng(0), host)
    mass = (points.parameters["theta_E"] / recipe.masses.einstein_radius(1.0)) ** 2
    x, y = points.parameters["center_x"] - 0.1, points.parameters["center_y"] + 0.2
    low, high = 1e6**-0.9, 1e10**-0.9
    assert kstest(mass, lambda m: (low - m**-0.9) / (low - high)).pvalue > 0.01
    assert kstest(np.hypot(x, y), lambda r: (r - 0.25) / 1.75).pvalue > 0.01
    assert kstest(np.arctan2(y, x), lambda a: (a + math.pi) / (2 * math.pi)).pvalue > 0.01
    assert math.isnan(points.axion_mass)


def test_subhalo_masses_of_the_recipe_are_those_of_the_legacy_data(parity):
    scale = [1.0, *[deflection_scale(0.5, 1.0, 2.5)] * 2]
    theirs = np.concatenate(
        [
            parity[f"{m}/cdm/{i}/points_theta_E_x_y"][0] ** 2 / s
            for m, s in zip(MODELS, scale, strict=True)
            for i in (0, 1)
        ]
    )
    mass = theirs / einstein_radius_of_solar_mass(0.5, 1.0, "luminosity") ** 2
    population = Recipe.named("model_1").classes["cdm"]
    p = population.slope + 1
    assert kstest(mass, lambda m: (m**p - 1e6**p) / (1e10**p - 1e6**p)).pvalue > 0.05


@pytest.mark.parametrize("model", ["model_2", "model_2_zp24", "model_3"])
def test_magnitude_is_the_flux_of_the_source(model):
    recipe = Recipe.named(model)
    instrument = Instrument.named(recipe.instrument)
    scene = draw_scene(recipe, instrument, "no_sub", np.random.default_rng(0))
    flux = LightModel(["SERSIC_ELLIPSE"]).total_flux(scene.kwargs_source)[0]
    assert flux == pytest.approx(10 ** (-0.4 * (20 - instrument.zero_point)), rel=1e-12)


def test_older_model_1_has_an_elliptical_lens_shear_and_a_psf():
    recipe = Recipe.named("model_1_older")
    instrument = Instrument.named(recipe.instrument)
    scene = draw_scene(recipe, instrument, "cdm", np.random.default_rng(0))
    assert scene.lens_model_list[:2] == ["SIE", "SHEAR"]
    assert (scene.kwargs_lens[0]["e1"], scene.kwargs_lens[1]["gamma1"]) == (0.1, 0.05)
    assert instrument.psf.fwhm == 0.087


def test_engine_agrees_with_lenstronomys_image_model():
    recipe = Recipe.named("model_1_older", ["height=40", "width=40"])
    scene = draw_scene(recipe, Instrument.named(recipe.instrument), "cdm", np.random.default_rng(1))
    image = engine_of(recipe).render([scene], Conditions())
    assert np.allclose(
        image.hr[0, 0], plain_lenstronomy(dataclasses.asdict(scene), (80, 80), 0.025, 0.087)[0], rtol=1e-12
    )


def plain_lenstronomy(model: dict, shape: tuple[int, int], scale: float, fwhm: float | None):
    height, width = shape
    data = ImageData(
        image_data=np.zeros(shape),
        ra_at_xy_0=-(width - 1) / 2 * scale,
        dec_at_xy_0=-(height - 1) / 2 * scale,
        transform_pix2angle=np.eye(2) * scale,
    )
    psf = PSF("NONE") if fwhm is None else PSF("GAUSSIAN", fwhm=fwhm)
    lens, light = LensModel(model["lens_model_list"]), LightModel(model["source_light_model_list"])
    image = ImageModel(data, psf, lens_model_class=lens, source_model_class=light)
    x, y = data.pixel_coordinates
    alpha = np.stack(lens.alpha(x, y, model["kwargs_lens"]))
    return image.image(model["kwargs_lens"], model["kwargs_source"]), alpha


# --- noise ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_lr_noise_follows_the_noise_law(model):
    recipe = Recipe.named(model, ["source.center_x=0.1", "source.center_y=0.05"])
    if model == "model_1":
        recipe = Recipe.named(model, ["source.center_x=0.1", "source.center_y=0.05", "counts.exposure_time=1500"])
    instrument = Instrument.named(recipe.instrument)
    clean = torch.from_numpy(sample_of(recipe, "no_sub").lr_clean).double()
    detector = draw_detector(recipe, instrument, np.random.default_rng(0))
    generator, draws = np.random.default_rng(0), 400
    noisy = torch.cat([detector.lr(clean, generator) for _ in range(draws)])
    clean = clean * detector.flux_scale
    law = instrument.noise_of(clean)
    if model == "model_1":
        law = RectifiedCountNoise(torch.full((1, 1, 1, 1), 15.0), torch.full((1, 1, 1, 1), 2.0))
        assert detector.flux_scale == 1500 and bool((noisy == noisy.round()).all()) and float(noisy.min()) == 0
    pixels = clean.numel()
    error = (noisy.mean(0) - law.expected(clean)) / (law.variance(clean) / draws).sqrt()
    # the mean of squared standard scores is 1 +- sqrt(2 / pixels); 5 sigma
    assert float((error**2).mean()) == pytest.approx(1, abs=5 * math.sqrt(2 / pixels))
    # the mean variance ratio is 1 +- sqrt((kurtosis - 1) / (draws pixels)), kurtosis below 6 here; 5 sigma
    ratio = noisy.var(0) / law.variance(clean)
    assert float(ratio.mean()) == pytest.approx(1, abs=5 * math.sqrt(5 / draws / pixels))


def test_samples_carry_the_noise_of_their_instrument():
    samples = [sample_of(Recipe.named("model_3"), "no_sub", i) for i in range(4)]
    noise = Instrument.named("model_3").noise_of(torch.zeros(1, 1, 1, 1))
    for s in samples:
        clean = torch.from_numpy(s.lr_clean).double()
        chi2 = ((torch.from_numpy(s.lr).double() - clean) ** 2 / noise.variance(clean)).mean()
        assert float(chi2) == pytest.approx(1, abs=5 * math.sqrt(2 / 64**2))


def test_hr_noise_is_legacy_noise_and_leaves_the_lr_image_alone():
    for model in ("model_1", "model_2"):
        clean, noisy = (sample_of(Recipe.named(model, [f"hr_noise={flag}"]), "cdm") for flag in ("false", "true"))
        assert clean.hr is None and noisy.hr is not None
        assert np.array_equal(clean.lr, noisy.lr) and np.array_equal(clean.hr_clean, noisy.hr_clean)
        hr = torch.from_numpy(noisy.hr_clean).double()
        if model == "model_1":
            flux_scale = noisy.drawn[0].detector.flux_scale
            counts = noisy.hr.astype(np.float64) * flux_scale
            assert np.abs(counts - counts.round()).max() < 1e-3
            variance = (hr / flux_scale).clamp(min=1e-12)
            bright = hr * flux_scale > 5
        else:
            fine = Instrument.named(model).model_copy(update={"pixel_scale": 0.0505})
            variance, bright = fine.noise_of(hr).variance(hr), torch.ones_like(hr, dtype=torch.bool)
        chi2 = ((torch.from_numpy(noisy.hr).double() - hr) ** 2 / variance)[bright].mean()
        assert float(chi2) == pytest.approx(1, abs=6 * math.sqrt(2 / int(bright.sum())))


def test_a_sample_depends_on_its_class_and_index_alone():
    recipe = Recipe.named("model_2", SMALL)
    a, b = sample_of(recipe, "cdm", 1), sample_of(recipe, "cdm", 1)
    first, again = a.drawn[0].scene, b.drawn[0].scene
    assert first.text() == again.text() and np.array_equal(a.lr, b.lr)
    for name, index, seed in (("cdm", 2, 0), ("no_sub", 1, 0), ("cdm", 1, 1)):
        other = sample_of(recipe, name, index, seed)
        assert first.kwargs_source != other.drawn[0].scene.kwargs_source
        noise, theirs = a.lr - a.lr_clean, other.lr - other.lr_clean
        assert abs(np.corrcoef(noise.ravel(), theirs.ravel())[0, 1]) < 0.35  # 192 pixels: 5 sigma


# --- recipes -------------------------------------------------------------------------------------------------------


def test_every_recipe_parses_and_draws():
    assert {*MODELS, "model_2_zp24", "model_1_older"} <= set(recipe_names())
    for name in recipe_names():
        recipe = Recipe.named(name)
        assert Recipe.parse(json.loads(recipe.model_dump_json()), name) == recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["lens.masss=1"], "unknown key 'lens.masss', did you mean 'mass'[?]"),
        (["hights=3"], "unknown key 'hights'"),
        (["height=a"], "'height': .* got 'a'"),
        (["lens.theta_E=1.0"], "give theta_E or mass"),
        (["source.magnitude=20.0"], "give amp or magnitude"),
        (["source.center_x={kind: uniform, low: 1, high: 0}"], "low must be below high"),
        (["classes.cdm.lightest=1.0e+11"], "lightest must be below heaviest"),
        (["classes.cdm.slope=-1.0"], "slope -1"),
        (["z_lens=2.0"], "z_lens must lie between 0 and the source"),
        (
            ["source.R_sersic={kind: gauss}"],
            "R_sersic': unknown kind 'gauss', choose one of 'fixed', 'unif",
        ),
    ],
)
def test_faulty_recipes_are_refused(changes, message):
    with pytest.raises(LensphysError, match=message):
        Recipe.named("model_1", changes)


def test_misspelt_recipe_is_refused():
    with pytest.raises(LensphysError, match="unknown recipe 'model_5': choose one of .*model_1"):
        Recipe.named("model_5")
    with pytest.raises(LensphysError, match=r"settings file not found: nowhere\.yaml"):
        Recipe.named("nowhere.yaml")


def test_recipe_and_instrument_must_fit(tmp_path):
    tree = read_yaml(Path(__file__).parents[1] / "simulations" / "model_2.yaml")

    def run(**changes):
        simulate(Recipe.parse(tree | changes, "test"), 1, tmp_path / "x.h5")

    counts = {"exposure_time": 1000, "background_rms": 0.01}
    with pytest.raises(LensphysError, match="missing key 'counts'"):
        run(instrument="model_1")
    with pytest.raises(LensphysError, match="'counts' is for instruments in counts"):
        run(counts=counts)
    with pytest.raises(LensphysError, match="a magnitude needs an instrument with a zero point"):
        run(instrument="model_1", counts=counts)
    blind = tmp_path / "blind.yaml"
    blind.write_text(
        "{version: 1, description: x, pixel_scale: 0.1, unit: e-/s, psf: {kind: none}, noise: {kind: estimated}}"
    )
    with pytest.raises(LensphysError, match="noise that is estimated from images cannot be simulated"):
        run(instrument=str(blind))
    with pytest.raises(LensphysError, match=r"'lens.mass': must be positive, got -1"):
        run(lens={"kind": "sis", "mass": -1})


# --- the file ------------------------------------------------------------------------------------------------------


# stored as float32; the torch engine is within 1e-5 of the peak
@pytest.mark.parametrize(("engine", "tolerance"), [("lenstronomy", 2e-7), ("torch", 1e-5)])
def test_file_describes_itself(tmp_path, engine, tolerance):
    out = simulate(Recipe.named("model_2"), 2, tmp_path / "a.h5", seed=3, engine=engine, deflection=True)
    with h5py.File(out) as file:
        shapes = {k: file[k].shape for k in file}
        assert shapes["lr"] == shapes["lr_clean"] == (6, 1, 64, 64)
        assert shapes["hr"] == shapes["hr_clean"] == (6, 1, 128, 128)
        assert shapes["alpha_hr"] == (6, 2, 128, 128)
        assert file["hr"].id.__hash__() == file["hr_clean"].id.__hash__() and file["hr"] == file["hr_clean"]
        assert file["lr"].dtype == np.float32 and file["lr"].chunks == (1, 1, 64, 64)  # a checksum for each image
        assert file["label"][:].tolist() == [0, 1, 2, 0, 1, 2] and list(file.attrs["classes"]) == CLASSES
        assert np.isfinite(file["axion_mass"][:]).tolist() == [False, True, False] * 2
        assert np.all(file["flux_scale"][:] == 1) and file.attrs["seed"] == 3
        assert file.attrs["engine"] == engine and not file.attrs["matched"]
        assert (file.attrs["pixel_scale_lr"], file.attrs["pixel_scale_hr"]) == (0.101, 0.0505)
        recipe = Recipe.parse(json.loads(file.attrs["recipe"]), "attribute")
        assert recipe == Recipe.named("model_2")
        assert json.loads(file.attrs["instrument"])["zero_point"] == 25.72 and "lenstronomy" in file.attrs["versions"]
        for i in range(6):
            model = json.loads(file["lens_model"][i])
            image, alpha = plain_lenstronomy(model, (128, 128), 0.0505, 0.16)
            assert np.abs(alpha - file["alpha_hr"][i]).max() < tolerance * np.abs(alpha).max()
            assert np.abs(image - file["hr_clean"][i, 0]).max() < tolerance * image.max()
            assert model["kwargs_lens"][0]["theta_E"] == file["theta_E"][i]
    assert list(tmp_path.iterdir()) == [out]


def test_flux_scale_of_model_1_is_the_exposure_time(tmp_path):
    out = simulate(Recipe.named("model_1"), 1, tmp_path / "a.h5", classes=["no_sub"])
    with LensFile(out) as file:
        scale = file.read("flux_scale")[0]
        assert 10**3 <= scale <= 10**3.5
        excess = file.read("lr")[0].sum() / scale - file.read("lr_clean")[0].sum()
        # the cut leaves a pedestal of up to 0.01 / sqrt(2 pi) a pixel
        assert 0 < excess / 75**2 < 0.01 / math.sqrt(2 * math.pi)
