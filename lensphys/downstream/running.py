"""Trains every reader on every input with every budget, judges it on every test set, and writes table and report."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lensphys.basics.kept_row import KeptRow
from lensphys.basics.lock import sole_run
from lensphys.basics.outputs import check_writable, whole_file, write_json
from lensphys.basics.provenance import provenance, source_hash
from lensphys.basics.terminal import progress_console, tracked
from lensphys.downstream.applying import save_reader
from lensphys.downstream.label_free import judged_scores
from lensphys.downstream.lenses import Collection, identity
from lensphys.downstream.measures import of_classes, of_numbers
from lensphys.downstream.readers import TrainingSet
from lensphys.downstream.report import write_downstream_report
from lensphys.downstream.sampling import Rows, drawn, held_out
from lensphys.downstream.settings import PLAIN, SEEN, Downstream, check_downstream, check_label_free, slug
from lensphys.downstream.tables import aggregated, downstream_table, set_sentence

Case = tuple[str, str, int, int]

# a change of other code leaves trained readers as they are
_CODE = (
    *(f"downstream/{name}.py" for name in ("inputs", "lenses", "measures", "network_training", "numbers", "readers")),
    "downstream/sampling.py",
    *(f"networks/{name}.py" for name in ("classifier", "group_convolution", "readers")),
    "evaluation/substructure.py",
    "evaluation/statistics.py",
    "tracing/orientation.py",
    "fitting",
    "model",
    "observation",
)


def downstream(settings: Downstream, folder: Path, device: str = "cpu", workers: int = 1) -> dict[str, Any]:
    """Run an experiment; write ``metrics.json``, ``table.md``, ``report.html``, figures and the trained readers.

    What is done is kept: after an interruption the same call resumes.

    Args:
        settings: the experiment.
        folder: for the results, and in ``data/``, ``products/``, ``rows/`` and ``readers/`` for what they come from.
        device: where methods and networks compute.
        workers: processes that super-resolve side by side on a CPU.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        LensphysError: if data, products or readers cannot be made, or the folder cannot be written.
    """
    check_downstream(settings)
    check_writable(folder)
    with sole_run(folder):
        return _Run(settings, folder, device, workers).go()


class _Run:
    """An experiment on its way."""

    def __init__(self, settings: Downstream, folder: Path, device: str, workers: int) -> None:
        self.settings, self.folder, self.device = settings, folder, device
        self.collection = Collection(settings, folder, device, workers)
        self.console = progress_console()

    def go(self) -> dict[str, Any]:
        """Do everything; return the tree of results."""
        for name, lenses in self.collection.sets.items():
            self.console.print(set_sentence(name, lenses.provenance), markup=False, highlight=False)
        check_label_free(self.settings, self.collection.sets["train"].target.classes)
        self._identities = {name: identity(lenses) for name, lenses in self.collection.sets.items()}
        cases = self.settings.cases
        rows = [self._row(case) for case in tracked(cases, "reading", console=self.console)]
        return self._write(rows)

    @cached_property
    def labelled(self) -> list[str]:
        """The inputs behind which a network learned from classes."""
        return [name for name in self.settings.inputs if self.settings.labelled_products(name)]

    @property
    def _teaches_networks(self) -> bool:
        """Whether networks of products learn from the labels of the training set."""
        products = {p for name in self.labelled for p in self.settings.labelled_products(name)}
        return any(self.settings.products[p].train is not None for p in products)

    @property
    def tests(self) -> list[str]:
        """The names of the test sets."""
        return [PLAIN, *self.settings.shifts]

    def _row(self, case: Case) -> dict[str, Any]:
        """What a reader reached; not trained again for the same settings, lenses and code."""
        path = self.folder / "rows" / f"{slug(f'{case[1]} {case[0]} {case[2]} {case[3]}')}.json"
        kept = KeptRow(path, self._key(case))
        before = kept.found()
        return kept.keep(self._read(case)) if before is None else before

    def _key(self, case: Case) -> str:
        settings, (name, reader, _, _) = self.settings, case
        inputs = settings.closure(name)
        asked = [
            case,
            {n: x.model_dump() for n, x in inputs.items()},
            {p: self.collection.origin(p).identity for x in inputs.values() for p in x.products},
            settings.readers[reader].model_dump(exclude={"inputs"}),
            [settings.held_out, settings.half_field, settings.task, settings.target],
            self._identities,
            source_hash(*_CODE),
        ]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def _read(self, case: Case) -> dict[str, Any]:
        """Train one reader and judge it on every test set."""
        name, reader, budget, seed = case
        train = self.collection.sets["train"]
        labelled = drawn(train.target, train.rows, budget, seed)
        learn, held = held_out(train.target, labelled, train.groups, self.settings.held_out, seed)
        x, y = self.collection.seen("train", name).values, train.target.values
        training_set = TrainingSet(x[learn], y[learn], x[held], y[held], len(train.target.classes), seed)
        trained = self.settings.readers[reader].learn(training_set, self.device)
        if budget == max(self.settings.budgets) and seed == 0:
            save_reader(
                trained, self.settings, case, self.collection, self.folder / "readers" / slug(f"{reader} {name}")
            )
        found = {"input": name, "reader": reader, "budget": budget, "seed": seed, "temperature": trained.temperature}
        tests = {test: self._judged(trained, name, test, self.collection.sets[test].rows) for test in self.tests}
        rest = np.setdiff1d(train.rows, labelled)
        if self._teaches_networks and len(set(train.target.values[rest])) == len(train.target.classes):
            tests[SEEN] = self._judged(trained, name, "train", rest)
        return found | {"tests": tests}

    def _judged(self, trained: Any, name: str, test: str, rows: Rows) -> dict[str, Any]:
        lenses = self.collection.sets[test]
        answers = trained(self.collection.seen(test, name).values[rows])
        truth = lenses.target.values[rows]
        return (
            of_classes(answers, truth, lenses.target.classes) if lenses.target.classes else of_numbers(answers, truth)
        )

    def _write(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        settings, sets = self.settings, self.collection.sets
        tree = {
            "provenance": provenance(
                experiment=settings.model_dump(mode="json", by_alias=True),
                products={name: self.collection.origin(name).identity for name in settings.products},
            ),
            "title": settings.title,
            "protocol": settings.protocol,
            "task": settings.task,
            "target": settings.target,
            "classes": list(sets["train"].target.classes),
            "sets": {name: lenses.provenance for name, lenses in sets.items()},
            "budgets": settings.budgets,
            "seeds": settings.seeds,
            "kinds": {name: settings.kind_of(name) for name in settings.inputs},
            "labelled": self.labelled,
            "nuisances": [name for name, x in settings.inputs.items() if x.kind == "nuisances"],
            "rows": aggregated(rows),
            "label_free": judged_scores(settings, self.collection, self.tests),
            "published": [row.model_dump() for row in settings.published],
        }
        write_json(self.folder / "metrics.json", tree)
        written: dict[str, Any] = json.loads((self.folder / "metrics.json").read_text(encoding="utf-8"))
        with whole_file(self.folder / "table.md") as temporary:
            temporary.write_text(downstream_table(written), encoding="utf-8")
        write_downstream_report(self.folder, written)
        return written
