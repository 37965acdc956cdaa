"""The fast engine against the reference, on every recipe; and what it must not depend on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lensphys.basics.checks import LensphysError
from lensphys.basics.settings import read_yaml
from lensphys.model import swarm
from lensphys.model.mass import deflection_points
from lensphys.model.mass.tnfw import deflection_tnfw
from lensphys.observation import Conditions, Instrument
from lensphys.simulation import Recipe, recipe_names
from lensphys.simulation.detector import conditions_of
from lensphys.simulation.engines import Rendered
from lensphys.simulation.plan import Plan
from lensphys.simulation.sample import Drawn
from lensphys.simulation.scene import Scene
from lensphys.simulation.torch_engine import TorchEngine

pytestmark = pytest.mark.usefixtures("few_points")

EVERY = [(name, kind) for name in recipe_names() for kind in Recipe.named(name).classes]


def small(name: str, side: float = 3.0) -> Recipe:
    """The recipe in a smaller field [arcsec], H != W, and no more than 32 pixels."""
    pixels = min(32, round(side / Instrument.named(Recipe.named(name).instrument).pixel_scale))
    return Recipe.named(name, [f"height={pixels}", f"width={pixels + 3}"])


def drawn_of(plan: Plan, count: int) -> list[Drawn]:
    return [plan.drawn(i) for i in range(count)]


def rendered(plan: Plan, drawn: list[Drawn]) -> Rendered:
    return plan.build_engine().render([d.scene for d in drawn], conditions_of([d.conditions for d in drawn]))


def differences(a: Rendered, b: Rendered) -> dict[str, float]:
    """The largest difference of each kind of image, in units of its own largest value."""
    result = {}
    for name in ("lr", "hr", "alpha_hr"):
        mine, theirs = (getattr(x, name).double().flatten(1) for x in (a, b))
        assert mine.shape == theirs.shape and bool(mine.isfinite().all())
        result[name] = float(((mine - theirs).abs().amax(1) / theirs.abs().amax(1)).max())
    return result


def as_points(scene: Scene, number: int = 4000) -> Scene:
    """The scene with the line of mass as so many equal points: `deflection_line` says which."""
    lists = list(zip(scene.lens_model_list, scene.kwargs_lens, strict=True))
    line = next(k for name, k in lists if name == "LINE_MASS")
    others = [(name, k) for name, k in lists if name != "LINE_MASS"]
    along = np.linspace(-1, 1, number) * line["length"] * (number - 1) / number
    x, y = line["center_x"] + along * math.cos(line["phi"]), line["center_y"] + along * math.sin(line["phi"])
    theta_E = line["theta_E"] / math.sqrt(number)
    points = [{"theta_E": theta_E, "center_x": a, "center_y": b} for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    names = [name for name, _ in others] + ["POINT_MASS"] * number
    return replace(scene, lens_model_list=names, kwargs_lens=[k for _, k in others] + points)


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_torch_agrees_with_lenstronomy_on_every_recipe(name, kind):
    recipe = small(name)
    torch_plan = Plan.from_recipe(recipe, 2, classes=[kind], seed=2)
    drawn = drawn_of(torch_plan, 2)
    mine = rendered(torch_plan, drawn)
    if "LINE_MASS" not in drawn[0].scene.lens_model_list:
        theirs = rendered(Plan.from_recipe(recipe, 2, classes=[kind], seed=2, engine="lenstronomy"), drawn)
        worst = differences(mine, theirs)
        assert max(worst.values()) < 1e-5, worst
        return
    with pytest.raises(LensphysError, match="the lenstronomy engine has no profile LINE_MASS .*: use --engine torch"):
        Plan.from_recipe(recipe, 2, classes=[kind], engine="lenstronomy")
    reference = replace(torch_plan, engine="lenstronomy")
    theirs = rendered(reference, [replace(drawn[0], scene=as_points(drawn[0].scene))])
    error = (mine.alpha_hr[:1] - theirs.alpha_hr).abs().flatten()
    # beside the line a pixel sees the single points of the reference: in all but a few pixels the limit
    assert float(error.quantile(0.97)) < 1e-5 * float(theirs.alpha_hr.abs().max())
    assert float(error.median()) < 1e-6
    for a, b in ((mine.lr, theirs.lr), (mine.hr, theirs.hr)):
        assert float((a[:1] - b).abs().flatten().quantile(0.97)) < 1e-5 * float(b.max())


# --- everything at once --------------------------------------------------------------------------------------------

RICH = """
version: 1
description: all that the torch engine has
instrument: {instrument}
height: 20
width: 27
z_lens: 0.5
z_source: 1.5
distances: angular_diameter
lens: {{kind: epl, theta_E: 0.8, gamma: 1.9, e1: 0.1, e2: -0.15, center_x: 0.02, center_y: -0.03}}
shear: {{gamma1: 0.04, gamma2: -0.02}}
more_lenses:
  - {{kind: multipole, m: 4, a_m: 0.02, phi_m: 0.3}}
  - {{kind: multipole, m: 3, a_m: 0.01, phi_m: -0.2, center_x: 0.05}}
  - {{kind: sie, theta_E: 0.1, e1: 0.0, e2: 0.2, center_x: -0.9, center_y: 0.5}}
  - {{kind: sis, theta_E: 0.05, center_x: 0.7}}
lens_light:
  - {{magnitude: 20, R_sersic: 0.6, n_sersic: 4, e1: 0.05, e2: 0.1, center_x: 0.0, center_y: 0.0}}
  - {{kind: images, file: galaxies.npy, pixel_scale: 0.05, flux: 2.5, phi: 0.4, center_x: -0.5, center_y: 0.4}}
source: {{magnitude: 21, R_sersic: 0.2, n_sersic: 1.2, e1: 0.1, e2: 0.2, center_x: 0.1, center_y: 0.05}}
more_sources:
  - {{kind: images, file: galaxies.npy, pixel_scale: {{kind: uniform, low: 0.04, high: 0.09}}, magnitude: 20.5,
     phi: {{kind: uniform, low: 0, high: 6}}, center_x: {{kind: normal, mean: 0.0, sigma: 0.1}}, center_y: -0.1}}
classes:
  no_sub: {{kind: none}}
  cdm: {{kind: subhalos, number: 12, slope: -1.9, lightest: 1.0e+7, heaviest: 1.0e+10, radius: 0.9}}
"""


@pytest.fixture(scope="module")
def galaxies(tmp_path_factory):
    """A folder with a stack of three blobs with H != W that fade within their frames."""
    folder = tmp_path_factory.mktemp("galaxies")
    y, x = np.mgrid[-1:1:19j, -1.3:1.3:23j]
    noise = 1 + 0.3 * np.random.default_rng(0).normal(size=(3, 19, 23))
    frame = np.clip(1 - y**4, 0, 1) * np.clip(1 - (x / 1.3) ** 4, 0, 1)
    np.save(folder / "galaxies.npy", 1e3 * noise * frame * np.exp(-3 * (x**2 + (y + 0.5 * x) ** 2)))
    return folder


def rich(folder, instrument: str) -> Recipe:
    path = folder / "rich.yaml"
    path.write_text(RICH.format(instrument=instrument))
    return Recipe.named(path)


def with_supersampling(folder, base: str, supersampling: int) -> str:
    from lensphys.observation import instrument as presets

    tree = read_yaml(presets._FOLDER / f"{base}.yaml") | {"supersampling": supersampling}
    path = folder / f"{base}_{supersampling}.yaml"
    path.write_text(str(tree))  # a mapping as Python writes it is YAML, too
    return str(path)


# a Gaussian PSF, a Moffat one
@pytest.mark.parametrize("base", ["euclid_vis", "rubin_lsst_i"])
@pytest.mark.parametrize("supersampling", [1, 2, 4])
def test_torch_agrees_with_lenstronomy_on_all_at_once(galaxies, base, supersampling):
    recipe = rich(galaxies, with_supersampling(galaxies, base, supersampling))
    plans = [Plan.from_recipe(recipe, 2, seed=1, engine=engine) for engine in ("torch", "lenstronomy")]
    drawn = drawn_of(plans[0], 4)
    assert {n for d in drawn for n in d.scene.source_light_model_list} == {"SERSIC_ELLIPSE", "INTERPOL"}
    worst = differences(*(rendered(plan, drawn) for plan in plans))
    assert max(worst.values()) < 1e-5, worst


@pytest.mark.parametrize("scale", [0.02, 0.1])
def test_an_image_of_a_galaxy_keeps_its_flux(galaxies, scale):
    """Unlensed and with the whole galaxy in the field, at any size of it."""
    changes = ["height=60", "width=80", "lens={kind: sis, theta_E: 1.0e-9}", "shear=null", "lens_light=[]",
               "more_lenses=[]", "more_sources=[]",
               f"source={{kind: images, file: {galaxies / 'galaxies.npy'}, phi: 0.7, magnitude: 21, center_x: 0.1, "
               f"center_y: 0, pixel_scale: {scale}}}"]  # fmt: skip
    rich(galaxies, "euclid_vis")
    plan = Plan.from_recipe(Recipe.named(galaxies / "rich.yaml", changes), 1, classes=["no_sub"])
    image = rendered(plan, drawn_of(plan, 1))
    for flux in (image.lr.sum(), image.hr.sum()):
        assert float(flux) == pytest.approx(plan.instrument.flux(21), rel=0.01)


# --- what the result must not depend on ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model_1_older", "model_2", "varied", "roman"])
def test_result_does_not_depend_on_the_batch(name, monkeypatch):
    """Scenes with other numbers of bodies, and PSFs of other widths beside them, change nothing but the last digit."""
    plan = Plan.from_recipe(small(name), 4, seed=3)
    drawn = drawn_of(plan, 9)  # all classes
    monkeypatch.setattr("lensphys.simulation.torch_engine._POINTS", {"cpu": 1 << 30})
    whole = rendered(plan, drawn)
    for part in (slice(0, 1), slice(2, 4), slice(4, 9)):
        alone = rendered(plan, drawn[part])
        worst = differences(alone, Rendered(whole.lr[part], whole.hr[part], whole.alpha_hr[part]))
        assert worst["alpha_hr"] == 0 and max(worst.values()) < 1e-6, worst
    monkeypatch.setattr("lensphys.simulation.torch_engine._POINTS", {"cpu": 1})
    assert max(differences(rendered(plan, drawn), whole).values()) < 1e-6


def test_engines_share_no_state():
    plan = Plan.from_recipe(small("varied"), 2, seed=3)
    engine, drawn = plan.build_engine(), drawn_of(plan, 3)
    conditions = conditions_of([d.conditions for d in drawn])
    first = engine.render([d.scene for d in drawn], conditions)
    engine.render([d.scene for d in drawn[::-1]], Conditions())
    again = engine.render([d.scene for d in drawn], conditions)
    assert torch.equal(first.lr, again.lr) and torch.equal(first.hr, again.hr)


def bodies(count: int, like: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(count)
    x, y = 4 * torch.rand(2, 700, generator=generator, dtype=torch.float64) - 2
    strength, a, b = torch.rand(3, like, count, generator=generator, dtype=torch.float64)
    return x, y, 1e-3 * strength, 4 * a - 2, 4 * b - 2


class _Elsewhere(torch.Tensor):
    """Says that it is on a GPU, so that what runs there runs here; what is computed from it is plain again."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = torch.device("cuda")


@pytest.fixture(params=["kernel", "tensors"])
def any_device(request, monkeypatch):
    """The compiled kernels, and what runs where there are none."""
    monkeypatch.setattr(swarm, "_CHUNK", 1000)  # many chunks, the last one cut short
    return (lambda x: x) if request.param == "kernel" else (lambda x: x.as_subclass(_Elsewhere))


@pytest.mark.parametrize("count", [0, 1, 30, 1500])
def test_swarm_is_the_sum_over_points(count, any_device):
    x, y, strength, a, b = bodies(count)
    if count > 1:
        strength[0, 1:] = 0  # padded, as scenes with fewer bodies are
    got = swarm.deflection_swarm(any_device(x), y, strength, a, b)
    assert got.shape == (2, 2, 700) and got.dtype == torch.float64
    theta = torch.stack([x, y])[None, :, None]
    for i in range(2):
        expected = deflection_points(theta, strength[i : i + 1], a[i : i + 1], b[i : i + 1], swarm._CORE)[0, :, 0]
        # a sum of 1500 numbers in another order
        assert torch.allclose(got[i], expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("count", [1, 20])
def test_swarm_of_halos_is_the_sum_over_halos(count, any_device):
    x, y, strength, a, b = bodies(count)
    size, cut = 0.02 + 100 * strength, 0.1 + 300 * strength
    got = swarm.deflection_tnfw_swarm(any_device(x), y, size, strength, cut, a, b)
    theta = torch.stack([x, y])[None, :, None].expand(2, -1, -1, -1)
    expected = sum(deflection_tnfw(theta, size[:, k], strength[:, k], cut[:, k], a[:, k], b[:, k])[:, :, 0]
                   for k in range(count))  # fmt: skip
    assert float((got - expected).abs().max()) < 3e-6 * float(strength.max()) * math.sqrt(count)


def test_swarm_far_from_its_bodies_and_on_top_of_them():
    x = torch.tensor([0.0, 0.3, 1e4], dtype=torch.float64)
    zero, strength = torch.zeros(1, 1, dtype=torch.float64), torch.full((1, 1), 4.0, dtype=torch.float64)
    alpha = swarm.deflection_swarm(x, torch.zeros_like(x), strength, zero, zero)
    assert alpha[0, 0].tolist() == pytest.approx([0, 4 / 0.3, 4e-4], rel=1e-9) and not bool(alpha[0, 1].any())


# --- what is refused -----------------------------------------------------------------------------------------------

GRAVITY = "lens={kind: lenstronomy, profile: %s, parameters: {theta_E: 1.0, center_x: 0, center_y: 0%s}}"


def test_a_profile_that_an_engine_lacks_is_named_with_the_other_engine():
    changes = [GRAVITY % ("NIE", ", e1: 0.1, e2: 0, s_scale: 0.1"), "height=20", "width=24"]
    with pytest.raises(
        LensphysError, match=r"the torch engine has no profile NIE \(it has SIS, .*\): use --engine lens"
    ):
        Plan.from_recipe(Recipe.named("model_2", changes), 1)
    plan = Plan.from_recipe(Recipe.named("model_2", changes), 1, engine="lenstronomy")
    assert bool(rendered(plan, drawn_of(plan, 1)).lr.isfinite().all())
    light = "lens_light=[{kind: lenstronomy, profile: HERNQUIST, parameters: {amp: 1, Rs: 0.5}}]"
    with pytest.raises(LensphysError, match="the torch engine has no profile HERNQUIST .*: use --engine lenstronomy"):
        Plan.from_recipe(Recipe.named("model_2", [light]), 1)
    with pytest.raises(LensphysError, match=r"engine has no profile SISS \(it has the lens profiles of lenstronomy\)"):
        Plan.from_recipe(Recipe.named("model_2", [GRAVITY % ("SISS", "")]), 1, engine="lenstronomy")


@pytest.mark.parametrize("engine", ["torch", "lenstronomy"])
@pytest.mark.parametrize("wrong", [", e1: 0.1", ", e1: 0.1, e2: 0.0, elliptic: 1"])
def test_wrong_parameters_of_a_profile_are_told(engine, wrong):
    with pytest.raises(LensphysError, match=r"e2|elliptic|does not fit"):
        Plan.from_recipe(Recipe.named("model_2", [GRAVITY % ("SIE", wrong)]), 1, engine=engine)


@pytest.mark.parametrize("engine", ["torch", "lenstronomy"])
def test_psf_larger_than_the_image_is_refused(engine, tmp_path):
    path = tmp_path / "wide.yaml"
    path.write_text(
        "{version: 1, description: x, pixel_scale: 0.1, unit: e-/s, zero_point: 25, psf: {kind: gaussian, fwhm: 0.9}, "
        "noise: {kind: exposure, sky_brightness: 22, exposure_time: 10, read_noise: 1}}"
    )
    recipe = Recipe.named("lsst", [f"instrument={path}", "height=40", "width=8"])
    with pytest.raises(LensphysError, match=r'PSF of the instrument .*wide.* \(0\.90*"\) is larger than the image'):
        Plan.from_recipe(recipe, 1, classes=["no_sub"], engine=engine)


@pytest.mark.parametrize("key", ["read_noise: -1", "exposure_time: 0"])
def test_impossible_noise_is_refused(tmp_path, key):
    path = tmp_path / "mine.yaml"
    noise = {"read_noise: -1": "exposure_time: 10", "exposure_time: 0": "read_noise: 1"}[key]
    path.write_text(
        "{version: 1, description: x, pixel_scale: 0.1, unit: e-/s, zero_point: 25, psf: {kind: none}, "
        f"noise: {{kind: exposure, sky_brightness: 22, {key}, {noise}}}}}"
    )
    with pytest.raises(LensphysError, match=f"noise.*{key.split(':')[0]}"):
        Plan.from_recipe(Recipe.named("model_2", [f"instrument={path}"]), 1)


def test_engine_is_built_for_a_device():
    plan = Plan.from_recipe(small("model_2"), 1)
    assert isinstance(plan.build_engine("cpu"), TorchEngine)
    drawn = drawn_of(plan, 1)
    out = plan.build_engine().render([drawn[0].scene], Conditions())
    assert {x.dtype for x in (out.lr, out.hr, out.alpha_hr)} == {torch.float32}
    assert out.hr.shape[-1] == 2 * out.lr.shape[-1] and out.alpha_hr.shape[1] == 2
