"""How a network learns to read images: the same steps, augmentation and choice of the best state on every input."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from lensphys.basics.checks import LensphysError
from lensphys.basics.settings import Strict
from lensphys.tracing.orientation import reoriented

Array = NDArray[Any]

_AT_ONCE = 64  # images of a forward pass without gradients


class NetworkTraining(Strict):
    """A training of a fixed number of steps: AdamW, one cycle of the learning rate, images in all eight orientations.

    Args:
        steps: of the optimiser.
        batch_size: images a step.
        learning_rate: the highest.
        weight_decay: of AdamW.
        looks: how often the held-out loss is taken: the best state is kept.
    """

    steps: PositiveInt = 600
    batch_size: int = Field(default=32, ge=2)
    learning_rate: PositiveFloat = 3e-3
    weight_decay: NonNegativeFloat = 1e-2
    looks: PositiveInt = 10


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with its weights, and how its images and answers are scaled.

    Args:
        network: standardised images (B, C, H, W) -> (B, outputs).
        mean: of each channel, (C,), in the unit of the images.
        std: standard deviation of each channel, (C,), in that unit.
        target: mean and standard deviation of a number that is predicted, (2,).
        device: where it computes.
    """

    network: nn.Module
    mean: Array
    std: Array
    target: Array
    device: str = "cpu"

    def answers(self, x: Array) -> Array:
        """Return the answers (N, outputs) for images (N, C, H, W).

        Raises:
            LensphysError: if they have another number of channels.
        """
        if x.shape[1] != len(self.mean):
            raise LensphysError(f"the reader looks at {len(self.mean)} channels, and the images have {x.shape[1]}")
        self.network.eval()
        with torch.no_grad():
            parts = [self.network(part.to(self.device)).cpu() for part in self.standardised(x).split(_AT_ONCE)]
        return torch.cat(parts).double().numpy() * self.target[1] + self.target[0]

    def standardised(self, x: Array) -> Tensor:
        """Return images (N, C, H, W) as the network takes them: each channel less its mean, over its scatter."""
        scaled = (x - self.mean[:, None, None]) / self.std[:, None, None]
        return torch.from_numpy(scaled.astype(np.float32))

    def state(self) -> dict[str, Array]:
        """Return all that `restored` needs, but the network's settings.

        Weights by their names, as they are shaped, ``mean`` and ``std`` (C,), ``target`` (2,).
        """
        weights = {f"network.{name}": x.detach().cpu().numpy() for name, x in self.network.state_dict().items()}
        return weights | {"mean": self.mean, "std": self.std, "target": self.target}

    @classmethod
    def restored(cls, network: nn.Module, state: dict[str, Array], device: str = "cpu") -> TrainedNetwork:
        """Return what had a `state`: weights by their names, ``mean`` and ``std`` (C,), ``target`` (2,).

        Raises:
            LensphysError: if it is of another network.
        """
        weights = {
            n.removeprefix("network."): torch.from_numpy(x) for n, x in state.items() if n.startswith("network.")
        }
        try:
            network.load_state_dict(weights)
        except RuntimeError:
            raise LensphysError("the weights of the reader do not fit its settings: train it again") from None
        return cls(network.to(device).eval(), state["mean"], state["std"], state["target"], device)


def learned(
    network: nn.Module,
    x: Array,
    y: Array,
    held_x: Array,
    held_y: Array,
    settings: NetworkTraining,
    *,
    classifies: bool,
    device: str = "cpu",
) -> TrainedNetwork:
    """Return a network trained on images, in the state in which the held-out ones are read best.

    Args:
        network: with fresh weights.
        x: images (N, C, H, W).
        y: classes or numbers (N,).
        held_x: images (M, C, H, W) to choose the state by.
        held_y: their classes or numbers (M,).
        settings: of the training.
        classifies: by cross-entropy; else the mean squared error of standardised numbers.
        device: where it computes.
    """
    mean, std = x.mean((0, 2, 3)), np.maximum(x.std((0, 2, 3)), 1e-9)
    target = np.array([0.0, 1.0]) if classifies else np.array([y.mean(), max(float(y.std()), 1e-9)])
    found = TrainedNetwork(network.to(device), mean, std, target, device)
    images, held = (found.standardised(part).to(device) for part in (x, held_x))
    truth, held_truth = (_truth(part, target, classifies).to(device) for part in (y, held_y))
    optimiser = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate, total_steps=settings.steps)
    every = max(1, settings.steps // settings.looks)
    best, lowest = copy.deepcopy(network.state_dict()), float("inf")
    for step, rows in zip(range(1, settings.steps + 1), _endless(len(x), settings.batch_size), strict=False):
        network.train()
        optimiser.zero_grad()
        _loss(network(reoriented(images[rows])), truth[rows], classifies).backward()
        optimiser.step()
        cycle.step()
        if step % every == 0 or step == settings.steps:
            loss = _held_loss(network, held, held_truth, classifies)
            if loss < lowest:
                best, lowest = copy.deepcopy(network.state_dict()), loss
    network.load_state_dict(best)
    return found


def _truth(y: Array, target: Array, classifies: bool) -> Tensor:
    if classifies:
        return torch.from_numpy(y.astype(np.int64))
    return torch.from_numpy(((y - target[0]) / target[1]).astype(np.float32))[:, None]


def _loss(answers: Tensor, truth: Tensor, classifies: bool) -> Tensor:
    return F.cross_entropy(answers, truth) if classifies else F.mse_loss(answers, truth)


def _held_loss(network: nn.Module, images: Tensor, truth: Tensor, classifies: bool) -> float:
    network.eval()
    with torch.no_grad():
        answers = torch.cat([network(part) for part in images.split(_AT_ONCE)])
        return float(_loss(answers, truth, classifies))


def _endless(count: int, size: int) -> Any:
    """Batches of rows, each lens once before any comes again; never a batch of one."""
    while True:
        order = torch.randperm(count)
        for part in order.split(min(size, count)):
            if len(part) > 1 or count == 1:
                yield part
