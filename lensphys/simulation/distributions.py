"""Random numbers of a recipe: a plain number, or ``{kind: uniform, low: 0, high: 1}`` and its like."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, FiniteFloat, NonNegativeFloat, model_validator

from lensphys.settings import Strict


class Fixed(Strict):
    """Always the same value; a recipe writes it as a plain number."""

    kind: Literal["fixed"]
    value: FiniteFloat

    def sample(self, rng: np.random.Generator) -> float:
        """Return the value, without drawing anything."""
        return self.value


class _Interval(Strict):
    low: FiniteFloat
    high: FiniteFloat

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low:g} and {self.high:g}")
        return self


class Uniform(_Interval):
    """Uniform between low and high."""

    kind: Literal["uniform"]

    def sample(self, rng: np.random.Generator) -> float:
        """Return a draw."""
        return float(rng.uniform(self.low, self.high))


class Log10Uniform(_Interval):
    """10^x with x uniform between low and high."""

    kind: Literal["log10_uniform"]

    def sample(self, rng: np.random.Generator) -> float:
        """Return a draw."""
        return float(10 ** rng.uniform(self.low, self.high))


class Normal(Strict):
    """Gaussian with a mean and a standard deviation sigma."""

    kind: Literal["normal"]
    mean: FiniteFloat
    sigma: NonNegativeFloat

    def sample(self, rng: np.random.Generator) -> float:
        """Return a draw."""
        return float(rng.normal(self.mean, self.sigma))


def _number_as_fixed(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"kind": "fixed", "value": value}
    return value


Distribution = Annotated[
    Fixed | Uniform | Log10Uniform | Normal, Field(discriminator="kind"), BeforeValidator(_number_as_fixed)
]


def fixed(value: float) -> Fixed:
    """Return the distribution that always gives ``value``: for defaults."""
    return Fixed(kind="fixed", value=value)
