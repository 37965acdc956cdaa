"""Drawing the parameters of a recipe, one after the other or in correlated pairs."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from lensphys.basics.checks import LensphysError
from lensphys.basics.distributions import Distribution, normal_cdf
from lensphys.basics.settings import Strict


class Correlation(Strict):
    """Two parameters that rise and fall together, each still with its own distribution (a Gaussian copula).

    Args:
        between: their names, as ``[source.magnitude, source.R_sersic]``.
        rho: correlation of the two Gaussian numbers behind them, between -1 and 1.
    """

    between: Annotated[tuple[str, str], Field(strict=False)]  # a list in YAML
    rho: Annotated[float, Field(ge=-1, le=1)]


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
            self._fractions |= {pair.between[0]: normal_cdf(first), pair.between[1]: normal_cdf(second)}

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
