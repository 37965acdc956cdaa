"""What the shipped default is worth on a few fixed images: PSNR, theta_E, false sub-halos and verdicts, as bars."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from lenses import one_thread, psnr  # noqa: F401

from lensphys.data.lens_file import LensFile
from lensphys.methods import READY
from lensphys.prediction import Prediction
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.writer import simulate

# sources that are no Sersics: spirals with arms and knots, drawn, as they come with the recipe; Euclid VIS
ROWS = {"no_sub": 0, "cdm": 2}


@pytest.fixture(scope="module")
def spirals(tmp_path_factory):
    path = tmp_path_factory.mktemp("spirals") / "spirals.h5"
    with LensFile(simulate(Recipe.named("model_4", []), 2, path, seed=11)) as lenses:
        yield lenses


@cache
def default(lenses: LensFile, row: int) -> Prediction:
    return READY["refine"].predict(lenses.observation([row]), 2)


def truth(lenses: LensFile, row: int) -> torch.Tensor:
    return torch.as_tensor(lenses.read("hr_clean", [row])) * float(lenses.read("flux_scale", row)[0])


def gain(lenses: LensFile, row: int, found: Prediction) -> float:
    bicubic = READY["bicubic"].predict(lenses.observation([row]), 2)
    return float(psnr(found.image, truth(lenses, row)) - psnr(bicubic.image, truth(lenses, row)))


@pytest.mark.parametrize("row", [0, 3])
def test_a_smooth_lens_before_a_spiral_is_sharp_has_its_radius_and_no_subhalos(spirals, row):
    found, known = default(spirals, row), spirals.lens_model(row)["kwargs_lens"][0]["theta_E"]
    assert gain(spirals, row, found) > 6
    assert float(found.parameters["theta_E"]) == pytest.approx(known, rel=5e-3)
    assert int(found.parameters["subhalos"]) == 0
    assert found.verdicts[0].quality == "good"
    assert 0.9 < float(found.reduced_chi2(spirals.observation([row]))) < 1.1


def test_the_sigma_of_a_free_source_covers(spirals):
    inside = []
    for row in (0, 3):
        found, known = default(spirals, row), truth(spirals, row)
        arc = known > 0.05 * known.max()
        inside.append(float(((found.image - known).abs() < found.sigma)[arc].float().mean()))
    assert 0.5 < np.mean(inside) < 0.9


def test_restore_without_a_target_keeps_the_psf_and_does_not_lose_to_bicubic(spirals):
    found = READY["restore"].predict(spirals.observation([0]), 2)
    assert gain(spirals, 0, found) > 6


def test_a_sersic_keeps_the_noise_limit(tmp_path):
    with LensFile(simulate(Recipe.named("model_3", []), 1, tmp_path / "sersic.h5", seed=11)) as lenses:
        found = READY["refine"].predict(lenses.observation([0]), 2)
        assert float(psnr(found.image, truth(lenses, 0))) > 70
        assert int(found.parameters["subhalos"]) == 0
