"""Which images of a file a command looks at."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lensphys.basics.checks import LensphysError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PART = re.compile(r"(\d+)|(\d*):(\d*)")


def rows_of(text: str, count: int) -> NDArray[Any]:
    """Return the images that ``--rows`` asks for, in rising order, each once.

    Args:
        text: numbers and ranges, as Python counts them, with commas between.
        count: how many images there are.

    Raises:
        LensphysError: if the text is no such thing, or there is no such image.

    Example:
        >>> rows_of("7,0:3", 10).tolist()
        [0, 1, 2, 7]
    """
    import numpy as np

    rows = np.unique(np.concatenate([_rows_of_part(part.strip(), text, count) for part in text.split(",")]))
    if len(rows) == 0 or rows[-1] >= count:
        there = f"there are {count} images, 0 to {count - 1}" if count > 1 else "there is one image, 0"
        raise LensphysError(f"--rows {text}: {there}")
    return rows


def _rows_of_part(part: str, text: str, count: int) -> NDArray[Any]:
    import numpy as np

    found = _PART.fullmatch(part)
    if found is None:
        raise LensphysError(f"--rows {text}: {part!r} is neither a number nor a range, such as 5 or 100:200")
    if found[1] is not None:
        return np.array([int(found[1])])
    return np.arange(int(found[2] or 0), int(found[3] or count))
