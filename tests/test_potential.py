"""Fields in a cosine basis, swarms of point masses, and the derivatives that the fit has in closed form."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.model import SIE, CosineBasis, FieldPrior, PointMass, PointSwarm, PotentialField, Sersic
from lensphys.model.light import brightness_sersic, brightness_sersic_derivatives
from lensphys.model.mass import deflection_sie, deflection_sie_derivatives
from lensphys.tracing import derivatives
from lensphys.tracing.grid import PixelGrid

pytestmark = pytest.mark.usefixtures("float64")

BASIS = CosineBasis(7, 3.0)
GRID = PixelGrid(5, 8, 0.31)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def positions() -> Tensor:
    return GRID.positions(like=draw(1)) + torch.tensor([0.017, 0.041]).reshape(1, 2, 1, 1)


# ---------------------------------------------------------------- cosine fields


def test_the_deflection_is_the_gradient_of_the_potential():
    coefficients, theta = draw(2, 7, 7), positions().expand(2, -1, -1, -1).clone().requires_grad_()
    psi = BASIS.at(theta)(coefficients)
    assert psi.shape == (2, 1, 5, 8)
    (slope,) = torch.autograd.grad(psi.sum(), theta)
    torch.testing.assert_close(PotentialField(coefficients, BASIS)(theta.detach()), slope, rtol=1e-12, atol=1e-12)


def test_the_deflection_is_that_of_finite_differences():
    coefficients, step = draw(2, 7, 7), 1e-5
    for axis in (0, 1):
        shift = torch.zeros(1, 2, 1, 1)
        shift[0, axis] = step
        found = (BASIS.at(positions() + shift)(coefficients) - BASIS.at(positions() - shift)(coefficients)) / (2 * step)
        torch.testing.assert_close(
            BASIS.gradient(coefficients, positions())[:, axis], found[:, 0], rtol=1e-7, atol=1e-7
        )


def test_one_mode_is_the_cosine_of_the_docstring():
    one = torch.zeros(1, 7, 7)
    one[0, 2, 3] = 1.5  # [b, a] = (y, x)
    x, y = positions()[0] + 1.5
    wave = torch.cos(torch.pi * 3 * x / 3.0) * torch.cos(torch.pi * 2 * y / 3.0)
    torch.testing.assert_close(BASIS.at(positions())(one)[0, 0], 1.5 * 2 / 3.0 * wave)


def test_the_modes_are_orthogonal_and_those_without_a_constant_axis_normal():
    fine = PixelGrid(60, 60, 0.05).positions(like=draw(1))  # the whole side of 3"
    modes = torch.eye(16).reshape(16, 4, 4)
    values = CosineBasis(4, 3.0).at(fine)(modes).flatten(1)
    power = torch.where(torch.arange(4) == 0, 2.0, 1.0)
    norms = torch.outer(power, power).flatten().diag()
    torch.testing.assert_close(values @ values.T * 0.05**2, norms, rtol=0, atol=1e-10)


def test_there_is_no_curl():
    coefficients, theta = draw(1, 7, 7), positions()
    jacobian = torch.func.jacfwd(lambda t: BASIS.gradient(coefficients, t.reshape(1, 2, 1, 1)).flatten())
    for place in theta[0].flatten(1).T[::7]:
        j = jacobian(place)
        assert float((j[0, 1] - j[1, 0]).abs()) < 1e-12
        assert float(j.abs().max()) > 0.1
    fine = PixelGrid(200, 220, 0.01)  # and by finite differences, whose own error falls with the square of the pixel
    alpha = BASIS.gradient_on(coefficients, fine)
    curl = derivatives.curl(alpha, fine.scale)[..., 2:-2, 2:-2].abs().max()
    assert float(curl) < 2e-3 * float(derivatives.divergence(alpha, fine.scale).abs().max())


@pytest.mark.parametrize("modes", [2, 5, 7])
def test_the_gradient_on_a_grid_is_that_at_its_pixels(modes):
    coefficients = draw(2, modes, modes)
    at = BASIS.gradient(coefficients, GRID.positions(like=coefficients))
    torch.testing.assert_close(BASIS.gradient_on(coefficients, GRID), at, rtol=1e-12, atol=1e-12)


def test_fewer_coefficients_are_those_of_the_widest_modes():
    few, padded = draw(2, 3, 3), torch.zeros(2, 7, 7)
    padded[:, :3, :3] = few
    for found, known in (
        (BASIS.gradient(few, positions()), BASIS.gradient(padded, positions())),
        (BASIS.gradient_on(few, GRID), BASIS.gradient_on(padded, GRID)),
        (BASIS.at(positions())(few), BASIS.at(positions())(padded)),
    ):
        torch.testing.assert_close(found, known, rtol=1e-12, atol=1e-12)


def test_the_mirrored_edge_lies_outside_of_the_field():
    basis = CosineBasis.covering(GRID, 5)
    assert basis.side == pytest.approx(2.2 * GRID.radius)
    assert basis.modes == 5


@pytest.mark.parametrize(("modes", "side"), [(1, 2.0), (4, 0.0), (4, -1.0)])
def test_a_basis_of_nothing_is_refused(modes, side):
    with pytest.raises(LensphysError, match="a cosine basis needs 2 modes or more and a side, got"):
        CosineBasis(modes, side)


# ---------------------------------------------------------------- the prior of a field


def test_the_spectrum_of_the_prior():
    sigma = FieldPrior(amplitude=0.3, scale=2.0, slope=3.0).sigma(BASIS, like=draw(1))
    assert sigma.shape == (7, 7)
    assert float(sigma[0, 0]) == 0  # a constant potential bends nothing
    k = torch.pi / 3.0
    assert float(sigma[2, 1]) == pytest.approx(0.3 * (1 + 5 * k**2 / 4) ** -1.5)
    torch.testing.assert_close(sigma, sigma.T)
    torch.testing.assert_close(FieldPrior(amplitude=0.6, scale=2.0, slope=3.0).sigma(BASIS, like=draw(1)), 2 * sigma)
    steep = [FieldPrior(scale=0.01, slope=p).sigma(BASIS, like=draw(1)) for p in (2.0, 3.0)]
    for p, spectrum in zip((2.0, 3.0), steep, strict=True):  # far above k0 it falls as k^-p
        assert float(spectrum[0, 6] / spectrum[0, 3]) == pytest.approx(2**-p, rel=1e-4)
    assert float(FieldPrior(amplitude=0).sigma(BASIS, like=draw(1)).abs().max()) == 0


@pytest.mark.parametrize("wrong", [{"amplitud": 1}, {"amplitude": -0.1}, {"scale": 0}, {"slope": -1}])
def test_a_wrong_prior_is_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        FieldPrior(**wrong)


# ---------------------------------------------------------------- swarms


def test_a_swarm_is_the_sum_of_its_point_masses():
    theta_E, x, y = 0.1 * draw(2, 3).abs() + 0.05, draw(2, 3, seed=1), draw(2, 3, seed=2)
    swarm = PointSwarm(theta_E**2, x, y, 1e-6)(positions())
    each = sum(PointMass(theta_E[:, k], x[:, k], y[:, k])(positions()) for k in range(3))
    torch.testing.assert_close(swarm, each, rtol=1e-8, atol=1e-12)


def test_a_swarm_of_none_bends_nothing_and_a_core_softens():
    none = torch.zeros(2, 0)
    assert float(PointSwarm(none, none, none)(positions()).abs().max()) == 0
    one = torch.ones(1, 1)
    near = torch.tensor([0.1, 0.0]).reshape(1, 2, 1, 1)
    assert float(PointSwarm(one, 0 * one, 0 * one, 0.1)(near)[0, 0]) == pytest.approx(5.0)
    with pytest.raises(LensphysError, match="theta must have the shape"):
        PointSwarm(one, one, one)(near[0])


# ---------------------------------------------------------------- derivatives in closed form

CENTRE = (torch.tensor([0.05, -0.13]), torch.tensor([-0.08, 0.02]))
ELLIPTICITIES = {"round": (0.0, 0.0), "0.1": (0.06, -0.08), "0.5": (0.3, 0.4), "tiny": (3e-4, -2e-4)}


def derivatives_of(formula, position: Tensor, parameters: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Value and derivatives (B, P, ...) by forward-mode differentiation."""
    columns = []
    for i in range(len(parameters)):
        tangents = tuple(torch.ones_like(p) if i == k else torch.zeros_like(p) for k, p in enumerate(parameters))
        value, slope = torch.func.jvp(lambda *p: formula(position, *p), parameters, tangents)
        columns.append(slope)
    return value, torch.stack(columns, dim=1)


@pytest.mark.parametrize("shape", ELLIPTICITIES)
def test_the_derivatives_of_an_sie(shape):
    e1, e2 = (torch.full((2,), e) for e in ELLIPTICITIES[shape])
    parameters = (torch.tensor([1.2, 0.8]), e1, e2, *CENTRE)
    alpha, slopes = deflection_sie_derivatives(positions(), *parameters)
    known, known_slopes = derivatives_of(deflection_sie, positions(), parameters)
    torch.testing.assert_close(alpha, known, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(alpha, SIE(*parameters)(positions()), rtol=1e-12, atol=1e-12)
    # F is a rational approximation (2e-7 at |e| = 0.6), whose own derivative is not F'; 1e-7: the core's, 0.01" off
    limit = {"0.5": 5e-6, "tiny": 3e-7}.get(shape, 1e-8)
    torch.testing.assert_close(slopes, known_slopes, rtol=1e-7, atol=limit)


@pytest.mark.parametrize("shape", ELLIPTICITIES)
@pytest.mark.parametrize("index", [0.5, 1.0, 4.0])
def test_the_derivatives_of_a_sersic(shape, index):
    e1, e2 = (torch.full((2,), e) for e in ELLIPTICITIES[shape])
    parameters = (torch.tensor([2.0, 0.7]), torch.tensor([0.3, 0.6]), torch.full((2,), index), e1, e2, *CENTRE)
    light, slopes = brightness_sersic_derivatives(positions(), *parameters)
    known, known_slopes = derivatives_of(brightness_sersic, positions(), parameters)
    torch.testing.assert_close(light, known, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(light, Sersic(*parameters)(positions()), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slopes, known_slopes, rtol=1e-8, atol=1e-8)
    beta = positions().expand(2, -1, -1, -1).clone().requires_grad_()
    (by_beta,) = torch.autograd.grad(brightness_sersic(beta, *parameters).sum(), beta)
    torch.testing.assert_close(-slopes[:, 5:, 0], by_beta, rtol=1e-8, atol=1e-8)
