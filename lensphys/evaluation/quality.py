"""What fits say of themselves, for people: counts, and a line a lens."""

from __future__ import annotations

from collections.abc import Sequence

from lensphys.prediction import QUALITIES, Verdict

_SHOWN = 10  # lenses that a terminal lists
NO_VERDICT = "quality: this method does not judge its own result"


def counts(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Return how many fits are of each quality; empty where nothing judges itself.

    Example:
        >>> counts([Verdict("good"), Verdict("bad", ("chi^2 per degree of freedom is 3.10",))])
        {'good': 1, 'suspect': 0, 'bad': 1}
    """
    return {q: sum(v.quality == q for v in verdicts) for q in QUALITIES} if verdicts else {}


def lens_lines(names: Sequence[str], verdicts: Sequence[Verdict]) -> list[str]:
    """Return a line a lens, the worst first.

    Args:
        names: of the lenses.
        verdicts: one each.

    Example:
        >>> lens_lines(["image 0", "image 1"], [Verdict("good"), Verdict("bad", ("theta_E is at its bound",))])
        ['image 1: bad (theta_E is at its bound)', 'image 0: good']
    """
    lenses = sorted(zip(names, verdicts, strict=True), key=lambda lens: -QUALITIES.index(lens[1].quality))
    return [f"{name}: {v.quality}" + (f" ({'; '.join(v.reasons)})" if v.reasons else "") for name, v in lenses]


def summary_lines(names: Sequence[str], verdicts: Sequence[Verdict]) -> list[str]:
    """Return what a terminal shows: how many are good, suspect and bad, and the worst ones, with their reasons.

    Args:
        names: of the lenses.
        verdicts: one each; none from a method that does not judge itself.
    """
    if not verdicts:
        return [NO_VERDICT if names else "quality: of no image"]
    remarked = [(name, v) for name, v in zip(names, verdicts, strict=True) if v.reasons]
    lines = lens_lines([name for name, _ in remarked], [v for _, v in remarked])
    more = [f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    head = "quality: " + ", ".join(f"{n} {q}" for q, n in counts(verdicts).items())
    return [head, *(f"  {line}" for line in lines[:_SHOWN]), *more]
