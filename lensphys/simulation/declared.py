"""Settings of a recipe made from what components declare: a kind, and a distribution for each parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from lensphys.basics.checks import LensphysError
from lensphys.basics.distributions import Distribution
from lensphys.model import Component, Parameter
from lensphys.model.component import Keywords
from lensphys.model.declared import Declared, distribution_of
from lensphys.simulation.draws import Draws


class Drawn(Declared):
    """The settings of a component that recipes draw.

    Attributes:
        defaults: of the parameters that a recipe need not give.
    """

    defaults: ClassVar[dict[str, Distribution]] = {}

    @classmethod
    def parameter_fields(cls, component: type[Component]) -> dict[str, Any]:
        """Return a distribution for each parameter that scenes give."""
        own = component.scene_parameters()
        return {p.name: (distribution_of(p), cls.defaults.get(p.name, ...)) for p in own}

    def draw_rest(self, key: str, draws: Draws, known: Sequence[str]) -> Keywords:
        """Return the values of the parameters that are not known yet, in the order of their declaration.

        Args:
            key: what the component is called in the recipe.
            draws: of the sample.
            known: names of those that are.

        Raises:
            LensphysError: if a value has no meaning.
        """
        rest = [p for p in self.component.scene_parameters() if p.name not in known]
        positive = [p.name for p in rest if p.logarithmic]
        values = draws.all_of(key, {p.name: getattr(self, p.name) for p in rest}, positive)
        for parameter in rest:
            _check_domain(f"{key}.{parameter.name}", parameter, values[parameter.name])
        return values


def _check_domain(key: str, parameter: Parameter, value: float) -> None:
    low, high = parameter.domain
    if not low < value < high:
        raise LensphysError(
            f"the recipe drew {value:g} for {key}, which must lie between {low:g} and {high:g}: narrow its distribution"
        )
