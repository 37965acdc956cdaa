"""A component of one's own, a class and a line in the registry: recipes draw it and the torch engine renders it."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch

from lensphys.basics.checks import LensphysError
from lensphys.model import LIGHT, MASS, SIE, LightProfile, MassProfile, Parameter, Sersic, Value, by_lenstronomy
from lensphys.model.component import CENTRE, as_planes, offset
from lensphys.observation import Conditions
from lensphys.simulation import Plan, Recipe
from lensphys.simulation.engines import Cameras
from lensphys.simulation.scene import Scene
from lensphys.tracing.deflection import DeflectionField

DOUBLE = torch.empty(0, dtype=torch.float64)
PLACE = tuple(Parameter(name, "arcsec", -1.0, 1.0) for name in CENTRE)
CORED = "theta_E: {kind: uniform, low: 0.6, high: 0.9}, core: {kind: uniform, low: 0.05, high: 0.1}, order: 2"
BLOB = "amp: {kind: uniform, low: 2, high: 3}, width: {kind: uniform, low: 0.2, high: 0.3}, center_x: 0.1, center_y: 0"


def deflection_cored(theta, order, theta_E, core, center_x=0.0, center_y=0.0):
    x, y = offset(theta, center_x, center_y)
    r = (x**2 + y**2) ** 0.5
    scale = as_planes(theta_E, theta) / (r**order + as_planes(core, theta) ** order) ** (1 / order)
    return torch.stack([scale * x, scale * y], dim=1)


@dataclass(frozen=True)
class Cored(MassProfile):
    order: int
    theta_E: Value
    core: Value
    center_x: Value = 0.0
    center_y: Value = 0.0
    formula = staticmethod(deflection_cored)
    lenstronomy = "CORED"
    in_lenstronomy = False
    galaxy = True
    whole = {"order": 1}
    parameters = (
        Parameter("theta_E", "arcsec", 0.1, 3.0, logarithmic=True),
        Parameter("core", "arcsec", 0.0, 0.5, domain=(0.0, 0.5)),
        *PLACE,
    )


def brightness_blob(beta, amp, width, center_x=0.0, center_y=0.0):
    x, y = offset(beta, center_x, center_y)
    return (as_planes(amp, beta) * torch.exp(-0.5 * (x**2 + y**2) / as_planes(width, beta) ** 2))[:, None]


@dataclass(frozen=True)
class Blob(LightProfile):
    amp: Value
    width: Value
    center_x: Value = 0.0
    center_y: Value = 0.0
    formula = staticmethod(brightness_blob)
    lenstronomy = "BLOB"
    in_lenstronomy = False
    parameters = (
        Parameter("amp", "flux / arcsec^2", 0.1, 10.0, logarithmic=True),
        Parameter("width", "arcsec", 0.01, 1.0, logarithmic=True),
        *PLACE,
    )


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(MASS, "cored", Cored)
    monkeypatch.setitem(LIGHT, "blob", Blob)


def recipe_of(*changes: str) -> Recipe:
    return Recipe.named("model_2", ["height=20", "width=27", "z_source_convention=null", *changes])


def declared_sum(scene: Scene) -> MassProfile:
    known = by_lenstronomy(MASS)
    parts = [known[name](**k) for name, k in zip(scene.lens_model_list, scene.kwargs_lens, strict=True)]
    return sum(parts[1:], start=parts[0])


def largest_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).abs().max() / b.abs().max())


@pytest.mark.parametrize("compiled", [True, False], ids=["kernels", "formulas"])
def test_a_component_of_ones_own_is_drawn_and_rendered(registered, compiled):
    changes = [f"lens={{kind: cored, {CORED}}}", f"source={{kind: blob, {BLOB}}}",
               f"more_lenses=[{{kind: cored, {CORED}, center_x: 0.4}}, {{kind: sie, theta_E: 0.1, e1: 0.1, e2: 0}}]",
               f"lens_light=[{{kind: blob, {BLOB}}}]"]  # fmt: skip
    plan = Plan.from_recipe(recipe_of(*changes), 1, classes=["no_sub", "cdm"])
    engine = plan.build_engine()
    engine._compiled = compiled
    scenes = [plan.drawn(i).scene for i in range(2)]
    assert scenes[0].lens_model_list == ["CORED", "CORED", "SIE"]
    assert list(scenes[0].kwargs_lens[0]) == ["order", "theta_E", "core", "center_x", "center_y"]
    scenes.append(Scene(["CORED"], scenes[0].kwargs_lens[:1], ["BLOB"], scenes[0].kwargs_source))  # has fewer: padded
    made, camera = engine.render(scenes, Conditions()), Cameras.from_recipe(plan.recipe, plan.instrument).hr
    for i, scene in enumerate(scenes):
        mass, light = declared_sum(scene), Blob(**scene.kwargs_source[0])
        field = DeflectionField.from_lens(mass, camera.grid, like=DOUBLE)
        assert largest_difference(made.alpha_hr[i : i + 1], field.alpha) < 1e-5
        image = camera.render(light, field)
        for own in scene.kwargs_lens_light:
            image = image + camera.render(Blob(**own), DeflectionField(0 * field.alpha, camera.grid))
        assert largest_difference(made.hr[i : i + 1], image) < 1e-5


def test_its_recipe_says_all_of_itself_and_goes_to_other_processes(registered):
    recipe = recipe_of(f"lens={{kind: cored, {CORED}}}", f"source={{kind: blob, {BLOB}}}")
    assert Recipe.parse(json.loads(recipe.model_dump_json()), "dump") == recipe
    plan = Plan.from_recipe(recipe, 1)
    again = pickle.loads(pickle.dumps(plan))
    assert again == plan and again.drawn(0).scene == plan.drawn(0).scene


def test_a_galaxy_may_be_given_by_its_mass(registered):
    recipe = recipe_of("lens={kind: cored, mass: 1.0e+12, core: 0.1, order: 2}")
    scene = Plan.from_recipe(recipe, 1).drawn(0).scene
    assert scene.theta_E == recipe.masses.einstein_radius_of_isothermal(1e12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("lens={kind: cored, theta_E: 1, core: 0.1, order: 2, size: 3}", "unknown key 'lens.size'"),
        ("lens={kind: cored, theta_E: 1}", "missing key 'lens.order'; missing key 'lens.core'"),
        ("lens={kind: cored, theta_E: -1, core: 0.1, order: 2}", "'lens.theta_E': must be positive"),
        ("lens={kind: cored, theta_E: 1, core: 0.1, order: 0}", "'lens.order': .* greater than or equal to 1"),
        ("lens={kind: cored, theta_E: 1, mass: 1, core: 0.1, order: 2}", "give theta_E or mass, and not both"),
        ("lens={kind: cored, theta_E: 1, core: 0.7, order: 2}", "drew 0.7 for lens.core, which must lie between 0 and"),
        ("source={kind: blob, amp: 1, center_x: 0, center_y: 0}", "missing key 'source.width'"),
        ("source={kind: blob, magnitude: 20, width: 1, center_x: 0, center_y: 0}", "give its amp in place of a magn"),
    ],
)
def test_what_it_cannot_be_is_refused(registered, change, message):
    with pytest.raises(LensphysError, match=message):
        Plan.from_recipe(recipe_of(change), 1)


def test_what_is_not_registered_is_no_kind():
    with pytest.raises(LensphysError, match="'lens': unknown kind 'cored', choose one of 'sis', 'sie', 'epl'"):
        recipe_of(f"lens={{kind: cored, {CORED}}}")


# --- the components that come with lensphys ------------------------------------------------------------------------

NUMBERS = {"Rs": 0.5, "alpha_Rs": 0.2, "r_trunc": 1.0, "theta_E": 0.3, "length": 0.3, "phi": 0.4, "a_m": 0.02,
           "phi_m": 0.3, "gamma": 2.1, "gamma1": 0.05, "gamma2": -0.02, "e1": 0.1, "e2": -0.05, "m": 3,
           "center_x": 0.21, "center_y": -0.13}  # fmt: skip


@pytest.mark.parametrize("kind", MASS)
def test_every_registered_mass_is_drawn_and_rendered(kind):
    names = MASS[kind].scene_names()
    lens = {"kind": kind} | {name: NUMBERS[name] for name in names}
    recipe = recipe_of("lens={kind: sie, theta_E: 0.8, e1: 0.1, e2: 0}", f"more_lenses=[{json.dumps(lens)}]")
    plan = Plan.from_recipe(recipe, 1, classes=["no_sub"])
    scene = plan.drawn(0).scene
    alpha = plan.build_engine().render([scene], Conditions()).alpha_hr
    assert scene.kwargs_lens[1] == {name: NUMBERS[name] for name in names}
    mass = SIE(**scene.kwargs_lens[0]) + MASS[kind](**scene.kwargs_lens[1])
    expected = DeflectionField.from_lens(mass, Cameras.from_recipe(recipe, plan.instrument).hr.grid, like=DOUBLE).alpha
    assert largest_difference(alpha, expected) < 1e-5
    if MASS[kind].in_lenstronomy:
        theirs = Plan.from_recipe(recipe, 1, classes=["no_sub"], engine="lenstronomy").build_engine()
        assert largest_difference(alpha, theirs.render([scene], Conditions()).alpha_hr) < 1e-5


@pytest.mark.parametrize("component", [*MASS.values(), *LIGHT.values()])
def test_every_registered_component_declares_what_it_takes(component):
    declared = [*component.whole, *(p.name for p in component.parameters)]
    assert declared == [f.name for f in fields(component)]
    assert component.lenstronomy and component.strengths and set(component.strengths) <= set(declared)
    assert component.at_origin or set(CENTRE) <= set(component.scene_names())
    assert all(p.domain[0] <= p.low and p.high <= p.domain[1] for p in component.parameters)


@pytest.mark.parametrize("component", [*MASS.values(), *LIGHT.values()])
def test_without_its_strengths_a_component_vanishes(component):
    values = {name: NUMBERS.get(name, 1.0) for name in component.scene_names()} | dict.fromkeys(
        component.strengths, 0.0
    )
    position = torch.tensor(np.random.default_rng(0).normal(size=(1, 2, 4, 5)))
    assert not bool(component(**values)(position).any())


def test_the_flux_of_an_amplitude_of_one():
    values = {"R_sersic": 0.4, "n_sersic": 1.0}
    assert Sersic.unit_flux(values) == pytest.approx(2 * math.pi * 0.4**2 * math.exp(1.6721) / 1.6721**2, rel=1e-6)
