"""The scatter of values of which a few are not noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

GAUSSIAN = 1.4826  # standard deviations of a Gaussian in the median of its absolute values


def scatter(values: ArrayLike, axis: tuple[int, ...] | None = None) -> NDArray[Any]:
    """Return the standard deviation about zero of Gaussian values with the same median absolute value.

    Outliers, which are light more often than noise, do not count.

    Args:
        values: of any shape and unit; NaN are left out.
        axis: over which; they stay, with the length 1. None for all of them, ().
    """
    return GAUSSIAN * np.nanmedian(np.abs(values), axis, keepdims=axis is not None)
