"""From any start to the joint optimum: never worse than the start, out of false minima, with substructure."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from lenses import (
    one_thread,  # noqa: F401
    relative,
    seen_as,
    small_lenses,
    small_problem,
)

from lensphys.checks import LensphysError
from lensphys.fitting import FieldPriors, LensProblem, LensState, Refinement, Search
from lensphys.fitting.lens import finish
from lensphys.fitting.problem import EMPTY
from lensphys.fitting.refine import poor
from lensphys.model import FieldPrior

pytestmark = pytest.mark.usefixtures("float64")

SMOOTH = FieldPriors(potential=FieldPrior(amplitude=0), light=FieldPrior(amplitude=0))
REFINE = Refinement(Search(rounds=3), SMOOTH, steps=15, starts=3)


@pytest.fixture(scope="module")
def truth(float64) -> tuple[LensProblem, LensState]:
    return small_problem(small_lenses(height=28, width=32, dtype=torch.float64), modes=8, source_modes=8)


def moved(problem: LensProblem, state: LensState, **factors: float) -> LensState:
    """The state with some of its parameters multiplied."""
    values = problem.space.physical(state.macro)
    changed = {name: values[name] * factors.get(name, 1.0) for name in values}
    return LensState.smooth(problem.space.unconstrained(changed))


@pytest.mark.parametrize("start", [{}, {"theta_E": 0.97, "R_sersic": 1.2}, {"theta_E": 1.3, "amp": 0.3}])
def test_the_cost_does_not_end_above_its_start(truth, start):
    problem, state = truth
    start = moved(problem, state, **start)
    before = problem.cost(start)
    fit = REFINE(problem, start)
    after = fit.problem.cost(fit.state)
    assert bool((after <= before).all())
    assert bool((after <= problem.cost(state)).all())  # the optimum is below the truth
    assert fit.gradient_norm.shape == fit.seen.shape == (2,)
    assert bool((fit.gradient_norm < 1e-2).all()) and bool(fit.seen.all())
    assert not bool(poor(fit.problem, fit.state).any())
    assert relative(fit.problem.model(fit.state).values["theta_E"], problem.model(state).values["theta_E"]) < 0.01


def test_a_start_in_a_false_minimum_is_left(truth):
    problem, state = truth
    false = moved(problem, state, theta_E=0.3, R_sersic=0.5, amp=0.1)
    known = problem.model(state).values["theta_E"]
    stuck = finish(problem, false, 15)
    wrong = ((problem.model(stuck.state).values["theta_E"] - known).abs() > 0.1).tolist()
    assert any(wrong), "the start is in no false minimum: the test has lost its meaning"
    assert poor(problem, stuck.state).tolist() == wrong
    fit = REFINE(problem, false)
    assert relative(fit.problem.model(fit.state).values["theta_E"], known) < 0.01
    assert not bool(poor(fit.problem, fit.state).any())


def test_without_a_start_several_are_tried(truth):
    problem, state = truth
    fit = REFINE(problem)
    assert relative(fit.problem.model(fit.state).values["theta_E"], problem.model(state).values["theta_E"]) < 0.01
    assert fit.state.subhalos.shape[1] == 0
    assert not fit.state.macro.requires_grad


def test_substructure_is_taken_up(truth):
    """A sub-halo in one image, a potential field in the other: both end better explained, none worse."""
    problem, smooth = truth
    problem = replace(problem, inverse_sigma=3 * problem.inverse_sigma, observation=replace(
        problem.observation, noise=type(problem.observation.noise)(problem.observation.noise.sigma / 3)))  # fmt: skip
    psi = torch.zeros(2, 8, 8)
    psi[1] = 0.6 * torch.randn(8, 8, generator=torch.Generator().manual_seed(5)) / (1 + torch.arange(8)[:, None]
                                                                                 + torch.arange(8)) ** 3  # fmt: skip
    subhalos = torch.tensor([[[2 * math.log(0.08), 0.75, 0.85]], [[EMPTY, 0.0, 0.0]]]).to(psi)
    problem = seen_as(problem, replace(smooth, subhalos=subhalos, potential=psi))
    priors = FieldPriors(potential=FieldPrior(amplitude=0.1), light=FieldPrior(amplitude=0))
    start = finish(problem, smooth, 15).state
    before = problem.residual(start).square().mean(1)
    assert bool(poor(problem, start).all())
    fit = Refinement(Search(rounds=4), priors, steps=15)(problem, smooth)
    after = fit.problem.residual(fit.state).square().mean(1)
    assert bool((after < before).all())
    assert bool((after < 1.3).all()), (before, after)
    assert bool((fit.state.subhalos[0, :, 0] > EMPTY).any())


def test_images_that_are_fine_are_not_poor(truth):
    problem, state = truth
    assert not bool(poor(problem, state).any())
    assert poor(problem, moved(problem, state, theta_E=1.1)).tolist() == [True, True]


def test_an_image_with_nan_is_refused_by_every_fit(truth):
    observation = truth[0].observation
    image = observation.image.clone()
    image[0, 0, 3, 4] = torch.nan
    with pytest.raises(LensphysError, match="NaN|finite"):
        Refinement()(LensProblem.of(replace(observation, image=image)))
