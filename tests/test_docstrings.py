"""What a reader of the API looks up: each quantity of a component and each field of a class, with its unit."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from lensphys.model import LIGHT, MASS, GalaxyImage

PACKAGE = Path(__file__).parents[1] / "lensphys"
COMPONENTS = [*MASS.values(), *LIGHT.values(), GalaxyImage]


def entries(docstring: str) -> dict[str, str]:
    """What a docstring says of each argument, by its name."""
    part = re.split(r"\n\s*\n(?=\w)", docstring.split("Args:\n", 1)[-1] if "Args:\n" in docstring else "", maxsplit=1)[
        0
    ]
    return dict(re.findall(r"^ {4}(\w+): ((?:.|\n {5,})*)", part, re.MULTILINE))


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda c: c.__name__)
def test_a_component_and_its_formula_say_the_unit_of_each_parameter(component):
    for told in (component, component.formula):
        said = entries(inspect.getdoc(told) or "")
        for parameter in component.parameters:
            if parameter.unit:
                assert f"[{parameter.unit}]" in said[parameter.name], told


def test_every_field_of_a_public_class_is_explained():
    silent = []
    for path in sorted(
        p for room in ("api", "model", "observation", "simulation") for p in (PACKAGE / room).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                said = entries(ast.get_docstring(node) or "")
                names = [
                    x.target.id
                    for x in node.body
                    if isinstance(x, ast.AnnAssign) and "ClassVar" not in ast.unparse(x.annotation)
                ]
                silent += [
                    f"{node.name}.{n}" for n in names if n not in ({"kind"} | set(said)) and not n.startswith("_")
                ]
    assert silent == []
