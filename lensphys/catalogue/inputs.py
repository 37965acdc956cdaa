"""Which lenses there are: the files of a folder, of a list, or the images of a stack, cut into parts."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lensphys.basics.checks import LensphysError, shortened
from lensphys.basics.sentences import counted
from lensphys.data.contents import is_image_file, passed_over
from lensphys.data.hdf5 import is_hdf5
from lensphys.data.lens_file import LensFile
from lensphys.data.npy import open_npy
from lensphys.data.written import is_result

LISTS = (".txt", ".lst", ".list")


@dataclass(frozen=True)
class Entry:
    """A file of lenses.

    Args:
        name: what the catalogue calls it: its name in the folder, or what the list says.
        path: where it lies.
        count: how many images it holds; 1 for what cannot be read, which is a row that failed.
        stack: whether its images have numbers.
    """

    name: str
    path: Path
    count: int = 1
    stack: bool = False


@dataclass(frozen=True)
class Piece:
    """Images of one file that follow each other.

    Args:
        entry: the file.
        first: number of the first one in the catalogue.
        rows: of a stack; None for a file of one lens.
        count: how many they are.
        seen: the file's size and time of change when the run began; empty if it was not there.
    """

    entry: Entry
    first: int
    rows: range | None
    count: int
    seen: str


@dataclass(frozen=True)
class Task:
    """What is computed at once and kept as a whole.

    Args:
        shard: its number.
        pieces: the images.
    """

    shard: int
    pieces: tuple[Piece, ...]

    @property
    def count(self) -> int:
        """How many lenses it has."""
        return sum(piece.count for piece in self.pieces)

    @property
    def inputs(self) -> str:
        """CRC-32 of what the files were when the run began: a mended one is looked at again."""
        told = "\n".join(f"{p.entry.name}\t{p.rows}\t{p.seen}" for p in self.pieces)
        return f"{zlib.crc32(told.encode()):08x}"


def is_many(source: Path, out: Path) -> bool:
    """Return whether a catalogue is asked for: the input is a folder or a list, or the output a folder."""
    return source.is_dir() or source.suffix.lower() in LISTS or (out.suffix == "" and not out.is_file()) or out.is_dir()


def listed(source: Path) -> list[Entry]:
    """Return the files of lenses, in the order of their names, or of the list.

    Args:
        source: a folder (what lies in it, not below it, but for results of lensphys itself), a text with a path a line
            (from the folder of the text; empty lines and those that begin with # are passed over), or one file of
            lenses.

    Raises:
        LensphysError: if there is none, the list is no text, or names a file twice.
    """
    if source.is_dir():
        paths = sorted(path for path in _seen(source) if is_image_file(path) and not is_result(path))
        if not paths:
            others = told_of_others(source)
            raise LensphysError(
                f"{source} holds no images: FITS, .npy, .npz or .h5 files are looked for in it"
                f"{'' if others is None else f' ({others})'}"
            )
        return [_entry(path.name, path) for path in paths]
    if source.suffix.lower() in LISTS:
        return [_entry(name, source.parent / name) for name in _lines(source)]
    if not source.is_file():
        raise LensphysError(f"input not found: {source} is no file and no folder")
    if not is_image_file(source):
        raise LensphysError(f"{source} is no file of images, and a list of them is named {', '.join(LISTS)}")
    return [_entry(source.name, source)]


def told_of_others(source: Path) -> str | None:
    """Return what is to be said of the files of a folder that are passed over, though they hold images; else None."""
    if not source.is_dir():
        return None
    results = sum(is_image_file(path) and is_result(path) for path in _seen(source))
    own = f"passed over: {counted(results, 'result')} of lensphys, super-resolved before" if results else None
    told = [line for line in (own, passed_over(_seen(source))) if line is not None]
    return "; ".join(told) or None


def _seen(folder: Path) -> Iterator[Path]:
    """What lies in a folder and is not hidden."""
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise LensphysError(f"cannot read the list {path}: {shortened(str(error))}") from None
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise LensphysError(f"the list {path} is empty: it must have one path to a file of images per line")
    twice = next((name for name, other in zip(sorted(names), sorted(names)[1:], strict=False) if name == other), None)
    if twice is not None:
        raise LensphysError(f"the list {path} names {shortened(twice)} twice: take one away")
    return names


def _entry(name: str, path: Path) -> Entry:
    try:
        if path.suffix.lower() == ".npy":
            array = open_npy("input", path)
            if array is not None and array.ndim > 2:
                return Entry(name, path, max(1, len(array)), stack=True)
        elif is_hdf5(path):
            with LensFile(path) as file:
                return Entry(name, path, max(1, len(file)), stack=True)
    except LensphysError:
        pass  # its row will say why
    return Entry(name, path)


def tasks(entries: Iterable[Entry], size: int) -> list[Task]:
    """Return the parts: ``size`` lenses each, the last one fewer."""
    parts: list[list[Piece]] = []
    room = 0
    for piece in _pieces(entries, size):
        if room == 0:
            parts.append([])
            room = size
        parts[-1].append(piece)
        room -= piece.count
    return [Task(shard, tuple(pieces)) for shard, pieces in enumerate(parts)]


def _pieces(entries: Iterable[Entry], size: int) -> Iterator[Piece]:
    """The images of the files, none across the edge between two parts."""
    number = 0
    for entry in entries:
        seen, start = fingerprint(entry.path), 0
        while start < entry.count:
            count = min(entry.count - start, size - number % size)
            yield Piece(entry, number, range(start, start + count) if entry.stack else None, count, seen)
            start, number = start + count, number + count


def fingerprint(path: Path) -> str:
    """Return a file's size and time of change; nothing if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"
