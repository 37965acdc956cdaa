"""What an engine is: it renders scenes on the LR and HR pixels of a recipe, without noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.observation import Camera, Conditions, Instrument
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.scene import Scene
from lensphys.tracing.grid import PixelGrid


@dataclass(frozen=True)
class Rendered:
    """What scenes look like without noise.

    Args:
        lr: (B, 1, H, W) [flux per pixel].
        hr: (B, 1, sH, sW) [flux per pixel].
        alpha_hr: (B, 2, sH, sW) [arcsec], the deflection at the centres of the HR pixels.
    """

    lr: Tensor
    hr: Tensor
    alpha_hr: Tensor


class Engine(Protocol):
    """Renders scenes."""

    def check(self, scene: Scene) -> None:
        """Raise a `LensphysError` unless the engine has all profiles of a scene."""
        ...

    def render(self, scenes: Sequence[Scene], conditions: Conditions) -> Rendered:
        """Return the clean images of scenes, (B, ...), each with its own PSF where the conditions have one."""
        ...


@dataclass(frozen=True)
class Cameras:
    """The two cameras of a recipe.

    Args:
        lr: of the instrument, H x W pixels.
        hr: its pixels are ``upscale`` times as small.
        same_psf: whether both belong to one telescope.
    """

    lr: Camera
    hr: Camera
    same_psf: bool = True

    @classmethod
    def from_recipe(cls, recipe: Recipe, instrument: Instrument) -> Cameras:
        """Return the cameras of a recipe.

        Raises:
            LensphysError: if the PSF is larger than the image.
        """
        lr = instrument.camera(recipe.height, recipe.width)
        side = min(lr.grid.shape) * lr.grid.scale
        if lr.psf.extent > side:
            raise LensphysError(
                f'the PSF of the instrument {recipe.instrument} ({lr.psf.extent:.3g}") is larger than the image '
                f'({side:.3g}"): raise height and width, or cut the kernel'
            )
        hr = lr.at(recipe.upscale)
        if lr.supersampling > 1:  # pixels that are integrated are so at every scale
            hr = replace(hr, supersampling=max(2, math.ceil(lr.supersampling / recipe.upscale)))
        if recipe.target is None:
            return cls(lr, hr)
        return cls(lr, replace(hr, psf=Instrument.named(recipe.target.instrument).psf_of()), same_psf=False)

    def under(self, instrument: Instrument, conditions: Conditions) -> tuple[Camera, ...]:
        """Return both cameras with the PSFs of some samples; a target telescope keeps its own.

        Raises:
            LensphysError: if a PSF is wider than the image.
        """
        if conditions.psf_fwhm is None:
            return self.lr, self.hr
        side, widest = min(self.lr.grid.shape) * self.lr.grid.scale, float(conditions.psf_fwhm.max())
        if widest > side:
            raise LensphysError(
                f'the recipe drew {widest:.3g}" for conditions.psf_fwhm, and the image has {side:.3g}": narrow its '
                "distribution"
            )
        psf = instrument.psf_of(conditions)
        return replace(self.lr, psf=psf), replace(self.hr, psf=psf) if self.same_psf else self.hr

    @property
    def grids(self) -> list[PixelGrid]:
        """Where light is needed for LR and HR images, and the deflection for HR pixels; each grid once."""
        lr, hr = (camera.grid.resampled(camera.supersampling) for camera in (self.lr, self.hr))
        return list(dict.fromkeys([lr, hr, self.hr.grid]))


def unsupported_profile(engine: str, profile: str, other: str, has: Sequence[str]) -> LensphysError:
    """Return the error for a profile that an engine does not have."""
    return LensphysError(
        f"the {engine} engine has no profile {profile} (it has {', '.join(has)}): use --engine {other}"
    )
