"""The search for sub-halos: what is there is found, and nothing is found where nothing is."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from lenses import (
    one_thread,  # noqa: F401
    seen_as,
    small_lenses,
    small_problem,
)

from lensphys.fitting import LensProblem, LensState, Search
from lensphys.fitting.lens import minimised
from lensphys.fitting.problem import EMPTY
from lensphys.fitting.subhalos import add_subhalos, strongest

pytestmark = pytest.mark.usefixtures("float64")

THETA_E = 0.06
PLACE = torch.tensor([[0.75, 0.85], [-0.6, 1.0]]).double()  # off the middle of pixels, beside the arcs


@pytest.fixture(scope="module")
def planted(float64) -> tuple[LensProblem, LensState]:
    """Two images at S/N 200, a sub-halo in each, and the optimum of a smooth lens."""
    problem, smooth = small_problem(small_lenses(dtype=torch.float64, noise=0.005))
    strength = torch.full((2, 1), 2 * math.log(THETA_E)).double()
    truth = replace(smooth, subhalos=torch.cat([strength, PLACE], dim=1)[:, None])
    problem = seen_as(problem, truth)
    return problem, smooth.moved(minimised(problem, smooth, steps=30).x)


def test_a_planted_subhalo_is_found_where_it_is_and_as_strong(planted):
    problem, state = planted
    smooth = problem.cost(state)
    renewed, found = add_subhalos(problem, state, Search())
    cost = problem.cost(found)
    assert bool((cost < smooth - 50).all())
    for i in range(2):
        there = found.subhalos[i][found.subhalos[i, :, 0] > EMPTY]
        best = there[there[:, 0].argmax()]
        assert float((best[1:] - PLACE[i]).norm()) < 0.15, there
        assert float((0.5 * best[0]).exp()) == pytest.approx(THETA_E, rel=0.2), there
    chi2 = problem.residual(found).square().sum(1) / problem.observation.counted
    assert bool(((chi2 > 0.85) & (chi2 < 1.15)).all()), chi2
    torch.testing.assert_close(renewed.inverse_sigma, problem.inverse_sigma)  # an error map stays


def test_the_first_candidate_is_near_it(planted):
    place, gain = strongest(*planted, 3)
    assert place.shape == (2, 3, 3) and gain.shape == (2, 3)
    assert bool((gain >= 0).all()) and bool((gain.amax(1) > 50).all())
    best = place[torch.arange(2), gain.argmax(1)]
    assert bool(((best[:, 1:] - PLACE).norm(dim=1) < 0.35).all()), best
    for a in range(3):
        for b in range(a):
            assert bool(((place[:, a, 1:] - place[:, b, 1:]).norm(dim=1) > 3 * 0.15).all())


def test_the_cost_never_rises_from_round_to_round(planted):
    problem, state = planted
    costs = [problem.cost(state)]
    for rounds in (1, 2, 3):
        costs.append(problem.cost(add_subhalos(problem, state, Search(rounds=rounds, gain=3.0))[1]))
        assert bool((costs[-1] <= costs[-2] + 1e-9).all())
    assert torch.equal(problem.cost(add_subhalos(problem, state, Search(rounds=0))[1]), costs[0])


def test_none_is_found_in_noise(float64):
    problem, truth = small_problem(small_lenses(10, dtype=torch.float64))
    problem = seen_as(problem, truth, seed=11)
    state = truth.moved(minimised(problem, truth, steps=20).x)
    _, found = add_subhalos(problem, state, Search(gain=12.0))
    assert int((found.subhalos[:, :, 0] > EMPTY).sum()) == 0
    torch.testing.assert_close(found.macro, state.macro)


def test_one_image_with_and_one_without(planted):
    """The other image's state stays as it was, and its empty places are empty."""
    problem, state = planted
    quiet = seen_as(problem, state, seed=8)  # the second image is that of its smooth model
    rows = torch.tensor([1])
    image = problem.observation.image.index_copy(0, rows, quiet.observation.image[rows])
    problem = replace(problem, observation=replace(problem.observation, image=image))
    _, found = add_subhalos(problem, state, Search())
    there = found.subhalos[:, :, 0] > EMPTY
    assert there.any(1).tolist() == [True, False]
    torch.testing.assert_close(found.macro[1], state.macro[1])
    torch.testing.assert_close(problem.render(found)[1], problem.render(state)[1])
    again = minimised(problem, found, steps=3)  # and the optimiser takes both on
    assert bool((again.cost <= problem.cost(found) + 1e-9).all())
    assert bool((found.moved(again.x).subhalos[1, :, 0] == EMPTY).all())


def test_a_weak_one_does_not_pay(planted):
    problem, state = planted
    _, found = add_subhalos(problem, state, Search(gain=1e6))
    assert found.subhalos.shape[1] == 0


def test_images_do_not_depend_on_their_batch(planted):
    problem, state = planted
    together, gains = strongest(problem, state, 2)
    for i in range(2):
        row = torch.tensor([i])
        alone, gain = strongest(problem[row], state[row], 2)
        torch.testing.assert_close(alone[0], together[i], rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(gain[0], gains[i], rtol=1e-6, atol=1e-9)
