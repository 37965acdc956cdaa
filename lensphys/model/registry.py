"""What a recipe may ask for: mass and light components by their kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from lensphys.model.component import Component, LightProfile, MassProfile
from lensphys.model.light import Gaussian, Sersic
from lensphys.model.mass import EPL, NFW, SIE, SIS, TNFW, LineMass, Multipole, PointMass, Shear

MASS: dict[str, type[MassProfile]] = {
    "sis": SIS,
    "sie": SIE,
    "epl": EPL,
    "multipole": Multipole,
    "shear": Shear,
    "nfw": NFW,
    "tnfw": TNFW,
    "point_mass": PointMass,
    "line": LineMass,
}
LIGHT: dict[str, type[LightProfile]] = {"sersic": Sersic, "gaussian": Gaussian}

C = TypeVar("C", bound=Component)


def by_lenstronomy(components: Mapping[str, type[C]]) -> dict[str, type[C]]:
    """Return the components of a registry by their names in lenstronomy and in scenes.

    Example:
        >>> by_lenstronomy(MASS)["NFW"] is MASS["nfw"]
        True
    """
    return {component.lenstronomy: component for component in components.values()}
