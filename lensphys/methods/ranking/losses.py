"""The losses of RankSRGAN: one trains the ranker, with the other the ranker trains a generator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.basics.runs import load_weights, run_settings
from lensphys.basics.settings import Strict
from lensphys.networks.ranker import Ranker, RankerSettings


def margin_ranking(score: Tensor, niqe: Tensor, margin: float) -> Tensor:
    """Return the mean of max(0, (s1 - s2) * gamma + margin) over all pairs of images of the same patch.

    gamma is 1 where the first image of a pair is the better one (its NIQE is lower), else -1; so a good image learns a
    low score.

    Args:
        score: of K images of each patch, (B, K), without unit.
        niqe: their NIQE, (B, K), without unit, lower is better.
        margin: by how much scores shall differ.

    Source: Zhang et al. 2019, arXiv:1908.06382, eq. 3.
    """
    first, second = torch.triu_indices(score.shape[1], score.shape[1], 1, device=score.device)
    gamma = torch.sign(niqe[:, second] - niqe[:, first])
    return torch.relu((score[:, first] - score[:, second]) * gamma + margin * gamma.abs()).mean()


def ranking_accuracy(score: Tensor, niqe: Tensor) -> Tensor:
    """Return the share of pairs of images of the same patch that the scores (B, K) put in the order of NIQE (B, K)."""
    first, second = torch.triu_indices(score.shape[1], score.shape[1], 1, device=score.device)
    return ((score[:, first] < score[:, second]) == (niqe[:, first] < niqe[:, second])).double().mean()


class RankContentSettings(Strict):
    """sigmoid(R(G(x))) of a trained ranker R: what it likes is worth little loss.

    ``run``: the run folder of the ranker.

    Source: Zhang et al. 2019, arXiv:1908.06382, eq. 5.
    """

    run: str
    weight: Annotated[float, Field(ge=0)] = 1e-3

    def build(self) -> RankContent:
        """Return the loss; the ranker is read when it is first needed."""
        return RankContent(self.run)


class RankContent:
    """A frozen ranker as a loss. It is no module: its weights are no part of the method that uses it.

    Args:
        run: the run folder of the ranker.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self._ranker: Ranker | None = None

    def __call__(self, image: Tensor) -> Tensor:
        """Return the loss of images (B, 1, H, W) [units of the LR peak], a scalar.

        Raises:
            LensphysError: if the run is not there or holds no ranker.
        """
        if self._ranker is None:
            self._ranker = trained_ranker(Path(self.run))
        return torch.sigmoid(self._ranker.to(image.device)(image)).mean()


def trained_ranker(run: Path) -> Ranker:
    """Return the ranker of a run folder, frozen.

    Raises:
        LensphysError: if the run is not there or holds no ranker.
    """
    settings = run_settings(run)["method"]
    if settings["name"] != "ranker":
        raise LensphysError(f"{run} holds the method {settings['name']}, not a ranker: train one on a rank set")
    ranker = RankerSettings.parse(settings["network"], str(run)).build()
    load_weights(ranker, run, part="network")
    return ranker.eval().requires_grad_(False)
