"""PSF, pixels, noise and instrument presets."""

from lensphys.observation.camera import Camera, Observation, Observations, block_sum
from lensphys.observation.instrument import Conditions, Instrument, instrument_names
from lensphys.observation.moffat import MoffatPSF
from lensphys.observation.noise import ErrorMap, ExposureNoise, ModelErrorNoise, Noise, RectifiedCountNoise, SkyNoise
from lensphys.observation.psf import PSF, GaussianPSF, NoPSF, PixelPSF, UnknownPSF

__all__ = [
    "PSF",
    "Camera",
    "Conditions",
    "ErrorMap",
    "ExposureNoise",
    "GaussianPSF",
    "Instrument",
    "ModelErrorNoise",
    "MoffatPSF",
    "NoPSF",
    "Noise",
    "Observation",
    "Observations",
    "PixelPSF",
    "RectifiedCountNoise",
    "SkyNoise",
    "UnknownPSF",
    "block_sum",
    "instrument_names",
]
