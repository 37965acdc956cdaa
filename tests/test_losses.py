"""Losses: what each term is for a right and for a wrong prediction, its unit, its gradient, its weight."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from lenses import Lenses, finite, one_thread, scaled, small_lenses  # noqa: F401
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.losses.image import ImageLossSettings
from lensphys.losses.physics import (
    ImageConsistency,
    IntensityConservation,
    LossTerm,
    ObservationConsistency,
    PhysicsLossSettings,
    Positivity,
    SourceConsistency,
    VariationDensity,
    min_max,
    published_loss,
    scaled_grid,
)
from lensphys.methods import Interpolation, Prediction
from lensphys.model import SIS, Sersic
from lensphys.observation import Camera, ErrorMap, Instrument, Observation
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid

TERMS: dict[str, LossTerm] = {
    "source_consistency": SourceConsistency(),
    "image_consistency": ImageConsistency(),
    "intensity_conservation": IntensityConservation(),
    "positivity": Positivity(),
    "variation_density": VariationDensity(),
    "observation": ObservationConsistency(),
}


def predicted(observation: Observation, field: DeflectionField, source: Sersic) -> Prediction:
    """The prediction of a deflection at scale 2 and a source."""
    camera = observation.camera.at(2)
    return Prediction(
        camera.render(source, field),
        camera,
        observation.camera.render(source, field.at(observation.camera.grid)),
        field,
        source,
    )


@pytest.fixture(scope="module")
def lenses() -> Lenses:
    """Noise-free images; the error map is 2 % of the peak."""
    noisy = small_lenses(dtype=torch.float64)
    return replace(noisy, observation=replace(noisy.observation, image=noisy.clean()))


@pytest.fixture(scope="module")
def right(lenses) -> Prediction:
    return predicted(lenses.observation, lenses.field(2), lenses.source)


def wrong_field(lenses: Lenses) -> DeflectionField:
    """A deflection with every fault: bumpy, too weak, pushing outwards somewhere."""
    field = lenses.field(2)
    x, y = field.theta[:, :1], field.theta[:, 1:]
    radial = 0.8 * field.radial - 1.5 * torch.exp(-((x - 0.9) ** 2 + (y + 0.7) ** 2) / 0.1)
    return DeflectionField.from_polar(radial, 0.1 * torch.sin(5 * x) * torch.ones_like(radial), field.grid)


@pytest.fixture(scope="module")
def wrong(lenses) -> Prediction:
    return predicted(lenses.observation, wrong_field(lenses), lenses.source)


# What a term is for the truth: zero, up to what its definition cannot have. The two consistencies of S1 compare
# interpolated 0.15" pixels behind a PSF with a sharp model; the field of a lens that is no SIS does vary.
AT_THE_TRUTH = {
    "source_consistency": 0.02,
    "image_consistency": 0.004,
    "intensity_conservation": 1e-12,
    "positivity": 0.0,
    "variation_density": 0.02,
    "observation": 1e-6,
}


@pytest.mark.parametrize("name", TERMS)
def test_a_term_is_small_for_the_truth_and_larger_for_a_wrong_prediction(lenses, right, wrong, name):
    at_truth, at_fault = (float(TERMS[name](p, lenses.observation)) for p in (right, wrong))
    assert 0 <= at_truth <= AT_THE_TRUTH[name]
    assert at_fault > 2.5 * at_truth
    assert at_fault > 1e-4


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("unit", [1e4, 1e-4])
def test_a_term_does_not_depend_on_the_unit_of_the_image(lenses, wrong, name, unit):
    source = replace(lenses.source, amp=lenses.source.amp * unit)
    other = predicted(scaled(lenses.observation, unit), wrong.deflection, source)
    found = TERMS[name](other, scaled(lenses.observation, unit))
    torch.testing.assert_close(found, TERMS[name](wrong, lenses.observation), rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", TERMS)
def test_the_gradient_reaches_the_deflection(lenses, name):
    field = wrong_field(lenses)
    alpha = field.alpha.clone().requires_grad_()
    (slope,) = torch.autograd.grad(
        TERMS[name](predicted(lenses.observation, replace(field, alpha=alpha), lenses.source), lenses.observation),
        alpha,
    )
    assert finite(slope)
    for one in slope:
        assert float(one.abs().max()) > 0


@pytest.mark.parametrize("name", ["source_consistency", "image_consistency", "positivity", "variation_density"])
def test_a_term_of_the_lens_needs_a_deflection(lenses, name):
    bicubic = Interpolation(name="bicubic").predict(lenses.observation, 2)
    with pytest.raises(LensphysError, match="needs a method that yields a deflection and a source"):
        TERMS[name](bicubic, lenses.observation)


def test_odd_image_sizes():
    """75 x 0.5 is 38 pixels."""
    camera = Instrument.named("model_3").camera(75, 71)
    source = Sersic(torch.ones(2), 0.3, 1.0, center_x=0.1)
    clean = camera.render(source, DeflectionField.from_lens(SIS(torch.ones(2)), camera.grid))
    observation = Observation(clean, camera, ErrorMap(0.02 * torch.ones_like(clean)))
    right, wrong = (
        predicted(observation, DeflectionField.from_lens(SIS(r * torch.ones(2)), camera.grid.resampled(2)), source)
        for r in (1.0, 0.9)
    )
    at_truth, at_fault = (published_loss().evaluate(p, observation, 0)["loss"] for p in (right, wrong))
    assert finite(at_truth)
    assert float(at_fault) > 2 * float(at_truth)
    assert scaled_grid(camera.grid, 0.5) == PixelGrid(38, 36, 0.16)


# ---------------------------------------------------------------- term by term


def flat(alpha: Tensor, grid: PixelGrid) -> Prediction:
    """A prediction whose deflection alone is of interest."""
    image = torch.zeros(len(alpha), 1, *grid.shape, dtype=alpha.dtype)
    return Prediction(image, Camera(grid), image, DeflectionField(alpha, grid), Sersic(1.0, 1.0, 1.0))


def test_the_variation_density_is_that_of_a_loop(lenses):
    grid = PixelGrid(5, 7, 0.2)
    alpha = torch.randn(2, 2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    prediction = flat(alpha, grid)
    found = VariationDensity()(prediction, lenses.observation)
    total = 0.0
    for part in (prediction.deflection.radial.numpy()[:, 0], prediction.deflection.tangential.numpy()[:, 0]):
        along_x, along_y = [], []
        for image in part:
            for i in range(5):
                for j in range(7):
                    if j + 1 < 7:
                        along_x.append(abs(image[i, j + 1] - image[i, j]))
                    if i + 1 < 5:
                        along_y.append(abs(image[i + 1, j] - image[i, j]))
        total += np.mean(along_x) + np.mean(along_y)
    assert float(found) == pytest.approx(total, rel=1e-12)


def test_an_isothermal_sphere_has_no_variation_density(lenses):
    grid = PixelGrid(8, 10, 0.2)
    alpha = DeflectionField.from_lens(SIS(1.0), grid, like=torch.zeros((), dtype=torch.float64)).alpha
    assert float(VariationDensity()(flat(alpha, grid), lenses.observation)) < 1e-9


def test_positivity_is_the_mean_push_outwards(lenses):
    grid = PixelGrid(8, 10, 0.2)
    inwards = DeflectionField.from_lens(SIS(1.0), grid, like=torch.zeros((), dtype=torch.float64)).alpha
    assert float(Positivity()(flat(inwards, grid), lenses.observation)) == 0
    assert float(Positivity()(flat(-0.3 * inwards, grid), lenses.observation)) == pytest.approx(0.3)


def test_intensity_conservation_is_the_square_of_the_missing_fraction(lenses, right):
    less = replace(right, observed=right.observed * torch.tensor([0.9, 1.3]).double()[:, None, None, None])
    found = IntensityConservation()(less, lenses.observation)
    assert float(found) == pytest.approx((0.1**2 + 0.3**2) / 2)


def test_the_observation_term_is_one_half_at_the_noise_limit(lenses):
    noise = lenses.observation.noise
    y = noise.sample(lenses.clean(), torch.Generator().manual_seed(3))
    observation = replace(lenses.observation, image=y)
    prediction = predicted(observation, lenses.field(2), lenses.source)
    reduced = (y - prediction.observed).square().div(noise.sigma**2).mean((1, 2, 3))
    # 2304 pixels: a scatter of 0.03 of the reduced chi^2
    found = float(ObservationConsistency()(prediction, observation))
    assert found == pytest.approx(0.5, abs=0.05)
    assert found == pytest.approx(float(0.5 * reduced.mean()))
    found = float(ObservationConsistency(form="log")(prediction, observation))
    assert found == pytest.approx(0.5 * math.log(2), abs=0.03)
    assert found == pytest.approx(float(0.5 * torch.log1p(reduced).mean()))


@pytest.mark.parametrize("name", ["intensity_conservation", "observation"])
def test_masked_pixels_do_not_count(lenses, right, name):
    mask = torch.ones_like(lenses.observation.image, dtype=torch.bool)
    mask[..., 4:9, 6:12] = False
    observation = replace(lenses.observation, mask=mask)
    spoilt = replace(observation, image=torch.where(mask, observation.image, 1e6))
    assert float(TERMS[name](right, spoilt)) == float(TERMS[name](right, observation))
    assert float(TERMS[name](right, replace(spoilt, mask=None))) > 0.9


def test_the_log_form_weighs_hopeless_images_no_more_than_others(lenses, right, wrong):
    plain, log = ObservationConsistency(), ObservationConsistency(form="log")
    grows = [float(t(wrong, lenses.observation)) for t in (plain, log)]
    assert grows[0] > 5 * grows[1] > 0
    assert float(log(right, lenses.observation)) < 1e-6


def test_min_max_of_images_flat_or_not():
    image = torch.tensor([[-2.0, 0.0, 6.0], [3.0, 3.0, 3.0]]).reshape(2, 1, 1, 3)
    assert min_max(image).flatten(1).tolist() == [[0.0, 0.25, 1.0], [0.0, 0.0, 0.0]]


# ---------------------------------------------------------------- the sum


def test_evaluate_gives_every_term_and_the_weighted_sum(lenses, wrong):
    loss = PhysicsLossSettings(
        observation=ObservationConsistency(weight=2.0, decay=0.5), variation_density=VariationDensity(decay=0.9)
    )
    assert list(loss.terms) == ["variation_density", "observation"]
    for epoch in (0, 3):
        values = loss.evaluate(wrong, lenses.observation, epoch)
        assert set(values) == {"variation_density", "observation", "loss"}
        expected = 0.5 * 0.9**epoch * values["variation_density"] + 2.0 * 0.5**epoch * values["observation"]
        assert float(values["loss"]) == pytest.approx(float(expected))


def test_no_term_at_all_is_a_loss_of_zero(lenses, right):
    assert PhysicsLossSettings().terms == {}
    assert float(PhysicsLossSettings().evaluate(right, lenses.observation, 0)["loss"]) == 0


def test_the_published_loss():
    loss = published_loss(decay=0.9)
    assert list(loss.terms) == ["source_consistency", "image_consistency", "variation_density"]
    assert loss.source_consistency.scales == [2.0, 1.0, 0.5]
    assert loss.variation_density.weight_at(2) == pytest.approx(0.5 * 0.81)
    assert loss.image_consistency.weight_at(100) == 1.0


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"flux": {}}, "loss: unknown key 'flux'"),
        ({"observation": {"shape": "log"}}, "unknown key 'observation.shape'"),
        ({"observation": {"form": "cube"}}, "'observation.form': .*'chi2' or 'log'"),
        ({"positivity": {"weight": -1.0}}, "'positivity.weight': .* greater than or equal to 0"),
        ({"positivity": {"decay": 1.5}}, "'positivity.decay': .* less than or equal to 1"),
    ],
)
def test_faulty_settings(tree, message):
    with pytest.raises(LensphysError, match=message):
        PhysicsLossSettings.parse(tree, "loss")


# ---------------------------------------------------------------- image losses


@pytest.mark.parametrize(
    ("kind", "expected", "at_truth"),
    [("l1", 1.5, 0.0), ("mse", 4.5, 0.0), ("charbonnier", (math.sqrt(9 + 1e-6) + 1e-3) / 2, 1e-3)],
)
def test_image_losses(kind, expected, at_truth):
    target = torch.zeros(2, 1, 3, 4, dtype=torch.float64)
    image = target.clone()
    image[:, :, :, ::2] = -3.0
    image.requires_grad_()
    loss = ImageLossSettings(kind=kind)
    assert float(loss(target, target)) == pytest.approx(at_truth, abs=1e-12)
    value = loss(image, target)
    assert float(value.detach()) == pytest.approx(expected)
    (slope,) = torch.autograd.grad(value, image)
    assert float(slope.max()) == 0 and float(slope.min()) < 0  # towards the target, and only where they differ


def test_image_losses_refuse_another_shape():
    with pytest.raises(LensphysError, match=r"image and target must have the same shape, got \(1, 1, 4, 4\) and"):
        ImageLossSettings()(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5))
