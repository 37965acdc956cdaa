"""Pictures of what a recipe makes, before it makes many."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lensphys.basics.extras import need
from lensphys.simulation.plan import Plan
from lensphys.simulation.sample import Samples, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NINE = 9


def preview_figure(plan: Plan) -> Figure:
    """Return a picture of the first nine samples of a plan: each as recorded, and its noise-free truth beside it."""
    need("matplotlib", "a preview")
    from matplotlib.figure import Figure

    count = min(_NINE, len(plan))
    samples = _samples(plan, range(count))
    columns = min(3, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(3.6 * columns, 2.1 * rows), layout="constrained")
    axes = figure.subplots(rows, 2 * columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for i in range(count):
        scene = samples.drawn[i].scene
        theta_E = "" if math.isnan(scene.theta_E) else f', $\\theta_E$ {scene.theta_E:.2f}"'
        _show(axes[2 * i], samples.lr[i, 0], f"{plan.classes[plan.label_of(i)]}{theta_E}")
        _show(axes[2 * i + 1], samples.hr_clean[i, 0], "truth")
    figure.suptitle(f"{plan.recipe.description}  ({plan.instrument.description})", fontsize=9)
    return figure


def views_figure(plans: Mapping[str, Plan], position: int = 0) -> Figure:
    """Return a picture of one lens as several instruments record it.

    Args:
        plans: of one recipe with one seed, by the name of the instrument.
        position: which sample.
    """
    need("matplotlib", "a preview")
    from matplotlib.figure import Figure

    columns = min(3, len(plans))
    rows = math.ceil(len(plans) / columns)
    figure = Figure(figsize=(2.5 * columns, 2.7 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (name, plan) in zip(axes, plans.items(), strict=False):
        scale = plan.instrument.pixel_scale
        _show(axis, _samples(plan, range(position, position + 1)).lr[0, 0], f'{name}, {scale:g}"')
    return figure


def _samples(plan: Plan, positions: range) -> Samples:
    return render(plan.recipe, plan.build_engine(), [plan.drawn(p) for p in positions])


def _show(axis: Any, image: NDArray[np.float32], title: str) -> None:
    # the sky about zero, faint arcs and the brightest pixels in one scale
    low, high = np.percentile(image, [1, 99.8])
    stretched = np.arcsinh(np.clip((image - low) / max(high - low, 1e-30), 0, None) * 5)
    axis.imshow(stretched, origin="lower", cmap="magma", vmin=0, vmax=math.asinh(5), interpolation="nearest")
    axis.set_title(title, fontsize=7)
