"""From a folder of shards to one HDF5 file, their checksums compared on the way."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from lensphys.basics.checks import LensphysError
from lensphys.basics.manifest import MANIFEST
from lensphys.basics.outputs import checksum, claimed, whole_file
from lensphys.data.hdf5 import FORMATS, new_dataset, new_file, opened, reserved, sealed_file

_ROWS = 64  # samples in memory
_ENTRY = {"samples", "bytes", "crc32"}  # what the manifest says of each shard
_AGAIN = "run the same 'lensphys simulate' again, finished shards are kept"


def shard_path(folder: Path, shard: int) -> Path:
    """Return the file of a shard."""
    return folder / f"{shard:06d}.h5"


def link_clean(file: h5py.File) -> None:
    """Let /hr be the clean images where there are no noisy ones: a hard link, stored once."""
    if "hr" not in file and "hr_clean" in file:
        file["hr"] = file["hr_clean"]


def datasets_of(file: h5py.File) -> list[str]:
    """Return the datasets of a file but for /hr where that is a link, see `link_clean`."""
    linked = "hr_clean" in file and "hr" in file and file["hr"] == file["hr_clean"]
    return [name for name in file if not (linked and name == "hr")]


Parts = list[tuple[Path, int]]  # a shard's file and its first sample


@dataclass(frozen=True)
class Way:
    """A way to make one file of shards.

    Args:
        new: opens the file.
        join: fills it from the shards, by their manifest; the last argument is its folder.
    """

    new: Callable[[Path], AbstractContextManager[h5py.File]]
    join: Callable[[h5py.File, Parts, dict[str, Any], Callable[[int], None], Path], None]


# the file holds what the shards hold
COPIED = Way(new_file, lambda *what: _copy(*what))
# it refers to them: they must stay where they are, in its folder or below it
REFERRED = Way(sealed_file, lambda *what: _refer(*what))


def merge(folder: str | Path, out: str | Path, *, way: Way = COPIED, overwrite: bool = False) -> Path:
    """Merge the shards of a folder into one file; the folder stays as it is.

    Args:
        folder: of a finished simulation.
        out: the HDF5 file.
        way: `COPIED` or `REFERRED`.
        overwrite: a file that is there is replaced.

    Raises:
        LensphysError: if a shard is missing, its checksum does not match, a virtual file would refer to another
            folder, or the file is a shard, exists or cannot be written.
    """
    folder, out = Path(folder), Path(out)
    with claimed(out, folder.glob("*"), overwrite=overwrite):
        merge_shards(folder, out, way=way)
    return out


def merge_shards(
    folder: Path, out: Path, *, way: Way = COPIED, report: Callable[[int], None] = lambda samples: None
) -> None:
    """Merge as `merge` does, over whatever stands at ``out``; ``report`` is told how many samples are done.

    Raises:
        LensphysError: if shards are missing or damaged.
    """
    manifest = _read(folder)
    parts = _parts(folder, manifest)
    with whole_file(out) as temporary, way.new(temporary) as file:
        way.join(file, parts, manifest, report, out.resolve().parent)
        link_clean(file)


def virtual_file(folder: Path) -> h5py.File:
    """Return the shards of a folder as one file in memory, which refers to them: nothing is merged or copied.

    Sizes are compared with the manifest's, not checksums: HDF5 checks each image when it is read.

    Raises:
        LensphysError: if it is no folder of shards, a shard is missing, has another size, or is not what it seems.
    """
    manifest = _read(folder)
    parts = _parts(folder, manifest, lambda path, said: path.stat().st_size == said["bytes"])
    for path, _ in parts:
        opened(path).close()
    name = f"{uuid.uuid4().hex}.h5"  # of no file
    file = h5py.File(name, "w", driver="core", backing_store=False, libver=FORMATS)
    try:
        _refer(file, parts, manifest, lambda samples: None, beside=None)
        link_clean(file)
    except BaseException:
        file.close()
        raise
    return file


def _read(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise LensphysError(
            f"{folder} holds no shards: there is no {MANIFEST} of 'lensphys simulate' in it; of images give one file"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        manifest = None
    if not _complete(manifest):
        raise LensphysError(f"{path} is damaged: {_AGAIN}")
    return dict(manifest)


def _complete(manifest: Any) -> bool:
    """Whether a manifest says all that it must, in numbers that agree; shards may be missing."""
    if not (isinstance(manifest, dict) and isinstance(manifest.get("identity"), str)):
        return False
    shards, samples, finished = (manifest.get(key) for key in ("shards", "samples", "finished"))
    if not (isinstance(shards, int) and isinstance(samples, int) and isinstance(finished, dict)):
        return False
    if not all(isinstance(said, dict) and said.keys() >= _ENTRY for said in finished.values()):
        return False
    if len(finished) < shards:
        return True
    counts = [said["samples"] for said in finished.values()]
    in_order = list(finished) == [str(shard) for shard in range(shards)]
    return in_order and all(isinstance(count, int) for count in counts) and sum(counts) == samples


def _whole(path: Path, said: dict[str, Any]) -> bool:
    return path.stat().st_size == said["bytes"] and checksum(path) == said["crc32"]


def _parts(folder: Path, manifest: dict[str, Any], whole: Callable[[Path, dict[str, Any]], bool] = _whole) -> Parts:
    """The file of each shard and its first sample, all of them there and whole."""
    missing = [s for s in range(manifest["shards"]) if str(s) not in manifest["finished"]]
    if missing:
        raise LensphysError(f"{folder} lacks {len(missing)} of {manifest['shards']} shards: {_AGAIN}")
    parts, start = [], 0
    for shard in range(manifest["shards"]):
        path, said = shard_path(folder, shard), manifest["finished"][str(shard)]
        if not path.is_file():
            raise LensphysError(f"{path} is gone: {_AGAIN}")
        if not whole(path, said):
            raise LensphysError(f"{path} is damaged (its checksum does not match {MANIFEST}): delete it and {_AGAIN}")
        parts.append((path, start))
        start += int(said["samples"])
    return parts


def _copy(file: h5py.File, parts: Parts, manifest: dict[str, Any], report: Callable[[int], None], beside: Path) -> None:
    size = sum(path.stat().st_size for path, _ in parts)
    with h5py.File(parts[0][0], "r") as shard, reserved(file, size):
        _describe(file, shard, manifest["samples"])
    for path, start in parts:
        with h5py.File(path, "r") as shard:
            count = len(shard["lr"])
            for name in file:
                _copied(shard[name], file[name], start)
            report(count)


def _copied(part: h5py.Dataset, whole: h5py.Dataset, start: int) -> None:
    """Copy the rows of a shard to their place: images as they lie on the disk, with the checksums they have."""
    if part.chunks == whole.chunks == (1, *part.shape[1:]) and part.ndim > 1:
        rest = (0,) * (part.ndim - 1)
        for row in range(len(part)):
            mask, stored = part.id.read_direct_chunk((row, *rest))
            whole.id.write_direct_chunk((start + row, *rest), stored, mask)
        return
    for row in range(0, len(part), _ROWS):
        end = min(row + _ROWS, len(part))
        whole[start + row : start + end] = part[row:end]


def _describe(file: h5py.File, shard: h5py.File, samples: int) -> None:
    file.attrs.update(shard.attrs)
    for name in datasets_of(shard):
        like = shard[name]
        new_dataset(file, name, (samples, *like.shape[1:]), like.dtype).attrs.update(like.attrs)


def _refer(
    file: h5py.File, parts: Parts, manifest: dict[str, Any], report: Callable[[int], None], beside: Path | None
) -> None:
    """Refer to shards relative to the folder ``beside``: they may move together; by their whole path if it is None."""
    with h5py.File(parts[0][0], "r") as shard:
        file.attrs.update(shard.attrs)
        for name in datasets_of(shard):
            like = shard[name]
            layout = h5py.VirtualLayout((manifest["samples"], *like.shape[1:]), like.dtype)
            for (path, start), said in zip(parts, manifest["finished"].values(), strict=True):
                source = h5py.VirtualSource(_below(beside, path), name, (said["samples"], *like.shape[1:]), like.dtype)
                layout[start : start + said["samples"]] = source
            file.create_virtual_dataset(name, layout).attrs.update(like.attrs)
    report(manifest["samples"])


def _below(folder: Path | None, path: Path) -> str:
    if folder is None:
        return str(path.resolve())
    try:
        return str(path.resolve().relative_to(folder))
    except ValueError:
        raise LensphysError(
            f"a virtual file refers to shards in its own folder or below it, and {path.parent} is not in {folder}: "
            "choose another --out, or leave out --virtual"
        ) from None
