"""Trained networks that come with the package: each a folder laid out like a run of ``lensphys train``."""

from __future__ import annotations

import math
from pathlib import Path

from safetensors import safe_open

from lensphys.basics.checks import check_choice
from lensphys.basics.runs import CONFIG, WEIGHTS
from lensphys.simulation.recipe import Recipe
from lensphys.training.experiment import Experiment, run_instrument, run_validity

FOLDER = Path(__file__).parent


def weights_names() -> list[str]:
    """Return the names of the weights that come with the package."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{WEIGHTS}"))


def weights_folder(name: str) -> Path:
    """Return the folder of some weights, which `training.experiment.load_run` reads.

    Raises:
        LensphysError: listing the names, if this is none of them.
    """
    check_choice("weights", name, weights_names())
    return FOLDER / name


def weights_description(name: str) -> str:
    """Return a line on what the weights were trained on, and how large they are.

    Raises:
        LensphysError: if there are no such weights.
    """
    folder = weights_folder(name)
    data = Experiment.from_yaml(folder / CONFIG, []).data
    recipe = Recipe.named(str(data.recipe), data.set)
    images = data.n * len(data.classes or recipe.classes)
    with safe_open(folder / WEIGHTS, "pt") as tensors:  # their shapes alone: that takes no network
        parameters = sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    size = (folder / WEIGHTS).stat().st_size / 1e6
    seen_by, usual = run_instrument(folder), Recipe.named(str(data.recipe)).instrument
    what = recipe.description
    if seen_by is not None and recipe.instrument != usual:
        what = f"{data.recipe} seen by {seen_by.description}"
    return f"{what}: {images} LR images, {run_validity(folder)}; {parameters} parameters, {size:.1f} MB"
