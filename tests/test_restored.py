"""The restoration of real galaxies: the fitted lens and Richardson-Lucy, each for its share."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lenses import (
    Lenses,
    model_lenses,
    one_thread,  # noqa: F401
)

from lensphys.methods import READY, Restoration, RichardsonLucy
from lensphys.observation import GaussianPSF


@pytest.fixture(scope="module")
def lenses() -> Lenses:
    return model_lenses("model_3")


def error(image: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    return (image - truth).square().sum((1, 2, 3)) / truth.square().sum((1, 2, 3))


def test_where_the_lens_explains_the_image_it_is_far_better_than_a_deconvolution(lenses):
    observation = lenses.observation
    observation = replace(observation, camera=replace(observation.camera, target_psf=observation.camera.psf))
    truth = observation.camera.at(2).render(lenses.source, lenses.field(2))
    found = error(Restoration(iterations=28).predict(observation, 2).image, truth)
    plain = error(RichardsonLucy(iterations=28).predict(observation, 2).image, truth)
    assert bool((found < 0.5 * plain).all()), (found, plain)


def test_more_iterations_are_not_taken_where_they_fit_the_noise(lenses):
    observation = lenses.observation
    chi2 = observation.chi2(Restoration(iterations=700).predict(observation, 2).observed) / observation.n_unmasked
    overfitted = (
        observation.chi2(RichardsonLucy(iterations=700).predict(observation, 2).observed) / observation.n_unmasked
    )
    assert bool((overfitted < 0.3).all()) and bool((chi2 > 0.6).all()), (chi2, overfitted)


def test_the_image_comes_on_the_target_psf_with_the_lens_that_was_fitted(lenses):
    sharp = GaussianPSF(0.05)
    observation = replace(lenses.observation, camera=replace(lenses.observation.camera, target_psf=sharp))
    found = READY["restore"].predict(observation, 2)
    assert found.camera.psf == sharp
    assert found.deflection is not None
    torch.testing.assert_close(found.parameters["theta_E"], READY["fit"].predict(observation, 2).parameters["theta_E"])
