"""The tables of the README, generated from committed results: ``python -m lensphys.evaluation.readme``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lensphys.evaluation.tables import readme_table, replace_between_markers
from lensphys.provenance import whole_file


def readme_with_tables(root: Path) -> str:
    """Return the README of a checkout with its tables made anew from ``experiments/``.

    Raises:
        LensphysError: if a result or a marker is missing.
    """
    text = (root / "README.md").read_text()
    results = sorted(path for path in root.glob("experiments/*/*/metrics.json"))
    text = replace_between_markers(text, "simulated", readme_table(results))
    rows = json.loads((root / "experiments/real/slacs/table.json").read_text())["rows"]
    return replace_between_markers(text, "real", real_table(rows))


def real_table(rows: list[dict[str, float]]) -> str:
    """Return the Markdown table of the real lenses, from the rows that ``examples/super_resolve_fits.py`` writes."""
    lines = [
        "| lens | theta_E | published | ratio | chi^2 / dof | flux bias in the mask |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        published = f"{r['published']:.3f} | {r['ratio']:.3f}" if r["published"] else "- | -"
        numbers = f"{r['theta_E']:.3f} | {published} | {r['chi2_dof']:.2f} | {r['flux_bias_in_mask']:+.1e}"
        lines.append(f"| {r['lens']} | {numbers} |")
    return "\n".join(lines)


if __name__ == "__main__":
    checkout = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    made = readme_with_tables(checkout)
    with whole_file(checkout / "README.md") as temporary:
        temporary.write_text(made)
