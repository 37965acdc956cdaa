"""A second ring about a lens, which a fit of one source leaves out, is told."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from lenses import CENTRE, lit_lens

from lensphys.fitting import LensProblem
from lensphys.fitting.second_source import SecondSource
from lensphys.fitting.source import Fitted


def arc_beside(radius: float, degrees: float, width: float = 0.08):
    """A lens whose image has an arc of light beside what the fit explains, and the fit without its pixels."""
    lens = lit_lens()
    problem = LensProblem.from_observation(replace(lens.observation, image=lens.arcs))
    values = {"lens.theta_E": 1.1, "lens.e1": 0.1, "lens.e2": -0.05, "lens.center_x": CENTRE[0],
              "lens.center_y": CENTRE[1], "shear.gamma1": 0.03, "shear.gamma2": -0.02, "source.amp": 8.0,
              "source.R_sersic": 0.15, "source.n_sersic": 1.2, "source.e1": 0.2, "source.e2": 0.1,
              "source.center_x": 0.12, "source.center_y": -0.05}  # fmt: skip
    x = problem.unconstrained({name: torch.tensor([value]) for name, value in values.items()})
    theta = problem.observation.camera.grid.positions(like=lens.arcs) - torch.tensor(CENTRE)[None, :, None, None]
    angle = torch.atan2(theta[:, 1], theta[:, 0])[:, None].abs()
    away = theta.norm(dim=1, keepdim=True)
    arc = ((away - radius).abs() < width) & (angle < math.radians(degrees / 2))
    image = lens.arcs + 20 * lens.observation.noise.variance(lens.arcs).sqrt() * arc
    whole = replace(problem, observation=replace(problem.observation, image=image))
    return whole, Fitted.at(whole.without(arc), x)


@pytest.mark.parametrize(("radius", "degrees", "told"), [(2.0, 90, True), (2.0, 300, True), (2.0, 15, False),
                                                         (1.1, 90, False)])  # fmt: skip
def test_an_arc_further_out_is_told_and_a_neighbour_is_not(radius, degrees, told):
    arc = SecondSource().arc(*arc_beside(radius, degrees))
    assert (arc is not None) == told
    if arc is not None:
        assert arc.radius == pytest.approx(radius, abs=0.05)
        assert math.degrees(arc.angle) == pytest.approx(degrees, abs=10)


def test_a_broad_object_is_no_arc():
    assert SecondSource().arc(*arc_beside(2.0, 60, width=0.7)) is None


def test_what_counts_is_no_second_source():
    whole, fit = arc_beside(2.0, 90)
    assert SecondSource().arc(whole, replace(fit, problem=whole)) is None
