"""Rank sets: the same patches super-resolved by several networks, and how natural each looks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from lensphys.basics.checks import LensphysError, check_file
from lensphys.basics.outputs import whole_file
from lensphys.data.hdf5 import check_texts, damage, new_dataset, new_file, opened, reserved, rows_of, sign
from lensphys.data.lens_file import RANK_SET


class RankSet:
    """A rank set on disk, read-only.

    Args:
        path: the HDF5 file.

    Raises:
        LensphysError: if it is missing, damaged, or no rank set.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        check_file("rank set", self.path)
        self._file = opened(self.path)
        try:
            with damage(str(self.path)):
                self._check()
        except BaseException:
            self._file.close()
            raise

    def _check(self) -> None:
        file = self._file
        if file.attrs.get("format") != RANK_SET:
            raise LensphysError(f"{self.path} is no rank set: make one with 'lensphys rank-set'")
        if "row" not in file:
            raise LensphysError(f"{self.path} is a rank set of an earlier version: make it again")
        image, niqe, row = (file[name].shape for name in ("image", "niqe", "row"))
        if len(image) != 4 or niqe != image[:2] or row != image[:1] or image[1] != len(self.names):
            raise LensphysError(f"{self.path}: images {image}, NIQE {niqe} and rows {row} do not fit: make it again")
        check_texts(self.path, file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return int(self._file["image"].shape[0])

    @property
    def names(self) -> list[str]:
        """What super-resolved: the K networks."""
        return [str(name) for name in self._file.attrs["names"]]

    @property
    def identity(self) -> str:
        """Hash of the content."""
        return str(self._file.attrs["identity"])

    @property
    def provenance(self) -> dict[str, Any]:
        """What made it."""
        with damage(f"{self.path}: its provenance"):
            return dict(json.loads(self._file.attrs["provenance"]))

    @property
    def row(self) -> Tensor:
        """Which image of the data each patch is of, (N,)."""
        with damage(f"{self.path}: /row"):
            return torch.from_numpy(self._file["row"][:])

    def read(self, index: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the images (n, K, h, w) [units of the LR peak] and their NIQE (n, K), lower is better."""
        with damage(f"{self.path}: /image or /niqe"):
            found = (rows_of(self._file[name], np.asarray(index)) for name in ("image", "niqe"))
            image, niqe = (torch.from_numpy(x.astype(np.float32)) for x in found)
        return image, niqe


def write_rank_set(
    path: Path, image: np.ndarray, niqe: np.ndarray, row: np.ndarray, names: Sequence[str], origin: dict[str, Any]
) -> None:
    """Write a rank set, whole or not at all.

    Args:
        path: the HDF5 file.
        image: (N, K, h, w) [units of the LR peak].
        niqe: (N, K), without unit, lower is better.
        row: which image of the data each patch is of, (N,).
        names: of the K networks.
        origin: `provenance.provenance` of what made it.
    """
    with whole_file(path) as temporary, new_file(temporary) as file, reserved(file, 2 * image.nbytes):
        for name, array in (("image", image.astype(np.float32)), ("niqe", niqe), ("row", row)):
            new_dataset(file, name, array.shape, array.dtype)[:] = array
        file.attrs.update(
            format=RANK_SET,
            names=list(names),
            identity=hashlib.sha256(image.tobytes() + niqe.tobytes()).hexdigest(),
            provenance=json.dumps(origin),
        )
        sign(file)
