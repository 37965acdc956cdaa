"""The evidence: exact where the problem is linear, and the judge between priors."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

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

from lensphys.fitting import Fitted, LensProblem, Normal, Stop, evidence, minimised
from lensphys.fitting.evidence import best_prior, reweighed, reweighed_normal
from lensphys.model import Modes, SourcePrior

pytestmark = pytest.mark.usefixtures("float64")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_half_the_logarithm_of_the_determinant():
    a = draw(3, 5, 8)
    hessian = a @ a.transpose(1, 2) * torch.tensor([1.0, 1e6, 1e-6])[:, None, None]
    normal = Normal.from_derivatives(draw(3).abs(), draw(3, 5), hessian)
    torch.testing.assert_close(normal.half_logdet, 0.5 * torch.logdet(hessian))


def test_it_is_the_marginal_likelihood_of_a_linear_gaussian_problem():
    """y = A z + n, z and n unit Gaussians: ln p(y) = -1/2 y^T C^-1 y - 1/2 ln det C, C = 1 + A A^T."""
    a, y = draw(4, 20, 6) * torch.tensor([0.1, 1.0, 3.0, 30.0])[:, None, None], draw(4, 20, seed=1)
    hessian = a.transpose(1, 2) @ a + torch.eye(6)
    z = torch.linalg.solve(hessian, (a.transpose(1, 2) @ y[:, :, None]))[:, :, 0]
    cost = 0.5 * ((y - (a @ z[:, :, None])[:, :, 0]).square().sum(1) + z.square().sum(1))
    problem = SimpleNamespace(subhalos=0, bodies=SimpleNamespace(volume=99.0), filter=None)
    found = evidence(problem, Normal.from_derivatives(cost, torch.zeros_like(z), hessian))
    covariance = torch.eye(20) + a @ a.transpose(1, 2)
    mean = torch.zeros(20)
    known = torch.stack([torch.distributions.MultivariateNormal(mean, c).log_prob(v)
                         for c, v in zip(covariance, y, strict=True)])  # fmt: skip
    torch.testing.assert_close(found, known + 10 * math.log(2 * math.pi), rtol=1e-7, atol=1e-7)


@pytest.fixture(scope="module")
def truth(float64) -> tuple[LensProblem, Tensor]:
    problem, x = small_problem(small_lenses(height=24, width=28, dtype=torch.float64))
    return deeper(problem, 4.0), x


def test_the_field_of_a_source_is_weighed_as_its_linear_problem_is(truth):
    """Of a field so faint that its light is linear in it: the gain in evidence is the exact Bayes factor."""
    problem, x = truth
    free, start = freed_problem(problem, x, 5, half_side=3.0, prior=SourcePrior(amplitude=0.01))
    seen = seen_as(free, torch.cat([x, draw(2, len(Modes(5)))], dim=1))
    full = Fitted(seen, minimised(seen, start, Stop(10, cosine=1e-9)))
    without = replace(seen, free=replace(seen.free, sigma=1e-9 * seen.free.sigma))
    held = Fitted(without, minimised(without, start, Stop(10, cosine=1e-9)))
    _, columns = held.problem.system(held.x)
    own, field = columns[:, :14], full.problem.system(held.x)[1][:, 14:]
    normal = held.problem.normal(held.x)
    precision = held.problem.prior_terms(held.x)[1][:, :14]
    pull = -held.problem.prior_terms(held.x)[0][:, :14]
    for i in range(2):  # data and priors of the lens as one linear system about the fit without the field
        rows = torch.cat([own[i].T, torch.diag(precision[i].sqrt())])
        target = torch.cat([held.problem.residual(held.x)[i], pull[i] / precision[i].sqrt().clamp(min=1e-30)])
        more = torch.cat([field[i].T, torch.zeros(14, field.shape[1])])

        def marginal(target: Tensor, rows: Tensor) -> Tensor:
            """Flat in the lens: -1/2 |rest|^2 - 1/2 ln det."""
            hessian = rows.T @ rows
            z = torch.linalg.solve(hessian, rows.T @ target)
            return -0.5 * (target - rows @ z).square().sum() - 0.5 * torch.logdet(hessian)

        both = torch.cat([torch.cat([rows, more], dim=1),
                          torch.cat([torch.zeros(more.shape[1], 14), torch.eye(more.shape[1])], dim=1)])  # fmt: skip
        known = marginal(torch.cat([target, torch.zeros(more.shape[1])]), both) - marginal(target, rows)
        found = full.evidence[i] - held.evidence[i]
        assert float(normal.cosine[i]) < 1e-4
        assert float(found) == pytest.approx(float(known), abs=0.2 + 0.02 * abs(float(known)))


def test_the_normal_equations_under_another_prior_are_those_of_the_reweighed_problem(truth):
    problem, x = truth
    free, start = freed_problem(problem, x, 5, draw(2, len(Modes(5))), half_side=3.0)
    sigma = Modes(5).sigma(SourcePrior(amplitude=0.2, scale=5.0), 2 * free.free.frame.half_side)
    found = reweighed_normal(free, start, free.normal(start), sigma)
    other, there = reweighed(free, start, sigma)
    known = other.normal(there)
    for name in ("cost", "gradient", "hessian", "cosine"):
        torch.testing.assert_close(getattr(found, name), getattr(known, name))
    begun, alone = (minimised(other, there, Stop(5), start=start) for start in (found, None))
    torch.testing.assert_close(begun.x, alone.x)


def test_a_subhalo_costs_the_volume_of_its_prior(truth):
    problem, x = truth
    more, planted = with_bodies(problem, x, torch.tensor([[[-6.0, 0.7, 0.9]]] * 2).double())
    normal = more.normal(planted)
    known = -normal.cost - normal.half_logdet - more.bodies.volume
    torch.testing.assert_close(evidence(more, normal), known)
    two, twice = with_bodies(more, planted, torch.tensor([[[-6.0, -0.7, 0.9]]] * 2).double())
    normal = two.normal(twice)
    torch.testing.assert_close(evidence(two, normal) + normal.cost + normal.half_logdet,
                               torch.full((2,), -2 * more.bodies.volume))  # fmt: skip


def test_other_priors_leave_the_light_as_it_is(truth):
    problem, x = truth
    free, full = freed_problem(problem, x, 5, draw(2, len(Modes(5))), half_side=1.5)
    sigma = free.free.modes.sigma(SourcePrior(amplitude=2.0, scale=3.0), 2 * free.free.frame.half_side)
    again, moved = reweighed(free, full, sigma)
    torch.testing.assert_close(again.render(moved), free.render(full))
    torch.testing.assert_close(again.free.sigma, sigma)
    torch.testing.assert_close(again.parts(moved)[0], x)
    assert reweighed(problem, x, sigma) == (problem, x)


PRIORS = (
    SourcePrior(amplitude=0.2, scale=6.0),
    SourcePrior(amplitude=0.8, scale=6.0),
    SourcePrior(amplitude=0.8, scale=24.0),
)


@pytest.mark.parametrize("true", [0, 1, 2])
def test_the_prior_that_made_the_sources_is_chosen(truth, true):
    """Ten sources of one prior behind a lens: most of them are judged to be of it, from whichever one begins."""
    rows = torch.zeros(10, dtype=torch.long)
    problem, x = truth[0][rows], truth[1][rows]
    modes = Modes(8)
    free, planted = freed_problem(problem, x, 8, draw(10, len(modes), seed=true), half_side=1.0, prior=PRIORS[true])
    seen = seen_as(free, planted)
    begin, start = reweighed(seen, planted, modes.sigma(PRIORS[(true + 1) % 3], 2 * free.free.frame.half_side))
    chosen = best_prior(begin, minimised(begin, start, Stop(10)).x, PRIORS)
    assert chosen.shape == (10,)
    assert int((chosen == true).sum()) >= 7, chosen.tolist()


def test_the_choice_does_not_depend_on_the_batch_and_agrees_with_full_fits(truth):
    problem, x = truth
    modes = Modes(6)
    free, planted = freed_problem(problem, x, 6, draw(2, len(modes), seed=5), half_side=1.0, prior=PRIORS[1])
    seen = seen_as(free, planted)
    best = minimised(seen, planted, Stop(15)).x
    chosen = best_prior(seen, best, PRIORS)
    found = []
    for prior in PRIORS:
        other, start = reweighed(seen, best, modes.sigma(prior, 2 * free.free.frame.half_side))
        found.append(Fitted(other, minimised(other, start, Stop(15))).evidence)
    # reweighed evidence is in units of each prior: comparable as it stands
    known = torch.stack(found, dim=1)
    for i in range(2):
        assert float(known[i, chosen[i]]) > float(known[i].max()) - 1.0
        alone = best_prior(seen[torch.tensor([i])], best[i : i + 1], PRIORS)
        assert int(alone) == int(chosen[i])
    with pytest.raises(ValueError, match="not free"):
        best_prior(problem, x, PRIORS)
