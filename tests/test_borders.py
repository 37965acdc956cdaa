"""Borders that were filled in, and skies and counts that only look like them; images with and without light."""

import numpy as np
import pytest
import torch

from lensphys.basics.checks import LensphysError
from lensphys.data import LensFile
from lensphys.observation import Camera, ErrorMap, Observation
from lensphys.observation.borders import filled_border, filled_patches
from lensphys.observation.darkness import shows_light
from lensphys.simulation import Recipe, simulate
from lensphys.tracing.grid import PixelGrid

HEIGHT, WIDTH = 24, 30


def sky(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (HEIGHT, WIDTH)).astype("f4")


def border_of(*images: np.ndarray) -> np.ndarray:
    return filled_border(torch.from_numpy(np.stack(images))[:, None])[:, 0].numpy()


def frame(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    chosen = np.ones((HEIGHT, WIDTH), bool)
    chosen[top : HEIGHT - bottom, left : WIDTH - right] = False
    return chosen


@pytest.mark.parametrize("sides", [(0, 0, 3, 0), (1, 0, 0, 0), (2, 1, 0, 4), (5, 5, 5, 5)])
@pytest.mark.parametrize("value", [0.0, -99.0, 1e5])
def test_a_padded_image_has_its_border_and_nothing_else(sides, value):
    chosen = frame(*sides)
    padded = np.where(chosen, np.float32(value), sky())
    assert (border_of(padded, sky(1)) == [chosen, np.zeros_like(chosen)]).all()


def test_the_empty_corners_of_a_turned_cut_out():
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    corners = (x + y < 9) | (x + y > HEIGHT + WIDTH - 8)
    assert (border_of(np.where(corners, np.float32(0), sky()))[0] == corners).all()


def test_a_hole_inside_is_no_border_and_nan_is_left_to_others():
    holed, lost = sky(), sky()
    holed[10:14, 10:14], lost[:3] = 0, np.nan
    assert not border_of(holed, lost).any()


@pytest.mark.parametrize("mean", [0.3, 3.0])
def test_pixels_that_are_nan_hide_no_border_of_counts(mean):
    counts = np.random.default_rng(0).poisson(mean, (HEIGHT, WIDTH)).astype("f4")
    chosen = frame(2, 0, 0, 12)
    padded = np.where(chosen, np.float32(7), counts)
    padded[0, :5] = padded[10, -3:] = padded[-1, 3] = np.nan
    assert (border_of(padded)[0] == chosen & np.isfinite(padded)).all()


@pytest.mark.parametrize("value", [0.0, -999.0, 65535.0])
def test_patches_inside_are_found(value):
    holed, whole = sky(), sky(1)
    chosen = np.zeros((2, HEIGHT, WIDTH), bool)
    chosen[0, 10:14, 10:14] = chosen[0, 2:4, 20:22] = True
    holed[chosen[0]], whole[5, 5:8] = value, value  # three of one value are none
    found = filled_patches(torch.from_numpy(np.stack([holed, whole]))[:, None])[:, 0].numpy()
    assert (found == chosen).all()


@pytest.mark.parametrize("mean", [0.02, 3.0, 200.0])
def test_counts_have_no_patches(mean):
    counts = np.random.default_rng(0).poisson(mean, (8, 1, HEIGHT, WIDTH)).astype("f4")
    assert not filled_patches(torch.from_numpy(counts)).any()
    doubled = torch.from_numpy(sky()).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert not filled_patches(doubled[None, None]).any()


def test_a_constant_image_is_all_border():
    assert border_of(np.zeros((HEIGHT, WIDTH), "f4")).all()


@pytest.mark.parametrize("mean", [0.02, 0.3, 3.0, 200.0])
def test_counts_have_borders_only_where_chance_makes_none(mean):
    counts = np.random.default_rng(0).poisson(mean, (8, HEIGHT, WIDTH)).astype("f4")
    assert not border_of(*counts).any()
    chosen = frame(0, 0, 0, 12)
    padded = np.where(chosen, np.float32(7), counts)
    assert (border_of(*padded) == chosen).all()


def test_simulated_images_have_none(tmp_path):
    path = simulate(Recipe.named("model_1", ["height=40", "width=48"]), 4, tmp_path / "a.h5")
    with LensFile(path) as file:
        assert not filled_border(file.lr()).any()


@pytest.mark.parametrize("mean", [0.02, 0.3, 3.0, 200.0])
def test_a_saturated_core_of_counts(mean):
    counts = np.random.default_rng(0).poisson(mean, (8, 1, HEIGHT, WIDTH)).astype("f4")
    assert not filled_patches(torch.from_numpy(counts)).any()
    assert not filled_patches(torch.from_numpy((counts - mean).clip(0))).any()  # counts that were cut off at zero
    counts[..., 4:7, 5:9] = 65535
    assert torch.equal(filled_patches(torch.from_numpy(counts)), torch.from_numpy(counts == 65535))


def test_shapes_are_checked():
    with pytest.raises(LensphysError, match="image must have the shape"):
        filled_border(torch.zeros(3, 4, 5))


def seen(image: np.ndarray, mask: torch.Tensor | None = None) -> list[bool]:
    light = torch.from_numpy(image)[:, None]
    camera = Camera(PixelGrid(HEIGHT, WIDTH, 0.1))
    return shows_light(Observation(light, camera, ErrorMap(torch.ones_like(light)), mask)).tolist()


def test_light_is_what_stands_five_sigma_out_of_nine_pixels():
    dark, bright = sky(), sky(1)
    bright[10:13, 8:11] += 6 / 3
    assert seen(np.stack([dark, -np.abs(dark), bright])) == [False, False, True]
    hidden = torch.ones(1, 1, HEIGHT, WIDTH, dtype=torch.bool)
    hidden[..., 9:14, 7:12] = False
    assert seen(bright[None], hidden) == [False]
