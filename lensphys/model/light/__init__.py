"""Light components, one a file."""

from lensphys.model.light.free import Envelope, Frame, FreeSource
from lensphys.model.light.galaxy import GalaxyImage, Pixels, brightness_galaxy
from lensphys.model.light.gaussian import Gaussian, brightness_gaussian
from lensphys.model.light.image import ImageSource
from lensphys.model.light.sersic import Sersic, brightness_sersic, brightness_sersic_derivatives, flux_sersic, sersic_b

__all__ = [
    "Envelope",
    "Frame",
    "FreeSource",
    "GalaxyImage",
    "Gaussian",
    "ImageSource",
    "Pixels",
    "Sersic",
    "brightness_galaxy",
    "brightness_gaussian",
    "brightness_sersic",
    "brightness_sersic_derivatives",
    "flux_sersic",
    "sersic_b",
]
