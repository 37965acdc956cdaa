"""Figures of what readers reached: ROC, label efficiency, shifts, calibration, scores without labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lensphys.basics.panels import COLOURS, DPI, STYLE
from lensphys.downstream.settings import PLAIN
from lensphys.downstream.tables import ALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]

_LINES = ("-", "--", ":", "-.")


def roc_figure(tree: Row) -> Figure | None:
    """Return the ROC curve of each class against the rest, of the largest budget; None where numbers are told."""
    rows = [row for row in tree["rows"] if row["budget"] == max(tree["budgets"])]
    if not tree["classes"] or not rows:
        return None
    figure, axes = _panels(len(tree["classes"]))
    for ax, name in zip(axes, tree["classes"], strict=True):
        for row in rows:
            curve = row["tests"][PLAIN]["roc"][name]
            auc = row["tests"][PLAIN]["auc"][name]["mean"]
            ax.plot(np.linspace(0, 1, len(curve)), curve, **_look(tree, row), label=f"{_name(row)} {auc:.3f}")
        _square(ax, name, "false alarms", "completeness")
        ax.legend(fontsize=5.5, frameon=False, loc="lower right")
    return figure


def labels_figure(tree: Row) -> Figure | None:
    """Return AUC (or MSE) against the number of labels, with its interval over seeds; None for a single budget."""
    budgets = sorted(tree["budgets"])
    if len(budgets) < 2:
        return None
    figure, (ax,) = _panels(1, width=5.6)
    pairs = list(dict.fromkeys((row["reader"], row["input"]) for row in tree["rows"]))
    for k, (reader, name) in enumerate(pairs):
        own = sorted(
            (r for r in tree["rows"] if (r["reader"], r["input"]) == (reader, name)), key=lambda r: r["budget"]
        )
        values = [_main(tree, row["tests"][PLAIN]) for row in own]
        x = np.array([row["budget"] for row in own]) * 1.015 ** (k - len(pairs) / 2)
        look = _look(tree, own[0])
        ax.plot(x, [v["mean"] for v in values], marker="o", markersize=3, label=_name(own[0]), **look)
        for place, v in zip(x, values, strict=True):
            if v["low"] is not None:
                ax.plot([place, place], [v["low"], v["high"]], color=look["color"], linewidth=0.8)
    ax.set_xscale("log")
    ax.set_xticks(budgets, [str(b) for b in budgets])
    ax.minorticks_off()
    ax.set_xlabel("labels of each class" if tree["classes"] else "labels")
    ax.set_ylabel("AUC, mean of classes" if tree["classes"] else f"MSE of {tree['target']}")
    ax.grid(color="0.92", linewidth=0.6)
    ax.legend(fontsize=6, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def shift_figure(tree: Row) -> Figure | None:
    """Return the AUC (or MSE) of each reader on each test set; None without shifts."""
    tests = list(tree["sets"])[1:]
    rows = [row for row in tree["rows"] if row["budget"] == max(tree["budgets"])]
    if len(tests) < 2:
        return None
    figure, (ax,) = _panels(1, width=5.6)
    for k, row in enumerate(rows):
        values = [_main(tree, row["tests"][test]) for test in tests]
        x = np.arange(len(tests)) + 0.6 * ((k + 0.5) / len(rows) - 0.5)
        look = _look(tree, row)
        ax.plot(x, [v["mean"] for v in values], "o", markersize=4, color=look["color"], label=_name(row))
        for place, v in zip(x, values, strict=True):
            if v["low"] is not None:
                ax.plot(
                    [place, place],
                    [v["low"], v["high"]],
                    color=look["color"],
                    linewidth=0.8,
                    linestyle=look["linestyle"],
                )
    ax.set_xticks(range(len(tests)), tests)
    ax.set_ylabel("AUC, mean of classes" if tree["classes"] else f"MSE of {tree['target']}")
    ax.grid(axis="y", color="0.92", linewidth=0.6)
    ax.legend(fontsize=6, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def calibration_figure(tree: Row) -> Figure | None:
    """Return reliability diagrams of the largest budget, a line a seed; None where numbers are told."""
    rows = [r for r in tree["rows"] if r["budget"] == max(tree["budgets"]) and r["input"] not in tree["nuisances"]]
    if not tree["classes"] or not rows:
        return None
    figure, axes = _panels(len(rows), width=1.9, most=5)
    for ax, row in zip(axes, rows, strict=False):
        for curve in row["tests"][PLAIN]["reliability"]:
            stated, share = np.array(curve).T
            ax.plot(stated, share, marker=".", markersize=3, linewidth=0.8, color=_look(tree, row)["color"])
        _square(ax, f"{_name(row)}\nECE {row['tests'][PLAIN]['ece']['mean']:.3f}", "stated probability", "share right")
    return figure


def score_figure(tree: Row) -> Figure | None:
    """Return ROC curves of the scores without labels on the plain test set; None where there are none."""
    rows = [row for row in tree["label_free"] if row["test"] == PLAIN]
    questions = list(dict.fromkeys(row["question"] for row in rows))
    if not rows:
        return None
    figure, axes = _panels(len(questions), width=3.0)
    products = list(dict.fromkeys(row["product"] for row in rows))
    for ax, question in zip(axes, questions, strict=True):
        own = [row for row in rows if row["question"] == question]
        scores = list(dict.fromkeys(row["score"] for row in own))
        for row in own:
            curve, colour = row["roc"], COLOURS[scores.index(row["score"]) % len(COLOURS)]
            style = _LINES[products.index(row["product"]) % len(_LINES)]
            label = f"{row['score']} {row['auc']:.3f}" + (f" ({row['product']})" if len(products) > 1 else "")
            ax.plot(np.linspace(0, 1, len(curve)), curve, style, color=colour, linewidth=1, label=label)
        _square(ax, question, "false alarms", "completeness")
        ax.legend(fontsize=6, frameon=False, loc="lower right")
    return figure


def _main(tree: Row, test: Row) -> Row:
    return test["auc"][ALL] if tree["classes"] else test["mse"]


def _name(row: Row) -> str:
    return f"{row['reader']} on {row['input']}"


def _look(tree: Row, row: Row) -> dict[str, Any]:
    """A colour an input, a kind of line a reader."""
    inputs = list(dict.fromkeys(r["input"] for r in tree["rows"]))
    readers = list(dict.fromkeys(r["reader"] for r in tree["rows"]))
    colour = COLOURS[inputs.index(row["input"]) % len(COLOURS)]
    return {"color": colour, "linestyle": _LINES[readers.index(row["reader"]) % len(_LINES)], "linewidth": 1.1}


def _panels(count: int, *, width: float = 2.6, most: int = 4) -> tuple[Figure, Sequence[Axes]]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    columns = min(count, most)
    lines = -(-count // columns)
    with mpl.rc_context(STYLE):
        height = 3.0 if count == 1 else width + 0.3
        figure = Figure(
            figsize=(width * columns + (1.6 if count == 1 else 0.3), height * lines), dpi=DPI, layout="constrained"
        )
        axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for ax in axes[count:]:
        ax.set_axis_off()
    return figure, axes[:count]


def _square(ax: Axes, title: str, x: str, y: str) -> None:
    ax.plot([0, 1], [0, 1], color="0.8", linewidth=0.8, zorder=0)
    ax.set(xlim=(0, 1), ylim=(0, 1.01), xlabel=x, ylabel=y)
    ax.set_aspect("equal")
    ax.set_title(title, fontsize=7.5)
