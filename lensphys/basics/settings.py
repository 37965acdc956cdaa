"""Strict typed settings and YAML files: every config of the project is a `Strict` model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, ValidationError
from pydantic_core import PydanticKnownError

from lensphys.basics.checks import LensphysError, check_file, shortened
from lensphys.basics.sentences import nearest

# lists in YAML, which has no tuples
Positives = Annotated[tuple[PositiveFloat, ...], Field(min_length=1, strict=False)]
PositivePair = Annotated[tuple[PositiveFloat, PositiveFloat], Field(strict=False)]

_MOST_BYTES = 1_000_000  # of a settings file: a list of ten thousand numbers has a tenth of it
_MOST_VALUES = 100_000  # in a settings file, when its aliases are written out
_MOST_FAULTS = 5  # named in a message
_NO_GROUP = {"model_type", "model_attributes_type"}  # what pydantic calls a value in place of a group of keys


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as a text, because it has no dot; everybody means a number.

    An alias stands for what it points to, and aliases of aliases for any number of values: these are counted first.
    """

    def get_single_node(self) -> yaml.Node | None:
        """Return the tree before anything is made of it."""
        node = super().get_single_node()
        if node is not None and _values(node, {}) > _MOST_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {_MOST_VALUES} values")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping whose keys are all given once: YAML itself takes the last of several."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                said = f"{shortened(key.value)} is given twice"
                raise yaml.constructor.ConstructorError(None, None, said, key.start_mark)
            seen.add(key.value)
        return dict(super().construct_mapping(node, deep=deep))


def _values(node: yaml.Node, counted: dict[int, float]) -> float:
    """How many values a tree has when its aliases are written out; infinitely many where one holds itself."""
    if id(node) not in counted:
        counted[id(node)] = float("inf")
        inside = [x for pair in node.value for x in pair] if isinstance(node, yaml.MappingNode) else node.value
        parts = [] if isinstance(node, yaml.ScalarNode) else inside
        counted[id(node)] = 1 + sum(_values(part, counted) for part in parts)
    return counted[id(node)]


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class Strict(BaseModel):
    """A settings model that refuses unknown keys, wrong types and later changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, tree: dict[str, Any], where: str) -> Self:
        """Validate a plain tree of settings.

        Args:
            tree: nested dicts, lists and scalars, as YAML gives them.
            where: what the tree is called in the message (a file name).

        Raises:
            LensphysError: one sentence that names each faulty key.
        """
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            faults = error.errors()
            more = f"; and {len(faults) - _MOST_FAULTS} faults more" if len(faults) > _MOST_FAULTS else ""
            told = "; ".join(_sentence(fault, tree, cls) for fault in faults[:_MOST_FAULTS])
            raise LensphysError(f"{where}: {told}{more}") from None

    @classmethod
    def from_yaml(cls, path: str | Path, assignments: Sequence[str] = ()) -> Self:
        """Return the settings of a YAML file, with ``a.b=value`` assignments applied.

        Raises:
            LensphysError: naming each faulty key.
        """
        return cls.parse(override(read_yaml(Path(path)), assignments), str(path))


def _sentence(error: Any, tree: Any, settings: type[Strict]) -> str:
    key = shortened(".".join(_keys(error["loc"], tree))) or "(top)"
    if error["type"] == "extra_forbidden":
        return f"unknown key '{key}'{nearest(str(error['loc'][-1]), _known(error['loc'][:-1], tree, settings))}"
    if error["type"] == "missing":
        return f"missing key '{key}'"
    if error["type"] == "union_tag_invalid":
        tag, tags = error["ctx"]["tag"], error["ctx"]["expected_tags"]
        return f"'{key}': unknown kind {shortened(tag)!r}, choose one of {tags}"
    if error["type"] in _NO_GROUP:
        return f"'{key}': must be a group of keys, got {shortened(repr(error['input']))}"
    said = error["msg"].removeprefix("Value error, ")
    if isinstance(error.get("ctx", {}).get("error"), LensphysError):
        return f"'{key}': {said}"
    if not error["loc"] and error["type"] == "value_error":
        return str(said)  # of the whole tree, which would be long to repeat
    return f"'{key}': {said}" + ("" if ", got " in said else f", got {shortened(repr(error['input']))}")


def _keys(place: tuple[str | int, ...], tree: Any) -> Iterator[str]:
    """The keys that lead to a place of the tree: pydantic also names which of several kinds of settings it tried."""
    for i, part in enumerate(place):
        known = part in (tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ())
        kinds = tree.values() if isinstance(tree, dict) else ()
        if known or (i == len(place) - 1 and part not in kinds):
            yield str(part)
        if known:
            tree = tree[part]


def _known(place: tuple[str | int, ...], tree: Any, settings: type[Strict]) -> list[str]:
    """The keys that settings have at a place of the tree."""
    groups: set[type[Strict]] = {settings}
    for part in place:  # pydantic also names which of several kinds it tried
        fields = [group.model_fields[str(part)] for group in groups if part in group.model_fields]
        known = isinstance(part, int) if isinstance(tree, list) else isinstance(tree, dict) and part in tree
        tree = tree[part] if known else tree
        if fields:
            groups = {group for field in fields for group in _groups((field.annotation, *field.metadata), tree)}
    return sorted({name for group in groups for name in group.model_fields})


def _groups(annotation: Any, tree: Any) -> Iterator[type[Strict]]:
    """The groups of settings that an annotation allows, of several kinds the one that the tree names."""
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        yield annotation
    elif isinstance(annotation, BeforeValidator) and isinstance(annotation.func, partial):
        kinds, default = annotation.func.args
        kind = tree.get("kind", default) if isinstance(tree, dict) else default
        yield from [kinds()[kind]] if kind in kinds() else kinds().values()
    else:
        for part in annotation if isinstance(annotation, tuple) else get_args(annotation):
            yield from _groups(part, tree)


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


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds.

    Raises:
        LensphysError: if the file is missing, is not YAML or does not hold a mapping.
    """
    check_file("settings file", path)
    if path.stat().st_size > _MOST_BYTES:
        raise LensphysError(f"{path} has {path.stat().st_size / 1e6:.3g} MB: no file of settings is as long")
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except RecursionError:
        raise LensphysError(f"{path} is not valid YAML: its groups lie too deep in each other") from None
    except (yaml.YAMLError, ValueError) as error:  # a date that is none, a number too long
        raise LensphysError(f"{path} is not valid YAML: {_fault(error)}") from None
    except OSError as error:
        raise LensphysError(f"cannot read {path}: {error.strerror or error}") from None
    if not isinstance(tree, dict):
        raise LensphysError(f"{path} must hold a mapping of keys to values, got {type(tree).__name__}")
    return tree


def find_beside(group: Any, key: str, folder: Path) -> None:
    """Let the file that a group of settings names be found from anywhere, if it lies in a folder.

    Args:
        group: of the tree; nothing happens if it is no group, or does not name a file there.
        key: of the name, which becomes a whole path.
        folder: of the settings.
    """
    if isinstance(group, dict) and isinstance(group.get(key), str) and (folder / group[key]).is_file():
        group[key] = str((folder / group[key]).resolve())


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return a tree of settings with another one laid over it.

    Groups are merged key by key; a group of another ``kind`` takes the place of the old one, and so do lists and
    values; what is ``null`` (None) is taken away.

    Example:
        >>> merged({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}})
        {'a': {'b': 1, 'c': 3}}
        >>> merged({"a": {"kind": "x", "b": 1}}, {"a": {"kind": "y"}})
        {'a': {'kind': 'y'}}
    """
    result = dict(base)
    for key, new in change.items():
        old = base.get(key)
        if isinstance(old, dict) and isinstance(new, dict) and new.get("kind", old.get("kind")) == old.get("kind"):
            new = merged(old, new)
        result[key] = new
    return {key: value for key, value in result.items() if value is not None}


def override(tree: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return a copy of ``tree`` with ``a.b=value`` assignments applied (values are read as YAML).

    Example:
        >>> override({"a": {"b": 1}}, ["a.b=2e-3", "c=x"])
        {'a': {'b': 0.002}, 'c': 'x'}

    Raises:
        LensphysError: if an assignment has no ``=`` or goes through something that is not a mapping.
    """
    result = _copy(tree)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise LensphysError(f"--set takes key=value (a.b=value for a nested key), got {assignment!r}")
        *parents, last = path.split(".")
        node = result
        for key in parents:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise LensphysError(f"--set {assignment}: '{key}' is a value, not a group of keys")
        try:
            node[last] = yaml.load(text, _Loader)
        except (yaml.YAMLError, ValueError, RecursionError):
            raise LensphysError(f"--set {shortened(assignment)}: the value is not valid YAML") from None
    return result


def _fault(error: Exception) -> str:
    """Where in a text, and what, in a line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return shortened(str(error), 300)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def _copy(tree: Any) -> Any:
    return {k: _copy(v) for k, v in tree.items()} if isinstance(tree, dict) else tree
