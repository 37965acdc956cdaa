"""Images of a data set from which nothing can be learned: each is named, none spoils those beside it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.data.lens_file import LensFile
from lensphys.observation import Observation
from lensphys.observation.darkness import shows_light

_ROWS = 256  # images at a time

Rows = NDArray[np.int64]


def unusable(file: LensFile, index: Rows, *needed: str) -> dict[int, str]:
    """Return why some images of a file cannot be used, by their index; memory is bounded, whatever their number.

    Args:
        file: the data set.
        index: of the images.
        needed: images of the truth that must be finite and positive somewhere, ``hr`` say.

    Raises:
        LensphysError: if the file is damaged.
    """
    found: dict[int, str] = {}
    for start in range(0, len(index), _ROWS):
        rows = index[start : start + _ROWS]
        for name in needed:
            found |= _of_truth(name, rows, file.read(name, rows).reshape(len(rows), -1))
        found |= of_pixels(rows, file.lr(rows))
        found |= of_light(file, rows[[i not in found for i in rows.tolist()]])
    return dict(sorted(found.items()))


def _of_truth(name: str, index: Rows, flat: NDArray[np.floating]) -> dict[int, str]:
    finite, positive = np.isfinite(flat).all(1), (flat > 0).any(1)
    dark = {int(i): f"has no light in /{name}" for i in index[~positive]}
    return dark | {int(i): f"has NaN or infinite pixels in /{name}" for i in index[~finite]}


def of_pixels(index: Rows, image: Tensor) -> dict[int, str]:
    """Return which of some images (n, 1, H, W) are not finite or have one value everywhere."""
    flat = image.flatten(1)
    finite, constant = flat.isfinite().all(1), flat.amin(1) == flat.amax(1)
    broken = {int(i): "has NaN or infinite pixels" for i in index[~finite.numpy()]}
    levels = zip(index[constant.numpy()], flat[constant, 0].tolist(), strict=True)
    return broken | {int(i): f"is {level:.3g} everywhere" for i, level in levels}


def of_light(file: LensFile, index: Rows) -> dict[int, str]:
    """Return which of some images, all finite, show no light, or have a noise that cannot be estimated."""
    found: dict[int, str] = {}
    for rows, observation in observations(file, index):
        if observation is None:
            found[int(rows[0])] = "has no noise that could be estimated (most of its faint pixels are equal)"
        else:
            dark = rows[~shows_light(observation).numpy()]
            found |= {int(i): "shows no light (nothing stands 5 sigma out of its noise)" for i in dark}
    return found


def observations(file: LensFile, index: Rows) -> Iterator[tuple[Rows, Observation | None]]:
    """Yield observations with their rows: all at once, or one by one, None where the noise cannot be estimated."""
    if len(index) == 0:
        return
    try:
        yield index, file.observation(index)
        return
    except LensphysError:
        pass
    for row in index[:, None]:
        try:
            yield row, file.observation(row)
        except LensphysError:
            yield row, None
