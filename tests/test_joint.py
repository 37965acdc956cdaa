"""One lens in several images: the joint normal equations against forward mode, and fits against the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from lenses import freed_problem, one_thread, small_lenses, small_problem, with_bodies  # noqa: F401
from torch import Tensor

from lensphys.fitting import LensProblem, PotentialCorrection
from lensphys.fitting.joint import JointFitted, JointProblem, View, correlation_evidence
from lensphys.fitting.newton import Stop, minimised, value_and_jacobian
from lensphys.fitting.placement import PLACED, Placement
from lensphys.fitting.source import Fitted
from lensphys.model import CosineBasis, FieldPrior, Gaussian, LensModel, Member
from lensphys.observation import NoPSF

pytestmark = pytest.mark.usefixtures("float64")

SIGMA = (0.1, 0.1, 0.01, 0.05)
PLACE = Placement(torch.tensor([[0.23, -0.11, 0.4, 0.1]], dtype=torch.float64))
BODY = torch.tensor([[[-5.0, 0.7, 0.8]]], dtype=torch.float64)


def draw(*shape: int, seed: int = 4) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_lens() -> tuple[LensProblem, Tensor]:
    """One small lens, as a problem of its own with its vector."""
    lenses = small_lenses(1, height=24, width=28, dtype=torch.float64)
    return small_problem(lenses)


def rich() -> tuple[LensProblem, Tensor]:
    """One with lens light, a sub-halo, a free source and a potential."""
    problem, x = one_lens()
    model = replace(problem.model, lens_light={"lens_light.0": Member.of(Gaussian, sigma=0.4)})
    lit = replace(problem, model=model, space=model.space(problem.radius))
    light = {"amp": 0.3 * problem.unit, "center_x": 0.02, "center_y": 0.01, "e1": 0.1, "e2": 0.05}
    more = {f"lens_light.0.{name}": torch.as_tensor(value).to(x).expand(1) for name, value in light.items()}
    lit, x = freed_problem(lit, lit.unconstrained(problem.values(x) | more), g=0.5 * draw(1, 33), half_side=3.0)
    lit, x = with_bodies(lit, x, BODY)
    basis = CosineBasis.covering(lit.observation.camera.grid, 4)
    sigma = FieldPrior(amplitude=0.05).sigma(basis, like=lit.unit).expand(1, -1, -1)
    bent = replace(lit, potential=PotentialCorrection(basis, sigma))
    return bent, torch.cat([x, draw(1, 16, seed=6)], dim=1)


def views_of(problem: LensProblem, *bands: str) -> tuple[View, ...]:
    """As many images of a problem as bands are given: the first where it is, the others elsewhere."""
    nowhere = Placement.identity(problem.unit)
    return tuple(View(str(i), band, problem, nowhere if i == 0 else PLACE) for i, band in enumerate(bands))


def joint_residual(problem: JointProblem) -> Callable[[Tensor, Tensor], Tensor]:
    def residual(x: Tensor, _: Tensor) -> Tensor:
        return torch.cat([own.residual(vector) for own, vector in problem.seen(x)], dim=1)

    return residual


def sharp(problem: LensProblem) -> LensProblem:
    """Without a PSF and with one point a pixel: derivatives are of the same pixels as the image."""
    camera = replace(problem.observation.camera, psf=NoPSF(), supersampling=1)
    return replace(problem, observation=replace(problem.observation, camera=camera))


# ---------------------------------------------------------------- the joint problem


@pytest.mark.parametrize("bands", [("a", "a"), ("a", "b", "a")])
def test_its_normal_equations_are_those_of_forward_mode(bands):
    problem, own = rich()
    joint = JointProblem(views_of(sharp(problem), *bands), SIGMA, correlation=0.6)
    places = [Placement(view.place.numbers + 0.02 * draw(1, 4, seed=i)) for i, view in enumerate(joint.views)]
    x = joint.gathered([own] * len(bands), places)
    x = x + 0.05 * draw(*x.shape, seed=8)
    residual, jacobian = value_and_jacobian(joint_residual(joint), x, torch.arange(1))
    normal, (pull, curvature) = joint.normal(x), joint.prior_terms(x)
    torch.testing.assert_close(normal.hessian, jacobian @ jacobian.transpose(1, 2) + curvature, rtol=1e-6, atol=1e-6)
    expected = (jacobian @ residual[:, :, None])[:, :, 0] + pull
    torch.testing.assert_close(normal.gradient, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))
    torch.testing.assert_close(torch.func.grad(lambda v: joint._prior_cost(v).sum())(x), pull, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(joint.cost(x), normal.cost)
