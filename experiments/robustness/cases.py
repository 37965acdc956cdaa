"""What `lensphys super-resolve` makes of a folder of inputs, one by one, as a user would call it.

    python experiments/robustness/cases.py CASES.yaml FOLDER -o cases.json

The committed page, docs/cases.md, is made with --page docs/cases.md.

CASES.yaml maps a name to the command's arguments, file names relative to FOLDER. Each is run with its default method
unless it says otherwise; what is said, and what stands in the result, goes into the JSON, and as a table onto the page.
A killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import shlex
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from astropy.io import fits
from typer.testing import CliRunner

from lensphys.basics.outputs import whole_file, write_json
from lensphys.basics.provenance import provenance
from lensphys.cli import app

_HEAD = """# What comes out of difficult inputs

Small inputs made after public bug reports of this field, most of a smooth lens with theta_E = 1.2", each given to
`lensphys super-resolve` as it is (`experiments/robustness/cases.py`). None has substructure. Storage is tried with
`--method bicubic`, which does not judge itself.
"""


def result(path: Path) -> dict[str, Any]:
    """Return verdict, sub-halos, theta_E and chi^2 of a result file; of a stack their medians, counts and sums."""
    if path.suffix == ".fits":
        header = fits.getheader(path)
        names = {
            "quality": "QUALITY",
            "reasons": "REASONS",
            "subhalos": "SUBHALOS",
            "theta_E": "THETA_E",
            "chi2": "CHI2",
        }
        return {name: header[key] for name, key in names.items() if key in header}
    with np.load(path) as made:
        found: dict[str, Any] = {n: float(np.nanmedian(made[n])) for n in ("theta_E", "chi2") if n in made}
        if "quality" in made:
            found["quality"] = ", ".join(f"{(made['quality'] == q).sum()} {q}" for q in np.unique(made["quality"]))
            found["subhalos"] = int(made["subhalos"].sum())
        return found


def judged(arguments: str, folder: Path) -> dict[str, Any]:
    """Return what one command said and made."""
    words = [str(folder / word) if (folder / word).is_file() else word for word in shlex.split(arguments)]
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / ("out.npz" if words[0].endswith(".npy") else "out.fits")
        done = CliRunner().invoke(app, ["super-resolve", *words, "-o", str(out)])
        said = [line.replace(f"{folder}/", "").replace(f"{place}/", "") for line in done.output.splitlines() if line]
        broken = done.exception is not None and not isinstance(done.exception, SystemExit)
        report = {"arguments": arguments, "exit": done.exit_code, "said": said, "traceback": broken}
        return report | (result(out) if done.exit_code == 0 else {})


def row(name: str, case: dict[str, Any]) -> str:
    """Return a line of the table."""
    if case["exit"]:
        return f"| {name} | refused: {case['said'][-1].removeprefix('error: ')} |"
    words = [f"theta_E {case['theta_E']:.3f}"] if case.get("theta_E") is not None else []
    words += [f"chi^2 {case['chi2']:.2f}"] if case.get("chi2") is not None else []
    words += [f"{case['subhalos']} sub-halos"] if "subhalos" in case else []
    quality = case.get("quality", "")
    reasons = case.get("reasons", "none")
    told = f"{quality} ({reasons})" if quality and reasons != "none" else quality
    return f"| {name} | {', '.join([*words, told] if told else words)} |"


def page(found: dict[str, Any]) -> str:
    """Return the table as a page."""
    lines = [row(*case) for case in found.items()]
    return "\n".join([_HEAD, "| input | what lensphys makes of it |", "|---|---|", *lines]) + "\n"


def main() -> None:
    """Run all cases and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--page", type=Path, help="Markdown, for the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kept = arguments.out.with_suffix(".rows.jsonl")
    found = dict(map(json.loads, kept.read_text().splitlines())) if kept.exists() else {}
    for name, command in yaml.safe_load(arguments.cases.read_text()).items():
        if name not in found:
            found[name] = judged(command, arguments.folder)
            with kept.open("a") as file:
                file.write(json.dumps([name, found[name]]) + "\n")
            print(row(name, found[name]), flush=True)
    write_json(arguments.out, {"provenance": provenance(), "cases": found})
    if arguments.page is not None:
        with whole_file(arguments.page) as temporary:
            temporary.write_text(page(found))
    kept.unlink()


if __name__ == "__main__":
    main()
