"""On how many threads torch computes: a setting of the process, for the time that something takes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Compute on so many threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def on_one_thread() -> Iterator[None]:
    """Compute on one thread meanwhile: with more of them the order of a sum, and its last digit, would be another.

    Threads of Python wait for each other: torch's number of threads and its forward derivatives are of the process.
    """
    with _ONE_AT_A_TIME, on_threads(1):
        yield
