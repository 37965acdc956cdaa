"""The error bar: coverage on a lens whose truth is known, and what the data constrain."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lenses import (
    one_thread,  # noqa: F401
    seen_as,
    small_lenses,
    small_problem,
)
from torch import Tensor

from lensphys.deflection import DeflectionField
from lensphys.fitting import FieldPriors, LensProblem, LensState
from lensphys.fitting.lens import minimised
from lensphys.fitting.posterior import Posterior
from lensphys.fitting.problem import filled
from lensphys.model import FieldPrior

pytestmark = pytest.mark.usefixtures("float64")

PRIORS = FieldPriors(potential=FieldPrior(amplitude=0.1, scale=2.0, slope=3.0))


@pytest.fixture(scope="module")
def truth(float64) -> tuple[LensProblem, LensState]:
    return small_problem(small_lenses(dtype=torch.float64))


def about(problem: LensProblem, state: LensState, scale: int) -> Posterior:
    return Posterior.about(problem, state, problem.observation.camera.at(scale))


def arc(image: Tensor) -> Tensor:
    return image > 0.1 * image.amax((2, 3), keepdim=True)


def rendered(problem: LensProblem, state: LensState, scale: int) -> Tensor:
    camera, model = problem.observation.camera.at(scale), problem.model(state)
    return camera.render(model.source, DeflectionField.of(model.mass, camera.grid, like=state.macro))


def test_the_interval_covers_the_truth_as_often_as_it_says(truth):
    """40 noise draws of one lens, fitted from the truth: 68.3 % of the arcs' pixels lie within one sigma."""
    rows = torch.zeros(40, dtype=torch.long)
    problem, state = truth[0][rows], truth[1][rows]
    problem = seen_as(problem, state, seed=13)
    best = state.moved(minimised(problem, state, steps=20).x)
    clean = rendered(problem, state, 2)
    error = rendered(problem, best, 2) - clean
    sigma = about(problem, best, 2).laplace().sqrt()
    assert sigma.shape == clean.shape
    z = (error / sigma)[arc(clean)]
    inside = float((z.abs() < 1).double().mean())
    assert 0.60 < inside < 0.76, inside
    assert float((z.abs() < 2).double().mean()) > 0.9
    assert 0.8 < float(z.square().mean().sqrt()) < 1.25
    # and it is no constant: where it says that it is sure, it is
    order = sigma[arc(clean)].argsort()
    half = len(order) // 2
    rms = [error[arc(clean)][part].square().mean().sqrt() for part in (order[:half], order[half:])]
    assert rms[0] < rms[1]


def test_sigma_follows_the_noise_and_the_pixel(truth):
    problem, state = truth
    sigma = about(problem, state, 1).laplace().sqrt()
    deeper = about(replace(problem, inverse_sigma=2 * problem.inverse_sigma), state, 1).laplace().sqrt()
    bright = arc(problem.render(state))
    torch.testing.assert_close(deeper[bright], 0.5 * sigma[bright], rtol=0.05, atol=0)  # but for the priors
    fine = about(problem, state, 2).laplace().sqrt()
    ratio = fine.amax((2, 3)) / sigma.amax((2, 3))  # flux per pixel: a quarter of the pixel
    torch.testing.assert_close(ratio, torch.full_like(ratio, 0.25), rtol=0.25, atol=0)


def test_a_place_that_is_empty_does_not_count(truth):
    problem, state = truth
    more = replace(state, subhalos=filled(state.subhalos, 2))
    torch.testing.assert_close(
        about(problem, more, 1).laplace(), about(problem, state, 1).laplace(), rtol=1e-4, atol=1e-12
    )
    there = replace(state, subhalos=torch.tensor([[[-6.0, 0.7, 0.9]]]).double().expand(2, -1, -1))
    bright = arc(problem.render(there))
    assert bool((about(problem, there, 1).laplace()[bright] > 0).all())


def test_undetected_subhalos_widen_the_bar_only_where_there_are_others(truth):
    problem, state = truth
    assert float(about(problem, state, 2).undetected(0.25).abs().max()) == 0
    subhalos = filled(state.subhalos, 1)
    subhalos[0, 0] = torch.tensor([-6.0, 0.7, 0.9])
    posterior = about(problem, replace(state, subhalos=subhalos), 2)
    found = posterior.undetected(0.25)
    assert found.shape == (2, 1, 64, 72)
    assert float(found[1].abs().max()) == 0
    assert float(found[0].max()) > 0
    torch.testing.assert_close(posterior.undetected(0.5), 4 * found)
    clean = rendered(problem, state, 2)[0]
    assert float(found[0].flatten()[clean.flatten() < 0.01 * clean.max()].max()) < 0.1 * float(found[0].max())


def test_what_the_data_constrain(truth):
    problem, state = truth
    deep = replace(problem, inverse_sigma=3 * problem.inverse_sigma)
    grid = problem.observation.camera.grid.resampled(2)
    found = about(deep, state, 2).constrained(PRIORS, grid)
    assert found.shape == (2, 1, 64, 72)
    assert float(found.min()) >= 0 and float(found.max()) <= 1
    clean = rendered(problem, state, 2)
    assert float(found[clean > 0.7 * clean.amax()].min()) > 0.8
    for corner in (found[..., :6, :6], found[..., -6:, -6:]):
        assert float(corner.max()) < 0.05
    shallow = about(replace(problem, inverse_sigma=0.01 * problem.inverse_sigma), state, 2).constrained(PRIORS, grid)
    assert bool((shallow <= found + 1e-9).all()) and float(shallow.max()) < 0.5
    none = FieldPriors(potential=FieldPrior(amplitude=0))  # nothing is left to learn
    assert float(about(deep, state, 2).constrained(none, grid).max()) < 1e-6
