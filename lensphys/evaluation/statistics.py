"""Mean, scatter and bootstrap interval of a metric."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from lensphys.basics.settings import Strict


class Bootstrap(Strict):
    """Intervals by drawing the images anew.

    Args:
        resamples: how often.
        confidence: share of the resamples that the interval holds.
    """

    resamples: PositiveInt = 1000
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95

    def interval(self, values: Sequence[float] | NDArray[np.floating]) -> tuple[float, float]:
        """Return the middle part of what the resamples gave, (resamples,)."""
        low, high = np.quantile(values, [0.5 - self.confidence / 2, 0.5 + self.confidence / 2])
        return float(low), float(high)


def summary(
    values: Iterable[float | None], seed: int = 0, bootstrap: Bootstrap = Bootstrap()
) -> dict[str, float | int | None]:
    """Return ``mean``, ``std``, the interval ``low``..``high`` of the mean, ``n`` and how many were ``missing``.

    The interval is the percentile bootstrap of the mean, of 95 % if not said otherwise. None, NaN and infinite values
    (a metric that a method does not have, a fit that diverged, the PSNR of equal images) are left out of all but
    ``missing``.

    Args:
        values: one number an image.
        seed: of the bootstrap.
        bootstrap: how the interval is found.

    Example:
        >>> summary([1.0, 1.0, None])
        {'mean': 1.0, 'std': 0.0, 'low': 1.0, 'high': 1.0, 'n': 2, 'missing': 1}
    """
    everything = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    x = everything[np.isfinite(everything)]
    counts: dict[str, float | int | None] = {"n": len(x), "missing": len(everything) - len(x)}
    if len(x) == 0:
        return {"mean": None, "std": None, "low": None, "high": None, **counts}
    random = np.random.default_rng(seed)
    means = x[random.integers(len(x), size=(bootstrap.resamples, len(x)))].mean(axis=1)
    low, high = bootstrap.interval(means)
    std = float(x.std(ddof=1)) if len(x) > 1 else 0.0
    return {"mean": float(x.mean()), "std": std, "low": low, "high": high, **counts}
