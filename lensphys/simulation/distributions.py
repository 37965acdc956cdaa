"""Random numbers of a recipe: a plain number, or ``{kind: uniform, low: 0, high: 1}`` and its like."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
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

from lensphys.checks import LensphysError
from lensphys.settings import Strict


class _ByQuantile(Strict, ABC):
    def sample(self, rng: np.random.Generator) -> float:
        """Return a draw."""
        return self.quantile(rng.uniform())

    @abstractmethod
    def quantile(self, u: float) -> float:
        """Return the value that a fraction ``u`` of the draws stays below."""


class Fixed(Strict):
    """Always the same value; a recipe writes it as a plain number."""

    kind: Literal["fixed"]
    value: FiniteFloat

    def sample(self, rng: np.random.Generator) -> float:
        """Return the value, without drawing anything."""
        return self.value

    def quantile(self, u: float) -> float:
        """Return the value."""
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

    def quantile(self, u: float) -> float:
        """Return the value that a fraction ``u`` of the draws stays below."""
        return self.low + u * (self.high - self.low)


class Log10Uniform(_Interval):
    """10^x with x uniform between low and high."""

    kind: Literal["log10_uniform"]

    def sample(self, rng: np.random.Generator) -> float:
        """Return a draw."""
        return float(10 ** rng.uniform(self.low, self.high))

    def quantile(self, u: float) -> float:
        """Return the value that a fraction ``u`` of the draws stays below."""
        return float(10 ** (self.low + u * (self.high - self.low)))


class LogUniform(_ByQuantile, _Interval):
    """Uniform in the logarithm, between the values low and high, both above zero."""

    kind: Literal["log_uniform"]
    low: PositiveFloat
    high: PositiveFloat

    def quantile(self, u: float) -> float:
        """Return the value that a fraction ``u`` of the draws stays below."""
        return self.low * (self.high / self.low) ** u


class Normal(Strict):
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


class TruncatedNormal(_ByQuantile, _Interval):
    """Gaussian with a mean and a standard deviation sigma, of which only what lies between low and high is drawn."""

    kind: Literal["truncated_normal"]
    mean: FiniteFloat
    sigma: PositiveFloat

    @model_validator(mode="after")
    def _reaches(self) -> Self:
        low, high = (_normal_cdf((x - self.mean) / self.sigma) for x in (self.low, self.high))
        if not high - low > 1e-12:
            raise ValueError(
                f"low {self.low:g} and high {self.high:g} cut all of the Gaussian {self.mean:g} +- {self.sigma:g} away"
            )
        return self

    def quantile(self, u: float) -> float:
        """Return the value that a fraction ``u`` of the draws stays below."""
        low, high = (_normal_cdf((x - self.mean) / self.sigma) for x in (self.low, self.high))
        value = self.mean + self.sigma * _normal_quantile(low + u * (high - low))
        return min(max(value, self.low), self.high)


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

    def quantile(self, u: float) -> float:
        """Return the value that a fraction ``u`` of the draws, in the order of ``values``, stays below."""
        weights = np.ones(len(self.values)) if self.weights is None else np.array(self.weights)
        reached = np.cumsum(weights) > u * weights.sum()
        return self.values[int(np.argmax(reached))]


def _number_as_fixed(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"kind": "fixed", "value": value}
    return value


Distribution = Annotated[
    Fixed | Uniform | Log10Uniform | LogUniform | Normal | TruncatedNormal | Choice,
    Field(discriminator="kind"),
    BeforeValidator(_number_as_fixed),
]


def _positive(distribution: Distribution) -> Distribution:
    lowest = distribution.quantile(1e-7)
    if not lowest > 0:
        raise ValueError(
            f"must be positive, and would be drawn as low as {lowest:g}: narrow it, or make it a truncated_normal"
        )
    return distribution


PositiveDistribution = Annotated[Distribution, AfterValidator(_positive)]


def fixed(value: float) -> Fixed:
    """Return the distribution that always gives ``value``: for defaults."""
    return Fixed(kind="fixed", value=value)


class Correlation(Strict):
    """Two parameters that rise and fall together, each still with its own distribution (a Gaussian copula).

    Args:
        between: their names, as ``[source.magnitude, source.R_sersic]``.
        rho: correlation of the two Gaussian numbers behind them, between -1 and 1.
    """

    between: tuple[str, str]
    rho: Annotated[float, Field(ge=-1, le=1)]

    @model_validator(mode="before")
    @classmethod
    def _pair(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and isinstance(tree.get("between"), list):
            return tree | {"between": tuple(tree["between"])}  # YAML and JSON have no tuples
        return tree


class Draws:
    """The draws of one sample: from one generator, in the order in which they are asked for.

    Args:
        rng: the generator.
        correlated: pairs of parameters that are not drawn one by one.
    """

    def __init__(self, rng: np.random.Generator, correlated: list[Correlation] | None = None) -> None:
        self.rng = rng
        self._fractions: dict[str, float] = {}
        for pair in correlated or []:
            first, second = rng.standard_normal(2)
            second = pair.rho * first + math.sqrt(1 - pair.rho**2) * second
            self._fractions |= {pair.between[0]: _normal_cdf(first), pair.between[1]: _normal_cdf(second)}

    def __call__(self, key: str, distribution: Distribution) -> float:
        """Return the value of a parameter; ``key`` is its name in the recipe.

        Raises:
            LensphysError: if it is not finite.
        """
        try:
            fraction = self._fractions.pop(key, None)
            value = distribution.sample(self.rng) if fraction is None else distribution.quantile(fraction)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise LensphysError(f"the recipe drew {value:g} for {key}: narrow its distribution")
        return value

    def positive(self, key: str, distribution: Distribution) -> float:
        """Return the value of a parameter that must be positive.

        Raises:
            LensphysError: if it is not.
        """
        value = self(key, distribution)
        if not value > 0:
            raise LensphysError(f"the recipe drew {value:g} for {key}, which must be positive: narrow its distribution")
        return value

    def all_of(
        self, prefix: str, parameters: Mapping[str, Distribution], positive: Collection[str] = ()
    ) -> dict[str, float]:
        """Return the values of named parameters, in their order; some of them must be positive.

        Raises:
            LensphysError: if one of these is not, or an ellipticity that was drawn is no ellipse.
        """
        draw = {name: self.positive if name in positive else self for name in parameters}
        values = {name: draw[name](f"{prefix}.{name}", x) for name, x in parameters.items()}
        if math.hypot(values.get("e1", 0.0), values.get("e2", 0.0)) >= 1:
            raise LensphysError(
                f"the recipe drew e1 = {values['e1']:g}, e2 = {values['e2']:g} for {prefix}, and |e| must stay below "
                "1: narrow their distributions"
            )
        return values

    def check_used(self) -> None:
        """Raise if a correlated parameter was never drawn.

        Raises:
            LensphysError: naming it.
        """
        if self._fractions:
            raise LensphysError(
                f"correlated: {', '.join(self._fractions)} is no parameter that this recipe draws once for each lens: "
                "name it as source.R_sersic or lens.theta_E, and in one pair only"
            )


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _normal_quantile(u: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(min(max(u, 1e-300), 1 - 1e-16)))
