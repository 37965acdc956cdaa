"""Mass components, one a file."""

from lensphys.model.mass.epl import EPL, deflection_epl
from lensphys.model.mass.line import LineMass, deflection_line
from lensphys.model.mass.multipole import Multipole, deflection_multipole
from lensphys.model.mass.nfw import NFW, deflection_nfw
from lensphys.model.mass.point import PointMass, PointSwarm, deflection_point, deflection_points
from lensphys.model.mass.shear import Shear, deflection_shear
from lensphys.model.mass.sie import SIE, deflection_sie, deflection_sie_derivatives
from lensphys.model.mass.sis import SIS, deflection_sis
from lensphys.model.mass.tnfw import TNFW, deflection_tnfw

__all__ = [
    "EPL", "NFW", "SIE", "SIS", "TNFW", "LineMass", "Multipole", "PointMass", "PointSwarm", "Shear", "deflection_epl",
    "deflection_line", "deflection_multipole", "deflection_nfw", "deflection_point", "deflection_points",
    "deflection_shear", "deflection_sie", "deflection_sie_derivatives", "deflection_sis", "deflection_tnfw",
]  # fmt: skip
