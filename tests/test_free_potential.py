"""A correction to the potential: it pays where it is, stays away where nothing is, and takes a right proposal."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lenses import (
    deeper,
    one_thread,  # noqa: F401
    seen_as,
    small_lenses,
    small_problem,
)
from pydantic import ValidationError
from torch import Tensor

from lensphys.fitting import FieldPriors, Fitted, LensProblem, Stop, evidence, minimised
from lensphys.fitting.evidence import linear_evidence
from lensphys.fitting.potential import Trial, corrected, proposed, with_potential
from lensphys.fitting.survey import learned_potential
from lensphys.model import FieldPrior

pytestmark = pytest.mark.usefixtures("float64")

PRIORS = FieldPriors(potential=FieldPrior(amplitude=0.1, scale=2.0, slope=3.0))
MODES = 8


@pytest.fixture(scope="module", autouse=True)
def few_modes() -> None:
    """A field of 8 modes a side is enough for a small image."""
    before, FieldPriors.modes = FieldPriors.modes, MODES
    yield
    FieldPriors.modes = before


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one(problem: LensProblem) -> Tensor:
    return torch.ones_like(problem.unit)


@pytest.fixture(scope="module")
def truth(float64) -> tuple[LensProblem, Tensor]:
    return small_problem(small_lenses(height=24, width=28, dtype=torch.float64))


Bent = tuple[Fitted, LensProblem, Tensor, Tensor]


@pytest.fixture(scope="module")
def bent(truth) -> Bent:
    """Images bent by a psi from the prior: the optimum of a smooth lens there, the true problem and vector, and psi."""
    problem, x = truth
    full = replace(problem, potential=PRIORS.correction(problem, one(problem)))
    z = draw(2, MODES**2, seed=5)
    planted = torch.cat([x, z], dim=1)
    seen = replace(problem, observation=seen_as(full, planted).observation)
    psi = z.reshape(2, MODES, MODES) * full.potential.sigma
    return Fitted(seen, minimised(seen, x, Stop(30))), full, planted, psi


def test_the_correction_of_a_survey(truth):
    problem = truth[0]
    found = PRIORS.correction(problem, torch.tensor([1.0, 0.5]))
    assert found.sigma.shape == (2, MODES, MODES)
    torch.testing.assert_close(found.sigma[1], 0.5 * found.sigma[0])
    torch.testing.assert_close(found.sigma[0], PRIORS.potential.sigma(found.basis, like=problem.unit))
    assert float(found.sigma[0, 0, 0]) == 0  # a constant potential has no meaning
    assert found.basis.side > 2 * problem.observation.camera.grid.radius


def test_priors_of_older_runs_are_read_unless_they_meant_something():
    old = {"potential": {"amplitude": 0.02}, "light": {"amplitude": 0.0}}
    assert FieldPriors(**old) == FieldPriors(potential=FieldPrior(amplitude=0.02))
    with pytest.raises(ValidationError, match="priors.light no longer exists"):
        FieldPriors(**(old | {"light": {"amplitude": 0.1}}))


def test_the_cost_never_rises(bent):
    smooth = bent[0]
    costs = [smooth.end.cost]
    for steps in (1, 2, 3, 6):
        costs.append(corrected(smooth, PRIORS, one(smooth.problem), steps).end.cost)
        assert bool((costs[-1] <= costs[-2] + 1e-9).all())
    assert bool((costs[-1] < costs[0] - 5).all())


def test_a_field_of_no_strength_stays_away(bent):
    smooth = bent[0]
    fit = corrected(smooth, PRIORS, torch.tensor([0.0, 1.0]), 4)
    psi = fit.problem.parts(fit.x)[3].unflatten(1, (MODES, MODES)) * fit.problem.potential.sigma
    assert float(psi[0].abs().max()) == 0 and float(psi[1].abs().max()) > 0


def test_a_planted_field_pays_and_brings_the_deflection_closer(bent):
    smooth, full, planted, psi = bent
    groups = with_potential(smooth, PRIORS, Trial(steps=6))
    assert sorted(r for rows, _ in groups for r in rows.tolist()) == [0, 1]
    theta, arc = full.fine.positions(like=psi), full.render(planted)
    for rows, fit in groups:
        assert fit.problem.potential is not None
        assert bool((fit.evidence > smooth.evidence[rows] + Trial().gain).all())
        # a constant deflection is a shift of the source: it has no meaning
        alpha = [p.lens(v).mass(theta)[i] for p, v, i in (
            (full, planted, rows), (smooth.problem, smooth.x, rows), (fit.problem, fit.x, slice(None)))]  # fmt: skip
        mean = [(a * arc[rows]).sum((2, 3), keepdim=True) / arc[rows].sum((2, 3), keepdim=True) for a in alpha]
        centred = [a - m for a, m in zip(alpha, mean, strict=True)]
        before, after = (((c - centred[0]).square() * arc[rows]).sum((1, 2, 3)).sqrt() for c in centred[1:])
        assert bool((after < 0.7 * before).all()), after / before
        chi2 = fit.problem.chi2(fit.x)
        assert bool((chi2 < smooth.problem.chi2(smooth.x)[rows]).all()) and bool((chi2 < 1.2).all())


def test_a_field_is_not_fitted_where_another_model_is_further_ahead_than_it_may_gain(bent):
    smooth = bent[0]
    ((_, fit),) = with_potential(smooth, PRIORS, Trial(steps=6))
    found = fit.evidence - smooth.evidence
    ((rows, same),) = with_potential(smooth, PRIORS, Trial(steps=6), target=smooth.evidence + 4 * found)
    assert rows.tolist() == [0, 1] and same.problem.potential is None
    ((_, again),) = with_potential(smooth, PRIORS, Trial(steps=6), target=smooth.evidence + 0.5 * found)
    torch.testing.assert_close(again.x, fit.x)


def test_the_evidence_of_a_linearised_problem_is_that_of_its_optimum(bent):
    fit = corrected(bent[0], PRIORS, one(bent[0].problem), 8)
    g = draw(*fit.problem.parts(fit.x)[3].shape, seed=4)
    own = fit.problem.parts(fit.x)[0]
    near = torch.cat([own, fit.problem.parts(fit.x)[3] + 0.03 * g], dim=1)
    normal = fit.problem.normal(near)
    lost = fit.evidence - evidence(fit.problem, normal)
    assert bool((lost > 0.2).all())
    assert bool(((linear_evidence(fit.problem, normal) - fit.evidence).abs() < 0.25 * lost).all()), lost


def test_a_field_does_not_pay_in_noise():
    problem, truth = small_problem(small_lenses(6, height=24, width=28, dtype=torch.float64))
    problem = seen_as(problem, truth, seed=21)
    smooth = Fitted(problem, minimised(problem, truth, Stop(20)))
    ((rows, same),) = with_potential(smooth, PRIORS)
    assert rows.tolist() == list(range(6)) and same.problem.potential is None
    torch.testing.assert_close(same.x, smooth.x)


def test_a_proposal_in_units_of_the_prior(bent):
    smooth, full, planted, psi = bent
    torch.testing.assert_close(proposed(smooth.problem, psi, PRIORS)[:, 1:], full.parts(planted)[3][:, 1:])
    few = proposed(smooth.problem, psi[:, :4, :4], PRIORS).reshape(2, MODES, MODES)  # a network has fewer modes
    torch.testing.assert_close(few[:, 1:4, 1:4], full.parts(planted)[3].reshape(2, MODES, MODES)[:, 1:4, 1:4])
    assert float(few[:, 4:].abs().max()) == 0 and float(few[:, 0, 0].abs().max()) == 0


def test_a_right_proposal_is_taken_and_a_wrong_one_left_out(bent):
    smooth, full, planted, psi = bent
    at = Fitted.at(smooth.problem, full.parts(planted)[0])  # the true smooth lens
    right = corrected(at, PRIORS, one(at.problem), 0, start=psi)
    torch.testing.assert_close(right.problem.parts(right.x)[3][:, 1:], full.parts(planted)[3][:, 1:])
    assert bool((right.end.cost < at.end.cost).all())
    wrong = corrected(at, PRIORS, one(at.problem), 0, start=-psi)
    assert float(wrong.problem.parts(wrong.x)[3].abs().max()) == 0
    torch.testing.assert_close(wrong.end.cost, at.end.cost)


def test_a_proposal_is_the_same_psi_whatever_the_strength(bent):
    smooth, full, planted, psi = bent
    at = Fitted.at(smooth.problem, full.parts(planted)[0])
    half = corrected(at, PRIORS, torch.tensor([0.5, 0.5]), 0, start=psi)
    theta = full.fine.positions(like=psi)
    torch.testing.assert_close(half.problem.lens(half.x).mass(theta), full.lens(planted).mass(theta))


def test_the_amplitude_of_a_survey_is_learned(truth):
    """From a prior that is three times too strong the true one is approached."""
    rows = torch.zeros(8, dtype=torch.long)
    problem, x = deeper(truth[0], 3.0)[rows], truth[1][rows]
    full = replace(problem, potential=PRIORS.correction(problem, one(problem)))
    planted = torch.cat([x, draw(8, MODES**2, seed=2)], dim=1)
    seen = replace(problem, observation=seen_as(full, planted).observation)
    smooth = Fitted(seen, minimised(seen, x, Stop(20)))
    wrong = FieldPriors(potential=PRIORS.potential.model_copy(update={"amplitude": 0.3}))
    found = learned_potential(smooth, wrong, rounds=4)
    assert 0.05 < found.amplitude < 0.22, found
