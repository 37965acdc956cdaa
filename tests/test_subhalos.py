"""The search for sub-halos: what is there is found, and nothing is found where nothing is."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from lenses import (
    deeper,
    freed_problem,
    one_thread,  # noqa: F401
    seen_as,
    small_lenses,
    small_problem,
    with_bodies,
)
from torch import Tensor

from lensphys.fitting import Fitted, LensProblem, Search, Stop, minimised
from lensphys.fitting.source import Groups
from lensphys.fitting.subhalos import Candidates, add_subhalos, candidates, places, pruned
from lensphys.observation import PixelPSF

pytestmark = pytest.mark.usefixtures("float64")

THETA_E = 0.06
PLACE = torch.tensor([[0.75, 0.85], [-0.6, 1.0]]).double()  # off the middle of pixels, beside the arcs
BODY = torch.cat([torch.full((2, 1), 2 * math.log(THETA_E)).double(), PLACE], dim=1)[:, None]


def fitted(problem: LensProblem, x: Tensor, steps: int = 30) -> Fitted:
    return Fitted(problem, minimised(problem, x, Stop(steps)))


def row(i: int) -> Tensor:
    return torch.tensor([i])


def bodies(fit: Fitted) -> Tensor:
    """(B, K, 3)."""
    return fit.problem.parts(fit.x)[1].unflatten(1, (-1, 3))


def of_each(groups: Groups) -> dict[int, Fitted]:
    """The fits image by image; every image is in one group."""
    found = {int(r): fit.rows(row(i)) for rows, fit in groups for i, r in enumerate(rows)}
    assert sum(len(rows) for rows, _ in groups) == len(found)
    assert all(len(rows) == len(fit.x) == len(fit.problem) == len(fit.evidence) for rows, fit in groups)
    return found


@pytest.fixture(scope="module")
def planted(float64) -> Fitted:
    """Two images at S/N 200, a sub-halo in each, and the optimum of a smooth lens."""
    problem, x = small_problem(small_lenses(dtype=torch.float64, noise=0.005))
    with_one, truth = with_bodies(problem, x, BODY)
    problem = replace(problem, observation=seen_as(with_one, truth).observation)
    return fitted(problem, x)


def test_a_planted_subhalo_is_found_where_it_is_and_as_strong(planted):
    found = of_each(add_subhalos(planted, Search()))
    assert sorted(found) == [0, 1]
    for i, fit in found.items():
        assert float(fit.end.cost) < float(planted.end.cost[i]) - 50
        assert float(fit.evidence) > float(planted.evidence[i]) + 30
        there = bodies(fit)[0]
        best = there[there[:, 0].argmax()]
        assert float((best[1:] - PLACE[i]).norm()) < 0.15, there
        assert float((0.5 * best[0]).exp()) == pytest.approx(THETA_E, rel=0.2), there
        assert 0.85 < float(fit.problem.chi2(fit.x)) < 1.15
        torch.testing.assert_close(fit.problem.cost(fit.x), fit.end.cost)
        torch.testing.assert_close(fit.problem.inverse_sigma, planted.problem.inverse_sigma[i : i + 1])  # a map stays


def test_the_first_candidate_is_near_it(planted):
    for i in range(2):
        tried = candidates(planted.rows(row(i)), Search())
        assert len(tried.place) == len(tried.strength) == len(tried.gain)
        assert bool((tried.gain >= 0).all()) and float(tried.gain.max()) > 50
        best = tried.best(3, 3 * 0.15, 1.0)
        assert float((best.place[0] - PLACE[i]).norm()) < 0.35, best.place
        assert float(best.gain[0]) == float(tried.gain.max()) and float(best.strength[0]) > 0
        assert bool((best.gain[1:] <= best.gain[:-1]).all())
        assert bool((torch.pdist(best.place) > 3 * 0.15).all())


def test_the_best_are_apart_and_gain_enough():
    place = torch.tensor([[0.0, 0.0], [0.1, 0.0], [1.0, 0.0], [2.0, 0.0]])
    response = torch.arange(8.0).reshape(4, 2)
    tried = Candidates(place, torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([20.0, 30.0, 25.0, 5.0]), response)
    chosen = tried.best(3, 0.2, 12.0)
    assert chosen.place.tolist() == [[0.1, 0.0], [1.0, 0.0]]
    assert chosen.strength.tolist() == [2.0, 3.0] and chosen.gain.tolist() == [30.0, 25.0]
    assert chosen.response.tolist() == [[2.0, 3.0], [4.0, 5.0]]
    assert len(tried.best(1, 0.2, 12.0)) == 1
    assert len(tried.best(3, 0.2, 30.0)) == 0
    assert len(tried.best(3, 0.05, 12.0)) == 3


def weakly(planted: Fitted, i: int, theta_E: float, depth: float = 1.0) -> tuple[LensProblem, Tensor, int]:
    """One image of a smooth lens with a weak sub-halo on one of the tried places, without noise: which place.

    In the brightest part of the arc, where smooth lenses do not mimic it.
    """
    problem, x = deeper(planted.problem[row(i)], depth), planted.x[i : i + 1]
    tried, light = places(problem, Search()), problem.render(x).flatten()
    brightest = problem.observation.camera.grid.positions(like=x)[0].flatten(1)[:, light.argmax()]
    at = int((tried - brightest).norm(dim=1).argmin())
    body = torch.tensor([[[2 * math.log(theta_E), *tried[at].tolist()]]])
    with_one, truth = with_bodies(problem, x, body)
    problem = replace(problem, observation=seen_as(with_one, truth, noise=0.0).observation)
    at_last = (places(problem, Search()) - tried[at]).norm(dim=1)
    assert float(at_last.min()) < 1e-9
    return problem, x, int(at_last.argmin())


def without_prior(problem: LensProblem) -> LensProblem:
    """A candidate's gain is that in likelihood: the prior of a body has its price, which is not in it."""
    return replace(problem, bodies=replace(problem.bodies, strength=(-7.0, 1e6), reach=1e6))


@pytest.mark.parametrize("i", [0, 1])
def test_the_promised_gain_is_what_the_cost_falls_by(planted, i):
    """At the true place of a weak sub-halo, where the linear estimate holds: within 20 %, with all else free."""
    problem, x, at = weakly(planted, i, 0.035)
    smooth = fitted(problem, x)
    tried = candidates(smooth, Search())
    start = torch.cat([tried.strength[at].log()[None], tried.place[at]])[None, None]
    trial, with_body = with_bodies(smooth.problem, smooth.x, start)
    fall = float(smooth.end.cost - minimised(without_prior(trial), with_body, Stop(30)).cost)
    assert fall > 10, fall
    assert float(tried.gain[at]) == pytest.approx(fall, rel=0.2)
    assert float(tried.strength[at].sqrt()) == pytest.approx(0.035, rel=0.2)


@pytest.mark.parametrize("i", [0, 1])
def test_the_gain_with_all_else_held_is_exact_where_the_problem_is_linear(planted, i):
    """Beside the very truth, of a body so weak that its light is linear in its strength: gain = r^2 / 2 less what all
    else can mimic."""
    problem, x, at = weakly(planted, i, 0.005, 100.0)
    tried = candidates(Fitted.at(problem, x), Search())
    assert float(tried.strength[at].sqrt()) == pytest.approx(0.005, rel=0.01)
    alone = 0.5 * float(problem.residual(x).square().sum())
    assert 0.05 * alone < float(tried.gain[at]) < alone


@pytest.mark.parametrize("i", [0, 1])
def test_a_free_source_gains_no_more_from_a_subhalo_than_a_fixed_one(planted, i):
    """What the source's field can mimic is not the sub-halo's: at its true place, less with every freedom."""
    problem, x, at = weakly(planted, i, 0.005, 100.0)
    free, x = freed_problem(problem, x, 8)
    body = torch.tensor([[[2 * math.log(0.005), *places(problem, Search())[at].tolist()]]])
    free = replace(free, observation=seen_as(*with_bodies(free, x, body), noise=0.0).observation)
    gains, shares = [], (1e-6, 0.1, 1.0)
    for share in shares:  # g = 0 all the same: the prior's width is how free the source is
        narrow = replace(free, free=replace(free.free, sigma=share * free.free.sigma))
        tried = candidates(Fitted.at(narrow, x), Search())
        near = int((tried.place - body[0, 0, 1:]).norm(dim=1).argmin())
        gains.append(float(tried.gain[near]))
    assert gains[0] > gains[1] > gains[2] > 0, gains
    assert gains[2] < 0.9 * gains[0]


@pytest.mark.parametrize("i", [0, 1])
def test_all_else_answers_as_the_candidate_says(planted, i):
    """Beside the truth the linear answer of lens and source to a body, and the body, explain an image of that body."""
    problem, x, at = weakly(planted, i, 0.005, 100.0)
    moved = x.clone()
    moved[:, 0] += 1e-4  # a lens that is a little off its optimum is put back by the same step
    tried = candidates(Fitted.at(problem, moved), Search())
    start = torch.cat([tried.strength[at].log()[None], tried.place[at]])[None, None]
    trial, with_body = with_bodies(problem, moved + tried.response[at], start)
    before, after = problem.residual(moved).square().sum(), trial.residual(with_body).square().sum()
    assert float(after) < 0.02 * float(before)


def test_a_subhalo_that_is_not_needed_is_taken_out(planted):
    """Of the true one and two that are not there the true one stays."""
    fit = of_each(add_subhalos(planted, Search(rounds=1)))[0]
    true = bodies(fit)[0, bodies(fit)[0, :, 0].argmax()]
    false = torch.tensor([[-9.0, -1.0, 0.3], [-10.0, 0.4, -1.2]]).double()
    own = fit.problem.parts(fit.x)[0]
    problem, x = with_bodies(replace(fit.problem, subhalos=0), own, torch.cat([false[:1], true[None], false[1:]])[None])
    left = pruned(fitted(problem, x, 5), Search())
    assert left.problem.subhalos == 1
    assert float((bodies(left)[0, 0, 1:] - PLACE[0]).norm()) < 0.15
    assert float(left.end.cost) < float(fit.end.cost) + 2 * Search().gain
    torch.testing.assert_close(left.problem.cost(left.x), left.end.cost)


def test_a_mass_outside_of_the_field_is_no_subhalo(float64, monkeypatch):
    problem, x = small_problem(small_lenses(dtype=torch.float64, noise=0.005))
    index = row(0)
    with_one, truth = with_bodies(problem[index], x[index], torch.tensor([[[0.0, 3.2, 0.3]]]))
    edge = problem.observation.camera.grid.radius
    assert edge < 3.2
    fit = fitted(seen_as(with_one, truth), truth, 5)
    assert pruned(fit, Search()).problem.subhalos == 0
    monkeypatch.setattr("lensphys.fitting.subhalos._outside", lambda fit: [])
    assert pruned(fit, Search()).problem.subhalos == 1  # it gains enough


def test_places_lie_near_the_arc(planted):
    search = Search(step=0.2, reach=0.3, bright=6.0)
    observation = planted.problem.observation
    theta = observation.camera.grid.positions(like=planted.x)[0]
    for i in range(2):
        problem = deeper(planted.problem, 0.1)[row(i)]  # S/N 20: the arcs alone are bright
        found = places(problem, search)
        significance = (problem.observation.smoothed * problem.inverse_sigma * 3)[0, 0]
        bright = theta[:, significance > 6.0].T
        away = torch.cdist(found, bright).amin(1)
        assert len(found) > 20 and float(away.max()) <= 0.3
        radius = found.norm(dim=1)
        assert float(radius.min()) > 0.2 and float(radius.max()) < 2.6, (radius.min(), radius.max())  # theta_E 1.1, 1.3
        grid = torch.cdist(found, found)
        grid.fill_diagonal_(9.0)
        assert float(grid.amin()) == pytest.approx(0.2)
        wider = places(problem, search.model_copy(update={"reach": 0.6}))
        assert len(wider) > len(found)
    dark = replace(observation, image=0.01 * observation.image)
    assert places(replace(planted.problem, observation=dark)[row(0)], search).shape == (0, 2)


@pytest.mark.parametrize("kernel", [False, True], ids=["its own PSF", "a kernel"])
def test_an_image_where_no_pixel_is_bright_has_no_candidates(planted, kernel):
    problem = planted.problem
    if kernel:  # an FFT, and there is none of no place
        camera = problem.observation.camera
        psf = PixelPSF(torch.ones(3, 3) / 9, camera.grid.scale)
        problem = replace(problem, observation=replace(problem.observation, camera=replace(camera, psf=psf)))
    dark = replace(problem, inverse_sigma=1e-4 * problem.inverse_sigma)
    fit = Fitted.at(dark, planted.x)
    assert len(candidates(fit.rows(row(0)), Search()).place) == 0
    ((rows, same),) = add_subhalos(fit, Search())
    assert rows.tolist() == [0, 1] and torch.equal(same.x, fit.x)


def test_the_cost_never_rises_from_round_to_round(planted):
    costs = [planted.end.cost]
    for rounds in (1, 2, 3):
        found = of_each(add_subhalos(planted, Search(rounds=rounds, gain=3.0)))
        costs.append(torch.cat([found[i].end.cost for i in range(2)]))
        assert bool((costs[-1] <= costs[-2] + 1e-9).all())
    assert bool((costs[1] < costs[0]).all())


def test_none_is_found_in_noise(float64):
    problem, truth = small_problem(small_lenses(10, dtype=torch.float64))
    smooth = fitted(seen_as(problem, truth, seed=11), truth, 20)
    found = of_each(add_subhalos(smooth, Search()))
    assert [fit.problem.subhalos for fit in found.values()] == [0] * 10
    for i, fit in found.items():
        torch.testing.assert_close(fit.x[0], smooth.x[i])


def test_one_image_with_and_one_without(planted):
    """The other image's vector stays as it was."""
    problem = planted.problem
    quiet = seen_as(problem, planted.x, seed=8)  # the second image is that of its smooth model
    image = problem.observation.image.index_copy(0, row(1), quiet.observation.image[row(1)])
    smooth = fitted(replace(problem, observation=replace(problem.observation, image=image)), planted.x)
    found = of_each(add_subhalos(smooth, Search()))
    assert found[0].problem.subhalos > 0 and found[1].problem.subhalos == 0
    torch.testing.assert_close(found[1].x[0], smooth.x[1])
    again = minimised(found[0].problem, found[0].x, Stop(3))  # and the optimiser takes it on
    assert float(again.cost) <= float(found[0].end.cost) + 1e-9


def test_a_weak_one_does_not_pay(planted):
    ((rows, same),) = add_subhalos(planted, Search(gain=1e6))
    assert rows.tolist() == [0, 1] and same.problem.subhalos == 0


def test_a_search_without_hope_ends(planted):
    """Where another model is out of reach, what has been found so far is returned."""
    found = of_each(add_subhalos(planted, Search(gain=3.0), torch.full((2,), torch.inf)))
    assert all(0 < fit.problem.subhalos <= Search().candidates_per_round for fit in found.values())
    far = of_each(add_subhalos(planted, Search(gain=3.0), torch.full((2,), -torch.inf)))
    assert all(float(far[i].end.cost) <= float(found[i].end.cost) + 1e-9 for i in range(2))


def test_images_do_not_depend_on_their_batch(planted):
    together = of_each(add_subhalos(planted, Search(rounds=1)))
    for i in range(2):
        alone = of_each(add_subhalos(planted.rows(row(i)), Search(rounds=1)))[0]
        assert alone.problem.subhalos == together[i].problem.subhalos
        torch.testing.assert_close(alone.end.cost, together[i].end.cost, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(bodies(alone), bodies(together[i]), rtol=1e-3, atol=1e-3)
