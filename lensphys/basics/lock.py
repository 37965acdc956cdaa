"""One run at a place: locks that the system releases however a run ends, so that a killed one leaves none behind."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lensphys.basics.checks import LensphysError, UnwritableError

try:
    import fcntl
except ImportError:  # Windows: runs are not kept apart there
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


def locked(path: Path, *, certainly: bool = False) -> BinaryIO | None:
    """Return a file, made if need be, with its lock, which lasts until it is closed; None while another run has it.

    Args:
        path: the file.
        certainly: None, too, where the disk has no locks and nothing is known of other runs.

    Raises:
        OSError: if the file cannot be made.
    """
    file = path.open("ab")
    if not _locks(file, unknown=not certainly):
        file.close()
        return None
    if not _is_at(file, path):  # the one who held the lock has removed the file
        file.close()
        return locked(path, certainly=certainly)
    return file


def _locks(file: BinaryIO, *, unknown: bool) -> bool:
    if fcntl is None:
        return unknown
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a disk without locks
        return unknown
    return True


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def sole_run(place: Path, *, patience: float = 0.0, again: float = 0.2) -> Iterator[None]:
    """Keep other runs away from a folder, or from a file that is being made, while the block runs.

    Args:
        place: a folder that is there, or the file.
        patience: how long to wait for another run to end [s],
        again: and after how long to look again whether it has [s].

    Raises:
        LensphysError: if another run is at work there, or the folder cannot be written.
    """
    path = place / LOCK if place.is_dir() else place.with_name(f".{place.name}{LOCK}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file, until = locked(path), time.monotonic() + patience
        while file is None and time.monotonic() < until:
            time.sleep(again)
            file = locked(path)
    except OSError as error:
        raise UnwritableError(f"cannot write {place}: {error.strerror or error}") from None
    if file is None:
        raise LensphysError(f"another run is at work on {place}: wait until it ends, or choose another --out")
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
