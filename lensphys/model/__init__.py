"""What a lens system is: mass and light components with declared parameters, random fields, and their sum."""

from lensphys.model.component import Component, LightProfile, MassProfile, MassSum, Value
from lensphys.model.field import CosineBasis, FieldPrior, PotentialField
from lensphys.model.light import ImageSource, Sersic
from lensphys.model.mass import EPL, NFW, SIE, SIS, TNFW, LineMass, Multipole, PointMass, PointSwarm, Shear
from lensphys.model.parameter import HalfWidths, Parameter, ParameterSpace, Peaks
from lensphys.model.registry import LIGHT, MASS, by_lenstronomy

__all__ = [
    "EPL", "LIGHT", "MASS", "NFW", "SIE", "SIS", "TNFW", "Component", "CosineBasis", "FieldPrior", "HalfWidths",
    "ImageSource", "LightProfile", "LineMass", "MassProfile", "MassSum", "Multipole", "Parameter", "ParameterSpace",
    "Peaks", "PointMass", "PointSwarm", "PotentialField", "Sersic", "Shear", "Value", "by_lenstronomy",
]  # fmt: skip
