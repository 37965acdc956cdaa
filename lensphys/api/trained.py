"""Trainings in a line, and the networks that they leave behind."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lensphys.api.chosen import run_of
from lensphys.api.words import in_python
from lensphys.basics.remote import local
from lensphys.basics.trust import trusting
from lensphys.data.lens_file import LensFile
from lensphys.methods import TrainableMethod
from lensphys.training.experiment import Experiment, load_run
from lensphys.training.experiment import train as train_experiment


def train(
    data: str | Path | LensFile,
    run: str | Path,
    method: str | Mapping[str, Any] = "amortised",
    *,
    epochs: int,
    seed: int = 0,
    resume: bool = False,
    trust: Collection[str] = (),
    **training: Any,
) -> TrainableMethod:
    """Train a network on images: on low-resolution ones alone, if the method is ``amortised`` or ``physics``.

    Args:
        data: what `lensphys.simulate` returned, or its HDF5 file, or that of ``lensphys import`` for your own images.
        run: the folder for weights, log and losses.
        method: its name (``lensphys list methods``), or a dict of its settings with the name.
        epochs: how often each image is looked at.
        seed: of the fresh weights and the order of the images.
        resume: continue the run that the folder holds.
        trust: classes from outside of lensphys that the settings may import, as ``module:Class``.
        training: ``batch_size``, ``learning_rate``, ``minutes``, and all else of
            `lensphys.training.loop.TrainingSettings`.

    Returns:
        The trained network, for ``lensphys.super_resolve(images, weights=...)``; `load` gives it back from the folder.

    Raises:
        LensphysError: one sentence on what is wrong, and what to do.

    Example::

        data = lp.simulate("model_3", 80, "lenses.h5", seed=1)
        network = lp.train(data, "runs/mine", epochs=48, batch_size=8, learning_rate=3e-3)
        result = lp.super_resolve(data.images[0], weights=network)
    """
    path = data.path if isinstance(data, LensFile) else local(data)
    tree = {
        "seed": seed,
        "data": {"file": str(path)},
        "method": {"name": method} if isinstance(method, str) else dict(method),
        "training": {"epochs": epochs} | training,
    }
    with in_python(out="run"), trusting(trust):
        train_experiment(Experiment.parse(tree, "the training"), Path(run), resume=resume)
        return load_run(Path(run), trust=trust)


def load(run: str | Path, *, trust: Collection[str] = ()) -> TrainableMethod:
    """Return a trained network: of a run folder, or of weights that come with the package, by their name.

    Args:
        run: the folder, or a name of ``lensphys list weights``.
        trust: classes from outside of lensphys that its settings may import, as ``module:Class``.

    Raises:
        LensphysError: if it is neither, or damaged.

    Example:
        >>> network = load("model_3")
        >>> network.scale
        2
    """
    with in_python():
        return load_run(run_of(run), trust=trust)
