"""Sub-halos hold against a smooth mass with more freedom."""

from __future__ import annotations

import pytest
import torch
from lenses import small_lenses, small_problem

from lensphys.basics.checks import LensphysError
from lensphys.fitting import BeyondSmooth, FitModel, FreerMass, LensProblem, Refinement
from lensphys.fitting.newton import Stop, minimised
from lensphys.model import EPL, LensModel, Sersic, Shear
from lensphys.observation import Camera, ErrorMap, GaussianPSF, Observation
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid

pytestmark = pytest.mark.usefixtures("float64")


def test_an_isothermal_lens_gets_a_slope_and_multipoles():
    model = FreerMass().over(LensModel.smooth(), (3, 4))
    assert model.mass["lens"].component is EPL and list(model.mass) == ["lens", "shear", "multipole_3", "multipole_4"]
    assert {"lens.gamma", "multipole_3.a_cos", "multipole_4.a_sin"} <= set(model.names)
    assert not any(name.startswith("multipole") and "center" in name for name in model.names)  # about the lens


def test_what_a_model_says_of_its_mass_stays():
    said = {"lens": {"kind": "epl", "gamma": 2.1, "center_x": 0.1}, "more_lenses": [{"kind": "multipole", "m": 4}]}
    model = FitModel.parse(said, "mine").lens_model
    freer = FreerMass().over(model, (3, 4))
    assert freer.mass["lens"] == model.mass["lens"]
    assert list(freer.mass) == [*model.mass, "multipole_3"]
    assert freer.mass["multipole_3"].fixed == {"m": 3, "center_x": 0.1}
    assert FitModel.parse({"freer_mass": None}, "mine").freer_mass is None


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"lens": "cluster"}, "there is no mass cluster: choose one of"),
        ({"multipoles": [[1]]}, "greater than or equal"),
    ],
)
def test_a_freedom_that_there_is_not_is_one_sentence(said, message):
    with pytest.raises(LensphysError, match=message):
        FitModel.parse({"freer_mass": said}, "mine")


def test_the_same_lens_with_more_freedom_shows_the_same_image():
    problem, x = small_problem(small_lenses(2, dtype=torch.float64))
    freer, there = problem.with_model(FreerMass().over(problem.model, (3, 4)), x)
    torch.testing.assert_close(freer.render(there), problem.render(x), rtol=1e-6, atol=1e-9)
    assert freer.values(there)["lens.gamma"].tolist() == pytest.approx([2.0, 2.0])


def test_the_promise_is_what_a_linear_problem_gains():
    problem, x = small_problem(small_lenses(1, dtype=torch.float64))
    end = minimised(problem, x, Stop(30))
    near = end.x + 1e-3
    promised, gained = problem.normal(near).promise, problem.cost(near) - end.cost
    torch.testing.assert_close(promised, gained, rtol=0.05, atol=0.0)


def steep(slope: float) -> LensProblem:
    """A bright image of a power law, 40 x 40, without sub-halos."""
    camera = Camera(PixelGrid(40, 40, 0.08), GaussianPSF(0.12), supersampling=2)
    like = torch.zeros(1, 1, 1, 1)
    mass = EPL(1.1, slope, 0.12, -0.05) + Shear(0.03, -0.02)
    source = Sersic(amp=torch.tensor([30.0]), R_sersic=0.2, n_sersic=1.0, e1=0.1, e2=0.05, center_x=0.1, center_y=0.05)
    clean = camera.render(source, DeflectionField.from_lens(mass, camera.grid.resampled(2), like=like))
    sigma = clean.amax() / 80
    noise = sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(3))
    return LensProblem.from_observation(Observation(clean + noise, camera, ErrorMap(sigma.expand_as(clean))))


def test_a_steep_lens_has_no_subhalos_and_its_slope_is_found():
    problem = steep(2.3)
    believed = Refinement(beyond=BeyondSmooth(freer_mass=None))(problem)
    ((_, without),) = believed.groups
    ((_, found),) = Refinement()(problem).groups
    assert without.problem.subhalos > 0  # beside an isothermal lens
    assert found.problem.subhalos == 0
    slope = float(found.problem.values(found.x)["lens.gamma"])
    assert slope == pytest.approx(2.3, abs=0.05)
    assert float(found.evidence) > float(without.with_noise_of(found.problem).evidence)


def test_the_slope_is_free_where_the_image_wants_it_and_nothing_is_claimed():
    ((_, found),) = Refinement(beyond=BeyondSmooth().without_subhalos())(steep(1.8)).groups
    values = found.problem.values(found.x)
    assert float(values["lens.gamma"]) == pytest.approx(1.8, abs=0.05)
    assert float(values["lens.theta_E"]) == pytest.approx(1.1, rel=0.005)
