"""A trained reader, judged on a labelled file: AUC, accuracy and calibration, or the errors of its numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lensphys.basics.checks import LensphysError
from lensphys.basics.outputs import check_writable, whole_file, write_json
from lensphys.basics.provenance import provenance
from lensphys.data.lens_file import LensFile
from lensphys.data.unusable import unusable
from lensphys.downstream.applying import SavedReader, answered, load_reader
from lensphys.downstream.measures import of_classes, of_numbers, of_score
from lensphys.downstream.report import write_downstream_report
from lensphys.downstream.sampling import Target, classes_of, number_of
from lensphys.downstream.settings import PLAIN
from lensphys.downstream.tables import ALL, aggregated, downstream_table

Row = dict[str, Any]


def judge_reader(reader: Path, data: Path, out: Path, *, device: str = "cpu", workers: int = 1) -> Row:
    """Judge a trained reader on all lenses of a file; write ``metrics.json``, ``table.md``, ``report.html``, figures.

    Args:
        reader: its folder.
        data: a lens file with labels, or with the number that the reader tells.
        out: the folder for the results.
        device: where it computes.
        workers: processes that super-resolve side by side on a CPU.

    Returns:
        What ``metrics.json`` holds: the tree of `lensphys downstream`, with one reader.

    Raises:
        LensphysError: if the reader or the file is faulty, or they do not fit each other.
    """
    check_writable(out)
    saved, trained = load_reader(reader, device)
    with LensFile(data) as file:
        target = classes_of(file, tuple(saved.classes)) if saved.target is None else number_of(file, saved.target)
        lost = unusable(file, np.arange(len(file)))
        rows = np.setdiff1d(target.known, np.array(list(lost), dtype=np.int64))
        looks = [name for name, x in saved.inputs.items() if x.needs_hr]
        if looks and not file.has_truth:
            raise LensphysError(
                f"{data} has no HR images (/hr_clean), which the input {looks[0]!r} of {reader} looks at: judge it on "
                "simulated lenses"
            )
        hr = file.sharp("hr_clean", rows) if looks else None
        told = {"file": data.name, "identity": file.identity, "in_file": len(file), "unusable": len(lost)}
        told |= {"lenses": len(rows), "order": bool(target.classes) and file.classes != list(target.classes)}
        answers, _ = answered(saved, trained, file.observation(rows), data, hr, device=device, workers=workers)
    tree = _tree(saved, told, _measured(answers, Target(target.values[rows], target.classes)), reader)
    write_json(out / "metrics.json", tree)
    written: Row = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    with whole_file(out / "table.md") as temporary:
        temporary.write_text(downstream_table(written), encoding="utf-8")
    write_downstream_report(out, written)
    return written


def _measured(answers: Any, target: Target) -> Row:
    """One training's measures, the AUC of each class with its interval over lenses."""
    if not target.classes:
        return _alone(of_numbers(answers, target.values))
    found = _alone(of_classes(answers, target.values, target.classes))
    for k, name in enumerate(target.classes):
        score = of_score(target.values == k, answers[:, k])
        found["auc"][name] |= {"low": score["low"], "high": score["high"]}
    return found


def _alone(measured: Row) -> Row:
    """Measures as tables take them."""
    row = {"reader": "", "input": "", "budget": 0, "tests": {PLAIN: measured}}
    return dict(aggregated([row])[0]["tests"][PLAIN])


def _tree(saved: SavedReader, told: Row, measured: Row, reader: Path) -> Row:
    budget, name = saved.provenance["budget"], saved.reader.kind
    row = {"reader": name, "input": saved.input, "budget": budget, "seeds": 1, "tests": {PLAIN: measured}}
    inputs = {key: x.model_dump(by_alias=True) for key, x in saved.inputs.items()}
    learned = saved.provenance["data"]
    same = told["identity"] == learned["identity"]
    seen = ": the very file that it learned from, so that these numbers flatter it" if same else ""
    return {
        "provenance": provenance(experiment={"inputs": inputs}, reader=saved.provenance, folder=reader.name),
        "title": f"{name} on {saved.input}, judged on {told['file']}",
        "protocol": f"One reader, which learned from {budget} labels{' of each class' if saved.classes else ''} of "
        f"{learned['file']}, judged on {told['lenses']} lenses of {told['file']}{seen}",
        "judged_on": f"Lenses of {told['file']}",
        "task": "classify" if saved.classes else "regress",
        "target": saved.target,
        "classes": saved.classes,
        "sets": {"train": learned, PLAIN: told},
        "budgets": [budget],
        "seeds": 1,
        "labelled": [saved.input] if saved.labelled else [],
        "nuisances": [],
        "rows": [row],
        "label_free": [],
        "published": [],
    }


def summary_line(tree: Row) -> str:
    """Return what a terminal is told of a judged reader."""
    measured = tree["rows"][0]["tests"][PLAIN]
    if not tree["classes"]:
        return f"MSE {measured['mse']['mean']:.4g}, MAE {measured['mae']['mean']:.4g}, R² {measured['r2']['mean']:.3f}"
    auc = ", ".join(f"AUC {name} {value['mean']:.3f}" for name, value in measured["auc"].items() if name != ALL)
    return f"accuracy {measured['accuracy']['mean']:.3f}, {auc}, calibration error {measured['ece']['mean']:.3f}"
