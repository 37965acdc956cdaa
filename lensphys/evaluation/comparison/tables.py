"""Tables of a comparison of methods, from the ``metrics.json`` that `lensphys compare` writes.

A `Table` knows nothing of its form: `as_markdown` writes it for a page, `report` for a browser.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lensphys.evaluation.tables import ABSENT, ALL, COLUMNS, markdown
from lensphys.prediction import QUALITIES

Row = dict[str, Any]

# name in metrics.json: (heading, number format), what a single evaluation does not show
_COLUMNS = {
    "mse_flux": ("MSE, flux protocol [peak²]", ".2e"),
    "mse_seed": ("MSE, seed protocol", ".2e"),
    "niqe": ("NIQE", ".2f"),
    "theta_E_image": ("error of theta_E from the SR image", ".4f"),
} | COLUMNS
_FLUX = ("psnr_flux", "ssim_flux", "mse_flux")
_OTHERS = ("psnr_seed", "ssim_seed", "mse_seed", "niqe", "chi2_dof", "flux_bias", "theta_E_image")
_SHORT = ("psnr_flux", "ssim_flux", "niqe", "theta_E_image")
# the value that a perfect image has, and how a heading says so
_IDEAL = {
    "psnr_flux": (math.inf, "↑"),
    "ssim_flux": (1.0, "↑"),
    "mse_flux": (0.0, "↓"),
    "psnr_seed": (math.inf, "↑"),
    "ssim_seed": (1.0, "↑"),
    "mse_seed": (0.0, "↓"),
    "niqe": (0.0, "↓"),
    "chi2_dof": (1.0, "→ 1"),
    "flux_bias": (0.0, "→ 0"),
    "theta_E_image": (0.0, "↓"),
}
_CEILING = "ceiling: the noise-free truth"
_VERDICTS = "good / suspect / bad, by its own verdict"


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Args:
        text: as it is shown.
        interval: of the mean, as it is shown; empty for a number without one.
        best: whether no other method reads better.
        order: what a column is sorted by, the best first; None stands at the end.
    """

    text: str
    interval: str = ""
    best: bool = False
    order: float | None = None


@dataclass(frozen=True)
class Line:
    """One method of a table; ``failed`` is the reason why it has no numbers, ``ranked`` whether it competes."""

    name: str
    group: str
    cells: tuple[Cell, ...] = ()
    failed: str | None = None
    ranked: bool = True


@dataclass(frozen=True)
class Table:
    """A title, the headings of the numbers, a line a method, grouped, and the heading of the methods."""

    title: str
    headings: tuple[str, ...]
    lines: tuple[Line, ...]
    first: str = "method"


def comparison_table(tree: Row) -> str:
    """Return the Markdown of a comparison: its protocol, quality, other judgements, cost, and each class by itself.

    Args:
        tree: what the ``metrics.json`` of a comparison holds.
    """
    tables = [quality_table(tree), judgement_table(tree), cost_table(tree)]
    if len(tree["classes"]) > 1:
        tables += [class_table(tree, label) for label in tree["classes"]]
    body = "\n".join(f"**{_plain(t.title)}**\n\n{as_markdown(t)}" for t in tables if t.headings)
    return f"{_head(tree)}\n\n{body}{_written_notes(tree)}"


def short_table(tree: Row) -> str:
    """Return one Markdown table of all classes together: PSNR, SSIM, NIQE, theta_E and cost, under the protocol.

    Args:
        tree: what the ``metrics.json`` of a comparison holds.
    """
    quality = _metric_table("", tree, [(ALL, metric, _heading(metric)) for metric in _SHORT])
    cost = cost_table(tree)
    lines = tuple(
        Line(judged.name, judged.group, judged.cells + spent.cells, judged.failed)
        for judged, spent in zip(quality.lines, cost.lines, strict=False)  # a ceiling costs nothing
    )
    table = Table("", quality.headings + cost.headings, lines)
    return f"{_head(tree)}\n\n{as_markdown(table)}{_written_notes(tree)}"


def quality_table(tree: Row) -> Table:
    """Return PSNR of each class and of all images, SSIM and MSE of all images, in the flux protocol."""
    columns = [(label, "psnr_flux", f"PSNR {label} [dB] ↑") for label in (*tree["classes"], ALL)]
    columns += [(ALL, "ssim_flux", "SSIM all ↑"), (ALL, "mse_flux", "MSE all [peak²] ↓")]
    return _metric_table("Flux protocol: PSNR of each class, SSIM and MSE of all images", tree, columns)


def judgement_table(tree: Row) -> Table:
    """Return the seed protocol, NIQE, chi^2, flux bias, theta_E, and what methods say of themselves, of all images."""
    table = _metric_table("Other judgements, all images", tree, [(ALL, m, _heading(m)) for m in _OTHERS])
    return _with_verdicts(table, tree, ALL)


def class_table(tree: Row, label: str) -> Table:
    """Return every metric on the images of one class."""
    table = _metric_table(f"Class {label}", tree, [(label, m, _heading(m)) for m in (*_FLUX, *_OTHERS)])
    return _with_verdicts(table, tree, label)


def cost_table(tree: Row) -> Table:
    """Return whether a method needs high-resolution images to learn from, its size, time and memory."""
    headings = ("needs HR", "parameters", "training time", "ms an image", "peak memory [MiB]")
    lines = []
    for row in _grouped(tree["rows"]):
        needs = Cell("yes" if row["needs_hr"] else "no", order=float(row["needs_hr"]))
        numbers = [
            _cost(row.get("parameters"), _count),
            _cost(row.get("training_seconds"), _duration),
            _cost(row.get("milliseconds"), _figures),
            _cost(row.get("peak_mib"), lambda x: f"{x:,.0f}"),
        ]
        lines.append(_line(row, (needs, *numbers)))
    return Table("Cost", headings, tuple(lines))


def notes(tree: Row) -> list[str]:
    """Return a sentence for each method that left images out or calls its own fits bad, and for each ranker.

    By what it leaves out no method must win. theta_E cannot be measured from every image; one sentence says of how many
    it was.
    """
    found = [
        f"Image {i} of the test images {reason}: it is left out." for i, reason in tree.get("left_out", {}).items()
    ]
    for row in tree["rows"]:
        own = row.get("verdicts") or {}
        if own.get("bad") or own.get("suspect"):
            found.append(
                f"{row['name']}: calls {own['bad']} of its {sum(own.values())} fits bad and {own['suspect']} suspect."
            )
        psnr = _summary(row.get("results"), ALL, "psnr_flux")
        if psnr.get("missing") and not row["failed"]:
            total = psnr["missing"] + psnr["n"]
            found.append(f"{row['name']}: {psnr['missing']} of {total} images gave no finite PSNR and are left out.")
    measured = [_summary(row.get("results"), ALL, "theta_E_image") for row in tree["rows"] if not row["failed"]]
    counts = [x["n"] for x in measured if x]
    if any(x.get("missing") for x in measured):
        span = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{min(counts)}"
        found.append(f"theta_E could be measured from {span} of the images of a method, not the same ones of each.")
    for row in tree["helpers"]:
        method = (row["settings"].get("train") or {}).get("method") or {}
        if method.get("name") == "ranker" and row["training"]:
            right = 1 - row["training"][-1]["validation"]
            found.append(f"{row['name']}: orders {right:.1%} of the pairs of images that it has not seen as NIQE does.")
    return found


def images_line(tree: Row) -> str:
    """Return how many images of each class were judged."""
    counts = [f"{n} {label}" for label, n in tree["images"].items() if label != ALL]
    return f"{tree['images'].get(ALL, sum(tree['images'].values()))} test images ({', '.join(counts)})"


def as_markdown(table: Table) -> str:
    """Return a table as Markdown: groups named once, the best of each column in bold, a failed method's reason."""
    body, group = [], None
    for line in table.lines:
        named = "" if line.group == group else _plain(line.group)
        group = line.group
        if line.failed:
            cells = [f"*fails: {_plain(line.failed)}*", *[""] * (len(table.headings) - 1)]
        else:
            cells = [_written(cell) for cell in line.cells]
        body.append([named, _plain(line.name), *cells])
    return markdown(["group", table.first, *map(_plain, table.headings)], body)


def _written_notes(tree: Row) -> str:
    return "".join(f"\n{_plain(note)}\n" for note in notes(tree))


def _metric_table(title: str, tree: Row, columns: Sequence[tuple[str, str, str]]) -> Table:
    """Columns are (class, metric, heading); those that no method has are left out."""
    rows = _grouped(tree["rows"])
    judged = [row for row in rows if not row["failed"]]

    def means(label: str, metric: str) -> list[float]:
        found = (_summary(row.get("results"), label, metric).get("mean") for row in judged)
        return [x for x in found if x is not None]

    kept = [(label, metric, heading, means(label, metric)) for label, metric, heading in columns]
    kept = [column for column in kept if column[3]]

    def cells(results: Row | None, *, competes: bool) -> tuple[Cell, ...]:
        return tuple(_cell(_summary(results, c, m), m, others if competes else []) for c, m, _, others in kept)

    lines = [_line(row, cells(row.get("results"), competes=True)) for row in rows]
    ceiling = cells(tree.get("ceiling"), competes=False)
    if any(cell.order is not None for cell in ceiling):
        lines.append(Line(_CEILING, "", ceiling, ranked=False))
    return Table(title, tuple(heading for _, _, heading, _ in kept), tuple(lines))


def _with_verdicts(table: Table, tree: Row, label: str) -> Table:
    """The table with the share of fits that call themselves good, suspect and bad, beside methods that judge them."""
    ceiling = [line.name for line in table.lines].count(_CEILING)
    shares = [_verdict_cell(row, label) for row in _grouped(tree["rows"])] + [Cell(ABSENT)] * ceiling
    if all(cell.order is None for cell in shares):
        return table
    lines = [
        line if line.failed else replace(line, cells=(*line.cells, share))
        for line, share in zip(table.lines, shares, strict=True)
    ]
    return Table(table.title, (*table.headings, _VERDICTS), tuple(lines))


def _verdict_cell(row: Row, label: str) -> Cell:
    """No share is the best one: a method that calls everything good is not the better for it."""
    means = [_summary(row.get("results"), label, quality).get("mean") for quality in QUALITIES]
    shares = [100 * mean for mean in means if mean is not None]
    if row["failed"] or len(shares) < len(QUALITIES):
        return Cell(ABSENT)
    return Cell(" / ".join(f"{share:.0f}" for share in shares) + " %", order=-shares[0])


def _cell(summary: Row, metric: str, means: Sequence[float]) -> Cell:
    value = summary.get("mean")
    if value is None:
        return Cell(ABSENT)
    spec = _COLUMNS[metric][1]
    distance = _distance(value, metric)
    best = min((_distance(x, metric) for x in means), default=None)
    low, high = summary.get("low"), summary.get("high")
    interval = "" if low is None or high is None else f"[{low:{spec}}, {high:{spec}}]"
    # as good as the best is what reads like it
    return Cell(f"{value:{spec}}", interval, best is not None and f"{distance:{spec}}" == f"{best:{spec}}", distance)


def _distance(value: float, metric: str) -> float:
    """How far from perfect: what is smaller is better."""
    ideal = _IDEAL[metric][0]
    return -value if ideal == math.inf else abs(value - ideal)


def _line(row: Row, cells: tuple[Cell, ...]) -> Line:
    failed = row["failed"]
    return Line(row["name"], row["group"], () if failed else cells, failed, ranked=not failed)


def _grouped(rows: Sequence[Row]) -> list[Row]:
    groups = list(dict.fromkeys(row["group"] for row in rows))
    return sorted(rows, key=lambda row: groups.index(row["group"]))


def _summary(results: Row | None, label: str, metric: str) -> Row:
    return ((results or {}).get(label) or {}).get(metric) or {}


def _heading(metric: str) -> str:
    return f"{_COLUMNS[metric][0]} {_IDEAL[metric][1]}"


def _head(tree: Row) -> str:
    text = f"{tree['protocol']}. Data: {tree['data']}, {images_line(tree)}. Means with 95 % bootstrap intervals."
    return _plain(text[:1].upper() + text[1:])


def _cost(x: float | None, shown: Any) -> Cell:
    return Cell(ABSENT) if x is None else Cell(shown(x), order=float(x))


def _count(n: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= size:
            return f"{_figures(n / size)} {unit}"
    return f"{n:.0f}"


def _duration(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{_figures(seconds)} s"


def _figures(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 or x == 0 else f"{x:#.3g}"


def _written(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    return f"{text} {cell.interval}".rstrip()


def _plain(text: str) -> str:
    """Text that can break neither a table nor the comments that mark its place in a page."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")
