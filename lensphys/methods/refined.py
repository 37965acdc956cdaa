"""From a network's first look to the optimum of each image."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.fitting import LensFit, LensProblem
from lensphys.methods.fit import RefinedFit, in_chunks, one_by_one
from lensphys.methods.lens_model import full_prediction, quick_prediction
from lensphys.methods.trainable import TrainableMethod
from lensphys.methods.where_valid import where_valid
from lensphys.observation import Observation
from lensphys.prediction import Method, Prediction


class _Scaled(Protocol):
    """Settings that say by how much pixels become smaller."""

    @property
    def scale(self) -> int: ...


class Refinable(TrainableMethod):
    """A method that guesses a lens, from which the stages of the default fit can go on."""

    settings: _Scaled

    @property
    def scale(self) -> int:
        """The upscaling factor used where none is asked for; any other will do."""
        return self.settings.scale

    @property
    @abstractmethod
    def without_network(self) -> RefinedFit:
        """The fit that goes on from its guess, and that looks at images it was not trained for."""

    @abstractmethod
    def start(self, problem: LensProblem) -> Tensor:
        """Return the lens that it guesses for each image, (B, P), unconstrained."""

    @abstractmethod
    def fit(self, observation: Observation) -> LensFit:
        """Return where a forward pass ends: the guess and a few Gauss-Newton steps."""

    def predict(self, observation: Observation, scale: int | None = None) -> Prediction:
        """Return one forward pass: the network, a few Gauss-Newton steps, what the model leaves over."""
        fit, factor = self.without_network, scale or self.scale

        def one(part: Observation) -> Prediction:
            return quick_prediction(self.fit(part), factor, fit.report)

        def network(part: Observation) -> Prediction:
            return in_chunks(part, factor, 1, one)

        with torch.no_grad():
            return where_valid(self.validity, observation, network, partial(fit.predict, scale=factor))

    def refined(self, rounds: int | None = None) -> Refined:
        """Return the method that goes on from the guess, for so many rounds or to convergence."""
        fit = self.without_network
        return Refined(self, fit if rounds is None else fit.shortened(rounds))


def with_rounds(method: TrainableMethod, rounds: int | None, run: Path) -> Method:
    """Return a trained method that is followed by rounds of fitting, if it is one that guesses a lens.

    Args:
        method: what was trained.
        rounds: how many; 0 for one pass of the network, None until the fit stops improving.
        run: its folder.

    Raises:
        LensphysError: if rounds are asked for, and it guesses no lens.
    """
    if isinstance(method, Refinable):
        return method if rounds == 0 else method.refined(rounds)
    if rounds is not None:
        raise LensphysError(f"'refine' starts from an amortised network's answer: {run} holds none")
    return method


def check_guessed(guessed: list[str], fitted: list[str]) -> None:
    """Raise unless a network guesses the parameters that are fitted, in their order.

    Args:
        guessed: what its weights were trained for.
        fitted: the parameters of the smooth model.

    Raises:
        LensphysError: with both, and what is missing.
    """
    if guessed != fitted:
        lacking = [name for name in fitted if name not in guessed]
        raise LensphysError(
            f"the weights guess {', '.join(guessed)} and lack {', '.join(lacking) or 'nothing'}: this version fits "
            f"{', '.join(fitted)}"
        )


class Refined:
    """A trained network's answer, refined to the optimum of each image: a `Method`.

    Args:
        start: the network.
        settings: how far and with what priors.

    Attributes:
        by_itself: as of `RefinedFit`.
    """

    by_itself: ClassVar[bool] = True

    def __init__(self, start: Refinable, settings: RefinedFit) -> None:
        self.start = start
        self.settings = settings

    def predict(self, observation: Observation, scale: int | None = None) -> Prediction:
        """Return the refined batch with its standard deviation."""
        factor = scale or self.start.scale

        def one(part: Observation) -> Prediction:
            return full_prediction(self.fit(part), factor, self.settings.report)

        def network(part: Observation) -> Prediction:
            return one_by_one(part, one)

        with torch.no_grad():
            fit = partial(self.settings.predict, scale=factor)
            return where_valid(self.start.validity, observation, network, fit)

    def fit(self, observation: Observation) -> LensFit:
        """Return the optimum of each image, from the network's first look."""
        problem = LensProblem.from_observation(observation)
        return self.settings.refinement(problem, self.start.start(problem))
