"""The fast engine: scenes in batches, on a processor or a GPU, with the profiles of lensphys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.model import LIGHT, MASS, Component, ImageSource, LightProfile, Sersic, by_lenstronomy
from lensphys.model.by_name import Table, columns, deflection_of, table_of
from lensphys.model.compiled import brightness_sersic_points
from lensphys.model.component import CENTRE, Keywords, Named
from lensphys.observation import Camera, Conditions, Instrument
from lensphys.observation.camera import block_sum
from lensphys.simulation.compiled_psf import compiled_psf
from lensphys.simulation.engines import Cameras, Rendered, unsupported_profile
from lensphys.simulation.galaxies import galaxy_images
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.scene import Scene
from lensphys.tracing.grid import PixelGrid

# scenes at a time: so many points of the sky in all; on a processor what stays in its caches
_POINTS = {"cpu": 1 << 17, "cuda": 1 << 24}


_IMAGE = ImageSource.lenstronomy
_IMAGE_NAMES = ("file", "index", "amp", "center_x", "center_y", "phi_G", "scale")


class TorchEngine:
    """Renders scenes in batches.

    Deflections are computed in float64, because close to a point mass float32 is not enough, and so are the distances
    from the centre of the light; its brightness, and the PSF, in float32. It agrees with lenstronomy within 1e-5 of the
    peak. On a processor the common profiles are compiled (`lensphys.model.kernels`). Beside the images that are
    returned, memory does not grow with the number of scenes or bodies.

    Args:
        recipe: gives the number of pixels.
        instrument: gives their scale, supersampling and, where a sample has none of its own, the PSF.
        device: where to compute.
    """

    def __init__(self, recipe: Recipe, instrument: Instrument, device: torch.device | str = "cpu") -> None:
        self._instrument, self._device = instrument, torch.device(device)
        self._compiled = self._device.type == "cpu"
        self._cameras = Cameras.from_recipe(recipe, instrument)
        like = torch.empty(0, dtype=torch.float64, device=self._device)
        points = [grid.positions(like=like).flatten(2) for grid in self._cameras.grids]
        self._theta = torch.cat(points, dim=2)[:, :, None]  # (1, 2, 1, P)
        self._batch = max(1, _POINTS["cpu" if self._compiled else "cuda"] // self._theta.shape[-1])

    def check(self, scene: Scene) -> None:
        """Raise unless lensphys has all profiles of a scene, with these parameters.

        Raises:
            LensphysError: naming the profile, and the other engine or the parameters.
        """
        masses = list(zip(scene.lens_model_list, scene.kwargs_lens, strict=True))
        names, keywords = scene.source_light_model_list, scene.kwargs_source
        lights = list(zip(names + scene.lens_light_model_list, keywords + scene.kwargs_lens_light, strict=True))
        bright = _names(LIGHT) | {_IMAGE: _IMAGE_NAMES}
        for found, has in ((masses, _names(MASS)), (lights, bright)):
            for name, given in found:
                if name not in has:
                    raise unsupported_profile("torch", name, "lenstronomy", list(has))
                if set(given) != set(has[name]):
                    raise LensphysError(
                        f"the torch engine wants the parameters {', '.join(has[name])} of {name}, got "
                        f"{', '.join(given)}: give all of them, or use --engine lenstronomy"
                    )

    @torch.no_grad()
    def render(self, scenes: Sequence[Scene], conditions: Conditions) -> Rendered:
        """Return the clean images of scenes, (B, ...) float32."""
        fine = self._cameras.hr.grid.shape
        shapes = ((1, *self._cameras.lr.grid.shape), (1, *fine), (2, *fine))
        made = Rendered(*(torch.empty(len(scenes), *shape, device=self._device) for shape in shapes))
        for start in range(0, len(scenes), self._batch):
            rows = torch.arange(start, min(start + self._batch, len(scenes)))
            part = slice(start, start + len(rows))
            taken = conditions.rows(rows).to(self._device)
            made.lr[part], made.hr[part], made.alpha_hr[part] = self._rendered(scenes[part], taken)
        return made

    def _rendered(self, scenes: Sequence[Scene], conditions: Conditions) -> tuple[Tensor, Tensor, Tensor]:
        alpha = self._deflection(scenes)
        cameras = self._cameras.under(self._instrument, conditions)
        if self._compiled:
            cameras = tuple(replace(camera, psf=compiled_psf(camera.psf)) for camera in cameras)
        grids = self._cameras.grids
        fine = [camera.grid.resampled(camera.supersampling) for camera in cameras]
        lit = sum(g.height * g.width for g in grids if g in fine)  # those with light come first
        sources = [list(zip(s.source_light_model_list, s.kwargs_source, strict=True)) for s in scenes]
        light = self._brightness(sources, alpha[..., :lit])
        if any(scene.lens_light_model_list for scene in scenes):
            lenses = [list(zip(s.lens_light_model_list, s.kwargs_lens_light, strict=True)) for s in scenes]
            light += self._brightness(lenses, torch.zeros_like(self._theta[..., :lit]))
        lr, hr = self._exposed(light, cameras, fine)
        centres = self._part(alpha, self._cameras.hr.grid).unflatten(-1, self._cameras.hr.grid.shape)
        return lr, hr, centres

    def _part(self, values: Tensor, grid: PixelGrid) -> Tensor:
        """The values (B, C, P') on one of the grids."""
        grids = self._cameras.grids
        sizes = [g.height * g.width for g in grids]
        start = sum(sizes[: grids.index(grid)])
        return values[..., 0, start : start + grid.height * grid.width]

    def _exposed(self, light: Tensor, cameras: Sequence[Camera], fine: list[PixelGrid]) -> list[Tensor]:
        """The images of both cameras; light that both blur on the same points is blurred once."""
        flux = [self._part(light, grid).unflatten(-1, grid.shape) * grid.pixel_area for grid in dict.fromkeys(fine)]
        if len(flux) == 1 and self._cameras.same_psf and all(camera.blurs_first for camera in cameras):
            blurred = cameras[0].psf.blur(flux[0], fine[0].scale)
            return [block_sum(blurred, camera.grid) for camera in cameras]
        return [camera.expose(flux[min(i, len(flux) - 1)]) for i, camera in enumerate(cameras)]

    def _deflection(self, scenes: Sequence[Scene]) -> Tensor:
        """Alpha (B, 2, 1, P), float64."""
        lists = [list(zip(s.lens_model_list, s.kwargs_lens, strict=True)) for s in scenes]
        return deflection_of(lists, self._theta, compiled=self._compiled)

    def _brightness(self, lights: list[list[Named]], alpha: Tensor) -> Tensor:
        """Surface brightness (B, 1, 1, P), float32, of light at theta - alpha, alpha (B or 1, 2, 1, P)."""
        components = by_lenstronomy(LIGHT)
        total = torch.zeros(len(lights), 1, 1, alpha.shape[-1], device=self._device)
        for kind in dict.fromkeys(name for row in lights for name, _ in row):
            rows = [[k for n, k in row if n == kind] for row in lights]
            if kind == _IMAGE:
                self._add_images(rows, alpha, total)
                continue
            for light in columns(table_of(components[kind], rows, self._device)):
                self._add_light(components[kind], light, alpha, total)
        return total

    def _add_light(self, component: type[LightProfile], light: Table, alpha: Tensor, total: Tensor) -> None:
        theta = self._theta[..., : alpha.shape[-1]]
        if self._compiled and component is Sersic:
            brightness_sersic_points(theta[:, :, 0], alpha[:, :, 0], **light, total=total[:, 0, 0])
            return
        centre = torch.stack([light[name] for name in CENTRE], dim=1)[:, :, None, None]
        rest = {name: value for name, value in light.items() if name not in CENTRE}
        # the difference in float64: float32 then has its full precision next to the centre, too
        total += component.formula((theta - alpha - centre).float(), **rest, **dict.fromkeys(CENTRE, 0.0))

    def _add_images(self, rows: list[list[Keywords]], alpha: Tensor, total: Tensor) -> None:
        theta = self._theta[..., : alpha.shape[-1]]
        for i, row in enumerate(rows):
            for k in row:
                total[i] += self._image(k, theta - alpha[i if len(alpha) > 1 else 0][None])[0]

    def _image(self, keywords: Keywords, beta: Tensor) -> Tensor:
        image = torch.from_numpy(galaxy_images(keywords["file"])[keywords["index"]]).to(self._device)
        grid = PixelGrid(image.shape[0], image.shape[1], keywords["scale"])
        x, y = beta[:, 0] - keywords["center_x"], beta[:, 1] - keywords["center_y"]
        c, s = np.cos(keywords["phi_G"]), np.sin(keywords["phi_G"])
        turned = torch.stack([c * x + s * y, c * y - s * x], dim=1)
        return (keywords["amp"] * grid.sample(image[None, None], turned)).float()


def _names(components: Mapping[str, type[Component]]) -> dict[str, tuple[str, ...]]:
    """The keywords of each component in scenes, by its name there."""
    return {name: component.scene_names() for name, component in by_lenstronomy(components).items()}
