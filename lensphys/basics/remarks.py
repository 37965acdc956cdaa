"""Sentences on the images of a file: of a file that is read in parts, those on the parts become one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Self


class Remark(str):
    """A sentence that holds numbers of some images."""

    key: str

    @abstractmethod
    def with_others(self, others: Sequence[Self]) -> Self:
        """Return the sentence on these images and those of others of the same ``key``."""


class Tally(Remark):
    """A sentence that counts.

    Args:
        words: with a pair of braces for each number.
        numbers: they add up over the parts of a file.

    Example:
        >>> Tally("{} pixels are masked", 3).with_others([Tally("{} pixels are masked", 4)])
        '7 pixels are masked'
    """

    numbers: tuple[int, ...]

    def __new__(cls, words: str, *numbers: int) -> Self:
        """Return the sentence, which is the text that it makes."""
        made = super().__new__(cls, words.format(*numbers))
        made.key, made.numbers = words, numbers
        return made

    def with_others(self, others: Sequence[Self]) -> Self:
        """Return the sentence with the sums."""
        sums = (sum(of) for of in zip(self.numbers, *(other.numbers for other in others), strict=True))
        return type(self)(self.key, *sums)


def literal(text: str) -> str:
    """Return somebody else's text for the words of a `Tally`, which may hold braces of its own.

    Example:
        >>> str(Tally(literal("MASK_{1}") + ": {} pixels are masked", 3))
        'MASK_{1}: 3 pixels are masked'
    """
    return text.replace("{", "{{").replace("}", "}}")


def of_all(parts: Iterable[Sequence[str]]) -> list[str]:
    """Return the remarks on a file from those on its parts, in the order in which they came up.

    Args:
        parts: remarks of each; equal ones are told once, and `Remark` of one key together.
    """
    found: dict[tuple[type, str], list[Remark]] = {}
    for remark in (remark for part in parts for remark in part):
        if isinstance(remark, Remark):
            found.setdefault((type(remark), remark.key), []).append(remark)
        else:
            found.setdefault((str, remark), [])
    return [same[0].with_others(same[1:]) if same else text for (_, text), same in found.items()]
