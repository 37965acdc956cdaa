"""What is refused before the first sample, and what instruments have of their own."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from lensphys.basics.checks import LensphysError
from lensphys.observation import Instrument, instrument_names
from lensphys.simulation import Plan, Recipe
from lensphys.simulation.sample import render


def test_each_instrument_has_noise_of_its_own():
    recipe = Recipe.named("roman", ["height=40", "width=40"])
    residuals = []
    for name in ("roman_f129", "euclid_vis"):
        plan = Plan.from_recipe(recipe.seen_by(name), 1, classes=["no_sub"])
        plan = replace(plan, recipe=recipe, instrument=Instrument.named("roman_f129").model_copy(
            update={"description": name}))  # fmt: skip
        samples = render(recipe, plan.build_engine(), [plan.drawn(0)])
        residuals.append((samples.lr - samples.lr_clean).ravel())
    assert abs(np.corrcoef(residuals)[0, 1]) < 5 / 40  # 1600 pixels


def test_the_descriptions_of_the_presets_are_their_own():
    descriptions = [Instrument.named(name).description for name in instrument_names()]
    assert len(set(descriptions)) == len(descriptions)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["lens={kind: sis, theta_E: {kind: normal, mean: 1.0, sigma: 0.35}}"],
            "'lens.theta_E': must be positive, and w",
        ),
        (["source.R_sersic={kind: uniform, low: -2, high: 1}"], "'source.R_sersic': must be positive"),
        (["lens={kind: nfw}"], "'lens': unknown kind 'nfw', choose one of 'sis', 'sie', 'epl', 'lenstronomy'"),
        (["z_source=0.2"], "z_lens must lie between 0 and the source, got 0.5 for a source at 0.2$"),
        (["source.color={euclid: 0.5}"], "color names the unknown instrument 'euclid'"),
        (["classes.cdm.heaviest=.inf"], "'classes.cdm.heaviest': Input should be a finite number"),
        (["height=7"], "'height': Input should be greater than or equal to 8, got 7"),
        (["classes.cdm.slope=.nan"], "'classes.cdm.slope': Input should be a finite number"),
    ],
)
def test_what_would_fail_later_is_refused_at_once(changes, message):
    with pytest.raises(LensphysError, match=message):
        Recipe.named("model_2", changes)


def test_a_field_that_another_instrument_sees_in_a_few_pixels_is_refused():
    few = Recipe.named("roman", ["height=12", "width=40"])
    with pytest.raises(LensphysError, match="rubin_lsst_i sees the field of roman_f129 as 7 x 22 pixels, and images"):
        few.seen_by("rubin_lsst_i")


def test_draws_that_are_not_finite_are_refused():
    with pytest.raises(LensphysError, match="the recipe drew .* for lens.gamma, which must lie between 1 and 3"):
        Plan.from_recipe(Recipe.named("roman", ["lens.gamma=3.5"]), 1)


@pytest.mark.usefixtures("few_points")
def test_an_instrument_beside_the_recipe_is_found_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "r").mkdir()
    own = Instrument.named("roman_f129").model_dump(mode="json", exclude_none=True) | {"description": "mine"}
    (tmp_path / "r" / "mine.yaml").write_text(yaml.safe_dump(own))
    (tmp_path / "r" / "survey.yaml").write_text(
        "{extends: roman, version: 1, description: x, instrument: mine.yaml, source: {color: {mine.yaml: 2.5}}}"
    )
    monkeypatch.chdir(tmp_path)
    plan, plain = Plan.from_recipe(Recipe.named("r/survey.yaml"), 1), Plan.from_recipe(Recipe.named("roman"), 1)
    assert plan.instrument.description == "mine"
    ratio = plan.drawn(0).scene.kwargs_source[0]["amp"] / plain.drawn(0).scene.kwargs_source[0]["amp"]
    assert ratio == pytest.approx(0.1)


@pytest.mark.usefixtures("few_points")
@pytest.mark.parametrize("key", ["more_sources", "lens_light"])
def test_a_key_without_a_value_is_as_if_it_were_not_there(tmp_path, key):
    (tmp_path / "mine.yaml").write_text(f"extends: model_3\n{key}:\n")
    assert Recipe.named(tmp_path / "mine.yaml") == Recipe.named("model_3")


@pytest.mark.usefixtures("few_points")
def test_the_yaml_of_the_documentation_is_right(tmp_path):
    text = (Path(__file__).parents[1] / "simulations" / "README.md").read_text()
    recipe, parts, instrument, target = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "my_telescope.yaml").write_text(instrument)
    (tmp_path / "survey.yaml").write_text(recipe)
    plan = Plan.from_recipe(Recipe.named(tmp_path / "survey.yaml"), 1)
    assert plan.instrument.psf.beta == 4.765 and list(plan.recipe.classes) == ["no_sub", "cdm", "wdm"]
    (tmp_path / "more.yaml").write_text(f"extends: survey.yaml\nversion: 1\ndescription: more\n{parts}")
    more = Recipe.named(tmp_path / "more.yaml")
    (tmp_path / "pairs.yaml").write_text(f"extends: hsc_hst\nversion: 1\ndescription: pairs\n{target}")
    assert Recipe.named(tmp_path / "pairs.yaml").target == Recipe.named("hsc_hst").target
    scene = Plan.from_recipe(more, 1, engine="lenstronomy").drawn(0).scene
    assert scene.lens_model_list[:4] == ["EPL", "SHEAR", "MULTIPOLE", "NFW"]


def test_a_choice_or_an_axion_that_may_be_negative_is_refused():
    with pytest.raises(LensphysError, match="must be positive"):
        Recipe.named("model_1", ["source.R_sersic={kind: choice, values: [0.2, -0.1]}"])
    Recipe.named("model_1", ["source.R_sersic={kind: choice, values: [0.2, -0.1], weights: [1, 0]}"])
    with pytest.raises(LensphysError, match="must be positive"):
        Recipe.named("model_1", ["classes.axion.axion_mass={kind: normal, mean: 1.0e-22, sigma: 1.0e-22}"])
