"""Numbers and names as sentences tell them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from difflib import get_close_matches

_BETWEEN = "; "


def counted(count: float, one: str, many: str | None = None) -> str:
    """Return how many things there are, in words for one and for several.

    Example:
        >>> counted(1, "sub-halo"), counted(2, "sub-halo"), counted(0, "lens", "lenses")
        ('1 sub-halo', '2 sub-halos', '0 lenses')
    """
    return f"{count:.0f} {one if count == 1 else many or one + 's'}"


def joined(sentences: Iterable[str]) -> str:
    """Return sentences in one line, for `apart`.

    Example:
        >>> joined(["chi^2 is 7; is it of this lens?", "it has no PSF"])
        'chi^2 is 7, is it of this lens?; it has no PSF'
    """
    return _BETWEEN.join(sentence.replace(_BETWEEN, ", ") for sentence in sentences)


def apart(line: str) -> list[str]:
    """Return the sentences of a line that `joined` made.

    Example:
        >>> apart("chi^2 is 7, is it of this lens?; it has no PSF"), apart("")
        (['chi^2 is 7, is it of this lens?', 'it has no PSF'], [])
    """
    return [sentence for sentence in line.split(_BETWEEN) if sentence]


def readable(value: float) -> str:
    """Return a number with two digits after the point, or as a power of ten where it is large.

    Example:
        >>> readable(0.984), readable(663251762.27)
        ('0.98', '6.6e+08')
    """
    return f"{value:.2f}" if abs(value) < 1e4 else f"{value:.2g}"


def rounded(value: float, error: float) -> tuple[str, str]:
    """Return a value and its error, both to two digits of the error; of one without an error the value alone.

    Example:
        >>> rounded(1.234567, 0.00123), rounded(0.8125, 0.0000449), rounded(1.2, float("nan"))
        (('1.2346', '0.0012'), ('0.812500', '0.000045'), ('1.2', ''))
    """
    if not (math.isfinite(error) and error > 0):
        return f"{value:.6g}", ""
    digits = 1 - math.floor(math.log10(error))
    if not -6 < digits <= 8:
        return f"{value:.6g}", f"{error:.2g}"
    return f"{value:.{max(digits, 0)}f}", f"{error:.{max(digits, 0)}f}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the question whether another word was meant, for the end of a sentence; nothing where none is near.

    Example:
        >>> nearest("hight", ["height", "width"]), nearest("kind", ["height", "width"])
        (", did you mean 'height'?", '')
    """
    same = {name.lower(): name for name in known}
    found = get_close_matches(word.lower(), same, n=1)
    return f", did you mean '{same[found[0]]}'?" if found else ""
