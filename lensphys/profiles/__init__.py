"""Analytic mass and light profiles, batched over the first axis."""

from lensphys.profiles.light import ImageSource, Sersic
from lensphys.profiles.line import LineMass
from lensphys.profiles.mass import NFW, SIE, SIS, MassProfile, MassSum, PointMass, PointSwarm, Shear
from lensphys.profiles.multipole import Multipole
from lensphys.profiles.potential import CosineBasis, FieldPrior, PotentialField
from lensphys.profiles.power_law import EPL
from lensphys.profiles.truncated_nfw import TNFW

__all__ = [
    "EPL",
    "NFW",
    "SIE",
    "SIS",
    "TNFW",
    "CosineBasis",
    "FieldPrior",
    "ImageSource",
    "LineMass",
    "MassProfile",
    "MassSum",
    "Multipole",
    "PointMass",
    "PointSwarm",
    "PotentialField",
    "Sersic",
    "Shear",
]
