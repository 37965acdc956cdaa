"""Pixels that nobody observed: borders, corners and patches that were filled with one value, zero for most."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from lensphys.basics.checks import check_images
from lensphys.basics.settings import Strict

_Pixels = NDArray[np.floating]
_Chosen = NDArray[np.bool_]
_Counts = NDArray[np.integer]


class Fills(Strict):
    """What tells pixels that were filled with a value from such that were observed.

    Args:
        fewest: neighbouring pixels of exactly one value, which noise does not make.
        values: that a filled image has at most; more of them that are that frequent are counts.
        repeated: share of distinct values below which an image counts as one of counts, which repeat themselves.
        piled: times as many pixels at the largest value as at any of those next to it: saturation, not counts.
        next_to_it: how many values are next to it.
        chance: of lines of one value among counts, below which they were filled.
    """

    fewest: PositiveInt = 4
    values: PositiveInt = 32
    repeated: PositiveFloat = 0.5
    piled: PositiveFloat = 5.0
    next_to_it: PositiveInt = 10
    chance: PositiveFloat = 1e-6


def filled_border(image: Tensor, fills: Fills = Fills()) -> Tensor:
    """Return which pixels belong to a border that was filled with one value, (B, 1, H, W) bool.

    Where values do not repeat, that is every patch of one value that touches the edge, whatever its shape (a turned
    cut-out has empty corners). In counts such patches come about by themselves: there whole rows and columns tell, if
    they have one value more often than chance allows.

    Args:
        image: (B, 1, H, W) [any unit]; NaN belongs to no border.
        fills: what counts as filled.

    Raises:
        LensphysError: if the shape is another one.

    Example:
        >>> image = torch.rand(1, 1, 8, 9)
        >>> image[..., :2] = 0
        >>> filled_border(image)[0, 0, 0].tolist()
        [True, True, False, False, False, False, False, False, False]
    """
    return _in_each(image, lambda one: _of_one(one, fills))


def filled_patches(image: Tensor, fills: Fills = Fills()) -> Tensor:
    """Return which pixels belong to patches of one value, wherever they are, (B, 1, H, W) bool.

    Gaps between chips, saturated cores, holes that were filled with zeros. Noise does not give neighbours one value; in
    images of counts, whose values repeat, only those of the largest one are found, if it is far more frequent than the
    values next to it, the detector's end; and those of a value that is far from all others.

    Args:
        image: (B, 1, H, W) [any unit]; NaN belongs to no patch.
        fills: what counts as filled.

    Raises:
        LensphysError: if the shape is another one.

    Example:
        >>> image = torch.rand(1, 1, 8, 9)
        >>> image[..., 2:4, 2:4] = 0
        >>> int(filled_patches(image).sum())
        4
    """
    return _in_each(image, lambda one: _inside_one(one, fills))


def _in_each(image: Tensor, chosen: Callable[[_Pixels], _Chosen]) -> Tensor:
    """The pixels that are chosen in each image (H, W), (B, 1, H, W) bool."""
    check_images("image", image)
    return torch.from_numpy(np.stack([chosen(x) for x in image[:, 0].cpu().numpy()]))[:, None].to(image.device)


def _inside_one(image: _Pixels, fills: Fills) -> _Chosen:
    from scipy.ndimage import label

    found = np.zeros(image.shape, bool)
    values, count = np.unique(image[np.isfinite(image)], return_counts=True)
    filled = values[count >= fills.fewest]
    end = _end(values, count, fills)
    if len(filled) > fills.values:
        filled = end
    for value in filled:
        patch, _ = label(image == value)
        if (np.bincount(patch.ravel())[1:] >= fills.fewest).any():  # then single pixels were filled with it too
            found |= image == value
    return found & np.isin(image, end) if _repeats(image[~found], fills) else found


def _end(values: _Pixels, count: _Counts, fills: Fills) -> _Pixels:
    """Those of some values, in rising order, where a detector ends or what was filled in, not what was counted.

    The largest if far more pixels have it than those next to it; and either end if it lies farther from the others than
    they from each other (-32768 for a lost pixel). How many have the smallest tells nothing: counts are often cut off
    at zero.
    """
    if len(values) < 3:
        return values[:0]
    near = count[::-1][: fills.next_to_it + 1]
    low = values[1] - values[0] > values[-1] - values[1]
    high = values[-1] - values[-2] > values[-2] - values[0] or near[0] >= fills.piled * near[1:].max()
    return values[[end for end, found in ((0, low), (-1, high)) if found]]


def _repeats(values: _Pixels, fills: Fills) -> bool:
    """Whether values are counts, which repeat themselves."""
    values = values[np.isfinite(values)]
    return len(np.unique(values)) < fills.repeated * values.size


def _of_one(image: _Pixels, fills: Fills) -> _Chosen:
    patches = _patches(image, fills)
    return _lines(image, fills) & np.isfinite(image) if _repeats(image[~patches], fills) else patches


def _patches(image: _Pixels, fills: Fills) -> _Chosen:
    """Patches of one value that touch the edge."""
    rim = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    values, count = np.unique(rim, return_counts=True)
    return np.any([np.zeros(image.shape, bool), *(_at_the_edge(image == v, fills) for v in values[count > 1])], axis=0)


def _at_the_edge(chosen: _Chosen, fills: Fills) -> _Chosen:
    from scipy.ndimage import label

    patch, _ = label(chosen)
    edge = np.concatenate([patch[0], patch[-1], patch[:, 0], patch[:, -1]])
    large = np.flatnonzero(np.bincount(patch.ravel()) >= fills.fewest)
    return np.isin(patch, np.intersect1d(large, edge[edge > 0]))


def _lines(image: _Pixels, fills: Fills) -> _Chosen:
    """Whole rows and columns of one value, from each side inwards, where the other pixels have it too seldom."""
    sides = [np.zeros(image.shape, bool) for _ in range(4)]
    for turns, side in enumerate(sides):
        np.rot90(side, turns)[: _rows_of_one_value(np.rot90(image, turns))] = True  # a view
    rest = image[~np.any(sides, axis=0)]
    filled = [side for side in sides if _beyond_chance(image[side], rest, fills)]
    return np.any([np.zeros(image.shape, bool), *filled], axis=0)


def _rows_of_one_value(image: _Pixels) -> int:
    known = np.isfinite(image)
    one = ((image == image[known][:1]) | ~known).all(1) if known.any() else np.zeros(len(image), bool)
    return len(one) if one.all() else int(one.argmin())


def _beyond_chance(line: _Pixels, rest: _Pixels, fills: Fills) -> bool:
    line, rest = line[np.isfinite(line)], rest[np.isfinite(rest)]
    share = (rest == line[0]).mean() if line.size and rest.size else 0.0
    return bool(line.size and share**line.size < fills.chance)
