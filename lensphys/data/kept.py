"""Results of many images, a chunk at a time on the disk until all are there: a killed run goes on, memory is small."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensphys.basics.checks import LensphysError, shortened
from lensphys.basics.outputs import whole_file

Array = NDArray[Any]
_IDENTITY = "identity.json"


@dataclass(frozen=True)
class Stack:
    """An array that is read a chunk at a time.

    Args:
        shape: (N, ...).
        dtype: of its numbers.
        chunks: yields its parts, (n, ...) each, in order.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: Callable[[], Iterator[Array]]

    @classmethod
    def from_array(cls, array: Any) -> Stack:
        """Return an array as a stack."""
        if isinstance(array, Stack):
            return array
        whole = np.asarray(array)
        return cls(whole.shape, whole.dtype, lambda: iter([whole]))

    @property
    def nbytes(self) -> int:
        """The size of all [bytes]."""
        return math.prod(self.shape) * self.dtype.itemsize

    def of_one_channel(self) -> Stack:
        """Return images (N, H, W) as (N, 1, H, W)."""
        return Stack((len(self), 1, *self.shape[1:]), self.dtype, lambda: (part[:, None] for part in self.chunks()))

    def __len__(self) -> int:
        return self.shape[0]


class Kept:
    """The chunks of a long computation that are finished, in a folder of their own.

    Args:
        folder: made if need be. If it holds chunks of another computation they go.
        identity: what the computation depends on.
        count: how many chunks there are.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], count: int) -> None:
        self.folder, self.count = folder, count
        told = json.dumps(identity, sort_keys=True, default=str)
        if not (folder / _IDENTITY).exists() or (folder / _IDENTITY).read_text(encoding="utf-8") != told:
            shutil.rmtree(folder, ignore_errors=True)
            with whole_file(folder / _IDENTITY) as temporary:
                temporary.write_text(told, encoding="utf-8")

    @property
    def missing(self) -> list[int]:
        """The chunks that are still to be computed."""
        return [i for i in range(self.count) if not self._path(i).exists()]

    def keep(self, index: int, planes: Mapping[str, Array]) -> None:
        """Write one chunk: arrays (n, ...) by name, n images in the order of the stack."""
        with whole_file(self._path(index)) as temporary, temporary.open("wb") as file:
            arrays: dict[str, Any] = {**planes}
            np.savez(file, **arrays)

    def chunk(self, index: int, without: Collection[str] = ()) -> dict[str, Array]:
        """Return one chunk: arrays (n, ...) by name, but for some that are not read.

        Raises:
            LensphysError: if its file is damaged.
        """
        return self._read(index, lambda name: name not in without)

    def chunks_of(self, name: str) -> Iterator[Array]:
        """Yield the parts (n, ...) of one array, a chunk each, in order."""
        for i in range(self.count):
            yield self._read(i, name.__eq__)[name]

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, index: int, wanted: Callable[[str], bool]) -> dict[str, Array]:
        path = self._path(index)
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files if wanted(name)}
        except MemoryError:
            raise
        except Exception as error:  # a damaged file fails in any way
            why = shortened(str(error))
            raise LensphysError(f"{path} is damaged ({why}): remove it, and the same command makes it again") from None

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.npz"
