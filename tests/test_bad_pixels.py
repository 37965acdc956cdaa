"""Pixels that no light made: cold, hot, and hit by cosmic rays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from astropy.io import fits
from scipy.ndimage import gaussian_filter

from lensphys.basics.checks import LensphysError
from lensphys.data.images import Reading, read_images
from lensphys.model import Gaussian
from lensphys.observation import Camera, ErrorMap, GaussianPSF, Observation, PixelPSF, SkyNoise
from lensphys.observation.bad_pixels import BadPixels
from lensphys.tracing.grid import PixelGrid


def observed(stars: list[tuple[float, float, float]], fwhm: float = 0.12, sigma: float = 1.0) -> Observation:
    """Stars (flux, x, y) in noise of 1, and an error map of ``sigma``."""
    camera = Camera(PixelGrid(40, 40, 0.05), GaussianPSF(fwhm), supersampling=4)
    fine = camera.grid.resampled(camera.supersampling)
    image = torch.randn(1, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    for flux, x, y in stars:
        light = Gaussian(flux, 0.01, 0.0, 0.0, x, y)(fine.positions(like=torch.zeros(1)))
        image = image + camera.expose(light * fine.pixel_area)
    return Observation(image, camera, ErrorMap(torch.full_like(image, sigma)))


def found(observation: Observation) -> list[list[int]]:
    return BadPixels().found(observation)[0, 0].nonzero().tolist()


def test_cold_and_hot_pixels_are_found_and_stars_are_not():
    observation = observed([(300, 0.02, 0.31), (300, -0.5, -0.4)])
    observation.image[0, 0, 5, 30], observation.image[0, 0, 30, 6] = 40.0, -12.0
    assert found(observation) == [[5, 30], [30, 6]]


def test_the_track_of_a_cosmic_ray_is_found():
    observation = observed([(300, 0.02, 0.31)])
    observation.image[0, 0, 8, 20:27] = 60.0
    for i in range(5):
        observation.image[0, 0, 25 + i, 5 + i] = 60.0
    assert found(observation) == [[8, i] for i in range(20, 27)] + [[25 + i, 5 + i] for i in range(5)]


def test_a_hole_of_many_cold_pixels_is_found():
    observation = observed([(300, 0.02, 0.31)])
    observation.image[0, 0, 10:14, 30:34] = -999 + torch.randn(4, 4)
    assert found(observation) == [[y, x] for y in range(10, 14) for x in range(30, 34)]


@pytest.mark.parametrize("fwhm", [0.05, 0.08, 0.3])
@pytest.mark.parametrize("flux", [30.0, 1e3, 1e5])
def test_a_star_of_any_place_and_width_is_light(fwhm, flux):
    for x, y in ((0.0, 0.0), (0.025, 0.025), (0.6, -0.013), (-0.71, 0.4)):
        assert found(observed([(flux, x, y)], fwhm)) == []


@pytest.mark.parametrize("off", [1.5, 3.0])
def test_a_kernel_may_be_off_its_own_middle(off):
    observation = observed([(300, 0.02, 0.31), (300, -0.5, -0.4)])
    grid = PixelGrid(15, 15, 0.05)
    star = Gaussian(1.0, 0.06, 0.0, 0.0, 0.05 * off, -0.05 * off)(grid.positions(like=torch.zeros(1)))
    psf = PixelPSF(star[0, 0] / star.sum(), 0.05)
    assert found(replace(observation, camera=replace(observation.camera, psf=psf))) == []


def test_light_beside_masked_pixels_and_the_border_is_light():
    observation = observed([(1e4, 0.02, 0.31), (1e4, 1.04, 0.3)])
    masked = torch.ones_like(observation.image, dtype=torch.bool)
    masked[..., 25, 18:20], masked[..., 27, :], masked[..., 20:30, 21] = False, False, False
    assert found(replace(observation, mask=masked)) == []


def test_an_error_map_that_is_far_too_small_makes_no_pixel_bad():
    assert found(observed([(300, 0.02, 0.31)], sigma=0.05)) == []


def test_noise_that_neighbours_share_and_nobody_knows_makes_no_pixel_bad():
    white = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(1)).numpy()
    shared = torch.from_numpy(gaussian_filter(white, (0, 0, 1.0, 1.0)))
    camera = Camera(PixelGrid(64, 64, 0.05), GaussianPSF(0.12))
    assert found(Observation(shared, camera, SkyNoise.from_image(shared))) == []


def test_a_file_says_how_many_are_masked(tmp_path):
    observation = observed([(300, 0.02, 0.31)])
    observation.image[0, 0, 5, 30] = 400.0
    planes = {"SCI": observation.image[0, 0], "ERR": torch.ones(40, 40), "PSF": torch.eye(5)[2].outer(torch.eye(5)[2])}
    planes["PSF"] = observation.camera.psf.blur(planes["PSF"][None, None], 0.05)[0, 0]
    planes["PSF"] /= planes["PSF"].sum()
    hdus = [fits.ImageHDU(plane.numpy().astype(np.float32), name=name) for name, plane in planes.items()]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "hit.fits")
    images = read_images(tmp_path / "hit.fits", Reading(pixel_scale=0.05))
    assert images.observation.weight[0, 0, 5, 30] == 0
    assert images.observation.n_unmasked.item() == 40 * 40 - 1
    assert any("1 pixel that no light of this PSF makes" in remark for remark in images.remarks)
    kept = read_images(tmp_path / "hit.fits", Reading(pixel_scale=0.05, bad_pixels="keep"))
    assert kept.observation.n_unmasked.item() == 40 * 40
    assert not any("no light" in remark for remark in kept.remarks)
    with pytest.raises(LensphysError, match="unknown --bad-pixels 'drop': choose one of keep, mask"):
        read_images(tmp_path / "hit.fits", Reading(pixel_scale=0.05, bad_pixels="drop"))
