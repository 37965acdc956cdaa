"""The reference engine: clean images and deflections by lenstronomy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.basics.extras import need
from lensphys.model.component import Keywords
from lensphys.observation import Camera, Conditions, Instrument
from lensphys.simulation.engines import Cameras, Rendered, unsupported_profile
from lensphys.simulation.galaxies import with_image
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.scene import Scene
from lensphys.tracing.grid import PixelGrid

Array = NDArray[np.float64]


class LenstronomyEngine:
    """Renders scenes one after the other; any profile that lenstronomy has.

    Deflection and light are lenstronomy's; the PSF is the instrument's own, which equals lenstronomy's on square images
    (1.14's image numerics refuse others).

    Args:
        recipe: gives the number of pixels.
        instrument: gives their scale, supersampling and, where a sample has none of its own, the PSF.
    """

    def __init__(self, recipe: Recipe, instrument: Instrument) -> None:
        self._instrument = instrument
        self._cameras = Cameras.from_recipe(recipe, instrument)

    def check(self, scene: Scene) -> None:
        """Raise unless lenstronomy has all profiles of a scene, with these parameters.

        Raises:
            LensphysError: naming the profile.
        """
        mass, light = self._supported
        lights = zip(
            scene.source_light_model_list + scene.lens_light_model_list,
            scene.kwargs_source + scene.kwargs_lens_light,
            strict=True,
        )
        for name in scene.lens_model_list:
            if name not in mass:
                raise unsupported_profile("lenstronomy", name, "torch", ["the lens profiles of lenstronomy"])
        for name, _ in lights:
            if name not in light:
                raise unsupported_profile("lenstronomy", name, "torch", ["the light profiles of lenstronomy"])
        try:
            _alpha(scene, np.zeros(1), np.ones(1))
            _light(scene.source_light_model_list, scene.kwargs_source, np.zeros(1), np.ones(1))
            _light(scene.lens_light_model_list, scene.kwargs_lens_light, np.zeros(1), np.ones(1))
        except (TypeError, KeyError, ValueError) as error:
            raise LensphysError(f"lenstronomy refuses the parameters of a profile of this recipe: {error}") from None

    @cached_property
    def _supported(self) -> tuple[Sequence[str], Sequence[str]]:
        need("lenstronomy", "the engine lenstronomy")
        from lenstronomy.LensModel.profile_list_base import _SUPPORTED_MODELS as mass
        from lenstronomy.LightModel.light_model_base import _MODELS_SUPPORTED as light

        return mass, light

    def render(self, scenes: Sequence[Scene], conditions: Conditions) -> Rendered:
        """Return the clean images of scenes, (B, ...) float64."""
        rows = []
        for i, scene in enumerate(scenes):
            taken = conditions.rows(torch.tensor([i]))
            rows.append(_images(scene, self._cameras.under(self._instrument, taken)))
            x, y = _positions(self._cameras.hr.grid)
            rows[-1].append(torch.from_numpy(_alpha(scene, x, y)).reshape(1, 2, *self._cameras.hr.grid.shape))
        return Rendered(*(torch.cat(column) for column in zip(*rows, strict=True)))


def _images(scene: Scene, cameras: Sequence[Camera]) -> list[Tensor]:
    """What the cameras see, each (1, 1, H, W); light on points that two of them share is computed once."""
    grids = [camera.grid.resampled(camera.supersampling) for camera in cameras]
    flux = {grid: _flux(scene, grid) for grid in dict.fromkeys(grids)}
    return [camera.expose(flux[grid]) for camera, grid in zip(cameras, grids, strict=True)]


def _flux(scene: Scene, grid: PixelGrid) -> Tensor:
    x, y = _positions(grid)
    alpha = _alpha(scene, x, y)
    light = _light(scene.source_light_model_list, scene.kwargs_source, x - alpha[0], y - alpha[1])
    light = light + _light(scene.lens_light_model_list, scene.kwargs_lens_light, x, y)
    return torch.from_numpy(light * grid.pixel_area).reshape(1, 1, *grid.shape)


def _positions(grid: PixelGrid) -> Array:
    return grid.positions(like=torch.empty(0, dtype=torch.float64))[0].flatten(1).numpy()


def _alpha(scene: Scene, x: Array, y: Array) -> Array:
    from lenstronomy.LensModel.lens_model import LensModel

    return np.stack(LensModel(scene.lens_model_list).alpha(x, y, scene.kwargs_lens))


def _light(names: list[str], keywords: list[Keywords], x: Array, y: Array) -> Array:
    from lenstronomy.LightModel.light_model import LightModel

    if not names:
        return np.zeros_like(x)
    return LightModel(names).surface_brightness(x, y, [with_image(k) for k in keywords])
