"""Where progress is shown: a bar on a terminal, a line now and then in a file."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")
_EVERY = 30.0  # seconds between two lines
_step: ContextVar[Callable[[], None] | None] = ContextVar("counts the parts of an item, where somebody does")


def progress_console(*, quiet: bool = False) -> Console:
    """Return the console of progress bars: standard error, alive on a terminal alone; ``quiet`` for none.

    In notebooks rich would ask for widgets, or write a line for every step.
    """
    return Console(stderr=True, quiet=quiet, force_jupyter=False, force_terminal=sys.stderr.isatty())


class _Told(Progress):
    """Bars on a terminal; elsewhere a line on each task that goes on, now and then.

    Args:
        columns: of the bars.
        every: time between two lines [s].
        console: where.
        transient: whether nothing is left of it in the end.
        disable: show nothing.
    """

    def __init__(self, *columns: ProgressColumn, every: float, console: Console, transient: bool, disable: bool):
        super().__init__(
            *columns, console=console, transient=transient, disable=disable, auto_refresh=console.is_terminal
        )
        self._every, self._over, self._kept = every, threading.Event(), not transient
        self._first: dict[int, float] = {}  # what of each task was done before
        self._teller = threading.Thread(target=self._tell, daemon=True)

    def start(self) -> None:
        """Begin to show."""
        if self.console.is_terminal:
            super().start()
        elif not (self.console.quiet or self.disable):
            self._teller.start()

    def stop(self) -> None:
        """Show nothing more."""
        if self.console.is_terminal:
            super().stop()
        self._over.set()
        if self._teller.is_alive():
            self._teller.join()
            self._line(*(self.tasks if self._kept else ()))

    def add_task(
        self,
        description: str,
        start: bool = True,
        total: float | None = 100.0,
        completed: float = 0,
        visible: bool = True,
        **fields: Any,
    ) -> TaskID:
        """Add a task, of which ``completed`` was done before; all is as of rich's."""
        task = super().add_task(description, start, total, completed, visible, **fields)  # type: ignore[arg-type]
        self._first[task] = completed
        return task

    def _tell(self) -> None:
        while not self._over.wait(self._every):
            self._line(*(task for task in self.tasks if not task.finished))

    def _line(self, *tasks: Task) -> None:
        for task in tasks:
            told = progress_line(task, self._first.get(task.id, 0.0))
            self.console.print(told, markup=False, highlight=False, soft_wrap=True)


def progress_line(task: Task, first: float = 0.0) -> str:
    """Return how far a task is, since when, and how long it will take at the pace so far.

    Args:
        task: of a bar; a total of 1 is a share.
        first: what was done before it began.
    """
    elapsed, done = task.elapsed or 0.0, task.completed
    if not task.total:
        return f"{task.description}: {done:.0f}, {_clock(elapsed)} so far"
    if task.total == 1 and not done:
        return f"{task.description}: {_clock(elapsed)} so far"
    share = f"{100 * done / task.total:.0f} %"
    if task.total > 1 and done >= task.total:
        return f"{task.description}: {done:.0f} of {task.total:.0f}, took {_clock(elapsed)}"
    far = share if task.total == 1 else f"{done:.0f} of {task.total:.0f} ({share})"
    pace = (done - first) / elapsed if elapsed > 0 else 0.0
    left = f", about {_clock((task.total - done) / pace)} to go" if pace > 0 else ""
    return f"{task.description}: {far}, {_clock(elapsed)} so far{left}"


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def progress_bar(
    console: Console | None = None,
    *,
    counter: ProgressColumn | None = None,
    transient: bool = False,
    disable: bool = False,
    every: float = _EVERY,
) -> Progress:
    """Return what counts what is done and tells the time to go: a bar, or where there is no terminal lines.

    Args:
        console: where; `progress_console` if None.
        counter: what of a bar says how much is done; how many of all if None.
        transient: whether the bar is gone in the end.
        disable: show nothing.
        every: time between two lines [s].
    """
    columns = (TextColumn("{task.description}"), BarColumn(), counter or MofNCompleteColumn(), TimeRemainingColumn())
    where = progress_console() if console is None else console
    return _Told(*columns, every=every, console=where, transient=transient, disable=disable)


def tracked(
    items: Iterable[T],
    title: str,
    total: float | None = None,
    *,
    console: Console | None = None,
    every: float = _EVERY,
) -> Iterator[T]:
    """Yield some items and show how many are done, until all are.

    Args:
        items: of any kind.
        title: what is done.
        total: how many there are, where ``items`` does not tell.
        console: where; `progress_console` if None.
        every: time between two lines where there is no terminal [s].
    """
    with progress_bar(console, transient=True, every=every) as progress:
        yield from progress.track(items, total=total, description=title)


def counted_inside(
    items: Iterable[T],
    title: str,
    size: Callable[[T], int],
    total: int,
    *,
    before: int = 0,
    console: Console | None = None,
    every: float = _EVERY,
) -> Iterator[T]:
    """Yield some items of several parts and show how many parts are done, also within an item: see `step`.

    Args:
        items: of any kind.
        title: what is done.
        size: how many parts an item has.
        total: parts in all.
        before: how many of them were done before.
        console: where; `progress_console` if None.
        every: time between two lines where there is no terminal [s].
    """
    with progress_bar(console, transient=True, every=every) as progress:
        task = progress.add_task(title, total=total, completed=before)
        done, inside, most = before, 0, total

        def one_more() -> None:
            nonlocal inside
            inside += 1
            progress.update(task, completed=done + min(inside, most))

        token = _step.set(one_more)
        try:
            for item in items:
                inside, most = 0, size(item)
                yield item
                done, inside, most = done + most, 0, total
                progress.update(task, completed=done)
        finally:
            _step.reset(token)


def step() -> None:
    """Tell whoever counts the parts of an item that one is done; nothing where nobody does."""
    one_more = _step.get(None)
    if one_more is not None:
        one_more()
