"""How a lens with the light of its galaxy is found."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from lensphys.basics.settings import PositivePair, Strict
from lensphys.fitting.arcs import ArcSearch
from lensphys.fitting.broad_light import BroadLightSettings
from lensphys.fitting.foreign import ForeignSettings
from lensphys.fitting.galaxy_light import GalaxyLight, LensLight, brightest
from lensphys.fitting.source import FreeSourceSettings
from lensphys.fitting.starts import RingSearch
from lensphys.model import SourcePrior
from lensphys.model.component import CENTRE
from lensphys.model.parameter import Parameter
from lensphys.observation import Observation
from lensphys.observation.kernel import first_star, from_beyond

_CALM = tuple(SourcePrior(amplitude=a, scale=k) for a in (0.3, 0.6) for k in (6.0, 12.0, 24.0))


class FainterGalaxy(Strict):
    """When light in the middle of a lens is that of a galaxy which is fainter than the arcs.

    Args:
        within: what is called the middle [Einstein radii].
        signal: what a Sersic source leaves there, at least [sigma of its sum].
        share: what it leaves of the light that is there, at least.
    """

    within: PositiveFloat = 0.35
    signal: PositiveFloat = 10.0
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5


class GalaxySearch(Strict):
    """Where a lens galaxy is looked for, and when its light is looked at.

    Args:
        within: how far from the middle of the field the galaxy may be [half widths].
        peak: signal-to-noise that its middle must have.
        arc: the brightest light is an arc where it is so far from the centre of a lens that is found without the
            galaxy, least and most, and as far as the least from the middle of the field, too [Einstein radii].
        fainter: when there is a galaxy that is fainter than the arcs about it.
    """

    within: PositiveFloat = 0.3
    peak: PositiveFloat = 10.0
    arc: PositivePair = (0.5, 1.6)
    fainter: FainterGalaxy = FainterGalaxy()


class NearTheLight(Strict):
    """How far the mass of a galaxy may be from its light, and a source from what would stand for light of the lens.

    Args:
        centre: of the mass from that of the light, standard deviation of a Gaussian prior [arcsec].
        tilt: of the ellipticity of the mass from that of the light, likewise.
        shear: of the mass elsewhere, standard deviation of a Gaussian prior of each component.
        largest: half-light radius that a source may have [arcsec].
    """

    centre: PositiveFloat = 0.025
    tilt: PositiveFloat = 0.15
    shear: PositiveFloat = 0.06
    largest: PositiveFloat = 0.35


class MinimaCompared(Strict):
    """How several lenses behind one image are compared.

    Args:
        source: the free source by whose evidence: a galaxy that is not too far from its Sersic.
        second: how far from the middle of the galaxy the second image is, at least [Einstein radii].
        twice: share of a source's light that must be seen twice; else it takes the shape of the arcs itself.
        near: ln evidence by which another lens may be behind the likeliest to be told of.
        structure: what a source costs, in ln evidence, whose arcs have nothing in common with those of its own Sersic:
            a field can make any image of any lens, but few galaxies are far from a Sersic.
    """

    source: FreeSourceSettings = FreeSourceSettings(modes=(10, 18), priors=_CALM, largest=1.2)
    second: PositiveFloat = 0.3
    twice: PositiveFloat = 0.5
    near: PositiveFloat = 30.0
    structure: NonNegativeFloat = 200.0


class AboutTheGalaxy(Strict):
    """Where about a galaxy images of the source are looked for.

    Args:
        core: how far from its middle they are not, at first [sigma of a star].
        hidden: how far from its middle they are not, at most [arcsec].
        reach: how far from the middle of the field an image can be [arcsec].
        bright: signal-to-noise of light that is not the galaxy's.
        margin: about the bright pixels that is fitted with them: a free source has faint images there [arcsec].
        border: share of a star's light that may cross the edge of what is fitted: the galaxy goes on beyond it.
    """

    core: PositiveFloat = 4.0
    hidden: PositiveFloat = 0.4
    reach: PositiveFloat = 3.0
    bright: PositiveFloat = 3.0
    margin: PositiveFloat = 0.8
    border: PositiveFloat = 0.005

    def border_of(self, observation: Observation) -> int:
        """Return how many pixels along the edges of images light from beyond them reaches."""
        beyond = from_beyond(first_star(observation.camera, observation.image).sum(0))
        return int((beyond > self.border).sum())


class WideLenses(Strict):
    """When lenses are tried that are wider than those which are tried in any case.

    Args:
        arcs: those of the image that make it look further out.
        largest: Einstein radius that is tried for such an arc, at most [its distance from the galaxy].
        pixels: Einstein radius that is tried in any case: where pixels are coarse there are few [pixels].
    """

    arcs: ArcSearch = ArcSearch(spanned=5)
    largest: PositiveFloat = 1.2
    pixels: PositiveFloat = 22.0


class LensLightSettings(Strict):
    """How the light of a lens galaxy is found, and the lens and the source with it.

    Args:
        galaxy: how its light alone is found.
        again: how it is found once more, with the arcs that were found taken off: cusps of undersampled images, too.
        search: where it is looked for.
        priors: of the mass, about its light.
        rings: where the fit starts from.
        wide: which arcs make it start from further out.
        about: where images of the source are looked for.
        minima: how the lenses are compared where the starts have ended.
        error: share of the galaxy's light that counts as an error of its model.
        held: e-folds by which the wide Gaussians may change once only the middle of the image is fitted.
        broad: the light that the Gaussians leave.
        others: what is taken for other objects.
    """

    galaxy: GalaxyLight = GalaxyLight()
    again: GalaxyLight = GalaxyLight(gaussians=20, narrowest=0.15)
    search: GalaxySearch = GalaxySearch()
    priors: NearTheLight = NearTheLight()
    rings: RingSearch = RingSearch()
    wide: WideLenses = WideLenses()
    about: AboutTheGalaxy = AboutTheGalaxy()
    minima: MinimaCompared = MinimaCompared()
    error: PositiveFloat = 0.05
    held: PositiveFloat = 0.01
    broad: BroadLightSettings = BroadLightSettings()
    others: ForeignSettings = ForeignSettings()

    def around(self, radius: float, scale: float) -> LensLightSettings:
        """Return the same, looking further out where that is needed.

        Args:
            radius: how far from the galaxy arcs are [arcsec].
            scale: of a pixel [arcsec].
        """
        rings, widest = self.rings, max(self.wide.largest * radius, self.wide.pixels * scale)
        if widest <= self.largest_radius:
            return self
        finer = rings.model_copy(update={"widest": widest, "radii": math.ceil(rings.radii * widest / rings.widest)})
        about = self.about.model_copy(update={"reach": self.about.reach + widest - rings.widest})
        return self.model_copy(update={"rings": finer, "about": about})

    def inside(self, theta_E: float) -> LensLightSettings:
        """Return the same for a galaxy that is fainter than the arcs about it.

        Args:
            theta_E: Einstein radius [half widths of the field of view].
        """
        inner = min(self.galaxy.inner, self.search.fainter.within * theta_E)
        return self.model_copy(update={"galaxy": self.galaxy.model_copy(update={"inner": inner})})

    @property
    def largest_radius(self) -> float:
        """Einstein radius that a lens may have at most, a little more than those that are tried [arcsec]."""
        return 1.1 * self.rings.widest

    def middle_of(self, observation: Observation) -> Tensor:
        """Return where the galaxy of one image would be, (2,) [arcsec]: where it is brightest within reach of arcs."""
        return brightest(observation, self.about.reach)

    def looks_like_a_galaxy(self, observation: Observation, inverse_sigma: Tensor) -> bool:
        """Return whether the brightest light of one image is in its middle: with arcs alone it is about it.

        Not beyond the reach of arcs: there other galaxies and stars may be brighter.
        """
        middle = self.middle_of(observation).norm() < self.search.within * observation.camera.grid.radius
        return bool(middle) and float(observation.significance(inverse_sigma).amax()) > self.search.peak


def near_the_light(
    parameter: Parameter, main: str, light: LensLight, settings: LensLightSettings, least: float
) -> Parameter:
    """Return a parameter of the main lens with a prior about that of its light, and a source's size with its bound.

    Args:
        parameter: of a smooth model.
        main: name of the main lens.
        light: of its galaxy.
        settings: how wide the priors are.
        least: Einstein radius below which arcs would be hidden in the middle of the galaxy [arcsec].
    """
    member, _, name = parameter.name.rpartition(".")
    if parameter.name == f"{main}.theta_E":
        return parameter.between(max(parameter.low, least), min(parameter.high, settings.largest_radius))
    if name == "R_sersic":
        return parameter.between(parameter.low, min(parameter.high, settings.priors.largest))
    if name in ("gamma1", "gamma2"):
        return replace(parameter, sigma=min(parameter.sigma, settings.priors.shear))
    if member != main or name not in (*CENTRE, "e1", "e2"):
        return parameter
    value = float(light.values[f"lens_light.0.{name}"])
    width = settings.priors.centre if name.startswith("center") else settings.priors.tilt
    if name.startswith("center"):
        parameter = parameter.between(value - 4 * width, value + 4 * width)
    return replace(parameter, mean=value, sigma=width)
