"""Instrument presets: versioned numbers of a telescope, from YAML files beside this one or of the user."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from lensphys.checks import LensphysError, check_choice
from lensphys.grid import PixelGrid
from lensphys.observation.camera import Camera, Observation
from lensphys.observation.noise import ExposureNoise, Noise, RectifiedCountNoise, background_error_map
from lensphys.observation.per_image import PerImage
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


@dataclass(frozen=True)
class Conditions(PerImage):
    """What differs from image to image of a batch; None: as the instrument's preset has it.

    Args:
        psf_fwhm: of a Gaussian PSF in place of the preset's, (B,) [arcsec].
        exposure_time: total, (B,) [s].
        background_rms: (B,) [unit of the instrument per pixel].

    Raises:
        LensphysError: if one half of the noise is missing, or a tensor has not the shape (B,).
    """

    psf_fwhm: Tensor | None = None
    exposure_time: Tensor | None = None
    background_rms: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.exposure_time is None) != (self.background_rms is None):
            raise LensphysError("exposure_time and background_rms make the noise together: give both or neither")
        for name, value in vars(self).items():
            if value is not None and value.ndim != 1:
                raise LensphysError(f"{name} must have the shape (B,), got {tuple(value.shape)}")

    @property
    def noise(self) -> ExposureNoise | None:
        """The noise law of these numbers."""
        if self.exposure_time is None or self.background_rms is None:
            return None
        return ExposureNoise(self.background_rms[:, None, None, None], self.exposure_time[:, None, None, None])


CONDITIONS = tuple(field.name for field in fields(Conditions))  # their names in recipes and files
_PRESET = Conditions()


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

    def psf_of(self, conditions: Conditions = _PRESET) -> PSF:
        """Return the PSF."""
        return self.psf.build() if conditions.psf_fwhm is None else GaussianPSF(conditions.psf_fwhm)

    def camera(self, height: int, width: int, conditions: Conditions = _PRESET) -> Camera:
        """Return the camera with H x W of its pixels."""
        return Camera(PixelGrid(height, width, self.pixel_scale), self.psf_of(conditions), self.supersampling)

    def noise_of(self, image: Tensor, conditions: Conditions = _PRESET) -> Noise:
        """Return the noise law of images (B, 1, H, W): from known numbers, or estimated from the images."""
        if (known := conditions.noise) is not None:
            return known
        settings = self.noise
        if isinstance(settings, RectifiedCountNoiseSettings):
            return RectifiedCountNoise.from_image(image)
        if isinstance(settings, EstimatedNoiseSettings):
            return background_error_map(image)
        if self.zero_point is None:
            raise LensphysError(f"{self.description}: exposure noise needs a zero_point for its sky brightness")
        numbers = settings.model_dump(exclude={"kind"})
        return ExposureNoise.from_instrument(**numbers, zero_point=self.zero_point, pixel_scale=self.pixel_scale)

    def observation(self, image: Tensor, conditions: Conditions = _PRESET) -> Observation:
        """Return images (B, 1, H, W) of this instrument as an `Observation`, with what is known of each."""
        height, width = image.shape[-2:]
        return Observation(image, self.camera(height, width, conditions), self.noise_of(image, conditions))


def instrument_names() -> list[str]:
    """Return the names of the presets."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))
