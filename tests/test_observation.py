"""Camera, observations and instrument presets, down to the images of the legacy data."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.model import SIE, SIS, PointMass, Sersic
from lensphys.observation import (
    Camera,
    Conditions,
    ErrorMap,
    ExposureNoise,
    GaussianPSF,
    Instrument,
    NoPSF,
    Observation,
    RectifiedCountNoise,
    SkyNoise,
    block_sum,
    instrument_names,
)
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid

pytestmark = pytest.mark.usefixtures("float64")
LIKE = torch.zeros((), dtype=torch.float64)


def rand(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def batch_numbers(a: float, b: float) -> Tensor:
    return torch.tensor([a, b]).reshape(2, 1, 1, 1)


# ---------------------------------------------------------------- camera


def scene(grid: PixelGrid) -> tuple[Sersic, DeflectionField]:
    lens = SIE(torch.tensor([1.0, 0.8]), 0.1, -0.15, 0.03, -0.05)
    source = Sersic(torch.tensor([1.0, 2.0]), 0.25, 1.0, 0.1, 0.0, 0.1, -0.05)
    return source, DeflectionField.from_lens(lens, grid, like=LIKE)


def test_binning_conserves_flux():
    grid = PixelGrid(6, 7, 0.1)
    flux = rand(2, 3, 18, 21)
    found = block_sum(flux, grid)
    assert found.shape == (2, 3, 6, 7)
    torch.testing.assert_close(found[..., 1, 2], flux[..., 3:6, 6:9].sum((2, 3)))
    torch.testing.assert_close(found.sum((2, 3)), flux.sum((2, 3)))
    assert block_sum(found, grid) is found


@pytest.mark.parametrize("shape", [(12, 21), (13, 14), (3, 3)])
def test_a_map_that_does_not_divide_is_refused(shape):
    with pytest.raises(LensphysError, match=r"does not divide into 6 x 7 pixels"):
        block_sum(torch.zeros(1, 1, *shape), PixelGrid(6, 7, 0.1))


def test_a_supersampled_image_is_the_sum_of_the_fine_one():
    grid = PixelGrid(24, 30, 0.12)
    source, field = scene(grid)
    psf = GaussianPSF(0.15)
    fine = Camera(grid.resampled(3)).render(source, field)
    found = Camera(grid, psf, supersampling=3).render(source, field)
    torch.testing.assert_close(found, block_sum(psf.blur(fine, 0.04), grid))
    torch.testing.assert_close(Camera(grid, psf).expose(fine), found)


def test_flux_per_pixel_is_brightness_times_area():
    grid = PixelGrid(24, 30, 0.12)
    source, field = scene(grid)
    torch.testing.assert_close(Camera(grid).render(source, field), source(field.beta) * 0.12**2)


def test_supersampling_converges_to_the_integral_over_the_pixel():
    grid = PixelGrid(24, 30, 0.12)
    source, field = Sersic(1.0, 0.3, 0.5, center_x=0.05), DeflectionField(torch.zeros(1, 2, 24, 30), grid)
    image = {s: Camera(grid, supersampling=s).render(source, field) for s in (1, 2, 4, 16)}
    errors = [float((image[s] - image[16]).abs().max()) for s in (1, 2, 4)]
    # the midpoint rule: second order; the reference itself lacks 1/16^2
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.2)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.2)


def test_a_camera_at_another_resolution_keeps_field_psf_and_flux():
    camera = Camera(PixelGrid(24, 30, 0.12), GaussianPSF(0.3), supersampling=4)
    fine = camera.at(2)
    assert fine.grid == PixelGrid(48, 60, 0.06)
    assert fine.psf is camera.psf
    assert fine.supersampling == 2
    assert camera.at(8).supersampling == 1
    assert camera.at(0.5).supersampling == 4
    source, field = scene(camera.grid)
    coarse, detailed = camera.render(source, field), fine.render(source, field)
    # a Gaussian sampled at pixel centres of 0.12 and of 0.06 arcsec is not quite the same blur
    off = (block_sum(detailed, camera.grid) - coarse).abs()
    assert float(off.max() / coarse.max()) < 0.05
    torch.testing.assert_close(detailed.sum((1, 2, 3)), coarse.sum((1, 2, 3)), rtol=2e-3, atol=0)


def test_rendering_is_differentiable():
    camera = Camera(PixelGrid(3, 4, 0.4), GaussianPSF(0.4), supersampling=2)
    theta_E, R = torch.tensor([1.0, 0.8], requires_grad=True), torch.tensor([0.4, 0.3], requires_grad=True)

    def render(theta_E: Tensor, R: Tensor) -> Tensor:
        field = DeflectionField.from_lens(SIE(theta_E, 0.1, 0.2, 0.03, 0.02), camera.grid, like=LIKE)
        return camera.render(Sersic(1.0, R, 1.0), field)

    assert torch.autograd.gradcheck(render, (theta_E, R))


def test_a_faulty_supersampling():
    with pytest.raises(LensphysError, match="supersampling must be a whole number of 1 or more, got 0"):
        Camera(PixelGrid(3, 4, 0.1), supersampling=0)


LEGACY = {"model_1": (75, 20.0), "model_2": (64, 1.0), "model_3": (64, 1.0)}  # LR pixels, amplitude of the source


@pytest.mark.parametrize("dark_matter", ["no_sub", "axion", "cdm"])
@pytest.mark.parametrize("model", LEGACY)
def test_the_legacy_data_are_reproduced(shared, model, dark_matter):
    """Noise-free LR and HR images of the legacy simulator (lenstronomy), from our profiles and camera."""
    path = shared / "legacy" / "parity.npz"
    if not path.is_file():
        pytest.skip("there is no legacy/parity.npz")
    pixels, amp = LEGACY[model]
    camera = Instrument.named(model).camera(pixels, pixels)
    with np.load(path) as data:
        samples = sorted({key.split("/")[2] for key in data.files if key.startswith(f"{model}/{dark_matter}/")})
        assert samples
        for sample in samples:
            of = {k: data[f"{model}/{dark_matter}/{sample}/{k}"] for k in
                  ("main_theta_E", "points_theta_E_x_y", "source_center", "lr", "hr")}  # fmt: skip
            lens = SIS(float(of["main_theta_E"]))
            for point in of["points_theta_E_x_y"].T:
                lens = lens + PointMass(*map(float, point))
            source = Sersic(amp, 0.25, 1.0, -0.1, 0.1, *map(float, of["source_center"]))
            for factor, name in ((1, "lr"), (2, "hr")):
                at = camera.at(factor)
                found = at.render(source, DeflectionField.from_lens(lens, at.grid, like=LIKE))[0, 0].numpy()
                # cores of 1e-6 arcsec; the images are stored in single precision
                assert np.abs(found - of[name]).max() < 1e-5 * of[name].max()


# ---------------------------------------------------------------- observations


def observation(mask: Tensor | None = None) -> Observation:
    return Observation(rand(2, 1, 6, 7), Camera(PixelGrid(6, 7, 0.1)), ErrorMap(0.5 + rand(2, 1, 6, 7)), mask)


def test_rows_of_an_observation():
    mask = rand(2, 1, 6, 7) > 0.3
    whole = observation(mask)
    part = whole[torch.tensor([1])]
    assert len(whole) == 2
    assert len(part) == 1
    for found, expected in ((part.image, whole.image), (part.mask, mask), (part.noise.sigma, whole.noise.sigma)):
        assert torch.equal(found, expected[1:])
    clean = rand(2, 1, 6, 7)
    torch.testing.assert_close(part.chi2(clean[1:]), whole.chi2(clean)[1:])
    shared_mask = observation(mask[:1])[torch.tensor([1, 0])]
    assert torch.equal(shared_mask.mask, mask[:1])
    assert observation()[torch.tensor([0])].mask is None


def varied() -> tuple[Observation, Conditions]:
    numbers = (torch.tensor(x) for x in ([0.09, 0.3, 0.16], [500.0, 5000.0, 1000.0], [0.02, 0.005, 0.01]))
    conditions = Conditions(*numbers)
    return Instrument.named("model_3").observation(1 + rand(3, 1, 12, 14), conditions), conditions


def test_each_image_has_its_own_psf_and_noise():
    taken, conditions = varied()
    clean = rand(3, 1, 12, 14)
    blurred, variance = taken.camera.expose(clean), taken.noise.variance(clean)
    chi2, index = taken.chi2(clean), torch.tensor([2, 1])
    for observation, rows in ((taken[index], [2, 1]), (taken.to("cpu"), [0, 1, 2])):
        torch.testing.assert_close(observation.camera.expose(clean[rows]), blurred[rows])
        torch.testing.assert_close(observation.chi2(clean[rows]), chi2[rows])
    for i, (fwhm, t, rms) in enumerate(zip(*vars(conditions).values(), strict=True)):
        alone = GaussianPSF(float(fwhm)).blur(clean[i : i + 1], 0.08)
        torch.testing.assert_close(blurred[i : i + 1], alone)
        torch.testing.assert_close(variance[i], rms**2 + clean[i] / t)
    moved = taken.to("meta")
    assert moved.image.is_meta and moved.camera.psf.fwhm.is_meta and moved.noise.exposure_time.is_meta


def test_a_camera_cuts_and_moves_both_of_its_psfs():
    sharp = GaussianPSF(torch.tensor([0.05, 0.1, 0.2]))
    camera = Camera(PixelGrid(6, 7, 0.1), GaussianPSF(torch.tensor([0.3, 0.4, 0.5])), target_psf=sharp)
    part = camera.rows(torch.tensor([2, 0]))
    assert part.psf.fwhm.tolist() == [0.5, 0.3] and part.target_psf.fwhm.tolist() == [0.2, 0.05]
    assert camera.to("meta").target_psf.fwhm.is_meta and camera.to("meta").psf.fwhm.is_meta
    assert Camera(camera.grid).rows(torch.tensor([1])) == Camera(camera.grid)


def test_faulty_conditions():
    with pytest.raises(LensphysError, match="exposure_time and background_rms make the noise together"):
        Conditions(exposure_time=torch.ones(2))
    with pytest.raises(LensphysError, match=r"psf_fwhm must have the shape \(B,\), got \(2, 1\)"):
        Conditions(psf_fwhm=torch.ones(2, 1))


def test_masked_pixels_do_not_count():
    mask = torch.ones(1, 1, 6, 7, dtype=torch.bool)
    mask[..., 2, 3] = False
    masked, whole = observation(mask), observation()
    assert masked.weight.shape == (2, 1, 6, 7)
    assert masked.n_unmasked.tolist() == [41.0, 41.0]
    assert whole.n_unmasked.tolist() == [42.0, 42.0]
    clean = torch.zeros(2, 1, 6, 7)
    one = (whole.image / whole.noise.sigma)[..., 2, 3].flatten() ** 2
    torch.testing.assert_close(whole.chi2(clean) - masked.chi2(clean), one)


def test_interpolation_keeps_the_flux_and_the_pixel_values():
    taken = observation()
    torch.testing.assert_close(taken.interpolated(taken.camera.grid), taken.image)
    constant = Observation(torch.ones(2, 1, 6, 7), taken.camera, taken.noise)
    found = constant.interpolated(PixelGrid(12, 14, 0.05))
    torch.testing.assert_close(found, torch.full((2, 1, 12, 14), 0.25))


def test_the_flux_ratio_brings_a_model_to_the_flux_of_the_image():
    image = 1 + rand(2, 1, 6, 7)
    mask = rand(1, 1, 6, 7) > 0.3
    taken = Observation(image, Camera(PixelGrid(6, 7, 0.1)), ExposureNoise(1.0, 1.0), mask)
    ratio = batch_numbers(0.8, 1.3)
    torch.testing.assert_close(taken.flux_ratio(image / ratio), ratio.flatten())
    assert taken.flux_ratio(image / 10).tolist() == [2.0, 2.0]
    assert taken.flux_ratio(image * 10).tolist() == [0.5, 0.5]
    assert taken.flux_ratio(torch.zeros_like(image)).isfinite().all()
    # a law with a pedestal is not linear: one step is right to first order
    law = RectifiedCountNoise(batch_numbers(0.5, 0.2), batch_numbers(2.0, 2.0))
    pedestal = Observation(law.expected(image), taken.camera, law)
    torch.testing.assert_close(pedestal.flux_ratio(image / 1.02), torch.full((2,), 1.02), rtol=0, atol=1e-3)


def test_faulty_observations():
    camera, noise = Camera(PixelGrid(6, 7, 0.1)), ExposureNoise(1.0, 1.0)
    with pytest.raises(LensphysError, match=r"image must have the shape \(B, 1, H, W\)"):
        Observation(torch.zeros(6, 7), camera, noise)
    with pytest.raises(LensphysError, match=r"image and pixel grid must .* got \(7, 6\) and \(6, 7\)"):
        Observation(torch.zeros(1, 1, 7, 6), camera, noise)
    with pytest.raises(LensphysError, match="mask and image must have the same shape"):
        Observation(torch.zeros(1, 1, 6, 7), camera, noise, torch.ones(1, 1, 7, 6))


# ---------------------------------------------------------------- instruments


@pytest.mark.parametrize("name", instrument_names())
def test_every_preset_loads_and_observes(name, generator):
    instrument = Instrument.named(name)
    image = 5 + torch.rand(2, 1, 12, 14, generator=generator)
    taken = instrument.observation(image)
    assert taken.camera.grid == PixelGrid(12, 14, instrument.pixel_scale)
    assert bool((taken.noise.variance(image) > 0).all())


def test_the_presets_are_the_documented_ones():
    legacy = [name for name in instrument_names() if name.startswith("model_")]
    assert legacy == ["model_1", "model_1_integrated", "model_1_older", "model_2", "model_2_zp24", "model_3"]
    assert Instrument.named("model_2").flux(25.72) == pytest.approx(1)
    assert Instrument.named("model_2").flux(20) / Instrument.named("model_2_zp24").flux(20) == pytest.approx(
        10 ** (0.4 * 1.72)
    )
    assert isinstance(Instrument.named("model_1").camera(4, 5).psf, NoPSF)


INSTRUMENT = """\
version: 1
description: mine
pixel_scale: 5e-2
unit: e-/s
psf: {kind: gaussian, fwhm: 0.1}
noise: {kind: estimated}
"""


def test_an_instrument_of_the_user(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(INSTRUMENT)
    mine = Instrument.named(str(path))
    assert mine.pixel_scale == 0.05
    assert isinstance(mine.noise_of(rand(1, 1, 8, 9)), SkyNoise)
    with pytest.raises(LensphysError, match="mine: no zero_point, so a magnitude has no flux: give an amplitude"):
        mine.flux(20)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pixel_scale", "pixelscale", r"instrument .*mine\.yaml: missing key 'pixel_scale'; unknown key 'pixelscale'"),
        ("fwhm: 0.1", "fwhm: 0.1, beta: 2", r"unknown key 'psf\.beta'"),
        ("fwhm: 0.1", "fwhm: -0.1", r"'psf\.fwhm': .*greater than 0, got -0\.1"),
        ("kind: estimated", "kind: loud", "'noise': .*loud"),
        ("unit: e-/s", "unit: Jy", "'unit': .*got 'Jy'"),
    ],
)
def test_faulty_instruments(tmp_path, old, new, message):
    path = tmp_path / "mine.yaml"
    path.write_text(INSTRUMENT.replace(old, new))
    with pytest.raises(LensphysError, match=message) as caught:
        Instrument.named(str(path))
    assert "\n" not in str(caught.value)


def test_exposure_noise_needs_a_zero_point(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        INSTRUMENT.replace("estimated", "exposure, read_noise: 1.0, sky_brightness: 22.0, exposure_time: 1e3")
    )
    with pytest.raises(LensphysError, match="mine: exposure noise needs a zero_point for its sky brightness"):
        Instrument.named(str(path)).noise_of(rand(1, 1, 8, 9))


def test_unknown_instruments():
    with pytest.raises(LensphysError, match="unknown instrument 'model_9': choose one of .*, model_1_integrated"):
        Instrument.named("model_9")
    with pytest.raises(LensphysError, match=r"settings file not found: nowhere\.yaml is not a file"):
        Instrument.named("nowhere.yaml")
