"""Files that we write: whole or not at all, never over an input, over other files only when that is asked for."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import uuid
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from lensphys.basics.checks import LensphysError, UnwritableError
from lensphys.basics.lock import LOCK, locked, sole_run

_SCRATCH = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")


def check_output(out: Path, inputs: Iterable[Path], *, overwrite: bool = False) -> None:
    """Raise unless a file may be written: to be called before a long computation.

    Args:
        out: the file.
        inputs: the files that are read.
        overwrite: a file that is there may be replaced.

    Raises:
        LensphysError: if it is an input (a link to one, too), or there and not to be replaced.
    """
    if any(_same(out, path) for path in inputs):
        raise LensphysError(f"the output {out} is the input: choose another name")
    if out.exists() and not overwrite:
        raise LensphysError(f"{out} exists: remove it, or choose another --out, or give --overwrite")


def check_file(out: Path, inputs: Iterable[Path], *, overwrite: bool = False) -> None:
    """Raise as `check_output`, and if there is a folder at the place of the file."""
    check_output(out, inputs, overwrite=overwrite)
    if out.is_dir():
        raise LensphysError(f"cannot write {out}: it is a folder")


def _same(a: Path, b: Path) -> bool:
    return a.resolve() == b.resolve() or (a.exists() and b.exists() and a.samefile(b))


@contextmanager
def claimed(out: Path, inputs: Iterable[Path], *, overwrite: bool = False) -> Iterator[None]:
    """Keep the place of a file that takes long to make: `check_file`, and no other run writes it meanwhile.

    Raises:
        LensphysError: as `check_file`; if it cannot be written, or another run is writing it.
    """
    check_file(out, inputs, overwrite=overwrite)
    with sole_run(out):
        yield


def check_writable(folder: Path) -> None:
    """Make a folder and raise unless files can be written into it: to be called before a long computation.

    Raises:
        LensphysError: with the reason.
    """
    if folder.is_file():
        raise LensphysError(f"cannot write into {folder}: it is a file, and a folder is wanted")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise LensphysError(f"cannot write into {folder}: {error.strerror or error}") from None


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Yield a new folder beside ``path``, which is gone when the block ends; those that killed runs left go, too.

    Raises:
        LensphysError: if the disk cannot be written, or is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        folder, lock = _begun(path)
        with lock:
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise UnwritableError(f"cannot write {path}: {error.strerror or error}") from None


def _begun(path: Path) -> tuple[Path, BinaryIO]:
    # no process id: on a disk that machines share, two of them may have the same
    folder = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    folder.mkdir()
    try:
        lock = locked(folder / LOCK)
    except FileNotFoundError:
        lock = None
    return (folder, lock) if lock is not None else _begun(path)  # it was taken for a leftover before it was locked


def remove_leftovers(folder: Path) -> None:
    """Remove the scratch folders of killed runs, those whose lock nobody holds, from a folder if it is there."""
    for left in folder.iterdir() if folder.is_dir() else ():
        if _SCRATCH.fullmatch(left.name):
            with suppress(OSError):  # of another user
                _remove_unless_held(left)


def _remove_unless_held(left: Path) -> None:
    lock = locked(left / LOCK, certainly=True) if (left / LOCK).is_file() else None
    if lock is not None:
        with lock:
            shutil.rmtree(left)


def move_into_place(made: Path, path: Path) -> None:
    """Move a file or folder to its place, on the disk before it is seen: a power failure leaves the old or the new."""
    for part in [made, *made.rglob("*")]:
        _sync(part)
    os.replace(made, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that takes the place of ``path`` only if the block succeeds.

    Raises:
        LensphysError: if the file cannot be written.
    """
    with scratch(path) as folder:
        temporary = folder / path.name
        temporary.touch()
        yield temporary
        move_into_place(temporary, path)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that takes the place of ``path`` only if the block succeeds.

    Raises:
        LensphysError: if it cannot be written.
    """
    with scratch(path) as folder:
        temporary = folder / path.name
        temporary.mkdir()
        yield temporary
        replace_folder(temporary, path)


def replace_folder(made: Path, path: Path) -> None:
    """Move a folder to its place; one that is there is put beside the new one, in its scratch folder, not removed.

    Where the new one cannot be moved, the one that was there is put back.
    """
    before = made.with_name(f"{made.name}.before")
    if path.is_dir():
        os.replace(path, before)
    try:
        move_into_place(made, path)
    except BaseException:
        if before.is_dir() and not path.exists():
            os.replace(before, path)
        raise


def checksum(*paths: Path) -> str:
    """Return the CRC-32 of files, one after the other, in eight hexadecimal digits.

    It finds damage, and costs a fourth of a SHA-256.
    """
    value = 0
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                value = zlib.crc32(block, value)
    return f"{value:08x}"


def write_json(path: Path, tree: Any) -> None:
    """Write ``tree`` as indented JSON, whole or not at all (NaN and infinity become null)."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(_plain(tree), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _plain(x: Any) -> Any:
    if isinstance(x, dict):
        return {str(k): _plain(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(v) for v in x]
    if hasattr(x, "tolist"):
        return _plain(x.tolist())
    if isinstance(x, float) and not abs(x) < float("inf"):
        return None
    return x
