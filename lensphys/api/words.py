"""Messages for people who write Python: options of the command line under the names of the arguments."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from lensphys.basics.checks import LensphysError
from lensphys.basics.constants import normal_tensors

_OPTION = re.compile(r"--([a-z][a-z-]*[a-z])")
_COUNT = re.compile(r"(?<![\w-])-n\b")
# what has another name in Python, and what is for the command line alone
_OTHERWISE = {"error": "noise", "deflection": "'lensphys simulate --deflection'"}
_ROWS = "give --rows :"  # `lensphys.read` reads all images of an array


class Note(UserWarning):
    """What was used, masked, assumed or estimated while reading: a warning, for it may not be what you meant.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore", Note)  # to read a file without a word
    """


def as_arguments(message: str, **otherwise: str) -> str:
    """Return a message with ``--pixel-scale`` as ``pixel_scale``.

    Args:
        message: of a room that the command line has, too.
        otherwise: the arguments of options that a function calls by another name.

    Example:
        >>> as_arguments("give --pixel-scale in arcsec, or --error")
        'give pixel_scale in arcsec, or noise'
        >>> as_arguments("choose another --out", out="path")
        'choose another path'
    """
    said = _COUNT.sub("n", message.replace(_ROWS, "give its array"))
    names = _OTHERWISE | otherwise
    return _OPTION.sub(lambda found: names.get(found[1], found[1].replace("-", "_")), said)


@contextmanager
def in_python(**otherwise: str) -> Iterator[None]:
    """Word the errors of the block for callers from Python, see `as_arguments`, whatever mode of torch they are in."""
    try:
        with normal_tensors():
            yield
    except LensphysError as error:
        raise type(error)(as_arguments(str(error), **otherwise)) from None


def tell(remarks: Iterable[str]) -> None:
    """Warn of some remarks, if there are any, at the line outside of lensphys that asked for it."""
    lines = [as_arguments(remark) for remark in remarks]
    if lines:
        warnings.warn("\n  ".join(lines), Note, stacklevel=_outside())


def _outside() -> int:
    """How many calls lie between `tell` and code that is not ours."""
    frame, level = sys._getframe(1), 1
    ours = ("lensphys.", "contextlib")  # what decorates our functions
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith(ours):
        frame, level = frame.f_back, level + 1
    return level
