"""Broad light integrated over, pixels that no light made, and objects that are no images of the source."""

from __future__ import annotations

import torch

from lensphys.fitting.broad_light import BroadLight
from lensphys.fitting.foreign import Allowed, ForeignSettings, foreign_objects
from lensphys.model import Gaussian, Sersic
from lensphys.observation import Camera, ErrorMap, GaussianPSF, Observation
from lensphys.tracing.grid import PixelGrid

GRID = PixelGrid(24, 20, 0.1)


def a_field(seed: int = 0) -> tuple[BroadLight, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    front = 1 + torch.rand(2, 1, *GRID.shape, generator=draw, dtype=torch.float64)
    return BroadLight.about(front, GRID, 0.2, 0.4), draw


def test_the_filter_is_the_square_root_of_the_inverse_covariance():
    field, draw = a_field()
    inverse_sigma = 3 * torch.rand(2, 1, *GRID.shape, generator=draw, dtype=torch.float64)
    inverse_sigma[:, :, :3] = 0
    columns = (field.modes * inverse_sigma).flatten(2)
    covariance = torch.eye(480, dtype=torch.float64) + columns.transpose(1, 2) @ columns
    filtered = field.filter(inverse_sigma)
    root = filtered(torch.eye(480, dtype=torch.float64).expand(2, -1, -1))
    torch.testing.assert_close(root @ root, torch.linalg.inv(covariance), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(filtered.volume, 0.5 * torch.logdet(covariance))
    fitted = columns.shape[1] - torch.linalg.inv(
        torch.eye(columns.shape[1], dtype=torch.float64) + columns @ columns.transpose(1, 2)
    ).diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(filtered.fitted, fitted)


def test_the_likeliest_field_is_the_mean_of_its_posterior():
    field, draw = a_field(1)
    inverse_sigma = 3 * torch.rand(2, 1, *GRID.shape, generator=draw, dtype=torch.float64)
    rest = torch.randn(2, 1, *GRID.shape, generator=draw, dtype=torch.float64)
    modes, weight = field.modes.flatten(2), inverse_sigma.flatten(2).square()
    covariance = modes.transpose(1, 2) @ modes
    noise = torch.diag_embed(weight[:, 0].reciprocal())
    mean = covariance @ torch.linalg.solve(covariance + noise, rest.flatten(2).transpose(1, 2))
    torch.testing.assert_close(field.likeliest(rest, inverse_sigma).flatten(2), mean.transpose(1, 2))


def test_a_field_has_the_strength_and_the_length_that_are_asked_for():
    grid = PixelGrid(80, 80, 0.05)
    field = BroadLight.about(torch.full((1, 1, 80, 80), 5.0, dtype=torch.float64), grid, 0.2, 0.3)
    modes = field.modes[0].flatten(1)
    assert abs(float(modes.square().sum(0).mean().sqrt()) - 1.0) < 1e-6
    middle = field.modes[0, :, 40]
    apart = (middle[:, 20] * middle[:, 26]).sum() / (middle[:, 20].norm() * middle[:, 26].norm())
    assert abs(float(apart) - torch.tensor(-0.5).exp()) < 0.03  # pixels 0.3 arcsec apart


def a_star(x: float, y: float, camera: Camera) -> torch.Tensor:
    fine = camera.grid.resampled(camera.supersampling)
    light = Gaussian(1.0, 0.01, 0.0, 0.0, x, y)(fine.positions(like=torch.zeros(1)))
    return camera.expose(light * fine.pixel_area)


def test_an_unexplained_object_is_foreign_and_an_image_of_the_source_is_not():
    camera = Camera(PixelGrid(60, 60, 0.05), GaussianPSF(0.12), supersampling=2)
    image, neighbour = 200 * a_star(0.6, 0.3, camera), 200 * a_star(-1.0, 0.9, camera)
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    observation = Observation(image + neighbour + noise, camera, ErrorMap(torch.ones_like(image)))
    anywhere = torch.ones_like(image, dtype=torch.bool)
    found = foreign_objects(observation, image, image, Allowed(anywhere, anywhere), ForeignSettings())
    assert found.count == 1
    assert bool(found.where[neighbour > 0.3 * neighbour.max()].all())
    assert not bool(found.where[image > 0.3 * image.max()].any())
    nowhere = foreign_objects(observation, image, image, Allowed(~anywhere, anywhere), ForeignSettings())
    assert nowhere.count == 0


def test_an_ellipse_is_another_object_and_an_arc_would_be_a_bad_one():
    camera = Camera(PixelGrid(80, 80, 0.05), GaussianPSF(0.12), supersampling=2)
    fine = camera.grid.resampled(2)
    theta = fine.positions(like=torch.zeros(1))
    galaxy = Sersic(6000.0, 0.2, 1.0, 0.3, -0.2, 1.2, 0.9)(theta)
    radius, angle = theta.norm(dim=1, keepdim=True), torch.atan2(theta[:, 1:], theta[:, :1])
    arc = 6000 * torch.exp(-0.5 * ((radius - 1.4) / 0.1) ** 2) * (angle.abs() < 0.8)
    noise = torch.randn(1, 1, 80, 80, generator=torch.Generator().manual_seed(0))
    nothing = torch.zeros_like(noise)
    anywhere = Allowed(nothing == 0, nothing == 0)
    left = []
    for light in (galaxy, arc):
        image = camera.expose(light * fine.pixel_area) + noise
        observation = Observation(image, camera, ErrorMap(torch.ones_like(image)))
        found = foreign_objects(observation, nothing, nothing, anywhere, ForeignSettings())
        assert found.count == 1
        left.append(found.left / (0.5 * int(found.where.sum())))
    assert left[0] < 1.2 and left[1] > 3, left
