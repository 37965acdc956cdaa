"""PSFs: scipy as the oracle, flux, width, gradients and messages."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve
from torch import Tensor

from lensphys.checks import LensphysError
from lensphys.observation import (
    GaussianPSF,
    NoPSF,
    PixelPSF,
)

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
        # each kernel ends at its own radius, though both stand in an array of the wider one's
        torch.testing.assert_close(found[row : row + 1], alone, rtol=0, atol=1e-14)


def test_rows_of_each_psf_and_its_device():
    image, index = rand(2, 1, 17, 29), torch.tensor([1, 1, 0])
    for psf in (NoPSF(), GaussianPSF(0.2), GaussianPSF(torch.tensor([0.2, 0.35])), PixelPSF(kernel(5), 0.07)):
        found = psf.rows(index).blur(image[index], 0.07)
        torch.testing.assert_close(found, psf.blur(image, 0.07)[index], rtol=0, atol=1e-14)
    narrow = GaussianPSF(torch.tensor([0.2, 0.35])).rows(torch.tensor([0]))
    torch.testing.assert_close(narrow.blur(image, 0.07), GaussianPSF(0.2).blur(image, 0.07), rtol=0, atol=1e-14)
    assert GaussianPSF(0.2).rows(index) == GaussianPSF(0.2).to("meta") == GaussianPSF(0.2)
    assert GaussianPSF(torch.tensor([0.2, 0.35])).to("meta").fwhm.is_meta
    assert PixelPSF(kernel(5), 0.07).to("meta").kernel.is_meta


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
    with pytest.raises(LensphysError, match="PSF FWHM must be positive and finite, got inf"):
        GaussianPSF(torch.tensor([0.2, float("inf")]))
