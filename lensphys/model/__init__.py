"""What a lens system is: mass and light components with declared parameters, random fields, and their sum."""

from lensphys.model.component import Component, LightProfile, LightSum, MassProfile, MassSum, Value
from lensphys.model.field import CosineBasis, FieldPrior, Modes, PotentialField, SourcePrior
from lensphys.model.lens import LensModel, Member, centre_of
from lensphys.model.light import Envelope, Frame, FreeSource, GalaxyImage, Gaussian, ImageSource, Pixels, Sersic
from lensphys.model.mass import EPL, NFW, SIE, SIS, TNFW, LineMass, Multipole, PointMass, PointSwarm, Shear
from lensphys.model.parameter import HalfWidths, Parameter, ParameterSpace, Peaks
from lensphys.model.registry import LIGHT, MASS, by_lenstronomy

__all__ = [
    "EPL",
    "LIGHT",
    "MASS",
    "NFW",
    "SIE",
    "SIS",
    "TNFW",
    "Component",
    "CosineBasis",
    "Envelope",
    "FieldPrior",
    "Frame",
    "FreeSource",
    "GalaxyImage",
    "Gaussian",
    "HalfWidths",
    "ImageSource",
    "LensModel",
    "LightProfile",
    "LightSum",
    "LineMass",
    "MassProfile",
    "MassSum",
    "Member",
    "Modes",
    "Multipole",
    "Parameter",
    "ParameterSpace",
    "Peaks",
    "Pixels",
    "PointMass",
    "PointSwarm",
    "PotentialField",
    "Sersic",
    "Shear",
    "SourcePrior",
    "Value",
    "by_lenstronomy",
    "centre_of",
]
