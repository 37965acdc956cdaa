"""The second stage of RankSRGAN: a network learns to rank images as NIQE does, and can be differentiated."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat
from torch import Tensor

from lensphys.basics.settings import Strict
from lensphys.methods.ranking.losses import margin_ranking, ranking_accuracy
from lensphys.methods.trainable import RankBatch, Trainable
from lensphys.networks.ranker import RankerSettings
from lensphys.tracing.orientation import reoriented


class RankerMethodSettings(Strict):
    """A Siamese ranker, trained on a rank set of `lensphys rank-set`; it super-resolves nothing itself.

    ``margin``: by how much scores, whose variance is one, shall differ.
    """

    name: Literal["ranker"]
    network: RankerSettings = RankerSettings()
    margin: PositiveFloat = 0.5

    def build(self) -> RankerMethod:
        """Return the ranker with a fresh network."""
        return RankerMethod(self)


class RankerMethod(Trainable[RankBatch]):
    """The same network scores all images of a patch.

    Source: Zhang et al. 2019, arXiv:1908.06382.
    """

    reads = "rank_set"
    keeps = "last"  # an early ranker may order as well with scores that differ by nothing: no gradient

    def __init__(self, settings: RankerMethodSettings) -> None:
        super().__init__()
        self.settings = settings
        self.network = settings.network.build()

    def training_terms(self, batch: RankBatch, epoch: int) -> dict[str, Tensor]:
        """Return ``ranking``, the margin-ranking loss, ``accuracy``, 0 to 1, and ``loss`` of a batch, all scalars."""
        image = reoriented(batch.image) if self.training else batch.image
        score = self.network(image.flatten(0, 1)[:, None]).float().reshape(batch.niqe.shape)
        ranking, accuracy = margin_ranking(score, batch.niqe, self.settings.margin), ranking_accuracy(score, batch.niqe)
        return {"ranking": ranking, "accuracy": accuracy, "loss": ranking}

    def validation_score(self, batch: RankBatch) -> Tensor:
        """Return the share of pairs in the wrong order, a scalar: 1 - validation is the ranking accuracy."""
        return 1 - self.training_terms(batch, 0)["accuracy"]
