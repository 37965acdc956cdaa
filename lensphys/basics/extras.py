"""Libraries that only some commands need: what is missing is told with the extra that brings it."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from lensphys.basics.checks import MissingExtraError

# extra of setup.cfg -> what is imported of it, by its name in Python
PACKAGES: dict[str, tuple[str, ...]] = {
    "simulate": ("numba", "lenstronomy"),
    "plot": ("matplotlib",),
    "train": ("tensorboard", "matplotlib"),
    "wandb": ("wandb",),
    "cluster": ("distributed",),
    "s3": ("s3fs",),
    "viewer": ("bokeh", "regions"),
    "diffusion": ("diffusers",),
    "coolest": ("coolest",),
    "parquet": ("pyarrow",),
    "downstream": ("sklearn",),
}


def need(package: str, what: str, extra: str = "") -> None:
    """Raise unless a package of an extra is installed: to be called before a long computation.

    Args:
        package: its name in Python, of `PACKAGES`.
        what: what needs it, the subject of the sentence.
        extra: the one that brings it, where that is not the first in `PACKAGES`.

    Raises:
        MissingExtraError: with the command that installs it.
    """
    if not _there(package):
        extra = extra or next(name for name, packages in PACKAGES.items() if package in packages)
        raise MissingExtraError(f"{what} needs {package}, which is not installed: pip install 'lensphys[{extra}]'")


def _there(package: str) -> bool:
    if package in sys.modules:
        return sys.modules[package] is not None
    return find_spec(package) is not None
