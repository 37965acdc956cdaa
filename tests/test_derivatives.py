"""Finite differences: exact on parabolas, second order in the pixel scale everywhere, edges included."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.tracing import derivatives
from lensphys.tracing.grid import PixelGrid

pytestmark = pytest.mark.usefixtures("float64")
GRID = PixelGrid(6, 9, 0.3)


def xy(grid: PixelGrid) -> tuple[Tensor, Tensor]:
    theta = grid.positions(like=torch.zeros(()))
    return theta[:, :1], theta[:, 1:]


def test_a_parabola_is_exact_up_to_the_edge():
    x, y = xy(GRID)
    field = torch.cat([x**2 - 3 * x * y + 0.5 * y**2, 2 * y**2 + x])
    expected = torch.cat([torch.cat([2 * x - 3 * y, y - 3 * x], 1), torch.cat([torch.ones_like(x), 4 * y], 1)])
    torch.testing.assert_close(derivatives.gradient(field, 0.3), expected)


def test_jacobian_divergence_and_curl_of_a_linear_field():
    x, y = xy(GRID)
    vector = torch.cat([1 * x + 2 * y, 3 * x + 5 * y], 1).expand(2, -1, -1, -1)
    j = derivatives.jacobian(vector, 0.3)
    assert j.shape == (2, 2, 2, 6, 9)
    torch.testing.assert_close(j, torch.tensor([[1.0, 2.0], [3.0, 5.0]])[None, :, :, None, None].expand_as(j))
    torch.testing.assert_close(derivatives.divergence(vector, 0.3), torch.full((2, 1, 6, 9), 6.0))
    torch.testing.assert_close(derivatives.curl(vector, 0.3), torch.full((2, 1, 6, 9), 1.0))


def error(factor: int) -> tuple[float, float]:
    grid = GRID.resampled(factor)
    x, y = xy(grid)
    field = torch.sin(1.3 * x) * torch.exp(0.7 * y)
    exact = torch.cat([1.3 * torch.cos(1.3 * x) * torch.exp(0.7 * y), 0.7 * field], 1)
    off = (derivatives.gradient(field, grid.scale) - exact).abs()
    return float(off[..., 1:-1, 1:-1].max()), float(off.max())


def test_the_order_of_convergence_is_two_inside_and_at_the_edge():
    errors = [error(factor) for factor in (4, 8, 16)]
    for place in (0, 1):
        slopes = [math.log2(errors[i][place] / errors[i + 1][place]) for i in (0, 1)]
        # the next term of the error is one order higher and 1/40 of it on the coarsest grid
        assert all(abs(slope - 2) < 0.1 for slope in slopes), slopes


def test_the_curl_of_a_gradient_vanishes_inside():
    # central differences in x and in y commute, so this holds to rounding, not only to second order
    field = torch.rand(2, 1, 8, 7, generator=torch.Generator().manual_seed(0))
    curl = derivatives.curl(derivatives.gradient(field, 0.2), 0.2)
    assert float(curl.abs().max()) < 1e-12


def test_gradcheck():
    vector = torch.rand(2, 2, 4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: derivatives.jacobian(v, 0.3), (vector,))


def test_faulty_shapes():
    with pytest.raises(LensphysError, match=r"field must have the shape \(B, 1, H, W\)"):
        derivatives.gradient(torch.zeros(2, 2, 4, 4), 0.1)
    for derivative in (derivatives.jacobian, derivatives.divergence, derivatives.curl):
        with pytest.raises(LensphysError, match=r"vector must have the shape \(B, 2, H, W\)"):
            derivative(torch.zeros(2, 1, 4, 4), 0.1)


def test_weighted_slopes_are_the_transposed_jacobian_of_a_function(generator):
    matrix, weight = torch.randn(7, 4, generator=generator), torch.randn(7, generator=generator)
    at = torch.randn(4, generator=generator)

    found = derivatives.weighted_slopes(lambda x: (matrix @ x) ** 2, at, weight)

    torch.testing.assert_close(found, (2 * (matrix @ at)[:, None] * matrix).T @ weight)
    assert not found.requires_grad
