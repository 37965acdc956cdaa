"""Images that a galaxy alone explains, and faint arcs about one that it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lenses import one_thread, small_lenses, small_problem  # noqa: F401

from lensphys.fitting import Fitted, LensProblem, VerdictSettings, verdicts
from lensphys.fitting.without_lens import WithoutLens
from lensphys.methods import READY
from lensphys.model import Gaussian, LensModel, Member, Sersic
from lensphys.observation import Camera, ErrorMap, GaussianPSF, Observation
from lensphys.tracing.grid import PixelGrid

CAMERA = Camera(PixelGrid(44, 40, 0.08), GaussianPSF(0.12), supersampling=2)
SIGMA = 0.002
TRUTH = {
    "lens.theta_E": 0.9, "lens.e1": 0.1, "lens.e2": -0.05, "lens.center_x": 0.03, "lens.center_y": -0.02,
    "shear.gamma1": 0.02, "shear.gamma2": -0.02, "source.R_sersic": 0.15, "source.n_sersic": 1.0, "source.e1": 0.1,
    "source.e2": 0.1, "source.center_x": 0.12, "source.center_y": -0.05, "lens_light.0.amp": 2.0,
    "lens_light.0.sigma": 0.4, "lens_light.0.e1": 0.1, "lens_light.0.e2": -0.1, "lens_light.0.center_x": 0.03,
    "lens_light.0.center_y": -0.02,
}  # fmt: skip

# a source so far from the axis of a weak lens that it has one image
ONE_IMAGE = {"lens.theta_E": 0.15, "source.center_x": 0.9, "source.center_y": -0.1}


def lit(signal: float, seed: int = 0, **changed: float) -> Fitted:
    """A galaxy, a Gaussian, with images of a source of so much signal-to-noise in all: the true lens."""
    like = torch.zeros(1)
    values = {name: torch.full_like(like, x) for name, x in (TRUTH | changed).items()}
    model = replace(LensModel.smooth(), lens_light={"lens_light.0": Member.from_component(Gaussian)})
    noise = ErrorMap(torch.full((1, 1, *CAMERA.grid.shape), SIGMA))
    problem = LensProblem.from_observation(Observation(torch.ones_like(noise.sigma), CAMERA, noise), model)
    none, one = (problem.unconstrained(values | {"source.amp": torch.full_like(like, x)}) for x in (1e-6, 1.0))
    share = signal * SIGMA / float((problem.render(one) - problem.render(none)).norm())
    x = problem.unconstrained(values | {"source.amp": torch.full_like(like, max(share, 1e-6))})
    image = noise.sample(problem.render(x), torch.Generator().manual_seed(seed))
    problem = LensProblem.from_observation(Observation(image, CAMERA, noise), model)  # in the unit of its own image
    return Fitted.at(problem, problem.unconstrained(values | {"source.amp": torch.full_like(like, max(share, 1e-6))}))


@pytest.mark.parametrize("seed", range(3))
def test_a_galaxy_without_arcs_explains_itself(seed):
    found = WithoutLens().explains(lit(0.0, seed), 20.0)
    assert found is not None and found.others == 0 and abs(found.gain) < 1


@pytest.mark.parametrize("signal", [20.0, 50.0])
@pytest.mark.parametrize("seed", range(3))
def test_faint_arcs_are_no_galaxy(signal, seed):
    assert WithoutLens().explains(lit(signal, seed), 20.0) is None


@pytest.mark.parametrize("seed", range(3))
def test_one_image_is_another_galaxy(seed):
    found = WithoutLens().explains(lit(15.0, seed, **ONE_IMAGE), 20.0)
    assert found is not None and found.others == 1


def test_arcs_about_a_dark_middle_are_no_galaxy():
    problem, x = small_problem(small_lenses(1))
    assert WithoutLens(gain=1e9).explains(Fitted.at(problem, x), 10.0) is None


def test_the_verdict_says_that_no_second_image_is_found():
    (verdict,) = verdicts(lit(15.0, **ONE_IMAGE), torch.tensor([True]), torch.tensor([0.9]))
    assert any(reason.startswith("no second image is found: a galaxy and") for reason in verdict.reasons)


def test_the_verdict_says_that_no_arc_is_found():
    seen, smooth = torch.tensor([True]), torch.tensor([0.9])
    for signal, words in ((0.0, True), (50.0, False)):
        (verdict,) = verdicts(lit(signal), seen, smooth, VerdictSettings(psf=None))
        told = [
            reason
            for reason in verdict.reasons
            if reason.startswith("no arc is found: the light of one galaxy explains")
        ]
        assert bool(told) == words and (verdict.quality == "bad") == words
    (verdict,) = verdicts(lit(0.0), seen, smooth, VerdictSettings(psf=None, without_lens=None))
    assert not any("no arc" in reason for reason in verdict.reasons)


@pytest.mark.slow
def test_a_lone_galaxy_is_no_lens():
    fine = CAMERA.grid.resampled(2)
    light = Sersic(2.0, 0.4, 3.0, 0.12, -0.06, 0.03, 0.02)(fine.positions(like=torch.zeros(1)))
    galaxy = CAMERA.expose(light * fine.pixel_area)
    noise = ErrorMap((SIGMA**2 + 1e-4 * galaxy).sqrt())
    image = noise.sample(galaxy, torch.Generator().manual_seed(1))
    found = READY["refine"].predict(Observation(image, CAMERA, noise), 2)
    assert found.verdicts[0].quality == "bad"
    assert any("no arc is found" in reason for reason in found.verdicts[0].reasons)
