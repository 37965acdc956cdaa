"""Mean, scatter and bootstrap interval of a metric."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

_RESAMPLES = 1000
_CONFIDENCE = 0.95


def summary(values: Iterable[float | None], seed: int = 0) -> dict[str, float | int | None]:
    """Return ``mean``, ``std``, the interval ``low``..``high`` of the mean, ``n`` and how many were ``missing``.

    The interval is the 95 % percentile bootstrap of the mean. None, NaN and infinite values (a metric that a method
    does not have, a fit that diverged, the PSNR of equal images) are left out of all but ``missing``.

    Args:
        values: one number an image.
        seed: of the bootstrap.

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
    means = x[random.integers(len(x), size=(_RESAMPLES, len(x)))].mean(axis=1)
    low, high = np.quantile(means, [0.5 - _CONFIDENCE / 2, 0.5 + _CONFIDENCE / 2])
    std = float(x.std(ddof=1)) if len(x) > 1 else 0.0
    return {"mean": float(x.mean()), "std": std, "low": float(low), "high": float(high), **counts}
