"""Inner structure of dark-matter halos: concentration and truncation of an NFW profile."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def median_concentration(mass: Array, redshift: Array | float) -> Array:
    """Return the median c200 of cold halos.

    c = 18.3 (M / 10^8)^-0.066 (1 + z)^(-0.616 - 0.204 ln(1 + z)): our fit to Diemer & Joyce (2019, ApJ 871, 168), as
    colossus 1.4 has it for the cosmology of `Distances` with sigma8 0.81 and n_s 0.965, within 8 % for 10^6..10^10.5
    solar masses and z = 0..3. Duffy et al. (2008), fitted above 10^11 solar masses, is 20 to 25 % lower at 10^8.

    Args:
        mass: (K,) M200 [solar masses].
        redshift: (K,) or one number.
    """
    stretch = np.log1p(redshift)
    return np.asarray(18.3 * (mass / 1e8) ** -0.066 * np.exp(-0.616 * stretch - 0.204 * stretch**2))


def warm_concentration_ratio(mass: Array, redshift: Array | float, half_mode_mass: float) -> Array:
    """Return c_WDM / c_CDM = (1 + z)^(0.026 z - 0.04) (1 + 60 M_hm / M)^-0.17.

    Args:
        mass: (K,) M200 [solar masses].
        redshift: (K,) or one number.
        half_mode_mass: M_hm [solar masses].

    Source:
        Bose et al. (2016), MNRAS 455, 318.
    """
    growth = (1 + redshift) ** (0.026 * redshift - 0.04)
    return np.asarray(growth * (1 + 60 * half_mode_mass / mass) ** -0.17)


def nfw_mass(concentration: Array) -> Array:
    """Return M200 of NFW halos (K,) of concentration c in units of 4 pi rho_s r_s^3: ln(1 + c) - c / (1 + c)."""
    return np.log1p(concentration) - concentration / (1 + concentration)
