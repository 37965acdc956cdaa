"""What can be trained: a module that says what its loss is, player by player and part by part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, Literal, TypeVar

from torch import Tensor, nn

from lensphys.observation import Instrument, Observation
from lensphys.observation.validity import Validity
from lensphys.prediction import Prediction


class Batch:
    """Some images and what a training may know of them.

    A plain object: lightning-fabric would take a tuple or a dataclass apart and cast its tensors.

    Args:
        observation: LR images (B, 1, H, W) and how they were taken.
        truth: HR images (B, 1, sH, sW) in the unit of the LR images; None where nobody needs or has them.
        label: the class of each image, (B,); None where nobody needs it.
    """

    def __init__(self, observation: Observation, truth: Tensor | None = None, label: Tensor | None = None) -> None:
        self.observation, self.truth, self.label = observation, truth, label


class RankBatch:
    """Some patches, each by several networks.

    Args:
        image: (B, K, h, w) [units of the LR peak].
        niqe: how natural each looks, (B, K), without unit, lower is better.
    """

    def __init__(self, image: Tensor, niqe: Tensor) -> None:
        self.image, self.niqe = image, niqe


B = TypeVar("B")


class Trainable(nn.Module, ABC, Generic[B]):
    """What `training.train` trains and a run folder holds.

    Attributes:
        reads: what its data file holds.
        needs_truth: whether HR images are read.
        needs_labels: whether classes are.
        keeps: which weights are kept: those of the ``best`` validation, or the ``last``, where no score tells.
    """

    reads: Literal["lenses", "rank_set"] = "lenses"
    needs_truth: bool = False
    needs_labels: bool = False
    keeps: Literal["best", "last"] = "best"

    @property
    def players(self) -> dict[str, nn.Module]:
        """Who takes turns in a step, each with its own loss and optimiser; a generator and its discriminator, say."""
        return {"": self}

    def terms_of(self, player: str, batch: B, epoch: int) -> dict[str, Tensor]:
        """Return the named terms, scalars, of a player's loss of a batch, and ``loss``, their weighted sum."""
        return self.training_terms(batch, epoch)

    @abstractmethod
    def training_terms(self, batch: B, epoch: int) -> dict[str, Tensor]:
        """Return the named terms, scalars, of the (first player's) loss of a batch, and ``loss``, their weighted sum.

        Args:
            batch: the images.
            epoch: counted from 0; weights may follow it.
        """

    def validation_score(self, batch: B) -> Tensor:
        """Return the scalar, lower is better, by which the best checkpoint is chosen: by default the loss."""
        return self.training_terms(batch, 0)["loss"]


class TrainableMethod(Trainable[Batch]):
    """A method with weights.

    Attributes:
        validity: what images the weights have learned from; None where nobody says.
        instrument: whose images these were; None where there were several, or none.
    """

    validity: Validity | None = None
    instrument: Instrument | None = None

    @abstractmethod
    def predict(self, observation: Observation, scale: int | None = None) -> Prediction:
        """Return the super-resolved batch; by default at the scale that the method was trained for."""
