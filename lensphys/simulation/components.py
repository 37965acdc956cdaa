"""What else a recipe says: shear, exposure, the other telescope, and what varies from image to image."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from lensphys.basics.distributions import Distribution, PositiveDistribution, fixed
from lensphys.basics.settings import Strict


class Shear(Strict):
    """External shear, as it acts, about the origin.

    Args:
        gamma1: along the axes, without unit.
        gamma2: along the diagonals, without unit.
    """

    gamma1: Distribution
    gamma2: Distribution


class Counts(Strict):
    """The exposure of an instrument in counts.

    Args:
        exposure_time: [s].
        background_rms: standard deviation of a dark pixel [flux per pixel].
    """

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
