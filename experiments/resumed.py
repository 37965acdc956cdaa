"""Rows of a long experiment that are kept beside its result until all are there: a killed run goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from lensphys.basics.outputs import whole_file, write_json
from lensphys.basics.runners import Processes


class KeptRows(dict[Any, Any]):
    """Rows by their names or numbers; each one that is set is on the disk at once, in OUT.rows.jsonl.

    A last line that a kill cut short is dropped: its row is made again.

    Args:
        out: the result that they will be part of.
    """

    def __init__(self, out: Path) -> None:
        self._out, self._kept = out, out.with_suffix(".rows.jsonl")
        text = self._kept.read_text() if self._kept.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        super().__init__(map(json.loads, whole.splitlines()))
        if whole != text:  # else the next row would be written onto the same line
            with whole_file(self._kept) as temporary:
                temporary.write_text(whole)

    def __setitem__(self, key: Any, row: Any) -> None:
        super().__setitem__(key, row)
        with self._kept.open("a") as file:
            file.write(json.dumps([key, row]) + "\n")

    def made(self, job: Callable[[Any], dict[str, Any]], name: str, keys: Iterable[Any], workers: int) -> Iterator[Any]:
        """Make the rows that are missing, side by side, and yield each; ``name`` is what a row calls its key."""
        for row in Processes(workers).run(job, [key for key in keys if key not in self]):
            self[row[name]] = row
            yield row

    @property
    def in_order(self) -> list[Any]:
        """The rows by their keys."""
        return [self[key] for key in sorted(self)]

    def finish(self, tree: dict[str, Any]) -> None:
        """Write the result, and let go of what was kept."""
        write_json(self._out, tree)
        self._kept.unlink(missing_ok=True)
