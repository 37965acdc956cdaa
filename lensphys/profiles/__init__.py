"""Analytic mass and light profiles, batched over the first axis."""

from lensphys.profiles.light import ImageSource, Sersic
from lensphys.profiles.mass import NFW, SIE, SIS, MassProfile, MassSum, PointMass, Shear

__all__ = ["NFW", "SIE", "SIS", "ImageSource", "MassProfile", "MassSum", "PointMass", "Sersic", "Shear"]
