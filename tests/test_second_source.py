"""A second ring about a lens, which the fit of one source does not explain, is told."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from lenses import CENTRE, lit_lens

from lensphys.fitting import LensProblem
from lensphys.fitting.second_source import Arc, SecondSource
from lensphys.fitting.source import Fitted


def found(radius: float, degrees: float, width: float = 0.08, *, left_out: bool = False) -> Arc | None:
    """What is told of a lens whose image has an arc of light beside what the fit explains."""
    lens = lit_lens()
    noise = lens.observation.noise.sample(lens.arcs, torch.Generator().manual_seed(1))
    problem = LensProblem.from_observation(replace(lens.observation, image=noise))
    values = {"lens.theta_E": 1.1, "lens.e1": 0.1, "lens.e2": -0.05, "lens.center_x": CENTRE[0],
              "lens.center_y": CENTRE[1], "shear.gamma1": 0.03, "shear.gamma2": -0.02, "source.amp": 8.0,
              "source.R_sersic": 0.15, "source.n_sersic": 1.2, "source.e1": 0.2, "source.e2": 0.1,
              "source.center_x": 0.12, "source.center_y": -0.05}  # fmt: skip
    x = problem.unconstrained({name: torch.tensor([value]) for name, value in values.items()})
    theta = problem.observation.camera.grid.positions(like=noise) - torch.tensor(CENTRE)[None, :, None, None]
    angle = torch.atan2(theta[:, 1], theta[:, 0])[:, None].abs()
    arc = ((theta.norm(dim=1, keepdim=True) - radius).abs() < width) & (angle < math.radians(degrees / 2))
    image = noise + 2.5 * lens.observation.noise.variance(lens.arcs).sqrt() * arc
    whole = replace(problem, observation=replace(problem.observation, image=image))
    return SecondSource().arc(whole, Fitted.at(whole.without(arc) if left_out else whole, x))


@pytest.mark.parametrize("left_out", [False, True])
@pytest.mark.parametrize("degrees", [120, 350])
def test_an_arc_further_out_is_told(degrees, left_out):
    arc = found(2.0, degrees, left_out=left_out)
    assert arc is not None and arc.radius == pytest.approx(2.0, abs=0.15)
    assert 60 <= math.degrees(arc.angle) <= degrees + 30


@pytest.mark.parametrize(
    ("radius", "degrees", "width"), [(2.0, 20, 0.08), (1.0, 120, 0.08), (2.0, 120, 0.6), (2, 0, 0)]
)
def test_neighbours_what_is_near_and_what_is_broad_are_none(radius, degrees, width):
    assert found(radius, degrees, width) is None
