"""Experiments: strict YAML -> typed settings, and the run folder that a training leaves behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import yaml
from pydantic import PositiveInt, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file

from lensphys import training
from lensphys.batches import Batches, FreshBatches, TrainingData
from lensphys.checks import LensphysError
from lensphys.data.lens_file import LensFile
from lensphys.methods import TrainableMethod, TrainableSettings
from lensphys.observation import Instrument
from lensphys.provenance import check_writable, provenance, whole_file, write_json
from lensphys.settings import Strict, override, read_yaml
from lensphys.simulation.plan import Plan
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.stream import LensStream
from lensphys.simulation.writer import simulate
from lensphys.training import CHECKPOINT, LOG, WEIGHTS, TrainingSettings

CONFIG, INSTRUMENT, PROVENANCE = "config.yaml", "instrument.yaml", "provenance.json"


class DataSettings(Strict):
    """Where the images come from: a file, or a recipe that is simulated into the run folder first.

    ``n`` samples of each class; ``set`` are recipe assignments like ``--set`` of ``lensphys simulate``. With ``fresh``
    nothing is written: each epoch has n new samples of each class, simulated as they are needed; a file with the same
    seed begins with the same samples, so judge on one with another seed.
    """

    file: str | None = None
    recipe: str | None = None
    fresh: bool = False
    n: PositiveInt = 100
    classes: list[str] | None = None
    seed: int = 1
    workers: PositiveInt = 1
    set: list[str] = []

    @model_validator(mode="after")
    def _one_origin(self) -> DataSettings:
        if (self.file is None) == (self.recipe is None):
            raise ValueError("give either 'file' or 'recipe' (--set data='{file: x.h5}' replaces the whole group)")
        if self.fresh and self.recipe is None:
            raise ValueError("fresh data come from a recipe, not from a file")
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


def training_data(settings: DataSettings, run: Path) -> Path:
    """Return the file of an experiment's data; those of a recipe are simulated into the run folder, if not done yet.

    Raises:
        LensphysError: if the recipe is faulty, or the folder holds other data.
    """
    path = _data_path(settings, run)
    if settings.recipe is not None:
        recipe = Recipe.named(settings.recipe, settings.set)
        simulate(recipe, settings.n, path, classes=settings.classes, seed=settings.seed, workers=settings.workers)
    return path


def _data_path(settings: DataSettings, run: Path) -> Path:
    return Path(settings.file) if settings.file is not None else run / "train.h5"


def train(experiment: Experiment, run: Path, *, resume: bool = False) -> None:
    """Train the method of an experiment in a run folder, on data that are simulated first where it names a recipe.

    See `training.train` for what the folder holds; besides ``config.yaml``, ``instrument.yaml``, ``provenance.json``
    and ``losses.png``.

    Args:
        experiment: the settings.
        run: the folder.
        resume: go on with the run that the folder holds, if any.

    Raises:
        LensphysError: if the folder holds a run and ``resume`` is not set, or holds another experiment's.
    """
    fabric = training.launch(experiment.training)
    if fabric.is_global_zero:  # the others find the data whole and the folder ready
        check_run(run, experiment, resume=resume)
        if not experiment.data.fresh:
            training_data(experiment.data, run)
    fabric.barrier()
    method = experiment.build()
    with _batches(experiment, run, method.needs_truth) as (batches, instrument):
        if fabric.is_global_zero:
            describe_run(run, experiment, instrument)
        training.train(fabric, method, batches, experiment.training, run)
    if fabric.is_global_zero:
        from lensphys.evaluation.figures import loss_figure, save_figure

        records = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
        save_figure(loss_figure(records), run / "losses.png")


@contextmanager
def _batches(experiment: Experiment, run: Path, needs_truth: bool) -> Iterator[tuple[TrainingData, Instrument]]:
    """The data of an experiment, and the instrument of its images."""
    data = experiment.data
    if data.fresh:
        recipe = Recipe.named(str(data.recipe), data.set)
        stream = LensStream(Plan.of(recipe, data.n, classes=data.classes, seed=data.seed))
        yield FreshBatches(stream, experiment.training, needs_truth=needs_truth), stream.instrument
        return
    with LensFile(_data_path(data, run)) as lenses:
        yield Batches(lenses, experiment.training, experiment.seed, needs_truth=needs_truth), lenses.instrument


def check_run(run: Path, experiment: Experiment, *, resume: bool) -> None:
    """Raise unless a folder is free, or may be gone on with.

    Raises:
        LensphysError: if the folder cannot be written, holds a run and ``resume`` is not asked for, or holds another
            experiment's.
    """
    check_writable(run)
    if (run / CHECKPOINT).exists() and not resume:
        raise LensphysError(f"{run} already holds a run: go on with it (--resume) or choose another folder")
    if (run / CONFIG).exists() and resume:
        before = Experiment.read(run / CONFIG, [])
        if _without_hardware(before) != _without_hardware(experiment):
            raise LensphysError(f"{run} holds a run with other settings ({CONFIG}): resume with the same ones")


def describe_run(run: Path, experiment: Experiment, instrument: Instrument) -> None:
    """Write the resolved experiment, the instrument of its images, and where the run comes from, into its folder."""
    tree = experiment.model_dump(mode="json")
    for name, comment, values in (
        (CONFIG, "The resolved experiment of this run.", tree),
        (INSTRUMENT, "The instrument of its images.", instrument.model_dump(mode="json")),
    ):
        with whole_file(run / name) as temporary:
            temporary.write_text(f"# {comment}\n{yaml.safe_dump(values, sort_keys=False)}")
    write_json(run / PROVENANCE, provenance(experiment=tree))


def run_instrument(run: Path) -> Instrument:
    """Return the instrument whose images a run was trained on.

    Raises:
        LensphysError: if the folder does not say.
    """
    return Instrument.named(str(run / INSTRUMENT))


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


def _without_hardware(experiment: Experiment) -> Experiment:
    """A run may go on with other devices or more epochs, but not with another method or other data."""
    machine = {"devices": 1, "nodes": 1, "accelerator": "auto", "epochs": 1, "tracker": "tensorboard"}
    settings = experiment.training.model_copy(update=machine)
    data = experiment.data.model_copy(update={"workers": 1})
    return experiment.model_copy(update={"training": settings, "data": data})
