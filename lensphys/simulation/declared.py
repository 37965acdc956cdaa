"""Settings of a recipe made from what components declare: a kind, and a distribution for each parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BeforeValidator, Field, create_model
from pydantic_core import PydanticKnownError

from lensphys.checks import LensphysError
from lensphys.model import Component, Parameter
from lensphys.settings import Strict
from lensphys.simulation.distributions import Distribution, Draws, PositiveDistribution

Keywords = dict[str, Any]
Named = tuple[str, Keywords]  # a component of a scene: lenstronomy's name and the values


class Declared(Strict):
    """The settings of a component that is declared in `lensphys.model`; `settings_of` makes the class for each.

    Attributes:
        component: the component.
        defaults: of the parameters that a recipe need not give.
    """

    component: ClassVar[type[Component]]
    defaults: ClassVar[dict[str, Distribution]] = {}

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

    def __reduce__(self) -> Any:  # for other processes: a class that was made here is not found by its name there
        base = type(self).__bases__[0]
        return _blank, (base, vars(self)["kind"], self.component), self.__getstate__()


D = TypeVar("D", bound=Declared)


def settings_of(base: type[D], kind: str, component: type[Component]) -> type[D]:
    """Return the class of the settings of a component: always the same one.

    Args:
        base: has the parameters that recipes give in another way than by their distributions.
        kind: what recipes call it.
        component: declares the others.
    """
    key: Any = component  # mypy holds the class of a dataclass for no key
    return _made(base, kind, key)


@cache
def _made(base: Any, kind: str, component: Any) -> Any:
    own = [p for p in component.scene_parameters() if p.name not in base.model_fields]
    parts: dict[str, Any] = {"kind": (Literal.__getitem__(kind), kind)}
    parts |= {name: (Annotated[int, Field(ge=least)], ...) for name, least in component.whole.items()}
    parts |= {p.name: (_distribution(p), base.defaults.get(p.name, ...)) for p in own}
    parts["component"] = (ClassVar[type[Component]], component)
    return create_model(component.__name__, __base__=base, __module__=__name__, __doc__=component.__doc__, **parts)


def chosen_by_kind(kinds: Callable[[], Mapping[str, type[Strict]]], default: str | None = None) -> BeforeValidator:
    """Return the validator that turns a tree of settings into those of its ``kind``.

    Args:
        kinds: the classes of settings that there are when a recipe is read.
        default: the kind of a tree that names none; it must, if not given.
    """
    return BeforeValidator(partial(_chosen, kinds, default))


def _chosen(kinds: Callable[[], Mapping[str, type[Strict]]], default: str | None, tree: Any) -> Any:
    if isinstance(tree, Strict):
        return tree
    if not isinstance(tree, dict):
        raise PydanticKnownError("model_attributes_type")
    if "kind" not in tree and default is None:
        raise PydanticKnownError("union_tag_not_found", {"discriminator": "'kind'"})
    there, kind = kinds(), str(tree.get("kind", default))
    if kind not in there:
        tags = {"discriminator": "'kind'", "tag": kind, "expected_tags": ", ".join(map(repr, there))}
        raise PydanticKnownError("union_tag_invalid", tags)
    return there[kind].model_validate(tree)


def _blank(base: type[D], kind: str, component: type[Component]) -> D:
    made = settings_of(base, kind, component)
    return made.__new__(made)


def _distribution(parameter: Parameter) -> Any:
    return PositiveDistribution if parameter.logarithmic else Distribution


def _check_domain(key: str, parameter: Parameter, value: float) -> None:
    low, high = parameter.domain
    if not low < value < high:
        raise LensphysError(
            f"the recipe drew {value:g} for {key}, which must lie between {low:g} and {high:g}: narrow its distribution"
        )
