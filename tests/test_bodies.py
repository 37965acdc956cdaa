"""Sub-halos of each kind: derivatives against finite differences, total mass, and found where they are."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from lenses import (
    one_thread,  # noqa: F401
    small_lenses,
    small_problem,
    with_noise_of,
)

from lensphys.fitting import Bodies, PointBodies, Search, Stop, TNFWBodies, minimised
from lensphys.fitting.source import Fitted
from lensphys.fitting.subhalos import add_subhalos
from lensphys.model import Sersic
from lensphys.tracing.grid import PixelGrid

pytestmark = pytest.mark.usefixtures("float64")

KINDS = {"point_mass": PointBodies(0.02), "tnfw": TNFWBodies(size=0.07, truncation=4.0)}
every_kind = pytest.mark.parametrize("bodies", KINDS.values(), ids=KINDS)
X = torch.tensor([[-5.5, 0.42, -0.31, -7.0, -0.63, 0.52], [-6.0, 0.11, 0.35, -4.5, 0.2, -0.55]]).double()
SOURCE = Sersic(*torch.tensor([[5.0, 0.4, 1.0, 0.1, -0.1, 0.1, 0.05]]).double().repeat(2, 1).unbind(1))


def light(bodies: Bodies, x: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    return SOURCE(theta - bodies.made(x)(theta))


@every_kind
def test_the_columns_are_the_derivatives_of_what_is_made(bodies):
    theta = PixelGrid(14, 17, 0.11).positions(like=X)
    found = bodies.columns(X, theta, SOURCE.gradient(theta - bodies.made(X)(theta)))
    assert found.shape == (2, 6, 14, 17)
    for i in range(6):
        step = torch.zeros_like(X)
        step[:, i] = 1e-6
        slope = (light(bodies, X + step, theta) - light(bodies, X - step, theta))[:, 0] / 2e-6
        torch.testing.assert_close(found[:, i], slope, rtol=1e-5, atol=1e-6)


@every_kind
def test_a_weak_body_answers_in_proportion_to_its_strength(bodies):
    theta, place = PixelGrid(14, 17, 0.11).positions(like=X), torch.tensor([[0.42, -0.31], [-0.6, 0.5]])
    found = bodies.strengths(place, theta, SOURCE.gradient(theta))
    weak = 1e-3 if isinstance(bodies, TNFWBodies) else 1e-7
    for i, (x, y) in enumerate(place.tolist()):
        alpha = bodies.made(torch.tensor([[math.log(weak), x, y]]).repeat(2, 1))(theta)
        expected = -(SOURCE.gradient(theta) * alpha).sum(1) / weak
        torch.testing.assert_close(found[:, i], expected, rtol=1e-4, atol=1e-8)


@every_kind
def test_far_away_all_are_point_masses_of_their_strength(bodies):
    theta = torch.tensor([300.0, 400.0]).reshape(1, 2, 1, 1)
    alpha = bodies.made(X[:, :3])(theta)
    expected = X[:, 0].exp() / 500
    torch.testing.assert_close(alpha.norm(dim=1)[:, 0, 0], expected, rtol=5e-3, atol=0)


def test_heavier_halos_are_larger():
    bodies = TNFWBodies(size=0.1)
    assert bodies.radius(torch.tensor([1e-3, 8e-3])).tolist() == pytest.approx([0.1, 0.2])


@every_kind
def test_priors_and_volume_are_those_of_all_kinds(bodies):
    value, steep = bodies.prior(X)
    torch.testing.assert_close(value[:, 0], (X[:, 0] + 7) / 3)
    torch.testing.assert_close(steep[0], torch.tensor([1 / 3, 0.25, 0.25] * 2))
    assert bodies.volume == pytest.approx(math.log(3 * 16))


@every_kind
def test_the_derivatives_of_a_problem_are_those_of_its_images(bodies):
    problem, own = small_problem(small_lenses(height=20, width=24, dtype=torch.float64))
    problem = replace(problem, bodies=bodies, subhalos=2)
    places = X * torch.tensor([1.0, 2.0, 2.0] * 2)
    x = torch.cat([own, places], dim=1)
    columns = problem.system(x)[1]
    for i in range(own.shape[1], x.shape[1]):
        step = torch.zeros_like(x)
        step[:, i] = 1e-5
        slope = -(problem.residual(x + step) - problem.residual(x - step)) / 2e-5
        torch.testing.assert_close(columns[:, i], slope, rtol=0.02, atol=0.02 * float(slope.abs().max()))


@pytest.fixture(scope="module")
def planted(float64) -> Fitted:
    """A halo of theta_E = 0.1" beside the arcs at S/N 200, and the optimum of a smooth lens."""
    problem, own = small_problem(small_lenses(1, dtype=torch.float64, noise=0.005))
    problem = replace(problem, bodies=TNFWBodies(size=0.1))
    truth = torch.cat([own, torch.tensor([[2 * math.log(0.1), 0.75, 0.85]])], dim=1)
    problem = with_noise_of(problem, replace(problem, subhalos=1).render(truth))
    return Fitted(problem, minimised(problem, own, Stop(20)))


def test_a_planted_halo_is_found_with_its_mass(planted):
    ((_, found),) = add_subhalos(planted, Search(rounds=2))
    bodies = found.problem.parts(found.x)[1].reshape(-1, 3)
    best = bodies[bodies[:, 0].argmax()]
    assert float((best[1:] - torch.tensor([0.75, 0.85])).norm()) < 0.1
    assert float((0.5 * best[0]).exp()) == pytest.approx(0.1, rel=0.2)
    assert float(found.end.cost) < float(planted.end.cost) - 50
    assert 0.85 < float(found.problem.chi2(found.x)) < 1.15
