"""The fast engine: scenes in batches, on a processor or a GPU, with the profiles of lensphys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lensphys.checks import LensphysError
from lensphys.grid import PixelGrid
from lensphys.model import LIGHT, MASS, TNFW, Component, ImageSource, LightProfile, PointMass, Sersic, by_lenstronomy
from lensphys.model.compiled import COMPILED, add_deflection, brightness_sersic_points
from lensphys.model.component import CENTRE
from lensphys.model.swarm import deflection_swarm, deflection_tnfw_swarm
from lensphys.observation import Camera, Conditions, Instrument
from lensphys.observation.camera import block_sum
from lensphys.simulation.compiled_psf import compiled_psf
from lensphys.simulation.declared import Keywords, Named
from lensphys.simulation.engines import Cameras, Rendered, lacking
from lensphys.simulation.galaxies import galaxy_images
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.scene import Scene

# scenes at a time: so many points of the sky in all; on a processor what stays in its caches
_POINTS = {"cpu": 1 << 17, "cuda": 1 << 24}


_Table = dict[str, Tensor]  # parameters (B, K)


def _points(x: Tensor, y: Tensor, table: _Table) -> Tensor:
    return deflection_swarm(x, y, table["theta_E"].square(), table["center_x"], table["center_y"])


def _halos(x: Tensor, y: Tensor, table: _Table) -> Tensor:
    return deflection_tnfw_swarm(x, y, **table)


# what comes in numbers: all of one kind at once
_SWARMS: dict[str, Callable[[Tensor, Tensor, _Table], Tensor]] = {
    PointMass.lenstronomy: _points, TNFW.lenstronomy: _halos
}  # fmt: skip
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
        self._cameras = Cameras.of(recipe, instrument)
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
                    raise lacking("torch", name, "lenstronomy", list(has))
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
        masses = by_lenstronomy(MASS)
        lists = [list(zip(s.lens_model_list, s.kwargs_lens, strict=True)) for s in scenes]
        keyed = [[((name, _whole(masses[name], k)), k) for name, k in row] for row in lists]
        total = self._theta.new_zeros(len(scenes), *self._theta.shape[1:])
        for kind in dict.fromkeys(key for row in keyed for key, _ in row):
            name, whole = kind
            table = self._table(masses[name], [[k for key, k in row if key == kind] for row in keyed])
            self._add(masses[name], dict(zip(masses[name].whole, whole, strict=True)), table, total)
        return total

    def _add(self, component: type[Component], whole: dict[str, int], table: _Table, total: Tensor) -> None:
        """Add the deflection of the components of a table to a total (B, 2, 1, P)."""
        name, (x, y) = component.lenstronomy, self._theta[0, :, 0]
        if name in _SWARMS:
            total += _SWARMS[name](x, y, table)[:, :, None]
            return
        for lens in _columns(table):
            if self._compiled and name in COMPILED:
                add_deflection(name, x, y, lens, total[:, :, 0])
            else:
                total += component.formula(self._theta, **lens, **whole)

    def _table(self, component: type[Component], rows: list[list[Keywords]]) -> _Table:
        """The numbers of the components of one kind, (B, K) each; rows that have fewer get some that vanish."""
        most = max(map(len, rows))
        first = next(row[0] for row in rows if row)
        names = [name for name in first if name not in component.whole]
        blank = {name: 0.0 if name in component.strengths else first[name] for name in names}
        numbers = np.array([[[k[n] for n in names] for k in row + [blank] * (most - len(row))] for row in rows])
        return dict(zip(names, torch.from_numpy(numbers).to(self._device).unbind(-1), strict=True))

    def _brightness(self, lights: list[list[Named]], alpha: Tensor) -> Tensor:
        """Surface brightness (B, 1, 1, P), float32, of light at theta - alpha, alpha (B or 1, 2, 1, P)."""
        components = by_lenstronomy(LIGHT)
        total = torch.zeros(len(lights), 1, 1, alpha.shape[-1], device=self._device)
        for kind in dict.fromkeys(name for row in lights for name, _ in row):
            rows = [[k for n, k in row if n == kind] for row in lights]
            if kind == _IMAGE:
                self._add_images(rows, alpha, total)
                continue
            for light in _columns(self._table(components[kind], rows)):
                self._add_light(components[kind], light, alpha, total)
        return total

    def _add_light(self, component: type[LightProfile], light: _Table, alpha: Tensor, total: Tensor) -> None:
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


def _whole(component: type[Component], keywords: Keywords) -> tuple[int, ...]:
    """The whole numbers of a component, which are no tensors: those with the same ones go together."""
    return tuple(keywords[name] for name in component.whole)


def _columns(table: _Table) -> Iterator[_Table]:
    """The parameters (B,) of the first component of each scene, the second, ..."""
    for k in range(next(iter(table.values())).shape[1]):
        yield {name: values[:, k] for name, values in table.items()}
