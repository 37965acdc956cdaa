"""Commands for somebody new: what there is, and the whole job at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lensphys.basics.checks import check_choice
from lensphys.cli.base import app, console, one_sentence

if TYPE_CHECKING:
    from lensphys.model import Component

LISTS = Path(__file__).with_name("lists.json")


@app.command("list")
@one_sentence
def list_(
    kind: Annotated[
        str, typer.Argument(help="recipes, instruments, components, networks, methods, weights or all.")
    ] = "all",
) -> None:
    """List the names that commands know: recipes, instruments, components, networks, methods and weights."""
    check_choice("kind", kind, [*_KINDS, "all"])
    lists = json.loads(
        LISTS.read_text(encoding="utf-8")
    )  # as `lists` returned them: to ask the registries takes torch, and seconds
    for title in _KINDS if kind == "all" else [kind]:
        console.print(f"[bold]{title}[/]", markup=True)
        for name, line in lists[title].items():
            console.print(f"  {name:30s} {line}")


def lists() -> dict[str, dict[str, str]]:
    """Return what the command lists, a line for each name of a kind, from the registries: kept in lists.json.

    ``python docs/generate.py`` writes that file, and the tests compare it with this.
    """
    return {title: of() for title, of in _KINDS.items()}


def _recipes() -> dict[str, str]:
    from lensphys.simulation.folder import recipe_description, recipe_names

    return {name: recipe_description(name) for name in recipe_names()}


def _instruments() -> dict[str, str]:
    from lensphys.observation import Instrument, instrument_names

    return {name: Instrument.named(name).description for name in instrument_names()}


def _components() -> dict[str, str]:
    from lensphys.model import LIGHT, MASS

    kinds = (("mass", MASS), ("light", LIGHT))
    return {f"{kind} ({what})": _parameters(c) for what, of in kinds for kind, c in of.items()}


def _networks() -> dict[str, str]:
    from lensphys.networks import NETWORKS, network_settings

    return {name: _first_line(network_settings(name)) for name in NETWORKS}


def _methods() -> dict[str, str]:
    from lensphys.methods import READY, TRAINABLE

    ready = {name: _first_line(type(m)) for name, m in READY.items()}
    return ready | {f"{name} (train it)": _first_line(settings) for name, settings in TRAINABLE.items()}


def _weights() -> dict[str, str]:
    from lensphys.weights import weights_description, weights_names

    return {name: weights_description(name) for name in weights_names()}


_KINDS = {
    "recipes": _recipes,
    "instruments": _instruments,
    "components": _components,
    "networks": _networks,
    "methods": _methods,
    "weights": _weights,
}


@app.command()
@one_sentence
def demo(out: Annotated[Path, typer.Option("-o", "--out", help="The folder for everything.")] = Path("demo")) -> None:
    """Do the whole job on two cores in a few minutes: simulate, train from LR images alone, super-resolve, compare."""
    from lensphys.basics.extras import need
    from lensphys.cli.demo import demo as run

    for package in ("numba", "tensorboard", "matplotlib"):
        need(package, "lensphys demo", "all")
    run(out)


def _parameters(component: type[Component]) -> str:
    """What a component is, and what a recipe or a model may say of it."""
    return f"{_first_line(component).split(':')[0].rstrip('.')}: {', '.join(component.scene_names())}"


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").splitlines()[0]
