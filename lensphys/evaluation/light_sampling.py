"""Whether the light of simulated lenses was summed from enough points in each pixel: rendered again with more."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lensphys.data.lens_file import LensFile
from lensphys.evaluation.substructure import SMOOTH
from lensphys.fitting import VerdictSettings
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.scene import Scene
from lensphys.simulation.torch_engine import TorchEngine

_EXAMPLES = 8  # lenses, those with the sharpest sources
POINTS = (1, 2, 3, 5, 8)  # along the side of a pixel
_TRUTH = 12  # points that stand for infinitely many
_TOLERATED = 2 * VerdictSettings().gain  # in chi^2: what makes a fit believe in a sub-halo


class Coarse(NamedTuple):
    """Lenses whose light was sampled too coarsely.

    Args:
        rows: the lenses.
        points: along the side of a pixel, as recorded.
        needed: points that would do; more than the last of those that were tried if None.
        chi2: what the error adds to the chi^2 of each lens, (n,).
    """

    rows: NDArray[np.int64]
    points: int
    needed: int | None
    chi2: NDArray[np.floating]


def coarse_light(file: LensFile) -> Coarse | None:
    """Return the lenses with the sharpest sources of a file if their light was sampled too coarsely.

    None where it was sampled well, or where the file does not say what it shows.
    """
    if not file.has("lens_model") or _recipe(file) is None:
        return None
    try:
        index = _sharpest(file)
        wrong = _Sampled(file, index)
        chi2 = wrong.by(file.instrument.supersampling)
    except (ValueError, KeyError, TypeError):  # a profile or an image that is not here, or not one of ours
        return None
    bad = chi2 > _TOLERATED
    if not bad.any():
        return None
    finer = [points for points in POINTS if points > file.instrument.supersampling]
    needed = next((points for points in finer if bool((wrong.by(points) <= _TOLERATED).all())), None)
    return Coarse(index[bad.numpy()], file.instrument.supersampling, needed, chi2[bad].numpy())


def _recipe(file: LensFile) -> dict[str, Any] | None:
    with h5py.File(file.path, "r") as raw:
        found = raw.attrs.get("recipe")
    return None if found is None else dict(json.loads(found))


def _sharpest(file: LensFile) -> NDArray[np.int64]:
    sharpness = [_sharpness(json.loads(text)) for text in file.read("lens_model")]
    return np.sort(np.argsort(sharpness)[-_EXAMPLES:])


def _sharpness(model: dict[str, Sequence[dict[str, Any]]]) -> float:
    """Index over radius of the sharpest Sersic [1 / arcsec]; zero where there is none."""
    found = (k["n_sersic"] / k["R_sersic"] for k in model["kwargs_source"] if "n_sersic" in k)
    return max(found, default=0.0)


def _smooth(scene: Scene) -> Scene:
    """The scene without sub-halos: many, and no matter of the source."""
    kept = [k for k, name in enumerate(scene.lens_model_list) if k == 0 or name.startswith(SMOOTH)]
    names, values = [scene.lens_model_list[k] for k in kept], [scene.kwargs_lens[k] for k in kept]
    return replace(scene, lens_model_list=names, kwargs_lens=values)


class _Sampled:
    """Some lenses of a file, to be rendered with any number of points a pixel."""

    def __init__(self, file: LensFile, index: NDArray[np.int64]) -> None:
        recipe = Recipe.parse(_recipe(file) or {}, f"recipe of {file.path}")
        self._recipe = recipe.model_copy(update={"height": file.grid_lr.height, "width": file.grid_lr.width})
        self._instrument = file.instrument
        self._scenes = [_smooth(Scene(**json.loads(text))) for text in file.read("lens_model", index)]
        self._conditions = file.conditions(index)
        scale = file.read("flux_scale", index) if file.has("flux_scale") else np.ones(len(index))
        self._scale = torch.as_tensor(scale).double()[:, None, None, None]
        self._truth = self._rendered(_TRUTH)
        law = file.instrument.noise_of(file.lr(index), self._conditions)
        self._sigma = law.variance(self._truth.float()).double().sqrt()

    def by(self, points: int) -> Tensor:
        """Return what the error of each lens adds to its chi^2, (n,)."""
        return ((self._rendered(points) - self._truth) / self._sigma).square().flatten(1).sum(1)

    def _rendered(self, points: int) -> Tensor:
        instrument = self._instrument.model_copy(update={"supersampling": points})
        engine = TorchEngine(self._recipe, instrument)
        for scene in self._scenes:
            engine.check(scene)
        return engine.render(self._scenes, self._conditions).lr.double() * self._scale
