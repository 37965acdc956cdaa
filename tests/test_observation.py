"""PSF, camera, noise laws and instrument presets: scipy and lenstronomy as oracles, statistics, and the legacy data."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve
from torch import Tensor

from lensphys.checks import LensphysError
from lensphys.deflection import DeflectionField
from lensphys.grid import PixelGrid
from lensphys.observation import (
    Camera,
    ErrorMap,
    ExposureNoise,
    GaussianPSF,
    Instrument,
    NoPSF,
    Observation,
    PixelPSF,
    RectifiedCountNoise,
    background_error_map,
    block_sum,
    instrument_names,
)
from lensphys.observation.noise import rows_of
from lensphys.profiles import SIE, SIS, PointMass, Sersic

pytestmark = pytest.mark.usefixtures("float64")
LIKE = torch.zeros((), dtype=torch.float64)
FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))


def rand(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def kernel(size: int, sigma: float = 1.5) -> Tensor:
    """An asymmetric kernel: a Gaussian with a tilt, so that a missing flip shows."""
    x = torch.arange(size, dtype=torch.float64) - size // 2
    k = torch.exp(-0.5 * (x[:, None] ** 2 + x**2) / sigma**2) * (1 + 0.3 * torch.tanh(x[:, None] - 0.5 * x))
    return k / k.sum()


def inner_source(height: int, width: int, margin: int) -> Tensor:
    image = torch.zeros(2, 1, height, width)
    image[..., margin:-margin, margin:-margin] = rand(2, 1, height - 2 * margin, width - 2 * margin)
    return image


# ---------------------------------------------------------------- PSF


@pytest.mark.parametrize("fwhm", [0.08, 0.16, 0.7])
@pytest.mark.parametrize("shape", [(17, 29), (30, 12)])
def test_a_gaussian_psf_is_scipys(fwhm, shape):
    image, scale = rand(2, 1, *shape), 0.07
    found = GaussianPSF(fwhm).blur(image, scale)
    for row in (0, 1):
        expected = gaussian_filter(image[row, 0].numpy(), fwhm / FWHM_PER_SIGMA / scale, mode="nearest", truncate=5)
        np.testing.assert_allclose(found[row, 0].numpy(), expected, rtol=0, atol=1e-14)


def test_each_image_may_have_its_own_width():
    image = rand(2, 1, 17, 29)
    found = GaussianPSF(torch.tensor([0.2, 0.35])).blur(image, 0.07)
    for row, fwhm in enumerate((0.2, 0.35)):
        alone = GaussianPSF(fwhm).blur(image[row : row + 1], 0.07)
        # the narrow kernel is cut at the radius of the wide one: exp(-25 / 2) of the peak
        torch.testing.assert_close(found[row : row + 1], alone, rtol=0, atol=1e-5)


def test_a_psf_far_narrower_than_a_pixel_does_nothing():
    image = rand(2, 1, 5, 7)
    assert GaussianPSF(0.001).blur(image, 0.1) is image
    assert NoPSF().blur(image, 0.1) is image


@pytest.mark.parametrize("size", [1, 5, 15, 17, 31])  # convolved directly up to 15, by FFT above
@pytest.mark.parametrize("shape", [(40, 33), (35, 52)])
def test_a_pixel_psf_is_scipys_convolution(size, shape):
    image, k = rand(2, 1, *shape), kernel(size)
    found = PixelPSF(k, 0.05).blur(image, 0.05)
    for row in (0, 1):
        expected = fftconvolve(image[row, 0].numpy(), k.numpy(), mode="same")
        np.testing.assert_allclose(found[row, 0].numpy(), expected, rtol=0, atol=1e-13)


def test_a_kernel_larger_than_the_image():
    image, k = rand(1, 1, 9, 12), kernel(17, 3.0)
    expected = fftconvolve(image[0, 0].numpy(), k.numpy(), mode="same")
    np.testing.assert_allclose(PixelPSF(k, 0.05).blur(image, 0.05)[0, 0].numpy(), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("psf", [NoPSF(), GaussianPSF(0.16), PixelPSF(kernel(9), 0.07), PixelPSF(kernel(21), 0.07)])
def test_every_psf_keeps_the_flux_of_an_inner_source_and_is_linear(psf):
    image = inner_source(38, 45, 12)
    found = psf.blur(image, 0.07)
    assert found.shape == image.shape
    torch.testing.assert_close(found.sum((1, 2, 3)), image.sum((1, 2, 3)))
    other = rand(2, 1, 38, 45)
    torch.testing.assert_close(psf.blur(2 * image - other, 0.07), 2 * found - psf.blur(other, 0.07))
    assert psf.blur(image.float(), 0.07).dtype == torch.float32


@pytest.mark.parametrize("psf", [GaussianPSF(0.1), PixelPSF(kernel(3), 0.07), PixelPSF(kernel(17), 0.07)])
def test_gradcheck_of_every_psf(psf):
    assert torch.autograd.gradcheck(lambda x: psf.blur(x, 0.07), (rand(2, 1, 3, 4).requires_grad_(),))


def test_gradcheck_in_the_width():
    image, fwhm = rand(2, 1, 4, 5), torch.tensor([0.16, 0.2], requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: GaussianPSF(w).blur(image, 0.15), (fwhm,))


@pytest.mark.parametrize("scale", [0.02, 0.025, 0.04, 0.06, 0.08])
@pytest.mark.parametrize("fwhm", [0.2, 0.3])
def test_a_pixel_psf_keeps_sum_width_and_centre_at_other_scales(scale, fwhm):
    sigma = fwhm / FWHM_PER_SIGMA
    x = (torch.arange(41) - 20) * 0.05
    k = torch.exp(-0.5 * (x[:, None] ** 2 + x**2) / sigma**2)
    found = PixelPSF(k / k.sum(), 0.05).at(scale)
    assert found.shape[0] == found.shape[1]
    assert len(found) % 2 == 1
    assert len(found) * scale <= 41 * 0.05 + 1e-9
    assert float(found.sum()) == pytest.approx(1, abs=1e-12)
    x = (torch.arange(len(found)) - len(found) // 2) * scale
    for profile in (found.sum(0), found.sum(1)):
        assert float((profile * x).sum()) == pytest.approx(0, abs=1e-12)
        # torch's cubic kernel (a = -0.75) sharpens a Gaussian of 1.7 pixels by 1.3 %
        assert float((profile * x**2).sum().sqrt()) == pytest.approx(sigma, rel=0.015)


def test_a_pixel_psf_at_its_own_scale_is_normalised():
    k = kernel(5)
    torch.testing.assert_close(PixelPSF(k * 0.995, 0.05).at(0.05), k)
    assert PixelPSF(k, 0.05).at(5.0).tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(3, 5) / 15, 0.1), r"must be square \(K, K\), got \(3, 5\)"),
        ((torch.ones(1, 3, 3) / 9, 0.1), r"must be square \(K, K\), got \(1, 3, 3\)"),
        ((torch.ones(4, 4) / 16, 0.1), "odd number of pixels.* got 4 x 4: resample it onto an odd grid"),
        ((torch.full((3, 3), float("nan")), 0.1), "the PSF kernel holds 9 NaN"),
        ((torch.ones(3, 3) / 9, 0.0), "PSF pixel scale must be positive and finite, got 0"),
        ((torch.ones(3, 3) / 10, 0.1), r"must sum to 1, this one sums to 0\.9: divide it by its sum"),
    ],
)
def test_faulty_kernels(arguments, message):
    with pytest.raises(LensphysError, match=message):
        PixelPSF(*arguments)


def test_faulty_widths():
    with pytest.raises(LensphysError, match="PSF FWHM must be positive and finite, got 0"):
        GaussianPSF(0.0)
    with pytest.raises(LensphysError, match=r"PSF FWHM must be positive and finite, got -0\.1"):
        GaussianPSF(torch.tensor([0.2, -0.1]))


# ---------------------------------------------------------------- camera


def scene(grid: PixelGrid) -> tuple[Sersic, DeflectionField]:
    lens = SIE(torch.tensor([1.0, 0.8]), 0.1, -0.15, 0.03, -0.05)
    source = Sersic(torch.tensor([1.0, 2.0]), 0.25, 1.0, 0.1, 0.0, 0.1, -0.05)
    return source, DeflectionField.of(lens, grid, like=LIKE)


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
    torch.testing.assert_close(found, psf.blur(block_sum(fine, grid), 0.12))
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
        field = DeflectionField.of(SIE(theta_E, 0.1, 0.2, 0.03, 0.02), camera.grid, like=LIKE)
        return camera.render(Sersic(1.0, R, 1.0), field)

    assert torch.autograd.gradcheck(render, (theta_E, R))


def test_a_faulty_supersampling():
    with pytest.raises(LensphysError, match="supersampling must be 1 or more, got 0"):
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
                found = at.render(source, DeflectionField.of(lens, at.grid, like=LIKE))[0, 0].numpy()
                # cores of 1e-6 arcsec; the images are stored in single precision
                assert np.abs(found - of[name]).max() < 1e-5 * of[name].max()


# ---------------------------------------------------------------- noise laws


def flat(level: float, side: int = 300) -> Tensor:
    return torch.full((2, 1, side, side + 10), level)


def batch_numbers(a: float, b: float) -> Tensor:
    return torch.tensor([a, b]).reshape(2, 1, 1, 1)


NOISES = {
    "exposure": ExposureNoise(0.3, 50.0),
    "rectified": RectifiedCountNoise(batch_numbers(3.0, 1.5), batch_numbers(2.0, 0.4)),
    "error map": ErrorMap(batch_numbers(0.5, 2.0).expand(2, 1, 300, 310)),
}


@pytest.mark.parametrize("level", [0.0, 0.7, 20.0])
@pytest.mark.parametrize("name", NOISES)
def test_samples_have_the_mean_and_variance_of_their_law(name, level, generator):
    noise, clean = NOISES[name], flat(level)
    sample = noise.sample(clean, generator)
    expected, variance = noise.expected(clean), noise.variance(clean)
    assert sample.shape == expected.shape == variance.shape == clean.shape
    for row in (0, 1):
        x, pixels = sample[row], sample[row].numel()
        mean, spread = expected[row].mean(), variance[row].mean()
        fourth = ((x - x.mean()) ** 4).mean()
        # five standard errors: of the mean sqrt(v / N), of the variance sqrt((m4 - v^2) / N)
        assert abs(x.mean() - mean) < 5 * (spread / pixels).sqrt()
        assert abs(x.var() - spread) < 5 * ((fourth - spread**2) / pixels).sqrt()


@pytest.mark.parametrize("name", NOISES)
def test_a_noise_law_is_finite_and_differentiable_in_the_clean_image(name):
    noise = {**NOISES, "error map": ErrorMap(batch_numbers(0.5, 2.0).expand(2, 1, 3, 4))}[name]
    clean = (0.1 + rand(2, 1, 3, 4)).requires_grad_()
    assert torch.autograd.gradcheck(noise.expected, (clean,))
    assert torch.autograd.gradcheck(noise.variance, (clean,), check_grad_dtypes=False) or name == "error map"
    dark = -torch.ones(2, 1, 3, 4)
    assert bool((noise.variance(dark) > 0).all())
    assert bool(noise.expected(dark).isfinite().all())


def test_the_same_seed_gives_the_same_noise(generator):
    clean = flat(1.0, 10)
    for noise in (NOISES["exposure"], NOISES["rectified"]):
        a, b = (noise.sample(clean, torch.Generator().manual_seed(3)) for _ in range(2))
        assert torch.equal(a, b)
        assert not torch.equal(a, noise.sample(clean, generator))


@pytest.mark.parametrize("name", ["model_2", "model_3"])
def test_exposure_noise_is_lenstronomys(name):
    from lenstronomy.SimulationAPI.observation_api import SingleBand

    instrument = Instrument.named(name)
    noise = instrument.noise_of(torch.zeros(1, 1, 4, 5))
    numbers = instrument.noise.model_dump(exclude={"kind"})
    band = SingleBand(
        **numbers,
        pixel_scale=instrument.pixel_scale,
        magnitude_zero_point=instrument.zero_point,
        ccd_gain=1.0,
        seeing=instrument.psf.fwhm,
    )
    assert noise.background_rms == pytest.approx(band.background_noise, rel=1e-12)
    flux = np.array([[0.0, 0.5], [3.0, 40.0]])
    expected = band.flux_noise(flux) ** 2 + band.background_noise**2
    np.testing.assert_allclose(noise.variance(torch.tensor(flux)[None, None])[0, 0].numpy(), expected, rtol=1e-12)
    assert instrument.flux(20.0) == pytest.approx(band.magnitude2cps(20.0), rel=1e-12)


@pytest.mark.parametrize(("name", "module", "preset", "band"), [
    ("model_2", "Euclid", "Euclid", "VIS"),
    ("model_3", "HST", "HST", "WFC3_F160W"),
])  # fmt: skip
def test_presets_are_lenstronomys(name, module, preset, band):
    import importlib

    cls = getattr(importlib.import_module(f"lenstronomy.SimulationAPI.ObservationConfig.{module}"), preset)
    theirs = cls(band=band, psf_type="GAUSSIAN", coadd_years=None if preset == "HST" else 6).kwargs_single_band()
    ours = Instrument.named(name)
    assert ours.zero_point == theirs["magnitude_zero_point"]
    assert ours.psf.fwhm == theirs["seeing"]
    for key in ("read_noise", "sky_brightness", "exposure_time", "num_exposures"):
        assert getattr(ours.noise, key) == theirs[key], key
    if name == "model_2":
        assert ours.pixel_scale == theirs["pixel_scale"]


def arc(t: float, batch: int = 24) -> Tensor:
    """Clean Model 1 images in counts, as the legacy data draw their sources; exposure t [s]."""
    camera = Instrument.named("model_1").camera(75, 75)
    x, y = 0.35 * (2 * torch.rand(2, batch, generator=torch.Generator().manual_seed(1)) - 1)
    source = Sersic(20.0, 0.25, 1.0, -0.1, 0.1, x, y)
    return t * camera.render(source, DeflectionField.of(SIS(1.2814905676), camera.grid, like=LIKE))


def counts(t: float, unit: float, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Clean and noisy Model 1 images and their background rms, in counts times a unit."""
    clean, b = arc(t), 0.01 * t
    same = torch.ones(len(clean), 1, 1, 1)
    image = RectifiedCountNoise(b * same, 2 * same).sample(clean, generator)
    return unit * clean, unit * image, unit * b


@pytest.mark.parametrize("t", [10**3.0, 10**3.5])
@pytest.mark.parametrize("unit", [1.0, 0.01])
def test_the_background_is_estimated_from_the_image(t, unit, generator):
    clean, image, b = counts(t, unit, generator)
    first = RectifiedCountNoise.from_image(image)
    assert first.background_rms.shape == first.shot.shape == (24, 1, 1, 1)
    ratio = first.background_rms / b
    # the wings of the arc reach where the background is read: too high, by up to a half
    assert float(ratio.median()) == pytest.approx(1.15, abs=0.15)
    assert bool(((ratio > 0.9) & (ratio < 1.6)).all())
    ratio = first.updated(image, clean).background_rms / b
    # 100 to 1000 faint pixels, each with a scatter of 1.5 times its mean: 5 to 15 % a standard error
    assert float(ratio.median()) == pytest.approx(1, abs=0.05)
    assert bool(((ratio > 0.75) & (ratio < 1.25)).all())


def photon_noise(t: float, unit: float, generator: torch.Generator) -> Tensor:
    """Estimated over true photon noise of each image."""
    clean, image, _ = counts(t, unit, generator)
    return RectifiedCountNoise.from_image(image).updated(image, clean).shot / (2 * unit)


@pytest.mark.parametrize("unit", [1.0, 0.01])
def test_the_photon_noise_is_estimated_from_the_image(unit, generator):
    found = photon_noise(10**3.0, unit, generator)
    # 24 images of a few hundred bright pixels each: 4 % a standard error of the median
    assert float(found.median()) == pytest.approx(1, abs=0.12)
    assert float(((found > 0.6) & (found < 1.5)).double().mean()) > 0.9


@pytest.mark.xfail(reason="a background read too high leaves no photon noise, and `updated` keeps within 10 x of that")
@pytest.mark.parametrize("t", [10**3.0, 10**3.5])
def test_the_photon_noise_is_estimated_from_every_image(t, generator):
    assert bool((photon_noise(t, 1.0, generator) > 0.3).all())


def test_an_update_without_faint_or_bright_pixels_keeps_the_first_guess():
    first = RectifiedCountNoise(batch_numbers(3.0, 1.0), batch_numbers(2.0, 2.0))
    clean = torch.full((2, 1, 12, 13), 0.7) * batch_numbers(3.0, 1.0)  # neither below 0.1 nor above 2 background rms
    found = first.updated(clean, clean)
    assert torch.equal(found.background_rms, first.background_rms)
    assert torch.equal(found.shot, first.shot)


def test_white_noise_is_estimated_from_the_image(generator):
    clean = arc(1.0, batch=2)
    sigma = batch_numbers(0.002, 0.005)
    found = background_error_map(ErrorMap(sigma.expand_as(clean)).sample(clean, generator))
    assert found.sigma.shape == clean.shape
    # the MAD of N / 2 = 2800 pixels that share neighbours: 2.5 % a standard error
    torch.testing.assert_close(found.sigma, sigma.expand_as(clean), rtol=0.1, atol=0)


def test_an_error_map_serves_a_batch():
    noise = ErrorMap(torch.full((1, 1, 3, 4), 0.5))
    assert noise.variance(torch.zeros(2, 1, 3, 4)).shape == (2, 1, 3, 4)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_faulty_error_maps(value):
    sigma = torch.ones(1, 1, 3, 4)
    sigma[0, 0, 1, 2] = value
    with pytest.raises(LensphysError, match="holds 1 values that are not positive and finite: mask those pixels"):
        ErrorMap(sigma)


def test_faulty_noises():
    with pytest.raises(LensphysError, match=r"error map must have the shape \(B, 1, H, W\), got \(3, 4\)"):
        ErrorMap(torch.ones(3, 4))
    with pytest.raises(LensphysError, match="background_rms must be positive and finite, got 0"):
        ExposureNoise(0.0, 10.0)
    with pytest.raises(LensphysError, match="exposure_time must be positive and finite, got -1"):
        ExposureNoise(1.0, -1.0)
    with pytest.raises(LensphysError, match=r"image must have the shape \(B, 1, H, W\)"):
        RectifiedCountNoise.from_image(torch.ones(8, 9))
    with pytest.raises(LensphysError, match="an image is zero everywhere: its noise cannot be estimated"):
        RectifiedCountNoise.from_image(torch.stack([torch.ones(1, 8, 9), torch.zeros(1, 8, 9)]))
    with pytest.raises(LensphysError, match="image without scatter: give --error or --instrument"):
        background_error_map(torch.ones(2, 1, 8, 9))


def test_rows_of_each_noise_law():
    rows = torch.tensor([1])
    rectified, errors = NOISES["rectified"], NOISES["error map"]
    assert rows_of(NOISES["exposure"], rows) is NOISES["exposure"]
    found = rows_of(rectified, rows)
    assert torch.equal(found.background_rms, rectified.background_rms[1:])
    assert torch.equal(found.shot, rectified.shot[1:])
    assert torch.equal(rows_of(errors, rows).sigma, errors.sigma[1:])
    one = ErrorMap(torch.ones(1, 1, 3, 4))
    assert rows_of(one, rows) is one


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


def test_masked_pixels_do_not_count():
    mask = torch.ones(1, 1, 6, 7, dtype=torch.bool)
    mask[..., 2, 3] = False
    masked, whole = observation(mask), observation()
    assert masked.weight.shape == (2, 1, 6, 7)
    assert masked.counted.tolist() == [41.0, 41.0]
    assert whole.counted.tolist() == [42.0, 42.0]
    clean = torch.zeros(2, 1, 6, 7)
    one = (whole.image / whole.noise.sigma)[..., 2, 3].flatten() ** 2
    torch.testing.assert_close(whole.chi2(clean) - masked.chi2(clean), one)


@pytest.mark.parametrize("name", NOISES)
def test_chi2_of_the_true_image_is_the_number_of_pixels(name, generator):
    noise, clean = NOISES[name], 20 * rand(2, 1, 300, 310) + 5
    taken = Observation(noise.sample(clean, generator), Camera(PixelGrid(300, 310, 0.1)), noise)
    # five standard errors sqrt(2 / N) of a reduced chi^2 of Gaussian pixels (Poisson ones are a little wider)
    assert taken.chi2(clean) / taken.counted == pytest.approx([1, 1], abs=6 * math.sqrt(2 / 93_000))


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
    assert instrument_names() == ["model_1", "model_1_older", "model_2", "model_2_zp24", "model_3"]
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
    assert isinstance(mine.noise_of(rand(1, 1, 8, 9)), ErrorMap)
    with pytest.raises(LensphysError, match="mine: no zero_point, so a magnitude has no flux: give an amplitude"):
        mine.flux(20)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pixel_scale", "pixelscale", r"instrument .*mine\.yaml: missing key 'pixel_scale'; unknown key 'pixelscale'"),
        ("fwhm: 0.1", "fwhm: 0.1, beta: 2", r"unknown key 'psf\.gaussian\.beta'"),
        ("fwhm: 0.1", "fwhm: -0.1", r"'psf\.gaussian\.fwhm': .*greater than 0, got -0\.1"),
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
    with pytest.raises(LensphysError, match="unknown instrument 'model_9': choose one of model_1, model_1_older"):
        Instrument.named("model_9")
    with pytest.raises(LensphysError, match=r"settings file not found: nowhere\.yaml is not a file"):
        Instrument.named("nowhere.yaml")
