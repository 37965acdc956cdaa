"""One self-contained HTML page of a comparison of methods: tables to sort, figures, settings, provenance."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lensphys.basics.outputs import whole_file
from lensphys.basics.panels import COLOURS, save_figure
from lensphys.evaluation.comparison.figures import Lens, cost_figure, curves_figure, lens_figure
from lensphys.evaluation.comparison.tables import (
    Cell,
    Line,
    Table,
    class_table,
    cost_table,
    images_line,
    judgement_table,
    notes,
    quality_table,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]

_READING = (
    "Means over images; the small figures are the 95 % bootstrap interval of the mean. The best of a column is "
    "marked, and so is what reads like it. ↑ higher is better, ↓ lower is better, → nearer is better. A click on a "
    "heading sorts."
)
_COST = (
    "PSNR of all images, with the 95 % bootstrap interval of its mean, against the training time (with that of all it "
    "builds on; weights that came trained are left out) and against the time an image."
)
_CURVES = "Training against wall-clock seconds. Losses of different methods are different quantities."
_LENS = (
    "Images share one colour scale, residuals (SR − truth) another one, as wide as those of the median method: "
    "what is worse saturates."
)
_STYLE = """
:root { color-scheme: light dark; --page: #fbfbfa; --card: #fff; --ink: #1c2024; --faint: #667079; --rule: #e3e6e8;
  --accent: #0b5cad; --best: #e7f1fb; --stripe: #f6f8f9; --bad: #a3301b; --bad-page: #fdf1ee; }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --card: #1b1f23; --ink: #e4e7ea; --faint: #9aa4ad;
  --rule: #30363c; --accent: #79b8ff; --best: #17324d; --stripe: #20252a; --bad: #ff9c85; --bad-page: #38211c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1380px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 2rem; line-height: 1.2; letter-spacing: -.02em; margin: 0 0 .6rem; overflow-wrap: anywhere;
  text-wrap: balance; }
h2 { font-size: 1.3rem; letter-spacing: -.01em; margin: 3rem 0 .8rem; padding-top: .9rem;
  border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.8rem 0 .5rem; }
p { margin: .5rem 0; max-width: 78ch; overflow-wrap: anywhere; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
.lede { font-size: 1.08rem; } .note, figcaption { color: var(--faint); font-size: .88rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; margin-top: 1.2rem; font-size: .92rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: .7rem; margin: 1.4rem 0 0; }
.facts div { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: .6rem .85rem; }
.facts dt { color: var(--faint); font-size: .78rem; }
.facts dd { margin: 0; overflow-wrap: anywhere; font-weight: 550; line-height: 1.35; }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--rule); border-radius: 8px; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .88rem; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .6rem; text-align: right; border-bottom: 1px solid var(--rule); vertical-align: middle; }
tbody tr:last-child > * { border-bottom: 0; }
tbody tr:nth-child(even) > * { background: var(--stripe); }
thead th { font-weight: 600; font-size: .8rem; text-wrap: balance;
  vertical-align: bottom; min-width: 4.8rem; background: var(--card); }
tr > :first-child { text-align: left; position: sticky; left: 0; background: var(--card); min-width: 9rem;
  max-width: 17rem; font-weight: 500; overflow-wrap: anywhere; border-right: 1px solid var(--rule); z-index: 1; }
thead button { all: unset; cursor: pointer; } thead button:hover { color: var(--accent); }
thead button:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; border-radius: 2px; }
th[aria-sort] button { color: var(--accent); }
th[aria-sort=ascending] button::after { content: " ▾"; } th[aria-sort=descending] button::after { content: " ▴"; }
td { white-space: nowrap; } td small { display: block; color: var(--faint); font-size: .72rem; }
tbody tr > td.best { background: var(--best); } td.best b { color: var(--accent); }
.group { display: block; color: var(--faint); font-size: .74rem; font-weight: 400; }
.group i { display: inline-block; width: .6em; height: .6em; border-radius: 50%; margin-right: .4em; }
tbody tr > td.failed { text-align: left; white-space: normal; color: var(--bad); background: var(--bad-page);
  overflow-wrap: anywhere; }
tr.aside > * { color: var(--faint); font-style: italic; }
figure { margin: 1rem 0 1.6rem; } figcaption { margin-top: .4rem; max-width: 90ch; }
figure .wide { background: #fff; padding: .6rem; }
img { display: block; margin: 0 auto; max-width: 100%; height: auto; }
figure.large img { min-width: 640px; }
details { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; margin: .45rem 0; }
summary { cursor: pointer; padding: .5rem .85rem; font-weight: 500; overflow-wrap: anywhere; }
pre { margin: 0; padding: .3rem 1rem .8rem; overflow-x: auto;
  font: .82rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.list th { font-weight: 500; color: var(--faint); vertical-align: top; width: 11rem; }
.list td { text-align: left; white-space: normal; overflow-wrap: anywhere; } .list pre { padding: 0; }
@media (max-width: 700px) { main { padding-top: 1.5rem; } h1 { font-size: 1.5rem; }
  tr > :first-child { max-width: 10rem; min-width: 8.6rem; } }
@media print { :root { --page: #fff; --card: #fff; --ink: #000; --faint: #555; --rule: #ccc; --best: #eef4fa;
  --stripe: #fff; --accent: #0b5cad; --bad: #a3301b; --bad-page: #fff; color-scheme: light; }
  @page { size: A4 landscape; margin: 12mm; }
  main { max-width: none; padding: 0; } nav { display: none; } .wide { overflow: visible; border: 0; }
  html { font-size: 10px; } body { font-size: 1rem; } th, td { padding: .25rem .35rem; }
  thead th { min-width: 0; } tr > :first-child { min-width: 9.5rem; }
  figure.large img { min-width: 0; max-height: 165mm; }
  tr, figure, details { break-inside: avoid; } h2, h3 { break-after: avoid; } * { print-color-adjust: exact; } }
"""
_SCRIPT = """
for (const head of document.querySelectorAll("th[data-column]")) head.querySelector("button").onclick = () => {
  const body = head.closest("table").tBodies[0], up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = row => row.cells[head.cellIndex]?.dataset.order;
  const last = row => row.hasAttribute("data-unranked") ? 2 : key(row) === undefined ? 1 : 0;
  const order = (a, b) => head.cellIndex ? key(a) - key(b) : key(a).localeCompare(key(b));
  body.append(...[...body.rows].sort((a, b) => last(a) - last(b) || (last(a) ? 0 : (up ? 1 : -1) * order(a, b))));
};
"""


def write_report(folder: Path, tree: Row, lenses: Sequence[Lens] = ()) -> Path:
    """Write ``report.html``, which needs no other file, and the figures in it as ``figures/*.png``; return the page.

    Args:
        folder: where to write.
        tree: what the ``metrics.json`` of a comparison holds.
        lenses: what is shown by all methods, best one a class.

    Raises:
        LensphysError: if the folder cannot be written, or the images of a lens differ in shape.
    """
    figures: list[tuple[str, str, Figure | None]] = [("cost", _COST, cost_figure(tree))]
    figures += [(f"lens_{k}", f"{lens.title}. {_LENS}", lens_figure(lens)) for k, lens in enumerate(lenses, start=1)]
    figures += [("training", _CURVES, curves_figure(tree))]
    return written(folder, figures, lambda shown: report_page(tree, shown))


def written(folder: Path, figures: Iterable[tuple[str, str, Figure | None]], page: Callable[[str], str]) -> Path:
    """Write figures as ``figures/*.png`` and the page that holds them as ``report.html``; return the page.

    Args:
        folder: where to write.
        figures: name, caption and figure of each; None for one that there is not.
        page: HTML of the figures -> HTML of the page.

    Raises:
        LensphysError: if the folder cannot be written.
    """
    shown = ""
    for name, caption, figure in figures:
        if figure is not None:
            file = folder / "figures" / f"{name}.png"
            save_figure(figure, file)
            shown += figure_html(file, caption)
    where = folder / "report.html"
    with whole_file(where) as temporary:
        temporary.write_text(page(shown), encoding="utf-8")
    return where


def report_page(tree: Row, figures: str = "") -> str:
    """Return the HTML of a report; every text of the tree is escaped.

    Args:
        tree: what the ``metrics.json`` of a comparison holds.
        figures: HTML of the figures.
    """
    colours = {g: COLOURS[k % len(COLOURS)] for k, g in enumerate(dict.fromkeys(r["group"] for r in tree["rows"]))}
    remarks = "".join(f'<p class="note">{escape(note)}</p>\n' for note in notes(tree))
    main = "".join(
        table_html(table, colours) for table in (quality_table(tree), judgement_table(tree), cost_table(tree))
    )
    sections = {
        "Results": f'<p class="note">{_READING}</p>\n{main}{remarks}',
        "Failed": _failures(tree),
        "Verdicts": _verdicts(tree),
        "Figures": figures,
        "Classes": "".join(table_html(class_table(tree, label), colours) for label in tree["classes"]),
        "Settings": "".join(_settings(row) for row in tree["rows"]),
        "Provenance": listed_html(tree["provenance"]),
    }
    return page(tree["title"], tree["protocol"], _facts(tree), sections)


def page(title: str, lede: str, facts: Mapping[str, str], sections: Mapping[str, str]) -> str:
    """Return a whole HTML page in the style of all reports.

    Args:
        title: its heading; escaped, as are the next two.
        lede: what a reader must know.
        facts: short ones, by their names.
        sections: HTML by headings; empty ones are left out.
    """
    sections = {heading: body for heading, body in sections.items() if body}
    links = "".join(f'<a href="#{_anchor(heading)}">{heading}</a>\n' for heading in sections)
    bodies = "".join(f'<section id="{_anchor(h)}">\n<h2>{h}</h2>\n{b}</section>\n' for h, b in sections.items())
    cards = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(str(v))}</dd></div>\n" for k, v in facts.items())
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n"
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n<header>\n<h1>{escape(title)}</h1>\n"
        f'<p class="lede">{escape(lede)}</p>\n<dl class="facts">\n{cards}</dl>\n<nav>\n{links}</nav>\n</header>\n'
        f"{bodies}</main>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def _facts(tree: Row) -> dict[str, str]:
    failed = [row for row in tree["rows"] if row["failed"]]
    methods = f"{len(tree['rows'])}" + (f", {len(failed)} failed" if failed else "")
    budget = ", ".join(f"{_spaced(key)} {value}" for key, value in tree["budget"].items())
    return {"methods": methods, "data": tree["data"], "judged on": images_line(tree), "budget of a method": budget}


def table_html(table: Table, colours: Mapping[str, str]) -> str:
    """Return a table that a click on a heading sorts; groups have a dot of their colour where one is given."""
    if not table.headings:
        return ""
    heads = "".join(
        f'<th scope="col" data-column><button type="button">{escape(heading)}</button></th>'
        for heading in (table.first, *table.headings)
    )
    lines = "".join(_line(line, len(table.headings), colours) for line in table.lines)
    return (
        f'<h3>{escape(table.title)}</h3>\n<div class="wide" tabindex="0" role="region" '
        f'aria-label="{escape(table.title)}">\n<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{lines}</tbody>\n'
        f"</table>\n</div>\n"
    )


def _line(line: Line, columns: int, colours: Mapping[str, str]) -> str:
    dot = f'<i style="background:{colours[line.group]}"></i>' if line.group in colours else ""
    group = f'<span class="group">{dot}{escape(line.group)}</span>' if line.group else ""
    head = f'<th scope="row" data-order="{escape(line.name)}">{escape(line.name)}{group}</th>'
    if line.failed:
        cells = f'<td class="failed" colspan="{columns}">failed: {escape(line.failed)}</td>'
    else:
        cells = "".join(_cell(cell) for cell in line.cells)
    kind = "" if line.ranked else " data-unranked" if line.failed else ' class="aside" data-unranked'
    return f"<tr{kind}>{head}{cells}</tr>\n"


def _cell(cell: Cell) -> str:
    order = "" if cell.order is None else f' data-order="{cell.order:.9g}"'
    text = f"<b>{escape(cell.text)}</b>" if cell.best else escape(cell.text)
    interval = f"<small>{escape(cell.interval)}</small>" if cell.interval else ""
    mark = ' class="best"' if cell.best else ""
    return f"<td{order}{mark}>{text}{interval}</td>"


def _failures(tree: Row) -> str:
    failed = {row["name"]: row["failed"] for row in tree["rows"] if row["failed"]}
    return listed_html(failed) if failed else ""


def _verdicts(tree: Row) -> str:
    judged = {row["name"]: row["quality"] for row in tree["rows"] if row.get("verdicts")}
    return listed_html(judged) if judged else ""


def figure_html(file: Path, caption: str) -> str:
    """Return a figure that needs no other file."""
    data = base64.b64encode(file.read_bytes()).decode("ascii")
    return (
        f'<figure class="large">\n<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}"></div>\n'
        f"<figcaption>{escape(caption)}</figcaption>\n</figure>\n"
    )


def _settings(row: Row) -> str:
    text = yaml.safe_dump(row.get("settings") or {}, sort_keys=False, allow_unicode=True)
    return f"<details>\n<summary>{escape(row['name'])}</summary>\n<pre>{escape(text)}</pre>\n</details>\n"


def listed_html(entries: Mapping[str, Any]) -> str:
    """Return a table of names and what they stand for."""
    rows = "".join(f'<tr><th scope="row">{escape(_spaced(k))}</th><td>{_value(v)}</td></tr>\n'
                   for k, v in entries.items())  # fmt: skip
    return f'<div class="wide list">\n<table>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n'


def _value(value: Any) -> str:
    if isinstance(value, dict | list):
        return f"<pre>{escape(yaml.safe_dump(value, sort_keys=False, allow_unicode=True).strip())}</pre>"
    return escape("none" if value is None else str(value))


def _spaced(name: str) -> str:
    return str(name).replace("_", " ")
