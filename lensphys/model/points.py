"""Positions of any shape, arrays or tensors, for formulas that take images of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lensphys.basics.checks import LensphysError

Values = Any  # what comes back: an array where arrays or numbers were given, a tensor where a tensor was


@dataclass(frozen=True)
class Points:
    """Positions in a plane, and the form in which they were given.

    Args:
        position: (1, 2, 1, M) [arcsec].
        shape: of what was given, with M values.
        arrays: whether arrays or numbers were given, and not tensors.
    """

    position: Tensor
    shape: tuple[int, ...]
    arrays: bool

    @classmethod
    def from_xy(cls, x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> Points:
        """Return the points of coordinates that broadcast [arcsec]; whole numbers count as float64.

        Raises:
            LensphysError: if they are no numbers, or do not broadcast.

        Example:
            >>> Points.from_xy([0.0, 1.0], 2.0).position.shape
            torch.Size([1, 2, 1, 2])
        """
        arrays = not (isinstance(x, Tensor) or isinstance(y, Tensor))
        try:
            pair = _of_arrays(x, y) if arrays else _of_tensors(x, y)
            both = torch.stack(torch.broadcast_tensors(*pair))
        except (TypeError, ValueError, RuntimeError):
            raise LensphysError(
                f"positions are two numbers or arrays of one shape [arcsec], got {_told(x)} and {_told(y)}"
            ) from None
        return cls(both.reshape(1, 2, 1, -1), tuple(both.shape[1:]), arrays)

    def shaped(self, values: Tensor) -> Values:
        """Return values at the points, (B, 1, M), as the points were given; (B, ...) for those of B > 1 lenses."""
        lenses = () if len(values) == 1 else (len(values),)
        shaped = values.reshape((*lenses, *self.shape))
        return shaped.detach().cpu().numpy()[()] if self.arrays else shaped  # of one number a number


def _told(value: Any) -> str:
    shape = () if isinstance(value, str) else tuple(np.shape(value))
    return f"an array of shape {shape}" if shape else repr(value)


def _of_arrays(x: Any, y: Any) -> list[Tensor]:
    plain = [v if isinstance(v, int | float) else np.asarray(v) for v in (x, y)]
    kind = np.result_type(np.result_type(*plain), np.float32)  # float16 has no complex partner
    return [torch.from_numpy(np.array(v, dtype=kind)) for v in plain]


def _of_tensors(x: Any, y: Any) -> list[Tensor]:
    like = x if isinstance(x, Tensor) else y
    pair = [torch.as_tensor(v, device=like.device) for v in (x, y)]
    given = [v.dtype for v in (x, y) if isinstance(v, Tensor)]
    kind = torch.promote_types(given[0], given[-1])
    return [v.to(kind if kind.is_floating_point else torch.get_default_dtype()) for v in pair]


def quadrature(step: float = 0.08, reach: float = 3.2) -> list[tuple[float, float]]:
    """Return nodes and weights of the tanh-sinh rule on 0 to 1, which bears singular ends and all scales near 0.

    Source: Takahasi & Mori 1974 (Publ. RIMS 9, 721).
    """
    u = np.arange(-reach, reach + step / 2, step)
    inner = 0.5 * np.pi * np.sinh(u)
    nodes = 1 / (1 + np.exp(-2 * inner))
    weights = step * 0.25 * np.pi * np.cosh(u) / np.cosh(inner) ** 2
    return list(zip(nodes.tolist(), (weights / weights.sum()).tolist(), strict=True))
