"""Where the recipes that come with lensphys lie."""

from __future__ import annotations

from pathlib import Path

import lensphys


def recipe_folder() -> Path:
    """Return the folder of the recipes that come with lensphys, and of the files they name."""
    package = Path(lensphys.__file__).parent
    installed = package / "simulations"
    return installed if installed.is_dir() else package.parent / "simulations"


def recipe_names() -> list[str]:
    """Return the bare names of the recipes that come with lensphys."""
    return sorted(path.stem for path in recipe_folder().glob("*.yaml"))
