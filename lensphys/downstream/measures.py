"""How well a reader tells: ROC and AUC of each class, accuracy, confusion and calibration; errors of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from scipy.stats import rankdata
from scipy.stats import t as student
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, r2_score, roc_auc_score, roc_curve

from lensphys.basics.settings import Strict
from lensphys.evaluation.statistics import Bootstrap

Array = NDArray[Any]
Measured = dict[str, Any]

_POINTS = 101  # of a stored ROC curve


class Judgement(Strict):
    """How readers and scores are measured.

    Args:
        bins: of a reliability diagram, and of the calibration error.
        completeness: at which the false alarms of a score are stated, 0 to 1.
        bootstrap: of the AUC of a score.
    """

    bins: PositiveInt = 10
    completeness: Annotated[float, Field(gt=0, lt=1)] = 0.9
    bootstrap: Bootstrap = Bootstrap(resamples=500)


def of_classes(
    probability: Array, label: Array, classes: Sequence[str], judgement: Judgement = Judgement()
) -> Measured:
    """Return what probabilities (N, K) are worth, given the true classes (N,).

    ``auc`` one class against the rest, by name, and its mean as ``all``; ``auc_if_right``, the same by `auc_if_right`;
    ``accuracy``; ``log_loss``; ``confusion`` (true, predicted) in shares of the true class; ``ece``, the expected
    calibration error of the likeliest class; ``reliability``, pairs of stated and true probability; ``roc``,
    completeness at evenly spaced false alarms.
    """
    auc = {name: float(roc_auc_score(label == k, probability[:, k])) for k, name in enumerate(classes)}
    sure, right = probability.max(1), probability.argmax(1) == label
    every = list(range(len(classes)))
    return {
        "auc": auc | {"all": float(np.mean(list(auc.values())))},
        "auc_if_right": auc_if_right(probability, label, classes),
        "accuracy": float(accuracy_score(label, probability.argmax(1))),
        "log_loss": float(log_loss(label, probability, labels=every)),
        "confusion": confusion_matrix(label, probability.argmax(1), labels=every, normalize="true").tolist(),
        "ece": expected_calibration_error(sure, right, judgement.bins),
        "reliability": _reliability(sure, right, judgement.bins),
        "roc": {name: roc_points(label == k, probability[:, k]) for k, name in enumerate(classes)},
    }


def auc_if_right(probability: Array, label: Array, classes: Sequence[str]) -> dict[str, float]:
    """Return the AUC of each class where a lens of it counts only if it was told right, as S1 published them.

    Of probabilities (N, K) and true classes (N,). It says little: a reader of three classes that answers by chance
    reaches about 0.83, not 0.5.

    A class of which no lens was told right, or all others are missing, has none; ``all``, the mean, stands there where
    each has one.

    Source: S1's downstream check counts so.
    """
    right, found = probability.argmax(1) == label, {}
    for k, name in enumerate(classes):
        counts = right | (label != k)
        if 0 < (label[counts] == k).sum() < counts.sum():
            found[name] = float(roc_auc_score(label[counts] == k, probability[counts, k]))
    return found | ({"all": float(np.mean(list(found.values())))} if len(found) == len(classes) else {})


def of_numbers(predicted: Array, true: Array) -> Measured:
    """Return the errors of predicted numbers (N,): ``mse``, ``mae``, ``r2`` and ``bias``."""
    error = predicted - true
    return {
        "mse": float((error**2).mean()),
        "mae": float(np.abs(error).mean()),
        "r2": float(r2_score(true, predicted)),
        "bias": float(error.mean()),
    }


def expected_calibration_error(sure: Array, right: Array, bins: int = 10) -> float:
    """Return the mean gap between stated probability (N,) and share that is right, over bins, by their lenses.

    Source: Guo et al. 2017, arXiv:1706.04599.
    """
    share, stated = calibration_curve(right, sure, n_bins=bins)
    edges = np.linspace(0, 1, bins + 1)
    counts = np.bincount(np.searchsorted(edges[1:-1], sure), minlength=bins)
    return float((np.abs(share - stated) * counts[counts > 0]).sum() / len(sure))


def _reliability(sure: Array, right: Array, bins: int) -> list[list[float]]:
    share, stated = calibration_curve(right, sure, n_bins=bins)
    return np.stack([stated, share], axis=1).tolist()


def roc_points(is_it: Array, score: Array) -> list[float]:
    """Return the completeness, 0 to 1, at `_POINTS` evenly spaced shares of false alarms; labels and scores (N,)."""
    false_alarms, completeness, _ = roc_curve(is_it, score)
    return np.interp(np.linspace(0, 1, _POINTS), false_alarms, completeness).tolist()


def _fast_auc(is_it: Array, score: Array) -> float:
    """AUC by the ranks, ties by their mean: what a bootstrap can afford."""
    ones = int(is_it.sum())
    return float((rankdata(score)[is_it].sum() - ones * (ones + 1) / 2) / (ones * (len(score) - ones)))


def of_score(is_it: Array, score: Array, seed: int = 0, judgement: Judgement = Judgement()) -> Measured:
    """Return what a score (N,) without training is worth: ``auc`` with its bootstrap interval, and false alarms.

    ``false_alarms``: share of the others above the score that ``completeness`` of the true ones, 90 %, reach. What has
    no score (NaN) counts as the lowest.
    """
    score = np.where(np.isfinite(score), score, np.nanmin(score) - 1 if np.isfinite(score).any() else 0.0)
    random, aucs = np.random.default_rng(seed), []
    for _ in range(judgement.bootstrap.resamples):
        rows = random.integers(len(score), size=len(score))
        if 0 < is_it[rows].sum() < len(rows):
            aucs.append(_fast_auc(is_it[rows], score[rows]))
    low, high = judgement.bootstrap.interval(aucs)
    threshold = np.quantile(score[is_it], 1 - judgement.completeness, method="lower")
    return {
        "auc": float(roc_auc_score(is_it, score)),
        "low": low,
        "high": high,
        "false_alarms": float((score[~is_it] >= threshold).mean()),
        "n": [int(is_it.sum()), int((~is_it).sum())],
        "roc": roc_points(is_it, score),
    }


def over_seeds(values: Iterable[float], low: float = -np.inf, high: float = np.inf) -> dict[str, float | int | None]:
    """Return the mean over seeds and its 95 % interval by Student's t; no interval of a single one.

    Args:
        values: one a seed.
        low: where the interval ends, for the measure cannot be less: 0 of a loss or a share.
        high: likewise: 1 of a share.

    Example:
        >>> over_seeds([0.5, 0.5])
        {'mean': 0.5, 'low': 0.5, 'high': 0.5, 'n': 2}
    """
    x = np.array(list(values), dtype=np.float64)
    mean = float(x.mean())
    if len(x) < 2:
        return {"mean": mean, "low": None, "high": None, "n": len(x)}
    half = float(student.ppf(0.975, len(x) - 1) * x.std(ddof=1) / len(x) ** 0.5)
    return {"mean": mean, "low": max(low, mean - half), "high": min(high, mean + half), "n": len(x)}
