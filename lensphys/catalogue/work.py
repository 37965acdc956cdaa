"""One part of a catalogue: its images read, super-resolved and written with their rows, in any process."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lensphys.basics.checks import LensphysError, UnwritableError, shortened
from lensphys.basics.manifest import Part, check_worker
from lensphys.basics.outputs import checksum, whole_folder, write_json
from lensphys.basics.threads import on_one_thread
from lensphys.basics.version import VERSION
from lensphys.catalogue.inputs import Piece, Task
from lensphys.catalogue.pictures import Pair, write_strip
from lensphys.catalogue.rows import Row, failed, row_of
from lensphys.data.contents import images_in
from lensphys.data.images import ImageSet, Reading, read_images
from lensphys.data.results import result_name, write_images
from lensphys.methods import Method
from lensphys.methods.super_resolve import super_resolve
from lensphys.observation import Instrument

SHARDS = "shards"
ROWS, SECONDS, PICTURES = "rows.json", "seconds.json", "pictures.png"
_LONGEST = 400  # characters of a reason


def identity_of(reading: Reading) -> dict[str, str]:
    """Return what results depend on of how files are read: settings as texts, files by their name and checksum."""
    given = {name: value for name, value in vars(reading).items() if value is not None}
    return {name: _told_of(value) for name, value in given.items()}


def _told_of(value: Any) -> str:
    if isinstance(value, Path):
        return f"{value.name} {checksum(value)}"
    return value.model_dump_json() if isinstance(value, Instrument) else str(value)


@dataclass(frozen=True)
class Finished(Part):
    """A part that is whole.

    Args:
        lenses: how many it holds.
        failed: how many of them failed.
        bytes: of its files.
        crc32: of its files, but for the seconds.
        inputs: what it was made of: see `Task.inputs`.
    """

    lenses: int
    failed: int
    bytes: int
    crc32: str
    inputs: str


@dataclass(frozen=True)
class Work:
    """What is done for each part.

    Args:
        folder: of the catalogue.
        method: what super-resolves.
        scale: factor by which pixels become smaller.
        reading: how files are read.
        identity: hash of what was asked for.
        origin: where the results come from.
        device: where the method computes.
    """

    folder: Path
    method: Method
    scale: int
    reading: Reading
    identity: str
    origin: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    version: str = VERSION

    def __call__(self, task: Task) -> Finished:
        """Make one part, whole or not at all, on any machine that sees the folder and the files.

        Raises:
            LensphysError: if this process does not see what the run sees, runs another version, or cannot write.
        """
        self._check_place(task)
        path = shard_path(self.folder, task.shard)
        with on_one_thread(), whole_folder(path) as temporary:  # the other cores belong to the other workers
            _Part(self, task, temporary).make()
        return finished(path, task)

    def _check_place(self, task: Task) -> None:
        check_worker(self.folder, self.version)
        gone = next((p.entry.path for p in task.pieces if p.seen and not p.entry.path.exists()), None)
        if gone is not None:
            raise LensphysError(
                f"the worker on {socket.gethostname()} does not see {gone}, which was there when the run began: images "
                "must lie on a disk that all workers share"
            )


def shard_path(folder: Path, shard: int) -> Path:
    """Return the folder of a part."""
    return folder / SHARDS / f"{shard:06d}"


def finished(path: Path, task: Task) -> Finished:
    """Return what a part that is there is."""
    files = sorted(file for file in path.iterdir() if file.name != SECONDS)
    rows = rows_in(path)
    lost = sum(row["status"] == "failed" for row in rows)
    size = sum(file.stat().st_size for file in files)
    return Finished(task.shard, len(rows), lost, size, checksum(*files), task.inputs)


def rows_in(path: Path) -> list[Row]:
    """Return the rows of a part, without their seconds."""
    return list(json.loads((path / ROWS).read_text(encoding="utf-8"))["rows"])


def seconds_in(path: Path) -> list[float]:
    """Return how long each row of a part took [s]."""
    return [float(s) for s in json.loads((path / SECONDS).read_text(encoding="utf-8"))]


class _Part:
    """The files of a part while it is made."""

    def __init__(self, work: Work, task: Task, folder: Path) -> None:
        self.work, self.task, self.folder = work, task, folder
        self.rows: list[Row] = []
        self.pairs: list[Pair | None] = []
        self.seconds: list[float] = []

    def make(self) -> None:
        """Super-resolve the lenses of the shard; write rows, pictures and seconds into its folder, the rows last."""
        for piece in self.task.pieces:
            self._take(piece)
        write_strip(self.folder / PICTURES, self.pairs)
        write_json(self.folder / SECONDS, self.seconds)
        tree = {"identity": self.work.identity, "inputs": self.task.inputs, "rows": self.rows}
        write_json(self.folder / ROWS, tree)

    def _take(self, piece: Piece) -> None:
        """Super-resolve a piece at once, or, if that fails, each image of it by itself."""
        started = time.perf_counter()
        try:
            name = f"{piece.first:06d}_{result_name(piece.entry.path)}"
            rows = None if piece.rows is None else np.array(piece.rows)
            count = images_in(piece.entry.path, self.work.reading.choice) if rows is None else None
            if count is not None:  # whichever of them can be used
                raise LensphysError(
                    f"{piece.entry.path} is a stack of {count} images: super-resolve it by itself, with .npz as output"
                )
            images = read_images(piece.entry.path, self.work.reading, rows, self.work.scale)
            result = self._resolved(images)
            self._write(name, piece, images, result)
        except (UnwritableError, MemoryError, torch.OutOfMemoryError):
            raise  # of this machine's making, not of the file's: another try may do
        except Exception as error:  # whatever it is, it is this file's, and costs its own row alone
            if piece.count > 1:
                for single in _singles(piece):
                    self._take(single)
                return
            self._failed(piece, _reason(error), time.perf_counter() - started)
            return
        self._done(piece, images, result, name, time.perf_counter() - started)

    def _resolved(self, images: ImageSet) -> dict[str, Any]:
        work = self.work
        return super_resolve(work.method, images.observation, work.scale, device=work.device, quiet=True)

    def _write(self, name: str, piece: Piece, images: ImageSet, result: dict[str, Any]) -> None:
        origin = {**self.work.origin, "input": piece.entry.name, "read": images.remarks}
        extra = {"index": images.index} if piece.rows is not None else {}
        write_images(self.folder / name, images, result | extra, self.work.scale, origin)

    def _failed(self, piece: Piece, reason: str, seconds: float) -> None:
        image = None if piece.rows is None else piece.rows[0]
        self.rows.append(failed(piece.first, piece.entry.name, image, reason))
        self.pairs.append(None)
        self.seconds.append(seconds)

    def _done(self, piece: Piece, images: ImageSet, result: dict[str, Any], name: str, seconds: float) -> None:
        places = {int(i): place for place, i in enumerate(images.index)}
        for (number, image), row in zip(_numbered(piece), _told(piece, images, result, places), strict=True):
            place = places.get(image or 0)
            told = {"number": number, "file": piece.entry.name, "image": image}
            found = {} if place is None else {"result": f"{SHARDS}/{self.task.shard:06d}/{name}"}
            self.rows.append(told | row | found)
            self.pairs.append(None if place is None else _pair(images, result, place))
            self.seconds.append(seconds / piece.count)


def _numbered(piece: Piece) -> Iterator[tuple[int, int | None]]:
    """The number of each image in the catalogue, and in its file."""
    for k in range(piece.count):
        yield piece.first + k, None if piece.rows is None else piece.rows[k]


def _told(piece: Piece, images: ImageSet, result: dict[str, Any], places: dict[int, int]) -> Iterator[Row]:
    for _, image in _numbered(piece):
        place = places.get(image or 0)
        if place is None:
            start = f"image {image} of "
            why = next((remark for remark in images.remarks if remark.startswith(start)), "it cannot be used")
            yield {"status": "failed", "reasons": shortened(why, _LONGEST)}
        else:
            yield row_of(result, place, images.header)


def _pair(images: ImageSet, result: dict[str, Any], place: int) -> Pair:
    return images.observation.image[place, 0].cpu().numpy(), np.asarray(result["image"][place])


def _singles(piece: Piece) -> Iterator[Piece]:
    for (number, image), _ in zip(_numbered(piece), range(piece.count), strict=True):
        rows = None if image is None else range(image, image + 1)
        yield Piece(piece.entry, number, rows, 1, piece.seen)


def _reason(error: Exception) -> str:
    """What a row says of a failure: our own sentence, or what a library raised."""
    text = str(error) if isinstance(error, LensphysError) else f"{type(error).__name__}: {error}"
    return shortened(text, _LONGEST)
