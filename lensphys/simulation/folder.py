"""Where the recipes that come with lensphys lie."""

from __future__ import annotations

from pathlib import Path

from lensphys.basics.settings import read_yaml
from lensphys.basics.version import PACKAGE


def recipe_folder() -> Path:
    """Return the folder of the recipes that come with lensphys, and of the files they name."""
    package = PACKAGE
    installed = package / "simulations"
    return installed if installed.is_dir() else package.parent / "simulations"


def recipe_description(name: str) -> str:
    """Return the line that says what a recipe that comes with lensphys is."""
    return str(read_yaml(recipe_folder() / f"{name}.yaml").get("description", ""))


def recipe_names() -> list[str]:
    """Return the bare names of the recipes that come with lensphys."""
    return sorted(path.stem for path in recipe_folder().glob("*.yaml"))
