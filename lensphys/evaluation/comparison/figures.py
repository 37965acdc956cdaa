"""Figures of a comparison of methods: the same lens by all of them, quality against cost, training curves."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lensphys.basics.checks import LensphysError, check_same_shape
from lensphys.basics.extras import need
from lensphys.basics.panels import COLOURS, DPI, STYLE
from lensphys.evaluation.tables import ALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]
Points = list[tuple[float, float]]

_MOST_COLUMNS = 6
_MARKERS = ("o", "s", "^", "D", "v", "P")
_COSTS = {
    "training_seconds": ("training time [s]", "none"),
    "milliseconds": ("time an image [ms]", ""),
}
_DISTANCES = (7, 14, 24, 36, 50, 66)  # of a label from its point [points]


@dataclass(frozen=True)
class Panel:
    """What one method made of a lens.

    Args:
        title: the method.
        image: super-resolved, (H, W) [flux per HR pixel].
        psnr: in the flux protocol [dB].
    """

    title: str
    image: np.ndarray
    psnr: float | None = None


@dataclass(frozen=True)
class Lens:
    """One lens as all methods see it.

    Args:
        title: what it shows: class and number.
        field: half width and half height of the images [arcsec].
        lr: low-resolution image, (h, w) [flux per LR pixel].
        truth: noise-free target, (H, W) [flux per HR pixel], in the same unit.
        panels: the methods.
    """

    title: str
    field: tuple[float, float]
    lr: np.ndarray
    truth: np.ndarray
    panels: Sequence[Panel]


def lens_figure(lens: Lens) -> Figure:
    """Return one lens by all methods: LR above the truth, then each method above its residual, SR - truth.

    All images share a colour scale, surface brightness in units of the truth's peak; all residuals share another one,
    as wide as those of the median method, so that what is good can be told apart and what is worse saturates.

    Raises:
        LensphysError: if there is no method, or an image has another shape than the truth.
    """
    need("matplotlib", "a figure")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    if not lens.panels:
        raise LensphysError(f"a figure of the lens {lens.title!r} needs at least one method, got none")
    for panel in lens.panels:
        check_same_shape(f"image of {panel.title}", panel.image.shape, "truth", lens.truth.shape)
    count = len(lens.panels) + 1
    bands = math.ceil(count / _MOST_COLUMNS)
    columns = math.ceil(count / bands)
    height = 1.45 * lens.field[1] / lens.field[0]
    with mpl.rc_context(STYLE):
        size = (1.5 * columns + 0.8, bands * (2 * height + 0.6) + 0.35)
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        axes = figure.subplots(2 * bands, columns, squeeze=False)
        for ax in axes.flat:
            ax.set_axis_off()
        _draw_lens(lens, axes)
        figure.suptitle(lens.title, fontsize=10)
    return figure


def cost_figure(tree: Row) -> Figure | None:
    """Return PSNR of all images with its interval against training time and time an image; None without a number.

    Args:
        tree: what the ``metrics.json`` of a comparison holds.
    """
    need("matplotlib", "a figure")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    shown = {cost: [row for row in tree["rows"] if _psnr(row) and _has(row, cost)] for cost in _COSTS}
    shown = {cost: rows for cost, rows in shown.items() if rows}
    if not shown:
        return None
    groups = list(dict.fromkeys(row["group"] for row in tree["rows"]))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 4.4 * len(shown)), dpi=DPI, layout="constrained")
        axes = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
        placed = [_scatter(ax, rows, cost, groups) for ax, (cost, rows) in zip(axes, shown.items(), strict=True)]
        used = [g for g in groups if any(row["group"] == g for rows in shown.values() for row in rows)]
        handles = [_marker(groups.index(g)) for g in used]
        figure.legend(handles, used, loc="outside upper center", ncols=max(1, len(used)), frameon=False)
        figure.draw_without_rendering()  # labels are placed on the final axes
        for ax, points, rows in zip(axes, placed, shown.values(), strict=True):
            _label(ax, points, [row["name"] for row in rows])
    return figure


def curves_figure(tree: Row) -> Figure | None:
    """Return the training of every method against seconds: validation above loss; None where nothing was trained.

    A method of several players (``generator/loss``, ``discriminator/loss``) has a panel more for each player's loss.

    Args:
        tree: what the ``metrics.json`` of a comparison holds.
    """
    need("matplotlib", "a figure")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys(row["group"] for row in tree["rows"]))
    stacks = [stack for row in tree["rows"] for stack in _stacks(row, _colour(groups.index(row["group"])))]
    if not stacks:
        return None
    columns = min(5, len(stacks))
    bands = math.ceil(len(stacks) / columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.2 * columns + 0.3, 2.9 * bands), dpi=DPI, layout="constrained")
        axes = figure.subplots(2 * bands, columns, squeeze=False)
        for ax in axes.flat:
            ax.set_axis_off()
        for k, (title, curves, colour) in enumerate(stacks):
            band, column = divmod(k, columns)
            pair = axes[2 * band : 2 * band + 2, column]
            pair[0].set_title(_wrapped(title, 30))
            for ax, (quantity, points) in zip(pair, curves, strict=False):
                _draw_curve(ax, quantity, points, colour)
            pair[len(curves) - 1].set_xlabel("seconds")
    return figure


def _draw_lens(lens: Lens, axes: np.ndarray) -> None:
    peak = float(np.max(lens.truth)) or 1.0
    residuals = [(panel.image - lens.truth) / peak for panel in lens.panels]
    widths = [float(np.percentile(np.abs(x[np.isfinite(x)]), 99.5)) for x in residuals if np.isfinite(x).any()]
    limit = float(np.median(widths or [0.0])) or 1e-6
    columns = axes.shape[1]

    def bright(ax: Axes, image: np.ndarray, title: str) -> Any:
        return _show(ax, image / peak, title, lens.field, "inferno", (0.0, 1.0))

    def residual(ax: Axes, image: np.ndarray) -> Any:
        return _show(ax, image, "", lens.field, "RdBu_r", (-limit, limit))

    # the same surface brightness fills a larger LR pixel with more flux
    bright(axes[0, 0], lens.lr * lens.lr.size / lens.truth.size, "LR")
    bright(axes[1, 0], lens.truth, "truth")
    for k, (panel, difference) in enumerate(zip(lens.panels, residuals, strict=True), start=1):
        band, column = divmod(k, columns)
        number = "" if panel.psnr is None else f"\n{panel.psnr:.2f} dB"
        image = bright(axes[2 * band, column], panel.image, _wrapped(panel.title, 21) + number)
        below = residual(axes[2 * band + 1, column], difference)
        if column == columns - 1 or k == len(lens.panels):
            figure = axes[0, 0].figure
            line = {"aspect": 14, "fraction": 0.05, "pad": 0.01}
            figure.colorbar(image, ax=list(axes[2 * band]), label="flux / peak of truth", **line)
            figure.colorbar(below, ax=list(axes[2 * band + 1]), label="SR − truth", extend="both", **line)


def _show(
    ax: Axes, image: np.ndarray, title: str, field: tuple[float, float], cmap: str, limits: tuple[float, float]
) -> Any:
    x, y = field
    ax.set_axis_on()
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=7.5)
    low, high = limits
    extent = (-x, x, -y, y)
    return ax.imshow(image, origin="lower", extent=extent, cmap=cmap, vmin=low, vmax=high, interpolation="none")


def _psnr(row: Row) -> Row | None:
    found = ((row.get("results") or {}).get(ALL) or {}).get("psnr_flux") or {}
    return found if not row["failed"] and found.get("mean") is not None else None


def _has(row: Row, cost: str) -> bool:
    """Whether a row has a place in a panel: what was trained elsewhere, nobody knows how long, has none."""
    return row.get(cost) is not None or (bool(_COSTS[cost][1]) and row.get("parameters") is None)


def _scatter(ax: Axes, rows: Sequence[Row], cost: str, groups: Sequence[str]) -> Points:
    """Draw the points of one panel and return where they are; what costs nothing stands left of a line."""
    heading, free = _COSTS[cost]
    paid = [row[cost] for row in rows if row.get(cost)]
    start, end = min(paid, default=1.0) / 2, 3 * max(paid, default=1.0)  # room for the labels
    nothing = start / 3
    leading = (1, 2, 5) if end < 1e5 * start else (1,)
    numbers = [m * 10.0**e for e in range(-6, 10) for m in leading if start <= m * 10.0**e <= end]
    ticks = {x: f"{x:,g}" for x in numbers}
    if len(paid) < len(rows):
        ticks[nothing] = free
        ax.axvline(start / 1.2, color="0.75", linewidth=0.8, linestyle=":")
    ax.set_xscale("log")
    ax.set_xlim(nothing / 3 if nothing in ticks else start, end)
    ax.set_xticks(list(ticks), list(ticks.values()))
    ax.minorticks_off()
    points = []
    for row in rows:
        summary, k = _psnr(row) or {}, groups.index(row["group"])
        x, y = row.get(cost) or nothing, summary["mean"]
        colour = _colour(k)
        if summary.get("low") is not None and summary.get("high") is not None:
            ax.vlines(x, summary["low"], summary["high"], color=colour, linewidth=1)
        ax.plot(x, y, _MARKERS[k % len(_MARKERS)], color=colour, markersize=6)
        points.append((x, y))
    ax.margins(y=0.12)
    ax.grid(color="0.92", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set(xlabel=heading, ylabel="PSNR, flux protocol [dB]")
    return points


def _marker(k: int) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="", marker=_MARKERS[k % len(_MARKERS)], color=_colour(k))


def _colour(k: int) -> str:
    return COLOURS[k % len(COLOURS)]


def _label(ax: Axes, points: Points, names: Sequence[str]) -> None:
    """Write each name near its point where it covers least of the points and of the names before it."""
    from matplotlib.transforms import Bbox

    dots_a_point = ax.figure.dpi / 72
    centres = ax.transData.transform(points)
    taken = [Bbox.from_extents(x - 8, y - 8, x + 8, y + 8) for x, y in centres]
    frame = ax.get_window_extent()
    # the rightmost first: the frame leaves them the fewest places
    for k in sorted(range(len(names)), key=lambda k: -points[k][0]):
        name = _shortened(names[k], 46)
        text = ax.text(0, 0, name, fontsize=7)
        width, height = text.get_window_extent().size
        text.remove()
        choices: list[tuple[int, int, int, Bbox]] = []
        for distance in _DISTANCES:
            for angle in np.deg2rad((0, 180, 45, 135, -45, -135, 90, -90)):
                dx, dy = distance * math.cos(angle), distance * math.sin(angle)
                x = centres[k][0] + dx * dots_a_point + (math.cos(angle) - 1) / 2 * width
                y = centres[k][1] + dy * dots_a_point + (math.sin(angle) - 1) / 2 * height
                box = Bbox.from_bounds(x, y, width, height)
                inside = frame.contains(x, y) and frame.contains(x + width, y + height)
                choices.append((box.count_overlaps(taken) + 5 * (not inside), len(choices), distance, box))
        _, _, distance, box = min(choices)
        taken.append(box)
        near = min(max(centres[k][0], box.x0), box.x1), min(max(centres[k][1], box.y0), box.y1)
        at = ax.transData.inverted().transform([(box.x0, box.y0), near])
        ax.text(at[0, 0], at[0, 1], name, fontsize=7, va="bottom")
        if distance > _DISTANCES[0]:
            ax.plot(*zip(points[k], at[1], strict=True), color="0.6", linewidth=0.5, zorder=1)


def _stacks(row: Row, colour: str) -> list[tuple[str, list[tuple[str, Points]], str]]:
    """Pairs of curves of a method, one above the other: validation and loss, then the players' losses."""
    records = row.get("training") or []
    players = [key for key in dict.fromkeys(k for record in records for k in record) if key.endswith("/loss")]
    quantities = [("validation", "loss"), *zip(players[::2], [*players[1::2], ""], strict=False)]
    stacks = []
    for pair in quantities:
        curves = [(q.replace("/loss", "'s loss"), _points(records, q)) for q in pair]
        curves = [(quantity, points) for quantity, points in curves if points]
        title = row["name"] if pair is quantities[0] else f"{row['name']}: players"
        if curves:
            stacks.append((title, curves, colour))
    return stacks


def _points(records: Sequence[Mapping[str, Any]], quantity: str) -> Points:
    found = [(record.get("seconds"), record.get(quantity)) for record in records]
    return [(x, y) for x, y in found if x is not None and y is not None and math.isfinite(y)]


def _draw_curve(ax: Axes, quantity: str, points: Points, colour: str) -> None:
    x, y = np.array(points).T
    ax.set_axis_on()
    ax.plot(x, y, color=colour, linewidth=1.2, marker="." if len(x) < 20 else None, markersize=4)
    if y.min() > 0 and y.max() > 30 * y.min():
        ax.set_yscale("log")
    ax.set_ylabel(quantity)
    ax.grid(color="0.92", linewidth=0.6)


def _wrapped(name: str, width: int) -> str:
    return "\n".join(textwrap.wrap(name, width, max_lines=2, placeholder=" …"))


def _shortened(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"
