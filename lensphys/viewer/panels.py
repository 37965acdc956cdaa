"""What the page of a lens shows: its planes as panels, the colour limits, and how much of them a page can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lensphys.basics.scatter import scatter
from lensphys.evaluation.substructure import beyond
from lensphys.fitting import FreerMass
from lensphys.model import MASS, LensModel, Member
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid
from lensphys.viewer.colours import OF_LIGHT
from lensphys.viewer.result import LensResult

Array = NDArray[Any]

MOST_VALUES = 450_000  # pixels in all panels: with the drawing library 4 of the page's 5 MB
_NOTHING = 1e-3  # of convergence beyond the smooth lens: what rounding leaves; a panel of it would be black


@dataclass(frozen=True)
class Panel:
    """One image of the page.

    Args:
        key: which plane it is.
        title: above it.
        group: panels of a group share one colour scale: ``light, arcs, residual, sigma, kappa, beyond, share``.
        values: (H, W): light as the surface brightness of `LensResult`, all else without unit.
        scale: pixel scale [arcsec].
        about: a sentence for who wonders what it is.
    """

    key: str
    title: str
    group: str
    values: Array
    scale: float
    about: str

    @property
    def extent(self) -> tuple[float, float]:
        """Width and height [arcsec]."""
        return self.values.shape[1] * self.scale, self.values.shape[0] * self.scale

    def thinned(self) -> Panel:
        """Return it with the means of 2 x 2 pixels; NaN goes beyond an odd edge, so that all stays in its place."""
        height, width = self.values.shape
        even = np.pad(self.values, ((0, height % 2), (0, width % 2)), constant_values=np.nan)
        means = even.reshape(even.shape[0] // 2, 2, -1, 2).mean((1, 3))
        return replace(self, values=means, scale=2 * self.scale, title=f"{self.title.split(',')[0]}, averaged")


@dataclass(frozen=True)
class Limits:
    """Colour limits of a group: what is shown at first, and how far they can be drawn."""

    low: float
    high: float
    least: float
    most: float


def panels_of(result: LensResult) -> tuple[list[Panel], tuple[str, ...]]:
    """Return the panels of a lens in the order of the page, and what is to be said of them."""
    fine, large = result.pixel_scale, result.pixel_scale * result.scale
    beyond_smooth, remarks = beyond_of(result)
    planes = dict(result.planes) | _arcs(result.planes)
    left, about = "residual", "Image less model; 0 where masked."
    if {"residual", "noise"} <= planes.keys():
        with np.errstate(divide="ignore", invalid="ignore"):  # where the noise is zero nothing is drawn
            planes["residual"] = planes["residual"] / planes["noise"]
        left, about = "residual / noise", "Image less model in units of the noise; blank where a pixel was left out."
    if beyond_smooth is not None and np.nanmax(np.abs(beyond_smooth)) > _NOTHING:
        planes["beyond"] = beyond_smooth
    lensed = "arcs" if "arcs" in planes else "light"
    listed = [
        ("lr", "image", "light", large, "As the telescope recorded it."),
        ("model", "model", "light", large, "What the method says the telescope records, without noise."),
        ("residual", left, "residual", large, about),
        ("arcs", "arcs", "arcs", large, "The image without the light of the lens galaxy."),
        ("arcs_model", "model of the arcs", "arcs", large, "The model without it."),
        ("image", "super-resolved", "light", fine, "The same light on finer pixels, without noise."),
        ("sigma", "sigma", "sigma", fine, "Standard deviation of the super-resolved image."),
        ("source", "source", lensed, result.source_scale, "The source plane, on its own scale."),
        ("kappa", "kappa", "kappa", fine, "Convergence: surface mass density in critical units."),
        ("beyond", "delta kappa", "beyond", fine, "Convergence beyond the smooth lens, smoothed by 3 pixels."),
        ("constrained", "constrained", "share", fine, "1 where the data, 0 where the prior decided."),
    ]
    found = [Panel(k, t, g, planes[k], s, about) for k, t, g, s, about in listed if k in planes and s > 0]
    return _within(found, MOST_VALUES), remarks


def _arcs(planes: Mapping[str, Array]) -> dict[str, Array]:
    """Image and model without the light of the lens galaxy, where it was fitted: beside it arcs are hard to see."""
    light = planes.get("lens_light")
    if light is None or not light.any():
        return {}
    return {key: planes[of] - light for key, of in (("arcs", "lr"), ("arcs_model", "model")) if of in planes}


def _within(panels: list[Panel], most: int) -> list[Panel]:
    """The panels with so many pixels in all: the super-resolved image is the last to be averaged."""
    while sum(p.values.size for p in panels) > most:
        largest = max(panels, key=lambda p: p.values.size / (4.1 if p.key == "image" else 1))
        panels = [p.thinned() if p is largest else p for p in panels]
    return panels


def beyond_of(result: LensResult) -> tuple[Array | None, tuple[str, ...]]:
    """Return the convergence beyond the smooth lens, (sH, sW), and why there is none."""
    if "alpha" not in result.planes:
        return None, ()
    model = _smooth_model(result)
    if model is None:
        return None, ("delta kappa: the file does not name the smooth lens (SIE + shear) that it would be beyond",)
    alpha = torch.from_numpy(np.ascontiguousarray(result.planes["alpha"], dtype=np.float64))[None]
    height, width = result.planes["image"].shape
    grid = PixelGrid(height, width, result.pixel_scale)
    values = {p.name: torch.tensor([p.value], dtype=torch.float64) for p in result.parameters}
    found = beyond(DeflectionField(alpha, grid), values, model)
    if found is not None and not found.isfinite().any():
        return None, ("delta kappa: alpha has NaN, which smoothing spreads everywhere: it is not drawn",)
    return (
        (None, ("delta kappa: the file lacks parameters of the lens",)) if found is None else (found[0, 0].numpy(), ())
    )


def _smooth_model(result: LensResult) -> LensModel | None:
    """The smooth lens by what was asked for (--model), else SIE + shear; freer, if it is that which was fitted."""
    record = result.origin.get("model")
    asked = _asked_for(record) if isinstance(record, dict) else LensModel(LensModel.smooth().mass, {})
    if asked is None:
        return None
    freedom = FreerMass()
    models = [asked, *(freedom.over(asked, multipoles) for multipoles in freedom.multipoles)]
    found = {p.name for p in result.parameters if p.name.split(".")[0] in models[-1].mass and np.isfinite(p.value)}
    return next((model for model in models if set(model.names) == found), asked if record else None)


def _asked_for(record: Mapping[str, Any]) -> LensModel | None:
    """The mass of a model as `FitModel.resolved` tells it; None where it has components that are not ours."""
    kinds = [kind for component in MASS.values() for kind in (component, component.in_fits) if kind is not None]
    known = {kind.__name__: kind for kind in kinds}
    mass: dict[str, Member] = {}
    for name, told in record.items():
        if name.split(".")[0] not in ("lens", "shear", "more_lenses"):
            continue
        component = known.get(told["component"])
        if component is None:
            return None
        free = tuple(p for p in component.parameters if isinstance(told.get(p.name), dict))
        tied = {key: value for key, value in told.items() if isinstance(value, str) and key != "component"}
        mass[name] = Member(component, free, {k: v for k, v in told.items() if isinstance(v, int | float)}, tied)
    return LensModel(mass, {})


def limits_of(panels: Sequence[Panel]) -> dict[str, Limits]:
    """Return the colour limits of each group of panels."""
    groups = {p.group: [q for q in panels if q.group == p.group] for p in panels}
    return {group: _limits(group, members) for group, members in groups.items()}


def _deviation(values: Array) -> float:
    seen = values[np.isfinite(values) & (values != 0)]
    return float(scatter(seen)) if seen.size else 0.0


def _limits(group: str, members: Sequence[Panel]) -> Limits:
    values = np.concatenate([np.zeros(1), *(p.values[np.isfinite(p.values)] for p in members)])
    least, most = float(values.min()), float(values.max())
    top = float(np.quantile(np.abs(values), 0.997)) or max(abs(least), abs(most), 1e-12)
    if group in OF_LIGHT:
        shown = next((p.values for p in members if p.key in ("image", "arcs_model")), values)
        return _ordered(0.0, float(np.nanquantile(shown, 0.998)), least, most)
    if group == "residual":
        reach = 4 * _deviation(values) or top
        return _ordered(-reach, reach, -max(2 * reach, abs(least), most), max(2 * reach, abs(least), most))
    if group == "beyond":
        reach = max(top, 0.01)  # rounding errors should not fill the colours
        return _ordered(-reach, reach, -2 * reach, 2 * reach)
    if group == "share":
        return Limits(0.0, 1.0, 0.0, 1.0)
    if group == "kappa":
        return _ordered(0.0, min(top, 2.0), min(0.0, float(np.quantile(values, 0.003))), max(top, 2.0))
    return _ordered(0.0, top, 0.0, max(top, most))


def _ordered(low: float, high: float, least: float, most: float) -> Limits:
    """Limits that a slider can hold, whatever the values are."""
    high = high if high > low else low + max(abs(low), 1e-12)
    return Limits(low, high, min(low, least), max(high, most))
