"""What `lensphys super-resolve` makes of a folder of inputs, one by one, as a user would call it.

    python experiments/robustness/cases.py CASES.yaml FOLDER -o cases.json

CASES.yaml has groups with a title, what is right, and the command's arguments by name, file names relative to FOLDER.
Each is run with its default method unless it says otherwise; what is said, and what stands in the result, goes into the
JSON. A killed run goes on where it was. ``python docs/generate.py`` makes docs/cases.md of cases.json and scenes.json.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from astropy.io import fits
from typer.testing import CliRunner

from lensphys.basics.provenance import provenance
from lensphys.basics.sentences import counted
from lensphys.cli import app

sys.path.append(str(Path(__file__).parents[1]))
from resumed import KeptRows

_HEAD = """# What comes out of difficult inputs

Each input is given to `lensphys super-resolve` as it is (`experiments/robustness/cases.py`), nothing set by hand. Most
show a smooth lens with theta_E = 1.2". None has substructure.

"""
_PARTS = {
    "cases": "Small inputs made after public bug reports of this field.",
    "scenes": "Scenes that `experiments/robustness/scenes.py` makes with lenstronomy.",
}


Group = dict[str, Any]  # title, expect (what is right) and cases: arguments of the command by name


def groups_of(path: Path) -> list[Group]:
    """Return the groups of cases in a YAML file."""
    groups: list[Group] = yaml.safe_load(path.read_text())
    return groups


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
    if case["traceback"]:
        return f"| {name} | a traceback |"
    if case["exit"]:
        return f"| {name} | refused: {case['said'][-1].removeprefix('error: ')} |"
    words = [f"theta_E {case['theta_E']:.3f}"] if case.get("theta_E") is not None else []
    words += [f"chi^2 {case['chi2']:.4g}"] if case.get("chi2") is not None else []
    words += [counted(case["subhalos"], "sub-halo")] if "subhalos" in case else []
    quality = case.get("quality", "")
    reasons = case.get("reasons", "none")
    told = f"{quality} ({reasons})" if quality and reasons != "none" else quality
    return f"| {name} | {', '.join([*words, told] if told else words)} |"


def page(folder: Path) -> str:
    """Return the page of the results in a folder: a table a group, with what is right."""
    parts = []
    for name, sentence in _PARTS.items():
        results = folder / f"{name}.json"
        if results.exists():
            found = json.loads(results.read_text())["cases"]
            tables = [_table(group, found) for group in groups_of(folder / f"{name}.yaml")]
            parts.append("\n".join([f"## {sentence}\n", *tables]))
    return _HEAD + "\n".join(parts)


def _table(group: Group, found: dict[str, Any]) -> str:
    rows = [row(name, found[f"{group['title']}: {name}"]) for name in group["cases"]]
    head = [
        f"### {group['title']}\n",
        f"What is right: {group['expect']}.\n",
        "| input | what lensphys makes of it |",
        "|---|---|",
    ]
    return "\n".join([*head, *rows]) + "\n"


def main() -> None:
    """Run all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = KeptRows(arguments.out)
    groups = groups_of(arguments.cases)
    asked = {f"{group['title']}: {name}": told for group in groups for name, told in group["cases"].items()}
    for name, command in asked.items():
        if name not in found:
            found[name] = judged(command, arguments.folder)
            print(row(name, found[name]), flush=True)
    asked_for = {name: found[name] for name in asked}  # kept rows of another list of cases are none of this one
    found.finish({"provenance": provenance(), "cases": asked_for})


if __name__ == "__main__":
    main()
