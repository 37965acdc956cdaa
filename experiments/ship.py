"""Take the weights of a finished run into the package: ``python experiments/ship.py RUN NAME``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from lensphys.basics.checks import LensphysError, check_choice, check_file
from lensphys.basics.outputs import check_writable, whole_folder, write_json
from lensphys.basics.runs import CONFIG, INSTRUMENT, PROVENANCE, VALIDITY, WEIGHTS, run_provenance
from lensphys.simulation.recipe import recipe_names
from lensphys.training.experiment import Experiment, load_run
from lensphys.weights import FOLDER

LIMIT = 25_000_000  # bytes, of all weights together

_METHODS = ("amortised", "marginalised")


def ship(run: Path, name: str, into: Path = FOLDER) -> Path:
    """Return the folder of new weights: what `load_run` reads, copied from a run, whole or not at all.

    Weights of that name are replaced. ``provenance.json`` gains the command that makes them again.

    Args:
        run: a finished run of a network that guesses lenses, trained on one of the package's recipes.
        name: what ``--weights`` will call them.
        into: the folder of all weights.

    Raises:
        LensphysError: if the run is unfinished, of another method or trained on a file of somebody's own, or all
            weights together would be more than 25 MB.
    """
    if not name.isidentifier():
        raise LensphysError(f"weights cannot be called {name!r}: use letters, digits and _, as in model_3")
    load_run(run)
    for file in (PROVENANCE, VALIDITY):
        check_file(f"{file} of the run", run / file)
    origin = run_provenance(run) or {}
    _check_shippable(run, Experiment.from_yaml(run / CONFIG, []), origin)
    files = [WEIGHTS, CONFIG, VALIDITY, *([INSTRUMENT] if (run / INSTRUMENT).exists() else [])]
    others = [path for path in into.glob(f"*/{WEIGHTS}") if path.parent.name != name]
    total = sum(path.stat().st_size for path in [*others, run / WEIGHTS])
    if total > LIMIT:
        raise LensphysError(
            f"all weights together would be {total / 1e6:.1f} MB, more than {LIMIT / 1e6:.0f}: shrink {run}"
        )
    check_writable(into)
    with whole_folder(into / name) as made:
        for file in files:
            shutil.copyfile(run / file, made / file)
        again = f"lensphys train lensphys/weights/{name}/{CONFIG} -o runs/{name}"
        write_json(made / PROVENANCE, {"command": again, **origin})
    return into / name


def _check_shippable(run: Path, experiment: Experiment, origin: dict[str, Any]) -> None:
    """Others must be able to make the weights again, and a path of this machine is nobody's business."""
    if experiment.method.name not in _METHODS:
        raise LensphysError(
            f"{run} was trained by the method {experiment.method.name}: only {' and '.join(_METHODS)} runs ship"
        )
    recorded = [origin["experiment"]["data"], *origin["experiment"].get("more_data", [])]
    for recipe in [data.recipe for data in experiment.named_data.values()] + [data["recipe"] for data in recorded]:
        if recipe is None:
            raise LensphysError(f"{run} was trained on a file: weights ship if data.recipe says how to simulate theirs")
        check_choice("recipe", recipe, recipe_names())


if __name__ == "__main__":
    try:
        if len(sys.argv) != 3:
            raise LensphysError("expected two arguments: python experiments/ship.py RUN NAME")
        print(f"shipped {ship(Path(sys.argv[1]), sys.argv[2])}")
    except LensphysError as error:
        sys.exit(f"error: {error}")
