"""Whether the light of simulated lenses was summed from enough points in each pixel: rendered again with more."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt

from lensphys.basics.settings import Strict
from lensphys.data.lens_file import LensFile
from lensphys.fitting import VerdictSettings
from lensphys.simulation.light_sampling import POINTS, Rendering, sharpness
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.scene import Scene
from lensphys.simulation.torch_engine import TorchEngine


class SamplingCheck(Strict):
    """How it is found out whether light was summed from enough points.

    Args:
        examples: lenses that are looked at, those with the sharpest sources.
        worst: of them, that tell how many points would do.
        truth: points along the side of a pixel that stand for infinitely many, or twice the file's own.
        tolerated: error that may be added to the chi^2 of a lens: what makes a fit believe in a sub-halo.
    """

    examples: PositiveInt = 8
    worst: PositiveInt = 2
    truth: PositiveInt = 12
    tolerated: PositiveFloat = 2 * VerdictSettings().gain


class Coarse(NamedTuple):
    """Lenses whose light was sampled too coarsely.

    Args:
        rows: the lenses, by their indices in the file, (n,).
        points: along the side of a pixel, as recorded.
        needed: points that would do; more than the last of those that were tried if None.
        chi2: what the error adds to the chi^2 of each lens, (n,).
    """

    rows: NDArray[np.int64]
    points: int
    needed: int | None
    chi2: NDArray[np.floating]


def coarse_light(file: LensFile, check: SamplingCheck = SamplingCheck()) -> Coarse | None:
    """Return the lenses with the sharpest sources of a file if their light was sampled too coarsely.

    None where it was sampled well, or where the file does not say what it shows.

    Args:
        file: the data set.
        check: how it is found out.
    """
    if not file.has("lens_model") or not file.recipe:
        return None
    own = file.instrument.points
    try:
        index = _sharpest(file, check.examples)
        lenses = _rendering(file, index)
        chi2 = lenses.errors([own], max(check.truth, 2 * own))[own]
    except (ValueError, KeyError, TypeError):  # a profile or an image that is not here, or not one of ours
        return None
    bad = chi2 > check.tolerated
    if not bad.any():
        return None
    worst = chi2.argsort(descending=True)[: check.worst]
    return Coarse(index[bad.numpy()], own, _needed(lenses.rows(worst), own, check.tolerated), chi2[bad].numpy())


def _needed(lenses: Rendering, own: int, tolerated: float) -> int | None:
    finer = [points for points in POINTS if points > own]
    errors = lenses.errors(finer, 2 * POINTS[-1])
    return next((points for points in finer if bool((errors[points] <= tolerated).all())), None)


def _sharpest(file: LensFile, count: int) -> NDArray[np.int64]:
    found = [sharpness(model["kwargs_source"]) for model in file.lens_models()]
    return np.sort(np.argsort(found)[-count:])


def _rendering(file: LensFile, index: NDArray[np.int64]) -> Rendering:
    recipe = Recipe.parse(file.recipe, f"recipe of {file.path}")
    recipe = recipe.model_copy(update={"height": file.grid_lr.height, "width": file.grid_lr.width})
    scenes = [Scene(**model) for model in file.lens_models(index)]
    scale = file.read("flux_scale", index) if file.has("flux_scale") else np.ones(len(index))
    return Rendering(
        lambda instrument: TorchEngine(recipe, instrument),
        file.instrument,
        scenes,
        file.conditions(index),
        torch.as_tensor(scale).double(),
        file.lr(index),
    )
