"""Sersic fits: each finds a source that is known, and its derivatives are those of finite differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from lenses import Lenses, finite, one_thread, relative, small_lenses  # noqa: F401
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.fitting import (
    joint_through_lens,
    sersic_brightest_pixel,
    sersic_least_squares,
    sersic_moments,
    sersic_through_lens,
)
from lensphys.model import SIS, Sersic, Shear
from lensphys.observation import ErrorMap, Observation
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid

GRID = PixelGrid(44, 48, 0.05)
NAMES = ("amp", "R_sersic", "n_sersic", "e1", "e2", "center_x", "center_y")


def pair(a: float, b: float) -> Tensor:
    return torch.tensor([a, b], dtype=torch.float64)


KNOWN = Sersic(
    pair(3.0, 0.2),
    pair(0.25, 0.3),
    pair(1.0, 1.0),
    pair(0.1, -0.15),
    pair(-0.2, 0.05),
    pair(0.13, -0.21),
    pair(-0.3, 0.1),
)
STEEP = replace(KNOWN, n_sersic=pair(0.7, 1.6))


def image_of(source: Sersic) -> Tensor:
    return source(GRID.positions(like=KNOWN.amp))


def off(found: Sersic, known: Sersic, name: str) -> float:
    return float((torch.as_tensor(getattr(found, name)) - torch.as_tensor(getattr(known, name))).detach().abs().max())


def check_all_parameters(found: Sersic, known: Sersic) -> None:
    """1 %, or 0.01 and 0.002" where zero is an ordinary value."""
    for name in NAMES[:3]:
        assert relative(getattr(found, name).detach(), getattr(known, name)) < 0.01, name
    for name in NAMES[3:]:
        assert off(found, known, name) < (0.01 if name.startswith("e") else 0.002), name


# ---------------------------------------------------------------- from a source image


def test_the_brightest_pixel_gives_centre_and_brightness():
    found = sersic_brightest_pixel(image_of(KNOWN), GRID)
    assert max(off(found, KNOWN, "center_x"), off(found, KNOWN, "center_y")) <= 0.5 * GRID.scale + 1e-9
    at_peak = torch.stack([found.center_x, found.center_y], dim=1)[:, :, None, None]
    # 1 %: the profile is smoothed over 1e-5 arcsec at its very centre
    assert relative(found(at_peak).flatten(), image_of(KNOWN).flatten(1).amax(1)) < 0.01
    assert (found.R_sersic, found.n_sersic, found.e1, found.e2) == (0.25, 1.0, 0.0, 0.0)


def test_moments_give_centre_size_and_shape():
    found = sersic_moments(image_of(KNOWN), GRID)
    assert max(off(found, KNOWN, "center_x"), off(found, KNOWN, "center_y")) < 0.02
    assert relative(found.R_sersic, KNOWN.R_sersic) < 0.2
    assert max(off(found, KNOWN, "e1"), off(found, KNOWN, "e2")) < 0.05
    shape = found(GRID.positions(like=KNOWN.amp))
    assert relative((shape * image_of(KNOWN)).sum((1, 2, 3)), shape.square().sum((1, 2, 3))) < 1e-6


def test_least_squares_give_all_seven_parameters():
    with torch.no_grad():
        check_all_parameters(sersic_least_squares(image_of(STEEP), GRID), STEEP)


@pytest.mark.parametrize("fit", [sersic_brightest_pixel, sersic_moments, sersic_least_squares])
def test_fits_do_not_depend_on_the_unit(fit):
    with torch.no_grad():
        found, large = fit(image_of(KNOWN), GRID), fit(1e4 * image_of(KNOWN), GRID)
    assert relative(large.amp, 1e4 * found.amp) < 1e-6
    for name in NAMES[1:]:
        assert off(large, found, name) < 1e-6, name


@pytest.mark.parametrize("fit", [sersic_brightest_pixel, sersic_moments, sersic_least_squares])
def test_a_source_image_that_is_not_on_the_grid_is_refused(fit):
    with pytest.raises(LensphysError, match=r"source image and source grid .* got \(48, 44\) and \(44, 48\)"):
        fit(torch.zeros(1, 1, 48, 44), GRID)
    with pytest.raises(LensphysError, match=r"source image must have the shape \(B, 1, H, W\), got \(1, 2, 44, 48\)"):
        fit(torch.zeros(1, 2, 44, 48), GRID)


@pytest.mark.parametrize("fit", [sersic_brightest_pixel, sersic_moments, sersic_least_squares])
def test_a_dark_source_plane_gives_finite_values_and_gradients(fit):
    dark = torch.zeros(1, 1, *GRID.shape, dtype=torch.float64, requires_grad=True)
    found = fit(dark, GRID)
    total = sum(torch.as_tensor(getattr(found, name)).sum() for name in NAMES)
    assert finite(total)
    (slope,) = torch.autograd.grad(total, dark)
    assert finite(slope)


# ---------------------------------------------------------------- derivatives


def check_derivatives(fit: Callable[[Tensor], Sersic], x: Tensor, names: tuple[str, ...], tolerance: float) -> None:
    """Compare the derivative of each parameter along a random direction with central differences."""
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype) * x.detach().std()
    x, step = x.detach().requires_grad_(), 1e-4
    found, above, below = fit(x), fit(x + step * direction), fit(x - step * direction)
    for name in names:
        (slope,) = torch.autograd.grad(getattr(found, name).sum(), x, retain_graph=True)
        along = (slope * direction).flatten(1).sum(1)
        difference = ((getattr(above, name) - getattr(below, name)) / (2 * step)).detach()
        torch.testing.assert_close(along, difference, rtol=tolerance, atol=tolerance * float(difference.abs().max()))
        assert float(along.abs().min()) > 0, name


def test_the_brightest_pixel_is_differentiable_in_its_brightness():
    check_derivatives(lambda y: sersic_brightest_pixel(y, GRID), image_of(KNOWN), ("amp",), 1e-6)


def test_moments_are_differentiable_in_the_image():
    names = tuple(name for name in NAMES if name != "n_sersic")
    check_derivatives(lambda y: sersic_moments(y, GRID), image_of(KNOWN) + 0.01, names, 1e-4)


def test_least_squares_are_differentiable_in_the_image():
    # the last step leaves out the curvature of the model times what it cannot fit, here the priors' pull: 1 %
    check_derivatives(lambda y: sersic_least_squares(y, GRID, steps=60), image_of(KNOWN), NAMES, 1e-2)


# ---------------------------------------------------------------- through the lens


@pytest.fixture(scope="module")
def lenses() -> Lenses:
    """Noise-free images with a small error map, in double precision."""
    noisy = small_lenses(dtype=torch.float64, noise=0.001)
    return replace(noisy, observation=replace(noisy.observation, image=noisy.clean()))


def near(source: Sersic) -> Sersic:
    return replace(source, amp=1.3 * source.amp, R_sersic=0.8 * source.R_sersic, e1=0.0, center_x=0.0)


def as_batch(source: Sersic) -> Sersic:
    return Sersic(**{n: torch.as_tensor(getattr(source, n), dtype=torch.float64).expand(2) for n in NAMES})


def test_the_source_is_found_through_the_lens(lenses):
    with torch.no_grad():
        found = sersic_through_lens(lenses.observation, lenses.field(2), near(lenses.source))
    check_all_parameters(found, as_batch(lenses.source))


def test_the_source_and_a_correction_to_the_lens_are_found(lenses):
    wrong = SIS(torch.tensor(-0.03)) + Shear(0.01, -0.02)
    field = lenses.field().plus(wrong)
    with torch.no_grad():
        source, correction = joint_through_lens(lenses.observation, field, near(lenses.source), steps=30)
    check_all_parameters(source, as_batch(lenses.source))
    for profile, known in zip(correction.profiles, wrong.profiles, strict=True):
        for name in ("theta_E", "gamma1", "gamma2"):
            if hasattr(known, name):
                torch.testing.assert_close(
                    getattr(profile, name), -getattr(known, name) * torch.ones(2).double(), atol=1e-3, rtol=0
                )
    theta = field.theta
    torch.testing.assert_close(field.plus(correction).formula(theta), lenses.field().alpha, atol=2e-3, rtol=0)


@pytest.mark.parametrize("fit", ["source", "source and correction"])
def test_fits_through_the_lens_are_differentiable_in_the_deflection(lenses, fit):
    field, start = lenses.field(), as_batch(lenses.source)

    def found(alpha: Tensor) -> Sersic:
        known = DeflectionField(alpha, field.grid)
        if fit == "source":
            return sersic_through_lens(lenses.observation, known, start, steps=60)
        return joint_through_lens(lenses.observation, known, start, steps=60)[0]

    check_derivatives(found, field.alpha, NAMES, 1e-2)


def test_masked_pixels_have_no_influence_through_the_lens(lenses):
    observation = lenses.observation
    mask = torch.ones(1, 1, *observation.image.shape[-2:], dtype=torch.bool)
    mask[..., 5:9, 8:14] = False
    wild = torch.where(mask, observation.image, 1e6 * observation.image.amax())
    with torch.no_grad():
        fits = [
            sersic_through_lens(replace(observation, image=image, mask=mask), lenses.field(), near(lenses.source))
            for image in (observation.image, wild)
        ]
    for name in NAMES:
        torch.testing.assert_close(getattr(fits[1], name), getattr(fits[0], name))


def test_noise_decides_what_counts(lenses):
    """Half of an image is spoilt, and its error map says so: the source is found all the same."""
    image, sigma = lenses.observation.image.clone(), lenses.observation.noise.sigma.clone()
    image[..., :12] += image.amax() * torch.rand(image[..., :12].shape, generator=torch.Generator().manual_seed(0))
    spoilt = Observation(image, lenses.observation.camera, ErrorMap(sigma))
    sigma = sigma.clone()
    sigma[..., :12] *= 1e5
    known = replace(spoilt, noise=ErrorMap(sigma))
    with torch.no_grad():
        found, fooled = (sersic_through_lens(o, lenses.field(), near(lenses.source), steps=30) for o in (known, spoilt))
    check_all_parameters(found, as_batch(lenses.source))
    assert relative(fooled.amp, lenses.source.amp) > 0.05
