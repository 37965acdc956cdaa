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
from lensphys.downstream.network_training import Learned, NetworkTraining, learned
from lensphys.networks.base import Depth, Width
from lensphys.networks.classifier import SubstructureClassifier
from lensphys.networks.group_convolution import Group
from lensphys.networks.readers import EquivariantClassifier, ResNet18

Array = NDArray[Any]

_MISSING = -1e3  # stands for a missing number in trees, below all that there are


@dataclass(frozen=True)
class Lesson:
    """What a reader learns from.

    Args:
        x: images (N, C, H, W) or numbers (N, F).
        y: classes (N,), or numbers (N,).
        held_x: lenses to choose and calibrate by.
        held_y: and their classes or numbers.
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
        """Return ln probabilities (N, K) before calibration, or numbers (N,)."""

    @abstractmethod
    def state(self) -> dict[str, Array]:
        """Return what `ReaderSettings.restored` makes it from: plain arrays."""

    def __call__(self, x: Array) -> Array:
        """Return calibrated probabilities (N, K), or numbers (N,)."""
        found = self.raw(x)
        return softmax(found / self.temperature, axis=1) if found.ndim == 2 else found

    def calibrated(self, lesson: Lesson) -> Trained:
        """Return itself with the temperature at which the held-out lenses are likeliest.

        Source: Guo et al. 2017, arXiv:1706.04599.
        """
        if lesson.classes:
            logits, rows = self.raw(lesson.held_x), np.arange(len(lesson.held_y))

            def loss(log_t: float) -> float:
                return float(-log_softmax(logits / np.exp(log_t), axis=1)[rows, lesson.held_y].mean())

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
    def learn(self, lesson: Lesson, device: str = "cpu") -> Trained:
        """Return what has learned a lesson, calibrated."""

    @abstractmethod
    def restored(self, state: dict[str, Array], classes: int, device: str = "cpu") -> Trained:
        """Return what had the state `Trained.state` told."""


# --- of numbers ------------------------------------------------------------------------------------------------------


class _Estimator(Trained):
    """One of scikit-learn's, and the lesson that makes it again: no pickle is written or read."""

    def __init__(self, model: Any, lesson: Lesson, choice: int) -> None:
        self.model, self.lesson, self.choice = model, lesson, choice

    def raw(self, x: Array) -> Array:
        if not self.lesson.classes:
            return np.asarray(self.model.predict(x))
        found = np.zeros((len(x), self.lesson.classes))
        found[:, self.model.classes_] = self.model.predict_proba(x)  # of a class that it never saw it says nothing
        return np.log(np.clip(found, 1e-9, 1.0))

    def state(self) -> dict[str, Array]:
        lesson = self.lesson
        return {"x": lesson.x, "y": lesson.y, "choice": np.array(self.choice), "seed": np.array(lesson.seed)}


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

    def learn(self, lesson: Lesson, device: str = "cpu") -> Trained:
        tried = [_Estimator(self.model(c, lesson.classes, lesson.seed).fit(lesson.x, lesson.y), lesson, c)
                 for c in range(self.choices)]  # fmt: skip
        return min(tried, key=lambda trained: _loss(trained, lesson)).calibrated(lesson)

    def restored(self, state: dict[str, Array], classes: int, device: str = "cpu") -> Trained:
        seed, choice = int(state["seed"]), int(state["choice"])
        lesson = Lesson(state["x"], state["y"], state["x"][:0], state["y"][:0], classes, seed)
        return _Estimator(self.model(choice, classes, seed).fit(lesson.x, lesson.y), lesson, choice)


def _loss(trained: Trained, lesson: Lesson) -> float:
    found = trained(lesson.held_x)
    if lesson.classes:
        return float(log_loss(lesson.held_y, found, labels=list(range(lesson.classes))))
    return float(((found - lesson.held_y) ** 2).mean())


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

    def __init__(self, learned: Learned, classes: int) -> None:
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

    def learn(self, lesson: Lesson, device: str = "cpu") -> Trained:
        with torch.random.fork_rng():
            torch.manual_seed(lesson.seed)
            network = self.network(lesson.x.shape[1], lesson.classes or 1)
            found = learned(
                network, lesson.x, lesson.y, lesson.held_x, lesson.held_y, self.training,
                classifies=lesson.classes > 0, device=device,
            )  # fmt: skip
        return _Network(found, lesson.classes).calibrated(lesson)

    def restored(self, state: dict[str, Array], classes: int, device: str = "cpu") -> Trained:
        network = self.network(len(state["mean"]), classes or 1)
        return _Network(Learned.restored(network, state, device), classes)


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
