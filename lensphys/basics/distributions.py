"""Distributions: a plain number, or ``{kind: uniform, low: 0, high: 1}`` and its like.

A recipe draws from them; a fit takes them for the priors of what it fits.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    FiniteFloat,
    NonNegativeFloat,
    PositiveFloat,
    model_validator,
)

from lensphys.basics.checks import is_number
from lensphys.basics.settings import Strict


@dataclass(frozen=True)
class Knowledge:
    """What a distribution says of a value that is to be fitted.

    Args:
        low: below which it never is, in the unit of the value.
        high: above which it never is, in that unit.
        mean: of a Gaussian; the median where it is logarithmic; the middle where nothing is preferred; in that unit.
        sigma: of the Gaussian, in e-folds where it is logarithmic; infinite where nothing is preferred.
        logarithmic: whether all of this is about the logarithm.
    """

    low: float
    high: float
    mean: float
    sigma: float = math.inf
    logarithmic: bool = False

    def at(self, sigmas: float) -> float:
        """Return the value so many sigma above the mean."""
        return self.mean * math.exp(sigmas * self.sigma) if self.logarithmic else self.mean + sigmas * self.sigma

    @classmethod
    def between(cls, low: float, high: float) -> Knowledge:
        """Return what a uniform distribution says."""
        return cls(low, high, (low + high) / 2)

    @classmethod
    def between_logarithms(cls, low: float, high: float) -> Knowledge:
        """Return what a uniform distribution of the logarithm says of positive values."""
        return cls(low, high, math.sqrt(low * high), logarithmic=True)


class _Drawn(Strict, ABC):
    @abstractmethod
    def quantile(self, u: float) -> float:
        """Return the value that a fraction ``u`` of the draws stays below."""

    @property
    def lowest(self) -> float:
        """As low as it is ever drawn, but for one draw in ten million."""
        return self.quantile(1e-7)


class _ByQuantile(_Drawn):
    def sample(self, rng: np.random.Generator) -> float:
        """Return a draw."""
        return self.quantile(rng.uniform())


class Fixed(_Drawn):
    """Always the same value; a recipe writes it as a plain number."""

    kind: Literal["fixed"]
    value: FiniteFloat

    def sample(self, rng: np.random.Generator) -> float:
        """Return the value, without drawing anything."""
        return self.value

    def quantile(self, u: float) -> float:
        """Return the value."""
        return self.value

    @property
    def knowledge(self) -> Knowledge:
        """What it says of a value that is to be fitted."""
        return Knowledge(self.value, self.value, self.value, 0.0)


class _Interval(_Drawn):
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

    def quantile(self, u: float) -> float:
        """Return the value that a fraction ``u`` of the draws stays below."""
        return self.low + u * (self.high - self.low)

    @property
    def knowledge(self) -> Knowledge:
        """What it says of a value that is to be fitted."""
        return Knowledge.between(self.low, self.high)


class Log10Uniform(_Interval):
    """10^x with x uniform between low and high."""

    kind: Literal["log10_uniform"]

    def sample(self, rng: np.random.Generator) -> float:
        """Return a draw."""
        return float(10 ** rng.uniform(self.low, self.high))

    def quantile(self, u: float) -> float:
        """Return the value that a fraction ``u`` of the draws stays below."""
        return float(10 ** (self.low + u * (self.high - self.low)))

    @property
    def knowledge(self) -> Knowledge:
        """What it says of a value that is to be fitted."""
        return Knowledge.between_logarithms(10**self.low, 10**self.high)


class LogUniform(_ByQuantile, _Interval):
    """Uniform in the logarithm, between the values low and high, both above zero."""

    kind: Literal["log_uniform"]
    low: PositiveFloat
    high: PositiveFloat

    def quantile(self, u: float) -> float:
        """Return the value that a fraction ``u`` of the draws stays below."""
        return self.low * (self.high / self.low) ** u

    @property
    def knowledge(self) -> Knowledge:
        """What it says of a value that is to be fitted."""
        return Knowledge.between_logarithms(self.low, self.high)


class Normal(_Drawn):
    """Gaussian with a mean and a standard deviation sigma."""

    kind: Literal["normal"]
    mean: FiniteFloat
    sigma: NonNegativeFloat

    def sample(self, rng: np.random.Generator) -> float:
        """Return a draw."""
        return float(rng.normal(self.mean, self.sigma))

    def quantile(self, u: float) -> float:
        """Return the value that a fraction ``u`` of the draws stays below."""
        return self.mean + self.sigma * _normal_quantile(u)

    @property
    def knowledge(self) -> Knowledge:
        """What it says of a value that is to be fitted."""
        return Knowledge(-math.inf, math.inf, self.mean, self.sigma)


class TruncatedNormal(_ByQuantile, _Interval):
    """Gaussian with a mean and a standard deviation sigma, of which only what lies between low and high is drawn."""

    kind: Literal["truncated_normal"]
    mean: FiniteFloat
    sigma: PositiveFloat

    @model_validator(mode="after")
    def _reaches(self) -> Self:
        low, high = (normal_cdf((x - self.mean) / self.sigma) for x in (self.low, self.high))
        if not high - low > 1e-12:
            raise ValueError(
                f"low {self.low:g} and high {self.high:g} cut all of the Gaussian {self.mean:g} +- {self.sigma:g} away"
            )
        return self

    def quantile(self, u: float) -> float:
        """Return the value that a fraction ``u`` of the draws stays below."""
        low, high = (normal_cdf((x - self.mean) / self.sigma) for x in (self.low, self.high))
        value = self.mean + self.sigma * _normal_quantile(low + u * (high - low))
        return min(max(value, self.low), self.high)

    @property
    def knowledge(self) -> Knowledge:
        """What it says of a value that is to be fitted."""
        return Knowledge(self.low, self.high, self.mean, self.sigma)


class LogNormal(_ByQuantile):
    """A Gaussian of the logarithm, with a median and a standard deviation sigma in e-folds."""

    kind: Literal["log_normal"]
    median: PositiveFloat
    sigma: NonNegativeFloat

    def quantile(self, u: float) -> float:
        """Return the value that a fraction ``u`` of the draws stays below."""
        return self.median * math.exp(self.sigma * _normal_quantile(u))

    @property
    def knowledge(self) -> Knowledge:
        """What it says of a value that is to be fitted."""
        return Knowledge(0.0, math.inf, self.median, self.sigma, logarithmic=True)


class Choice(_ByQuantile):
    """One of some values, equally often or by their weights."""

    kind: Literal["choice"]
    values: Annotated[list[FiniteFloat], Field(min_length=1)]
    weights: list[NonNegativeFloat] | None = None

    @model_validator(mode="after")
    def _weighed(self) -> Self:
        if self.weights is not None and (len(self.weights) != len(self.values) or not sum(self.weights) > 0):
            raise ValueError(f"weights must be one for each of the {len(self.values)} values, and not all zero")
        return self

    @property
    def lowest(self) -> float:
        """The least value that has a weight: they come in any order."""
        weights = self.weights or [1.0] * len(self.values)
        return min(value for value, weight in zip(self.values, weights, strict=True) if weight > 0)

    def quantile(self, u: float) -> float:
        """Return the value that a fraction ``u`` of the draws, in the order of ``values``, stays below."""
        weights = np.ones(len(self.values)) if self.weights is None else np.array(self.weights)
        reached = np.cumsum(weights) > u * weights.sum()
        return self.values[int(np.argmax(reached))]

    @property
    def knowledge(self) -> Knowledge:
        """What it says of a value that is to be fitted: nothing that a fit can take."""
        raise ValueError("a fit cannot choose among values: give a number, uniform, normal or one of their like")


def _number_as_fixed(value: Any) -> Any:
    return {"kind": "fixed", "value": value} if is_number(value) else value


Distribution = Annotated[
    Fixed | Uniform | Log10Uniform | LogUniform | Normal | LogNormal | TruncatedNormal | Choice,
    Field(discriminator="kind"),
    BeforeValidator(_number_as_fixed),
]


def _positive(distribution: Distribution) -> Distribution:
    if isinstance(distribution, Fixed) and not distribution.value > 0:
        raise ValueError("must be positive")
    if not distribution.lowest > 0:
        raise ValueError(
            f"must be positive, and would be drawn as low as {distribution.lowest:g}: narrow it, or make it a "
            "truncated_normal"
        )
    return distribution


PositiveDistribution = Annotated[Distribution, AfterValidator(_positive)]


def fixed(value: float) -> Fixed:
    """Return the distribution that always gives ``value``: for defaults."""
    return Fixed(kind="fixed", value=value)


def normal_cdf(x: float) -> float:
    """Return the share of a standard Gaussian below x."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _normal_quantile(u: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(min(max(u, 1e-300), 1 - 1e-16)))
