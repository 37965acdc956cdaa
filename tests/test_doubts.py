"""Where no sub-halo can be believed: under a sky, and beside noise that is guessed and that neighbours share."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from lenses import one_thread, small_lenses, small_problem  # noqa: F401

from lensphys.fitting import Fitted, LensProblem, Stop, VerdictSettings, minimised
from lensphys.fitting.doubts import NOISE, PSF, SKY, doubtful
from lensphys.observation import NoPSF, SkyNoise, UnknownPSF
from lensphys.prediction import Verdict

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(scope="module")
def truth(float64) -> Fitted:
    problem, x = small_problem(small_lenses(dtype=torch.float64))
    return Fitted(problem, minimised(problem, x, Stop(5)))


def of(fit: Fitted, **changes: object) -> Fitted:
    """The same state with another image or noise."""
    problem = LensProblem.from_observation(replace(fit.problem.observation, **changes))
    return Fitted.at(problem.renewed(fit.x), fit.x)


def test_lenses_of_known_noise_are_searched(truth):
    assert doubtful(truth, VerdictSettings()) == {}


def test_blur_that_nobody_knows_passes_for_sub_halos(truth):
    camera = truth.problem.observation.camera
    for psf, expected in ((UnknownPSF(), {0: PSF, 1: PSF}), (NoPSF(), {})):
        assert doubtful(of(truth, camera=replace(camera, psf=psf)), VerdictSettings()) == expected


@pytest.mark.parametrize("level", [3.0, -3.0])
def test_a_sky_is_taken_for_the_source(truth, level):
    observation = truth.problem.observation
    sky = torch.tensor([0.0, level])[:, None, None, None] * observation.noise.sigma.amax()
    assert doubtful(of(truth, image=observation.image + sky), VerdictSettings()) == {1: SKY}


def test_noise_that_is_guessed_and_shared(truth):
    observation = truth.problem.observation
    clean = truth.problem.shown(truth.x)
    white = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    shared = F.avg_pool2d(F.pad(white, (1, 1, 1, 1), mode="circular"), 3, stride=1) * 3
    sigma = observation.noise.sigma.amax() * 0.3
    noise = SkyNoise(sigma.expand(len(clean), 1, 1, 1))
    for drawn, expected in ((white, {}), (shared, {0: NOISE, 1: NOISE})):
        seen = of(truth, image=clean + sigma * drawn, noise=noise)
        assert doubtful(seen, VerdictSettings()) == expected
    known = of(truth, image=clean + sigma * shared)
    assert doubtful(known, VerdictSettings()) == {}


def test_a_doubted_fit_is_not_good():
    doubted = Verdict("good").doubted(SKY)
    assert doubted.quality == "suspect" and "no sub-halos were looked for: the borders" in doubted.reasons[0]
    assert Verdict("bad", ("a",)).doubted(NOISE).quality == "bad"
