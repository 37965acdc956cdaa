"""Conditional diffusion: what is sampled, from what noise, and that it learns."""

from __future__ import annotations

import sys

import pytest
import torch
from lenses import Lenses, one_thread, psnr, small_lenses  # noqa: F401

from lensphys.basics.checks import LensphysError
from lensphys.methods.diffusion import DiffusionMethod, DiffusionSettings
from lensphys.methods.interpolation import interpolate
from lensphys.methods.trainable import Batch
from lensphys.observation import block_sum

TINY = {"name": "diffusion", "channels": [8, 16], "ddim_steps": 3, "samples": 3, "steps": 100}


def tiny(**settings: object) -> DiffusionMethod:
    pytest.importorskip("diffusers")
    torch.manual_seed(0)
    return DiffusionSettings.parse(TINY | settings, "test").build().eval()


def pairs(lenses: Lenses, scale: int = 2) -> Batch:
    return Batch(lenses.observation, lenses.clean(scale))


def trained(method: DiffusionMethod, batch: Batch, steps: int, rate: float = 3e-3) -> list[float]:
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(method.players[""].parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        loss = method.train().training_terms(batch, 0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    method.eval()
    return losses


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"scale": 3, "patch": 1},
        {"patch": 3, "channels": [8], "layers": 2},
        {"attention": True},
        {"prediction": "epsilon", "schedule": "linear"},
    ],
    ids=str,
)
def test_a_prediction_is_mean_and_spread_of_samples(settings):
    observation = small_lenses(height=33, width=29).observation
    method = tiny(**settings)
    with torch.no_grad():
        found = method.predict(observation)
    scale = settings.get("scale", 2)
    assert found.image.shape == found.sigma.shape == (2, 1, 33 * scale, 29 * scale)
    assert found.camera.grid == observation.camera.grid.resampled(scale)
    torch.testing.assert_close(found.observed, block_sum(found.image, observation.camera.grid))
    assert bool(found.image.isfinite().all()) and float(found.sigma.min()) > 0
    torch.testing.assert_close(found.observed.sum((1, 2, 3)), observation.image.sum((1, 2, 3)), rtol=1e-4, atol=0)


def test_the_same_call_has_the_same_answer_and_another_seed_another():
    observation = small_lenses().observation
    method, other = tiny(), tiny(seed=1)
    with torch.no_grad():
        first, second, changed = (m.predict(observation).image for m in (method, method, other))
    assert torch.equal(first, second)
    assert not torch.equal(first, changed)


def test_an_image_has_the_same_answer_in_any_batch_and_unit():
    observation = small_lenses(3, dtype=torch.float64).observation
    method = tiny().double()
    with torch.no_grad():
        whole = method.predict(observation)
        alone = method.predict(observation[torch.tensor([2])])
    torch.testing.assert_close(alone.image, whole.image[2:])
    torch.testing.assert_close(alone.sigma, whole.sigma[2:])


def test_masked_pixels_do_not_matter():
    lenses = small_lenses(dtype=torch.float64).observation
    mask = torch.ones_like(lenses.image, dtype=torch.bool)
    mask[..., 3:5, 7] = False
    answers = []
    for value in (0.0, 1e6):
        image = torch.where(mask, lenses.image, value)
        with torch.no_grad():
            answers.append(tiny().double().predict(type(lenses)(image, lenses.camera, lenses.noise, mask)).image)
    torch.testing.assert_close(*answers)


def test_training_lowers_the_loss_and_the_score_of_the_average():
    batch = pairs(small_lenses(4))
    method = tiny()
    trained(method, batch, 1)  # from here on the spread is known
    with torch.no_grad():
        before = float(method.validation_score(batch))
    losses = trained(method, batch, 60, 1e-2)
    with torch.no_grad():
        after = float(method.validation_score(batch))
        assert float(method.validation_score(batch)) == after
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    assert after < before
    expected = batch.truth * 4 / batch.observation.peak[:, None, None, None]
    base = interpolate(batch.observation.image, 2, "bicubic") * 4 / batch.observation.peak[:, None, None, None]
    torch.testing.assert_close(method.spread, (expected - base).std())


def test_only_the_network_learns_and_its_average_is_saved():
    method = tiny()
    batch = pairs(small_lenses())
    trained(method, batch, 3)
    assert not any(p.requires_grad for p in method.average.parameters())
    other = tiny(seed=0)
    other.load_state_dict(method.state_dict())
    with torch.no_grad():
        assert torch.equal(other.predict(batch.observation).image, method.predict(batch.observation).image)


def test_a_checkpoint_of_the_random_state_gives_the_same_loss_again():
    method, batch = tiny(), pairs(small_lenses())
    state = torch.get_rng_state()
    first = method.training_terms(batch, 0)["loss"]
    torch.set_rng_state(state)
    assert torch.equal(method.training_terms(batch, 0)["loss"], first)


def test_bf16_autocast_trains_and_predicts_in_float32():
    method, batch = tiny(attention=True), pairs(small_lenses())
    with torch.autocast("cpu", torch.bfloat16):
        method.training_terms(batch, 0)["loss"].backward()
        with torch.no_grad():
            found = method.predict(batch.observation)
    assert found.image.dtype == found.sigma.dtype == torch.float32
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in method.network.parameters())


def test_it_overfits_a_few_pairs_beyond_interpolation():
    lenses = small_lenses(2, noise=0.1)
    batch = pairs(lenses)
    method = tiny(channels=[16, 32], ddim_steps=5)
    trained(method, batch, 100, 5e-3)
    with torch.no_grad():
        found = method.predict(batch.observation).image
    bicubic = interpolate(batch.observation.image, 2, "bicubic")
    assert float((psnr(found, batch.truth) - psnr(bicubic, batch.truth)).min()) > 4


def test_what_cannot_be_answered_says_why():
    method, lenses = tiny(), small_lenses()
    with pytest.raises(LensphysError, match="trained for a scale of 2, not 4"):
        method.predict(lenses.observation, 4)
    with pytest.raises(LensphysError, match="this data set has none"):
        method.training_terms(Batch(lenses.observation), 0)
    with pytest.raises(LensphysError, match="SR image and HR image must have the same shape"):
        method.validation_score(Batch(lenses.observation, lenses.clean(3)))
    with pytest.raises(LensphysError, match="ddim_steps 200 must not exceed steps 100"):
        tiny(ddim_steps=200)


def test_settings_need_no_diffusers_but_the_network_does(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    settings = DiffusionSettings.parse(TINY, "test")
    assert DiffusionSettings.parse(settings.model_dump(mode="json"), "again") == settings
    with pytest.raises(LensphysError, match=r"pip install 'lensphys\[diffusion\]'"):
        settings.build()
