"""Analytic mass and light profiles, batched over the first axis."""

from lensphys.profiles.light import ImageSource, Sersic
from lensphys.profiles.mass import NFW, SIE, SIS, MassProfile, MassSum, PointMass, PointSwarm, Shear
from lensphys.profiles.potential import CosineBasis, FieldPrior, PotentialField

__all__ = [
    "NFW",
    "SIE",
    "SIS",
    "CosineBasis",
    "FieldPrior",
    "ImageSource",
    "MassProfile",
    "MassSum",
    "PointMass",
    "PointSwarm",
    "PotentialField",
    "Sersic",
    "Shear",
]
