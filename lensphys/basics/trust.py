"""Code of others: a config may name a class to import, and none is imported unless the user says so by its name."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.machinery import PathFinder

from lensphys.basics.checks import LensphysError, shortened

_trusted: ContextVar[frozenset[str]] = ContextVar("trusted", default=frozenset())


@contextmanager
def trusting(names: Collection[str]) -> Iterator[None]:
    """Let configs that are read in the block import some classes.

    Args:
        names: of the classes, as ``module:Class``.

    Example::

        with trusting(["my_network:MyNetworkSettings"]):
            method = load_run(Path("runs/mine"))
    """
    token = _trusted.set(_trusted.get() | frozenset(names))
    try:
        yield
    finally:
        _trusted.reset(token)


def check_trusted(name: str) -> None:
    """Raise unless a class may be imported because a config names it: one of ours, or one that the user trusts.

    Args:
        name: ``module:Class``.

    Raises:
        LensphysError: saying what would be imported.
    """
    module = name.partition(":")[0].split(".")
    ours = module[0] == "lensphys" and "__main__" not in module
    if not ours and name not in _trusted.get():
        raise LensphysError(
            f"{shortened(name)!r} is code that would be imported{_place(module[0])} and run: read it, and if you trust "
            f"it give --trust {shortened(name)}"
        )


def _place(package: str) -> str:
    """Where a module would come from; nothing of it is run to find that out."""
    found = PathFinder.find_spec(package)
    return f" from {found.origin}" if found is not None and found.origin else ""
