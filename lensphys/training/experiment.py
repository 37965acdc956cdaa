"""Experiments: strict YAML -> typed settings, and the run folder that a training leaves behind."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from pydantic import PositiveInt, model_validator

from lensphys.basics.checks import LensphysError
from lensphys.basics.extras import need
from lensphys.basics.lock import sole_run
from lensphys.basics.outputs import check_writable, whole_file, write_json
from lensphys.basics.provenance import provenance
from lensphys.basics.remote import local
from lensphys.basics.runs import (
    CHECKPOINT,
    CONFIG,
    INSTRUMENT,
    PROVENANCE,
    VALIDITY,
    WEIGHTS,
    check_trained,
    load_weights,
    read_log,
    run_settings,
    start_from,
)
from lensphys.basics.settings import Strict
from lensphys.basics.trust import trusting
from lensphys.data.lens_file import LensFile
from lensphys.data.pixels import left_out
from lensphys.methods import Trainable, TrainableMethod, TrainableSettings
from lensphys.methods.ranking.losses import trained_ranker
from lensphys.methods.ranking.rank_set import RankSet
from lensphys.observation import Instrument
from lensphys.observation.validity import Validity
from lensphys.simulation.plan import Plan
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.stream import LensStream
from lensphys.simulation.writer import simulate
from lensphys.training import loop
from lensphys.training.batches import Batches, FreshBatches, RankBatches, Together, TrainingData
from lensphys.training.loop import TrainingSettings

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_MOST_PARAMETERS = 1_000_000_000  # 4 GB: the largest network of ours as published has 43 million


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

    @property
    def unused(self) -> str | None:
        """A sentence on settings that do nothing beside a file; None where there are none."""
        keys = [key for key in ("classes", "set") if getattr(self, key)] if self.file is not None else []
        if not keys:
            return None
        return (
            f"{' and '.join(map(repr, keys))} of data choose from a recipe, and all lenses of {self.file} are used: "
            "leave that out, or give a file of the lenses that you want"
        )

    @model_validator(mode="after")
    def _one_origin(self) -> DataSettings:
        if (self.file is None) == (self.recipe is None):
            raise ValueError("give either 'file' or 'recipe' (--set data='{file: x.h5}' replaces the whole group)")
        if self.fresh and self.recipe is None:
            raise ValueError("fresh data come from a recipe, not from a file")
        return self


class Experiment(Strict):
    """A training: data, method and how it is trained.

    ``start``: a run folder whose weights the training starts from; what its method does not have stays fresh.
    ``more_data``: of other telescopes, pixels or fields, say; each batch is of one data set.
    """

    seed: int = 0
    start: str | None = None
    data: DataSettings
    more_data: list[DataSettings] = []
    method: TrainableSettings
    training: TrainingSettings

    @classmethod
    def from_yaml(cls, path: str | Path, assignments: Sequence[str] = (), *, trust: Collection[str] = ()) -> Experiment:
        """Return the experiment of a YAML file, with ``a.b=value`` assignments applied.

        Args:
            path: the file.
            assignments: laid over it.
            trust: classes of others that it may name, as ``module:Class``: see `lensphys.basics.trust`.

        Raises:
            LensphysError: naming each faulty key.
        """
        with trusting(trust):
            return super().from_yaml(path, assignments)

    @property
    def named_data(self) -> dict[str, DataSettings]:
        """All data sets, by the names that their files have where they are simulated."""
        return {"train": self.data} | {f"train_{i}": data for i, data in enumerate(self.more_data, 2)}

    @property
    def runs(self) -> list[Path]:
        """The run folders that the training builds on: its start, and what its losses look with."""
        inner = [getattr(self.method, part, None) for part in ("perceptual", "rank")]
        return [Path(run) for run in (self.start, *(getattr(x, "run", None) for x in inner)) if run is not None]

    def check_losses(self) -> None:
        """Raise unless the frozen networks that the losses look with can be loaded.

        Raises:
            LensphysError: if a run is missing or holds another kind of network.
        """
        perceptual, rank = getattr(self.method, "perceptual", None), getattr(self.method, "rank", None)
        if perceptual is not None:
            perceptual.extractor()
        if rank is not None:
            trained_ranker(Path(rank.run))

    def build(self) -> Trainable[Any]:
        """Return the method as its training starts: fresh weights, the same ones for the same seed, or those of a run.

        Raises:
            LensphysError: if the run to start from is not there or does not fit.
        """
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            method = built(self.method)
        if self.start is not None:
            start_from(method, Path(self.start))
            check_base(self.method, run_settings(Path(self.start))["method"].get("base"), self.start)
        return method


def built(settings: TrainableSettings) -> Trainable[Any]:
    """Return a method with fresh weights, once it is known to be of a bearable size.

    Raises:
        LensphysError: if it has more than 10^9 parameters.
    """
    try:
        with torch.random.fork_rng(), torch.device("meta"):  # which has shapes and no memory
            size = sum(p.numel() for p in settings.build().parameters())
    except (RuntimeError, OverflowError, MemoryError):
        size = _MOST_PARAMETERS + 1
    if size > _MOST_PARAMETERS:
        raise LensphysError(
            f"the method {settings.name} would have more than {_MOST_PARAMETERS:.0e} parameters: lower the widths and "
            "numbers of layers of its networks"
        )
    return settings.build()


def check_base(method: TrainableSettings, base: str | None, start: str) -> None:
    """Raise unless a network corrects the image that the network corrected from whose weights it starts.

    Args:
        method: the settings.
        base: what the other one's network adds to, None if it makes the image itself.
        start: what messages call the other one.

    Raises:
        LensphysError: if the two differ.
    """
    own = getattr(method, "base", None)
    if own != base:
        raise LensphysError(
            f"cannot start from {start}: its network {_task(base)}, this one {_task(own)}: set method.base to it"
        )


def _task(base: str | None) -> str:
    return "makes the whole image" if base is None else f"corrects a {base} image"


def training_data(settings: DataSettings, run: Path, name: str = "train") -> Path:
    """Return the file of an experiment's data; those of a recipe are simulated into the run folder, if not done yet.

    Args:
        settings: of the data.
        run: the folder.
        name: of the file that is simulated, without its suffix.

    Raises:
        LensphysError: if the recipe is faulty, or the folder holds other data.
    """
    path = data_path(settings, run, name)
    if settings.recipe is not None:
        recipe = Recipe.named(settings.recipe, settings.set)
        simulate(recipe, settings.n, path, classes=settings.classes, seed=settings.seed, workers=settings.workers)
    return path


def data_path(settings: DataSettings, run: Path, name: str = "train") -> Path:
    """Return where the data of an experiment lie, or will lie: see `training_data`."""
    return local(settings.file) if settings.file is not None else run / f"{name}.h5"


def train(experiment: Experiment, run: Path, *, resume: bool = False) -> None:
    """Train the method of an experiment in a run folder, on data that are simulated first where it names a recipe.

    See `loop.train` for what the folder holds; besides ``config.yaml``, ``instrument.yaml``, ``provenance.json``
    and ``losses.png``.

    Args:
        experiment: the settings.
        run: the folder.
        resume: continue the run that the folder holds, if any.

    Raises:
        LensphysError: if the folder holds a run and ``resume`` is not set, or holds another experiment's.
    """
    experiment.check_losses()
    need(experiment.training.tracker, "lensphys train")
    need("matplotlib", "lensphys train", "train")
    begun = (run / CHECKPOINT).exists()  # the checkpoint has everything
    method = (experiment.model_copy(update={"start": None}) if begun else experiment).build()
    fabric = loop.launch(experiment.training, len(method.players))
    with _claimed(run) if fabric.is_global_zero else nullcontext():
        _train(fabric, experiment, method, run, resume=resume)


@contextmanager
def _claimed(run: Path) -> Iterator[None]:
    check_writable(run)
    with sole_run(run):
        yield


def _train(fabric: Fabric, experiment: Experiment, method: Trainable[Any], run: Path, *, resume: bool) -> None:
    if fabric.is_global_zero:  # the others find the data whole and the folder ready
        check_run(run, experiment, resume=resume)
        for name, data in experiment.named_data.items():
            if not data.fresh:
                training_data(data, run, name)
    fabric.barrier()
    with _batches(experiment, run, method) as (batches, instrument):
        if fabric.is_global_zero:
            for part in batches.parts:
                for sentence in left_out(part.name, part.unusable):
                    print(f"note: {sentence}", file=sys.stderr)

        def describe() -> None:  # only then: a run that is not gone on with stays what it says
            if fabric.is_global_zero:
                describe_run(run, experiment, instrument, batches)

        with torch.random.fork_rng():  # noise of the training itself: each process has its own
            torch.manual_seed(experiment.seed + 1 + fabric.global_rank)
            loop.train(fabric, method, batches, experiment.training, run, begun=describe)
    records = read_log(run)
    if fabric.is_global_zero and records:
        from lensphys.basics.panels import save_figure
        from lensphys.training.figures import loss_figure

        save_figure(loss_figure(records), run / "losses.png")


@contextmanager
def _batches(
    experiment: Experiment, run: Path, method: Trainable[Any]
) -> Iterator[tuple[TrainingData[Any], Instrument | None]]:
    """The data of an experiment, and the instrument of its images, where they come straight from a single one."""
    with ExitStack() as files:
        found = [_data_set(data, name, experiment, run, method, files) for name, data in experiment.named_data.items()]
        first, instrument = found[0]
        if len(found) == 1:
            yield first, instrument
        else:
            same = all(other == instrument for _, other in found)
            yield Together([part for part, _ in found], experiment.seed), instrument if same else None


def _data_set(
    data: DataSettings, name: str, experiment: Experiment, run: Path, method: Trainable[Any], files: ExitStack
) -> tuple[TrainingData[Any], Instrument | None]:
    settings = experiment.training
    if data.fresh:
        stream = LensStream(
            Plan.from_recipe(Recipe.named(str(data.recipe), data.set), data.n, classes=data.classes, seed=data.seed)
        )
        return FreshBatches(stream, settings, needs_truth=method.needs_truth), stream.instrument
    if method.reads == "rank_set":
        ranked = files.enter_context(RankSet(data_path(data, run, name)))
        return RankBatches(ranked, settings, experiment.seed), None
    lenses = files.enter_context(LensFile(data_path(data, run, name)))
    return Batches(lenses, settings, experiment.seed, needs_truth=method.needs_truth), lenses.instrument


def check_run(run: Path, experiment: Experiment, *, resume: bool) -> None:
    """Raise unless a folder is free, or may be gone on with.

    Raises:
        LensphysError: if the folder cannot be written, holds a run and ``resume`` is not asked for, or holds another
            experiment's or one that does not say whose it is.
    """
    check_writable(run)
    if any((run / name).exists() for name in (CHECKPOINT, WEIGHTS)) and not resume:
        raise LensphysError(f"{run} already holds a run: go on with it (--resume) or choose another folder")
    if any(run.resolve() == path.resolve() for path in experiment.runs):
        raise LensphysError(f"{run} is what the training starts from or learns with: choose another folder")
    # before a first checkpoint there is nothing to go on with
    if resume and (run / CHECKPOINT).exists():
        if not (run / CONFIG).exists():
            raise LensphysError(
                f"{run} lacks {CONFIG}, the settings that it has: copy it back, or remove {CHECKPOINT} to start anew"
            )
        before, now = (_without_hardware(x) for x in (Experiment.from_yaml(run / CONFIG, []), experiment))
        if _where_now(before, now, run.resolve().parent.parent) != now:
            raise LensphysError(
                f"{run} holds a run with other settings ({CONFIG}): ask for the same ones, choose another folder or "
                "remove this one"
            )


def describe_run(run: Path, experiment: Experiment, instrument: Instrument | None, batches: TrainingData[Any]) -> None:
    """Write into a run folder its resolved experiment, instrument and span of its images, and where it comes from."""
    tree = experiment.model_dump(mode="json")
    described = {CONFIG: ("The resolved experiment of this run.", tree)}
    if instrument is not None:
        described[INSTRUMENT] = ("The instrument of its images.", instrument.model_dump(mode="json"))
    if batches.validity is not None:
        described[VALIDITY] = ("What its images span: beyond, it knows nothing.", batches.validity.model_dump())
    for name, (comment, values) in described.items():
        with whole_file(run / name) as temporary:
            temporary.write_text(f"# {comment}\n{yaml.safe_dump(values, sort_keys=False)}", encoding="utf-8")
    named = zip(experiment.named_data, batches.parts, strict=True)
    left_out = {name: part.unusable for name, part in named}
    alone = len(left_out) == 1
    write_json(run / PROVENANCE, provenance(experiment=tree, left_out=batches.unusable if alone else left_out))


def run_instrument(run: Path) -> Instrument | None:
    """Return the instrument whose images a run was trained on; None where there were several, or none.

    Raises:
        LensphysError: if the file is faulty.
    """
    path = run / INSTRUMENT
    return Instrument.from_yaml(path) if path.exists() else None


def run_validity(run: Path) -> Validity | None:
    """Return what the images of a run span; None if its folder does not say, as those of older versions.

    Raises:
        LensphysError: if the file is faulty.
    """
    path = run / VALIDITY
    return Validity.from_yaml(path) if path.exists() else None


def load_run(run: Path, *, trust: Collection[str] = ()) -> TrainableMethod:
    """Return the trained method of a run folder, with its best weights, in evaluation mode.

    Args:
        run: the folder.
        trust: classes of others that its config may name, as ``module:Class``: no other code of a run is imported.

    Raises:
        LensphysError: if the folder holds no finished epoch, its weights do not fit its config, or what was trained
            does not super-resolve.
    """
    check_trained(run)
    with trusting(trust):
        settings = Experiment.parse(run_settings(run), str(run / CONFIG)).method
    method = built(settings)
    if not isinstance(method, TrainableMethod):
        raise LensphysError(f"{run} holds a {settings.name}, which serves a training and super-resolves nothing")
    load_weights(method, run)
    method.validity, method.instrument = run_validity(run), run_instrument(run)
    return method.eval()


def lineage(run: Path) -> dict[Path, Experiment]:
    """Return the experiment of a run and of all runs that it builds on, as far as their folders are there.

    Raises:
        LensphysError: if the folder holds no run.
    """
    found = {run: Experiment.parse(run_settings(run), str(run / CONFIG))}
    for other in found[run].runs:
        found |= lineage(other) if (other / CONFIG).exists() else {}
    return found


def _without_hardware(experiment: Experiment) -> dict[str, Any]:
    """A run may go on with other devices or for longer, but not with another method or other data."""
    machine = {"devices": 1, "nodes": 1, "accelerator": "auto", "epochs": 1, "minutes": None, "tracker": "tensorboard"}
    settings = experiment.training.model_copy(update=machine)
    data, *more = (data.model_copy(update={"workers": 1}) for data in experiment.named_data.values())
    return experiment.model_copy(update={"training": settings, "data": data, "more_data": more}).model_dump()


def _where_now(before: Any, now: Any, root: Path) -> Any:
    """Settings with the places of others, for what was moved or copied together with the folder that the runs lie in.

    Args:
        before: the settings of a run, or a part of them.
        now: those that are asked for.
        root: the folder above that of the runs.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        return {key: _where_now(part, now.get(key), root) for key, part in before.items()}
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [_where_now(*parts, root) for parts in zip(before, now, strict=True)]
    moved = isinstance(before, str) and isinstance(now, str) and _moved(Path(before), Path(now).resolve(), root)
    return now if moved else before


def _moved(before: Path, now: Path, root: Path) -> bool:
    """Whether a file or run lies in the folder as it did before; of data the checkpoint knows whether they are it."""
    if not now.is_relative_to(root):
        return False
    tail = now.relative_to(root).parts
    weights = [place / WEIGHTS for place in (before, now)]
    another = all(path.is_file() for path in weights) and weights[0].read_bytes() != weights[1].read_bytes()
    return before.parts[-len(tail) :] == tail and not another
