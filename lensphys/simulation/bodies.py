"""The main lens that substructure lives in, and the bodies of a substructure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lensphys.simulation.cosmology import Distances


@dataclass(frozen=True)
class Host:
    """The main lens that a population lives in.

    Args:
        center_x: [arcsec].
        center_y: [arcsec].
        distances: from masses to angles.
    """

    center_x: float
    center_y: float
    distances: Distances


@dataclass(frozen=True)
class Bodies:
    """Bodies of one kind.

    Args:
        profile: name of their mass profile, lenstronomy's where it has it.
        parameters: of the profile, (K,) each [arcsec].
        axion_mass: [eV]; NaN where the population has none.
    """

    profile: str = "POINT_MASS"
    parameters: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    axion_mass: float = math.nan

    def keywords(self) -> list[dict[str, float]]:
        """Return the parameters of each body."""
        columns = [values.tolist() for values in self.parameters.values()]
        return [dict(zip(self.parameters, row, strict=True)) for row in zip(*columns, strict=True)]
