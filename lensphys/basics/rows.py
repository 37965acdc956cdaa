"""What belongs to a batch of images and is chosen image by image with it."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Self

from torch import Tensor

from lensphys.basics.equal import ByValue


class Rows(ByValue):
    """A frozen dataclass whose tensors, and parts that are `Rows`, have one entry for each image of a batch."""

    def rows(self, index: Tensor) -> Self:
        """Return it for some images, by their indices (n,)."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return replace(self, **{name: chosen_rows(part, index) for name, part in parts.items()})  # type: ignore[type-var]


def chosen_rows(part: Any, index: Tensor) -> Any:
    """Return what some images, by their indices (n,), have of a part of a batch; what has no rows is of all images."""
    if isinstance(part, Tensor):
        return part[index]
    return part.rows(index) if isinstance(part, Rows) else part
