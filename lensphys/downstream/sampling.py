"""Which lenses teach a reader and which judge it: by lens and by source, classes alike in what must not matter."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold

from lensphys.basics.checks import LensphysError
from lensphys.data.lens_file import LensFile
from lensphys.model.by_name import deflection_of
from lensphys.simulation.scene import substructure_of

Rows = NDArray[np.int64]

_FAR = 1e4  # arcsec, a circle that holds every halo


@dataclass(frozen=True)
class Target:
    """What is to be told of each lens.

    Args:
        values: index of the class, (N,), or a number, (N,); -1 or NaN where there is none.
        classes: names of the classes; empty for numbers.
    """

    values: NDArray[Any]
    classes: tuple[str, ...] = ()

    @property
    def known(self) -> Rows:
        """The lenses that have one."""
        return np.flatnonzero(self.values >= 0 if self.classes else np.isfinite(self.values))


def classes_of(file: LensFile, like: tuple[str, ...] | None = None) -> Target:
    """Return the classes of the lenses of a file.

    Args:
        file: with labels.
        like: names of the classes of a training: labels are brought into their order.

    Raises:
        LensphysError: if the file has no labels, lenses of fewer than two classes, or other classes.
    """
    if not file.has("label"):
        raise LensphysError(
            f"{file.path} has no labels (/label): a classifier is trained and judged on labelled lenses"
        )
    labels, names = file.labels, file.classes
    there = [name for k, name in enumerate(names) if (labels == k).any()]
    if len(there) < 2:
        raise LensphysError(
            f"{file.path} holds lenses of one class alone ({', '.join(there)}): there is nothing to tell apart"
        )
    wanted = tuple(there) if like is None else like
    if set(there) != set(wanted):
        raise LensphysError(
            f"{file.path} has the classes {', '.join(there)} and the training {', '.join(wanted)}: use files with the "
            "same classes"
        )
    order = np.array([wanted.index(name) if name in wanted else -1 for name in names])
    return Target(order[labels], wanted)


def number_of(file: LensFile, name: str) -> Target:
    """Return a number of each lens of a simulated file: see `NUMBERS`.

    Raises:
        LensphysError: if the file does not tell it of any lens.
    """
    values = NUMBERS[name](file)
    if not np.isfinite(values).any():
        raise LensphysError(f"{file.path} tells no {name} of any lens: only files of 'lensphys simulate' have it")
    return Target(values)


def _log_axion_mass(file: LensFile) -> NDArray[np.float64]:
    if not file.has("axion_mass"):
        return np.full(len(file), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log10(file.read("axion_mass").astype(np.float64))


def _theta_E(file: LensFile) -> NDArray[np.float64]:
    return file.read("theta_E").astype(np.float64) if file.has("theta_E") else np.full(len(file), np.nan)


def _subhalo_fraction(file: LensFile) -> NDArray[np.float64]:
    """Mass of all that is no smooth mass over that of the main lens within its Einstein radius."""
    return np.array([_fraction(model) for model in _models(file)])


def _fraction(model: Mapping[str, Any] | None) -> float:
    if model is None:
        return float("nan")
    angle = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
    outward = torch.stack([angle.cos(), angle.sin()])[None, :, None]
    alpha = deflection_of([substructure_of(model)], _FAR * outward, compiled=False)
    enclosed = float((alpha * outward).sum(1).mean()) * _FAR  # Einstein radius of all of it, squared
    return enclosed / model["kwargs_lens"][0]["theta_E"] ** 2


NUMBERS = {"log_axion_mass": _log_axion_mass, "theta_E": _theta_E, "subhalo_fraction": _subhalo_fraction}


def _models(file: LensFile) -> list[dict[str, Any] | None]:
    if not file.has("lens_model"):
        return [None] * len(file)
    return list(file.lens_models())


def groups_of(file: LensFile) -> list[str]:
    """Return a name of each lens that those share which are not independent: of a galaxy, or of a source and its lens.

    Lenses of the same image of a galaxy belong together, and those simulated alike in several classes (`--matched`).
    Where a file does not tell, each lens stands for itself.
    """
    found = []
    for i, model in enumerate(_models(file)):
        sources = [] if model is None else model["kwargs_source"]
        drawn = [(s["file"], s["index"]) for s in sources if "file" in s and "index" in s]
        alike = drawn or (sources and [sources, model["kwargs_lens"][0]])  # type: ignore[index]
        found.append(json.dumps(alike, sort_keys=True) if alike else f"{file.identity} {i}")
    return found


def matched_rows(
    labels: NDArray[Any], nuisances: Mapping[str, NDArray[np.float64]], caliper: float, *, fewest: int = 10
) -> Rows:
    """Return lenses of which each has one like it in every class, in ascending order.

    Alike are lenses whose nuisances, taken together, are near by the scatter within the classes (Mahalanobis distance).
    As many of the rarest class as can be are paired with one of each other class within the caliper, at the least
    total distance; the others are left out.

    Args:
        labels: classes (N,).
        nuisances: by their names, (N,) each.
        caliper: largest distance of two lenses that count as alike, in standard deviations within a class.
        fewest: lenses of a class that can be matched.

    Raises:
        LensphysError: if a class has fewer, or less than a twentieth of the rarest class, or than two of it, is left.

    Source: Rubin 1980 (Biometrics 36, 293). Odds by a logistic regression in place of the distance (Rosenbaum & Rubin
    1983) leave more lenses, but where the classes lie on thin sheets, as in Models 1-3, a leak of them, too.
    """
    members = [np.flatnonzero(labels == k) for k in np.unique(labels)]
    first, *others = sorted(members, key=len)
    if len(first) < fewest:
        raise LensphysError(f"classes are matched among {fewest} lenses of each or more, and one has {len(first)}")
    numbers = np.stack(list(nuisances.values()), axis=1)
    within = sum(np.atleast_2d(np.cov(numbers[part].T)) for part in members) / len(members)
    kept, sets = np.ones(len(first), dtype=bool), [first]
    for other in others:
        distance = cdist(numbers[first], numbers[other], "mahalanobis", VI=np.linalg.pinv(within))
        near, partner = linear_sum_assignment(np.where(distance <= caliper, distance, len(labels) * caliper))
        kept &= distance[near, partner] <= caliper
        sets.append(other[partner])
    if kept.sum() < max(2, len(first) // 20):
        raise LensphysError(
            f"of {len(first)} lenses of the rarest class {int(kept.sum())} have a match in the others: widen the "
            "caliper of 'matched', or draw the classes alike"
        )
    return np.sort(np.concatenate([part[kept] for part in sets]))


def drawn(target: Target, pool: Rows, budget: int, seed: int) -> Rows:
    """Return the lenses whose labels a reader gets: ``budget`` of each class, or in all for a number.

    Raises:
        LensphysError: if the pool has fewer.
    """
    random = np.random.default_rng([seed, budget])
    values = target.values[pool]
    sets = [pool[values == k] for k in range(len(target.classes))] if target.classes else [pool]
    names = target.classes or ("all",)
    for name, members in zip(names, sets, strict=True):
        if len(members) < budget:
            raise LensphysError(
                f"a budget of {budget} labels needs as many training lenses, and of {name} there are {len(members)}: "
                "simulate more (data.n), or take the budget away"
            )
    return np.sort(np.concatenate([random.permutation(members)[:budget] for members in sets]))


def held_out(target: Target, rows: Rows, groups: list[str], share: float, seed: int) -> tuple[Rows, Rows]:
    """Return the labelled lenses in two parts that share no source: to learn from, and to choose and calibrate by.

    Args:
        target: of all lenses.
        rows: that are labelled.
        groups: of all lenses.
        share: of the second part.
        seed: of the split.
    """
    own = [groups[i] for i in rows]
    if target.classes:
        splits = StratifiedGroupKFold(max(2, round(1 / share)), shuffle=True, random_state=seed)
        learn, judge = next(splits.split(rows, target.values[rows], own))
    else:
        learn, judge = next(GroupShuffleSplit(1, test_size=share, random_state=seed).split(rows, groups=own))
    return rows[learn], rows[judge]
