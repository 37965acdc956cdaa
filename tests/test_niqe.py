"""NIQE: moment fits recover what was drawn, the distance is the published one, and degraded lenses score higher."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from PIL import Image

from lensphys.basics.checks import LensphysError
from lensphys.methods.interpolation import interpolate
from lensphys.methods.ranking.niqe import NIQE, asymmetric_gaussian, block_features, blocks_of, normalised_pixels
from lensphys.model import SIE, Sersic
from lensphys.observation import Camera, GaussianPSF
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid


@pytest.fixture(scope="module")
def lenses() -> torch.Tensor:
    """Clean lenses, H != W, each another, in units far from 255."""
    generator = torch.Generator().manual_seed(4)

    def between(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(60, generator=generator, dtype=torch.float64)

    camera = Camera(PixelGrid(128, 138, 0.04), GaussianPSF(0.1))
    mass = SIE(between(0.8, 1.3), between(-0.2, 0.2), between(-0.2, 0.2))
    shape = between(-0.2, 0.2), between(-0.2, 0.2), between(-0.3, 0.3), between(-0.3, 0.3)
    source = Sersic(between(1, 100), between(0.15, 0.3), 1.0, *shape)
    like = torch.zeros(60, dtype=torch.float64)
    return camera.render(source, DeflectionField.from_lens(mass, camera.grid, like=like))


@pytest.fixture(scope="module")
def model(lenses) -> NIQE:
    return NIQE.fit(lenses[:40])


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_normalised_pixels_are_scipys():
    image = 100 + 50 * noise(2, 1, 20, 27)
    found, deviation = normalised_pixels(image)
    for ours, sigma, x in zip(found[:, 0], deviation[:, 0], image[:, 0].numpy(), strict=True):
        mean, square = (
            scipy.ndimage.gaussian_filter(y, 7 / 6, mode="nearest", radius=3)
            for y in (x, x**2)
        )  # fmt: skip
        np.testing.assert_allclose(sigma, np.sqrt(square - mean**2), rtol=1e-9)
        np.testing.assert_allclose(ours, (x - mean) / (np.sqrt(square - mean**2) + 1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [0.6, 1.0, 2.0, 4.0])
def test_a_generalised_gaussian_is_recovered(shape):
    drawn = scipy.stats.gennorm(shape, scale=3.0).rvs((2, 1, 1000, 1000), random_state=1)
    found, left, right = asymmetric_gaussian(torch.from_numpy(drawn))
    np.testing.assert_allclose(found, shape, rtol=0.02)
    np.testing.assert_allclose(left, 3.0, rtol=0.03)
    np.testing.assert_allclose(right, 3.0, rtol=0.03)


def test_an_asymmetric_gaussian_is_recovered():
    # the side is drawn in proportion to its scale, so that the density has no step at zero
    random = np.random.default_rng(2)
    size = np.abs(scipy.stats.gennorm(1.5).rvs((1, 2, 500, 400), random_state=random))
    drawn = np.where(random.random(size.shape) < 0.25, -size, 3 * size)
    found, left, right = asymmetric_gaussian(torch.from_numpy(drawn))
    np.testing.assert_allclose(found, 1.5, rtol=0.02)
    np.testing.assert_allclose(left, 1.0, rtol=0.02)
    np.testing.assert_allclose(right, 3.0, rtol=0.02)


def test_values_of_one_sign_have_no_fit():
    assert bool(asymmetric_gaussian(torch.ones(1, 2, 8, 8))[0].isnan().all())


def test_blocks_stand_row_by_row():
    image = torch.arange(2 * 8 * 12).reshape(2, 1, 8, 12)
    found = blocks_of(image, 4)
    assert found.shape == (2, 6, 4, 4)
    assert torch.equal(found[1, 2], image[1, 0, :4, 8:]) and torch.equal(found[0, 4], image[0, 0, 4:, 4:8])


def test_the_second_scale_is_the_image_at_half_its_size():
    image = torch.rand(1, 1, 64, 96, generator=torch.Generator().manual_seed(0)) + 0.1
    image[..., 10, 10], image[..., 12, 13] = 2.0, 0.0
    shrunk = np.asarray(Image.fromarray(255 * image[0, 0].numpy() / 2).resize((48, 32), Image.Resampling.BICUBIC))
    normalised = normalised_pixels(torch.from_numpy(shrunk.copy()).double()[None, None])[0]
    shape, left, right = asymmetric_gaussian(blocks_of(normalised, 16))
    found = block_features(image, 32, 0.0)
    torch.testing.assert_close(found[..., 18], shape, rtol=0, atol=2e-3)  # a step of the table of shapes
    torch.testing.assert_close(found[..., 19], (left + right) / 2, rtol=1e-3, atol=0)


def test_the_distance_is_the_published_one():
    features = noise(2, 50, 36) + 0.3
    features[1, 7:] = torch.nan  # blocks that do not count
    root = noise(36, 36, seed=1)
    model = NIQE(noise(36, seed=2), root @ root.T)
    for found, rows in zip(model.distance(features), (features[0], features[1, :7]), strict=True):
        d, c = (rows.mean(0) - model.mean).numpy(), (model.covariance.numpy() + np.cov(rows.numpy().T)) / 2
        assert float(found) == pytest.approx(math.sqrt(d @ np.linalg.inv(c) @ d), rel=1e-6)


def test_one_block_is_enough_and_none_is_nan():
    features = noise(2, 3, 36)
    features[0, 1:], features[1] = torch.nan, torch.nan
    found = NIQE(torch.zeros(36), torch.eye(36)).distance(features)
    assert float(found[0]) == pytest.approx(math.sqrt(2) * float(features[0, 0].norm()))
    assert bool(found[1].isnan())


def test_clean_lenses_score_lowest(lenses, model):
    clean = lenses[40:]
    peak = clean.amax((2, 3), keepdim=True)
    lr = torch.nn.functional.avg_pool2d(clean + 0.05 * peak * noise(*clean.shape), 2) * 4
    degraded = {
        "blurred": GaussianPSF(0.4).blur(clean, 0.04),
        "noise": clean + 0.01 * peak * noise(*clean.shape),
        "more noise": clean + 0.05 * peak * noise(*clean.shape),
        "blocks": interpolate(torch.nn.functional.avg_pool2d(clean, 2), 2, "nearest"),
        "bicubic of noisy LR": interpolate(lr, 2, "bicubic"),
    }
    known = model.score(clean)
    scores = {name: model.score(images) for name, images in degraded.items()}
    for name, found in scores.items():  # a smooth lens blurred is a smooth lens: hardly worse
        assert float((found > known).double().mean()) >= (0.7 if name == "blurred" else 1.0), name
    assert bool((scores["bicubic of noisy LR"] > 2 * known).all())
    assert bool((scores["more noise"] > scores["noise"]).all())


def test_neither_unit_nor_empty_sky_changes_a_score(lenses, model):
    images = lenses[40:44, ..., :128]
    known = model.score(images)
    torch.testing.assert_close(model.score(1e-9 * images), known)
    wider = torch.nn.functional.pad(images, (0, 64, 0, 32), mode="replicate")
    torch.testing.assert_close(model.score(wider), known, rtol=0.1, atol=0)


def test_what_has_no_score_is_nan_and_spoils_no_other(lenses, model):
    image = lenses[:1]
    broken = image.clone()
    broken[..., 5, 5] = torch.inf
    whole = torch.cat([image, 0 * image, -image, broken, torch.ones_like(image), image])
    found = model.score(whole)
    assert found.isnan().tolist() == [False, True, True, True, True, False]
    torch.testing.assert_close(found[[0, -1]], model.score(lenses[:1]).expand(2))


def test_single_precision_is_enough(lenses, model):
    torch.testing.assert_close(model.score(lenses[40:44].float()), model.score(lenses[40:44]), rtol=1e-3, atol=0)


def test_a_model_survives_its_file(lenses, model, tmp_path):
    model.save(tmp_path / "niqe.json", {"images": "clean lenses"})
    found = NIQE.load(tmp_path / "niqe.json")
    assert (found.block, found.sharpness) == (model.block, model.sharpness)
    torch.testing.assert_close(found.score(lenses[40:42]), model.score(lenses[40:42]))
    assert json.loads((tmp_path / "niqe.json").read_text())["provenance"] == {"images": "clean lenses"}


def test_errors_say_what_to_do(lenses, tmp_path):
    with pytest.raises(LensphysError, match="36 numbers are to be correlated: give more images"):
        NIQE.fit(lenses[:2])
    with pytest.raises(LensphysError, match=r"images of \(16, 138\) pixels hold no block of 32: give larger ones"):
        NIQE.fit(lenses[..., :16, :])
    with pytest.raises(LensphysError, match="even number of 8 pixels or more, got 31"):
        NIQE.fit(lenses, block=31)
    with pytest.raises(LensphysError, match="sharpness must be between 0 and 1, got 2"):
        NIQE.fit(lenses, sharpness=2)
    with pytest.raises(LensphysError, match="images holds 1 NaN or infinite values"):
        NIQE.fit(torch.where(lenses == lenses.max(), torch.nan, lenses))
    with pytest.raises(LensphysError, match=r"mean of shape \(36,\) .* got \(18,\) and \(36, 36\)"):
        NIQE(torch.zeros(18), torch.eye(36))
    with pytest.raises(LensphysError, match="NIQE model not found"):
        NIQE.load(tmp_path / "none.json")
    (tmp_path / "other.json").write_text('{"mean": [1]}')
    with pytest.raises(LensphysError, match="is not a NIQE model: write it with NIQE.save"):
        NIQE.load(tmp_path / "other.json")
