"""What a file of simulated lenses left out, computed from the truth that it holds, to the last bit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lensphys.checks import LensphysError
from lensphys.observation import Conditions, Instrument
from lensphys.simulation.engines import Engine
from lensphys.simulation.lenstronomy_engine import LenstronomyEngine
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.scene import Scene
from lensphys.simulation.torch_engine import TorchEngine

if TYPE_CHECKING:
    from lensphys.data.lens_file import LensFile

LEFT_OUT = ("alpha_hr",)  # what a file may do without
_BATCH = 32  # samples in memory


class Again:
    """Renders the samples of a file once more.

    Args:
        lenses: the file.
        file: the same, open.

    Raises:
        LensphysError: if it does not say how it was made.
    """

    def __init__(self, lenses: LensFile, file: h5py.File) -> None:
        try:
            recipe = Recipe.parse(json.loads(file.attrs["recipe"]), f"recipe of {lenses.path}")
            engine = str(file.attrs["engine"])
        except (KeyError, ValueError) as error:
            raise LensphysError(
                f"{lenses.path} left out /alpha_hr, and does not say how to compute it: simulate it again ({error})"
            ) from None
        self._lenses, self._engine = lenses, _engine(engine, recipe, lenses.instrument)
        self._shape = (2, *lenses.grid_hr.shape)

    def alpha_hr(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Return the deflection of some samples, (n, 2, sH, sW) [arcsec]."""
        made = np.empty((len(rows), *self._shape), np.float32)
        for start in range(0, len(rows), _BATCH):
            made[start : start + _BATCH] = self._alpha(rows[start : start + _BATCH])
        return made

    def _alpha(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        models = [json.loads(text) for text in self._lenses.read("lens_model", rows)]
        # masses alone: the light, for which a file may name others, does not deflect
        scenes = [Scene(model["lens_model_list"], model["kwargs_lens"], [], []) for model in models]
        return self._engine.render(scenes, Conditions()).alpha_hr.float().cpu().numpy()


def _engine(name: str, recipe: Recipe, instrument: Instrument) -> Engine:
    return TorchEngine(recipe, instrument) if name == "torch" else LenstronomyEngine(recipe, instrument)
