"""Richardson-Lucy: sharper than interpolation, towards any target, whatever the noise does below zero."""

from __future__ import annotations

from dataclasses import replace

import pydantic
import pytest
import torch
from lenses import Lenses, finite, small_lenses
from torch import Tensor

from lensphys.methods import READY, Interpolation, RichardsonLucy
from lensphys.methods.richardson_lucy import psf_kernels
from lensphys.model import SIE, Sersic
from lensphys.observation import PSF, Camera, ErrorMap, GaussianPSF, NoPSF, Observation, PixelPSF
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid

BICUBIC = Interpolation(name="bicubic")


def blurred_lenses(psf: PSF, sharp: PSF | None, noise: float = 0.01) -> tuple[Observation, Tensor]:
    """Two arcs seen through a wide PSF, H != W, and the image on half the pixels through its target PSF."""
    camera = Camera(PixelGrid(36, 40, 0.12), psf, supersampling=4, target_psf=sharp)
    mass = SIE(torch.tensor([1.1, 1.3]), 0.1, -0.05, 0.02, 0.03)
    source = Sersic(torch.tensor([5.0, 2.0]), 0.15, 1.0, 0.1, -0.1, 0.12, 0.05)

    def seen(camera: Camera) -> Tensor:
        fine = camera.grid.resampled(camera.supersampling)
        return camera.render(source, DeflectionField.from_lens(mass, fine, like=torch.zeros(2)))

    clean = seen(camera)
    law = ErrorMap(noise * clean.flatten(1).amax(1)[:, None, None, None].expand_as(clean))
    return Observation(law.sample(clean, torch.Generator().manual_seed(1)), camera, law), seen(camera.at(2))


def error(image: Tensor, truth: Tensor) -> Tensor:
    return (image - truth).square().sum((1, 2, 3)) / truth.square().sum((1, 2, 3))


@pytest.mark.parametrize("sharp", [None, NoPSF(), GaussianPSF(0.12)], ids=["its own", "bare", "target"])
def test_it_is_closer_to_the_truth_than_bicubic(sharp):
    observation, truth = blurred_lenses(GaussianPSF(0.4), sharp)
    found = RichardsonLucy(iterations=30).predict(observation, 2).image
    assert bool((error(found, truth) < 0.4 * error(BICUBIC.predict(observation, 2).image, truth)).all())
    torch.testing.assert_close(found.sum((1, 2, 3)), observation.image.sum((1, 2, 3)), rtol=0.02, atol=0)


@pytest.mark.parametrize("sharp", [GaussianPSF(0.15), None], ids=["target", "its own"])
def test_every_answer_is_the_bare_one_blurred(sharp):
    observation, _ = blurred_lenses(GaussianPSF(0.4), sharp)
    bare = replace(observation, camera=replace(observation.camera, target_psf=NoPSF()))
    found, blurred = RichardsonLucy().predict(bare, 3), RichardsonLucy().predict(observation, 3)
    psf = sharp or GaussianPSF(0.4)
    torch.testing.assert_close(blurred.image, psf.blur(found.image, 0.04))
    torch.testing.assert_close(blurred.observed, found.observed)
    assert blurred.camera.psf == psf and found.camera.psf == NoPSF()


def test_more_iterations_follow_the_image_more_closely():
    observation, _ = blurred_lenses(GaussianPSF(0.4), None)
    chi2 = [RichardsonLucy(iterations=n).predict(observation, 2).reduced_chi2(observation) for n in (1, 5, 25)]
    assert bool((chi2[0] > chi2[1]).all()) and bool((chi2[1] > chi2[2]).all())


def test_without_a_psf_it_is_bicubic():
    lenses = small_lenses()
    observation = replace(lenses.observation, camera=replace(lenses.observation.camera, psf=NoPSF()))
    found = RichardsonLucy(iterations=3).predict(observation, 2).image
    bicubic = BICUBIC.predict(observation, 2).image  # it may undershoot the lowest pixel, which the pedestal follows
    torch.testing.assert_close(found, bicubic, rtol=0, atol=1e-3 * float(bicubic.max()))


def test_an_image_far_below_zero_is_no_trouble_and_a_pedestal_is_kept():
    observation, _ = blurred_lenses(GaussianPSF(0.4), None, noise=0.2)
    assert float(observation.image.min()) < 0
    found = RichardsonLucy().predict(observation, 2)
    assert finite(found.image) and float(found.image.min()) < 0
    lower = replace(observation, image=observation.image - 1000)
    assert finite(RichardsonLucy().predict(lower, 2).image)


def test_a_masked_spike_sets_no_pedestal():
    observation, _ = blurred_lenses(GaussianPSF(0.3), None)
    hole = torch.ones(1, 1, 36, 40, dtype=torch.bool)
    hole[..., 2, 2] = False
    image = observation.image.clone()
    image[..., 2, 2] = -1e4 * image.max()
    found = RichardsonLucy().predict(replace(observation, image=image, mask=hole), 2).image
    clean = RichardsonLucy().predict(observation, 2).image
    assert bool((error(found[..., 30:, 30:], clean[..., 30:, 30:]) < 0.01).all())


def test_nothing_that_counts_is_no_crash():
    observation, _ = blurred_lenses(GaussianPSF(0.3), None)
    nothing = replace(observation, image=0 * observation.image, mask=torch.zeros(1, 1, 36, 40, dtype=torch.bool))
    assert float(RichardsonLucy().predict(nothing, 2).image.abs().max()) < 1e-6


def test_kernels():
    like = torch.zeros(2, 1, 40, 44, dtype=torch.float64)
    grid = PixelGrid(40, 44, 0.05)
    widths = psf_kernels(GaussianPSF(torch.tensor([0.1, 0.3])), grid, like=like)
    assert len(widths) == 2 and widths.shape[-1] == widths.shape[-2] and widths.shape[-1] % 2 == 1
    torch.testing.assert_close(widths.sum((1, 2, 3)), torch.ones(2).double())
    assert float(widths[0].max()) > 5 * float(widths[1].max())
    raw = torch.rand(7, 7, dtype=torch.float64) + 0.1
    pixel = PixelPSF(raw / raw.sum(), 0.05)
    torch.testing.assert_close(psf_kernels(pixel, grid, like=like)[1, 0], pixel.kernel)
    assert psf_kernels(NoPSF(), grid, like=like).shape == (2, 1, 1, 1)
    # a kernel larger than the image ends with it
    assert psf_kernels(GaussianPSF(3.0), grid, like=like).shape[-1] == 39


def test_settings():
    assert READY["richardson_lucy"] == RichardsonLucy(iterations=10)
    with pytest.raises(pydantic.ValidationError, match="greater than 0"):
        RichardsonLucy(iterations=0)


def test_lenses_of_the_contract_are_sharpened_too():
    lenses: Lenses = small_lenses(noise=0.01)
    bare = replace(lenses.observation, camera=replace(lenses.observation.camera, target_psf=NoPSF()))
    found = RichardsonLucy().predict(bare, 2).image
    bicubic = BICUBIC.predict(lenses.observation, 2).image
    assert bool((found.flatten(1).amax(1) > bicubic.flatten(1).amax(1)).all())
    own = RichardsonLucy().predict(lenses.observation, 2).image  # the PSF of the image is kept where no other is set
    assert bool((own.flatten(1).amax(1) < found.flatten(1).amax(1)).all())
