"""One self-contained HTML page of an experiment with readers: tables to sort, figures, settings, provenance."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensphys.basics.panels import COLOURS
from lensphys.downstream.figures import calibration_figure, labels_figure, roc_figure, score_figure, shift_figure
from lensphys.downstream.settings import PLAIN
from lensphys.downstream.tables import notes, tables
from lensphys.evaluation.comparison.report import listed_html, page, table_html, written

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]

_FIGURES: dict[str, tuple[Callable[[Row], Figure | None], str]] = {
    "labels": (
        labels_figure,
        "Label efficiency: mean over seeds with its 95 % interval; points are displaced sideways.",
    ),
    "roc": (roc_figure, "One class against the rest, largest budget, mean over seeds; AUC in the legend."),
    "scores": (score_figure, "Scores of a fit, without a label; AUC in the legend."),
    "shift": (shift_figure, "Largest budget, on the plain and on shifted test sets; mean over seeds, 95 % interval."),
    "calibration": (
        calibration_figure,
        "Reliability of the likeliest class, a line a seed; on the diagonal it is honest.",
    ),
}


def write_downstream_report(folder: Path, tree: Row) -> Path:
    """Write ``report.html``, which needs no other file, and its figures as ``figures/*.png``; return the page.

    Args:
        folder: where to write.
        tree: what the ``metrics.json`` of an experiment holds.

    Raises:
        LensphysError: if the folder cannot be written.
    """
    figures = ((name, caption, draw(tree)) for name, (draw, caption) in _FIGURES.items())
    return written(folder, figures, lambda shown: downstream_page(tree, shown))


def downstream_page(tree: Row, figures: str = "") -> str:
    """Return the HTML of a report; every text of the tree is escaped.

    Args:
        tree: what the ``metrics.json`` of an experiment holds.
        figures: HTML of the figures.
    """
    inputs = list(dict.fromkeys(row["input"] for row in tree["rows"]))
    colours = {name: COLOURS[k % len(COLOURS)] for k, name in enumerate(inputs)}
    remarks = "".join(f'<p class="note">{escape(note)}</p>\n' for note in notes(tree))
    told = tree["sets"]
    facts = {
        "task": tree["task"] + (f" {tree['target']}" if tree["target"] else ""),
        "classes": ", ".join(tree["classes"]) or "none",
        "labels": f"{', '.join(map(str, tree['budgets']))}, {tree['seeds']} seeds",
        "judged on": f"{told[PLAIN]['lenses']} unseen lenses of {told[PLAIN]['file']}",
    }
    sections = {
        "Results": "".join(table_html(table, colours) for table in tables(tree)) + remarks,
        "Figures": figures,
        "Sets": listed_html(told),
        "Provenance": listed_html(tree["provenance"]),
    }
    return page(tree["title"], tree["protocol"], facts, sections)
