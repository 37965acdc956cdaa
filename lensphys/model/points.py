"""Positions of any shape, arrays or tensors, for formulas that take images of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.basics.constants import in_transform

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

        Quantities of astropy are turned into arcsec.

        Raises:
            LensphysError: if they are no real numbers or no angles, do not broadcast, or some of them are masked.

        Example:
            >>> Points.from_xy([0.0, 1.0], 2.0).position.shape
            torch.Size([1, 2, 1, 2])
        """
        x, y = _in_arcsec(x), _in_arcsec(y)
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
        """Return values at the points, (B, 1, M), as the points were given; (B, ...) for those of B > 1 lenses.

        As a tensor too where a gradient by the parameters of the lens would be lost else.
        """
        lenses = () if len(values) == 1 else (len(values),)
        shaped = values.reshape((*lenses, *self.shape))
        if not self.arrays or values.requires_grad or in_transform():
            return shaped
        return shaped.cpu().numpy()[()]  # of one number a number


def _told(value: Any) -> str:
    shape = () if isinstance(value, str) else tuple(np.shape(value))
    return f"an array of shape {shape}" if shape else repr(value)


def _in_arcsec(value: Any) -> Any:
    """A quantity, or a column of a table with a unit, as numbers in arcsec; what has no unit as it is."""
    if masked := np.count_nonzero(np.ma.getmask(value)):
        raise LensphysError(f"positions: {masked} of {np.size(value)} are masked: give the others, x[~x.mask]")
    if getattr(value, "unit", None) is None:
        return value
    from astropy import units

    try:
        return units.Quantity(value).to_value(units.arcsec)
    except (TypeError, ValueError):  # UnitConversionError is both
        raise LensphysError(f"positions are angles: got the unit '{value.unit}', give them in arcsec") from None


def _of_arrays(x: Any, y: Any) -> list[Tensor]:
    plain = [v if isinstance(v, int | float) else np.asarray(v) for v in (x, y)]
    kind = np.result_type(np.result_type(*plain), np.float32)  # float16 has no complex partner
    if kind.kind != "f":
        raise TypeError
    return [torch.from_numpy(np.array(v, dtype=kind)) for v in plain]


def _of_tensors(x: Any, y: Any) -> list[Tensor]:
    like = x if isinstance(x, Tensor) else y
    pair = [torch.as_tensor(v, device=like.device) for v in (x, y)]
    given = [v.dtype for v in (x, y) if isinstance(v, Tensor)]
    kind = torch.promote_types(given[0], given[-1])
    if any(v.is_complex() for v in pair):
        raise TypeError
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
