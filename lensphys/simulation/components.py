"""What a recipe puts into the sky: lenses, light, and where the images of real galaxies come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lensphys.observation import instrument_names
from lensphys.settings import Strict
from lensphys.simulation.distributions import Distribution, PositiveDistribution, fixed


class _Isothermal(Strict):
    theta_E: PositiveDistribution | None = None
    mass: PositiveDistribution | None = None
    center_x: Distribution = fixed(0.0)
    center_y: Distribution = fixed(0.0)

    @model_validator(mode="after")
    def _one_strength(self) -> Self:
        if (self.theta_E is None) == (self.mass is None):
            raise ValueError("give theta_E or mass, and not both")
        return self


class SISLens(_Isothermal):
    """A singular isothermal sphere.

    Its strength is ``theta_E`` [arcsec], as it acts, or the ``mass`` inside of it [solar masses].
    """

    kind: Literal["sis"]


class SIELens(_Isothermal):
    """A singular isothermal ellipsoid; ``theta_E`` or ``mass`` as for the sphere."""

    kind: Literal["sie"]
    e1: Distribution
    e2: Distribution


class EPLLens(_Isothermal):
    """An elliptical power law; ``gamma`` is the slope of its density, 2 for an isothermal one."""

    kind: Literal["epl"]
    gamma: Distribution
    e1: Distribution
    e2: Distribution


class MultipoleLens(Strict):
    """A multipole of the isothermal potential about a centre: m = 4 makes a lens boxy or disky.

    Args:
        m: order, 2 or more.
        a_m: amplitude [arcsec].
        phi_m: position angle [rad].
        center_x: [arcsec].
        center_y: [arcsec].
    """

    kind: Literal["multipole"]
    m: Annotated[int, Field(ge=2)]
    a_m: Distribution
    phi_m: Distribution
    center_x: Distribution = fixed(0.0)
    center_y: Distribution = fixed(0.0)


class AnyLens(Strict):
    """Any of lenstronomy's mass profiles, by its name there, with numbers [arcsec] as they act."""

    kind: Literal["lenstronomy"]
    profile: str
    parameters: dict[str, Distribution]


class Shear(Strict):
    """External shear, as it acts, about the origin."""

    gamma1: Distribution
    gamma2: Distribution


class _Light(Strict):
    color: dict[str, float] = {}

    @model_validator(mode="after")
    def _known_instruments(self) -> Self:
        unknown = [n for n in self.color if not n.endswith((".yaml", ".yml")) and n not in instrument_names()]
        if unknown:
            raise ValueError(f"color names the unknown instrument {unknown[0]!r}: see 'lensphys list instruments'")
        return self

    def magnitude_in(self, magnitude: float, instrument: str) -> float:
        """Return the magnitude that an instrument sees."""
        return magnitude + self.color.get(Path(instrument).name, 0.0)


class SersicLight(_Light):
    """An elliptical Sersic galaxy; its brightness is ``amp`` [flux / arcsec^2 at R_sersic] or its ``magnitude``.

    ``color`` is added to the magnitude in the instruments that it names: presets, or files as ``mine.yaml``.
    """

    kind: Literal["sersic"] = "sersic"
    amp: PositiveDistribution | None = None
    magnitude: Distribution | None = None
    R_sersic: PositiveDistribution
    n_sersic: PositiveDistribution
    e1: Distribution
    e2: Distribution
    center_x: Distribution
    center_y: Distribution

    @model_validator(mode="after")
    def _one_brightness(self) -> Self:
        if (self.amp is None) == (self.magnitude is None):
            raise ValueError("give amp or magnitude, and not both")
        return self


class ImageLight(_Light):
    """Images of galaxies, one of them drawn for each lens: a FITS file or an .npy stack (N, H, W) or image (H, W).

    Args:
        file: the stack; without background and noise, or its noise is lensed too. A relative path starts where
            the recipe lies or the command runs, or is one of the files that come with lensphys.
        pixel_scale: of its pixels, as the galaxy shall appear without the lens [arcsec]: any resampling is done by it.
        magnitude: of the whole galaxy, unlensed.
        flux: of the whole galaxy, unlensed, instead of the magnitude [unit of the instrument].
        phi: turns the galaxy, counter-clockwise [rad].
        center_x: of the image's centre [arcsec].
        center_y: [arcsec].
        color: added to the magnitude in the instruments that it names: presets, or files as ``mine.yaml``.
    """

    kind: Literal["images"]
    file: str
    pixel_scale: PositiveDistribution
    magnitude: Distribution | None = None
    flux: PositiveDistribution | None = None
    phi: Distribution = fixed(0.0)
    center_x: Distribution
    center_y: Distribution

    @model_validator(mode="after")
    def _one_brightness(self) -> Self:
        if (self.flux is None) == (self.magnitude is None):
            raise ValueError("give flux or magnitude, and not both")
        return self


class AnyLight(_Light):
    """Any of lenstronomy's light profiles, by its name there; ``amp`` or ``magnitude`` stand among its parameters."""

    kind: Literal["lenstronomy"]
    profile: str
    parameters: dict[str, Distribution]


class Counts(Strict):
    """For instruments in counts: the exposure time [s], and the background rms [flux per pixel]."""

    exposure_time: PositiveDistribution
    background_rms: PositiveDistribution


class Target(Strict):
    """The other telescope that /hr is observed with, and how it disagrees with the first one.

    It sees what the first one sees, in the same band: the zero points of both turn its fluxes into those of /lr. The
    truth, /hr_clean, has its PSF and nothing else of it: no noise, no pointing error, the flux of /lr. What was drawn
    is stored with each sample: /hr_shift_x, /hr_shift_y, /hr_gain and /hr_offset.

    Args:
        instrument: a preset, or the path of a user's instrument file: PSF and noise of /hr, whose pixels are those of
            the recipe, the LR ones divided by ``upscale``.
        shift_x: pointing error, by which the sky is displaced in /hr against /lr [arcsec].
        shift_y: [arcsec].
        gain: factor on /hr; 1 if its flux calibration agrees.
        offset: of the sky, added to /hr after the gain [flux per HR pixel].
    """

    instrument: str
    shift_x: Distribution = fixed(0.0)
    shift_y: Distribution = fixed(0.0)
    gain: PositiveDistribution = fixed(1.0)
    offset: Distribution = fixed(0.0)

    @property
    def disagrees(self) -> bool:
        """Whether anything is set but the instrument."""
        return self.model_dump() != Target(instrument=self.instrument).model_dump()


class VariedConditions(Strict):
    """What is drawn anew for each image, and stored with it; the instrument's own where a key is not given.

    Args:
        psf_fwhm: of the PSF, in place of the instrument's [arcsec].
        exposure_time: total [s].
        background_rms: of an LR pixel [flux per pixel]; an HR pixel has it divided by ``upscale``, as sky has.
    """

    psf_fwhm: PositiveDistribution | None = None
    exposure_time: PositiveDistribution | None = None
    background_rms: PositiveDistribution | None = None

    @model_validator(mode="after")
    def _whole_noise(self) -> Self:
        if (self.exposure_time is None) != (self.background_rms is None):
            raise ValueError("exposure_time and background_rms make the noise together: give both or neither")
        return self
