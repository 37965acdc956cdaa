"""What a long run has finished, part by part, listed in its folder: a run that was interrupted goes on from there."""

from __future__ import annotations

import json
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from lensphys.basics.checks import LensphysError
from lensphys.basics.lock import LOCK
from lensphys.basics.outputs import write_json
from lensphys.basics.version import VERSION

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Part:
    """What is said of a part that is whole.

    Args:
        shard: its number.
    """

    shard: int


P = TypeVar("P", bound=Part)


def check_folder(folder: Path, run: str) -> None:
    """Raise unless a folder is empty, to be made, or of a run of ours.

    Args:
        folder: where the run is to write.
        run: what it makes, in a word.

    Raises:
        LensphysError: if it is a file, or holds other things.
    """
    if (folder / MANIFEST).exists() or not folder.exists():
        return
    if not folder.is_dir() or any(path.name != LOCK for path in folder.iterdir()):
        raise LensphysError(f"{folder} is not empty, and no {run} of ours (it has no {MANIFEST}): choose another --out")


def check_worker(folder: Path, version: str) -> None:
    """Raise unless this process is fit to make a part of a run.

    Args:
        folder: of the run.
        version: of lensphys, which leads the run.

    Raises:
        LensphysError: if this process has another version, or does not see the folder.
    """
    where = f"the worker on {socket.gethostname()}"
    if version != VERSION:
        raise LensphysError(f"{where} has lensphys {VERSION}, the run {version}: install the same")
    if not (folder / MANIFEST).is_file():
        raise LensphysError(f"{where} does not see {folder}: it must lie on a disk that all workers share")


class Manifest(ABC, Generic[P]):
    """The list of the parts that are finished, written by the one process that leads the run.

    Args:
        folder: of the run.
        identity: hash of what was asked for.
        kind: what is said of a part.
    """

    def __init__(self, folder: Path, identity: str, kind: type[P]) -> None:
        self.folder, self.path, self.identity, self._kind = folder, folder / MANIFEST, identity, kind
        self.finished: dict[int, P] = {}

    @abstractmethod
    def head(self) -> dict[str, Any]:
        """Return what the file says of the run, above its parts; its ``identity`` among it."""

    def is_same(self, tree: dict[str, Any]) -> bool:
        """Return whether a manifest is of the run that is asked for."""
        return bool(tree["identity"] == self.identity)

    @abstractmethod
    def parts(self) -> Iterable[Path]:
        """Return the parts that are there, of whatever run."""

    @abstractmethod
    def is_ours(self, part: Path) -> bool:
        """Return whether a part says itself that it is of this run."""

    def listed(self) -> dict[int, P] | None:
        """Return the parts that the file lists, none where there is no file; None if they are another run's.

        Where the file is damaged, the parts say themselves whose they are.
        """
        try:
            tree = json.loads(self.path.read_text(encoding="utf-8"))
            listed = {int(k): self._kind(int(k), **v) for k, v in tree["finished"].items()}
            return listed if self.is_same(tree) else None
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            there = list(self.parts())
            return {} if not there or any(map(self.is_ours, there)) else None

    def write(self) -> None:
        """Write which parts are finished, with their checksums, whole or not at all."""
        parts = {str(number): asdict(self.finished[number]) for number in sorted(self.finished)}
        for part in parts.values():
            del part["shard"]
        write_json(self.path, {**self.head(), "finished": parts})
