"""The ray tracer: A and its adjoint, multiple images, source reconstruction."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.model import SIE, SIS, ImageSource, Sersic
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid
from lensphys.tracing.rays import back_project, reconstruct_source, trace

pytestmark = pytest.mark.usefixtures("float64")
GRID, SOURCE_GRID = PixelGrid(44, 52, 0.08), PixelGrid(21, 26, 0.06)
LIKE = torch.zeros((), dtype=torch.float64)


def rand(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def field(grid: PixelGrid = GRID) -> DeflectionField:
    return DeflectionField.from_lens(SIE(torch.tensor([1.2, 0.9]), 0.15, -0.2, 0.04, -0.07), grid, like=LIKE)


def test_surface_brightness_is_conserved():
    source = Sersic(2.0, 0.3, 0.5, center_x=0.02, center_y=0.01)
    image = trace(field(), source)
    assert image.shape == (2, 1, 44, 52)
    torch.testing.assert_close(image, source(field().beta))
    # a ring shows the top of the source, which is never exceeded
    top = float(source(torch.tensor([0.02, 0.01]).reshape(1, 2, 1, 1)))
    assert 0.98 * top < float(image.max()) <= top


def test_a_source_behind_an_sis_shows_its_two_images():
    x = torch.linspace(-3, 3, 601)  # along the axis through lens and source
    grid = PixelGrid(1, 601, 0.01)
    source = Sersic(1.0, 0.05, 0.5, center_x=0.4)
    image = trace(DeflectionField.from_lens(SIS(1.0), grid, like=LIKE), source)[0, 0, 0]
    peaks = x[1:-1][(image[1:-1] > image[:-2]) & (image[1:-1] >= image[2:]) & (image[1:-1] > 0.5)]
    torch.testing.assert_close(peaks, torch.tensor([-0.6, 1.4]), atol=0.011, rtol=0)  # beta -+ theta_E


@pytest.mark.parametrize("deflection", ["none", "two images"])
def test_back_projection_is_the_adjoint(deflection):
    known = field() if deflection == "two images" else DeflectionField(torch.zeros(2, 2, 44, 52), GRID)
    source, image = rand(2, 1, 21, 26), rand(2, 1, 44, 52)
    left = (trace(known, ImageSource(source, SOURCE_GRID)) * image).sum()
    right = (source * back_project(image, known, SOURCE_GRID)[0]).sum()
    assert float(left) == pytest.approx(float(right), rel=1e-12)


def test_the_weight_is_the_back_projection_of_ones():
    image = rand(2, 1, 44, 52)
    weight = back_project(image, field(), SOURCE_GRID)[1]
    torch.testing.assert_close(weight, back_project(torch.ones_like(image), field(), SOURCE_GRID)[0])
    assert weight.shape == (2, 1, 21, 26)


def test_both_images_add_up_in_the_source_plane():
    known = DeflectionField.from_lens(SIS(1.0), PixelGrid(1, 61, 0.1), like=LIKE)
    grid = PixelGrid(1, 13, 0.1)
    # the image pixels at -0.6 and 1.4 show the source pixel at 0.4 (the core of the SIS moves them by 1e-12)
    at = [round(x / 0.1) + 30 for x in (-0.6, 1.4)]
    image = torch.zeros(1, 1, 1, 61)
    image[..., at[0]], image[..., at[1]] = 2.0, 3.0
    found = back_project(image, known, grid)[0][0, 0, 0]
    expected = torch.zeros(13)
    expected[10] = 5.0
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def test_back_projection_is_differentiable_in_image_and_deflection():
    grid, source_grid = PixelGrid(4, 5, 0.4), PixelGrid(5, 4, 0.3)
    alpha = field(grid).alpha.detach().requires_grad_()
    image = rand(2, 1, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda y, a: back_project(y, DeflectionField(a, grid), source_grid), (image, alpha))


def test_tracing_is_differentiable_in_source_and_deflection():
    grid = PixelGrid(4, 5, 0.4)
    alpha, pixels = field(grid).alpha.detach().requires_grad_(), rand(2, 1, 5, 4).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, s: trace(DeflectionField(a, grid), ImageSource(s, PixelGrid(5, 4, 0.3))), (alpha, pixels)
    )


def test_gradients_only_where_asked_for():
    image = rand(2, 1, 44, 52)
    assert not back_project(image, field(), SOURCE_GRID)[0].requires_grad
    assert back_project(image.requires_grad_(), field(), SOURCE_GRID)[0].requires_grad
    with torch.no_grad():
        found = back_project(image, field(), SOURCE_GRID)[0]
    assert not found.requires_grad
    torch.testing.assert_close(found, back_project(image.detach(), field(), SOURCE_GRID)[0])


def test_a_source_is_reconstructed_from_all_of_its_images():
    source = Sersic(1.0, 0.3, 0.5, 0.1, 0.1, center_x=0.1, center_y=-0.05)
    fine = GRID.resampled(2)
    found = reconstruct_source(trace(field(fine), source), field(fine), SOURCE_GRID)
    expected = source(SOURCE_GRID.positions(like=LIKE)).expand_as(found)
    seen = back_project(torch.ones(2, 1, *fine.shape), field(fine), SOURCE_GRID)[1] > 0.5
    assert float(seen.double().mean()) > 0.9
    # a source pixel is the mean over its bilinear weights: where light paths reach one side of it only, a third of a
    # pixel (0.02 arcsec) times the steepest slope, 2.3 per arcsec of the top; else the 1 % of its curvature
    off = ((found - expected)[seen] / expected.max()).abs()
    assert float(off.max()) < 0.05
    assert float(off.mean()) < 0.005


def test_a_source_pixel_that_no_light_path_reaches_is_zero():
    grid = PixelGrid(9, 9, 1.0)
    found = reconstruct_source(
        torch.ones(1, 1, 4, 5), DeflectionField(torch.zeros(1, 2, 4, 5), PixelGrid(4, 5, 0.1)), grid
    )
    assert float(found[0, 0, 4, 4]) == pytest.approx(1)
    assert float(found[0, 0, 0, 0]) == 0
    assert bool(found.isfinite().all())


def test_one_deflection_serves_a_batch_of_images():
    one = DeflectionField.from_lens(SIS(1.0), GRID, like=LIKE)
    image = rand(2, 1, 44, 52)
    both = back_project(image, one, SOURCE_GRID)[0]
    torch.testing.assert_close(both[1:], back_project(image[1:], one, SOURCE_GRID)[0])


def test_faulty_images():
    with pytest.raises(LensphysError, match=r"image must have the shape \(B, 1, H, W\)"):
        back_project(torch.zeros(44, 52), field(), SOURCE_GRID)
    with pytest.raises(LensphysError, match=r"image and deflection field must .* got \(52, 44\) and \(44, 52\)"):
        reconstruct_source(torch.zeros(2, 1, 52, 44), field(), SOURCE_GRID)
