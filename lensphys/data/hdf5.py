"""HDF5 at the door: what of a file is opened at all, and checksums that tell damage wherever only a part is read.

Arrays carry HDF5's own Fletcher-32, a checksum for each image: reading some images checks these and reads no others,
any reader of HDF5 checks them, and whoever changes a file with HDF5 gets new ones. Texts lie in a heap that no filter
reaches: ours have a CRC-32, which an edit breaks as damage does; so that one is a warning. Virtual files hold their
references in that heap, too, and HDF5 crashes on damaged ones: theirs is a seal, a CRC-32 of all bytes, in front.
Heaps are walked through before HDF5 does it, which never ends where an object of no length is.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from lensphys.basics.checks import LensphysError, check_file, shortened

ENDINGS = (".h5", ".hdf5")
FORMATS = ("v110", "v110")  # of HDF5: the first ones with virtual datasets, and with attributes above 64 kB
TEXTS, LENS_MODELS = "crc32", "lens_model_crc32"
_ROWS = 1024  # numbers under one checksum
_PACKED = 1032  # times smaller than what it holds: deflate packs no better
_SMALL = 1 << 20  # bytes
_HEAP, _HEAP_FRONT = b"GCOL\x01\0\0\0", 16  # signature and version of a heap of texts; bytes before its objects
_LOOKED_THROUGH = 1 << 24  # bytes at each end of a file: the attributes that are read first have theirs there
_SEAL, _FRONT = b"lensphys crc32 ", 512  # before HDF5's own first byte, in what it calls a user block [bytes]


def is_hdf5(path: Path) -> bool:
    """Return whether a file is named as HDF5 files are.

    Example:
        >>> is_hdf5(Path("lenses.h5")), is_hdf5(Path("LENSES.HDF5")), is_hdf5(Path("lens.fits"))
        (True, True, False)
    """
    return path.suffix.lower() in ENDINGS


def hdf5_message(error: Exception) -> str:
    """Return why a write failed: of HDF5's lines of times and addresses, the reason alone."""
    reason = re.search(r"error message = '([^']*)'", str(error))
    return reason[1] if reason else " ".join(str(getattr(error, "strerror", None) or error).split())


@contextmanager
def damage(what: str, remedy: str = "copy or make it again") -> Iterator[None]:
    """Say of whatever fails in the block that a file is damaged: HDF5, h5py and numpy fail in any way then.

    Args:
        what: the file, and the part of it.
        remedy: what to do.

    Raises:
        LensphysError: in place of any other exception.
    """
    try:
        yield
    except LensphysError:
        raise
    except MemoryError:
        raise LensphysError(f"{what} does not fit into memory: read fewer rows, or a smaller file") from None
    except Exception as error:
        said = hdf5_message(error)
        why = "its checksum does not match" if "filter returned failure" in said else shortened(said)
        raise LensphysError(f"{what} is damaged ({why}): {remedy}") from None


def opened(path: Path) -> h5py.File:
    """Return an HDF5 file, open to read, after a look at all that lies at its top.

    Raises:
        LensphysError: if it is missing, damaged, declares more than it stores, or takes data from elsewhere: by links,
            external storage, or virtual datasets of files that are not in its folder or below it.
    """
    check_file("lens file", path)
    _check_seal(path)
    _check_heaps(path)
    try:
        file = h5py.File(path, "r")
    except (OSError, RuntimeError, ValueError) as error:
        if "signature not found" in str(error) and path.stat().st_size:
            raise LensphysError(
                f"{path} is not an HDF5 file: lensphys import makes one of images, lensphys simulate of a recipe"
            ) from None
        raise LensphysError(
            f"{path} is not a whole HDF5 file (cut short, or another format): copy or make it again "
            f"({shortened(str(error))})"
        ) from None
    try:
        with damage(str(path)):
            for source in _virtual_sources(path, file):
                _check_source(path, source)
    except BaseException:
        file.close()
        raise
    return file


def _check_heaps(path: Path) -> None:
    """Raise if a heap of texts holds an object that does not end within it.

    Source: HDF5 File Format Specification 3.0, III.E, with lengths of 8 bytes, as h5py writes them.
    """
    if path.stat().st_size == 0:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        size = len(data)
        for start, end in {(0, min(size, _LOOKED_THROUGH)), (max(0, size - _LOOKED_THROUGH), size)}:
            at = data.find(_HEAP, start, end)
            while at >= 0:
                if not _heap_ends(data, at):
                    raise LensphysError(f"{path} is damaged (a heap of its texts at byte {at}): copy or make it again")
                at = data.find(_HEAP, at + 1, end)


def _heap_ends(data: mmap.mmap, start: int) -> bool:
    """Whether every object of a heap ends within it; True of bytes that only look like one."""
    end = start + int.from_bytes(data[start + 8 : start + _HEAP_FRONT], "little")
    at = start + _HEAP_FRONT
    if end > len(data):
        return True  # HDF5 says so itself
    while at + 16 <= end:
        length = int.from_bytes(data[at + 8 : at + 16], "little")
        free = data[at : at + 2] == b"\0\0"  # its length counts its front, too
        at += length if free else 16 + -(-length // 8) * 8
        if (free and length == 0) or at > end:
            return False
    return True


def files_of(path: Path) -> list[Path]:
    """Return the file itself, and those that it refers to where it is a virtual one: all that must not be replaced."""
    with opened(path) as file:
        return [path, *_virtual_sources(path, file)]


def _virtual_sources(path: Path, file: h5py.File) -> list[Path]:
    """The shards of a virtual file, each once; all else that is at its top was looked at."""
    found: dict[Path, None] = {}
    for name in file:
        dataset = _own(path, file, name)
        if dataset is not None and dataset.is_virtual:
            found |= dict.fromkeys(_shown(path, dataset))
        elif dataset is not None:
            _check_size(path, dataset)
    return list(found)


def _own(path: Path, file: h5py.File, name: str) -> h5py.Dataset | None:
    """A dataset that lies in the file itself; None for what is no dataset."""
    link = file.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        target = getattr(link, "filename", "a name of its own")
        raise LensphysError(
            f"{path}: /{shortened(name)} is a link to {shortened(target)}, and links are not followed: copy the data "
            "into the file"
        )
    if file.get(name, getclass=True) is not h5py.Dataset:
        return None
    dataset = file[name]
    if dataset.external:
        raise LensphysError(
            f"{path}: /{name} lies in another file, {shortened(dataset.external[0][0])}, which is not read: copy the "
            "data into the file"
        )
    return dataset


def _check_size(path: Path, dataset: h5py.Dataset) -> None:
    declared, stored = dataset.size * dataset.dtype.itemsize, dataset.id.get_storage_size()
    if declared > _PACKED * stored + _SMALL:
        raise LensphysError(
            f"{path}: {dataset.name} {dataset.shape} would be {declared / 1e9:.3g} GB, of which {stored} bytes are "
            "there: it is damaged, make it again"
        )


def _shown(path: Path, dataset: h5py.Dataset) -> Iterator[Path]:
    """The shards that a virtual dataset shows, of which the top is looked at."""
    folder, covered = path.resolve().parent, 0
    for part in dataset.virtual_sources():
        source = path.parent / part.file_name
        if part.file_name == "." or "/" in part.dset_name.strip("/") or folder not in source.resolve().parents:
            raise LensphysError(
                f"{path}: {dataset.name} takes data from {shortened(part.file_name)}, which is not in the folder of "
                "the file or below it, or not at its top, and is not read: copy the data into the file"
            )
        if not source.is_file():  # HDF5 reads zeros where they are not
            raise LensphysError(
                f"{path} refers to {shortened(part.file_name)}, which is not there: put the shards back, or merge again"
            )
        covered += part.vspace.get_select_npoints()
        yield source
    if covered != dataset.size:
        raise LensphysError(f"{path}: {dataset.name} shows {covered} values of {dataset.size}: merge the shards again")


def _check_source(path: Path, source: Path) -> None:
    """A shard holds its data itself."""
    with h5py.File(source, "r") as shard:
        if _virtual_sources(source, shard):
            raise LensphysError(f"{path}: {source.name} is a virtual file itself, and is not read: merge the shards")


def rows_of(dataset: h5py.Dataset, rows: slice | NDArray[np.integer[Any]]) -> NDArray[Any]:
    """Return rows (n, ...) of a dataset (N, ...), by a slice or by indices (n,) in any order."""
    if isinstance(rows, slice):
        return dataset[rows]
    rising, back = np.unique(rows, return_inverse=True)
    # HDF5 reads rows that follow each other at once, and seeks long for others that are asked for together
    runs = np.split(rising, np.flatnonzero(np.diff(rising) > 1) + 1) if len(rising) else []
    parts = [dataset[run[0] : run[-1] + 1] for run in runs]
    return np.concatenate(parts)[back] if parts else dataset[:0]


# --- what we write ---------------------------------------------------------------------------------------------------


@contextmanager
def new_file(path: Path, front: int = 0) -> Iterator[h5py.File]:
    """Yield a new HDF5 file.

    Args:
        path: of it.
        front: what is left free before it [bytes].

    Raises:
        OSError: if it cannot be written, with the reason: h5py raises a RuntimeError as well where a disk is full.
    """
    try:
        with h5py.File(path, "w", libver=FORMATS, userblock_size=front) as file:
            yield file
    except (OSError, RuntimeError) as error:
        raise OSError(hdf5_message(error)) from None


@contextmanager
def sealed_file(path: Path) -> Iterator[h5py.File]:
    """Yield a new HDF5 file that gets one checksum of all its bytes: for small ones, which are checked whole.

    Raises:
        OSError: as `new_file`.
    """
    with new_file(path, _FRONT) as file:
        yield file
    seal = _SEAL + _sum_behind(path)
    with path.open("r+b") as made:
        made.write(seal)


def _sum_behind(path: Path) -> bytes:
    value = 0
    with path.open("rb") as file:
        file.seek(_FRONT)
        while block := file.read(_SMALL):
            value = zlib.crc32(block, value)
    return b"%08x\n" % value


def _check_seal(path: Path) -> None:
    with path.open("rb") as file:
        front = file.read(len(_SEAL) + 9)
    if front.startswith(_SEAL) and front[len(_SEAL) :] != _sum_behind(path):
        raise LensphysError(f"{path} is not as lensphys wrote it (its checksum does not match): merge its shards again")


@contextmanager
def reserved(file: h5py.File, size: int) -> Iterator[None]:
    """Take disk space before the block makes the datasets, and after it: HDF5 crashes where a disk becomes full.

    Args:
        file: to be written.
        size: of all that it will hold [bytes].

    Raises:
        OSError: if the disk has no such space.
    """
    path = Path(file.filename)
    with tempfile.TemporaryFile(dir=path.parent) as probe:  # in the file itself HDF5 would leave what it does not need
        _take(probe, size + _SMALL)
    yield
    file.flush()
    with path.open("r+b") as made:
        _take(made, path.stat().st_size)


def _take(file: BinaryIO, size: int) -> None:
    if hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(file.fileno(), 0, size)


def new_dataset(file: h5py.File, name: str, shape: tuple[int, ...], kind: Any) -> h5py.Dataset:
    """Return a new dataset, with a checksum for each image of (N, ..., H, W), or for many of (N,) numbers.

    Images are not compressed: reading and writing then cost little more than copying the bytes. Texts have no checksum.
    """
    if h5py.check_string_dtype(np.dtype(kind)) is not None or 0 in shape or shape == ():
        return file.create_dataset(name, shape, kind)
    if len(shape) == 1:
        return file.create_dataset(name, shape, kind, chunks=(min(_ROWS, *shape),), fletcher32=True)
    # images have their places now: nothing grows when they are written
    place = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    place.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    place.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return file.create_dataset(name, shape, kind, chunks=(1, *shape[1:]), fletcher32=True, dcpl=place)


def sign(file: h5py.File) -> None:
    """Give a file the checksum of its attributes that are texts."""
    file.attrs[TEXTS] = _sum_of_texts(file.attrs)


def check_texts(path: Path, file: h5py.File) -> None:
    """Warn if the attributes of a file that are texts are not as they were written.

    Raises:
        LensphysError: if one of them is no text any more.
    """
    for name, text in file.attrs.items():
        with damage(f"{path}: its attribute {shortened(ascii(name))}"):
            for part in np.ravel(np.asarray(text, object)):
                str(part).encode()  # h5py lets bytes that are no UTF-8 through
    if TEXTS in file.attrs and file.attrs[TEXTS] != _sum_of_texts(file.attrs):
        _warn(f"{path}: its attributes")


def _sum_of_texts(attributes: Mapping[str, Any]) -> int:
    texts = {name: np.asarray(x).tolist() for name, x in attributes.items() if np.asarray(x).dtype.kind in "OU"}
    return zlib.crc32(json.dumps(texts, sort_keys=True).encode())


def sums(texts: NDArray[Any]) -> NDArray[np.uint32]:
    """Return the CRC-32 of each of some texts, (N,)."""
    return np.array([zlib.crc32(x.encode() if isinstance(x, str) else x) for x in texts], dtype=np.uint32)


def check_sums(what: str, texts: NDArray[Any], expected: NDArray[Any]) -> None:
    """Warn unless texts (N,) have the sums (N,) with which they were written."""
    if not np.array_equal(sums(texts), expected):
        _warn(what)


def _warn(what: str) -> None:
    warnings.warn(
        f"{what} are not as lensphys wrote them, but damaged or edited: make the file again if it was not you",
        stacklevel=2,
    )
