"""From masses to angles: the distances that define the legacy data, and the right ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

_ARCSEC_PER_RADIAN = 206265  # rounded, as the author of the legacy data has it

Number = TypeVar("Number", float, NDArray[np.float64])
DistanceKind = Literal["luminosity", "angular_diameter"]


@dataclass(frozen=True)
class Distances:
    """Distances of a lens and its source in FlatLambdaCDM(H0=70, Om0=0.3, Ob0=0.05).

    Args:
        z_lens: redshift of the lens.
        z_source: redshift of the source, beyond the lens.
        z_convention: redshift that the deflections of masses are quoted for; None: that of the source.
        kind: ``angular_diameter`` is right; ``luminosity`` is what the legacy data were made with.

    Example:
        >>> round(Distances(0.5, 1.0, kind="luminosity").einstein_radius(1e12), 7)
        1.2814906
        >>> round(Distances(0.5, 1.0).einstein_radius(1e12), 4)
        1.6645
    """

    z_lens: float
    z_source: float
    z_convention: float | None = None
    kind: DistanceKind = "angular_diameter"

    @property
    def deflection_scale(self) -> float:
        """The factor on every deflection of a mass: see `deflection_scale`."""
        return deflection_scale(self.z_lens, self.z_source, self.z_convention)

    def einstein_radius(self, mass: Number) -> Number:
        """Return theta_E of point masses [arcsec], as it acts; ``mass`` in solar masses."""
        # a point mass deflects by theta_E^2 / r, so scaling its deflection scales theta_E by the root
        root = np.sqrt(mass * self.deflection_scale) * einstein_radius_of_solar_mass(
            self.z_lens, self.z_source, self.kind
        )
        return root if isinstance(mass, np.ndarray) else float(root)

    def einstein_radius_of_isothermal(self, mass: float) -> float:
        """Return theta_E of an isothermal lens with this mass inside of it [arcsec], as it acts."""
        # its deflection is theta_E itself, so the scale acts on it as it is
        unit = einstein_radius_of_solar_mass(self.z_lens, self.z_source, self.kind)
        return mass**0.5 * unit * self.deflection_scale

    @cached_property
    def critical_density(self) -> float:
        """Surface mass density with kappa = 1 [solar masses / arcsec^2]."""
        return 1 / (math.pi * self.einstein_radius(1.0) ** 2)


def cosmology_of_masses() -> Any:
    """Return the cosmology in which masses become angles, the one of the legacy data, FlatLambdaCDM."""
    from astropy.cosmology import FlatLambdaCDM

    return FlatLambdaCDM(H0=70, Om0=0.3, Ob0=0.05)


@lru_cache
def einstein_radius_of_solar_mass(z_lens: float, z_source: float, kind: DistanceKind) -> float:
    """Return theta_E of one solar mass [arcsec]; theta_E grows as the root of the mass.

    theta_E = sqrt(4 G M / c^2 D_LS / (D_L D_S)). The legacy data have 206265 arcsec in a radian, LUMINOSITY distances
    D_L and D_S and their difference for D_LS; ``angular_diameter`` has what the formula means.

    Args:
        z_lens: redshift of the lens.
        z_source: redshift of the source, beyond the lens.
        kind: of the distances.

    Example:
        >>> round(1e12**0.5 * einstein_radius_of_solar_mass(0.5, 1.0, "luminosity"), 7)
        1.2814906
    """
    from astropy import constants, units

    cosmology = cosmology_of_masses()
    if kind == "luminosity":
        lens, source = (cosmology.luminosity_distance(z) for z in (z_lens, z_source))
        between, arcsec = source - lens, float(_ARCSEC_PER_RADIAN)
    else:
        lens, source = (cosmology.angular_diameter_distance(z) for z in (z_lens, z_source))
        between, arcsec = source - lens * (1 + z_lens) / (1 + z_source), math.degrees(1) * 3600  # flat space
    square = 4 * constants.G * units.M_sun / constants.c**2 * between / (lens * source)
    return arcsec * float(square.decompose().value) ** 0.5


@lru_cache
def deflection_scale(z_lens: float, z_source: float, z_convention: float | None) -> float:
    """Return the factor from a deflection quoted for a source at ``z_convention`` to that of one at ``z_source``.

    D_LS / D_S at z_source over the same at z_convention, with angular-diameter distances in
    FlatLambdaCDM(H0=69.7, Om0=0.2825, Ob0=0.046): what lenstronomy does with ``z_source_convention``.

    Args:
        z_lens: redshift of the lens.
        z_source: redshift of the source.
        z_convention: redshift that the deflections are quoted for; None: that of the source, hence 1.

    Example:
        >>> round(deflection_scale(0.5, 1.0, 2.5), 5)
        0.63428
    """
    if z_convention is None:
        return 1.0
    from astropy.cosmology import FlatLambdaCDM

    cosmology = FlatLambdaCDM(H0=69.7, Om0=0.2825, Ob0=0.046)

    def ratio(z: float) -> float:
        # flat space: D_LS / D_S = 1 - chi_L / chi_S, with comoving distances chi
        return 1 - float(cosmology.comoving_distance(z_lens) / cosmology.comoving_distance(z))

    return ratio(z_source) / ratio(z_convention)
