"""Interpolation: values against Pillow's, flux, edges, gradients."""

from __future__ import annotations

import numpy as np
import pydantic
import pytest
import torch
from lenses import small_lenses
from PIL import Image

from lensphys.methods.interpolation import Interpolation, interpolate, lanczos
from lensphys.observation import Camera, NoPSF, Observation, SkyNoise, block_sum
from lensphys.tracing.grid import PixelGrid

MODES = ("nearest", "bilinear", "bicubic", "lanczos")
PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}  # torch's bicubic has another free parameter (-0.75) than Pillow's (-0.5)


def noise(height: int = 11, width: int = 14) -> torch.Tensor:
    return torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.1


def test_noise_that_is_estimated_is_not_what_an_interpolation_leaves():
    image = 0.1 * torch.randn(1, 1, 32, 36, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    seen = Observation(image, Camera(PixelGrid(32, 36, 0.1), NoPSF()), SkyNoise.from_image(image))
    found = Interpolation(name="bicubic").predict(seen, 2)
    assert found.noise_of(seen).median() == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("mode", PILLOW)
def test_it_is_pillows(mode, scale):
    image = noise()
    found = interpolate(image, scale, mode)
    for ours, given in zip(found[:, 0], image[:, 0], strict=True):
        size = scale * given.shape[1], scale * given.shape[0]
        theirs = np.asarray(Image.fromarray(given.float().numpy()).resize(size, PILLOW[mode]), np.float64)
        theirs *= float(given.sum()) / theirs.sum()  # Pillow keeps values, we keep the flux as well
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=3e-6, atol=1e-7)  # Pillow computes in single precision


@pytest.mark.parametrize("scale", [2, 3, 5])
@pytest.mark.parametrize("mode", MODES)
def test_the_flux_of_each_image_is_kept(mode, scale):
    image = noise() * torch.tensor([1.0, 50.0], dtype=torch.float64)[:, None, None, None]
    found = interpolate(image, scale, mode)
    assert found.shape == (2, 1, 11 * scale, 14 * scale)
    torch.testing.assert_close(found.sum((1, 2, 3)), image.sum((1, 2, 3)))


@pytest.mark.parametrize("mode", MODES)
def test_a_constant_stays_one_up_to_the_edge(mode):
    found = interpolate(torch.full((2, 1, 5, 9), 4.0, dtype=torch.float64), 2, mode)
    torch.testing.assert_close(found, torch.ones(2, 1, 10, 18, dtype=torch.float64))


def test_nearest_repeats_each_pixel():
    image = noise()
    found = interpolate(image, 3, "nearest")
    torch.testing.assert_close(found, image.repeat_interleave(3, -1).repeat_interleave(3, -2) / 9)


@pytest.mark.parametrize("lobes", [1, 2, 3])
def test_a_lanczos_kernel_ends_after_its_lobes(lobes):
    point = torch.zeros(1, 1, 1, 15, dtype=torch.float64)
    point[..., 7] = 1
    seen = torch.nonzero(lanczos(point, 3, lobes)[0, 0, 0])
    assert (int(seen.min()), int(seen.max())) == (22 - 3 * lobes + 1, 22 + 3 * lobes - 1)  # pixels of a third


def test_lanczos_passes_through_the_pixels_it_is_given():
    image = noise()
    torch.testing.assert_close(lanczos(image, 3)[..., 1::3, 1::3], image)  # the middle one of three is where it was


def test_lanczos_follows_a_band_limited_image_more_closely():
    def wave(count: int) -> torch.Tensor:
        x = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        return 2 + torch.sin(2 * torch.pi * 5 * x)[None, None, :, None] * torch.cos(2 * torch.pi * 6 * x)

    inner = slice(12, -12)
    error = {
        mode: float((interpolate(wave(32), 2, mode) * 4 - wave(64))[..., inner, inner].abs().max()) for mode in MODES
    }
    assert error["lanczos"] < 0.5 * error["bicubic"] < 0.5 * error["bilinear"] < 0.5 * error["nearest"]


@pytest.mark.parametrize("mode", MODES)
def test_gradients(mode):
    image = noise(5, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: interpolate(x, 2, mode), image)


@pytest.mark.parametrize("mode", MODES)
def test_as_a_method(mode):
    observation = small_lenses().observation
    found = Interpolation(name=mode).predict(observation, 2)
    assert found.camera == observation.camera.at(2)
    torch.testing.assert_close(found.observed, block_sum(found.image, observation.camera.grid))


def test_an_unknown_one_is_refused():
    with pytest.raises(pydantic.ValidationError, match="'nearest', 'bilinear', 'bicubic' or 'lanczos'"):
        Interpolation(name="cubic")
