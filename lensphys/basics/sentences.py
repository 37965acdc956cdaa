"""Numbers as sentences tell them."""

from __future__ import annotations


def counted(count: float, one: str, many: str | None = None) -> str:
    """Return how many things there are, in words for one and for several.

    Example:
        >>> counted(1, "sub-halo"), counted(2, "sub-halo"), counted(0, "lens", "lenses")
        ('1 sub-halo', '2 sub-halos', '0 lenses')
    """
    return f"{count:.0f} {one if count == 1 else many or one + 's'}"


def readable(value: float) -> str:
    """Return a number with two digits after the point, or as a power of ten where it is large.

    Example:
        >>> readable(0.984), readable(663251762.27)
        ('0.98', '6.6e+08')
    """
    return f"{value:.2f}" if abs(value) < 1e4 else f"{value:.2g}"
