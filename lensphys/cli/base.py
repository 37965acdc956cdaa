"""What the commands share: the app, its options, and how a user's mistake becomes one sentence."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from contextlib import ExitStack
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console
from typer.core import TyperGroup

from lensphys.basics.checks import LensphysError, shortened
from lensphys.basics.interrupts import terminable
from lensphys.basics.outputs import claimed
from lensphys.basics.trust import trusting
from lensphys.basics.version import VERSION

if TYPE_CHECKING:
    from lensphys.api.joint import JointResult
    from lensphys.api.result import Outcome

P = ParamSpec("P")
R = TypeVar("R")

_ORDER = "super-resolve show demo list simulate import doctor merge export train evaluate compare rank-set downstream"


class _FirstThingsFirst(TyperGroup):
    """Commands in the order in which somebody new needs them."""

    def list_commands(self, ctx: Any) -> list[str]:
        known = _ORDER.split()
        return sorted(super().list_commands(ctx), key=lambda n: known.index(n) if n in known else len(known))


app = typer.Typer(
    cls=_FirstThingsFirst,
    help="Super-resolve strong gravitational lenses from low-resolution images alone. Start with `lensphys demo`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console(soft_wrap=True, highlight=False, markup=False)
errors = Console(soft_wrap=True, highlight=False, markup=False, stderr=True)

_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")
_EITHER = re.compile(r"(?<![\w-])(--[a-z][a-z-]*[a-z])(?: in arcsec)?,? or (--[a-z][a-z-]*[a-z])")
_LONGEST = 1500  # characters of a message: some list all choices, none prints a file

_held: ContextVar[ExitStack] = ContextVar("what a command keeps until it ends")
_any_kept: ContextVar[Callable[[], bool]] = ContextVar("whether there are finished parts")
_running: ContextVar[str] = ContextVar("the function of the command that runs", default="")

_KEPT = {
    "simulate": "the finished shards are kept, the same command resumes",
    "train": "the state is kept, the same command with --resume continues",
    "evaluate": "finished parts are kept, the same command resumes",
    "downstream": "finished parts are kept, the same command resumes",
    "compare": "finished parts are kept, the same command resumes",
    "rank_set": "finished parts are kept, the same command resumes",
    "super_resolve": "finished parts are kept, the same command resumes",
    "demo": "finished parts are kept, the same command resumes",
}


def one_sentence(command: Callable[P, R]) -> Callable[P, R]:
    """Turn what the user got wrong into one sentence and exit code 2, and Ctrl-C or SIGTERM into 130."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            _running.set(command.__name__)
            _any_kept.set(lambda: True)
            with terminable(), ExitStack() as held:
                _held.set(held)
                return command(*args, **kwargs)
        except LensphysError as error:
            errors.print(f"error: {shortened(in_own_options(str(error)), _LONGEST)}")
            raise typer.Exit(2) from None
        except MemoryError:
            errors.print("error: there is not enough memory: give fewer or smaller images, or a smaller network")
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            kept = _KEPT.get(command.__name__) if _any_kept.get()() else None
            errors.print(f"interrupted: {kept or 'nothing was written'}")
            raise typer.Exit(130) from None

    return wrapped


def allow(names: list[str] | None) -> None:
    """Trust classes that configs name, until the command ends: see `lensphys.basics.trust`."""
    _held.get().enter_context(trusting(names or []))


def claim(out: Path | None, *inputs: Path | None, overwrite: bool) -> None:
    """Keep the place of an output until the command ends: see `outputs.claimed`. None are options not given.

    Raises:
        LensphysError: if it is an input, is there and not to be replaced, or another run is writing it.
    """
    from lensphys.data.hdf5 import files_of, is_hdf5

    given = [path for path in inputs if path is not None]
    files = [file for path in given for file in (files_of(path) if is_hdf5(path) else [path])]
    if out is not None:
        _held.get().enter_context(claimed(out, files, overwrite=overwrite))


def keeps(anything: Callable[[], bool]) -> None:
    """Say how to find out, if the running command is interrupted, whether any part was finished and is kept."""
    _any_kept.set(anything)


def option(name: str) -> str:
    """Return an argument's name as it is typed."""
    return "--" + name.replace("_", "-")


def note(sentence: str) -> None:
    """Tell the user what was assumed, left out or estimated, beside the results."""
    errors.print(f"note: {in_own_options(sentence)}")


def in_own_options(message: str) -> str:
    """Return a message of what all commands share with the options that the running one has.

    Of two options that would do, one that it lacks is left out; else it is said whose option that is.
    """
    running, options = _running.get(), _options()
    if running not in options or "--" not in message:
        return message
    command, own = options[running]

    def one(found: re.Match[str]) -> str:
        held = [name for name in found.groups() if name in own]
        return held[0] if len(held) == 1 else found[0]

    said = _EITHER.sub(one, message)
    lost = []
    for name in dict.fromkeys(_OPTION.findall(said)):
        others = [other for other, known in options.values() if name in known]
        if name not in own and others and not any(other in said for other in others):
            lost.append(f"{name} is an option of {', '.join(others)}, not of {command}")
    return f"{said} ({'; '.join(lost)})" if lost else said


@functools.cache
def _options() -> dict[str, tuple[str, frozenset[str]]]:
    """What each command is called, and its options, by the name of its function."""
    found: dict[str, tuple[str, frozenset[str]]] = {}

    def walk(group: Any, before: str) -> None:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                walk(command, f"{before}{name} ")
            else:
                own = frozenset(option for parameter in command.params for option in parameter.opts)
                found[command.callback.__name__] = (before + name, own)

    walk(typer.main.get_command(app), "")
    return found


def tell_result(out: Path, result: Outcome | JointResult) -> None:
    """Say what was found, and what the fit thinks of it."""
    console.print(f"wrote {out}: {result.summary}")
    for line in result.verdict:
        console.print(line)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        console.print(VERSION)
        raise typer.Exit
