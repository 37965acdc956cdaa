"""Trains or loads every method of a comparison, judges it, and writes the table and the report."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from lensphys.basics.checks import LensphysError
from lensphys.basics.kept_row import KeptRow
from lensphys.basics.lock import sole_run
from lensphys.basics.outputs import check_writable, whole_file, write_json
from lensphys.basics.provenance import SUPER_RESOLVING, provenance, source_hash
from lensphys.basics.runs import CONFIG, WEIGHTS, read_log
from lensphys.basics.terminal import progress_console
from lensphys.basics.threads import on_threads
from lensphys.basics.version import VERSION
from lensphys.data.lens_file import LensFile
from lensphys.evaluation.comparison.checking import check_comparison
from lensphys.evaluation.comparison.judging import Judge, Row
from lensphys.evaluation.comparison.report import write_report
from lensphys.evaluation.comparison.settings import Comparison, Entry
from lensphys.evaluation.comparison.tables import comparison_table
from lensphys.methods import READY, Method
from lensphys.methods.ranking.building import build_rank_set, clean_niqe
from lensphys.methods.refined import with_rounds
from lensphys.training.experiment import (
    DataSettings,
    Experiment,
    built,
    check_run,
    data_path,
    lineage,
    load_run,
    train,
    training_data,
)


def compare(comparison: Comparison, folder: Path, device: str = "cpu") -> dict[str, Any]:
    """Train or load all methods and judge them; write ``metrics.json``, ``table.md``, ``report.html`` and figures.

    What is done is kept: after an interruption the same call resumes. A method that fails has a row with its reason,
    and so has everything that builds on it.

    Args:
        comparison: the settings.
        folder: for the results, and in ``data/`` and ``runs/`` for what they come from.
        device: where the methods are judged, their cost too; where they train is said by ``training.accelerator``.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        LensphysError: if the data cannot be made, or the folder cannot be written.
    """
    check_comparison(comparison)
    check_writable(folder)
    with sole_run(folder), on_threads(comparison.threads):
        return _Run(comparison, folder, device).go()


class _Run:
    """A comparison on its way."""

    def __init__(self, comparison: Comparison, folder: Path, device: str) -> None:
        self.comparison, self.folder, self.device = comparison, folder, device
        self.failed: dict[str, str] = {}
        self.console = progress_console()

    def go(self) -> dict[str, Any]:
        """Do everything; return the tree of results."""
        for entry in self.comparison.methods:  # before anything is overwritten
            if entry.train is not None:
                check_run(self._left(entry), self._experiment(entry), resume=True)
        with (
            LensFile(self._data(self.comparison.data)) as training,
            LensFile(self._data(self.comparison.test)) as test,
        ):
            self.niqe = clean_niqe(training, self.comparison.niqe_block)
            self.judge = Judge(test, self.niqe, self.comparison.limit, self.device)
            rows: list[Row] = []
            helpers: list[Row] = []
            for k, entry in enumerate(self.comparison.methods, start=1):
                self.console.print(f"[bold]{k}/{len(self.comparison.methods)}[/] {entry.name}")
                row = self._row(entry, training)
                (helpers if entry.group is None else rows).append(row)
            return self._write(rows, helpers, test)

    def _row(self, entry: Entry, training: LensFile) -> Row:
        """An entry's row: what it reached, or why it failed."""
        row: Row = {"name": entry.name, "group": entry.group, "needs_hr": False, "failed": None}
        row |= dict.fromkeys(("parameters", "training_seconds", "milliseconds", "peak_mib"))
        row |= {"results": {}, "verdicts": {}, "quality": [], "training": []}
        row["settings"] = entry.model_dump(exclude_none=True, by_alias=True)
        try:
            row["needs_hr"] = any(built(e.method).needs_truth for e in self._lineage(entry).values())
            lost = [name for name in entry.needs if name in self.failed]
            if lost:
                raise LensphysError(f"it needs {lost[0]!r}, which failed")
            self._prepare(entry, training)
            row |= {"training": read_log(self._left(entry)), "training_seconds": self._seconds(entry)}
            if entry.group is not None:
                row |= self._judged(entry)
                self.console.print(*row["quality"], sep="\n", markup=False, highlight=False)
        except Exception as error:  # whatever went wrong, the other methods go on
            kind = "" if isinstance(error, LensphysError) else f"{type(error).__name__}: "
            self.failed[entry.name] = row["failed"] = kind + " ".join(str(error).split())
            self.console.print(f"[red]failed[/] {row['failed']}", highlight=False)
        return row

    def _prepare(self, entry: Entry, training: LensFile) -> None:
        """Train, or make the rank set, if that is not done."""
        where = self._left(entry)
        if entry.train is not None:
            asked = self.comparison.experiment(entry, self.folder).data
            if asked.recipe is not None and not asked.fresh:
                self._data(asked)
            train(self._experiment(entry), where, resume=True)
        elif entry.rank_set is not None:
            of, options = entry.rank_set.of, entry.rank_set.model_dump(exclude={"of"})
            methods = {name: self._method(self.comparison.entry(name)) for name in of}
            build_rank_set(methods, training, self.niqe, where, device=self.device, **options)

    def _experiment(self, entry: Entry) -> Experiment:
        """What an entry trains; on the file that all share who ask for the same data."""
        experiment = self.comparison.experiment(entry, self.folder)
        if experiment.data.recipe is None or experiment.data.fresh:
            return experiment
        shared = {"recipe": None, "file": str(data_path(experiment.data, self._data_folder(experiment.data)))}
        return experiment.model_copy(update={"data": experiment.data.model_copy(update=shared)})

    def _judged(self, entry: Entry) -> Row:
        """What a method reached and costs; not computed again for the same weights and settings."""
        niqe = [self.niqe.mean.tolist(), self.niqe.covariance.tolist()]
        made_by = [VERSION, source_hash(*SUPER_RESOLVING, "evaluation"), str(self.device)]
        left, trained = self._left(entry), entry.ready is None
        config = (
            (left / CONFIG).read_text(encoding="utf-8").replace(f"{self.folder}/", "") if trained else ""
        )  # that may be moved
        asked = [entry.model_dump(), self.comparison.limit, self.comparison.threads, self.judge.identity, niqe, made_by]
        weights = (left / WEIGHTS).read_bytes() if trained else b""
        key = hashlib.sha256(json.dumps([*asked, config]).encode() + weights).hexdigest()
        kept = KeptRow(self.folder / "rows" / f"{entry.slug}.json", key)
        if (before := kept.found()) is not None:
            self.console.print("judged before")
            return before
        found, images = self.judge.judged(self._method(entry), entry.name)
        arrays: dict[str, Any] = dict(images)
        with whole_file(kept.path.with_suffix(".npz")) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays)
        return kept.keep(found)

    def _method(self, entry: Entry) -> Method:
        if entry.ready is not None:
            return READY[entry.ready]
        run = self._left(entry)
        return with_rounds(load_run(run).to(self.device), entry.refine, run)

    def _left(self, entry: Entry) -> Path:
        return self.comparison.left_behind(entry, self.folder)

    def _lineage(self, entry: Entry) -> dict[Path, Experiment]:
        """All trainings that went into a method, by their folders."""
        found: dict[Path, Experiment] = {}
        for part in [*self.comparison.all_needs(entry), entry]:
            if part.train is not None:
                found[self._left(part)] = self.comparison.experiment(part, self.folder)
            elif part.ready is None and part.rank_set is None:
                found |= lineage(self._left(part))
        return found

    def _seconds(self, entry: Entry) -> float | None:
        """How long a method and all that it builds on trained; None where nobody knows."""
        logs = [read_log(run) for run in self._lineage(entry)]
        seconds = [log[-1]["seconds"] for log in logs if log]
        return sum(seconds) if seconds else None

    def _data(self, data: DataSettings) -> Path:
        """The file of some data, simulated once for all that ask for the same."""
        return training_data(data, self._data_folder(data))

    def _data_folder(self, data: DataSettings) -> Path:
        name = hashlib.sha256(data.model_dump_json(exclude={"workers"}).encode()).hexdigest()[:12]
        return self.folder / "data" / name

    def _write(self, rows: list[Row], helpers: list[Row], test: LensFile) -> dict[str, Any]:
        comparison = self.comparison
        tree = {
            "provenance": provenance(
                comparison=comparison.model_dump(mode="json", exclude={"methods"}), test=test.identity
            ),
            "title": comparison.title,
            "protocol": comparison.protocol,
            "data": comparison.test.recipe or Path(str(comparison.test.file)).stem,
            "classes": list(test.classes),
            "images": self.judge.images,
            "left_out": self.judge.unusable,
            "budget": {"minutes": comparison.minutes, "threads": comparison.threads},
            "rows": rows,
            "helpers": helpers,
            "ceiling": self.judge.ceiling(),
        }
        write_json(self.folder / "metrics.json", tree)
        written: dict[str, Any] = json.loads((self.folder / "metrics.json").read_text(encoding="utf-8"))
        with whole_file(self.folder / "table.md") as temporary:
            temporary.write_text(comparison_table(written), encoding="utf-8")
        seen = {e.name: self.folder / "rows" / f"{e.slug}.npz" for e in comparison.methods}
        shown = [(row["name"], seen[row["name"]]) for row in rows if not row["failed"]]
        write_report(self.folder, written, self.judge.lenses(shown) if shown else [])
        return written
