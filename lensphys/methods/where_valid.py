"""A network is asked about images like those it learned from; the others are fitted, and told so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from lensphys.observation import Observation
from lensphys.observation.validity import Validity
from lensphys.prediction import Prediction, Verdict, joined

Answer = Callable[[Observation], Prediction]


def where_valid(validity: Validity | None, observation: Observation, network: Answer, fit: Answer) -> Prediction:
    """Return what a network says of a batch, and what a fit says of the images that the network cannot know.

    Args:
        validity: what the network has learned from; anything if None.
        observation: the batch.
        network: asked about images within.
        fit: asked about images outside; its verdict gains the reason.
    """
    outside = [""] * len(observation) if validity is None else validity.outside(observation)
    if not any(outside):
        return network(observation)
    strange = torch.tensor([bool(words) for words in outside], device=observation.image.device)
    rows, others = torch.nonzero(~strange)[:, 0], torch.nonzero(strange)[:, 0]
    fitted = _noted(fit(observation[others]), [words for words in outside if words])
    if len(rows) == 0:
        return fitted
    return joined([network(observation[rows]), fitted], [rows, others])


def _noted(prediction: Prediction, outside: list[str]) -> Prediction:
    notes = (f"fitted from scratch, because the network does not know such images: {words}" for words in outside)
    verdicts = [Verdict(v.quality, (*v.reasons, note)) for v, note in zip(prediction.verdicts, notes, strict=True)]
    return replace(prediction, verdicts=verdicts)
