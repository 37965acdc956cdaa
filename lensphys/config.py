"""Experiments: strict YAML -> typed settings, and the run folder that a training leaves behind (floor 11)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import PositiveInt, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file

from lensphys import training
from lensphys.checks import LensphysError
from lensphys.data.lens_file import LensFile
from lensphys.methods import TrainableMethod, TrainableSettings
from lensphys.provenance import provenance, whole_file, write_json
from lensphys.settings import Strict, override, read_yaml
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.writer import simulate
from lensphys.training import CHECKPOINT, LOG, WEIGHTS, TrainingSettings

CONFIG = "config.yaml"


class DataSettings(Strict):
    """Where the images come from: a file, or a recipe that is simulated into the run folder first.

    ``n`` samples of each class; ``set`` are recipe assignments like ``--set`` of ``lensphys simulate``.
    """

    file: str | None = None
    recipe: str | None = None
    n: PositiveInt = 100
    classes: list[str] | None = None
    seed: int = 1
    workers: PositiveInt = 1
    set: list[str] = []

    @model_validator(mode="after")
    def _one_origin(self) -> DataSettings:
        if (self.file is None) == (self.recipe is None):
            raise ValueError("give either 'file' or 'recipe'")
        return self


class Experiment(Strict):
    """A training: data, method and how it is trained."""

    seed: int = 0
    data: DataSettings
    method: TrainableSettings
    training: TrainingSettings

    @classmethod
    def read(cls, path: Path, assignments: list[str]) -> Experiment:
        """Return the experiment of a YAML file, with ``a.b=value`` assignments applied.

        Raises:
            LensphysError: naming each faulty key.
        """
        return cls.parse(override(read_yaml(path), assignments), str(path))

    def build(self) -> TrainableMethod:
        """Return the method with fresh weights, the same ones for the same seed."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return self.method.build()


def training_data(settings: DataSettings, run: Path) -> LensFile:
    """Return the data of an experiment; those of a recipe are simulated into the run folder, if not done yet.

    Raises:
        LensphysError: if the file is missing or foreign, or the recipe is faulty.
    """
    if settings.file is not None:
        return LensFile(settings.file)
    recipe = Recipe.named(str(settings.recipe), settings.set)
    path = run / "train.h5"
    return LensFile(
        simulate(recipe, settings.n, path, classes=settings.classes, seed=settings.seed, workers=settings.workers)
    )


def train(experiment: Experiment, method: TrainableMethod, lenses: LensFile, run: Path, *, resume: bool) -> None:
    """Train a method in a run folder: see `training.train` for what the folder holds.

    Args:
        experiment: the settings, written into the folder.
        method: built from them.
        lenses: the data.
        run: the folder.
        resume: go on with the run that the folder holds, if any.

    Raises:
        LensphysError: if the folder holds a run and ``resume`` is not set, or holds another experiment's.
    """
    open_run(run, experiment, resume=resume)
    training.train(method, lenses, experiment.training, run, seed=experiment.seed)
    from lensphys.evaluation.figures import loss_figure, save_figure

    save_figure(loss_figure([json.loads(line) for line in (run / LOG).read_text().splitlines()]), run / "losses.png")


def open_run(run: Path, experiment: Experiment, *, resume: bool) -> None:
    """Make a run folder, or check that it may be gone on with.

    Raises:
        LensphysError: if the folder holds a run and ``resume`` is not asked for, or holds another experiment's.
    """
    config = run / CONFIG
    tree = experiment.model_dump(mode="json", exclude_none=True)
    if (run / CHECKPOINT).exists() and not resume:
        raise LensphysError(f"{run} already holds a run: go on with it (--resume) or choose another folder")
    if config.exists() and resume and _without_hardware(read_yaml(config)) != _without_hardware(tree):
        raise LensphysError(f"{run} holds a run with other settings ({config}): resume with the same ones")
    with whole_file(config) as temporary:
        temporary.write_text("# The resolved experiment of this run.\n" + yaml.safe_dump(tree, sort_keys=False))
    write_json(run / "provenance.json", provenance(experiment=tree))


def load_run(run: Path) -> TrainableMethod:
    """Return the trained method of a run folder, with its best weights, in evaluation mode.

    Raises:
        LensphysError: if the folder holds no finished epoch, or its weights do not fit its config.
    """
    if not run.is_dir():
        raise LensphysError(f"run folder not found: {run}")
    if not (run / WEIGHTS).exists():
        raise LensphysError(f"{run} holds no trained weights ({WEIGHTS}): train it first with 'lensphys train'")
    method = Experiment.parse(read_yaml(run / CONFIG), str(run / CONFIG)).method.build()
    try:
        method.load_state_dict(load_file(run / WEIGHTS))
    except (RuntimeError, SafetensorError, OSError) as error:
        raise LensphysError(f"{run / WEIGHTS} does not fit {CONFIG}: {' '.join(str(error).split())}") from None
    return method.eval()


def _without_hardware(tree: dict[str, Any]) -> dict[str, Any]:
    """A run may go on with other devices or more epochs, but not with another method or other data."""
    training = {k: v for k, v in tree["training"].items() if k not in ("devices", "nodes", "accelerator", "epochs")}
    data = {k: v for k, v in tree["data"].items() if k != "workers"}
    return {**tree, "training": training, "data": data}
