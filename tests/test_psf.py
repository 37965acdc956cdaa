"""PSFs: scipy as the oracle, flux, width, gradients and messages."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from lenstronomy.Util.kernel_util import degrade_kernel, kernel_moffat
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve
from torch import Tensor
from torch.nn.functional import avg_pool2d

from lensphys.basics.checks import LensphysError
from lensphys.observation import (
    Camera,
    GaussianPSF,
    MoffatPSF,
    NoPSF,
    PixelPSF,
    UnknownPSF,
)
from lensphys.observation.psf import _resampling
from lensphys.tracing.grid import PixelGrid

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


@pytest.mark.parametrize("points", [1, 3])
def test_a_large_image_is_blurred_in_blocks(points, monkeypatch):
    image, psf = rand(2, 1, 75, 123), GaussianPSF(torch.tensor([0.2, 0.35]))
    whole, summed = psf.blur(image, 0.07), psf.summed(image, 0.07, points)
    monkeypatch.setattr("lensphys.observation.psf._LARGEST_MATRIX", 20)
    torch.testing.assert_close(psf.blur(image, 0.07), whole, rtol=0, atol=1e-14)
    torch.testing.assert_close(psf.summed(image, 0.07, points), summed, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("shape", "points"), [((30, 42), 1), ((30, 42), 2), ((30, 42), 3), ((35, 25), 5), ((28, 36), 4)]
)
def test_a_kernel_blurs_and_sums_at_once(shape, points):
    kernel = rand(7, 7)
    psf, image = PixelPSF(kernel / kernel.sum(), 0.05), rand(2, 1, *shape)
    for scale in (0.05, 0.03):
        expected = avg_pool2d(psf.blur(image, scale), points) * points**2
        torch.testing.assert_close(psf.summed(image, scale, points), expected, rtol=0, atol=1e-13)


def test_a_kernel_remembers_a_few_sizes_and_forgets_the_others():
    kernel = rand(7, 7)
    psf = PixelPSF(kernel / kernel.sum(), 0.05)
    for side in (*range(8, 60), 8):
        image = rand(1, 1, side, side)
        torch.testing.assert_close(psf.summed(image, 0.05, 1), psf.blur(image, 0.05), rtol=0, atol=1e-13)
    assert len(psf._known) <= 16


def test_a_psf_of_another_kind_says_what_it_is():
    @dataclass(frozen=True)
    class TopHatPSF(NoPSF):
        @property
        def words(self) -> str:
            return "top hat"

    kernel = torch.full((3, 3), 1 / 9)
    assert [psf.words for psf in (NoPSF(), UnknownPSF(), TopHatPSF())] == ["none", "unknown", "top hat"]
    assert GaussianPSF(torch.tensor([0.16, 0.2])).words == 'Gaussian of FWHM 0.2"'
    assert MoffatPSF(0.5, 3.0).words == 'Moffat of FWHM 0.5"'
    assert PixelPSF(kernel, 0.05).words == 'kernel, 0.15" along a side'


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


@pytest.mark.parametrize(
    "psf", [NoPSF(), GaussianPSF(0.16), MoffatPSF(0.1, 4.765), PixelPSF(kernel(9), 0.07), PixelPSF(kernel(21), 0.07)]
)
def test_every_psf_keeps_the_flux_of_an_inner_source_and_is_linear(psf):
    image = inner_source(38, 45, 12)
    found = psf.blur(image, 0.07)
    assert found.shape == image.shape
    torch.testing.assert_close(found.sum((1, 2, 3)), image.sum((1, 2, 3)))
    other = rand(2, 1, 38, 45)
    torch.testing.assert_close(psf.blur(2 * image - other, 0.07), 2 * found - psf.blur(other, 0.07))
    assert psf.blur(image.float(), 0.07).dtype == torch.float32


@pytest.mark.parametrize(
    "psf", [GaussianPSF(0.1), MoffatPSF(0.1, 3.0), PixelPSF(kernel(3), 0.07), PixelPSF(kernel(17), 0.07)]
)
def test_gradcheck_of_every_psf(psf):
    assert torch.autograd.gradcheck(lambda x: psf.blur(x, 0.07), (rand(2, 1, 3, 4).requires_grad_(),))


def test_gradcheck_in_the_width():
    image, fwhm = rand(2, 1, 4, 5), torch.tensor([0.16, 0.2], requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: GaussianPSF(w).blur(image, 0.15), (fwhm,))


def moments(kernel: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Centroid and variance along x and y [arcsec]."""
    x = (torch.arange(len(kernel)) - len(kernel) // 2) * scale
    profiles = torch.stack([kernel.sum(0), kernel.sum(1)])
    centre = (profiles * x).sum(1)
    return centre, (profiles * x**2).sum(1) - centre**2


FACTORS = [1 / 3, 0.4, 1 / 2, 0.8, 1.01, 1.2, 1.6, 2.0, 2.7]


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("fwhm", [0.2, 0.3])
def test_a_resampled_kernel_keeps_sum_centre_and_width(factor, fwhm):
    sigma, scale = fwhm / FWHM_PER_SIGMA, 0.05 * factor
    x = (torch.arange(41) - 20) * 0.05
    k = torch.exp(-0.5 * ((x[:, None] + 0.013) ** 2 + (x - 0.021) ** 2) / sigma**2)
    found = PixelPSF(k / k.sum(), 0.05).at(scale)
    assert found.shape[0] == found.shape[1]
    assert len(found) % 2 == 1
    assert float(found.sum()) == pytest.approx(1, abs=1e-12)
    centre, variance = moments(found, scale)
    # on 2.7 times the pixel, 0.6 of them a sigma, binning itself moves the centroid by 0.03 mas
    assert centre.tolist() == pytest.approx([0.021, -0.013], abs=1e-4)
    # the pixel of the kernel is in it: coarser ones bring the difference, finer ones take it away
    expected = sigma**2 + (scale**2 - 0.05**2) / 12
    assert variance.sqrt().tolist() == pytest.approx([math.sqrt(expected)] * 2, rel=3e-3)


@pytest.mark.parametrize("factor", [1 / 3, 1 / 2])
def test_a_kernel_on_finer_pixels_is_the_light_without_its_pixel(factor):
    def star(scale: float, size: int) -> Tensor:  # a Gaussian integrated over pixels
        edges = (torch.arange(size + 1) - size / 2) * scale
        profile = torch.erf(edges / (0.085 * math.sqrt(2))).diff()
        return torch.outer(profile, profile) / profile.sum() ** 2

    found = PixelPSF(star(0.05, 41), 0.05).at(0.05 * factor)
    expected = star(0.05 * factor, len(found))
    assert float((found - expected).abs().max() / expected.max()) < 6e-3


@pytest.mark.parametrize("points", [2, 3])
@pytest.mark.parametrize("shift", [0, 1])
def test_a_star_looks_as_its_kernel_says_wherever_it_stands(points, shift):
    """The pixel is integrated once: by the kernel, not by the camera again."""

    def star(at_y: float, at_x: float) -> Tensor:  # a Gaussian integrated over pixels of 0.1
        edges = (torch.arange(22) - 10.5) * 0.1
        y, x = (torch.erf((edges - at) / (0.085 * math.sqrt(2))).diff() / 2 for at in (at_y, at_x))
        return torch.outer(y, x)

    camera = Camera(PixelGrid(21, 21, 0.1), PixelPSF(star(0, 0), 0.1), supersampling=points)
    flux = torch.zeros(1, 1, 21 * points, 21 * points)
    row = 21 * points // 2
    flux[0, 0, row, row + shift] = 1.0
    at_y, at_x = ((i - (21 * points - 1) / 2) * 0.1 / points for i in (row, row + shift))
    expected = star(at_y, at_x)
    # integrated twice, the peak is 12 to 17 % too low
    assert float((camera.expose(flux)[0, 0] - expected).abs().max() / expected.max()) < 0.02


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_a_kernel_on_coarser_pixels_is_lenstronomys(factor):
    x = (torch.arange(61) - 30) * 0.05
    k = torch.exp(-0.5 * (x[:, None] ** 2 + x**2) / 0.2**2)
    k = k / k.sum()
    found = PixelPSF(k, 0.05).at(0.05 * factor).numpy()
    theirs = degrade_kernel(k.numpy(), factor)
    theirs = theirs / theirs.sum()
    n = (max(len(found), len(theirs)) - np.array([len(found), len(theirs)])) // 2
    difference = np.pad(found, n[0]) - np.pad(theirs, n[1])
    # a factor that is odd adds up whole pixels, both ways; of a pixel on the edge of two they give a half to each
    assert np.abs(difference).max() < (1e-12 if factor % 2 else 0.02) * found.max()
    variance = moments(torch.from_numpy(found), 0.05 * factor)[1]
    assert variance.tolist() == pytest.approx([0.2**2 + (factor**2 - 1) * 0.05**2 / 12] * 2, rel=1e-3)


def test_resampling_is_differentiable_in_the_kernel():
    k = kernel(5).requires_grad_(True)
    for scale in (0.03, 0.08):
        assert torch.autograd.gradcheck(lambda x, s=scale: PixelPSF(x / x.sum(), 0.05).at(s), (k,))


def test_rebinning_loses_no_light_wherever_the_kernel_stands():
    for row in range(2, 9):
        k = torch.zeros(11, 11)
        k[row, 5] = 1.0
        weight = _resampling(11, 2.3)
        assert float((weight @ k @ weight.T).sum()) == pytest.approx(1, abs=1e-12)


def test_a_kernel_of_one_pixel_is_one_at_any_scale():
    for scale in (0.02, 0.05, 0.2):
        assert PixelPSF(torch.ones(1, 1), 0.05).at(scale).sum() == 1
    assert PixelPSF(kernel(3), 0.05).at(0.02).shape == (9, 9)


# ---------------------------------------------------------------- Moffat


@pytest.mark.parametrize("beta", [2.0, 2.5, 4.765])
@pytest.mark.parametrize("fwhm", [0.3, 0.7])
def test_a_moffat_kernel_is_lenstronomys(fwhm, beta):
    k = MoffatPSF(fwhm, beta).kernel(0.2, like=LIKE)[0, 0].numpy()
    np.testing.assert_allclose(k, kernel_moffat(len(k), 0.2, fwhm, beta), rtol=1e-10, atol=0)
    assert len(k) % 2 == 1


@pytest.mark.parametrize("beta", [2.0, 2.5, 4.765])
@pytest.mark.parametrize("lost", [1e-3, 1e-2])
def test_a_moffat_kernel_holds_its_light_and_has_its_width(beta, lost):
    scale, fwhm = 0.05, 0.6
    k = MoffatPSF(fwhm, beta, lost).kernel(scale, like=LIKE)[0, 0]
    a = fwhm / 2 / math.sqrt(2 ** (1 / beta) - 1)
    # the central pixel of the untruncated profile over that of the kernel is the light inside
    inside = float((beta - 1) / math.pi / a**2 * scale**2 / k.max())
    assert 1 - 1.1 * lost < inside < 1 - 0.2 * lost
    row = k[len(k) // 2] / k.max()
    assert float(row[len(k) // 2 + 6]) == pytest.approx(0.5, abs=1e-12)  # 6 pixels are half of the FWHM


def test_a_moffat_psf_of_large_beta_is_a_gaussian():
    image = inner_source(45, 60, 15)
    found, expected = MoffatPSF(0.3, 1e4).blur(image, 0.1), GaussianPSF(0.3).blur(image, 0.1)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("fwhm", [0.12, 0.7])
def test_a_moffat_blur_is_scipys_convolution(fwhm):
    image, psf = rand(2, 1, 33, 40), MoffatPSF(fwhm, 3.0)
    k, found = psf.kernel(0.2, like=image)[0, 0].numpy(), psf.blur(image, 0.2)
    for row in (0, 1):
        expected = fftconvolve(image[row, 0].numpy(), k, mode="full")
        half = len(k) // 2
        expected = expected[half : half + 33, half : half + 40]
        np.testing.assert_allclose(found[row, 0].numpy(), expected, rtol=0, atol=1e-13)


def test_each_image_may_have_its_own_moffat_width():
    image, psf = rand(2, 1, 17, 29), MoffatPSF(torch.tensor([0.2, 0.35]), 3.0)
    found = psf.blur(image, 0.07)
    for row, fwhm in enumerate((0.2, 0.35)):
        alone = MoffatPSF(fwhm, 3.0).blur(image[row : row + 1], 0.07)
        torch.testing.assert_close(found[row : row + 1], alone, rtol=0, atol=1e-13)
        part = psf.rows(torch.tensor([row]))
        assert part.extent == fwhm
        torch.testing.assert_close(part.blur(image[row : row + 1], 0.07), alone, rtol=0, atol=1e-13)
    assert psf.to("meta").fwhm.is_meta
    assert MoffatPSF(0.001, 3.0).blur(image, 0.1) is image


def test_gradcheck_in_the_moffat_width():
    image, fwhm = rand(2, 1, 4, 5), torch.tensor([0.16, 0.2], requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: MoffatPSF(w, 3.0).blur(image, 0.15), (fwhm,))


def test_the_size_of_each_psf_on_the_sky():
    assert NoPSF().extent == 0
    assert GaussianPSF(0.2).extent == MoffatPSF(0.2, 3.0).extent == 0.2
    widths = torch.tensor([0.2, 0.35])
    assert GaussianPSF(widths).extent == MoffatPSF(widths, 3.0).extent == 0.35
    assert GaussianPSF(widths).rows(torch.tensor([0])).extent == 0.2
    assert PixelPSF(kernel(5), 0.07).extent == pytest.approx(0.35)


@pytest.mark.parametrize("beta", [1.0, 1.9, float("nan"), float("inf")])
def test_a_faulty_beta(beta):
    with pytest.raises(LensphysError, match="beta of a Moffat PSF must be 2 or more and finite, got"):
        MoffatPSF(0.3, beta)


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
    with pytest.raises(LensphysError, match="PSF FWHM must be positive and finite, got nan"):
        MoffatPSF(float("nan"), 3.0)
    with pytest.raises(LensphysError, match=r"PSF FWHM must be positive and finite, got -0\.1"):
        MoffatPSF(torch.tensor([0.2, -0.1]), 3.0)
    with pytest.raises(LensphysError, match=r"PSF FWHM must be positive and finite, got -0\.1"):
        GaussianPSF(torch.tensor([0.2, -0.1]))
    with pytest.raises(LensphysError, match="PSF FWHM must be positive and finite, got inf"):
        GaussianPSF(torch.tensor([0.2, float("inf")]))
