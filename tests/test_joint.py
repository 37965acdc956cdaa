"""One lens in several images: the joint normal equations against forward mode, and fits against the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lenses import (
    freed_problem,
    one_thread,  # noqa: F401
    psnr,
    seen_as,
    small_lenses,
    small_problem,
    with_bodies,
    with_noise_of,
)
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.fitting import BeyondSmooth, LensProblem, Posterior, PotentialCorrection, Refinement
from lensphys.fitting.joint import JointFitted, JointProblem, View, correlation_evidence
from lensphys.fitting.joint_fit import Exposure, JointRefinement
from lensphys.fitting.newton import Stop, minimised, value_and_jacobian
from lensphys.fitting.placement import PlacedLight, PlacedMass, Placement
from lensphys.fitting.source import Fitted
from lensphys.fitting.verdict import effective
from lensphys.methods import RefinedFit
from lensphys.methods.joint import JointPrediction, JointRefinedFit
from lensphys.model import SIE, CosineBasis, FieldPrior, Gaussian, ImageSource, MassProfile, Member, Sersic, Shear
from lensphys.model.component import CENTRE
from lensphys.model.mass.multipole import MultipoleWaves
from lensphys.observation import Camera, ErrorMap, GaussianPSF, NoPSF, Observation
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid

pytestmark = pytest.mark.usefixtures("float64")

SIGMA = (0.1, 0.1, 0.01, 0.05)
PLACE = Placement(torch.tensor([[0.23, -0.11, 0.4, 0.1]], dtype=torch.float64))
BODY = torch.tensor([[[-5.0, 0.7, 0.8]]], dtype=torch.float64)


def draw(*shape: int, seed: int = 4) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_lens() -> tuple[LensProblem, Tensor]:
    """One small lens, as a problem of its own with its vector."""
    lenses = small_lenses(1, height=24, width=28, dtype=torch.float64)
    return small_problem(lenses)


def rich() -> tuple[LensProblem, Tensor]:
    """One with lens light, a sub-halo, a free source and a potential."""
    problem, x = one_lens()
    model = replace(problem.model, lens_light={"lens_light.0": Member.from_component(Gaussian, sigma=0.4)})
    lit = replace(problem, model=model, space=model.space(problem.radius))
    light = {"amp": 0.3 * problem.unit, "center_x": 0.02, "center_y": 0.01, "e1": 0.1, "e2": 0.05}
    more = {f"lens_light.0.{name}": torch.as_tensor(value).to(x).expand(1) for name, value in light.items()}
    lit, x = freed_problem(lit, lit.unconstrained(problem.values(x) | more), count=3, g=0.5 * draw(1, 9), half_side=3.0)
    lit, x = with_bodies(lit, x, BODY)
    basis = CosineBasis.covering(lit.observation.camera.grid, 4)
    sigma = FieldPrior(amplitude=0.05).sigma(basis, like=lit.unit).expand(1, -1, -1)
    bent = replace(lit, potential=PotentialCorrection(basis, sigma))
    return bent, torch.cat([x, draw(1, 16, seed=6)], dim=1)


def views_of(problem: LensProblem, *bands: str) -> tuple[View, ...]:
    """As many images of a problem as bands are given: the first where it is, the others elsewhere."""
    nowhere = Placement.identity(problem.unit)
    return tuple(View(str(i), band, problem, PLACE if i else nowhere) for i, band in enumerate(bands))


def joint_residual(problem: JointProblem) -> Callable[[Tensor, Tensor], Tensor]:
    def residual(x: Tensor, _: Tensor) -> Tensor:
        return torch.cat([own.residual(vector) for own, vector in problem.seen(x)], dim=1)

    return residual


def sharp(problem: LensProblem) -> LensProblem:
    """Without a PSF and with one point a pixel: derivatives are of the same pixels as the image."""
    camera = replace(problem.observation.camera, psf=NoPSF(), supersampling=1)
    return replace(problem, observation=replace(problem.observation, camera=camera))


# ---------------------------------------------------------------- the joint problem


@pytest.mark.parametrize("bands", [("a", "a"), ("a", "b", "a")])
def test_its_normal_equations_are_those_of_forward_mode(bands):
    problem, own = rich()
    joint = JointProblem(views_of(sharp(problem), *bands), SIGMA, correlation=0.6)
    places = [Placement(view.place.numbers + 0.02 * draw(1, 4, seed=i)) for i, view in enumerate(joint.views)]
    x = joint.gathered([own] * len(bands), places)
    x = x + 0.05 * draw(*x.shape, seed=8)
    residual, jacobian = value_and_jacobian(joint_residual(joint), x, torch.arange(1))
    normal, (pull, curvature) = joint.normal(x), joint.prior_terms(x)
    torch.testing.assert_close(normal.hessian, jacobian @ jacobian.transpose(1, 2) + curvature, rtol=1e-6, atol=1e-6)
    expected = (jacobian @ residual[:, :, None])[:, :, 0] + pull
    torch.testing.assert_close(normal.gradient, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))
    torch.testing.assert_close(torch.func.grad(lambda v: joint._prior_cost(v).sum())(x), pull, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(joint.cost(x), normal.cost)


# ---------------------------------------------------------------- where an image lies


def test_a_placement_and_its_inverse_cancel():
    theta = draw(1, 2, 3, 4)
    torch.testing.assert_close(PLACE.image(PLACE.sky(theta)), theta)
    torch.testing.assert_close(PLACE.inverse.sky(PLACE.sky(theta)), theta)
    torch.testing.assert_close(PLACE.about(PLACE).numbers, torch.zeros(1, 4, dtype=torch.float64))
    other = Placement(torch.tensor([[-0.3, 0.2, -0.7, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(other.sky(PLACE.about(other).sky(theta)), PLACE.sky(theta))


def test_an_exposure_moves_with_its_place():
    place = Placement(torch.tensor([[0.1, 0.2, 0.0, 0.0]]))
    camera = Camera(PixelGrid(4, 4, 0.1), NoPSF())
    seen = Observation(torch.zeros(1, 1, 4, 4), camera, ErrorMap(torch.ones(1, 1, 4, 4)))
    moved = Exposure("a", "", seen, place).to("meta")
    assert moved.place is not None and moved.place.numbers.is_meta and moved.observation.image.is_meta
    assert Exposure("a", "", seen).to("meta").place is None


def test_the_parameters_of_an_image_on_the_sky_are_those_of_the_same_lens():
    values = {"lens.theta_E": 1.2, "lens.e1": 0.2, "lens.e2": -0.1, "lens.center_x": 0.1, "lens.center_y": -0.2}
    own = {name: torch.tensor([value]) for name, value in values.items()}
    shear = {"shear.gamma1": torch.tensor([0.05]), "shear.gamma2": torch.tensor([-0.02])}
    waves = {"waves.m": torch.tensor([3]), "waves.a_cos": torch.tensor([0.03]), "waves.a_sin": torch.tensor([-0.01])}
    place = {f"{name}.{c}": own[f"lens.{c}"] for name in ("shear", "waves") for c in CENTRE}
    sky = PLACE.values(own | shear | waves | place)

    def made(values: dict[str, Tensor]) -> MassProfile:
        sie = SIE(**{n.partition(".")[2]: v for n, v in values.items() if n.startswith("lens")})
        more = MultipoleWaves(3, values["waves.a_cos"], values["waves.a_sin"], sie.center_x, sie.center_y)
        return sie + Shear(values["shear.gamma1"], values["shear.gamma2"], sie.center_x, sie.center_y) + more

    theta = draw(1, 2, 5, 6)
    seen = PlacedMass(made(sky), PLACE)(theta)
    torch.testing.assert_close(seen, made(own | shear | waves)(theta), rtol=1e-6, atol=1e-6)


def test_an_image_elsewhere_shows_the_lens_from_there():
    problem, x = rich()
    moved = replace(problem, placement=PLACE)
    lens, grid = problem.lens(x), problem.observation.camera.grid
    seen = moved.seen_lens(x)
    sky = PLACE.sky(grid.positions(like=x))
    expected = lens.source(sky - lens.mass(sky)) * PLACE.factor
    theta = grid.positions(like=x)
    torch.testing.assert_close(seen.source(theta - seen.mass(theta)), expected)
    torch.testing.assert_close(moved.positions(grid), sky)


# ---------------------------------------------------------------- the fit


def quick() -> Refinement:
    """Smooth lenses with Sersics alone."""
    return Refinement(beyond=BeyondSmooth(source=None).without_subhalos(), lens_light=None)


MASS = SIE(1.2, 0.08, -0.05, 0.02, 0.03) + Shear(0.03, -0.02, 0.02, 0.03)
RED, BLUE = Sersic(5.0, 0.35, 1.0, 0.1, -0.1, 0.15, 0.1), Sersic(3.0, 0.2, 1.5, 0.0, 0.1, 0.25, 0.05)


def shot(name: str, band: str, source: Sersic, place: tuple[float, ...], seed: int, noise: float = 0.05) -> Exposure:
    """A small image of one lens, taken from somewhere."""
    camera = Camera(PixelGrid(36, 40, 0.15), GaussianPSF(0.2))
    placement = Placement(torch.tensor([place]))
    field = DeflectionField.from_lens(PlacedMass(MASS, placement), camera.grid, like=placement.numbers)
    clean = camera.render(PlacedLight(source, placement), field)
    error = ErrorMap(torch.full_like(clean, noise) * clean.amax())
    image = error.sample(clean, torch.Generator().manual_seed(seed))
    return Exposure(name, band, Observation(image, camera, error))


def alone_fit(seen: Exposure) -> Fitted:
    """The fit of an image by itself."""
    ((_, fitted),) = quick()(LensProblem.from_observation(seen.observation)).groups
    return fitted


def theta_E(view: Fitted) -> tuple[float, float]:
    """Einstein radius and its error."""
    errors = Posterior.from_fit(view).errors()
    return float(view.problem.lens(view.x).values["lens.theta_E"]), float(errors["lens.theta_E"])


def test_one_image_alone_is_its_own_fit():
    one = shot("a", "", RED, (0.0, 0.0, 0.0, 0.0), 1)
    joint, alone = JointRefinement(quick())([one]), alone_fit(one)
    (view,) = joint.views()
    torch.testing.assert_close(view.x, alone.x)
    torch.testing.assert_close(joint.fitted.evidence, alone.evidence)
    torch.testing.assert_close(view.end.hessian, alone.end.hessian, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(view.determined, effective(replace(view, determined=None)), rtol=1e-3, atol=1e-3)


def test_two_exposures_find_their_places_and_the_lens_better_than_one():
    places = (0.0, 0.0, 0.0, 0.0), (0.11, -0.07, 0.003, 0.0)
    shots = [shot(name, "", RED, place, seed) for name, place, seed in zip("ab", places, (1, 2), strict=True)]
    joint = JointRefinement(quick())(shots)
    assert [view.name for view in joint.fitted.problem.views] == ["a", "b"]
    (found, error), (_, alone) = (theta_E(v) for v in (joint.views()[0], alone_fit(shots[0])))
    assert abs(found - 1.2) < 3 * error < 0.02
    assert 0.6 * alone < error < 0.85 * alone  # sqrt(1/2), but for the placement
    placement, errors = joint.fitted.placements()[1]
    true = torch.tensor(places[1])
    assert bool(((placement.numbers[0] - true).abs()[:3] < 3 * errors[:3]).all())
    assert float(errors[:2].max()) < 0.01 < 0.1 * quick().window.margin
    for view in joint.views():
        assert 0.9 < float(view.problem.chi2(view.x)) < 1.1
    counted = sum(float(view.determined) for view in joint.views())
    assert abs(counted - joint.fitted.problem.size) < 1.5  # the rotation alone is told by its prior


def test_two_bands_share_a_lens_and_have_sources_of_their_own():
    shots = [
        shot("a", "red", RED, (0.0, 0.0, 0.0, 0.0), 1),
        shot("b", "blue", BLUE, (0.08, -0.05, 0.0, 0.0), 2),
    ]
    joint = JointRefinement(quick())(shots)
    views = dict(zip([view.band for view in joint.fitted.problem.views], joint.views(), strict=True))
    found, error = theta_E(views["red"])
    assert theta_E(views["blue"])[0] == pytest.approx(found, rel=1e-6)
    assert abs(found - 1.2) < 3 * error
    for band, true in (("red", RED), ("blue", BLUE)):
        source, errors = views[band].problem.sersic(views[band].x), Posterior.from_fit(views[band]).errors()
        for name in ("amp", "R_sersic", "n_sersic", "e1", "e2"):
            off = float(getattr(source, name)) - float(true.values[name])
            assert abs(off) < 3.5 * float(errors[f"source.{name}"]), (band, name)


def test_the_evidence_of_a_correlation_is_that_of_the_fit_under_it():
    problem, own = one_lens()
    problem, own = freed_problem(problem, own, half_side=1.2)
    nowhere = Placement.identity(problem.unit)
    views = [View(band, band, problem, nowhere) for band in "ab"]
    joint = JointProblem(tuple(views), SIGMA, correlation=0.5)
    x = minimised(joint, joint.gathered([own, own], [nowhere] * 2), Stop(20)).x
    fitted = JointFitted.at(joint, x)
    assert correlation_evidence(fitted, [0.5]) == pytest.approx([float(fitted.evidence)], abs=1e-3)
    near = minimised(replace(joint, correlation=0.6), x, Stop(8)).x
    refitted = JointFitted.at(replace(joint, correlation=0.6), near)
    assert correlation_evidence(fitted, [0.6]) == pytest.approx([float(refitted.evidence)], abs=0.3)
    same = [correlation_evidence(fitted, [rho])[0] for rho in (0.0, 0.9)]
    assert same[1] > same[0]  # both images are of the same galaxy


def test_a_sub_halo_that_no_image_shows_goes_and_one_that_both_show_stays():
    problem, own = one_lens()
    for strength, stays in ((-9.0, False), (-3.5, True)):
        body = torch.tensor([[[strength, 0.7, 0.8]]], dtype=torch.float64)
        there, x = with_bodies(problem, own, body)
        there = seen_as(there, x)
        joint = JointProblem(views_of(there, "", ""), SIGMA)
        other = replace(there, placement=PLACE)
        seen = with_noise_of(there, other.render(x), seed=9)
        joint = replace(joint, views=(joint.views[0], replace(joint.views[1], problem=seen)))
        start = joint.gathered([x, x], [view.place for view in joint.views])
        fitted = JointFitted(joint, minimised(joint, start, Stop(10)))
        left = JointRefinement(quick()).pruned(fitted)
        assert left.problem.first.subhalos == int(stays)
        assert left.x.shape[1] == fitted.x.shape[1] - (0 if stays else 3)


def test_an_image_that_does_not_show_the_arcs_is_named():
    shots = [shot("a.fits", "", RED, (0.0, 0.0, 0.0, 0.0), 1), shot("b.fits", "", RED, (0.0, 0.0, 0.0, 0.0), 2)]
    places = [Placement.identity(torch.zeros(1)), Placement(torch.tensor([[20.0, 0.0, 0.0, 0.0]]))]
    shots = [replace(one, place=place) for one, place in zip(shots, places, strict=True)]
    with pytest.raises(LensphysError, match=r"[ab]\.fits shows 0 % of the arcs of [ab]\.fits.*leave one out"):
        JointRefinement(quick())(shots)


@pytest.mark.slow
def test_four_dithered_exposures_of_a_spiral_are_sharper_than_one():
    galaxy = np.load(Path(__file__).parents[1] / "simulations/drawn_galaxies.npy")[0]
    source = ImageSource.from_image(galaxy / galaxy.sum() * 300 / 0.02**2, 0.02, center_x=0.1, center_y=-0.05)
    camera = Camera(PixelGrid(44, 48, 0.1), GaussianPSF(0.16), supersampling=2)
    seen = []
    for i, place in enumerate([(0.0, 0.0, 0.0), (0.06, 0.01, 0.001), (-0.01, 0.05, 0.0), (0.05, 0.06, -0.001)]):
        placement = Placement(torch.tensor([[*place, 0.0]]))
        field = DeflectionField.from_lens(PlacedMass(MASS, placement), camera.grid, like=placement.numbers)
        clean = camera.render(PlacedLight(source, placement), field)
        error = ErrorMap(torch.full_like(clean, 0.03) * clean.amax())
        image = error.sample(clean, torch.Generator().manual_seed(i))
        seen.append((Exposure(str(i), "", Observation(image, camera, error)), placement))

    def judged(count: int) -> tuple[JointPrediction, float]:
        method = JointRefinedFit(fit=RefinedFit().shortened(0))
        found = method.prediction(method.fitted([one for one, _ in seen[:count]]), 2)
        fine, place = found.bands[""].camera, {one.name: p for one, p in seen}[found.first]
        field = DeflectionField.from_lens(PlacedMass(MASS, place), fine.grid, like=place.numbers)
        return found, float(psnr(found.bands[""].image, fine.render(PlacedLight(source, place), field)))

    (one, before), (four, after) = judged(1), judged(4)
    assert after > before + 2
    rows = {row.name: row for row in four.table}
    assert abs(rows["theta_E"].value - 1.2) < 4 * rows["theta_E"].error
    assert rows["theta_E"].error < 0.8 * {row.name: row for row in one.table}["theta_E"].error
    assert all(0.85 < chi2 < 1.15 for chi2 in four.each.values())
