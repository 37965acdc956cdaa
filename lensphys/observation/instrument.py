"""Instrument presets: versioned numbers of a telescope, from YAML files beside this one or of the user."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from lensphys.checks import LensphysError, check_choice
from lensphys.grid import PixelGrid
from lensphys.observation.camera import Camera, Observation
from lensphys.observation.noise import ExposureNoise, Noise, RectifiedCountNoise, background_error_map
from lensphys.observation.psf import PSF, GaussianPSF, NoPSF
from lensphys.settings import Strict, read_yaml

_FOLDER = Path(__file__).parent / "instruments"


class NoPSFSettings(Strict):
    """No PSF."""

    kind: Literal["none"]

    def build(self) -> PSF:
        """Return the PSF."""
        return NoPSF()


class GaussianPSFSettings(Strict):
    """A Gaussian PSF; FWHM in arcsec."""

    kind: Literal["gaussian"]
    fwhm: PositiveFloat

    def build(self) -> PSF:
        """Return the PSF."""
        return GaussianPSF(self.fwhm)


class ExposureNoiseSettings(Strict):
    """Read noise [e-], sky [mag/arcsec^2], exposure [s]."""

    kind: Literal["exposure"]
    read_noise: Annotated[float, Field(ge=0)]
    sky_brightness: float
    exposure_time: PositiveFloat
    num_exposures: PositiveInt = 1


class RectifiedCountNoiseSettings(Strict):
    """Counts cut at zero; the numbers are estimated from each image."""

    kind: Literal["rectified_counts"]


class EstimatedNoiseSettings(Strict):
    """White noise, estimated from each image."""

    kind: Literal["estimated"]


class Instrument(Strict):
    """A telescope: pixel scale [arcsec], PSF, noise, and the zero point that turns magnitudes into its unit.

    ``supersampling``: points along the side of a pixel; 1 evaluates it at its centre, as the legacy data do.

    Example:
        >>> import torch
        >>> Instrument.named("model_2").noise_of(torch.rand(1, 1, 8, 8)).exposure_time
        2264.0
    """

    version: PositiveInt
    description: str
    pixel_scale: PositiveFloat
    unit: Literal["counts", "e-/s"]
    zero_point: float | None = None
    supersampling: PositiveInt = 2
    psf: Annotated[NoPSFSettings | GaussianPSFSettings, Field(discriminator="kind")]
    noise: Annotated[
        ExposureNoiseSettings | RectifiedCountNoiseSettings | EstimatedNoiseSettings, Field(discriminator="kind")
    ]

    @classmethod
    def named(cls, name: str) -> Instrument:
        """Return a preset by its name, or the instrument in a user's YAML file.

        Raises:
            LensphysError: if there is no such preset, or the file is faulty.
        """
        path = Path(name)
        if path.suffix not in (".yaml", ".yml"):
            check_choice("instrument", name, instrument_names())
            path = _FOLDER / f"{name}.yaml"
        return cls.parse(read_yaml(path), f"instrument {name}")

    def flux(self, magnitude: float) -> float:
        """Return the flux [e-/s] of a magnitude.

        Raises:
            LensphysError: if the instrument has no zero point.
        """
        if self.zero_point is None:
            raise LensphysError(f"{self.description}: no zero_point, so a magnitude has no flux: give an amplitude")
        return 10 ** (-0.4 * (magnitude - self.zero_point))

    def camera(self, height: int, width: int) -> Camera:
        """Return the camera with H x W of its pixels."""
        return Camera(PixelGrid(height, width, self.pixel_scale), self.psf.build(), self.supersampling)

    def noise_of(self, image: Tensor) -> Noise:
        """Return the noise law of images (B, 1, H, W): from its numbers, or estimated from the images."""
        settings = self.noise
        if isinstance(settings, RectifiedCountNoiseSettings):
            return RectifiedCountNoise.from_image(image)
        if isinstance(settings, EstimatedNoiseSettings):
            return background_error_map(image)
        if self.zero_point is None:
            raise LensphysError(f"{self.description}: exposure noise needs a zero_point for its sky brightness")
        numbers = settings.model_dump(exclude={"kind"})
        return ExposureNoise.from_instrument(**numbers, zero_point=self.zero_point, pixel_scale=self.pixel_scale)

    def observation(self, image: Tensor) -> Observation:
        """Return images (B, 1, H, W) of this instrument as an `Observation`."""
        return Observation(image, self.camera(*image.shape[-2:]), self.noise_of(image))


def instrument_names() -> list[str]:
    """Return the names of the presets."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))
