"""What can be found wrong with a comparison before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from lensphys.basics.checks import LensphysError, MissingExtraError, check_choice
from lensphys.basics.runs import check_trained, misfits
from lensphys.data.lens_file import LensFile
from lensphys.evaluation.comparison.settings import ENDLESS, Comparison, Entry, references
from lensphys.losses.perceptual import EXTRACTORS
from lensphys.methods import READY, Refinable, Trainable, TrainableMethod, TrainableSettings
from lensphys.simulation.plan import Plan
from lensphys.simulation.recipe import Recipe
from lensphys.training.experiment import DataSettings, Experiment, check_base
from lensphys.training.loop import check_phases
from lensphys.weights import weights_folder

# keys under ``train`` that name an earlier entry, and what that one must train
_USES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("method", "perceptual", "run"): tuple(EXTRACTORS),
    ("method", "rank", "run"): ("ranker",),
}


class _Built(NamedTuple):
    settings: TrainableSettings
    method: Trainable[Any]


def check_comparison(comparison: Comparison) -> None:
    """Raise unless all experiments can be read and built, and each finds what it builds on.

    The file of a single method is not looked for: where it is missing that method fails, and the others run.

    Raises:
        LensphysError: naming the method and what is wrong with it.
    """
    for data in (comparison.data, comparison.test):
        _check_data(data)
    built: dict[str, _Built] = {}
    for entry in comparison.methods:
        if entry.ready is not None:
            check_choice("ready method", entry.ready, list(READY))
        if entry.weights is not None:
            weights_folder(entry.weights)
        if entry.run is not None:
            check_trained(Path(entry.run))
        experiment = None if entry.train is None else comparison.experiment(entry, Path())
        try:
            if experiment is not None:
                built[entry.name] = _Built(experiment.method, _fresh(entry, experiment))
            _check_needs(comparison, entry, built)
        except MissingExtraError:
            pass  # its row will say so
        except LensphysError as error:
            raise LensphysError(f"method {entry.name!r}: {error}") from None


def _check_data(data: DataSettings) -> None:
    if data.recipe is None:
        LensFile(str(data.file)).close()
    else:
        Plan.from_recipe(Recipe.named(data.recipe, data.set), data.n, classes=data.classes, seed=data.seed)


def _fresh(entry: Entry, experiment: Experiment) -> Trainable[Any]:
    """What an entry trains, with fresh weights."""
    training = experiment.training
    if training.devices * training.nodes > 1:
        raise LensphysError("in a comparison all train in one process, on one device")
    if training.minutes is None and training.epochs == ENDLESS:
        raise LensphysError("without 'minutes' a training needs 'epochs', or it never ends")
    method = experiment.model_copy(update={"start": None}).build()
    check_phases(method, training)
    if entry.group is not None and not isinstance(method, TrainableMethod):
        raise LensphysError("it super-resolves nothing, it has no row: leave out its group")
    if entry.refine is not None and not isinstance(method, Refinable):
        raise LensphysError("'refine' starts from an amortised network's answer, and this is another method")
    return method


def _check_needs(comparison: Comparison, entry: Entry, built: dict[str, _Built]) -> None:
    """Raise unless the earlier entries that one builds on are of the kind that it needs.

    Of a run folder, and of a method whose packages are not installed, nothing is known yet.
    """
    for name in [] if entry.rank_set is None else entry.rank_set.of:
        makes_none = name in built and not isinstance(built[name].method, TrainableMethod)
        if makes_none or comparison.entry(name).rank_set is not None:
            raise LensphysError(f"a rank set is made of images, and {name!r} makes none")
    if entry.name in built and entry.start in built:
        own, start = built[entry.name], built[entry.start]
        if misfits(own.method.state_dict(), start.method.state_dict()):
            raise LensphysError(f"it cannot start from {entry.start!r}, whose weights have no place in it")
        check_base(own.settings, getattr(start.settings, "base", None), repr(entry.start))
    for where, name in references(entry.train):
        kinds, other = _USES.get(where, ()), comparison.entry(name)
        known = name in built or other.ready is not None or other.rank_set is not None
        if kinds and known and (name not in built or built[name].settings.name not in kinds):
            raise LensphysError(f"{'.'.join(where)} must be a trained {' or '.join(kinds)}, and {name!r} is none")
