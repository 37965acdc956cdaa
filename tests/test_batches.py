"""Batches drawn from a recipe on the fly: new in each epoch, the same for the same seed, the same as in a file."""

from __future__ import annotations

import pytest
import torch
import yaml

from lensphys.basics.checks import LensphysError
from lensphys.basics.runs import LOG
from lensphys.data import LensFile
from lensphys.simulation import Recipe, simulate
from lensphys.simulation.plan import Plan
from lensphys.simulation.stream import LensStream
from lensphys.training.batches import BatchSettings, FreshBatches, Together
from lensphys.training.experiment import Experiment, load_run, train

SMALL = ["height=32", "width=24"]
CPU = torch.device("cpu")


def stream(recipe: str = "model_3", n: int = 6) -> LensStream:
    return LensStream(Plan.from_recipe(Recipe.named(recipe, SMALL), n, seed=3))


@pytest.mark.parametrize("recipe", ["model_1", "model_3", "varied"])
def test_a_stream_begins_with_the_samples_of_the_file(recipe, tmp_path):
    path = simulate(Recipe.named(recipe, SMALL), 4, tmp_path / "a.h5", seed=3)
    observation, truth = stream(recipe).read([0, 5, 7], CPU)
    with LensFile(path) as file:
        there = file.observation([0, 5, 7])
        scale = torch.from_numpy(file.read("flux_scale", [0, 5, 7]))[:, None, None, None]
        # another batch, another order of sums
        torch.testing.assert_close(observation.image, there.image, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(truth, (torch.from_numpy(file.read("hr", [0, 5, 7])) * scale).float())
        variance = (o.noise.variance(o.image) for o in (observation, there))
        torch.testing.assert_close(*variance, rtol=1e-4, atol=1e-6)
        assert observation.camera.grid == there.camera.grid


def test_no_epoch_sees_an_image_again_and_validation_stays():
    batches = FreshBatches(stream(), BatchSettings(batch_size=4), needs_truth=True)
    epochs = [torch.cat(batches.of_epoch(e, 0, 1)).tolist() for e in range(3)]
    held_out = torch.cat(batches.of_validation(0, 1)).tolist()
    assert len({*epochs[0], *epochs[1], *epochs[2], *held_out}) == 3 * 16 + 2
    halves = [torch.cat(batches.of_epoch(1, rank, 2)).tolist() for rank in (0, 1)]
    assert sorted(halves[0] + halves[1]) == epochs[1]
    first, again = (batches.read(torch.tensor(held_out), CPU).observation.image for _ in range(2))
    assert torch.equal(first, again) and not torch.equal(
        first, batches.read(torch.tensor([0, 1]), CPU).observation.image
    )
    assert (
        FreshBatches(stream(), BatchSettings(batch_size=4), needs_truth=False).read(torch.tensor([0]), CPU).truth
        is None
    )


def test_an_epoch_shorter_than_a_batch_is_refused():
    with pytest.raises(LensphysError, match="an epoch of 18 fresh images is shorter than a batch of 20"):
        FreshBatches(stream(), BatchSettings(batch_size=20), needs_truth=False)


def test_data_sets_of_two_telescopes_train_one_network(tmp_path):
    wide = [*SMALL, "height=40"]
    other = {"recipe": "model_3", "n": 4, "set": wide, "seed": 5}
    settings = experiment(more_data=[other], recipe="model_3", n=8, set=SMALL)
    train(settings, tmp_path / "a")
    assert sorted(p.name for p in (tmp_path / "a").glob("*.h5")) == ["train.h5", "train_2.h5"]
    method = load_run(tmp_path / "a")
    assert method.validity is not None and method.validity.images == 36
    assert method.validity.height.low == pytest.approx(2.56) and method.validity.height.high == pytest.approx(3.2)
    assert (tmp_path / "a" / "instrument.yaml").exists()  # they share it


def test_a_batch_is_of_one_data_set_and_an_epoch_has_all_of_both():
    one = FreshBatches(stream(), BatchSettings(batch_size=4), needs_truth=False)
    recipe = Recipe.named("varied", ["height=40", "width=40"])
    two = FreshBatches(LensStream(Plan.from_recipe(recipe, 4, seed=3)), BatchSettings(batch_size=4), needs_truth=False)
    both = Together([one, two], seed=0)
    epoch = both.of_epoch(1, 0, 1)
    assert len(epoch) == len(one.of_epoch(1, 0, 1)) + len(two.of_epoch(1, 0, 1))
    assert len(torch.cat(epoch).unique()) == sum(map(len, epoch))
    heights = [both.read(index, CPU).observation.image.shape[-2] for index in epoch]
    assert sorted(heights) == [32] * 4 + [40] * 3 and heights != sorted(heights)
    halves = [both.of_epoch(1, rank, 2) for rank in (0, 1)]
    assert len(halves[0]) == len(halves[1]) and not set(torch.cat(halves[0]).tolist()) & set(
        torch.cat(halves[1]).tolist()
    )
    assert len(torch.cat(both.of_validation(0, 1))) == one.held_out + two.held_out
    assert both.validity is not None and both.validity.images == one.validity.images + two.validity.images


def experiment(more_data=(), **data) -> Experiment:
    method = {"name": "supervised", "network": {"name": "srresnet", "channels": 4, "blocks": 1}}
    training = {"epochs": 3, "batch_size": 6, "accelerator": "cpu", "learning_rate": 1e-2}
    tree = {"data": data, "more_data": list(more_data), "method": method, "training": training}
    return Experiment.parse(tree, "test")


def test_training_on_fresh_data_leaves_no_file_and_goes_on_where_it_was(tmp_path):
    settings = experiment(recipe="model_3", fresh=True, n=8, set=SMALL)
    train(settings, tmp_path / "a")
    rows = (tmp_path / "a" / LOG).read_text().splitlines()
    assert len(rows) == 3 and not list((tmp_path / "a").glob("*.h5"))
    assert load_run(tmp_path / "a").scale == 2
    assert "pixel_scale: 0.08" in (tmp_path / "a" / "instrument.yaml").read_text()
    other = experiment(recipe="model_3", fresh=True, n=8, set=[*SMALL, "source.n_sersic=2.0"])
    config = yaml.safe_dump(other.model_dump(mode="json"))
    (tmp_path / "a" / "config.yaml").write_text(config)  # or it says so before the checkpoint does
    with pytest.raises(LensphysError, match="was trained on other data than the stream of"):
        train(other, tmp_path / "a", resume=True)


def test_fresh_data_need_a_recipe():
    with pytest.raises(LensphysError, match="fresh data come from a recipe, not from a file"):
        experiment(file="a.h5", fresh=True)


def test_a_training_step_on_fresh_data_is_deterministic(tmp_path):
    for name in "ab":
        train(experiment(recipe="varied", fresh=True, n=4, set=SMALL), tmp_path / name)
    logs = [[line.split('"seconds"')[0] for line in (tmp_path / n / LOG).read_text().splitlines()] for n in "ab"]
    assert logs[0] == logs[1]
