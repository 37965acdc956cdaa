"""Pairs of two telescopes: simulated with pointing and flux errors, and registered."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from lensphys.basics.checks import LensphysError
from lensphys.data.registration import Registration, RegistrationSettings, _Pair, registration
from lensphys.observation import Conditions, GaussianPSF, Instrument
from lensphys.simulation import Plan, Recipe, simulate
from lensphys.simulation.sample import render

pytestmark = pytest.mark.usefixtures("few_points")

SCALE = 0.2  # arcsec of an LR pixel
SMALL = ["height=36", "width=44", "lens.theta_E=1.5"]


def recipe(*changes: str) -> Recipe:
    return Recipe.named("hsc_hst", [*SMALL, *changes])


def sky(seed: int, shape: tuple[int, int], shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Blobs of light about the middle; shape and shift (x, y) in pixels of a fifth of an LR pixel."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape) - (np.array(shape)[:, None, None] - 1) / 2
    image = np.zeros(shape)
    for _ in range(6):
        at_x, at_y = rng.normal(0, 25, 2)
        image += rng.uniform(1, 3) * np.exp(-((x - at_x - shift[0]) ** 2 + (y - at_y - shift[1]) ** 2) / (2 * 6**2))
    return image


def blocks(image: np.ndarray, factor: int) -> np.ndarray:
    height, width = (n // factor for n in image.shape)
    return image.reshape(height, factor, width, factor).sum((1, 3))


def pair(
    shift: tuple[float, float], *, gain: float = 1.0, offset: float = 0.0, noise: float = 0.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """LR (40, 48) with a wide PSF and HR (80, 96) with a narrow one, the sky shifted by LR pixels (x, y) in the HR."""
    factor = 10
    lr = blocks(gaussian_filter(sky(seed, (400, 480)), 12.0), factor)
    moved = sky(seed, (400, 480), (factor * shift[0], factor * shift[1]))
    hr = gain * blocks(gaussian_filter(moved, 3.0), factor // 2) + offset
    rng = np.random.default_rng(seed + 1)
    sigma = noise * lr.max()
    return lr + rng.normal(0, sigma, lr.shape) if noise else lr, hr + rng.normal(0, gain * sigma / 3, hr.shape)


def error(found: Registration, shift: tuple[float, float]) -> float:
    """The larger error of the shifts [LR pixels]."""
    return max(abs(found.shift_x / SCALE - shift[0]), abs(found.shift_y / SCALE - shift[1]))


# --- the fit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.3, -0.2), (-1.45, 2.1)])
def test_shift_gain_and_offset_of_clean_pairs(shift):
    lr, hr = pair(shift, gain=7.0, offset=3.0)
    found = registration(lr, hr, SCALE)
    assert error(found, shift) < 0.02
    assert found.gain == pytest.approx(7.0, rel=0.01) and found.offset == pytest.approx(3.0, abs=0.01 * hr.max())
    assert found.correlation > 0.999 and found.scale == SCALE / 2


@pytest.mark.parametrize("shift", [(2.8, -2.6), (-2.5, -1.5), (1.0, 2.9)])
def test_the_fit_starts_where_the_images_correlate(shift):
    lr, hr = pair(shift, noise=0.02)
    start = _Pair.from_images(lr, hr, 2, SCALE, None, RegistrationSettings()).rough_shift()
    assert np.abs(np.subtract(start, shift)).max() < 0.2


def test_known_psfs_give_the_same():
    lr, hr = pair((0.3, -0.2), gain=0.5)
    # the kernels of the pair: 12 and 3 points of a tenth of an LR pixel
    psfs = tuple(GaussianPSF(2.3548 * sigma * SCALE / 10) for sigma in (12, 3))
    found = registration(lr, hr, SCALE, psfs=psfs)
    assert error(found, (0.3, -0.2)) < 0.02
    assert found.gain == pytest.approx(0.5, rel=0.02)  # the narrow PSF, 0.7 LR pixels wide, is sampled at their centres


def test_noisy_pairs_within_their_error_bar():
    pulls = []
    for seed in range(6):
        found = registration(*pair((0.3, -0.7), gain=2.0, noise=0.05, seed=seed), SCALE)
        assert error(found, (0.3, -0.7)) < 0.1 and found.gain == pytest.approx(2.0, rel=0.05)
        pulls += [(found.shift_x - 0.3 * SCALE) / found.sigma, (found.shift_y + 0.7 * SCALE) / found.sigma]
    assert 0.3 < float(np.sqrt(np.mean(np.square(pulls)))) < 2.0, pulls


def test_bad_pixels_and_outliers_do_not_count():
    lr, hr = pair((0.4, 0.1), gain=2.0)
    lr[10:13, 5:9] = np.nan
    hr[40, 50], hr[41, 50] = np.nan, np.inf
    lr[30, 30] += 30 * lr.max()  # a cosmic ray
    found = registration(lr, hr, SCALE)
    assert error(found, (0.4, 0.1)) < 0.02 and found.gain == pytest.approx(2.0, rel=0.02)
    back = found.undone(hr)
    assert 0 < np.isnan(back).sum() < 150 and np.isnan(back[40, 50]) and np.isfinite(back[:30]).all()


def test_undone_images_lie_on_their_lr_image_and_do_not_wrap():
    truth, moved = pair((0, 0))[1], pair((0.35, -0.6), gain=3.0, offset=-1.0)
    back = registration(*moved, SCALE).undone(moved[1])
    assert np.abs(back - truth).max() < 0.01 * truth.max()
    edge = np.zeros((80, 96))
    edge[:, -1] = 1.0
    away = Registration(-0.2 * SCALE, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, SCALE / 2).undone(edge)
    assert away[:, :40] == pytest.approx(0, abs=1e-6)
    same = Registration(0.0, 0.0, 0.0, 2.0, 4.0, 1.0, 0.0, SCALE / 2).undone(edge)
    assert np.array_equal(same, (edge - 4) / 2)


def test_without_a_shift_the_flux_alone_is_fitted():
    lr, hr = pair((0, 0), gain=4.0, offset=0.5)
    found = registration(lr, hr, SCALE, settings=RegistrationSettings().unshifted)
    assert (found.shift_x, found.shift_y, found.sigma) == (0, 0, 0)
    assert found.gain == pytest.approx(4.0, rel=0.01) and found.unscaled.gain == 1.0 and found.unscaled.offset == 0


def test_pairs_that_do_not_belong_together_are_refused():
    lr, hr = pair((0, 0))
    with pytest.raises(LensphysError, match=r"do not show the same object: their correlation is .* pair the right"):
        registration(lr, np.roll(hr, (30, 40), (0, 1)), SCALE)
    with pytest.raises(LensphysError, match=r"do not show the same object"):
        registration(lr, np.random.default_rng(0).normal(size=hr.shape), SCALE)
    with pytest.raises(LensphysError, match=r"shifted by \(.*\) LR pixels or more, expected at most 1: align the pair"):
        registration(lr, pair((1.6, 0))[1], SCALE, settings=RegistrationSettings(largest_shift=1.0))
    with pytest.raises(LensphysError, match=r"must be \(s H, s W\) of an LR image .* got \(80, 95\) and \(40, 48\)"):
        registration(lr, hr[:, 1:], SCALE)
    with pytest.raises(LensphysError, match="only .* pixels of the pair are good, too few to register it"):
        registration(np.where(np.arange(48) < 40, np.nan, lr), hr, SCALE)
    with pytest.raises(LensphysError, match="has no finite pixel"):
        registration(np.full_like(lr, np.nan), hr, SCALE)
    with pytest.raises(LensphysError, match="the same everywhere, it shows nothing to register"):
        registration(lr, np.full_like(hr, 3.0), SCALE)
    with pytest.raises(LensphysError, match="pixel_scale must be positive"):
        registration(lr, hr, 0.0)


# --- simulated pairs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["torch", "lenstronomy"])
def test_a_displaced_sky_is_the_same_sky_a_pixel_further(engine):
    """By whole HR pixels, with shear and lens light: nothing else may change."""
    plan = Plan.from_recipe(
        recipe("target.shift_x=0.168", "target.shift_y=-0.252", "shear.gamma1=0.1"), 2, engine=engine
    )
    scenes = [plan.drawn(i).scene for i in range(2)]
    moved = [scene.displaced(0.168, -0.252) for scene in scenes]
    renders = plan.build_engine()
    here, there = (renders.render(x, Conditions()).hr.double() for x in (scenes, moved))
    assert there.shape == (2, 1, 72, 88)
    inside = (here.roll((-3, 2), (2, 3)) - there)[..., 8:-8, 8:-8].abs().max() / here.max()
    assert float(inside) < 1e-5


def test_a_target_has_its_own_psf_and_noise_in_the_flux_of_the_lr_image(tmp_path):
    path = simulate(recipe(), 6, tmp_path / "a.h5", seed=3)
    target = Instrument.named("hst_acs_f814w")
    with h5py.File(path) as file:
        drawn = {name: file[name][:] for name in ("hr_shift_x", "hr_shift_y", "hr_gain", "hr_offset")}
        assert all(len(set(values)) == 6 for values in drawn.values()) and np.std(drawn["hr_shift_x"]) < 0.15
        assert (
            file["hr_shift_x"].attrs["unit"] == "arcsec" and "aligned with /lr" in file["hr_clean"].attrs["description"]
        )
        assert Instrument.parse(json.loads(file.attrs["target_instrument"]), "target") == target
        # the sky alone: a corner, in the unit of Hubble, has Hubble's background
        corner = (file["hr"][:, 0, :10, :10] - drawn["hr_offset"][:, None, None]) / drawn["hr_gain"][:, None, None]
        clean = file["hr_clean"][:, 0, :10, :10]
        ratio = target.flux(0.0) / Instrument.named("hsc_i").flux(0.0)
        own = target.model_copy(update={"pixel_scale": 0.084}).noise_of(torch.zeros(1, 1, 1, 1)).background_rms
        assert float(np.std(corner - clean)) * ratio == pytest.approx(own, rel=0.1)
        # Hubble's truth is sharper than what the same lens is in the ground's PSF
        assert file["hr_clean"][:].max() > 1.3 * file["lr_clean"][:].max() / 4
        assert file["hr_clean"][:].sum() == pytest.approx(file["lr_clean"][:].sum(), rel=0.02)


def test_the_ideal_recipe_is_aligned_and_clean(tmp_path):
    ideal = Recipe.named("hsc_hst_ideal", SMALL)
    assert ideal.lens_light == [] and not ideal.target.disagrees
    drawn = Plan.from_recipe(ideal, 1).drawn(0)
    samples = render(ideal, Plan.from_recipe(ideal, 1).build_engine(), [drawn])
    assert samples.hr is None and set(drawn.mismatch.values()) == {0.0, 1.0}


def test_recipes_with_a_target_that_cannot_be_are_refused():
    with pytest.raises(
        LensphysError, match="shift, gain and offset of the target are those of a recorded /hr: set hr_n"
    ):
        recipe("hr_noise=false")
    with pytest.raises(LensphysError, match="its instrument needs noise of the kind exposure and a zero point"):
        Plan.from_recipe(recipe("instrument=model_1", "counts={exposure_time: 1000, background_rms: 0.01}"), 1)
    with pytest.raises(LensphysError, match="its target model_1 needs noise of the kind exposure"):
        Plan.from_recipe(recipe("target.instrument=model_1"), 1)
    with pytest.raises(LensphysError, match="'target' belongs to the instrument hsc_i: take it away"):
        recipe().seen_by("euclid_vis")
    convergence = "{kind: lenstronomy, profile: CONVERGENCE, parameters: {kappa: 0.1}}"
    with pytest.raises(LensphysError, match="the profile CONVERGENCE has no center_x and cannot be displaced"):
        Plan.from_recipe(recipe(f"more_lenses=[{convergence}]"), 1, engine="lenstronomy")


def test_a_recipe_without_a_target_is_what_it_was():
    assert "target" not in Plan.from_recipe(Recipe.named("model_2"), 1).attributes()
    assert Plan.from_recipe(Recipe.named("model_2"), 1).drawn(0).mismatch == {}
