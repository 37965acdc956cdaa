"""What a recipe may say: distributions, correlated pairs, other recipes, other instruments, matched samples."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import TypeAdapter, ValidationError
from scipy import stats
from typer.testing import CliRunner

from lensphys.basics.checks import LensphysError
from lensphys.basics.distributions import Distribution
from lensphys.basics.settings import merged
from lensphys.cli import app
from lensphys.data import LensFile
from lensphys.observation import Instrument
from lensphys.simulation import Recipe, simulate
from lensphys.simulation.draws import Correlation, Draws
from lensphys.simulation.plan import Plan
from lensphys.simulation.writer import write

pytestmark = pytest.mark.usefixtures("few_points")

SMALL = ["height=12", "width=16"]
DRAWS = 3000


def distribution(text: str) -> Distribution:
    return TypeAdapter(Distribution).validate_python(yaml.safe_load(text))


# each beside its law in scipy
LAWS = {
    "{kind: uniform, low: -1.0, high: 3.0}": stats.uniform(-1, 4),
    "{kind: log10_uniform, low: -24.0, high: -22.0}": stats.loguniform(1e-24, 1e-22),
    "{kind: log_uniform, low: 0.1, high: 20.0}": stats.loguniform(0.1, 20),
    "{kind: normal, mean: 2.0, sigma: 0.5}": stats.norm(2, 0.5),
    "{kind: truncated_normal, mean: 1.0, sigma: 0.5, low: 0.9, high: 3.0}": stats.truncnorm(-0.2, 4, 1, 0.5),
    "{kind: truncated_normal, mean: 0.0, sigma: 1.0, low: -3.0, high: -1.5}": stats.truncnorm(-3, -1.5),
}


@pytest.mark.parametrize("text", LAWS)
def test_draws_follow_their_law(text):
    drawn, law, rng = distribution(text), LAWS[text], np.random.default_rng(0)
    sample = [drawn.sample(rng) for _ in range(DRAWS)]
    assert stats.kstest(sample, law.cdf).pvalue > 0.01
    for u in (1e-6, 0.01, 0.3, 0.5, 0.99, 1 - 1e-6):
        assert drawn.quantile(u) == pytest.approx(law.ppf(u), rel=1e-9)
    # a draw through the quantile, as correlated ones are, follows the same law
    assert stats.kstest([drawn.quantile(u) for u in rng.uniform(size=DRAWS)], law.cdf).pvalue > 0.01


@pytest.mark.parametrize("text", [text for text in LAWS if "log10" not in text and "normal, mean: 2" not in text])
def test_quantiles_never_leave_the_interval(text):
    drawn = distribution(text)
    low, high = drawn.quantile(0.0), drawn.quantile(1.0)
    assert low == pytest.approx(drawn.low, abs=1e-9) and high == pytest.approx(drawn.high, abs=1e-3)
    assert drawn.low <= low and high <= drawn.high


def test_choices_come_by_their_weights():
    rng = np.random.default_rng(0)
    for text, weights in (
        ("{kind: choice, values: [3.0, 1.0, 2.0]}", [1 / 3] * 3),
        ("{kind: choice, values: [3.0, 1.0, 2.0], weights: [6, 0, 2]}", [0.75, 0, 0.25]),
    ):
        drawn = distribution(text)
        sample = [drawn.sample(rng) for _ in range(DRAWS)]
        counts = [sample.count(value) for value in (3.0, 1.0, 2.0)]
        assert sum(counts) == DRAWS
        for count, weight in zip(counts, weights, strict=True):
            assert count == pytest.approx(weight * DRAWS, abs=4 * math.sqrt(weight * (1 - weight) * DRAWS))
        # in the order of the values, not of their size
        assert [drawn.quantile(u) for u in (0.0, 0.2, 1 - 1e-12)] == [3.0, 3.0, 2.0]


def test_a_plain_number_is_fixed_and_draws_nothing():
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    assert distribution("2.5").sample(rng) == 2.5 == distribution("{kind: fixed, value: 2.5}").quantile(0.1)
    assert rng.bit_generator.state == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{kind: uniform, low: 1.0, high: 1.0}", "low must be below high, got 1 and 1"),
        ("{kind: log_uniform, low: 0.0, high: 1.0}", "greater than 0"),
        ("{kind: log_uniform, low: 3.0, high: 2.0}", "low must be below high, got 3 and 2"),
        ("{kind: normal, mean: 0.0, sigma: -1.0}", "greater than or equal to 0"),
        ("{kind: truncated_normal, mean: 0.0, sigma: 0.0, low: 0.0, high: 1.0}", "greater than 0"),
        (
            "{kind: truncated_normal, mean: 0.0, sigma: 1.0, low: 20.0, high: 30.0}",
            "cut all of the Gaussian 0 .- 1 away",
        ),
        ("{kind: choice, values: []}", "at least 1 item"),
        ("{kind: choice, values: [1.0, 2.0], weights: [1.0]}", "one for each of the 2 values, and not all zero"),
        ("{kind: choice, values: [1.0, 2.0], weights: [0.0, 0.0]}", "one for each of the 2 values, and not all zero"),
        ("{kind: choice, values: [1.0], weights: [-1.0]}", "greater than or equal to 0"),
        ("{kind: uniform, low: .nan, high: 1.0}", "finite number"),
        ("{kind: uniform, low: 0.0, high: 1.0, hihg: 2}", "hihg"),
        ("true", "kind|valid dict"),
    ],
)
def test_impossible_distributions_are_refused(text, message):
    with pytest.raises(ValidationError, match=message):
        distribution(text)


# --- correlated pairs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [-0.7, 0.0, 0.5, 1.0])
def test_correlated_parameters_keep_their_laws(rho):
    first, second = (
        distribution("{kind: log_uniform, low: 0.1, high: 2.0}"),
        distribution("{kind: normal, mean: 0.0, sigma: 1.0}"),
    )
    rng = np.random.default_rng(1)
    pairs = []
    for _ in range(DRAWS):
        draws = Draws(rng, [Correlation(between=("a", "b"), rho=rho)])
        pairs.append((draws("a", first), draws("c", second), draws("b", second)))
        draws.check_used()
    a, c, b = np.array(pairs).T
    assert stats.kstest(a, stats.loguniform(0.1, 2).cdf).pvalue > 0.01
    assert stats.kstest(b, stats.norm.cdf).pvalue > 0.01 and stats.kstest(c, stats.norm.cdf).pvalue > 0.01
    expected = 6 / math.pi * math.asin(rho / 2)  # Spearman's, of a Gaussian copula
    assert stats.spearmanr(a, b)[0] == pytest.approx(expected, abs=4 / math.sqrt(DRAWS))
    assert abs(stats.spearmanr(a, c)[0]) < 4 / math.sqrt(DRAWS)


@pytest.mark.parametrize(
    ("between", "message"),
    [
        ("[source.R_sersic, source.size]", "correlated: source.size is no parameter that this recipe draws once"),
        ("[classes.cdm.radius, lens.mass]", "correlated: classes.cdm.radius is no parameter"),
    ],
)
def test_unknown_names_of_pairs_are_refused(between, message):
    with pytest.raises(LensphysError, match=message):
        Plan.from_recipe(Recipe.named("model_2", [f"correlated=[{{between: {between}, rho: 0.5}}]"]), 1)


@pytest.mark.parametrize(
    "pairs",
    [
        "{between: [lens.mass, lens.mass], rho: 1}",
        "{between: [lens.mass, a], rho: 1}, {between: [b, lens.mass], rho: 0}",
    ],
)
def test_a_parameter_is_in_one_pair_only(pairs):
    with pytest.raises(LensphysError, match="correlated names lens.mass twice: a parameter can be in one pair only"):
        Recipe.named("model_2", [f"correlated=[{pairs}]"])


@pytest.mark.parametrize("pair", ["{between: [a], rho: 0.5}", "{between: [a, b], rho: 1.5}", "{between: [a, b]}"])
def test_impossible_pairs_are_refused(pair):
    with pytest.raises(LensphysError, match=r"correlated.*(between|rho)"):
        Recipe.named("model_2", [f"correlated=[{pair}]"])


def test_a_recipe_draws_its_pairs():
    recipe = Recipe.named("roman")
    plan = Plan.from_recipe(recipe, 300, classes=["no_sub"])
    light = [plan.drawn(i).scene.kwargs_source[0] for i in range(300)]
    size = [k["R_sersic"] for k in light]
    flux = [k["amp"] * k["R_sersic"] ** 2 for k in light]
    assert stats.spearmanr(size, flux)[0] > 0.3  # rho -0.5 with the magnitude


# --- recipes that extend others ------------------------------------------------------------------------------------


def child(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_chain_of_recipes(tmp_path):
    child(
        tmp_path, "deep/first.yaml", "{extends: model_2, height: 20, source: {R_sersic: 0.5}, classes: {axion: null}}"
    )
    child(
        tmp_path,
        "second.yaml",
        "{extends: deep/first.yaml, width: 30, lens: {kind: sie, theta_E: 1.0, e1: 0.1, e2: 0}}",
    )
    last = child(tmp_path, "third/last.yml", "{extends: ../second.yaml, height: 24, z_source_convention: null}")
    recipe, base = Recipe.named(last, ["source.n_sersic=2.0"]), Recipe.named("model_2")
    assert (recipe.height, recipe.width, recipe.z_source_convention) == (24, 30, None)
    assert recipe.source.R_sersic.value == 0.5 and recipe.source.n_sersic.value == 2.0
    assert recipe.source.magnitude == base.source.magnitude and recipe.instrument == "model_2"
    assert list(recipe.classes) == ["no_sub", "cdm"] and recipe.classes["cdm"] == base.classes["cdm"]
    assert recipe.lens.kind == "sie" and recipe.lens.mass is None  # another kind: nothing of the old one stays
    assert Recipe.parse(json.loads(recipe.model_dump_json()), "dump") == recipe


def test_merged_leaves_its_arguments_alone():
    base = {"a": {"kind": "x", "b": 1}, "c": [1, 2], "d": 1}
    assert merged(base, {"a": {"b": 2}, "c": [3], "d": None}) == {"a": {"kind": "x", "b": 2}, "c": [3]}
    assert base == {"a": {"kind": "x", "b": 1}, "c": [1, 2], "d": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{extends: mine.yaml}", "recipe mine.yaml extends itself: mine.yaml -> mine.yaml"),
        ("{extends: other.yaml}", "extends itself: mine.yaml -> other.yaml -> mine.yaml"),
        ("{extends: model_9}", "unknown recipe 'model_9': choose one of"),
        ("{extends: nowhere.yaml}", "settings file not found: .*nowhere.yaml"),
        (
            "{extends: [model_1, model_2]}",
            "'extends' must be the name or path of one recipe, got \\['model_1', 'model_2'",
        ),
        ("{extends: model_2, hight: 3}", "unknown key 'hight'"),
        ("{extends: model_2, lens: null}", "lens"),
    ],
)
def test_faulty_extensions_are_refused(tmp_path, text, message):
    child(tmp_path, "other.yaml", "{extends: mine.yaml}")
    with pytest.raises(LensphysError, match=message):
        Recipe.named(child(tmp_path, "mine.yaml", text))


# --- one lens, several instruments ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("few_points")
def test_instruments_see_the_same_lenses():
    first = Recipe.named("roman")
    plans = {
        name: Plan.from_recipe(first.seen_by(name), 2, seed=4)
        for name in ("roman_f129", "rubin_lsst_i", "jwst_nircam_f150w")
    }
    for position in range(6):
        trees = {name: json.loads(plan.drawn(position).scene.text()) for name, plan in plans.items()}
        fluxes = {
            name: [k.pop("amp") for k in t["kwargs_source"] + t["kwargs_lens_light"]] for name, t in trees.items()
        }
        assert trees["roman_f129"] == trees["rubin_lsst_i"] == trees["jwst_nircam_f150w"]
        # the colour of the source, and the two zero points
        zero = {name: plan.instrument.zero_point for name, plan in plans.items()}
        color = first.source.color["rubin_lsst_i"]
        ratio = 10 ** (0.4 * (zero["rubin_lsst_i"] - zero["roman_f129"] - color))
        assert fluxes["rubin_lsst_i"][0] / fluxes["roman_f129"][0] == pytest.approx(ratio, rel=1e-12)
    for name, plan in plans.items():
        sky = plan.recipe.height * plan.instrument.pixel_scale
        assert sky == pytest.approx(64 * 0.11, abs=plan.instrument.pixel_scale), name


def test_pictures_of_one_sky(tmp_path):
    """Without a PSF's width to tell them apart, two telescopes see the same flux, in magnitudes."""
    first = Recipe.named("model_2", ["instrument=euclid_vis", "lens.kind=sis", "height=50", "width=60"])
    flux = []
    for name in ("euclid_vis", "hst_acs_f814w"):
        plan = Plan.from_recipe(first.seen_by(name), 1, classes=["cdm"], seed=1)
        with LensFile(write(plan, tmp_path / f"{name}.h5")) as file:
            flux.append(float(file.read("lr_clean").sum()) / Instrument.named(name).flux(20))
    assert flux[0] == pytest.approx(flux[1], rel=0.01)


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ("model_1", [], r"'counts' belongs to the instrument model_1: take it away \(--set counts=null\)"),
        ("varied", [], r"'conditions' belongs to the instrument model_3: take it away"),
        ("model_2", ["source.magnitude=null", "source.amp=3.0"], "source: a flux in the unit of model_2 means nothing"),
        ("roman", ["lens_light=[{amp: 1, R_sersic: 1, n_sersic: 1, e1: 0, e2: 0, center_x: 0, center_y: 0}]"],
         "lens_light.0: a flux in the unit of roman_f129 means nothing to euclid_vis: give a magnitude"),
    ],
)  # fmt: skip
def test_recipes_that_belong_to_their_instrument_are_refused(recipe, changes, message):
    with pytest.raises(LensphysError, match=message):
        Recipe.named(recipe, changes).seen_by("euclid_vis")


# --- with and without substructure ---------------------------------------------------------------------------------


def test_matched_samples_differ_in_their_substructure_alone(tmp_path):
    plan = Plan.from_recipe(Recipe.named("roman", ["height=30", "width=34"]), 2, seed=4, draws="matched")
    with LensFile(write(plan, tmp_path / "a.h5")) as file:
        assert file.classes == ["no_sub", "axion", "cdm"]
        noise = file.read("lr").astype(float) - file.read("lr_clean")
        sigma = np.sqrt(file.instrument.noise_of(file.lr()).variance(file.lr()).numpy())
        for index in range(2):
            trees = [file.lens_model(3 * index + label) for label in range(3)]
            for tree in trees:
                assert tree["kwargs_lens"][:2] == trees[0]["kwargs_lens"] and tree["lens_model_list"][:2] == [
                    "EPL",
                    "SHEAR",
                ]
                assert tree["kwargs_source"] == trees[0]["kwargs_source"]
                assert tree["kwargs_lens_light"] == trees[0]["kwargs_lens_light"]
            assert [len(t["kwargs_lens"]) for t in trees[:2]] == [2, 3] and len(trees[2]["kwargs_lens"]) > 3
            own = noise[3 * index : 3 * index + 3] / sigma[3 * index : 3 * index + 3]
            for label in (1, 2):
                # the same numbers, times a sigma that the substructure hardly changes
                assert np.corrcoef(own[0].ravel(), own[label].ravel())[0, 1] > 0.99
                assert not np.array_equal(file.read("lr_clean", 3 * index), file.read("lr_clean", 3 * index + label))
        assert abs(np.corrcoef(noise[0].ravel(), noise[3].ravel())[0, 1]) < 0.2
        assert file.lens_model(0)["kwargs_source"] != file.lens_model(3)["kwargs_source"]


def test_unmatched_samples_differ_in_all():
    plan = Plan.from_recipe(Recipe.named("roman"), 1, seed=4)
    first, second = (plan.drawn(i).scene for i in range(2))
    assert first.kwargs_source != second.kwargs_source and first.kwargs_lens[0] != second.kwargs_lens[0]


def test_substructure_of_matched_samples_is_a_choice_of_its_own():
    """Another class beside it, or another number of samples, changes no substructure."""
    recipe = Recipe.named("model_2", SMALL)
    all_of, cdm = (
        Plan.from_recipe(recipe, 3, draws="matched"),
        Plan.from_recipe(recipe, 2, classes=["cdm"], draws="matched"),
    )
    assert all_of.drawn(5).scene.text() == cdm.drawn(1).scene.text() != cdm.drawn(0).scene.text()
    assert (
        cdm.drawn(0).scene.text()
        != Plan.from_recipe(recipe, 2, classes=["cdm"], seed=1, draws="matched").drawn(0).scene.text()
    )


# --- the command line ----------------------------------------------------------------------------------------------


def run(*arguments: object):
    return CliRunner().invoke(app, ["simulate", *map(str, arguments)])


def sized(*sizes: str) -> list[str]:
    return [word for size in sizes for word in ("--set", size)]


def test_dry_run_shows_recipe_size_and_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("lsst", "-n", 1000, "--dry-run", "--workers", 2, "--shard-size", 100, *sized("height=20", "width=20"))
    assert done.exit_code == 0, done.output
    for text in (
        "EPL".lower(),
        "distances: angular_diameter",
        "rubin_lsst_i",
        "zero_point:",
        "read_noise:",
        "fraction:",
    ):
        assert text in done.stdout
    shown = yaml.safe_load(done.stdout[done.stdout.index("recipe") + 6 : done.stdout.index("instrument\n")])
    assert Recipe.parse(shown, "shown") == Recipe.named("lsst", ["height=20", "width=20"])
    assert "3000 samples (1000 of each class), 30 shards, 0.0" in done.stdout and "GB" in done.stdout
    assert "with 2 workers (ms a sample, measured here: no_sub " in done.stdout
    assert not list(tmp_path.iterdir())


def test_estimated_size_is_that_of_the_file(tmp_path):
    from lensphys.simulation.estimate import estimate

    plan = Plan.from_recipe(Recipe.named("model_2", SMALL), 60, shard_size=256)
    cost = estimate(plan)
    size = write(plan, tmp_path / "a.h5").stat().st_size
    assert cost.bytes == pytest.approx(size, rel=0.15) and cost.shards == 1
    assert cost.wall_seconds(2) == pytest.approx(sum(cost.seconds.values()) / 2) and set(cost.seconds) == set(
        plan.classes
    )


@pytest.mark.parametrize(
    "arguments", [[], ["--instruments", "rubin_lsst_i,euclid_vis"], ["--classes", "no_sub", "-n", 1]]
)
def test_preview_draws_a_picture(tmp_path, arguments):
    picture = tmp_path / "a.png"
    done = run("lsst", "--preview", picture, *arguments)
    assert done.exit_code == 0, done.output
    from matplotlib.image import imread

    image = imread(picture)
    assert image.shape[0] > 100 and float(image[..., :3].std()) > 0.05
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_instruments_write_a_file_each(tmp_path):
    out = tmp_path / "same.h5"
    names = "rubin_lsst_i,euclid_vis"
    done = run("lsst", "-n", 1, "-o", out, "--instruments", names, "--matched", *sized("height=12", "width=14"))
    assert done.exit_code == 0, done.output
    with LensFile(tmp_path / "same_rubin_lsst_i.h5") as a, LensFile(tmp_path / "same_euclid_vis.h5") as b:
        assert a.lens_model(2)["kwargs_lens"] == b.lens_model(2)["kwargs_lens"]
        assert b.grid_lr.shape == (round(12 * 0.2 / 0.1), round(14 * 0.2 / 0.1))
    assert len(list(tmp_path.iterdir())) == 2


def test_instruments_of_one_name_are_refused(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.yaml").write_text(Instrument.named("euclid_vis").model_dump_json())
    names = ",".join(str(tmp_path / name / "x.yaml") for name in "ab")
    done = run("lsst", "-n", 1, "-o", tmp_path / "same.h5", "--instruments", names)
    assert done.exit_code == 2 and "x.yaml would be one file: rename one of them" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_faulty_recipe_leaves_nothing(tmp_path):
    out = tmp_path / "a.h5"
    done = run("lsst", "-o", out, "--set", "source.e1=0.9", "--set", "source.e2=0.9")
    assert done.exit_code == 2 and "|e| must stay below 1: narrow their distributions" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not list(tmp_path.iterdir())
    with pytest.raises(LensphysError, match="'source.R_sersic': must be positive, got -1"):
        simulate(Recipe.named("model_2", ["source.R_sersic=-1"]), 1, out)
