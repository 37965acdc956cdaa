"""Ctrl-C between two steps of long work, never within one."""

from __future__ import annotations

import signal
import threading


class Interrupts:
    """Ctrl-C as a wish, to be granted between two steps; a second Ctrl-C stops at once.

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
            self._before = signal.signal(signal.SIGINT, self._wish)
        return self

    def __exit__(self, *error: object) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._before)

    def _wish(self, number: int, frame: object) -> None:
        if self.wished:
            raise KeyboardInterrupt
        self.wished = True
