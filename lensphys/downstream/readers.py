"""What tells dark matter apart: readers of images and readers of numbers, each an object with the same two verbs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from lensphys.basics.settings import Strict
from lensphys.downstream.inputs import Kind
from lensphys.downstream.network_training import NetworkTraining, TrainedNetwork, learned
from lensphys.networks.base import Depth, Width
from lensphys.networks.classifier import SubstructureClassifier
from lensphys.networks.group_convolution import Group
from lensphys.networks.readers import EquivariantClassifier, ResNet18

Array = NDArray[Any]

_MISSING = -1e3  # stands for a missing number in trees, below all that there are


@dataclass(frozen=True)
class TrainingSet:
    """What a reader learns from.

    Args:
        x: images (N, C, H, W) or numbers (N, F).
        y: classes (N,), or numbers (N,).
        held_x: likewise of M lenses to choose and calibrate by.
        held_y: and their classes or numbers, (M,).
        classes: how many; 0 to predict a number.
        seed: of everything that is drawn.
    """

    x: Array
    y: Array
    held_x: Array
    held_y: Array
    classes: int
    seed: int


class Trained(ABC):
    """A reader that has learned, on the scale of ln probabilities (N, K) or of numbers (N,)."""

    temperature: float = 1.0

    @abstractmethod
    def raw(self, x: Array) -> Array:
        """Return ln probabilities (N, K) before calibration, or numbers (N,), of inputs (N, ...)."""

    @abstractmethod
    def state(self) -> dict[str, Array]:
        """Return what `ReaderSettings.restored` makes it from: plain arrays, by name, of any shape."""

    def __call__(self, x: Array) -> Array:
        """Return calibrated probabilities (N, K), or numbers (N,), of inputs (N, ...)."""
        found = self.raw(x)
        return softmax(found / self.temperature, axis=1) if found.ndim == 2 else found

    def calibrated(self, training_set: TrainingSet) -> Trained:
        """Return itself with the temperature at which the held-out lenses are likeliest.

        Source: Guo et al. 2017, arXiv:1706.04599.
        """
        if training_set.classes:
            logits, rows = self.raw(training_set.held_x), np.arange(len(training_set.held_y))

            def loss(log_t: float) -> float:
                return float(-log_softmax(logits / np.exp(log_t), axis=1)[rows, training_set.held_y].mean())

            best = minimize_scalar(loss, bounds=(np.log(0.2), np.log(20.0)), method="bounded")
            self.temperature = float(np.exp(best.x))
        return self


class ReaderSettings(Strict, ABC):
    """A reader.

    Args:
        inputs: names of those that it looks at; all that it can if null.
    """

    reads: ClassVar[Kind] = "images"
    inputs: Annotated[list[str], Field(min_length=1)] | None = None

    @abstractmethod
    def learn(self, training_set: TrainingSet, device: str = "cpu") -> Trained:
        """Return what has learned a training_set, calibrated."""

    @abstractmethod
    def restored(self, state: dict[str, Array], classes: int, device: str = "cpu") -> Trained:
        """Return what had the state `Trained.state` told."""


# --- of numbers ------------------------------------------------------------------------------------------------------


class _Estimator(Trained):
    """One of scikit-learn's, and the training_set that makes it again: no pickle is written or read."""

    def __init__(self, model: Any, training_set: TrainingSet, choice: int) -> None:
        self.model, self.training_set, self.choice = model, training_set, choice

    def raw(self, x: Array) -> Array:
        """Return ln of the probability of each class, (n, C), or the numbers, (n,), of what it reads (n, F)."""
        if not self.training_set.classes:
            return np.asarray(self.model.predict(x))
        found = np.zeros((len(x), self.training_set.classes))
        found[:, self.model.classes_] = self.model.predict_proba(x)  # of a class that it never saw it says nothing
        return np.log(np.clip(found, 1e-9, 1.0))

    def state(self) -> dict[str, Array]:
        known = self.training_set
        return {"x": known.x, "y": known.y, "choice": np.array(self.choice), "seed": np.array(known.seed)}


class _EstimatorSettings(ReaderSettings, ABC):
    """A reader of numbers, by scikit-learn; of its choices the held-out lenses take the best."""

    reads = "numbers"

    @property
    @abstractmethod
    def choices(self) -> int:
        """How many there are."""

    @abstractmethod
    def model(self, choice: int, classes: int, seed: int) -> Any:
        """Return one of them, untrained."""

    def learn(self, training_set: TrainingSet, device: str = "cpu") -> Trained:
        """Return the best of its choices by the held-out lenses, calibrated on them; always on the processor."""
        x, y, classes, seed = training_set.x, training_set.y, training_set.classes, training_set.seed
        models = [self.model(choice, classes, seed).fit(x, y) for choice in range(self.choices)]
        tried = [_Estimator(model, training_set, choice) for choice, model in enumerate(models)]
        return min(tried, key=lambda trained: _loss(trained, training_set)).calibrated(training_set)

    def restored(self, state: dict[str, Array], classes: int, device: str = "cpu") -> Trained:
        seed, choice = int(state["seed"]), int(state["choice"])
        training_set = TrainingSet(state["x"], state["y"], state["x"][:0], state["y"][:0], classes, seed)
        return _Estimator(self.model(choice, classes, seed).fit(training_set.x, training_set.y), training_set, choice)


def _loss(trained: Trained, training_set: TrainingSet) -> float:
    found = trained(training_set.held_x)
    if training_set.classes:
        return float(log_loss(training_set.held_y, found, labels=list(range(training_set.classes))))
    return float(((found - training_set.held_y) ** 2).mean())


class LinearReader(_EstimatorSettings):
    """Logistic regression on standardised numbers, ridge regression for a number; missing ones are medians.

    Args:
        penalties: 1 / C of the one, alpha of the other; the held-out lenses choose.
    """

    kind: Literal["linear"]
    penalties: Annotated[list[PositiveFloat], Field(min_length=1)] = [0.1, 1.0, 10.0]

    @property
    def choices(self) -> int:
        """The penalties."""
        return len(self.penalties)

    def model(self, choice: int, classes: int, seed: int) -> Any:
        """Return the pipeline."""
        penalty = self.penalties[choice]
        last = LogisticRegression(C=1 / penalty, max_iter=2000) if classes else Ridge(penalty)
        return make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler(), last)


class TreesReader(_EstimatorSettings):
    """Gradient-boosted trees on numbers; missing ones count as lower than all others.

    Args:
        iterations: numbers of trees; the held-out lenses choose.
        learning_rate: of each tree.
        leaf: fewest lenses in a leaf.
        depth: of a tree.
    """

    kind: Literal["trees"]
    iterations: Annotated[list[PositiveInt], Field(min_length=1)] = [30, 100]
    learning_rate: PositiveFloat = 0.1
    leaf: PositiveInt = 4
    depth: PositiveInt = 4

    @property
    def choices(self) -> int:
        """The numbers of trees."""
        return len(self.iterations)

    def model(self, choice: int, classes: int, seed: int) -> Any:
        """Return the trees."""
        kind = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
        trees = kind(
            max_iter=self.iterations[choice], learning_rate=self.learning_rate, min_samples_leaf=self.leaf,
            max_depth=self.depth, early_stopping=False, random_state=seed,
        )  # fmt: skip
        # a number that no lens of a small budget has is nothing to split by, and scikit-learn fails on it
        return make_pipeline(SimpleImputer(strategy="constant", fill_value=_MISSING, keep_empty_features=True), trees)


# --- of images -------------------------------------------------------------------------------------------------------


class _Network(Trained):
    """A network that has learned."""

    def __init__(self, learned: TrainedNetwork, classes: int) -> None:
        self.learned, self.classes = learned, classes

    def raw(self, x: Array) -> Array:
        found = self.learned.answers(x)
        return found if self.classes else found[:, 0]

    def state(self) -> dict[str, Array]:
        return self.learned.state()


class _NetworkSettings(ReaderSettings, ABC):
    """A reader of images: a network.

    Args:
        training: alike on every input.
    """

    training: NetworkTraining = NetworkTraining()

    @abstractmethod
    def network(self, in_channels: int, outputs: int) -> nn.Module:
        """Return it with fresh weights: (B, in_channels, H, W) -> (B, outputs)."""

    def learn(self, training_set: TrainingSet, device: str = "cpu") -> Trained:
        with torch.random.fork_rng():
            torch.manual_seed(training_set.seed)
            network = self.network(training_set.x.shape[1], training_set.classes or 1)
            found = learned(
                network, training_set.x, training_set.y, training_set.held_x, training_set.held_y, self.training,
                classifies=training_set.classes > 0, device=device,
            )  # fmt: skip
        return _Network(found, training_set.classes).calibrated(training_set)

    def restored(self, state: dict[str, Array], classes: int, device: str = "cpu") -> Trained:
        network = self.network(len(state["mean"]), classes or 1)
        return _Network(TrainedNetwork.restored(network, state, device), classes)


class CNNReader(_NetworkSettings):
    """S1's residual classifier: see `networks.classifier`."""

    kind: Literal["cnn"]
    channels: Width = 24
    blocks: Depth = 2
    levels: Depth = 3

    def network(self, in_channels: int, outputs: int) -> nn.Module:
        """Return the network."""
        return SubstructureClassifier(
            channels=self.channels, blocks=self.blocks, levels=self.levels, classes=outputs, in_channels=in_channels
        )


class ResNet18Reader(_NetworkSettings):
    """ResNet-18, S2's."""

    kind: Literal["resnet18"]
    channels: Width = 64

    def network(self, in_channels: int, outputs: int) -> nn.Module:
        """Return the network."""
        return ResNet18(classes=outputs, in_channels=in_channels, channels=self.channels)


class EquivariantReader(_NetworkSettings):
    """Group convolutions: the answer for a turned image is the same."""

    kind: Literal["equivariant"]
    channels: Width = 8
    levels: Depth = 3
    group: Group = "d4"

    def network(self, in_channels: int, outputs: int) -> nn.Module:
        """Return the network."""
        return EquivariantClassifier(
            classes=outputs, in_channels=in_channels, channels=self.channels, levels=self.levels, group=self.group
        )


AnyReader = Annotated[
    LinearReader | TreesReader | CNNReader | ResNet18Reader | EquivariantReader, Field(discriminator="kind")
]
