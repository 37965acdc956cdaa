"""Noise laws: statistics of their samples, lenstronomy as the oracle, estimates from the image itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.model import SIS, Sersic
from lensphys.observation import (
    Camera,
    ErrorMap,
    ExposureNoise,
    Instrument,
    Observation,
    RectifiedCountNoise,
    SkyNoise,
)
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid

pytestmark = pytest.mark.usefixtures("float64")
LIKE = torch.zeros((), dtype=torch.float64)


def rand(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def flat(level: float, side: int = 300) -> Tensor:
    return torch.full((2, 1, side, side + 10), level)


def batch_numbers(a: float, b: float) -> Tensor:
    return torch.tensor([a, b]).reshape(2, 1, 1, 1)


NOISES = {
    "exposure": ExposureNoise(0.3, 50.0),
    "exposure of each image": ExposureNoise(batch_numbers(0.3, 0.9), batch_numbers(50.0, 8.0)),
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


@pytest.mark.parametrize("name", NOISES)
def test_the_slope_of_a_noise_law_is_that_of_its_mean(name):
    noise = {**NOISES, "error map": ErrorMap(batch_numbers(0.5, 2.0).expand(2, 1, 3, 4))}[name]
    clean = 6 * rand(2, 1, 3, 4) - 1
    clean[0, 0, 0, 0] = 0  # a dark pixel
    _, slope = torch.func.jvp(noise.expected, (clean,), (torch.ones_like(clean),))
    torch.testing.assert_close(noise.slope(clean), slope)


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
    return t * camera.render(source, DeflectionField.from_lens(SIS(1.2814905676), camera.grid, like=LIKE))


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
    # the faintest of four corners of 225 pixels, each mean with a scatter of 10 %, and the wings of the arc in some
    assert float(ratio.median()) == pytest.approx(1, abs=0.1)
    assert bool(((ratio > 0.7) & (ratio < 1.4)).all())
    ratio = first.updated(image, clean, torch.ones_like(image)).background_rms / b
    # 100 to 1000 faint pixels, each with a scatter of 1.5 times its mean: 5 to 15 % a standard error
    assert float(ratio.median()) == pytest.approx(1, abs=0.05)
    assert bool(((ratio > 0.75) & (ratio < 1.25)).all())


def photon_noise(t: float, unit: float, generator: torch.Generator) -> Tensor:
    """Estimated over true photon noise of each image."""
    clean, image, _ = counts(t, unit, generator)
    return RectifiedCountNoise.from_image(image).updated(image, clean, torch.ones_like(image)).shot / (2 * unit)


@pytest.mark.parametrize("unit", [1.0, 0.01])
def test_the_photon_noise_is_estimated_from_the_image(unit, generator):
    found = photon_noise(10**3.0, unit, generator)
    # 24 images of a few hundred bright pixels each: 4 % a standard error of the median
    assert float(found.median()) == pytest.approx(1, abs=0.12)
    assert float(((found > 0.6) & (found < 1.5)).double().mean()) > 0.9


@pytest.mark.parametrize("t", [10**3.0, 10**3.5])
def test_the_photon_noise_is_estimated_from_every_image(t, generator):
    assert bool((photon_noise(t, 1.0, generator) > 0.3).all())


def test_an_update_without_faint_or_bright_pixels_keeps_the_first_guess():
    first = RectifiedCountNoise(batch_numbers(3.0, 1.0), batch_numbers(2.0, 2.0))
    clean = torch.full((2, 1, 12, 13), 0.7) * batch_numbers(3.0, 1.0)  # neither below 0.1 nor above 2 background rms
    found = first.updated(clean, clean, torch.ones_like(clean))
    assert torch.equal(found.background_rms, first.background_rms)
    assert torch.equal(found.shot, first.shot)


def test_white_noise_is_estimated_from_the_image(generator):
    clean = arc(1.0, batch=2)
    sigma = batch_numbers(0.002, 0.005)
    found = SkyNoise.from_image(ErrorMap(sigma.expand_as(clean)).sample(clean, generator))
    # the MAD of N / 2 = 2800 pixels that share neighbours: 2.5 % a standard error
    torch.testing.assert_close(found.sigma, sigma, rtol=0.1, atol=0)


def test_noise_that_neighbours_share_is_measured_in_the_sky(generator):
    clean = arc(1.0, batch=2)
    white = torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
    shared = torch.from_numpy(gaussian_filter(white.numpy(), (0, 0, 0.8, 0.8), mode="wrap"))
    image = clean + 0.004 * shared / shared.std()
    image[..., :10] = 0.0  # masked
    weight = (torch.arange(clean.shape[-1]) >= 10).to(clean).expand_as(clean)
    first = SkyNoise.from_image(image)
    assert float(first.sigma.max()) < 0.0025  # neighbours look alike: half of the truth
    found = first.updated(image, clean, weight)
    assert found.sigma.flatten().tolist() == pytest.approx([0.004] * 2, rel=0.08)
    assert torch.equal(first.updated(image, clean + 1, weight).sigma, first.sigma)  # no sky: as before


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
    with pytest.raises(LensphysError, match=r"background_rms must be positive and finite, got -0\.5"):
        ExposureNoise(batch_numbers(1.0, -0.5), 10.0)
    with pytest.raises(LensphysError, match="exposure_time must be positive and finite, got inf"):
        ExposureNoise(1.0, batch_numbers(1.0, float("inf")))
    with pytest.raises(LensphysError, match=r"exposure_time must be a number or have the shape .*, got \(2,\)"):
        ExposureNoise(1.0, torch.tensor([1.0, 2.0]))
    with pytest.raises(LensphysError, match=r"image must have the shape \(B, 1, H, W\)"):
        RectifiedCountNoise.from_image(torch.ones(8, 9))
    with pytest.raises(LensphysError, match="an image is zero everywhere: its noise cannot be estimated"):
        RectifiedCountNoise.from_image(torch.stack([torch.ones(1, 8, 9), torch.zeros(1, 8, 9)]))
    with pytest.raises(LensphysError, match="image without scatter: give --error or --instrument"):
        SkyNoise.from_image(torch.ones(2, 1, 8, 9))


def test_rows_of_each_noise_law(generator):
    index, clean = torch.tensor([1, 0, 1]), 1 + rand(2, 1, 300, 310)
    for name, noise in NOISES.items():
        found = noise.rows(index)
        assert torch.equal(found.variance(clean[index]), noise.variance(clean)[index]), name
        assert torch.equal(found.expected(clean[index]), noise.expected(clean)[index]), name
    assert NOISES["exposure"].rows(index) is NOISES["exposure"]
    one = ErrorMap(torch.ones(1, 1, 3, 4))
    assert torch.equal(one.rows(index).sigma, one.sigma)


def test_a_noise_law_moves_with_its_tensors():
    for name, noise in NOISES.items():
        tensors = [x for x in vars(noise.to("meta")).values() if isinstance(x, Tensor)]
        assert all(x.is_meta for x in tensors), name
        assert bool(tensors) == (name != "exposure")
        assert not any(x.is_meta for x in vars(noise).values() if isinstance(x, Tensor)), name


@pytest.mark.parametrize("name", NOISES)
def test_chi2_of_the_true_image_is_the_number_of_pixels(name, generator):
    noise, clean = NOISES[name], 20 * rand(2, 1, 300, 310) + 5
    taken = Observation(noise.sample(clean, generator), Camera(PixelGrid(300, 310, 0.1)), noise)
    # five standard errors sqrt(2 / N) of a reduced chi^2 of Gaussian pixels (Poisson ones are a little wider)
    assert taken.chi2(clean) / taken.n_unmasked == pytest.approx([1, 1], abs=6 * math.sqrt(2 / 93_000))
