"""Masses of dark-matter halos: the power law they are drawn from, and the cut-off of warm dark matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, model_validator

from lensphys.basics.settings import Strict

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PowerLaw:
    """dN/dM proportional to M^slope between two masses; a slope of -1 has no power law as its integral.

    Args:
        lightest: [solar masses, M200].
        heaviest: [solar masses, M200].
        slope: of dN/dM, the power of M.
    """

    lightest: float
    heaviest: float
    slope: float

    def quantile(self, u: Array) -> Array:
        """Return the masses (K,) [solar masses] that fractions ``u`` (K,) of the halos stay below."""
        power = self.slope + 1
        return self.lightest * (1 + u * ((self.heaviest / self.lightest) ** power - 1)) ** (1 / power)

    def integral(self) -> float:
        """Return the integral of M^slope dM [solar masses^(slope + 1)]."""
        power = self.slope + 1
        return (self.heaviest**power - self.lightest**power) / power

    def mean(self, value: Callable[[Array], Array]) -> float:
        """Return the mean over the halos of ``value(mass [solar masses])``, by Gauss-Legendre quadrature in ln M."""
        nodes, weights = _legendre_nodes()
        span = np.log(self.heaviest / self.lightest)
        scaled = np.exp(span * (nodes + 1) / 2)  # masses in units of the lightest: no power of them overflows
        weights = weights * scaled ** (self.slope + 1)
        return float((weights * value(self.lightest * scaled)).sum() / weights.sum())


@lru_cache
def _legendre_nodes() -> tuple[Array, Array]:
    return np.polynomial.legendre.leggauss(64)


class MassRange(Strict):
    """Settings of a population whose masses follow a power law.

    Args:
        lightest: [solar masses].
        heaviest: [solar masses].
        slope: of dN/dM, the power of M.
    """

    lightest: PositiveFloat
    heaviest: PositiveFloat
    slope: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.lightest < self.heaviest:
            raise ValueError(f"lightest must be below heaviest, got {self.lightest:g} and {self.heaviest:g}")
        if self.slope == -1:
            raise ValueError("slope -1 has no power law as its integral: write -1.000001")
        return self


@dataclass(frozen=True)
class Cutoff:
    """What is left of the cold dark matter's halos when it is warm: (1 + (a M_hm / M)^b)^c.

    Args:
        a: mass of the cut-off in half-mode masses, without unit.
        b: how sharply it cuts, without unit.
        c: what is left falls as M^(-b c) far below the cut-off, without unit.

    Source:
        Lovell (2020), ApJ 897, 147, for the form and the constants.
    """

    a: float
    b: float
    c: float

    def survival(self, mass: Array, half_mode_mass: float) -> Array:
        """Return N_WDM / N_CDM at masses (K,), which are in solar masses like the half-mode mass."""
        return (1 + (self.a * half_mode_mass / mass) ** self.b) ** self.c


SUBHALO_CUTOFF = Cutoff(4.2, 2.5, -0.2)
FIELD_CUTOFF = Cutoff(2.3, 0.8, -1.0)
