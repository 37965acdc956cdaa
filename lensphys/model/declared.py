"""Settings made from what components declare: a kind, and what is said of each parameter."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, create_model

from lensphys.basics.distributions import Distribution, PositiveDistribution
from lensphys.basics.settings import Strict
from lensphys.model import Component, Parameter


class Declared(Strict):
    """The settings of a component that is declared in `lensphys.model`; `settings_of` makes the class for each.

    Attributes:
        component: the component.
    """

    component: ClassVar[type[Component]]

    @classmethod
    def parameter_fields(cls, component: type[Component]) -> dict[str, Any]:
        """Return what is said of each parameter: name -> its type and default; ``...`` where it must be given."""
        return {p.name: (distribution_of(p), ...) for p in component.scene_parameters()}

    def __reduce__(self) -> Any:  # for other processes: a class that was made here is not found by its name there
        base = type(self).__bases__[0]
        return _blank, (base, vars(self)["kind"], self.component), self.__getstate__()


D = TypeVar("D", bound=Declared)


def settings_of(base: type[D], kind: str, component: type[Component]) -> type[D]:
    """Return the class of the settings of a component: always the same one.

    Args:
        base: has the parameters that are given in another way than `Declared.parameter_fields` says.
        kind: what YAML files call it.
        component: declares the others.
    """
    key: Any = component  # mypy holds the class of a dataclass for no key
    return _made(base, kind, key)


@cache
def _made(base: Any, kind: str, component: Any) -> Any:
    parts: dict[str, Any] = {"kind": (Literal.__getitem__(kind), kind)}
    parts |= {name: (Annotated[int, Field(ge=least)], ...) for name, least in component.whole.items()}
    parts |= {name: field for name, field in base.parameter_fields(component).items() if name not in base.model_fields}
    parts["component"] = (ClassVar[type[Component]], component)
    return create_model(component.__name__, __base__=base, __module__=__name__, __doc__=component.__doc__, **parts)


def _blank(base: type[D], kind: str, component: type[Component]) -> D:
    made = settings_of(base, kind, component)
    return made.__new__(made)


def distribution_of(parameter: Parameter) -> Any:
    """Return the type of a parameter's distribution."""
    return PositiveDistribution if parameter.logarithmic else Distribution
