"""Transfer learning: starting from a run, freezing parts, and schedules of phases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from lenses import one_thread  # noqa: F401
from safetensors.torch import load_file
from typer.testing import CliRunner

from lensphys.basics.checks import LensphysError
from lensphys.basics.runs import LOG, WEIGHTS
from lensphys.cli import app
from lensphys.methods import SupervisedMethod
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.writer import simulate
from lensphys.training.experiment import Experiment, train
from lensphys.training.loop import Phase, TrainingSettings, learning

METHOD = {"name": "supervised", "network": {"name": "srresnet", "channels": 4, "blocks": 1}}
PHASES = [{"epochs": 1, "learning_rate": 1e-2, "train": ["upsampling"]}, {"epochs": 1, "learning_rate": 1e-3}]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.h5"
    return simulate(Recipe.named("model_3", ["height=24", "width=24"]), 12, path, classes=["no_sub"])


def tree(file, **training) -> dict:
    training = {"epochs": 2, "batch_size": 4, "accelerator": "cpu", "schedule": "constant"} | training
    return {"data": {"file": str(file)}, "method": METHOD, "training": training}


def trained(file, run, **training) -> tuple[dict, dict]:
    """The weights before and after."""
    experiment = Experiment.parse(tree(file, **training), "test")
    before = {name: x.clone() for name, x in experiment.build().state_dict().items()}
    train(experiment, run)
    return before, load_file(run / WEIGHTS)


def test_only_the_named_parts_learn_and_frozen_normalisations_keep_what_they_know(file, tmp_path):
    frozen = ["network.head.", "network.body."]
    before, after = trained(file, tmp_path, epochs=1, phases=PHASES[:1])
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("network.tail.") for name in changed)
    assert any("running_mean" in name for name in before if name.startswith(tuple(frozen)))


def test_a_phase_without_names_trains_everything_at_its_own_rate(file, tmp_path):
    settings = Experiment.parse(tree(file, phases=PHASES), "test").training
    assert [settings.rate_at(epoch) for epoch in (0.0, 0.9, 1.0, 1.9)] == [1e-2, 1e-2, 1e-3, 1e-3]
    before, after = trained(file, tmp_path, phases=PHASES)
    assert not torch.equal(before["network.head.0.weight"], after["network.head.0.weight"])


def test_each_phase_has_a_cosine_of_its_own():
    phases = [Phase(epochs=2, learning_rate=1e-2), Phase(epochs=4, learning_rate=1e-3)]
    settings = TrainingSettings(epochs=6, phases=phases)
    assert settings.rate_at(1.0) == pytest.approx(1e-2 * (0.01 + 0.99 / 2))
    assert settings.rate_at(2.0) == pytest.approx(1e-3)
    assert settings.rate_at(4.0) == pytest.approx(1e-3 * (0.01 + 0.99 / 2))
    assert TrainingSettings(epochs=6, last_rate=0.5).rate_at(6.0) == pytest.approx(0.5e-3)
    assert TrainingSettings(epochs=6, last_rate=1.0).rate_at(3.7) == pytest.approx(1e-3)


def test_a_run_cut_between_phases_goes_on_with_the_same_losses(file, tmp_path):
    def losses(run: Path) -> list[float]:
        return [json.loads(line)["loss"] for line in (run / LOG).read_text().splitlines()]

    whole = Experiment.parse(tree(file, phases=PHASES), "test")
    train(whole, tmp_path / "whole")
    run = tmp_path / "cut"
    terms = SupervisedMethod.training_terms

    def interrupted(self, batch, epoch):
        if epoch == 1 and self.training:
            raise KeyboardInterrupt
        return terms(self, batch, epoch)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SupervisedMethod, "training_terms", interrupted)
        train(whole, run)
    train(whole, run, resume=True)
    assert losses(run) == losses(tmp_path / "whole")


def test_names_that_fit_nothing_are_refused(file):
    method = Experiment.parse(tree(file), "test").build()
    assert learning(method, ["network.head.*"]) == {n for n, _ in method.named_parameters() if "head" in n}
    with pytest.raises(LensphysError, match=r"'network.feet.\*' names no parameter, there are network.head.\*"):
        learning(method, ["network.feet.*"])


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"epochs": 5, "phases": PHASES}, "the phases have 2 epochs together, but 'epochs' says 5"),
        ({"minutes": 1.0, "phases": PHASES}, "phases count epochs: leave out 'minutes'"),
    ],
)
def test_schedules_that_contradict_themselves(file, training, message):
    with pytest.raises(LensphysError, match=message):
        Experiment.parse(tree(file, **training), "test")


def test_the_command_line_starts_from_a_run_with_another_way_of_learning(file, tmp_path):
    """Pre-training, then fine-tuning in phases; and a network of the user's own."""
    config, runner = tmp_path / "pre.yaml", CliRunner()
    config.write_text(yaml.safe_dump(tree(file, epochs=1)))
    done = runner.invoke(app, ["train", str(config), "-o", str(tmp_path / "pre")])
    assert done.exit_code == 0, done.output
    config.write_text(yaml.safe_dump(tree(file, phases=PHASES)))
    done = runner.invoke(app, ["train", str(config), "-o", str(tmp_path / "fine"), "--from", str(tmp_path / "pre")])
    assert done.exit_code == 0, done.output
    assert yaml.safe_load((tmp_path / "fine" / "config.yaml").read_text())["start"] == str(tmp_path / "pre")
    pre, fine = (load_file(tmp_path / run / WEIGHTS) for run in ("pre", "fine"))
    assert set(pre) == set(fine) and not torch.equal(pre["network.head.0.weight"], fine["network.head.0.weight"])


def test_a_network_of_ones_own_trains_by_its_name(file, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    config = tmp_path / "mine.yaml"
    mine = {"name": "supervised", "network": {"name": "my_network:MyNetworkSettings", "channels": 4}}
    config.write_text(yaml.safe_dump(tree(file, epochs=1) | {"method": mine}))
    asked = ["train", str(config), "-o", str(tmp_path / "mine")]
    refused = CliRunner().invoke(app, asked)
    assert refused.exit_code == 2 and "--trust my_network:MyNetworkSettings" in refused.output
    done = CliRunner().invoke(app, [*asked, "--trust", "my_network:MyNetworkSettings"])
    assert done.exit_code == 0 and "my_network:MyNetworkSettings" in done.output, done.output


def test_a_network_that_makes_images_starts_none_that_corrects_them(file, tmp_path):
    train(Experiment.parse(tree(file, epochs=1), "test"), tmp_path / "pre")
    other = tree(file) | {"start": str(tmp_path / "pre"), "method": METHOD | {"base": "bicubic"}}
    with pytest.raises(LensphysError, match="its network makes the whole image, this one corrects a bicubic image"):
        Experiment.parse(other, "test").build()


def test_a_phase_trains_something(file):
    with pytest.raises(LensphysError, match="training.phases.0.train"):
        Experiment.parse(tree(file, phases=[PHASES[0] | {"train": []}, PHASES[1]]), "test")
