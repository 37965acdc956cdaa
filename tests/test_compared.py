"""Minima behind a galaxy's light: what is lensed, what counts, which is the likeliest."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from lenses import small_lenses, small_problem
from torch import Tensor

from lensphys.fitting import LensLightSettings, LensProblem
from lensphys.fitting.compared import Compared, Comparison, Minimum, capped, lenses, seen_twice
from lensphys.fitting.foreign import Foreign
from lensphys.fitting.lens_light import MinimaCompared
from lensphys.fitting.source import FreeSourceSettings, freed

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def truth() -> tuple[LensProblem, Tensor]:
    problem, x = small_problem(small_lenses(2, dtype=torch.float64))
    return problem[torch.tensor([0])], x[:1]


def with_values(problem: LensProblem, x: Tensor, **values: float) -> Tensor:
    """The vector with other values of some parameters of one image, ``member__name``."""
    others = {name.replace("__", "."): torch.full_like(problem.unit, value) for name, value in values.items()}
    return problem.unconstrained(problem.values(x) | others)


def minimum(problem: LensProblem, x: Tensor, count: int = 0) -> Minimum:
    return Minimum(problem, x, replace(Foreign.nothing(problem.observation.image), count=count))


def test_light_inside_of_the_einstein_radius_is_seen_twice(truth):
    problem, x = truth
    theta_E = float(problem.values(x)["lens.theta_E"])
    assert float(seen_twice(problem, x, 0.0)) > 0.9 and lenses(problem, x)
    outside = with_values(problem, x, source__center_x=1.7 * theta_E)
    assert float(seen_twice(problem, outside, 0.0)) < 0.2 and not lenses(problem, outside)
    assert float(seen_twice(problem, x, 1.0)) == 0  # no second image is as far out as the first


def test_a_lens_at_its_bounds_is_none(truth):
    problem, x = truth
    radius = next(p for p in problem.space.parameters if p.name == "lens.theta_E")
    assert not lenses(problem, with_values(problem, x, lens__theta_E=1.05 * radius.low, source__center_x=0.0))
    assert not lenses(problem, with_values(problem, x, lens__theta_E=0.99 * radius.high, source__center_x=0.0))


def test_no_pixel_of_the_arcs_counts_for_more_than_the_cap(truth):
    problem, _ = truth
    image = problem.observation.image
    found = capped(problem, 4.0)
    assert float((image * found.inverse_sigma).amax()) <= 4
    faint = image * problem.inverse_sigma < 0.1
    torch.testing.assert_close(found.inverse_sigma[faint], problem.inverse_sigma[faint], rtol=1e-3, atol=0)
    behind = capped(problem, 4.0, image)  # all of it is the galaxy's
    torch.testing.assert_close(behind.inverse_sigma, problem.inverse_sigma)


@pytest.mark.parametrize("free", [True, False])
def test_the_truth_is_the_likeliest_and_says_by_how_much(truth, free):
    problem, x = truth
    comparison = Comparison(LensLightSettings(), problem, 0 * problem.observation.image, free)
    other = with_values(problem, x, lens__theta_E=0.8) if not free else with_values(problem, x, source__center_x=2.0)
    best, rival = comparison.best([minimum(problem, other), minimum(problem, x)])
    torch.testing.assert_close(best.theta_E, problem.values(x)["lens.theta_E"], rtol=0.01, atol=0)
    assert float(rival.behind) > 10
    assert free or torch.equal(rival.theta_E, problem.values(other)["lens.theta_E"])
    only, none = comparison.best([minimum(problem, x)])
    torch.testing.assert_close(only.theta_E, best.theta_E)
    assert bool(none.theta_E.isnan())
    cheap, dear = (comparison.compared(minimum(problem, x, count)).merit for count in (0, 2))
    assert cheap - dear == pytest.approx(2 * LensLightSettings().others.cost)


@pytest.mark.parametrize(("merits", "told"), [((-100.0, -110.0, -120.0), 1.4), ((-100.0, -110.0, -190.0), 1.1)])
def test_the_rival_is_the_furthest_lens_that_is_nearly_as_likely(truth, monkeypatch, merits, told):
    problem, x = truth
    comparison = Comparison(LensLightSettings(), problem, 0 * problem.observation.image, False)
    ends = [minimum(problem, with_values(problem, x, lens__theta_E=radius)) for radius in (1.0, 1.1, 1.4)]
    known = {float(end.theta_E): merit for end, merit in zip(ends, merits, strict=True)}
    monkeypatch.setattr(Comparison, "compared", lambda _, end: Compared(end, known[float(end.theta_E)]))
    best, rival = comparison.best(ends)
    assert float(best.theta_E) == pytest.approx(1.0) and float(rival.theta_E) == pytest.approx(told)


def test_a_radius_at_which_more_starts_end_is_likelier(truth):
    problem, x = truth
    comparison, worth = Comparison(LensLightSettings(), problem, 0 * problem.observation.image, False), 2.0
    ends = [(1.0, -10.0), (1.03, -11.0), (1.05, -math.inf), (1.6, -9.0)]
    found = [Compared(minimum(problem, with_values(problem, x, lens__theta_E=r)), merit) for r, merit in ends]
    assert [one.merit for one in comparison._counted(found)] == [-10.0 + worth, -11.0 + worth, -math.inf, -9.0]


def test_structure_of_the_source_costs(truth):
    problem, x = truth
    settings = (LensLightSettings(minima=MinimaCompared(structure=cost)) for cost in (0.0, 1000.0))
    dark = 0 * problem.observation.image
    free, dear = (Comparison(one, problem, dark, True).compared(minimum(problem, x)) for one in settings)
    assert 0 < free.merit - dear.merit < 10  # a Sersic's arcs overlap with a Sersic's


def test_the_mass_is_let_go_of_once_the_source_is_free(truth):
    problem, x = truth
    few = FreeSourceSettings(modes=(4,))
    (fit,) = freed(*problem.held(x, 1e-3, problem.model.mass_names), few)
    assert fit.problem.released is None and fit.problem.space == problem.space
    near = with_values(problem, x, lens__theta_E=0.97 * float(problem.values(x)["lens.theta_E"]))
    (fit,) = freed(*problem.held(near, 1e-3, problem.model.mass_names), few)
    truth_theta_E = problem.values(x)["lens.theta_E"]
    torch.testing.assert_close(fit.problem.values(fit.x)["lens.theta_E"], truth_theta_E, rtol=0.01, atol=0)
