"""The light of the lens galaxy: found without help, fitted jointly, and left alone where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from lenses import CENTRE, LitLens, lit_lens, one_thread, small_lenses  # noqa: F401
from lenstronomy.LightModel.light_model import LightModel

from lensphys.fitting import FreeSourceSettings, LensLightSettings, LensProblem, Refinement
from lensphys.fitting.galaxy_light import LensLight, lens_light
from lensphys.fitting.lens_light import AboutTheGalaxy
from lensphys.fitting.lit_or_not import LitOrNot
from lensphys.fitting.shared_noise import SharedNoise
from lensphys.fitting.source import Fitted
from lensphys.fitting.starts import RingSearch, starting_points
from lensphys.fitting.window import Window
from lensphys.fitting.with_light import LitLens as FitLitLens
from lensphys.methods import READY, RefinedFit
from lensphys.model import SIE, Gaussian, LensModel, Member, Sersic
from lensphys.observation import Camera, ErrorMap, GaussianPSF, Observation, PixelPSF
from lensphys.tracing.grid import PixelGrid


def _truth(problem: LensProblem, light: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
    """The vector of the lens and the source of `lit_lens`, and of some light."""
    mass = {"theta_E": 1.1, "e1": 0.1, "e2": -0.05, "center_x": CENTRE[0], "center_y": CENTRE[1]}
    source = dict(zip(("amp", "R_sersic", "n_sersic", "e1", "e2", "center_x", "center_y"),
                      (8.0, 0.15, 1.2, 0.2, 0.1, 0.12, -0.05), strict=True))  # fmt: skip
    values = {f"lens.{k}": v for k, v in mass.items()} | {f"source.{k}": v for k, v in source.items()}
    values |= {"shear.gamma1": 0.03, "shear.gamma2": -0.02}
    return problem.unconstrained({k: torch.tensor([v]) for k, v in values.items()} | (light or {}))


def looking(**about: float) -> LensLightSettings:
    """The settings, with others of where images of the source are looked for."""
    return LensLightSettings(about=AboutTheGalaxy(**about))


def found_light(problem: LensProblem, settings: LensLightSettings = LensLightSettings()) -> LensLight:
    """The light of the galaxy where the image is brightest."""
    middle = settings.middle_of(problem.observation)
    return lens_light(problem.observation, problem.inverse_sigma, settings.galaxy, middle)


def test_a_gaussian_is_lenstronomys():
    x, y = np.meshgrid(np.linspace(-1, 1, 7), np.linspace(-0.8, 0.9, 5))
    values = {"amp": 2.0, "sigma": 0.4, "e1": 0.1, "e2": -0.2, "center_x": 0.05, "center_y": -0.1}
    known = LightModel(["GAUSSIAN_ELLIPSE"]).surface_brightness(x, y, [values])
    found = Gaussian(**values)(torch.from_numpy(np.stack([x, y]))[None])
    np.testing.assert_allclose(found[0, 0].numpy(), known, rtol=1e-10)


def test_the_light_of_a_galaxy_is_found_behind_its_arcs():
    lens = lit_lens()
    problem = LensProblem.from_observation(lens.observation)
    light = found_light(problem)
    assert abs(float(light.values["lens_light.0.center_x"]) - CENTRE[0]) < 0.01
    assert abs(float(light.values["lens_light.0.center_y"]) - CENTRE[1]) < 0.01
    faint = lens.arcs < 0.02 * lens.arcs.max()
    assert float((light.image - lens.galaxy)[faint].abs().sum() / lens.galaxy[faint].sum()) < 0.1


def test_the_cusp_of_an_undersampled_galaxy_is_found():
    """As Roman sees it: its middle is narrower than a pixel, and Gaussians that are wider cannot make it."""
    camera = Camera(PixelGrid(48, 48, 0.11), GaussianPSF(0.106), supersampling=12)
    sersic = Sersic(24.0, 0.9, 4.0, 0.1, -0.05, 0.013, -0.021)
    fine = camera.grid.resampled(12)
    clean = camera.expose(sersic(fine.positions(like=torch.zeros(1, dtype=torch.float64))) * fine.pixel_area)
    noise = ErrorMap(torch.full_like(clean, 0.02 * float(clean.mean())))
    observation = Observation(clean, camera, noise)
    sigma, settings = torch.full_like(clean, 1 / noise.sigma[0, 0, 0, 0].item()), LensLightSettings()
    middle = settings.middle_of(observation)
    off = {}
    for name, how in (("galaxy", settings.galaxy), ("again", settings.again)):
        found = lens_light(observation, sigma, how, middle).image
        off[name] = float((found / clean - 1).abs()[..., 22:26, 22:26].max())
    assert off["again"] < 0.01 < 0.04 < off["galaxy"], off


def test_a_star_beyond_the_reach_of_arcs_may_be_brighter_than_the_galaxy():
    lens, settings = lit_lens(), looking(reach=2.4)
    image = lens.observation.image.clone()
    image[..., 58:61, 58:61] += 3 * image.max()
    observation = replace(lens.observation, image=image)
    sigma = LensProblem.from_observation(observation).inverse_sigma
    assert settings.looks_like_a_galaxy(observation, sigma)
    light = found_light(LensProblem.from_observation(observation), settings)
    assert abs(float(light.values["lens_light.0.center_x"]) - CENTRE[0]) < 0.02
    assert not looking(reach=4.0).looks_like_a_galaxy(observation, sigma)


def test_arcs_alone_are_no_galaxy():
    observation = small_lenses(1).observation
    problem = LensProblem.from_observation(observation)
    assert not LensLightSettings().looks_like_a_galaxy(observation, problem.inverse_sigma)


@pytest.mark.parametrize("theta_E", [1.1, 2.7])
def test_a_lens_is_looked_for_as_far_out_as_its_arcs(theta_E):
    settings = LensLightSettings()
    problem = LensProblem.from_observation(lit_lens(True, theta_E, 100).observation)
    light = found_light(problem)
    wide = FitLitLens(settings, None, 5).reaching(problem, light).settings
    if theta_E < settings.rings.widest:
        assert wide is settings
    else:
        assert theta_E < wide.rings.widest < 1.5 * theta_E
        assert wide.about.reach - wide.rings.widest == pytest.approx(settings.about.reach - settings.rings.widest)


def test_a_field_may_be_smaller_than_the_widest_lens():
    problem, settings = LensProblem.from_observation(lit_lens(pixels=20).observation), LensLightSettings()
    light = found_light(problem)
    assert FitLitLens(settings, None, 5).reaching(problem, light).settings is settings


@pytest.mark.parametrize("faint", [False, True])
def test_the_middle_that_is_fitted_of_a_galaxy_is_that_of_the_whole_image(faint):
    """A galaxy goes on beyond it: what is blurred in from there is left out. And arcs may be faint beside it."""
    lens, settings = lit_lens(), looking(margin=0.3)
    x, y = np.meshgrid(np.arange(-10, 11), np.arange(-10, 11))
    kernel = torch.from_numpy((1 + (x**2 + y**2) / 4) ** -2.2)
    camera = replace(lens.observation.camera, psf=PixelPSF((kernel / kernel.sum()).float(), 0.08))
    noise = ErrorMap((12.0 if faint else 1.0) * lens.observation.noise.variance(lens.galaxy).sqrt())
    observation = replace(lens.observation, camera=camera, noise=noise)
    light = found_light(LensProblem.from_observation(observation), settings)
    model = replace(LensModel.smooth(), lens_light=light.members)
    whole = replace(LensProblem.from_observation(observation, model), front=light.image)
    fit = _truth(whole, light.values)
    inner = Window(margin=3.0, crop=1.0).lit_middle(whole, fit, settings)
    height, width = inner.observation.image.shape[-2:]
    assert 0.5 * height * 0.08 > 1.1 and height < 64 and width < 64
    cut = whole.render(fit)[..., (64 - height) // 2 : (64 + height) // 2, (64 - width) // 2 : (64 + width) // 2]
    off = ((inner.render(fit) - cut) * noise.sigma.amin().reciprocal()).abs()
    counts = inner.inverse_sigma > 0
    assert counts.any() and float(off[counts].max()) < 0.05 * float(off[~counts].max())


@pytest.mark.slow
@pytest.mark.parametrize("neighbour", [False, True])
def test_a_lens_with_its_galaxy(neighbour):
    lens = lit_lens(neighbour)
    method = READY["refine"]
    assert isinstance(method, RefinedFit)
    found = method.predict(lens.observation, 2)
    assert abs(float(found.parameters["theta_E"]) / 1.1 - 1) < 0.01
    assert found.lens_light is not None
    left = (found.lens_light - lens.galaxy)[lens.galaxy > 0].abs().sum() / lens.galaxy.sum()
    assert float(left) < 0.05
    assert float(found.numbers["subhalos"]) == 0
    assert (float(found.numbers["left_out"]) > 20) == neighbour
    assert 0.8 < float(found.reduced_chi2(lens.observation)) < 1.15
    blind = RefinedFit(stages=Refinement(lens_light=None)).predict(lens.observation, 2)
    assert blind.verdicts[0].quality == "bad"


@pytest.mark.slow
def test_a_wide_lens_with_its_galaxy():
    found = READY["refine"].predict(lit_lens(theta_E=2.7, pixels=100).observation, 2)
    assert abs(float(found.parameters["theta_E"]) / 2.7 - 1) < 0.01
    assert float(found.numbers["subhalos"]) == 0


def test_a_source_that_ran_into_its_bound_starts_off_it():
    """At a bound its slope is none, and a smaller source would never be found; the lens stays where it is."""
    lens = lit_lens()
    problem = LensProblem.from_observation(lens.observation)
    high = next(p.high for p in problem.space.parameters if p.name == "source.R_sersic")
    stuck = problem.values(_truth(problem)) | {"source.R_sersic": torch.tensor([high])}
    x = problem.unconstrained(stuck)
    free = FitLitLens(LensLightSettings(), None, 30)._unstuck(problem, x)
    moved = {n: float(v - stuck[n]) for n, v in problem.values(free).items() if abs(float(v / stuck[n] - 1)) > 1e-2}
    assert list(moved) == ["source.R_sersic"] and moved["source.R_sersic"] < -0.1 * high
    assert problem.at_bounds(x, 0.005) == [["source.R_sersic"]] and problem.at_bounds(free, 0.05) == [[]]


def test_a_sersic_keeps_the_lens_that_was_found_only_if_it_stays_there():
    problem = LensProblem.from_observation(lit_lens().observation)
    fitter, truth = FitLitLens(LensLightSettings(), None, 5), _truth(problem)
    values = problem.values(truth)
    moves = {"theta_E": (0.005, 0.02), "e1": (0.05, 0.2), "center_x": (0.01, 0.3)}  # little, and much
    for name, sizes in moves.items():
        for by, stays in zip(sizes, (True, False), strict=True):
            other = problem.unconstrained(values | {f"lens.{name}": values[f"lens.{name}"] + by})
            assert fitter._still(problem, truth, other) is stays


@pytest.mark.slow
def test_the_light_is_found_where_the_mass_is_known():
    """As in the second band of a lens: nothing of the mass is free."""
    lens = lit_lens()
    known = {"theta_E": 1.1, "e1": 0.1, "e2": -0.05, "center_x": CENTRE[0], "center_y": CENTRE[1]}
    mass = {"lens": Member.from_component(SIE, {}, **known)}
    model = replace(LensModel.smooth(), mass=mass)
    problem = LensProblem.from_observation(lens.observation, model)
    fitter = FitLitLens(LensLightSettings(rings=RingSearch(minima=2)), FreeSourceSettings(modes=(6, 8)), 24)
    found = fitter(problem)
    light = found.problem.light_in_front(found.x)
    assert light is not None
    faint = lens.arcs < 0.02 * lens.arcs.max()
    assert float((light - lens.galaxy)[faint].abs().sum() / lens.galaxy[faint].sum()) < 0.1


@pytest.mark.parametrize("light", [0.0, 0.3])
def test_a_galaxy_may_be_fainter_than_the_arcs_about_it(light):
    lens, settings = lit_lens(light=light), LensLightSettings(rings=RingSearch(minima=2))
    smooth = Fitted.at(problem := LensProblem.from_observation(lens.observation), _truth(problem))
    groups = LitOrNot(settings, None, 15, SharedNoise(), 0.01)(smooth)
    ((_, found),) = groups
    assert bool(found.problem.model.lens_light) == (light > 0)
    if light:
        left = (found.problem.light_in_front(found.x) - lens.galaxy)[lens.galaxy > 0].abs().sum()
        assert float(left / lens.galaxy.sum()) < 0.2


@pytest.mark.parametrize(("galaxy", "arc"), [(True, False), (False, True)])
def test_a_galaxy_is_no_arc_of_a_false_lens_beside_it(galaxy, arc):
    """A fit without the galaxy may stand an Einstein radius from it: its light is looked for all the same."""
    lens = lit_lens()
    seen = lens.observation if galaxy else replace(lens.observation, image=lens.arcs)
    problem = LensProblem.from_observation(seen)
    values = {**problem.values(starting_points(problem, 1)[:, 0]), "lens.theta_E": torch.tensor([1.1])}
    if galaxy:
        values["lens.center_x"] = torch.tensor([1.0])
    choice = LitOrNot(LensLightSettings(), None, 5, SharedNoise(), 0.01)
    assert choice.arc_is_brightest(Fitted.at(problem, problem.unconstrained(values))) is arc
