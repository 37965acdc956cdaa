"""Dark-matter populations: what a class adds to the main lens."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt

from lensphys.basics.distributions import Distribution, PositiveDistribution
from lensphys.basics.settings import Strict
from lensphys.simulation.bodies import Bodies, Host
from lensphys.simulation.halos import Halos
from lensphys.simulation.mass_function import MassRange


class NoSubstructure(Strict):
    """The main lens alone."""

    kind: Literal["none"]

    def sample(self, rng: np.random.Generator, host: Host) -> Bodies:
        """Return no bodies, without drawing anything."""
        return Bodies()


class Vortex(Strict):
    """A vortex of axion dark matter: mass on a straight line through the centre of the lens.

    Args:
        mass: of all of it [solar masses].
        points: equal point masses, evenly spaced from end to end, both ends included (the legacy data have 100); the
            line itself, of uniform mass, if not given.
        axion_mass: m [eV].
        half_length: from the centre to an end for m = 1e-22 eV [arcsec]; it goes as 1/m.
    """

    kind: Literal["vortex"]
    mass: PositiveFloat
    points: Annotated[int, Field(ge=2)] | None = None
    axion_mass: PositiveDistribution
    half_length: PositiveFloat

    def sample(self, rng: np.random.Generator, host: Host) -> Bodies:
        """Return one vortex, in a direction drawn uniformly."""
        axion_mass = self.axion_mass.sample(rng)
        angle = rng.uniform(0, 2 * math.pi)
        length = self.half_length * 1e-22 / axion_mass
        if self.points is None:
            values = {
                "theta_E": host.distances.einstein_radius(self.mass), "length": length, "phi": angle,
                "center_x": host.center_x, "center_y": host.center_y,
            }  # fmt: skip
            return Bodies("LINE_MASS", {name: np.array([x]) for name, x in values.items()}, axion_mass)
        along = np.linspace(-length, length, self.points)
        mass = np.full(self.points, self.mass / self.points)
        x, y = along * math.cos(angle), along * math.sin(angle)
        return Bodies("POINT_MASS", _points(host, mass, x, y), axion_mass)


class SubHalos(MassRange):
    """Cold dark matter: a fixed number of point-like sub-halos.

    Args:
        number: how many.
        slope: of dN/dM. The legacy data are quoted with -1.9, but the masses in them follow -0.9 (fitted to 150 of
            them: -0.94 +- 0.03; -1.9 is excluded), as if the quoted power had been taken per logarithm of mass.
        lightest: [solar masses].
        heaviest: [solar masses].
        radius: from the centre of the lens [arcsec]; the angle is uniform.
    """

    kind: Literal["subhalos"]
    number: PositiveInt
    radius: Distribution

    def sample(self, rng: np.random.Generator, host: Host) -> Bodies:
        """Return the sub-halos of one lens, their masses by the inverse of the cumulative power law."""
        power = self.slope + 1
        low, high = self.lightest**power, self.heaviest**power
        mass = (low + rng.uniform(size=self.number) * (high - low)) ** (1 / power)
        r = np.array([self.radius.sample(rng) for _ in range(self.number)])
        angle = rng.uniform(0, 2 * math.pi, self.number)
        return Bodies("POINT_MASS", _points(host, mass, r * np.cos(angle), r * np.sin(angle)))


def _points(
    host: Host, mass: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    return {
        "theta_E": host.distances.einstein_radius(mass), "center_x": host.center_x + x, "center_y": host.center_y + y
    }  # fmt: skip


Population = Annotated[NoSubstructure | Vortex | SubHalos | Halos, Field(discriminator="kind")]
