"""Calls in a process of their own, forked from that of the test: nothing is imported anew."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from typer.testing import CliRunner

from lensphys.cli import app


def on_a_full_disk(limit: int, call: Callable, *arguments: Any) -> Any:
    """What a call returns where no file may grow beyond so many bytes: a write then fails in the middle."""
    with ProcessPoolExecutor(1, get_context("fork"), initializer=_limited, initargs=(limit,)) as pool:
        return pool.submit(call, *arguments).result(timeout=60)


def _limited(limit: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def killed(call: Callable, *arguments: Any) -> bool:
    """Whether a call ended by SIGKILL: see `kill_me`."""
    child = get_context("fork").Process(target=call, args=arguments)
    child.start()
    child.join(60)
    return child.exitcode == -signal.SIGKILL


def kill_me() -> None:
    """End this process as the kernel does that is out of memory: nothing is tidied up."""
    os.kill(os.getpid(), signal.SIGKILL)


def command(*arguments: object) -> tuple[int, str]:
    """Exit code of a command of lensphys, and what it said on stderr."""
    done = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "500"})
    return done.exit_code, done.stderr.strip()
