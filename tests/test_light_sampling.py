"""Points a pixel: chosen by the error of fewer, told in the file, and what the doctor is content with."""

import pytest
import torch

from lensphys.data import LensFile
from lensphys.evaluation.doctor import diagnose
from lensphys.observation import Conditions, Instrument
from lensphys.simulation.light_sampling import POINTS, LightSampling, with_enough_points
from lensphys.simulation.plan import Plan
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.torch_engine import TorchEngine
from lensphys.simulation.writer import simulate

SMALL = ["height=24", "width=24"]
BRIGHT = ["source.n_sersic=2.4", "source.R_sersic=0.12", "source.magnitude=22"]
SHARP = Recipe.named("hsc_hst_ideal", SMALL + BRIGHT)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan.from_recipe(SHARP, 8)


def of_points(points: int, folder) -> Recipe:
    telescope = Instrument.named("hsc_i").model_copy(update={"supersampling": points})
    path = folder / f"hsc_{points}.yaml"
    path.write_text(telescope.model_dump_json(exclude_none=True))
    return Recipe.named("hsc_hst_ideal", [*SMALL, *BRIGHT, f"instrument={path}"])


def test_sharp_sources_get_more_points(plan):
    assert plan.instrument.supersampling in POINTS[POINTS.index(8) :]
    scenes = [plan.drawn(i) for i in range(8)]

    def rendered(points: int) -> torch.Tensor:
        telescope = plan.instrument.model_copy(update={"supersampling": points})
        return TorchEngine(SHARP, telescope).render([d.scene for d in scenes], Conditions()).lr.double()

    truth = rendered(48)
    sigma = plan.instrument.noise_of(truth.float()).variance(truth.float()).double().sqrt()
    few, enough = (
        ((rendered(points) - truth) / sigma).square().sum((1, 2, 3)).max() for points in (4, plan.instrument.points)
    )
    assert few > 100 and enough < 2 * LightSampling().unseen


def test_smooth_sources_keep_few_points():
    changes = ["lens_light=[]", "source.n_sersic=0.7", "source.R_sersic=0.4"]
    assert (
        Plan.from_recipe(Recipe.named("lsst", [*SMALL, *changes]), 1).instrument.supersampling == LightSampling().fewest
    )


def test_a_number_that_is_given_stays(tmp_path):
    for recipe, points in (("model_2", 1), ("corrected_1", 4)):
        assert Plan.from_recipe(Recipe.named(recipe, SMALL), 1).instrument.supersampling == points
    assert Plan.from_recipe(of_points(3, tmp_path), 1).instrument.supersampling == 3


def test_every_part_of_a_data_set_has_the_same(plan):
    other = Plan.from_recipe(SHARP, 3, seed=7, classes=[list(SHARP.classes)[-1]], shard_size=1)
    assert other.instrument == plan.instrument


def test_the_file_says_it_and_the_doctor_agrees(plan, tmp_path):
    path = simulate(SHARP, 8, tmp_path / "a.h5")
    with LensFile(path) as file:
        assert file.instrument.supersampling == plan.instrument.supersampling
        assert file.observation([0]).camera.supersampling == plan.instrument.supersampling
    assert "coarse_light" not in [finding.name for finding in diagnose(path)]
    coarse = simulate(of_points(4, tmp_path), 8, tmp_path / "b.h5")
    (found,) = (finding for finding in diagnose(coarse) if finding.name == "coarse_light")
    assert found.severity == "warning" and "light of 4 x 4 points a pixel" in found.message
    assert "`supersampling: auto`" in found.remedy


def test_fits_begin_somewhere():
    telescope = Instrument.named("hsc_i")
    assert telescope.supersampling == "auto" and telescope.points == telescope.camera(8, 8).supersampling == 4
    assert telescope.same_as(telescope.model_copy(update={"supersampling": 12}))
    assert not telescope.same_as(Instrument.named("des_i")) and not telescope.same_as(None)


def test_it_goes_no_further_than_the_error_asks(plan):
    build = plan.engine_for
    loose, tight = (
        with_enough_points(SHARP, Instrument.named("hsc_i"), build, LightSampling(unseen=x, drawn=16)).points
        for x in (1e9, 1e-9)
    )
    assert (loose, tight) == (4, POINTS[-1])
