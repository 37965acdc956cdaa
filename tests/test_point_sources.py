"""Stars and images of a quasar are told from galaxies, and left out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lensphys.fitting import BeyondSmooth, LensProblem, Refinement
from lensphys.fitting.point_sources import PointSources, seen_star
from lensphys.fitting.smooth import smooth_fit
from lensphys.model import SIE, Sersic, Shear
from lensphys.observation import Camera, ErrorMap, GaussianPSF, Observation
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid

SIGMA = 0.004
QUASAR = ((0.1, 1.22, 2.0), (-0.15, -1.12, 2.5), (1.19, 0.4, 4.0), (-1.05, 0.09, 3.0))  # x, y ["], flux
STAR = ((-1.75, 1.65, 5.0),)


def seen(points: tuple[tuple[float, float, float], ...]) -> LensProblem:
    """A smooth lens, 48 x 48, with a Sersic behind it and point sources in front."""
    camera = Camera(PixelGrid(48, 48, 0.1), GaussianPSF(0.15), supersampling=4)
    like = torch.zeros(1, 1, 1, 1)
    mass = SIE(1.2, 0.08, -0.05, 0.03, -0.02) + Shear(0.03, -0.02)
    source = Sersic(torch.tensor([8.0]), 0.25, 1.2, 0.1, 0.05, 0.08, 0.05)
    clean = camera.render(source, DeflectionField.from_lens(mass, camera.grid.resampled(4), like=like))
    empty = Observation(clean, camera, ErrorMap(torch.full_like(clean, SIGMA)))
    for x, y, flux in points:
        clean = clean + flux * seen_star(empty, torch.tensor([x, y]), 8)
    noise = SIGMA * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    return LensProblem.from_observation(replace(empty, image=clean + noise))


def places(points: torch.Tensor) -> list[list[float]]:
    return sorted(points.tolist())


@pytest.mark.parametrize("points", [QUASAR, STAR])
def test_they_are_found_where_they_are_and_left_out(points):
    problem = seen(points)
    found = PointSources().found(smooth_fit(problem))
    for place, (x, y, _) in zip(places(found.place), sorted(points), strict=True):
        assert place == pytest.approx([x, y], abs=0.03)
    refinement = Refinement(beyond=BeyondSmooth(source=None).without_subhalos(), lens_light=None)
    fit = refinement(problem)
    ((_, best),) = fit.groups
    assert 0.9 < float(best.problem.chi2(best.x)) < 1.1
    assert float(best.problem.values(best.x)["lens.theta_E"]) == pytest.approx(1.2, abs=0.003)
    assert fit.left_out is not None and float(fit.left_out) == float(found.where.sum())
    sentence = "4 point sources, of a quasar perhaps, left out of the fit"
    assert fit.doubts == ({0: (sentence,)} if points is QUASAR else {0: ()})
    ((_, worse),) = refinement.model_copy(update={"points": None})(problem).groups
    assert float(worse.problem.chi2(worse.x)) > 3


def test_a_lens_that_is_explained_has_none():
    assert len(PointSources().found(smooth_fit(seen(())))) == 0


def test_what_no_star_explains_is_not_left_out():
    """A galaxy beside the lens: it has a maximum, but it is too wide."""
    problem = seen(())
    grid = problem.observation.camera.grid
    beside = Sersic(torch.tensor([3.0]), 0.3, 0.5, 0.2, 0.1, -1.75, 1.65)(grid.positions(like=torch.zeros(1)))
    observation = replace(problem.observation, image=problem.observation.image + beside * grid.pixel_area)
    problem = LensProblem.from_observation(observation)
    fit = Refinement(beyond=BeyondSmooth(source=None).without_subhalos(), lens_light=None)(problem)
    assert fit.doubts == {} and float(fit.left_out) == 0
    ((_, best),) = fit.groups
    assert float(best.problem.chi2(best.x)) > 1.5
