"""Markdown tables from the ``metrics.json`` that an evaluation writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lensphys.basics.checks import LensphysError, check_file

# name in metrics.json: (heading, number format)
COLUMNS = {
    "psnr_flux": ("PSNR, flux protocol [dB]", ".2f"),
    "ssim_flux": ("SSIM, flux protocol", ".4f"),
    "psnr_seed": ("PSNR, seed protocol [dB]", ".2f"),
    "ssim_seed": ("SSIM, seed protocol", ".4f"),
    "chi2_dof": ("chi^2 per degree of freedom", ".3f"),
    "flux_bias": ("flux bias", "+.4f"),
    "coverage": ("68 % interval covers", ".3f"),
    "sigma_ratio": ("rms error / sigma", ".3f"),
    "alpha_error": ("alpha error [arcsec]", ".4f"),
    "theta_E_error": ("theta_E relative error", "+.4f"),
    "good": ("call themselves good", ".1%"),
    "suspect": ("call themselves suspect", ".1%"),
    "bad": ("call themselves bad", ".1%"),
}
ALL = "all"
_ROLES = ("method", "baseline", "ceiling")
ABSENT = "–"


def metrics_table(tree: dict[str, Any]) -> str:
    """Return the table of one evaluation: a row a metric and image judged, a column a class, means with their interval.

    Args:
        tree: what ``metrics.json`` holds.
    """
    classes = [*tree["classes"], ALL]
    rows = []
    for metric, (heading, spec) in COLUMNS.items():
        for role in _ROLES:
            results = tree["results"].get(role, {})
            cells = [_cell(results.get(c, {}).get(metric), spec, role, metric) for c in classes]
            if any(cell != ABSENT for cell in cells):
                rows.append([heading, tree["names"][role], *cells])
                heading = ""
    return markdown(["metric", "image", *classes], rows) + _missing_note(tree)


def readme_table(paths: Sequence[Path]) -> str:
    """Return one table of the flux-protocol PSNR [dB] of several evaluations, the best of each column in bold.

    Rows are methods, the baselines first; columns are data sets times classes. Of two evaluations of the same method on
    the same data set the later one counts.

    Args:
        paths: ``metrics.json`` files, one a data set and method.

    Raises:
        LensphysError: if a file is missing or is not the result of an evaluation.
    """
    rows: dict[str, dict[str, float]] = {}
    columns: list[str] = []
    trees = [read_metrics(path) for path in paths]
    for role in ("baseline", "method"):
        for tree in trees:
            for label, summaries in tree["results"].get(role, {}).items():
                mean = summaries.get("psnr_flux", {}).get("mean")
                column = f"{tree['data']} {label}"
                if label == ALL or mean is None:
                    continue
                rows.setdefault(tree["names"][role], {})[column] = mean
                if column not in columns:
                    columns.append(column)
    best = {c: max(row[c] for row in rows.values() if c in row) for c in columns}
    body = [[name, *(bold(row.get(c), best[c]) for c in columns)] for name, row in rows.items()]
    return markdown(["method", *columns], body)


def lenses_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the Markdown table of real lenses, from the rows that ``examples/super_resolve_fits.py`` writes."""
    lines = [
        "| lens | theta_E | published | ratio | of all mass | chi^2 / dof | flux bias in arcs | sub-halos | quality |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        published = f"{r['published']:.3f} | {r['ratio']:.3f}" if r["published"] else "- | -"
        published += f" | {r['ratio_of_all_mass']:.3f}" if r.get("ratio_of_all_mass") else " | -"
        numbers = f"{r['theta_E']:.3f} | {published} | {r['chi2_dof']:.2f} | {r['flux_bias_in_arcs']:+.1e}"
        numbers += f" | {r['subhalos']} | {r['quality']}"
        lines.append(f"| {r['lens']} | {numbers} |")
    return "\n".join(lines)


def replace_between_markers(readme_text: str, name: str, table: str) -> str:
    """Return the text with ``table`` between ``<!-- table:NAME -->`` and ``<!-- /table -->``.

    Example:
        >>> replace_between_markers("a <!-- table:x -->old<!-- /table --> b", "x", "new")
        'a <!-- table:x -->\\nnew\\n<!-- /table --> b'

    Raises:
        LensphysError: if the two markers are not there, once.
    """
    start, end = f"<!-- table:{name} -->", "<!-- /table -->"
    before, opened, rest = readme_text.partition(start)
    old, closed, after = rest.partition(end)
    if not opened or not closed or "<!-- table:" in old or start in after:
        raise LensphysError(f"the text must hold {start} followed by {end}, once: add or correct the markers")
    return f"{before}{start}\n{table.strip()}\n{end}{after}"


def read_metrics(path: Path) -> dict[str, Any]:
    """Return what a ``metrics.json`` holds.

    Raises:
        LensphysError: if the file is missing or is not the result of an evaluation.
    """
    check_file("metrics file", path)
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise LensphysError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(tree, dict) or not {"results", "names", "data", "classes"} <= set(tree):
        raise LensphysError(f"{path} is not the metrics.json of an evaluation: write it with `lensphys evaluate`")
    return tree


def bold(value: float | None, best: float, spec: str = ".1f") -> str:
    """Return a number as it stands in a table: a dash where there is none, bold where it reads like the best."""
    if value is None:
        return ABSENT
    text = f"{value:{spec}}"
    return f"**{text}**" if text == f"{best:{spec}}" else text


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _cell(summary: dict[str, Any] | None, spec: str, role: str, metric: str) -> str:
    if summary is None:
        return ABSENT
    if summary["mean"] is None:
        return "no noise" if role == "ceiling" and metric == "psnr_seed" and summary["missing"] else ABSENT
    return f"{summary['mean']:{spec}} [{summary['low']:{spec}}, {summary['high']:{spec}}]"


def _missing_note(tree: dict[str, Any]) -> str:
    """A method must not win by the images that it left out: say how many."""
    notes = []
    for role in ("method", "baseline"):
        psnr = tree["results"].get(role, {}).get(ALL, {}).get("psnr_flux")
        if psnr and psnr["missing"]:
            total = psnr["missing"] + psnr["n"]
            notes.append(
                f"{tree['names'][role]}: {psnr['missing']} of {total} images gave no finite PSNR and are left out."
            )
    return "".join(f"\n{note}\n" for note in notes)
