"""The light of a recipe: any light component that is registered, images of galaxies, any profile of lenstronomy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import SerializeAsAny, model_validator

from lensphys.basics.checks import LensphysError
from lensphys.basics.distributions import Distribution, PositiveDistribution, fixed
from lensphys.basics.extras import need
from lensphys.basics.settings import Strict, chosen_by_kind
from lensphys.model import LIGHT, ImageSource, LightProfile, by_lenstronomy
from lensphys.model.component import Keywords, Named
from lensphys.model.declared import settings_of
from lensphys.observation import Instrument, instrument_names
from lensphys.simulation.declared import Drawn
from lensphys.simulation.draws import Draws
from lensphys.simulation.galaxies import galaxy_images


@dataclass(frozen=True)
class Photometer:
    """What sees the light: it turns magnitudes into flux.

    Args:
        name: of the instrument in the recipe.
        instrument: the instrument.
    """

    name: str
    instrument: Instrument


class LightSettings(Strict, ABC):
    """Light of a recipe.

    Args:
        color: added to the magnitude in the instruments that it names: presets, or files as ``mine.yaml``.
    """

    color: dict[str, float] = {}

    @model_validator(mode="after")
    def _known_instruments(self) -> Self:
        unknown = [n for n in self.color if not n.endswith((".yaml", ".yml")) and n not in instrument_names()]
        if unknown:
            raise ValueError(f"color names the unknown instrument {unknown[0]!r}: see 'lensphys list instruments'")
        return self

    @property
    @abstractmethod
    def in_magnitudes(self) -> bool:
        """Whether the brightness is given as a magnitude, which any instrument with a zero point understands."""

    @property
    def files(self) -> tuple[str, ...]:
        """The files of images that it draws from."""
        return ()

    @abstractmethod
    def draw(self, key: str, draws: Draws, photometer: Photometer) -> Named:
        """Return lenstronomy's name of a light and its values, drawn; ``amp`` in flux / arcsec^2.

        Args:
            key: what the recipe calls it.
            draws: of the sample.
            photometer: what sees it.

        Raises:
            LensphysError: if a value has no meaning.
        """

    def flux_of(self, key: str, draws: Draws, photometer: Photometer, magnitude: Distribution) -> float:
        """Return the flux of a magnitude that is drawn."""
        drawn = draws(f"{key}.magnitude", magnitude)
        return photometer.instrument.flux(drawn + self.color.get(Path(photometer.name).name, 0.0))


class DeclaredLight(Drawn, LightSettings):
    """A light component; its brightness is ``amp`` or its ``magnitude``, its other parameters are the component's.

    Args:
        kind: of the component.
        amp: [flux / arcsec^2].
        magnitude: of the whole galaxy, unlensed.
    """

    component: ClassVar[type[LightProfile]]
    kind: str
    amp: PositiveDistribution | None = None
    magnitude: Distribution | None = None

    @model_validator(mode="after")
    def _one_brightness(self) -> Self:
        if (self.amp is None) == (self.magnitude is None):
            raise ValueError("give amp or magnitude, and not both")
        return self

    @property
    def in_magnitudes(self) -> bool:
        """Whether the brightness is given as a magnitude."""
        return self.magnitude is not None

    def draw(self, key: str, draws: Draws, photometer: Photometer) -> Named:
        """Return lenstronomy's name and the values, drawn."""
        values = self.draw_rest(key, draws, ["amp"])
        if self.magnitude is not None:
            amp = self.flux_of(key, draws, photometer, self.magnitude) / self.component.unit_flux(values)
        elif self.amp is not None:
            amp = draws.positive(f"{key}.amp", self.amp)
        return self.component.lenstronomy, {"amp": amp} | values


class ImageLight(LightSettings):
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

    @property
    def in_magnitudes(self) -> bool:
        """Whether the brightness is given as a magnitude."""
        return self.magnitude is not None

    @property
    def files(self) -> tuple[str, ...]:
        """The files of images that it draws from."""
        return (self.file,)

    def draw(self, key: str, draws: Draws, photometer: Photometer) -> Named:
        """Return lenstronomy's name and the values, drawn; ``file`` and ``index`` in place of the image."""
        index = int(draws.rng.integers(len(galaxy_images(self.file))))
        scale = draws.positive(f"{key}.pixel_scale", self.pixel_scale)
        place = draws.all_of(key, {"center_x": self.center_x, "center_y": self.center_y})
        turned = {"phi_G": draws(f"{key}.phi", self.phi), "scale": scale}
        if self.flux is not None:
            flux = draws.positive(f"{key}.flux", self.flux)
        elif self.magnitude is not None:
            flux = self.flux_of(key, draws, photometer, self.magnitude)
        values = {"file": self.file, "index": index, "amp": flux / scale**2} | place | turned
        return ImageSource.lenstronomy, values


class AnyLight(LightSettings):
    """Any of lenstronomy's light profiles.

    Args:
        profile: its name in lenstronomy.
        parameters: by their names there, lengths in arcsec; ``amp`` or ``magnitude`` among them.
    """

    kind: Literal["lenstronomy"]
    profile: str
    parameters: dict[str, Distribution]

    @property
    def in_magnitudes(self) -> bool:
        """Whether the brightness is given as a magnitude."""
        return "magnitude" in self.parameters

    def draw(self, key: str, draws: Draws, photometer: Photometer) -> Named:
        """Return lenstronomy's name and the values, drawn.

        Raises:
            LensphysError: if neither amp nor magnitude is among the parameters.
        """
        key, rest = f"{key}.parameters", dict(self.parameters)
        amp, magnitude = rest.pop("amp", None), rest.pop("magnitude", None)
        values = draws.all_of(key, rest)
        if magnitude is not None:
            amplitude = self.flux_of(key, draws, photometer, magnitude) / _unit_flux(self.profile, values)
        elif amp is not None:
            amplitude = draws.positive(f"{key}.amp", amp)
        else:
            raise LensphysError(f"{key}: give amp or magnitude among the parameters")
        return self.profile, {"amp": amplitude} | values


def _unit_flux(profile: str, values: Keywords) -> float:
    """The total flux of a profile of lenstronomy with amp = 1 [arcsec^2]."""
    ours = by_lenstronomy(LIGHT)
    if profile in ours:
        return ours[profile].unit_flux(values)
    need("lenstronomy", f"the light profile {profile}")
    from lenstronomy.LightModel.light_model import LightModel

    return float(LightModel([profile]).total_flux([{"amp": 1.0} | values])[0])


def light_kinds() -> dict[str, type[LightSettings]]:
    """Return the settings of all light that a recipe may ask for, by their kinds."""
    declared = {kind: settings_of(DeclaredLight, kind, component) for kind, component in LIGHT.items()}
    return declared | {"images": ImageLight, "lenstronomy": AnyLight}


Light = Annotated[SerializeAsAny[LightSettings], chosen_by_kind(light_kinds, default="sersic")]
