"""The distances that define the legacy data: Einstein radii of masses, and the deflection scale."""

from __future__ import annotations

from functools import lru_cache

_ARCSEC_PER_RADIAN = 206265  # rounded, as the data's author has it


@lru_cache
def einstein_radius_of_solar_mass(z_lens: float, z_source: float) -> float:
    """Return theta_E of one solar mass [arcsec] as the legacy data have it; theta_E grows as the root of the mass.

    theta_E = 206265 sqrt(4 G M / c^2 (D_S - D_L) / (D_L D_S)) in FlatLambdaCDM(H0=70, Om0=0.3, Ob0=0.05). The
    distances should be angular-diameter ones; the data were made with LUMINOSITY distances, and so is this.

    Args:
        z_lens: redshift of the lens.
        z_source: redshift of the source, beyond the lens.

    Example:
        >>> round(1e12**0.5 * einstein_radius_of_solar_mass(0.5, 1.0), 7)
        1.2814906
    """
    from astropy import constants, units
    from astropy.cosmology import FlatLambdaCDM

    cosmology = FlatLambdaCDM(H0=70, Om0=0.3, Ob0=0.05)
    lens, source = (cosmology.luminosity_distance(z) for z in (z_lens, z_source))
    square = 4 * constants.G * units.M_sun / constants.c**2 * (source - lens) / (lens * source)
    return _ARCSEC_PER_RADIAN * float(square.decompose().value) ** 0.5


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
