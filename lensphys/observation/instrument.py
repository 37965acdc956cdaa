"""Instrument presets: versioned numbers of a telescope, from YAML files beside this one or of the user."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, FiniteFloat, PlainValidator, PositiveFloat, PositiveInt, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from torch import Tensor

from lensphys.basics.checks import LensphysError, check_choice
from lensphys.basics.settings import Strict, read_yaml
from lensphys.basics.sizes import PIXEL_SCALES
from lensphys.observation.camera import Camera, Observation
from lensphys.observation.noise import ExposureNoise, Noise, RectifiedCountNoise, SkyNoise
from lensphys.observation.per_image import PerImage
from lensphys.observation.psf import PSF
from lensphys.observation.psf_settings import PSFSettings, with_kernel_read
from lensphys.tracing.grid import PixelGrid

_FOLDER = Path(__file__).parent / "instruments"


class NoiseSettings(Strict, ABC):
    """What an instrument says of its noise.

    Attributes:
        known: whether it knows the numbers; else they are estimated from each image.
        cut_at_zero: whether values below zero are recorded as zero.
    """

    known: ClassVar[bool] = False
    cut_at_zero: ClassVar[bool] = False

    @abstractmethod
    def law(self, image: Tensor, instrument: Instrument) -> Noise:
        """Return the law of images (B, 1, H, W) [unit of the instrument] of the instrument that says so."""


class ExposureNoiseSettings(NoiseSettings):
    """The noise of an exposure: read-out, sky and light.

    Args:
        read_noise: standard deviation of a pixel, in each exposure [e-], whatever the unit of the data.
        sky_brightness: [mag / arcsec^2].
        exposure_time: of one exposure [s].
        num_exposures: how many are added.
    """

    known: ClassVar[bool] = True

    kind: Literal["exposure"]
    read_noise: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    sky_brightness: FiniteFloat
    exposure_time: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    num_exposures: PositiveInt = 1

    def law(self, image: Tensor, instrument: Instrument) -> Noise:
        """Return that of these numbers, whatever the images (B, 1, H, W); its variance is in the instrument's unit.

        Raises:
            LensphysError: if the instrument has no zero point.
        """
        if instrument.zero_point is None:
            raise LensphysError(f"{instrument.description}: exposure noise needs a zero_point for its sky brightness")
        # in electrons; e- = gain * ADU, so that a variance b^2 + I / t in e-/s is (b / gain)^2 + I / (gain t) in ADU/s
        gain = instrument.gain or 1.0
        electrons = ExposureNoise.from_instrument(
            **self.model_dump(exclude={"kind"}),
            zero_point=instrument.zero_point + 2.5 * math.log10(gain),
            pixel_scale=instrument.pixel_scale,
        )
        if instrument.gain is None:
            return electrons
        return ExposureNoise(electrons.background_rms / gain, electrons.exposure_time * gain)


class RectifiedCountNoiseSettings(NoiseSettings):
    """Counts cut at zero; the numbers are estimated from each image."""

    cut_at_zero: ClassVar[bool] = True

    kind: Literal["rectified_counts"]

    def law(self, image: Tensor, instrument: Instrument) -> Noise:
        """Return that of each image (B, 1, H, W)."""
        return RectifiedCountNoise.from_image(image)


class EstimatedNoiseSettings(NoiseSettings):
    """White noise, estimated from each image."""

    kind: Literal["estimated"]

    def law(self, image: Tensor, instrument: Instrument) -> Noise:
        """Return that of each image (B, 1, H, W)."""
        return SkyNoise.from_image(image)


@dataclass(frozen=True)
class Conditions(PerImage):
    """What differs from image to image of a batch; None: as the instrument's preset has it.

    Args:
        psf_fwhm: in place of the preset's, (B,) [arcsec]; of a Gaussian where the preset has no PSF.
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
START = 4  # points along the side of a pixel, where they are chosen by error


def _points(given: object) -> object:
    """One sentence in place of one for each kind of value."""
    if given == "auto" or (isinstance(given, int) and not isinstance(given, bool) and given > 0):
        return given
    raise PydanticCustomError("points", "Input should be auto, or a whole number greater than 0")


class Instrument(Strict):
    """A telescope and its camera in a band.

    Args:
        version: grows when the numbers change.
        description: one line.
        pixel_scale: side of a pixel [arcsec].
        unit: of the data, per pixel.
        gain: electrons in a unit of data in ADU/s [e-/ADU]; of other units none.
        zero_point: magnitude of 1 ``unit``; without it light is given as a flux, and not as a magnitude.
        supersampling: points along the side of a pixel; 1 evaluates it at its centre, as the legacy data do. With
            ``auto`` simulations take as many as their sources ask for, by the error of fewer, and fits begin with
            `START`.
        psf: none, Gaussian, Moffat, or a kernel in a file.
        noise: of known exposures, or estimated from each image.

    Example:
        >>> import torch
        >>> Instrument.named("model_2").noise_of(torch.rand(1, 1, 8, 8)).exposure_time
        2264.0
    """

    version: PositiveInt
    description: str
    pixel_scale: Annotated[float, Field(ge=PIXEL_SCALES[0], le=PIXEL_SCALES[1], allow_inf_nan=False)]
    unit: Literal["counts", "e-/s", "ADU/s"]
    gain: Annotated[PositiveFloat | None, Field(validate_default=True, allow_inf_nan=False)] = None
    zero_point: FiniteFloat | None = None
    supersampling: Annotated[int | Literal["auto"], PlainValidator(_points)] = "auto"
    psf: Annotated[PSFSettings, Field(discriminator="kind")]
    noise: Annotated[
        ExposureNoiseSettings | RectifiedCountNoiseSettings | EstimatedNoiseSettings, Field(discriminator="kind")
    ]

    @field_validator("gain")
    @classmethod
    def _gain_fits_the_unit(cls, gain: float | None, info: ValidationInfo) -> float | None:
        unit = info.data.get("unit", "ADU/s" if gain else "e-/s")
        if unit == "ADU/s" and gain is None:
            raise PydanticCustomError("gain", "the unit ADU/s needs a gain in e-/ADU")
        if unit != "ADU/s" and gain is not None:
            raise PydanticCustomError("gain", f"a gain means nothing for the unit {unit}: leave it out, or use ADU/s")
        return gain

    @classmethod
    def named(cls, name: str) -> Instrument:
        """Return a preset by its name, or the instrument in a user's YAML file.

        Raises:
            LensphysError: if there is no such preset, or the file is faulty.
        """
        path, where = Path(name), f"instrument {name}"
        if path.suffix not in (".yaml", ".yml"):
            check_choice("instrument", name, instrument_names())
            path = _FOLDER / f"{name}.yaml"
        return cls.parse(with_kernel_read(read_yaml(path), path.parent, where), where)

    @property
    def points(self) -> int:
        """Points along the side of a pixel, to begin with where they are chosen by error."""
        return START if self.supersampling == "auto" else self.supersampling

    def same_as(self, other: Instrument | None) -> bool:
        """Return whether another one is the same telescope, however its light is sampled."""
        return other is not None and self == other.model_copy(update={"supersampling": self.supersampling})

    def flux(self, magnitude: float) -> float:
        """Return the flux [unit of the instrument] of a magnitude.

        Raises:
            LensphysError: if the instrument has no zero point.
        """
        if self.zero_point is None:
            raise LensphysError(f"{self.description}: no zero_point, so a magnitude has no flux: give an amplitude")
        return 10 ** (-0.4 * (magnitude - self.zero_point))

    def psf_of(self, conditions: Conditions = _PRESET) -> PSF:
        """Return the PSF: of the preset's kind, whatever its width.

        Raises:
            LensphysError: if ``conditions`` give a width and the preset's PSF is a kernel.
        """
        return self.psf.build(conditions.psf_fwhm)

    def camera(self, height: int, width: int, conditions: Conditions = _PRESET) -> Camera:
        """Return the camera with H x W of its pixels."""
        return Camera(PixelGrid(height, width, self.pixel_scale), self.psf_of(conditions), self.points)

    def noise_of(self, image: Tensor, conditions: Conditions = _PRESET) -> Noise:
        """Return the noise law of images (B, 1, H, W): from known numbers, or estimated from the images."""
        if (known := conditions.noise) is not None:
            return replace(known, exposure_time=known.exposure_time * self.gain) if self.gain else known
        return self.noise.law(image, self)

    def observation(self, image: Tensor, conditions: Conditions = _PRESET) -> Observation:
        """Return images (B, 1, H, W) of this instrument as an `Observation`, with what is known of each."""
        height, width = image.shape[-2:]
        return Observation(image, self.camera(height, width, conditions), self.noise_of(image, conditions))


def instrument_names() -> list[str]:
    """Return the names of the presets."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))
