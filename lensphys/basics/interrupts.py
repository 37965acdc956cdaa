"""Ctrl-C and SIGTERM between two steps of long work, never within one; and workers that end with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection, wait
from typing import Any

_STOPS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Ctrl-C or SIGTERM as a wish, to be granted between two steps; a second one stops at once.

    A KeyboardInterrupt that lands anywhere can tear a step apart, or be swallowed by a library's bare ``except``.

    Example::

        with Interrupts() as interrupts:
            for step in steps:
                step()
                if interrupts.wished:
                    raise KeyboardInterrupt
    """

    def __init__(self) -> None:
        self.wished = False

    def __enter__(self) -> Interrupts:
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._before = {number: signal.signal(number, self._wish) for number in _STOPS}
        return self

    def __exit__(self, *error: object) -> None:
        if self._main:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _wish(self, number: int, frame: object) -> None:
        if self.wished:
            raise KeyboardInterrupt
        self.wished = True


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM, with which batch systems end a job, be what Ctrl-C is: a KeyboardInterrupt.

    It is one, too, where a library that was just loading or computing made another error of it.
    """
    asked = False

    def stop(number: int, frame: object) -> None:
        nonlocal asked
        asked = True
        raise KeyboardInterrupt

    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as a shell does for a job in the background
    with _answered(signal.SIGTERM, stop), nullcontext() if ignored else _answered(signal.SIGINT, stop):
        try:
            yield
        except Exception:
            if asked:
                raise KeyboardInterrupt from None
            raise


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C in the processes that are started here, for they inherit it: their parent stops them quietly."""
    with _answered(signal.SIGINT, signal.SIG_IGN):
        yield


@contextmanager
def _answered(number: signal.Signals, handler: Any) -> Iterator[None]:
    """Answer a signal in another way; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def end_with_parent(held: Connection) -> None:
    """End this process, one of `multiprocessing`, at once when the one that started it is gone or lets go of it.

    Args:
        held: an end of a pipe, the other end of which the parent closes to end its processes.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel, held])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
