"""Skies that are not at zero: measured along the borders, told or taken off, and never good in silence."""

import re

import numpy as np
import pytest
import torch
from astropy.io import fits
from lenses import one_thread  # noqa: F401
from typer.testing import CliRunner

from lensphys.basics.checks import LensphysError
from lensphys.cli import app
from lensphys.data.images import Reading, read_images
from lensphys.fitting import FitModel
from lensphys.methods import RefinedFit
from lensphys.model import SIE, Sersic, Shear
from lensphys.observation import Camera, ErrorMap, GaussianPSF, Observation
from lensphys.observation.sky import darkest_border, sky_level
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.writer import simulate
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid

SIGMA, LEVEL = 0.1, 0.3


def sky(seed: int = 0, height: int = 40, width: int = 44) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, SIGMA, (height, width)).astype(np.float32)


def with_arc(image: np.ndarray) -> np.ndarray:
    """A ring in the middle, and a star on the border."""
    y, x = np.indices(image.shape) - np.array([20, 22])[:, None, None]
    ring = 5 * np.exp(-((np.hypot(x, y) - 9) ** 2) / 4)
    return image + ring.astype(np.float32) + 20 * np.exp(-((x - 19) ** 2 + (y + 2) ** 2) / 3).astype(np.float32)


@pytest.mark.parametrize("level", [-LEVEL, 0.0, LEVEL])
def test_the_level_is_that_of_the_border_alone(level):
    found = sky_level(with_arc(sky() + level))
    assert abs(found.level - level) < 4 * found.error < 0.03 and found.scatter == pytest.approx(SIGMA, rel=0.1)
    assert found.off == (level != 0)


def test_the_darkest_part_of_the_borders_is_sky_where_an_arc_crosses_the_others():
    image = with_arc(sky() + LEVEL)
    image[:, 35:] += np.linspace(0, 9, 40)[:, None]
    assert darkest_border(image) == pytest.approx(LEVEL, abs=0.06)
    assert darkest_border(image, np.arange(40)[:, None] > np.zeros(44) + 36) is None


def test_masked_pixels_are_no_sky_and_too_few_are_none():
    image, where = sky() + LEVEL, np.ones((40, 44), bool)
    image[:4], where[:4] = 50.0, False
    assert sky_level(image, where).level == pytest.approx(LEVEL, abs=0.03)
    assert sky_level(image, np.zeros_like(where)) is None
    assert sky_level(np.full((8, 8), np.nan)) is None and sky_level(np.zeros((40, 40))) is None


def images(tmp_path, level: float, **options):
    fits.writeto(tmp_path / "a.fits", with_arc(sky() + level), fits.Header({"PIXSCALE": 0.1}), overwrite=True)
    return read_images(tmp_path / "a.fits", Reading(**options))


def test_it_is_told_and_kept_or_taken_off(tmp_path):
    told = [remark for remark in images(tmp_path, LEVEL).remarks if "--sky" in remark]
    assert len(told) == 1 and told[0].startswith("the borders are not at zero (0.30")
    assert not [remark for remark in images(tmp_path, 0.0).remarks if "sky" in remark]
    kept, taken = (images(tmp_path, LEVEL, sky=way).observation for way in ("keep", "subtract"))
    assert torch.equal(kept.image[0, 0], torch.from_numpy(with_arc(sky() + LEVEL)))
    assert float((kept.image - taken.image).mean()) == pytest.approx(LEVEL, abs=0.03)
    remarks = images(tmp_path, LEVEL, sky="subtract").remarks
    assert any(remark.startswith("the sky of the borders is taken off: 0.30") for remark in remarks)
    with pytest.raises(LensphysError, match="unknown --sky 'leave': choose one of keep, subtract"):
        images(tmp_path, LEVEL, sky="leave")


def test_each_image_of_a_stack_has_its_own(tmp_path):
    stack = np.stack([with_arc(sky(i) + level) for i, level in enumerate((0.0, LEVEL, -LEVEL))])
    np.save(tmp_path / "a.npy", stack)
    told = [r for r in read_images(tmp_path / "a.npy", Reading(pixel_scale=0.1)).remarks if "--sky" in r]
    assert len(told) == 1 and "not at zero in 2 images" in told[0]
    taken = read_images(tmp_path / "a.npy", Reading(pixel_scale=0.1, sky="subtract")).observation.image[:, 0].numpy()
    assert [abs(sky_level(image).level) < 0.01 for image in taken] == [True] * 3


def test_simulated_skies_are_at_zero(tmp_path):
    path = simulate(Recipe.named("model_2", ["height=16", "width=16"]), 2, tmp_path / "a.h5")
    assert not [remark for remark in read_images(path).remarks if "sky" in remark]


def test_the_command_takes_it_off_and_says_so(tmp_path):
    images(tmp_path, LEVEL)
    command = ["super-resolve", "a.fits", "-o", "b.fits", "--method", "bicubic", "--sky", "subtract"]
    command = [str(tmp_path / word) if word.endswith(".fits") else word for word in command]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0 and "note: the sky of the borders is taken off: 0.30" in result.output
    assert "the sky of the borders is taken off" in "".join(fits.getheader(tmp_path / "b.fits")["HISTORY"])


@pytest.mark.usefixtures("float64")
def test_a_fit_on_a_wrong_sky_is_not_good():
    def one(*values: float) -> list[torch.Tensor]:
        return [torch.tensor([value]) for value in values]

    camera = Camera(PixelGrid(40, 44, 0.1), GaussianPSF(0.12))
    mass = SIE(*one(1.1, 0.1, -0.05, 0.02, -0.03)) + Shear(*one(0.03, -0.02, 0.02, -0.03))
    clean = camera.render(
        Sersic(*one(5.0, 0.25, 1.0, 0.1, -0.1, 0.12, 0.08)),
        DeflectionField.from_lens(mass, camera.grid, like=torch.zeros(1)),
    )
    noise = ErrorMap(torch.full_like(clean, 0.02 * float(clean.max())))
    image = noise.sample(clean, torch.Generator().manual_seed(5))
    sigma = float(noise.sigma.mean())
    said = {"source": {"kind": "sersic"}, "subhalos": None, "potential": None}
    fit = RefinedFit(model=FitModel.parse(said, "mine"))
    for level in (0.0, 0.8, -0.4, 2.5, 6.0):  # of the higher ones the source takes all
        fitted = fit.predict(Observation(image + level * sigma, camera, noise), 2)
        told = [reason for reason in fitted.verdicts[0].reasons if "not at zero" in reason and "--sky" in reason]
        assert (fitted.verdicts[0].quality == "good") == (level == 0.0) == (not told), (level, fitted.verdicts)
        found = [float(re.findall(r"([+-][0-9.]+) sigma", reason)[0]) for reason in told]
        assert all(0.5 < x / level < 1.1 for x in found), (level, told)  # the source takes its part


def test_a_sky_that_is_cut_at_zero_has_the_level_of_its_mean():
    """As the counts of Model 1, of which half are zero: clipped pixel by pixel they would be a third of a sigma low."""
    sky = np.random.default_rng(1).normal(size=(75, 75)).clip(0) - 1 / np.sqrt(2 * np.pi)
    level = sky_level(sky, width=75)
    assert level is not None and not level.off
    assert abs(level.level) < 0.05 * sky.std()
