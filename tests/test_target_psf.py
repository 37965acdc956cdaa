"""The target PSF, from the camera to the command line; and kernels finer than the camera's pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits
from lenses import small_lenses
from typer.testing import CliRunner

from lensphys.basics.checks import LensphysError
from lensphys.cli import app
from lensphys.data.images import Reading, read_images, with_target_psf
from lensphys.methods import READY, PerImageFit, SupervisedSettings
from lensphys.methods.diffusion import DiffusionSettings
from lensphys.model import SIE, Sersic
from lensphys.networks import network_settings
from lensphys.observation import Camera, GaussianPSF, NoPSF, PixelPSF, block_sum
from lensphys.observation.matching import matching_kernel
from lensphys.observation.psf import convolved
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid

WIDE, SHARP = GaussianPSF(0.3), GaussianPSF(0.1)


def gaussian(fwhm: float, scale: float, size: int) -> PixelPSF:
    star = torch.zeros(1, 1, size, size, dtype=torch.float64)
    star[..., size // 2, size // 2] = 1
    kernel = GaussianPSF(fwhm).blur(star, scale)[0, 0]
    return PixelPSF(kernel / kernel.sum(), scale)


# ---------------------------------------------------------------- the camera


@pytest.mark.parametrize("factor", [0.5, 1, 2, 4])
def test_at_has_the_target_psf_and_without_one_the_own(factor):
    camera = Camera(PixelGrid(24, 30, 0.12), WIDE, supersampling=4)
    assert camera.at(factor).psf is WIDE
    target = replace(camera, target_psf=SHARP)
    assert target.psf is WIDE and target.at(factor).psf is SHARP
    assert target.at(factor).grid == camera.at(factor).grid
    assert target.at(factor).supersampling == camera.at(factor).supersampling
    assert target.at(factor).at(1) == target.at(factor)


def test_no_blur_at_all_can_be_the_target():
    assert Camera(PixelGrid(4, 6, 0.1), WIDE, target_psf=NoPSF()).at(2).psf == NoPSF()


def test_the_fit_renders_with_the_target_psf_and_is_judged_with_the_own():
    lenses = small_lenses(1, height=24, width=26)
    observation = lenses.observation
    target = replace(observation, camera=replace(observation.camera, target_psf=NoPSF()))
    method = PerImageFit(starts=2, steps=30)
    own, found = method.predict(observation, 2), method.predict(target, 2)
    torch.testing.assert_close(found.observed, own.observed)
    blurred = observation.camera.psf.blur(found.image, found.camera.grid.scale)
    torch.testing.assert_close(blurred, own.image, rtol=1e-4, atol=1e-5)
    assert float((found.image - own.image).abs().max()) > 0.05 * float(own.image.max())


# ---------------------------------------------------------------- the order of blur and sum


def arc(grid: PixelGrid) -> torch.Tensor:
    like = torch.zeros(2, dtype=torch.float64)
    field = DeflectionField.from_lens(SIE(1.0, 0.1, -0.05, 0.03, -0.02), grid, like=like)
    return Sersic(5.0, 0.08, 1.0, 0.1, 0.2, 0.07, -0.04)(field.beta).expand(2, 1, -1, -1) * grid.pixel_area


def test_a_fine_kernel_blurs_before_the_sum():
    grid = PixelGrid(18, 22, 0.2)
    psf = gaussian(0.5, 0.05, 61)
    flux = arc(grid.resampled(4))
    truth = block_sum(psf.blur(flux, 0.05), grid)
    torch.testing.assert_close(Camera(grid, psf, supersampling=4).expose(flux), truth)
    # by which the other order is wrong, in the noise of S/N 50: why there is an order at all
    late = psf.blur(block_sum(flux, grid), 0.2)
    assert float((late - truth).abs().max() / truth.max()) > 0.5 / 50


def test_render_with_a_fine_kernel_is_expose_of_the_fine_light():
    grid = PixelGrid(18, 22, 0.2)
    camera = Camera(grid, gaussian(0.5, 0.05, 61), supersampling=4)
    field = DeflectionField.from_lens(
        SIE(1.0, 0.1, -0.05, 0.03, -0.02), grid.resampled(4), like=torch.zeros(2).double()
    )
    light = Sersic(5.0, 0.08, 1.0, 0.1, 0.2, 0.07, -0.04)
    torch.testing.assert_close(camera.render(light, field).expand(2, -1, -1, -1), camera.expose(arc(grid.resampled(4))))


def test_a_fine_kernel_keeps_the_flux_and_its_gradient():
    camera = Camera(PixelGrid(18, 22, 0.2), gaussian(0.3, 0.05, 41), supersampling=4)
    flux = torch.zeros(1, 1, 72, 88, dtype=torch.float64)
    flux[..., 30:40, 41:47] = 1.0
    assert float(camera.expose(flux).sum()) == pytest.approx(60.0, rel=1e-10)
    small = replace(camera, grid=PixelGrid(3, 4, 0.2))
    x = torch.rand(1, 1, 12, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(small.expose, x)


def test_a_map_that_does_not_divide_is_refused_with_a_fine_kernel_too():
    camera = Camera(PixelGrid(4, 6, 0.2), gaussian(0.3, 0.05, 9))
    with pytest.raises(LensphysError, match="does not divide into 4 x 6 pixels"):
        camera.expose(torch.zeros(1, 1, 9, 12))


# ---------------------------------------------------------------- the file


@pytest.fixture
def stack(tmp_path) -> Path:
    images = np.random.default_rng(0).normal(0, 0.1, (2, 12, 16)).astype("f4")
    images[:, 5:8, 5:8] += 3
    np.save(tmp_path / "a.npy", images)
    return tmp_path / "a.npy"


def kernel(size: int = 5, total: float = 1.0) -> np.ndarray:
    return np.full((size, size), total / size**2, np.float32)


def test_a_target_psf_is_on_the_super_resolved_pixels_unless_its_header_says_otherwise(stack, tmp_path):
    images = read_images(stack, Reading(pixel_scale=0.2))
    np.save(tmp_path / "psf.npy", kernel())
    sharp = with_target_psf(images, tmp_path / "psf.npy", 4).observation.camera.target_psf
    assert isinstance(sharp, PixelPSF) and sharp.scale == pytest.approx(0.05) and sharp.kernel.shape == (5, 5)
    for name, header, scale in (("a", {}, 0.1), ("b", {"PIXSCALE": 0.025}, 0.025)):
        hdus = [fits.PrimaryHDU(), fits.ImageHDU(kernel(7), fits.Header(header), name="PSF")]
        fits.HDUList(hdus).writeto(tmp_path / f"{name}.fits")
        found = with_target_psf(images, tmp_path / f"{name}.fits", 2)
        assert found.observation.camera.target_psf.scale == pytest.approx(scale)
        assert found.observation.camera.psf == images.observation.camera.psf
        told = f'target PSF: {name}.fits[PSF], FWHM {6.576 * scale:.2g}", 7 x 7 pixels of {scale:g}"'
        assert found.remarks[:-1] == images.remarks and found.remarks[-1].startswith(told)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (kernel(5, 0.3), "divide it by its sum"),
        (kernel()[:3], "must be square"),
        (np.full((3, 3), np.nan, "f4"), "holds NaN or infinite"),
    ],
    ids=["sum", "oblong", "nan"],
)
def test_bad_target_psfs(stack, tmp_path, array, message):
    np.save(tmp_path / "psf.npy", array)
    with pytest.raises(LensphysError, match=message):
        with_target_psf(read_images(stack, Reading(pixel_scale=0.2)), tmp_path / "psf.npy", 2)


@pytest.mark.parametrize("name", ["missing.npy", "missing.fits", "psf.txt"])
def test_target_psf_files_that_cannot_be_read(stack, tmp_path, name):
    (tmp_path / "psf.txt").write_text("1")
    with pytest.raises(LensphysError, match="target PSF file"):
        with_target_psf(read_images(stack, Reading(pixel_scale=0.2)), tmp_path / name, 2)


# ---------------------------------------------------------------- the command line


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    return done.exit_code, done.output


def test_super_resolve_takes_a_target_psf(stack, tmp_path):
    np.save(tmp_path / "wide.npy", gaussian(0.4, 0.2, 9).kernel.numpy().astype("f4"))
    np.save(tmp_path / "sharp.npy", gaussian(0.15, 0.1, 9).kernel.numpy().astype("f4"))
    common = [stack, "--pixel-scale", 0.2, "--psf", tmp_path / "wide.npy", "--method", "richardson_lucy"]
    peaks = []
    for name, options in (("own", []), ("sharp", ["--target-psf", tmp_path / "sharp.npy"])):
        code, output = run("super-resolve", *common, "-o", tmp_path / f"{name}.npz", *options)
        assert code == 0, output
        with np.load(tmp_path / f"{name}.npz") as found:
            peaks.append(float(found["image"].max()))
            assert ("sharp.npy" in str(found["provenance"])) == bool(options)
    assert peaks[1] > peaks[0]  # without a target the image keeps its own, wider one


def test_a_bad_target_psf_is_one_sentence(stack, tmp_path):
    np.save(tmp_path / "psf.npy", kernel(4, 0.3))
    options = ["--pixel-scale", 0.2, "--method", "bicubic", "--target-psf", tmp_path / "psf.npy"]
    code, output = run("super-resolve", stack, "-o", tmp_path / "a.npz", *options)
    assert code == 2 and "divide it by its sum" in output and not (tmp_path / "a.npz").exists()


def test_richardson_lucy_is_listed():
    code, output = run("list", "methods")
    assert code == 0 and "richardson_lucy" in output


# ---------------------------------------------------------------- images on another PSF, observed again


@pytest.mark.parametrize(("sharp", "wide"), [(0.1, 0.3), (0.16, 0.25)])
def test_the_matching_kernel_turns_one_psf_into_the_other(sharp, wide):
    scale = 0.05
    point = torch.zeros(1, 1, 61, 61, dtype=torch.float64)
    point[..., 30, 30] = 1
    kernel = matching_kernel(GaussianPSF(sharp), GaussianPSF(wide), scale, size=41, like=point)
    found = convolved(GaussianPSF(sharp).blur(point, scale), kernel)
    expected = GaussianPSF(wide).blur(point, scale)
    assert float(kernel.sum()) == pytest.approx(1)
    assert float((found - expected).abs().max()) < 2e-3 * float(expected.max())


def test_a_super_resolved_image_can_be_observed_again():
    """Through its own PSF and pixels, and from the sharper PSF of another telescope; light is kept."""
    grid = PixelGrid(24, 30, 0.1)
    camera = Camera(grid, GaussianPSF(0.25))
    light = torch.zeros(1, 1, 48, 60, dtype=torch.float64)
    light[..., 20, 31] = 2.0
    light[..., 26, 24] = 1.0
    own = GaussianPSF(0.25).blur(light, 0.05)
    torch.testing.assert_close(camera.reobserved(own), block_sum(own, grid))
    sharpened = replace(camera, target_psf=GaussianPSF(0.1))
    found = sharpened.reobserved(GaussianPSF(0.1).blur(light, 0.05))
    assert float((found - block_sum(own, grid)).abs().max()) < 5e-3 * float(found.max())
    assert float(found.sum()) == pytest.approx(3.0, rel=1e-3)


@pytest.mark.parametrize("name", ["nearest", "bicubic", "supervised", "diffusion"])
def test_chi2_of_any_image_is_that_of_the_image_observed_again(name):
    lenses = small_lenses()
    taken = lenses.observation.with_target_psf(GaussianPSF(0.06))
    torch.manual_seed(0)
    if name == "supervised":
        network = network_settings("srresnet")(channels=4, blocks=1)
        method = SupervisedSettings(name="supervised", network=network).build().eval()
    elif name == "diffusion":
        method = DiffusionSettings(name="diffusion", channels=(8, 8), ddim_steps=1, samples=2).build().eval()
    else:
        method = READY[name]
    with torch.no_grad():
        found = method.predict(taken, 2)
    torch.testing.assert_close(found.observed, taken.camera.reobserved(found.image))
    assert found.camera.psf.fwhm == 0.06


def test_kernels_of_an_even_size_have_no_centre():
    with pytest.raises(LensphysError, match="must be odd"):
        matching_kernel(GaussianPSF(0.1), GaussianPSF(0.2), 0.05, size=40, like=torch.zeros(1))
