"""Pixel positions, `grid_sample` coordinates and the polar view."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lensphys.basics.checks import LensphysError
from lensphys.tracing.grid import PixelGrid, cartesian_from_polar, polar_from_cartesian

pytestmark = pytest.mark.usefixtures("float64")
GRID = PixelGrid(5, 8, 0.13)


def rand(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def test_positions_are_the_pixel_centres():
    theta = GRID.positions(like=torch.zeros(()))
    assert theta.shape == (1, 2, 5, 8)
    for i, j in ((0, 0), (4, 7), (2, 3), (1, 6)):
        expected = torch.tensor([(j - 3.5) * 0.13, (i - 2) * 0.13])
        torch.testing.assert_close(theta[0, :, i, j], expected, atol=1e-15, rtol=0)
    torch.testing.assert_close(theta.sum((2, 3)), torch.zeros(1, 2), atol=1e-13, rtol=0)


def test_positions_take_the_dtype_asked_for():
    assert GRID.positions().dtype == torch.float32
    assert GRID.positions(like=torch.zeros((), dtype=torch.float64)).dtype == torch.float64


def test_shape_area_and_radius():
    assert GRID.shape == (5, 8)
    assert GRID.pixel_area == pytest.approx(0.0169)
    assert GRID.radius == pytest.approx(4 * 0.13)


def test_normalised_coordinates_are_one_at_the_outer_edges():
    half = torch.tensor([8 * 0.13 / 2, 5 * 0.13 / 2])
    corners = torch.stack([-half, half, half * torch.tensor([1.0, -1.0])], dim=1).reshape(1, 2, 1, 3)
    expected = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [1.0, -1.0]]).reshape(1, 1, 3, 2)
    torch.testing.assert_close(GRID.normalised(corners), expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
def test_an_image_read_at_its_pixel_centres_is_itself(mode):
    image = rand(2, 3, 5, 8)
    found = GRID.sample(image, GRID.positions(like=image), mode=mode)
    torch.testing.assert_close(found, image, atol=1e-13, rtol=0)


def test_bilinear_sampling_of_a_plane_is_exact_on_another_grid():
    theta = GRID.positions(like=torch.zeros(()))
    plane = 2 * theta[:, :1] - 3 * theta[:, 1:] + 0.5
    inner = PixelGrid(7, 6, 0.05).positions(like=plane) + torch.tensor([0.11, -0.04]).reshape(1, 2, 1, 1)
    found = GRID.sample(plane, inner.expand(2, -1, -1, -1))
    assert found.shape == (2, 1, 7, 6)
    torch.testing.assert_close(found, (2 * inner[:, :1] - 3 * inner[:, 1:] + 0.5).expand(2, -1, -1, -1))


def test_one_image_is_read_at_many_positions_and_many_images_at_one():
    image, theta = rand(2, 1, 5, 8), GRID.positions(like=torch.zeros(()))
    both = GRID.sample(image[:1], torch.cat([theta, 0.5 * theta]))
    torch.testing.assert_close(both[1:], GRID.sample(image[:1], 0.5 * theta))
    torch.testing.assert_close(GRID.sample(image, 0.5 * theta)[1:], GRID.sample(image[1:], 0.5 * theta))


def test_padding_outside_of_the_grid():
    image = rand(1, 1, 5, 8) + 1
    far = torch.tensor([[5.0, 5.0], [-5.0, -5.0]]).T.reshape(1, 2, 1, 2)
    assert GRID.sample(image, far).tolist() == [[[[0.0, 0.0]]]]
    found = GRID.sample(image, far, padding="border")
    torch.testing.assert_close(found.flatten(), torch.stack([image[0, 0, -1, -1], image[0, 0, 0, 0]]))


def test_sampling_is_differentiable_in_image_and_position():
    image = rand(2, 1, 5, 8).requires_grad_()
    position = (0.6 * (rand(2, 2, 3, 2) - 0.5)).requires_grad_()
    assert torch.autograd.gradcheck(GRID.sample, (image, position))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.01, 2), st.integers(1, 8))
def test_resampling_keeps_the_field_of_view(height, width, scale, factor):
    grid = PixelGrid(height, width, scale)
    fine = grid.resampled(factor)
    assert fine.shape == (factor * height, factor * width)
    assert fine.pixel_area * fine.height * fine.width == pytest.approx(grid.pixel_area * height * width)
    back = fine.resampled(1 / factor)
    assert back.shape == grid.shape
    assert back.scale == pytest.approx(scale, rel=1e-14)


def test_block_means_of_fine_positions_are_the_coarse_positions():
    fine = GRID.resampled(3).positions(like=torch.zeros(()))
    coarse = torch.nn.functional.avg_pool2d(fine, 3)
    torch.testing.assert_close(coarse, GRID.positions(like=fine), atol=1e-15, rtol=0)


def test_faulty_grids():
    with pytest.raises(LensphysError, match="at least one row and one column, got 0 x 3"):
        PixelGrid(0, 3, 0.1)
    with pytest.raises(LensphysError, match="pixel scale must be positive and finite, got 0"):
        PixelGrid(2, 3, 0.0)
    with pytest.raises(LensphysError, match=r"a grid of 5 x 8 pixels cannot be resampled by 0\.5"):
        GRID.resampled(0.5)
    with pytest.raises(LensphysError, match="cannot be resampled by 0"):
        GRID.resampled(0)


def test_faulty_samples():
    theta = GRID.positions(like=torch.zeros(()))
    with pytest.raises(LensphysError, match=r"image must have the shape \(B, C, 5, 8\), got \(1, 1, 8, 5\)"):
        GRID.sample(torch.zeros(1, 1, 8, 5), theta)
    with pytest.raises(LensphysError, match=r"position must have the shape \(B, 2, H, W\)"):
        GRID.sample(torch.zeros(1, 1, 5, 8), theta[:, :1])


@pytest.mark.parametrize("centre", [None, torch.tensor([[0.11, -0.2], [0.0, 0.07]], dtype=torch.float64)])
def test_polar_and_cartesian_are_inverse(centre):
    theta, vector = GRID.positions(like=torch.zeros(())), rand(2, 2, 5, 8)
    radial, tangential = polar_from_cartesian(vector, theta, centre)
    assert radial.shape == tangential.shape == (2, 1, 5, 8)
    torch.testing.assert_close(radial**2 + tangential**2, (vector**2).sum(1, keepdim=True))
    torch.testing.assert_close(cartesian_from_polar(radial, tangential, theta, centre), vector)


def test_the_unit_vectors_are_the_conventional_ones():
    theta = torch.tensor([[0.0, 2.0], [-3.0, 0.0]]).T.reshape(1, 2, 1, 2)  # the points (0, 2) and (-3, 0)
    one, zero = torch.ones(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)
    r_hat = cartesian_from_polar(one, zero, theta)[0, :, 0].T
    t_hat = cartesian_from_polar(zero, one, theta)[0, :, 0].T
    torch.testing.assert_close(r_hat, torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    torch.testing.assert_close(t_hat, torch.tensor([[-1.0, 0.0], [0.0, -1.0]]))


def test_the_polar_view_is_finite_at_its_centre():
    grid = PixelGrid(3, 5, 0.2)  # odd: a pixel stands on the origin
    theta, vector = grid.positions(like=torch.zeros(())), rand(2, 2, 3, 5).requires_grad_()
    radial, tangential = polar_from_cartesian(vector, theta)
    torch.testing.assert_close(torch.cat([radial, tangential], 1)[:, :, 1, 2], vector[:, :, 1, 2])  # r_hat = x_hat
    (radial.sum() + tangential.sum()).backward()
    assert bool(vector.grad.isfinite().all())
    centre = torch.zeros(1, 2, requires_grad=True)
    sum(p.sum() for p in polar_from_cartesian(vector.detach(), theta, centre)).backward()
    assert bool(centre.grad.isfinite().all())


def test_the_polar_view_is_differentiable():
    theta = PixelGrid(3, 4, 0.3).positions(like=torch.zeros(()))
    vector = rand(2, 2, 3, 4).requires_grad_()
    centre = torch.tensor([[0.02, 0.05], [-0.07, 0.01]], requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, c: polar_from_cartesian(v, theta, c), (vector, centre))


def test_the_middle_of_a_grid_has_the_same_pixels_and_reaches_as_far_as_asked():
    grid = PixelGrid(64, 51, 0.1)
    inner = grid.middle(1.0, 0.72)
    assert inner.shape == (20, 15)
    inside = grid.positions()[..., 22:42, 18:33]
    assert torch.allclose(inner.positions(), inside, atol=1e-6)
    assert grid.middle(9.0, 9.0) == grid
