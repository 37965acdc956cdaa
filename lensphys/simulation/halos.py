"""Truncated NFW halos: cold or warm, in the main lens and along the line of sight."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, PositiveFloat

from lensphys.basics.checks import LensphysError
from lensphys.basics.distributions import Distribution, Fixed, fixed
from lensphys.basics.settings import Strict
from lensphys.model.mass.tnfw import truncated_mass
from lensphys.simulation.bodies import Bodies, Host
from lensphys.simulation.halo_structure import (
    median_concentration,
    nfw_mass,
    warm_concentration_ratio,
)
from lensphys.simulation.light_cone import FIELD_SLOPE, light_cone
from lensphys.simulation.mass_function import FIELD_CUTOFF, SUBHALO_CUTOFF, MassRange, PowerLaw

Array = NDArray[np.float64]

MOST_HALOS = 20_000  # expected in one lens: beyond it a recipe is a slip, and its images take minutes each


@dataclass(frozen=True)
class HaloList:
    """Halos of one lens, before they are angles.

    Args:
        mass: (K,) M200 before truncation [solar masses].
        concentration: (K,) r200 / r_s.
        tau: truncation radius, (K,) [r_s].
        redshift: (K,).
        x: (K,) from the host, as it is seen in the plane of the lens [arcsec].
        y: (K,) likewise.
    """

    mass: Array
    concentration: Array
    tau: Array
    redshift: Array
    x: Array
    y: Array

    def parameters(self, host: Host) -> dict[str, Array]:
        """Return the parameters of lenstronomy's TNFW, (K,) each, in the plane of the lens [arcsec].

        alpha_Rs is the reduced deflection that the halo without its truncation has at its scale radius,
        theta_E^2(M0) (1 - ln 2) / Rs with M0 = 4 pi rho_s r_s^3 and the distances of the halo's own redshift. What
        the main lens does to the halos before and behind it is said in `LineOfSight`.
        """
        cone = light_cone(host.distances.z_lens, host.distances.z_source)
        scale = cone.radius_200(self.mass, self.redshift) / self.concentration
        strength = cone.einstein_square(self.redshift) * self.mass / nfw_mass(self.concentration)
        deflection = cone.weight(self.redshift) * strength * (1 - math.log(2)) / scale
        seen = scale / cone.width(self.redshift)
        return {
            "Rs": seen, "alpha_Rs": deflection, "r_trunc": self.tau * seen,
            "center_x": host.center_x + self.x, "center_y": host.center_y + self.y,
        }  # fmt: skip


class LineOfSight(Strict):
    """Field halos between us and the source, with the masses and radius of the sub-halos beside them.

    Their comoving number density is dn/dM = scale 6.7e-8 (M / 10^8)^-1.91 (1 + z)^0.34 per Mpc^3 and solar mass, a
    fit to Sheth & Tormen (1999) (see `light_cone`), in the double cone over the disc; no clustering about the lens.
    They end at r200.

    Each acts in the plane of the lens, its deflection reduced with its own distances; deflections of deflections
    among halos are left out (Born). What the main lens does to a halo is kept to first order, chi being comoving
    distances and w = chi_z (chi_S - chi_L) / (chi_L (chi_S - chi_z)):

    - before the lens the ray comes to the lens displaced by (1 - w) alpha, and seen from there the halo deflects by
      w alpha. Left out is that the sky itself is displaced by (1 - w) alpha, milliarcseconds;
    - behind the lens the ray is bent before it comes to the halo. The lens is taken as a sheet with kappa = 1, the mean
      inside of theta_E: positions, Rs and r_trunc are magnified by w, the shift in the source plane is as it is. On the
      ring the tangential stretch is right, the radial one (1 for an isothermal lens) is not: these halos are too round.

    Against ray-tracing through the planes with an isothermal lens (z 0.4, source at 1.5, halo of 10^9 on the ring), the
    deflection within half an arcsec is off by 0.3 % or less before the lens, by 13 %, 34 % and 58 % at z = 0.5, 0.7
    and 1: enough for the statistics of a population, not for the shape of one halo far behind the lens.

    The mean convergence of the halos is not taken off, though the distances hold the mean density of the universe.

    Args:
        scale: factor on the number of halos; 0 has none.
    """

    scale: Distribution = fixed(1.0)


class Halos(MassRange):
    """Truncated NFW halos, uniform in a disc about the host: cold dark matter, or warm with a half-mode mass.

    The draws, in their order: fraction, truncation, scale of the line of sight; the numbers of sub-halos and of field
    halos (Poisson); mass, distance, angle and concentration of all of them, sub-halos first; redshifts of the field
    halos; at last the half-mode mass and who survives it. Warm dark matter hence takes halos away and makes the rest
    less concentrated, and the same seed without `half_mode_mass` gives the same halos and those that it took.

    Nothing is taken off the host: the halos add the convergence `fraction` inside of the disc, so the ring of an
    isothermal lens has the radius theta_E / (1 - fraction), larger still with field halos. To hold the ring, lower
    theta_E of the main lens in the recipe.

    Args:
        lightest: M200 at infall [solar masses].
        heaviest: M200 at infall [solar masses].
        slope: of dN/dM, the power of M.
        fraction: mean convergence of the cold sub-halos between lightest and heaviest, 0 to below 1: their bound
            (truncated) mass over that of a lens with mean kappa = 1, pi theta_E^2 critical_density inside of theta_E.
            The number density on the sky is fraction critical_density / <bound mass>, and warm dark matter takes from
            that number without making up for it. Bound mass is M200 g(tau) / m(c), some 60 % of M200 at 10^8.
        radius: of the disc [arcsec]. Beyond it is nothing, so it should reach past the arcs.
        half_mode_mass: M_hm of warm dark matter [solar masses]; None: cold. A thermal relic of m keV has
            M_hm = 10^9 (m / 2.32)^(-10/3) (Om0 / 0.25)^(4/3) (h / 0.7)^(8/3) (after Schneider et al. 2012), about
            5e8 at 3 keV. The cut-off is `Cutoff`, concentrations shrink by `warm_concentration_ratio`.
        truncation: tau = r_trunc / r_s of the sub-halos, one draw a lens. The default of 5 is what the tidal law
            r_t = 1.4 kpc (M / 10^7)^(1/3) (r / 50 kpc)^(2/3) of Gilman et al. (2020) gives at 10^8 and 50 kpc.
        concentration_scatter: log-normal, about `median_concentration` [dex].
        line_of_sight: field halos as well; None: none.
    """

    kind: Literal["halos"]
    slope: float = -1.9
    fraction: Distribution
    radius: PositiveFloat
    half_mode_mass: Distribution | None = None
    truncation: Distribution = fixed(5.0)
    concentration_scatter: NonNegativeFloat = 0.13
    line_of_sight: LineOfSight | None = None

    def sample(self, rng: np.random.Generator, host: Host) -> Bodies:
        """Return the halos of one lens."""
        return Bodies("TNFW", self.halos(rng, host).parameters(host))

    def halos(self, rng: np.random.Generator, host: Host) -> HaloList:
        """Return the halos of one lens, before they are angles.

        Raises:
            LensphysError: if the distances are the legacy ones, a draw is impossible or far too many are expected.
        """
        _check_distances(host)
        fraction, tau = _fraction(self.fraction.sample(rng)), _positive("truncation", self.truncation.sample(rng))
        expected = (
            self._subhalos(host, fraction, tau),
            self._field(host, self.line_of_sight.scale.sample(rng)) if self.line_of_sight else 0.0,
        )
        self._check_number(sum(expected))
        sub, field = (int(rng.poisson(number)) for number in expected)
        total = sub + field
        u = rng.uniform(size=total)
        mass = np.concatenate([self._law.quantile(u[:sub]), self._field_law.quantile(u[sub:])])
        r, angle = self.radius * np.sqrt(rng.uniform(size=total)), rng.uniform(0, 2 * math.pi, total)
        scatter = 10 ** (self.concentration_scatter * rng.standard_normal(total))
        along = light_cone(host.distances.z_lens, host.distances.z_source).quantile(rng.uniform(size=field))
        z = np.concatenate([np.full(sub, host.distances.z_lens), along])
        c = median_concentration(mass, z) * scatter
        warm, alive = self._warmth(rng, mass, z, sub)
        c = c * warm
        tau_of_each = np.concatenate([np.full(sub, tau), c[sub:]])  # field halos end at r200
        columns = (mass, c, tau_of_each, z, r * np.cos(angle), r * np.sin(angle))
        return HaloList(*(column[alive] for column in columns))

    def _warmth(
        self, rng: np.random.Generator, mass: Array, z: Array, sub: int
    ) -> tuple[Array | float, NDArray[np.bool_]]:
        if self.half_mode_mass is None:
            return 1.0, np.ones(len(mass), dtype=bool)
        half_mode = _positive("half_mode_mass", self.half_mode_mass.sample(rng))
        survival = np.concatenate(
            [SUBHALO_CUTOFF.survival(mass[:sub], half_mode), FIELD_CUTOFF.survival(mass[sub:], half_mode)]
        )
        return warm_concentration_ratio(mass, z, half_mode), rng.uniform(size=len(mass)) < survival

    def expected_number(self, host: Host) -> float:
        """Return the mean number of halos over many samples.

        Raises:
            LensphysError: as `halos` does.
        """
        _check_distances(host)

        def left(cutoff: Callable[[Array, float], Array], law: PowerLaw) -> float:
            if self.half_mode_mass is None:
                return 1.0
            return _mean(self.half_mode_mass, lambda m: law.mean(lambda mass: cutoff(mass, m)))

        per_fraction = _mean(self.truncation, lambda tau: self._subhalos(host, 1.0, tau))
        number = _mean(self.fraction, _fraction) * per_fraction * left(SUBHALO_CUTOFF.survival, self._law)
        if self.line_of_sight is None:
            return number
        scale = _mean(self.line_of_sight.scale, lambda x: x)
        return number + self._field(host, scale) * left(FIELD_CUTOFF.survival, self._field_law)

    @property
    def _law(self) -> PowerLaw:
        return PowerLaw(self.lightest, self.heaviest, self.slope)

    @property
    def _field_law(self) -> PowerLaw:
        return PowerLaw(self.lightest, self.heaviest, FIELD_SLOPE)

    def _subhalos(self, host: Host, fraction: float, tau: float) -> float:
        """The number of cold sub-halos that is expected in the disc."""
        nodes, weights = _gaussian_nodes()
        scatter = 10 ** (self.concentration_scatter * nodes)

        def bound(mass: Array) -> Array:
            c = median_concentration(mass, host.distances.z_lens)[:, None] * scatter
            return mass * (truncated_mass(tau) / nfw_mass(c) @ weights)

        area = math.pi * self.radius**2
        return fraction * host.distances.critical_density * area / self._law.mean(bound)

    def _field(self, host: Host, scale: float) -> float:
        """The number of cold field halos that is expected in the cone."""
        if not 0 <= scale < math.inf:
            raise LensphysError(
                f"the recipe drew {scale:g} for line_of_sight.scale, which must be 0 or more: narrow its distribution"
            )
        cone = light_cone(host.distances.z_lens, host.distances.z_source)
        return scale * cone.expected_number(self._field_law, self.radius)

    def _check_number(self, expected: float) -> None:
        if expected > MOST_HALOS:
            raise LensphysError(
                f"halos above {self.lightest:g} solar masses within {self.radius:g} arcsec are {expected:.3g} in one "
                f"lens, and at most {MOST_HALOS} can be drawn: raise lightest, or lower fraction or radius"
            )


@lru_cache
def _gaussian_nodes() -> tuple[Array, Array]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(16)
    return nodes, weights / weights.sum()


def _check_distances(host: Host) -> None:
    kind, convention = host.distances.kind, host.distances.z_convention
    if kind != "angular_diameter" or convention is not None:
        raise LensphysError(
            "halos need angular_diameter distances that are quoted for the source itself, got "
            f"distances: {kind} and z_source_convention: {convention}: write `distances: angular_diameter` and leave "
            "z_source_convention out"
        )


def _fraction(value: float) -> float:
    if not 0 <= value < 1:
        raise LensphysError(
            f"the recipe drew {value:g} for fraction, which must be at least 0 and below 1: narrow its distribution"
        )
    return value


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise LensphysError(f"the recipe drew {value:g} for {name}, which must be positive: narrow its distribution")
    return value


def _mean(distribution: Distribution, value: Callable[[float], float]) -> float:
    if isinstance(distribution, Fixed):
        return value(distribution.value)
    return sum(value(distribution.quantile((i + 0.5) / 200)) for i in range(200)) / 200
