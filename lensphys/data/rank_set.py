"""Rank sets: the same patches super-resolved by several networks, and how natural each looks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import torch
from torch import Tensor

from lensphys.checks import LensphysError, check_file
from lensphys.data.lens_file import RANK_SET
from lensphys.outputs import whole_file


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
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            raise LensphysError(f"{self.path} is not a whole HDF5 file ({error}): make it again") from None
        if self._file.attrs.get("format") != RANK_SET:
            self._file.close()
            raise LensphysError(f"{self.path} is no rank set: make one with 'lensphys rank-set'")
        if "row" not in self._file:
            self._file.close()
            raise LensphysError(f"{self.path} is a rank set of an earlier version: make it again")

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
        return dict(json.loads(self._file.attrs["provenance"]))

    @property
    def row(self) -> Tensor:
        """Which image of the data each patch is of, (N,)."""
        return torch.from_numpy(self._file["row"][:])

    def read(self, index: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the images (n, K, h, w) [units of the LR peak] and their NIQE (n, K), lower is better."""
        rows, back = np.unique(np.asarray(index), return_inverse=True)
        found = (self._file[name][rows][back] for name in ("image", "niqe"))
        image, niqe = (torch.from_numpy(x.astype(np.float32)) for x in found)
        return image, niqe


def write_rank_set(
    path: Path, image: np.ndarray, niqe: np.ndarray, row: np.ndarray, names: Sequence[str], origin: dict[str, Any]
) -> None:
    """Write a rank set, whole or not at all.

    Args:
        path: the HDF5 file.
        image: (N, K, h, w) [units of the LR peak].
        niqe: (N, K).
        row: which image of the data each patch is of, (N,).
        names: of the K networks.
        origin: `provenance.provenance` of what made it.
    """
    with whole_file(path) as temporary, h5py.File(temporary, "w") as file:
        file["image"], file["niqe"], file["row"] = image.astype(np.float32), niqe, row
        file.attrs.update(
            format=RANK_SET,
            names=list(names),
            identity=hashlib.sha256(image.tobytes() + niqe.tobytes()).hexdigest(),
            provenance=json.dumps(origin),
        )
