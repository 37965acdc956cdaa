"""What of a residual is signal: nothing of pure noise, most of a compact source that no model has."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lenses import finite, one_thread, small_lenses  # noqa: F401
from torch import Tensor

from lensphys.fitting.leftover import residual_signal
from lensphys.observation import Camera, ErrorMap, GaussianPSF, Noise, Observation, RectifiedCountNoise
from lensphys.tracing.grid import PixelGrid

pytestmark = pytest.mark.usefixtures("float64")

GRID = PixelGrid(36, 40, 0.1)


def noisy(clean: Tensor, noise: Noise, seed: int = 1) -> Observation:
    return Observation(noise.sample(clean, torch.Generator().manual_seed(seed)), Camera(GRID, GaussianPSF(0.1)), noise)


def blob(amplitude: float, batch: int = 2) -> Tensor:
    """A source of Gaussian profile, 0.15" wide, off the middle."""
    x, y = GRID.positions(like=torch.zeros(1)).unbind(1)
    return amplitude * torch.exp(-0.5 * ((x - 0.55) ** 2 + (y + 0.42) ** 2) / 0.15**2).expand(batch, 1, -1, -1)


def test_of_pure_noise_nothing_is_left():
    clean = torch.zeros(100, 1, *GRID.shape)
    found = residual_signal(noisy(clean, ErrorMap(torch.full_like(clean, 0.3))), clean)
    assert float((found.share > 0).double().mean()) < 0.001
    assert float((found.share[..., 2:-2, 2:-2] > 0).flatten(1).any(1).double().mean()) < 0.1
    assert float(found.signal.square().mean() / 0.3**2) < 1e-3


def test_nothing_of_pure_noise_is_left_at_the_edge():
    clean = torch.zeros(100, 1, *GRID.shape)
    share = residual_signal(noisy(clean, ErrorMap(torch.full_like(clean, 0.3))), clean).share
    assert float((share > 0).flatten(1).any(1).double().mean()) < 0.1


def test_of_the_noise_of_a_known_lens_nothing_is_left():
    lenses = small_lenses(8, dtype=torch.float64)
    found = residual_signal(lenses.observation, lenses.clean())
    assert float((found.share > 0).double().mean()) < 0.01
    none = residual_signal(replace(lenses.observation, image=lenses.clean()), lenses.clean()).signal
    torch.testing.assert_close(none, torch.zeros_like(lenses.clean()))


def test_little_is_left_of_counts_that_were_cut_at_zero():
    clean = blob(0.4, 40)
    law = RectifiedCountNoise(torch.full((40, 1, 1, 1), 0.02), torch.full((40, 1, 1, 1), 0.01))
    found = residual_signal(noisy(clean, law), clean)
    assert float((found.share > 0).double().mean()) < 0.01


def test_a_compact_source_that_the_model_lacks_is_kept():
    clean = blob(0.0)
    sigma = torch.full_like(clean, 0.05)
    missing = blob(1.0)
    observation = replace(noisy(missing, ErrorMap(sigma)), noise=ErrorMap(sigma))
    found = residual_signal(observation, clean)
    core = missing > 0.2
    assert float(found.share[core].min()) > 0.8
    assert 0.8 < float(found.signal.sum() / missing.sum()) < 1.02  # the faint wings are given up
    far = missing < 1e-6
    assert float((found.share[far] > 0).double().mean()) < 0.01
    error = (found.signal - missing).square().mean()
    assert float(error) < 0.1 * float(missing.square().mean())  # left out, all of it would be missing
    assert float(error) < float((observation.image - missing).square().mean())  # taken whole, all noise would be in it
    z = ((found.signal - missing) / found.variance.sqrt())[core]
    assert 0.6 < float(z.square().mean().sqrt()) < 1.3  # the error bar is that of the error


def test_the_share_grows_with_the_signal():
    sigma = ErrorMap(torch.full((2, 1, *GRID.shape), 0.05))
    shares = []
    for amplitude in (0.0, 0.2, 0.5, 2.0):
        observation = replace(noisy(blob(amplitude), sigma), noise=sigma)
        shares.append(float(residual_signal(observation, blob(0.0)).share.sum()))
    assert shares[0] < shares[1] < shares[2] < shares[3]


@pytest.mark.parametrize("reach", [0, 1, 2])
def test_a_pixel_is_judged_with_those_within_reach(reach):
    clean, sigma = blob(0.0, 1), ErrorMap(torch.full((1, 1, *GRID.shape), 0.05))
    image = torch.zeros_like(clean)
    image[0, 0, 18, 20] = 5.0
    share = residual_signal(Observation(image, Camera(GRID, GaussianPSF(0.1)), sigma), clean, reach).share
    assert int((share > 0).sum()) == (2 * reach + 1) ** 2


def test_masked_pixels_contribute_nothing():
    clean = blob(0.0)
    sigma = ErrorMap(torch.full_like(clean, 0.05))
    mask = torch.ones(1, 1, *GRID.shape, dtype=torch.bool)
    mask[..., 8:14, 20:30] = False
    observation = replace(noisy(blob(1.0), sigma), mask=mask)
    wild = replace(observation, image=torch.where(mask, observation.image, 1e6))
    found, other = residual_signal(observation, clean), residual_signal(wild, clean)
    for part in ("share", "signal", "variance"):
        torch.testing.assert_close(getattr(other, part), getattr(found, part))
    hidden = ~mask.expand_as(clean)
    assert float(found.share[hidden].abs().max()) == float(found.signal[hidden].abs().max()) == 0
    none = residual_signal(replace(observation, mask=torch.zeros_like(mask)), clean)
    assert finite(none.share) and float(none.signal.abs().max()) == 0


@pytest.mark.parametrize("scale", [2, 3])
def test_the_flux_is_that_of_the_residual_at_every_scale(scale):
    clean, missing = blob(0.0), blob(1.0)
    sigma = ErrorMap(torch.full_like(clean, 0.01))
    observation = replace(noisy(missing, sigma), noise=sigma)
    found = residual_signal(observation, clean)
    signal, spread = found.upsampled(observation, GRID.resampled(scale))
    assert signal.shape == spread.shape == (2, 1, scale * 36, scale * 40)
    torch.testing.assert_close(signal.sum((1, 2, 3)), found.signal.sum((1, 2, 3)), rtol=0.01, atol=0)
    bright = found.signal[0, 0].flatten().argmax()
    y, x = int(bright) // 40, int(bright) % 40
    block = slice(scale * y, scale * (y + 1)), slice(scale * x, scale * (x + 1))
    # sigma is flux per pixel as well: that of a fine pixel is its share of the coarse one's
    coarse = found.variance[0, 0, y, x].sqrt() / scale**2
    torch.testing.assert_close(spread[0, 0][block].mean(), coarse, rtol=0.3, atol=0)
    assert bool((spread >= 0).all())


def test_images_do_not_depend_on_their_batch():
    sigma = ErrorMap(torch.full((2, 1, *GRID.shape), 0.05))
    observation = replace(noisy(blob(1.0), sigma), noise=sigma)
    both = residual_signal(observation, blob(0.0))
    alone = residual_signal(observation[torch.tensor([1])], blob(0.0, 1))
    torch.testing.assert_close(alone.share[0], both.share[1])
