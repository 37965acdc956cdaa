"""The fast engine: scenes in batches, on a processor or a GPU, with the profiles of lensphys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from inspect import signature

import numpy as np
import torch
from torch import Tensor

from lensphys.checks import LensphysError
from lensphys.grid import PixelGrid
from lensphys.model.compiled import COMPILED, add_deflection, brightness_sersic_points
from lensphys.model.light import brightness_sersic
from lensphys.model.mass import deflection_nfw, deflection_point, deflection_shear, deflection_sie, deflection_sis
from lensphys.model.mass.epl import deflection_epl
from lensphys.model.mass.line import deflection_line
from lensphys.model.mass.multipole import deflection_multipole
from lensphys.model.mass.tnfw import deflection_tnfw
from lensphys.model.swarm import deflection_swarm, deflection_tnfw_swarm
from lensphys.observation import Camera, Conditions, Instrument
from lensphys.observation.camera import block_sum
from lensphys.simulation.compiled_psf import compiled_psf
from lensphys.simulation.engines import Cameras, Rendered, lacking
from lensphys.simulation.galaxies import galaxy_images
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.scene import Keywords, Scene

# scenes at a time: so many points of the sky in all; on a processor what stays in its caches
_POINTS = {"cpu": 1 << 17, "cuda": 1 << 24}


@dataclass(frozen=True)
class _Profile:
    """A formula, and the parameters that make it vanish: scenes with fewer bodies than others get some that do."""

    formula: Callable[..., Tensor]
    strengths: tuple[str, ...] = ("theta_E",)


_MASS = {
    "SIS": _Profile(deflection_sis),
    "SIE": _Profile(deflection_sie),
    "EPL": _Profile(deflection_epl),
    "SHEAR": _Profile(deflection_shear, ("gamma1", "gamma2")),
    "MULTIPOLE": _Profile(deflection_multipole, ("a_m",)),
    "NFW": _Profile(deflection_nfw, ("alpha_Rs",)),
    "LINE_MASS": _Profile(deflection_line),
}
_Table = dict[str, Tensor]  # parameters (B, K)


def _points(x: Tensor, y: Tensor, table: _Table) -> Tensor:
    return deflection_swarm(x, y, table["theta_E"].square(), table["center_x"], table["center_y"])


def _halos(x: Tensor, y: Tensor, table: _Table) -> Tensor:
    return deflection_tnfw_swarm(x, y, **table)


# what comes in numbers: all of one kind at once
_SWARMS: dict[str, tuple[Callable[[Tensor, Tensor, _Table], Tensor], str]] = {
    "POINT_MASS": (_points, "theta_E"), "TNFW": (_halos, "alpha_Rs")
}  # fmt: skip
_LIGHT = ("SERSIC_ELLIPSE", "INTERPOL")


def _takes(formula: Callable[..., Tensor]) -> tuple[str, ...]:
    return tuple(signature(formula).parameters)[1:]  # the first one is where


# scenes of a batch are tables: each names all parameters of a profile
_PARAMETERS = {name: _takes(profile.formula) for name, profile in _MASS.items()} | {
    "SHEAR": ("gamma1", "gamma2"),
    "POINT_MASS": _takes(deflection_point),
    "TNFW": _takes(deflection_tnfw),
    "SERSIC_ELLIPSE": _takes(brightness_sersic),
    "INTERPOL": ("file", "index", "amp", "center_x", "center_y", "phi_G", "scale"),
}


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
        for found, has in ((masses, [*_MASS, *_SWARMS]), (lights, _LIGHT)):
            for name, given in found:
                if name not in has:
                    raise lacking("torch", name, "lenstronomy", has)
                if set(given) != set(_PARAMETERS[name]):
                    raise LensphysError(
                        f"the torch engine wants the parameters {', '.join(_PARAMETERS[name])} of {name}, got "
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
        # multipoles of one order go together: it is no tensor
        kinds = dict.fromkeys((name, keywords.get("m")) for row in lists for name, keywords in row)
        total = self._theta.new_zeros(len(scenes), *self._theta.shape[1:])
        x, y = self._theta[0, :, 0]
        for name, order in kinds:
            rows = [[k for n, k in row if (n, k.get("m")) == (name, order)] for row in lists]
            if name in _SWARMS:
                formula, strength = _SWARMS[name]
                total += formula(x, y, self._table(rows, (strength,)))[:, :, None]
                continue
            profile, fixed = _MASS[name], {} if order is None else {"m": order}
            table = self._table(rows, profile.strengths)
            for k in range(max(map(len, rows))):
                lens = {p: v[:, k] for p, v in table.items()}
                if self._compiled and name in COMPILED:
                    add_deflection(name, x, y, lens, total[:, :, 0])
                else:
                    total += profile.formula(self._theta, **lens, **fixed)
        return total

    def _table(self, rows: list[list[Keywords]], strengths: Sequence[str]) -> _Table:
        """The numbers of the profiles of one kind, (B, K) each; rows that have fewer get some that vanish."""
        most = max(map(len, rows))
        first = next(row[0] for row in rows if row)
        names = [name for name in first if name != "m"]
        blank = {name: 0.0 if name in strengths else first[name] for name in names}
        numbers = np.array([[[k[n] for n in names] for k in row + [blank] * (most - len(row))] for row in rows])
        return dict(zip(names, torch.from_numpy(numbers).to(self._device).unbind(-1), strict=True))

    def _brightness(self, lights: list[list[tuple[str, Keywords]]], alpha: Tensor) -> Tensor:
        """Surface brightness (B, 1, 1, P), float32, of light at theta - alpha, alpha (B or 1, 2, 1, P)."""
        theta = self._theta[..., : alpha.shape[-1]]
        total = torch.zeros(len(lights), 1, 1, alpha.shape[-1], device=self._device)
        for kind in dict.fromkeys(name for row in lights for name, _ in row):
            rows = [[k for n, k in row if n == kind] for row in lights]
            if kind == "INTERPOL":
                for i, row in enumerate(rows):
                    for k in row:
                        total[i] += self._image(k, theta - alpha[i if len(alpha) > 1 else 0][None])[0]
                continue
            table = self._table(rows, ("amp",))
            for j in range(max(map(len, rows))):
                at = {name: value[:, j] for name, value in table.items()}
                if self._compiled:
                    brightness_sersic_points(theta[:, :, 0], alpha[:, :, 0], **at, total=total[:, 0, 0])
                    continue
                centre = torch.stack([at.pop("center_x"), at.pop("center_y")], dim=1)[:, :, None, None]
                # the difference in float64: float32 then has its full precision next to the centre, too
                total += brightness_sersic((theta - alpha - centre).float(), **at)
        return total

    def _image(self, keywords: Keywords, beta: Tensor) -> Tensor:
        image = torch.from_numpy(galaxy_images(keywords["file"])[keywords["index"]]).to(self._device)
        grid = PixelGrid(image.shape[0], image.shape[1], keywords["scale"])
        x, y = beta[:, 0] - keywords["center_x"], beta[:, 1] - keywords["center_y"]
        c, s = np.cos(keywords["phi_G"]), np.sin(keywords["phi_G"])
        turned = torch.stack([c * x + s * y, c * y - s * x], dim=1)
        return (keywords["amp"] * grid.sample(image[None, None], turned)).float()
