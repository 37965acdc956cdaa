"""theta_E of an image: exact where the image is, close where it is interpolated, NaN where there is no lens."""

from __future__ import annotations

import pytest
import torch
from lenses import THETA_E, model_lenses, one_thread, relative  # noqa: F401

from lensphys.basics.checks import LensphysError
from lensphys.evaluation.lens_of_image import theta_E_of
from lensphys.methods.interpolation import interpolate
from lensphys.model import SIE, SIS, Sersic, Shear
from lensphys.observation import Camera, GaussianPSF
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid


def seen(mass, camera: Camera) -> torch.Tensor:
    """Two noise-free images of sources beside the axis."""
    vary = torch.tensor([-1.0, 1.0])
    source = Sersic(5.0 + vary, 0.25, 1.0, -0.1, 0.1, 0.15 * vary, -0.1)
    return camera.render(source, DeflectionField.from_lens(mass, camera.grid, like=vary))


@pytest.mark.parametrize("model", THETA_E)
def test_it_is_exact_on_a_clean_image(model):
    lenses = model_lenses(model, batch=2)
    found = theta_E_of(lenses.clean(2), lenses.observation.camera.at(2))
    assert relative(found, THETA_E[model]) < 1e-4


@pytest.mark.parametrize("mode", ["bicubic", "lanczos", "nearest"])
@pytest.mark.parametrize("model", THETA_E)
def test_it_is_close_on_an_interpolated_noisy_image(model, mode):
    lenses = model_lenses(model, batch=4)
    found = theta_E_of(interpolate(lenses.observation.image, 2, mode), lenses.observation.camera.at(2))
    assert relative(found, THETA_E[model]) < 0.01


def test_each_image_has_its_own_lens_and_psf():
    camera = Camera(PixelGrid(96, 108, 0.04), GaussianPSF(torch.tensor([0.1, 0.2])), supersampling=2)
    theta_E = torch.tensor([0.8, 1.1])
    mass = SIE(theta_E, 0.1, -0.05, 0.02, -0.03) + Shear(0.03, -0.02)
    found = theta_E_of(seen(mass, camera), camera)
    assert relative(found, theta_E) < 0.002
    assert found.dtype == torch.float64


def test_the_unit_does_not_matter():
    camera = Camera(PixelGrid(80, 76, 0.05))
    image = seen(SIS(torch.tensor([1.0, 1.2])), camera)
    torch.testing.assert_close(theta_E_of(1e-12 * image.double(), camera), theta_E_of(image, camera), rtol=1e-4, atol=0)


def test_what_shows_no_lens_has_no_theta_E_and_spoils_no_other():
    camera = Camera(PixelGrid(80, 76, 0.05), GaussianPSF(0.1))
    image = seen(SIS(torch.tensor([1.0, 1.2])), camera)
    noise = torch.rand(1, 1, 80, 76, generator=torch.Generator().manual_seed(0))
    broken = image[:1].clone()
    broken[..., 3, 4] = torch.nan
    infinite = broken.nan_to_num(torch.inf)
    whole = torch.cat([image[:1], 0 * image[:1], -image[:1], broken, infinite, noise, noise * 0 + 2, image[1:]])
    found = theta_E_of(whole, camera)
    assert found.isnan().tolist() == [False, True, True, True, True, True, True, False]
    torch.testing.assert_close(found[[0, -1]], theta_E_of(image, camera))


def test_no_image_gives_no_number():
    assert theta_E_of(torch.zeros(0, 1, 40, 40), Camera(PixelGrid(40, 40, 0.1))).shape == (0,)


def test_shapes_are_checked():
    camera = Camera(PixelGrid(40, 40, 0.1))
    with pytest.raises(LensphysError, match=r"image must have the shape \(B, 1, H, W\), got \(40, 40\)"):
        theta_E_of(torch.ones(40, 40), camera)
    with pytest.raises(LensphysError, match=r"image and camera grid must have the same shape, got \(20, 20\)"):
        theta_E_of(torch.ones(1, 1, 20, 20), camera)
