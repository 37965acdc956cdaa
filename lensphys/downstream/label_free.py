"""What a user without labels can tell: scores of a fit, by which substructure and its kind stand out."""

from __future__ import annotations

from typing import Any

import numpy as np

from lensphys.downstream.inputs import NumbersInput
from lensphys.downstream.lenses import Collection
from lensphys.downstream.measures import of_score
from lensphys.downstream.settings import Downstream

# A higher score speaks for substructure ...
SUBSTRUCTURE = {
    "best_gain": 1, "substructure_evidence": 1, "subhalos": 1, "strength": 1, "kappa_rms": 1, "residual_largest": 1,
}  # fmt: skip
# ... and one times its sign for the first of a pair: mass on a line through the middle, against clumps all over.
LINE = {"kappa_line": 1, "kappa_0_0.5": 1, "kappa_clumps": -1, "subhalos": -1, "distance": -1}


def judged_scores(settings: Downstream, collection: Collection, tests: list[str]) -> list[dict[str, Any]]:
    """Return what each score is worth on each test set: rows of ``product, test, question, score`` and measures."""
    free = settings.label_free
    if free is None:
        return []
    rows = []
    for product in free.products:
        for test in tests:
            lenses = collection.sets[test]
            seen = NumbersInput.model_validate({"kind": "numbers", "of": product}).read(lenses.material)
            numbers = {name: seen.values[lenses.rows, i].astype(np.float64) for i, name in enumerate(seen.names)}
            label, classes = lenses.target.values[lenses.rows], lenses.target.classes
            smooth = label == classes.index(free.smooth)
            asked = [("substructure or not", SUBSTRUCTURE, ~smooth, np.ones_like(smooth))]
            for first, second in free.pairs:
                of_first, of_second = (label == classes.index(name) for name in (first, second))
                asked.append((f"{first} or {second}", LINE, of_first, of_first | of_second))
            for question, signs, is_it, among in asked:
                for score, sign in signs.items():
                    if score in numbers:
                        found = of_score(is_it[among], sign * numbers[score][among])
                        rows.append({"product": product, "test": test, "question": question, "score": score} | found)
    return rows
