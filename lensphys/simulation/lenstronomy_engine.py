"""The reference engine: clean images and deflections by lenstronomy."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from lensphys.observation import PSF, Camera, Instrument
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.scene import Scene

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rendered:
    """What a scene looks like without noise.

    Args:
        lr: (H, W) [flux per pixel].
        hr: (sH, sW) [flux per pixel].
        alpha_hr: (2, sH, sW) [arcsec], the deflection that made ``hr``.
    """

    lr: Array
    hr: Array
    alpha_hr: Array


class LenstronomyEngine:
    """Renders scenes on the LR and HR pixels of a recipe, each pixel evaluated at its centre.

    Deflection and source are lenstronomy's; the PSF is the instrument's own, which equals lenstronomy's on square
    images (1.14's image numerics refuse others).

    Args:
        recipe: gives the number of pixels.
        instrument: gives their scale and, where a sample has none of its own, the PSF.
    """

    def __init__(self, recipe: Recipe, instrument: Instrument) -> None:
        self._lr = instrument.camera(recipe.height, recipe.width)
        self._hr = self._lr.at(recipe.upscale)

    def render(self, scene: Scene, psf: PSF | None = None) -> Rendered:
        """Return the clean images of a scene, and its deflection; ``psf`` in place of the instrument's."""
        cameras = (camera if psf is None else replace(camera, psf=psf) for camera in (self._lr, self._hr))
        (lr, _), (hr, alpha) = (_image(camera, scene) for camera in cameras)
        return Rendered(lr, hr, alpha)


def _image(camera: Camera, scene: Scene) -> tuple[Array, Array]:
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LightModel.light_model import LightModel

    x, y = camera.grid.positions(like=torch.empty(0, dtype=torch.float64))[0].flatten(1).numpy()
    alpha = np.stack(LensModel(scene.lens_model_list).alpha(x, y, scene.kwargs_lens))
    light = LightModel(scene.source_light_model_list)
    brightness = light.surface_brightness(x - alpha[0], y - alpha[1], scene.kwargs_source)
    flux = torch.from_numpy(brightness * camera.grid.pixel_area).reshape(1, 1, *camera.grid.shape)
    return camera.expose(flux)[0, 0].numpy(), alpha.reshape(2, *camera.grid.shape)
