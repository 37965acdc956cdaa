"""A row of results in a file of its own until all rows are there: what was finished is not computed again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lensphys.basics.outputs import write_json

_KEY = "key"


@dataclass(frozen=True)
class KeptRow:
    """A row of a long run.

    Args:
        path: its file.
        key: hash of what the row depends on.
    """

    path: Path
    key: str

    def found(self) -> dict[str, Any] | None:
        """Return the row that was kept; None where there is none, it is damaged, or depends on something else."""
        with suppress(FileNotFoundError, ValueError, RecursionError):
            kept = dict(json.loads(self.path.read_text(encoding="utf-8")))
            if kept.pop(_KEY, None) == self.key:
                return kept
        return None

    def keep(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Write the row, and return it as it will be found."""
        write_json(self.path, {_KEY: self.key, **row})
        kept = dict(json.loads(self.path.read_text(encoding="utf-8")))
        del kept[_KEY]
        return kept
