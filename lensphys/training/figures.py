"""The curves of a training: its losses and measures, step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lensphys.basics.checks import LensphysError, is_number
from lensphys.basics.extras import need
from lensphys.basics.panels import COLOURS, DPI, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def loss_figure(records: Sequence[Mapping[str, Any]]) -> Figure:
    """Return training curves, a panel a quantity; ``train/loss`` and ``valid/loss`` share one.

    Args:
        records: the lines of a JSON-lines log: ``step`` or ``epoch``, and numbers.

    Raises:
        LensphysError: if no record has a step or an epoch and a number.
    """
    need("matplotlib", "a figure")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    axis = "step" if any("step" in record for record in records) else "epoch"
    panels = _curves(records, axis)
    if not panels:
        raise LensphysError("a figure of losses needs records with a 'step' or an 'epoch' and a number, found none")
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.8 * columns + 0.4, 2.1 * rows + 0.2), dpi=DPI, layout="constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for ax, (quantity, curves) in zip(axes, panels.items(), strict=False):
            _draw_curves(ax, quantity, curves)
            ax.set_xlabel(axis)
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
    return figure


def _curves(records: Sequence[Mapping[str, Any]], axis: str) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """quantity -> series -> points; the quantity is what follows the last ``/`` of a key."""
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for record in records:
        for key, y in record.items():
            if axis in record and is_number(y) and math.isfinite(y) and key not in ("step", "epoch"):
                series, _, quantity = key.rpartition("/")
                panels.setdefault(quantity, {}).setdefault(series, []).append((float(record[axis]), float(y)))
    return panels


def _draw_curves(ax: Axes, quantity: str, curves: dict[str, list[tuple[float, float]]]) -> None:
    for (series, points), colour in zip(curves.items(), COLOURS, strict=False):
        x, y = np.array(points).T
        ax.plot(x, y, color=colour, linewidth=1.2, marker="." if len(x) < 20 else None, markersize=4, label=series)
    everything = np.array([y for points in curves.values() for _, y in points])
    if everything.min() > 0 and everything.max() > 30 * everything.min():
        ax.set_yscale("log")
    ax.set_title(quantity)
    if any(curves):
        ax.legend(frameon=False)
