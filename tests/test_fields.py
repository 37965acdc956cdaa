"""Gaussian fields for potential and source: operator and adjoint, conjugate gradients, held-out strength, samples."""

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

from lensphys.fitting import FieldPriors, LensProblem, LensState
from lensphys.fitting.fields import (
    LIGHT,
    POTENTIAL,
    _System,
    conjugate_gradients,
    field_sigma,
    field_strength,
    fit_field,
    sampled,
    with_proposal,
)
from lensphys.fitting.lens import minimised
from lensphys.model import FieldPrior

pytestmark = pytest.mark.usefixtures("float64")

PRIORS = FieldPriors(
    potential=FieldPrior(amplitude=0.1, scale=2.0, slope=3.0), light=FieldPrior(amplitude=0.1, scale=3.0, slope=3.0)
)
each_field = pytest.mark.parametrize("which", [POTENTIAL, LIGHT], ids=["potential", "light"])
MODES = {"modes": 8, "source_modes": 8}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def truth(float64) -> tuple[LensProblem, LensState]:
    problem, state = small_problem(small_lenses(height=24, width=28, dtype=torch.float64), **MODES)
    return problem, state


@pytest.fixture(scope="module")
def bent(truth) -> tuple[LensProblem, LensState, Tensor]:
    """Images bent by a psi from the prior, the optimum of a smooth lens there, and psi."""
    problem, smooth = truth
    psi = draw(2, 8, 8, seed=5) * PRIORS.potential.sigma(problem.potential, like=problem.unit)
    problem = seen_as(problem, replace(smooth, potential=psi))
    return problem, smooth.moved(minimised(problem, smooth, steps=30).x), psi


def system(problem: LensProblem, state: LensState, which: int) -> _System:
    return _System.about(problem, state, which, field_sigma(problem, PRIORS, which, torch.ones(2)))


def with_field(state: LensState, which: int, coefficients: Tensor) -> LensState:
    return replace(state, light=coefficients) if which == LIGHT else replace(state, potential=coefficients)


# ---------------------------------------------------------------- the operator


@each_field
def test_the_operator_is_the_derivative_of_the_residual(truth, which):
    problem, state = truth
    about = system(problem, state, which)
    z, step = draw(2, 8, 8), 1e-5
    ends = [problem.residual(with_field(state, which, sign * step * z * about.sigma)) for sign in (1, -1)]
    known = (ends[0] - ends[1]) / (2 * step)
    torch.testing.assert_close(about.forward()(z), known, rtol=1e-5, atol=1e-5 * float(known.abs().max()))


@each_field
def test_the_pulled_back_is_the_adjoint(truth, which):
    about = system(*truth, which)
    z, dx, r = draw(2, 8, 8), draw(2, 14, seed=1), draw(*about.residual.shape, seed=2)
    change = torch.einsum("bpn,bp->bn", about.columns, dx)
    change[:, : about.seen.residual.shape[1]] += about.forward()(z)
    vector, field = about.pulled_back(r)
    torch.testing.assert_close(
        (change * r).sum(1), (dx * vector).sum(1) + (z * field).sum((1, 2)), rtol=1e-9, atol=1e-9
    )


@each_field
def test_the_system_is_solved(truth, which):
    """Against the dense matrix of macro and field."""
    about = system(*truth, which)
    dense = dense_hessian(about)
    right = draw(2, 14) * 10, draw(2, 8, 8, seed=1)
    vector, field = about.solve(right, 300)
    flat = torch.cat([right[0], right[1].flatten(1)], dim=1)
    known = torch.linalg.solve(dense, flat)
    found = torch.cat([vector, field.flatten(1)], dim=1)
    missed = found - known  # conjugate gradients end at a thousandth, in the energy of the system
    energy = [torch.einsum("bi,bij,bj->b", x, dense, x) for x in (missed, known)]
    assert bool((energy[0] < 1e-3 * energy[1]).all())


def dense_hessian(about: _System) -> Tensor:
    """J^T J + 1 on the field, (B, P + n n, P + n n)."""
    modes = about.sigma.shape[-1]
    forward, batch, total = about.forward(), len(about.sigma), about.residual.shape[1]
    columns = [forward(one.expand(batch, -1, -1)) for one in torch.eye(modes**2).reshape(-1, modes, modes)]
    field = torch.stack(columns, dim=1)
    field = torch.nn.functional.pad(field, (0, total - field.shape[2]))
    whole = torch.cat([about.columns, field], dim=1)
    own = torch.cat([torch.zeros(about.columns.shape[1]), torch.ones(modes**2)])
    return whole @ whole.transpose(1, 2) + torch.diag(own)


def test_conjugate_gradients_solve_a_random_batch_of_two_blocks():
    a = draw(3, 11, 11)
    matrix = a @ a.transpose(1, 2) + torch.eye(11)
    right = draw(3, 2, seed=1), draw(3, 3, 3, seed=2)

    def hessian(x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        out = torch.einsum("bij,bj->bi", matrix, torch.cat([x[0], x[1].flatten(1)], dim=1))
        return out[:, :2], out[:, 2:].reshape(-1, 3, 3)

    x = conjugate_gradients(hessian, right, lambda r: r, 60)
    back = hessian(x)
    for found, known in zip(back, right, strict=True):
        torch.testing.assert_close(found, known, rtol=0, atol=2e-2)
    assert bool((torch.cat([x[0], x[1].flatten(1)], dim=1).norm(dim=1) > 0).all())
    none = conjugate_gradients(hessian, right, lambda r: r, 0)
    assert float(none[0].abs().max()) == float(none[1].abs().max()) == 0


# ---------------------------------------------------------------- the fit


def whole_cost(problem: LensProblem, state: LensState, which: int) -> Tensor:
    sigma = field_sigma(problem, PRIORS, which, torch.ones(2))
    c = state.light if which == LIGHT else state.potential
    z = torch.where(sigma > 0, c / sigma.clamp(min=1e-30), 0.0)
    return problem.cost(state) + 0.5 * z.square().sum((1, 2))


@each_field
def test_the_cost_never_rises(bent, which):
    problem, state, _ = bent
    costs = [whole_cost(problem, with_field(state, which, torch.zeros(2, 8, 8)), which)]
    for steps in (1, 2, 3):
        fitted = fit_field(problem, state, PRIORS, which, torch.ones(2), steps=steps)
        costs.append(whole_cost(problem, fitted, which))
        assert bool((costs[-1] <= costs[-2] + 1e-6).all())
    if which == POTENTIAL:
        assert bool((costs[-1] < costs[0]).all())


def test_a_field_of_no_strength_stays_away(bent):
    problem, state, _ = bent
    fitted = fit_field(problem, state, PRIORS, POTENTIAL, torch.tensor([0.0, 1.0]))
    assert float(fitted.potential[0].abs().max()) == 0
    assert float(fitted.potential[1].abs().max()) > 0


def test_a_planted_field_pays_and_brings_the_deflection_closer(bent):
    problem, state, psi = bent
    strength = field_strength(problem, state, PRIORS, POTENTIAL)
    assert bool((strength > 0).all()), strength
    fitted = fit_field(problem, state, PRIORS, POTENTIAL, strength)
    truth = replace(small_problem(small_lenses(height=24, width=28, dtype=torch.float64), **MODES)[1], potential=psi)
    theta = problem.fine.positions(like=psi)
    arc = problem.render(truth)
    # a constant deflection is a shift of the source: it has no meaning
    alpha = [problem.model(s).mass(theta) for s in (truth, state, fitted)]
    mean = [(a * arc).sum((2, 3), keepdim=True) / arc.sum((2, 3), keepdim=True) for a in alpha]
    centred = [a - m for a, m in zip(alpha, mean, strict=True)]
    before, after = (((c - centred[0]).square() * arc).sum((1, 2, 3)).sqrt() for c in centred[1:])
    assert bool((after < 0.7 * before).all()), after / before
    chi2 = [problem.residual(s).square().mean(1) for s in (state, fitted)]
    assert bool((chi2[1] < chi2[0]).all()) and bool((chi2[1] < 1.2).all())


@each_field
def test_a_field_does_not_pay_in_noise(which):
    problem, truth = small_problem(small_lenses(6, height=24, width=28, dtype=torch.float64), **MODES)
    problem = seen_as(problem, truth, seed=21)
    state = truth.moved(minimised(problem, truth, steps=20).x)
    assert float(field_strength(problem, state, PRIORS, which).abs().max()) == 0


# ---------------------------------------------------------------- a network's proposal


def test_a_right_proposal_is_taken_as_it_is_and_one_of_half_the_size_doubled(bent):
    problem, state, psi = bent
    for share, wanted in ((1.0, 1.0), (0.6, 1 / 0.6), (0.1, 2.0)):  # at most doubled
        taken = with_proposal(problem, state, share * psi)
        factor = (taken.potential * psi).sum((1, 2)) / (share * psi.square()).sum((1, 2))
        torch.testing.assert_close(factor, torch.full((2,), wanted), rtol=0.25, atol=0)


def test_a_proposal_lowers_the_cost(bent):
    problem, state, psi = bent
    assert bool((problem.cost(with_proposal(problem, state, psi)) < problem.cost(state)).all())


def test_a_proposal_that_explains_nothing_is_left_out(bent):
    problem, state, psi = bent
    assert float(with_proposal(problem, state, -psi).potential.abs().max()) == 0
    quiet, truth = small_problem(small_lenses(6, height=24, width=28, dtype=torch.float64), **MODES)
    quiet = seen_as(quiet, truth, seed=22)
    best = truth.moved(minimised(quiet, truth, steps=20).x)
    wild = draw(6, 8, 8, seed=9) * PRIORS.potential.sigma(quiet.potential, like=quiet.unit)
    assert float(with_proposal(quiet, best, wild).potential.abs().max()) == 0
    few = with_proposal(problem, state, psi[:, :4, :4])  # a network has fewer modes than the problem
    assert few.potential.shape == (2, 4, 4)


# ---------------------------------------------------------------- samples


@each_field
def test_samples_have_the_covariance_of_the_posterior(which):
    """Whitened by the dense Hessian they are unit Gaussians, within the Monte-Carlo error."""
    draws = 500
    lenses = small_lenses(height=16, width=18, dtype=torch.float64)
    problem, state = small_problem(lenses, modes=4, source_modes=4)
    rows = torch.zeros(draws, dtype=torch.long)
    many, start = problem[rows], state[rows]
    priors = FieldPriors(potential=FieldPrior(amplitude=0.1), light=FieldPrior(amplitude=0.3))
    generator = torch.Generator().manual_seed(1)
    found = sampled(many, start, priors, which, torch.ones(draws), generator, iterations=100)
    sigma = field_sigma(problem[rows[:1]], priors, which, torch.ones(1))
    dense = dense_hessian(_System.about(problem[rows[:1]], state[rows[:1]], which, sigma))[0]
    moved = found.light if which == LIGHT else found.potential
    z = moved.flatten(1)[:, 1:] / sigma.flatten(1)[:, 1:]  # all but the constant mode, which is always zero
    keep = torch.tensor([i for i in range(len(dense)) if i != 14])
    factor = torch.linalg.cholesky(dense[keep][:, keep])
    white = torch.cat([found.macro - start.macro, z], dim=1) @ factor
    spread = white.T @ white / draws
    noise = draws**-0.5
    assert float(white.mean(0).abs().max()) < 4.5 * noise
    assert float((torch.diagonal(spread) - 1).abs().max()) < 4.5 * 2**0.5 * noise
    assert float((spread - torch.diag(torch.diagonal(spread))).abs().max()) < 4.5 * noise
    assert bool((found.macro.std(0) > 0).all())
