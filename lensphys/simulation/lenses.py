"""The lenses of a recipe: any mass component that is registered, and any profile of lenstronomy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal, Self

from pydantic import SerializeAsAny, model_validator

from lensphys.basics.distributions import Distribution, PositiveDistribution, fixed
from lensphys.basics.settings import Strict, chosen_by_kind
from lensphys.model import MASS, MassProfile
from lensphys.model.component import CENTRE, Named
from lensphys.model.declared import settings_of
from lensphys.simulation.cosmology import Distances
from lensphys.simulation.declared import Drawn
from lensphys.simulation.draws import Draws


class LensSettings(Strict, ABC):
    """A lens of a recipe."""

    @abstractmethod
    def draw(self, key: str, draws: Draws, masses: Distances) -> Named:
        """Return lenstronomy's name of a lens and its values [arcsec], drawn.

        Args:
            key: what the recipe calls it.
            draws: of the sample.
            masses: from masses to angles.

        Raises:
            LensphysError: if a value has no meaning.
        """


class DeclaredLens(Drawn, LensSettings):
    """A mass component: its parameters, as it acts; its centre is the origin if not given."""

    defaults: ClassVar[dict[str, Distribution]] = dict.fromkeys(CENTRE, fixed(0.0))

    def draw(self, key: str, draws: Draws, masses: Distances) -> Named:
        """Return lenstronomy's name and the values, drawn."""
        known = {name: getattr(self, name) for name in self.component.whole} | self.strength(key, draws, masses)
        return self.component.lenstronomy, known | self.draw_rest(key, draws, list(known))

    def strength(self, key: str, draws: Draws, masses: Distances) -> dict[str, float]:
        """Return what is not drawn from a distribution of its own."""
        return {}


class Galaxy(DeclaredLens):
    """A galaxy's whole mass; its other parameters are those of the component.

    Args:
        theta_E: Einstein radius [arcsec], as it acts.
        mass: inside of the Einstein radius, in its place [solar masses].
        center_x: [arcsec].
        center_y: [arcsec].
    """

    theta_E: PositiveDistribution | None = None
    mass: PositiveDistribution | None = None
    center_x: Distribution = fixed(0.0)
    center_y: Distribution = fixed(0.0)

    @model_validator(mode="after")
    def _one_strength(self) -> Self:
        if (self.theta_E is None) == (self.mass is None):
            raise ValueError("give theta_E or mass, and not both")
        return self

    def strength(self, key: str, draws: Draws, masses: Distances) -> dict[str, float]:
        """Return the Einstein radius, drawn or from the mass that was."""
        if self.theta_E is not None:
            theta_E = draws.positive(f"{key}.theta_E", self.theta_E)
        elif self.mass is not None:
            theta_E = masses.einstein_radius_of_isothermal(draws.positive(f"{key}.mass", self.mass))
        return {"theta_E": theta_E}


class AnyLens(LensSettings):
    """Any of lenstronomy's mass profiles.

    Args:
        profile: its name in lenstronomy.
        parameters: by their names there; lengths and deflections in arcsec, as they act.
    """

    kind: Literal["lenstronomy"]
    profile: str
    parameters: dict[str, Distribution]

    def draw(self, key: str, draws: Draws, masses: Distances) -> Named:
        """Return lenstronomy's name and the values, drawn."""
        return self.profile, draws.all_of(f"{key}.parameters", self.parameters)


def _declared(kind: str, component: type[MassProfile]) -> type[LensSettings]:
    strong = component.galaxy and "theta_E" in component.scene_names()
    return settings_of(Galaxy if strong else DeclaredLens, kind, component)


def lens_kinds() -> dict[str, type[LensSettings]]:
    """Return the settings of all lenses that a recipe may ask for, by their kinds."""
    return {kind: _declared(kind, component) for kind, component in MASS.items()} | {"lenstronomy": AnyLens}


def main_lens_kinds() -> dict[str, type[LensSettings]]:
    """Return those that may be the main lens."""
    return {kind: of for kind, of in lens_kinds().items() if kind not in MASS or MASS[kind].galaxy}


Lens = Annotated[SerializeAsAny[LensSettings], chosen_by_kind(lens_kinds)]
MainLens = Annotated[SerializeAsAny[LensSettings], chosen_by_kind(main_lens_kinds)]
