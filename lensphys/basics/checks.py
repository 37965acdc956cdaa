"""Shape, range and finiteness errors, worded once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeGuard

if TYPE_CHECKING:  # the command line shows its help without loading torch
    from torch import Tensor


class LensphysError(ValueError):
    """A fault in what the user gave: the message says what was expected, what came and what to do.

    The command line prints it as one sentence and exits with code 2.

    Example:
        >>> try:
        ...     check_choice("method", "magic", ["fit", "refine"])
        ... except LensphysError as error:
        ...     print(error)
        unknown method 'magic': choose one of fit, refine
    """


class MissingExtraError(LensphysError):
    """A package that only some methods need is not installed."""


def shortened(text: str, most: int = 120) -> str:
    """Return a text for a message: on one line, and of a long one the beginning.

    Example:
        >>> shortened("ab " * 100, 8)
        'ab ab...'
    """
    line = " ".join(text[: 10 * most].split())
    return line if len(line) <= most else line[: most - 3].rstrip() + "..."


def check_finite(name: str, x: Tensor) -> None:
    """Raise if ``x`` holds NaN or infinite values.

    Args:
        name: what the argument is called in the message.
        x: any shape.

    Raises:
        LensphysError: naming how many values are not finite.
    """
    bad = int((~x.isfinite()).sum())
    if bad:
        raise LensphysError(f"{name} holds {bad} NaN or infinite values of {x.numel()}: mask or replace them first")


def check_images(name: str, x: Tensor, channels: int = 1) -> None:
    """Raise unless ``x`` is a batch of images ``(B, channels, H, W)``.

    Raises:
        LensphysError: with the shape that came.
    """
    if x.ndim != 4 or x.shape[1] != channels:
        raise LensphysError(f"{name} must have the shape (B, {channels}, H, W), got {tuple(x.shape)}")


def check_same_shape(name_a: str, a: Sequence[int], name_b: str, b: Sequence[int]) -> None:
    """Raise unless two shapes agree.

    Raises:
        LensphysError: naming both arguments and both shapes.
    """
    if tuple(a) != tuple(b):
        raise LensphysError(f"{name_a} and {name_b} must have the same shape, got {tuple(a)} and {tuple(b)}")


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value, as of a header or a file of settings, is a number and no truth value.

    Example:
        >>> is_number(2), is_number(True), is_number("2")
        (True, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_positive(name: str, value: float) -> None:
    """Raise unless ``value`` is a finite number above zero.

    Raises:
        LensphysError: with the value that came.
    """
    if not 0 < value < float("inf"):
        raise LensphysError(f"{name} must be positive and finite, got {value}")


def check_whole(name: str, value: Any, least: int, most: float = math.inf) -> int:
    """Return a whole number of a range, numpy's as Python's.

    Raises:
        LensphysError: with the range and the value that came.

    Example:
        >>> check_whole("scale", 2, 1, 16)
        2
    """
    if isinstance(value, SupportsIndex) and not isinstance(value, bool) and least <= index(value) <= most:
        return index(value)
    limits = f"of {least} or more" if most == math.inf else f"from {least} to {most}"
    raise LensphysError(f"{name} must be a whole number {limits}, got {value!r}")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise unless ``value`` is one of ``choices``.

    Raises:
        LensphysError: listing the choices.
    """
    if value not in choices:
        raise LensphysError(f"unknown {name} {value!r}: choose one of {', '.join(sorted(choices))}")


class UnwritableError(LensphysError):
    """A file or folder cannot be written: of no one input's making, but of the disk's."""


def check_file(name: str, path: Path) -> None:
    """Raise unless ``path`` is an existing file.

    Raises:
        LensphysError: with the path.
    """
    if not path.is_file():
        why = "is a folder" if path.is_dir() else "is not a file"
        raise LensphysError(f"{name} not found: {path} {why}")
