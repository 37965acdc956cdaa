"""Who computes the parts of long work: this process, several on this machine, or the workers of a Dask cluster."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Sized
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context, set_forkserver_preload
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.forkserver import ensure_running
from typing import Any, Protocol, TypeVar

from lensphys.basics.checks import LensphysError, check_whole
from lensphys.basics.extras import need
from lensphys.basics.interrupts import Interrupts, end_with_parent, interrupts_ignored

T = TypeVar("T")
R = TypeVar("R")

_SECONDS_BETWEEN_NOTES = 5.0
_SECONDS_TO_ANSWER = 0.2  # to Ctrl-C


def _never() -> bool:
    return False


class Runner(Protocol):
    """What does a job for each of some parts: they come as they are finished, in any order.

    Closing the generator ends all work.
    """

    def run(
        self, job: Callable[[T], R], parts: Sequence[T], stopped: Callable[[], bool] = _never
    ) -> Generator[R, None, None]:
        """Yield what the job returns for each part.

        Args:
            job: what is done.
            parts: for which it is done.
            stopped: whether the work shall end, now and then asked while other processes are waited for.

        Raises:
            KeyboardInterrupt: as soon as it shall end; what other processes have not finished is lost.
        """
        ...


@dataclass(frozen=True)
class Processes:
    """Processes on this machine.

    Args:
        count: how many; 1 is this process itself.

    Raises:
        LensphysError: if there are none, or (while running) one of them dies.
    """

    count: int = 1

    def __post_init__(self) -> None:
        check_whole("--workers", self.count, 1)

    def run(
        self, job: Callable[[T], R], parts: Iterable[T], stopped: Callable[[], bool] = _never
    ) -> Generator[R, None, None]:
        """Yield what the job returns for each part; parts are asked for as they are wanted, a few ahead."""
        if self.count == 1 or (isinstance(parts, Sized) and len(parts) <= 1):
            yield from map(job, parts)
            return
        waiting = set[Future[R]]()
        try:
            with _pool(self.count) as pool:
                for part in parts:
                    with interrupts_ignored():
                        waiting.add(pool.submit(job, part))
                    if len(waiting) >= 2 * self.count:
                        yield from _finished(waiting, stopped)
                while waiting:
                    yield from _finished(waiting, stopped)
        except BrokenProcessPool:
            raise LensphysError(
                "a worker died (out of memory?): run the same command again, with fewer --workers; "
                "finished parts are kept"
            ) from None


@contextmanager
def _pool(count: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end with the block: at once if it is left by Ctrl-C, or as no more results are asked for."""
    context = _context()
    held, holding = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(count, context, initializer=_begin, initargs=(held,))
    try:
        yield pool
    except (KeyboardInterrupt, GeneratorExit):
        holding.close()  # else they would finish what they have begun, however long that takes
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        holding.close()
        held.close()


def _finished(waiting: set[Future[R]], stopped: Callable[[], bool]) -> Iterator[R]:
    """The results of those that are finished, at least one, which wait no more."""
    done: set[Future[R]] = set()
    while not done:
        if stopped():
            raise KeyboardInterrupt
        done = wait(waiting, timeout=_SECONDS_TO_ANSWER, return_when=FIRST_COMPLETED).done
    waiting -= done
    yield from (future.result() for future in done)


def warm(module: str) -> None:
    """Start what starts processes now, in a process of its own, so that it is ready when they are wanted.

    Args:
        module: what they will import: once, not once each. To import it must start no threads that a fork would break.
    """
    if "forkserver" in get_all_start_methods():
        set_forkserver_preload([module])
        with interrupts_ignored():
            ensure_running()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _context() -> BaseContext:
    """Not a plain fork, which would copy this process's threads (torch's) in an undefined state."""
    return get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")


def _begin(held: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops its processes quietly
    end_with_parent(held)


@dataclass(frozen=True)
class Cluster:
    """The workers of a Dask cluster, which come and go as they like: what a lost one had begun, another one does.

    Args:
        address: of the scheduler, as ``tcp://10.0.0.1:8786``.
        patience: how long to wait where no worker is left [s].

    Raises:
        LensphysError: if Dask is not installed; while running, if no scheduler answers or no worker is left.
    """

    address: str
    patience: float = 600.0

    def run(
        self, job: Callable[[T], R], parts: Sequence[T], stopped: Callable[[], bool] = _never
    ) -> Generator[R, None, None]:
        """Yield what the job returns for each part."""
        need("distributed", "--scheduler (Dask)")
        from distributed import Client, KilledWorker

        try:
            client = Client(self.address, timeout="20s", set_as_default=False)
        except (OSError, ValueError) as error:
            raise LensphysError(
                f"no Dask scheduler answers at {self.address}: start one with 'dask scheduler' ({error})"
            ) from None
        try:
            # a part that kills its workers again and again is given up by Dask, with KilledWorker
            run = uuid.uuid4().hex  # Dask takes what has one key for one task, whoever asks
            futures = client.map(job, parts, key=[f"part-{run}-{i}" for i in range(len(parts))])
            yield from self._results(client, futures, stopped)
        except KilledWorker as error:
            raise LensphysError(
                f"several workers died over one part (out of memory?): {error}; run the same command again, finished "
                "parts are kept"
            ) from None
        finally:
            client.close()

    def _results(self, client: Any, futures: Sequence[Any], stopped: Callable[[], bool]) -> Iterator[Any]:
        """The results of futures as they are finished, as long as workers come back in time."""
        pending, seen = set(futures), time.monotonic()
        while pending:
            if stopped():
                raise KeyboardInterrupt
            done, pending = _some(client, pending)
            for future in done:
                result = future.result()
                future.release()  # else Dask does the part again if the worker that did it dies
                yield result
            if client.scheduler_info()["workers"]:
                seen = time.monotonic()
            elif time.monotonic() - seen > self.patience:
                raise LensphysError(
                    f"no worker is left at {self.address} for {self.patience:g} s: start some with 'dask worker "
                    f"{self.address}' and run the same command again; finished parts are kept"
                )


def _some(client: Any, pending: set[Any]) -> Any:
    """Those futures that are done within a second, and the others."""
    from distributed import wait

    try:
        with client.as_current():
            return wait(pending, timeout=1.0, return_when="FIRST_COMPLETED")
    except TimeoutError:
        return set(), pending


def run_parts(
    runner: Runner, job: Callable[[T], R], parts: Sequence[T], take: Callable[[R], None], note: Callable[[], None]
) -> None:
    """Have a job done for each of some parts, and keep account of it.

    Args:
        runner: who computes.
        job: what is done.
        parts: for which it is done.
        take: is told what the job returned for each part.
        note: writes down what is finished: now and then, and at the end, however that comes.

    Raises:
        KeyboardInterrupt: after Ctrl-C or SIGTERM: at once where other processes compute, else between two parts.
    """
    noted, interrupts = time.monotonic(), Interrupts()
    try:
        # on Ctrl-C the workers stop at once, not when the exception is forgotten
        with closing(runner.run(job, parts, lambda: interrupts.wished)) as run, interrupts:
            for finished in run:
                take(finished)
                if time.monotonic() - noted > _SECONDS_BETWEEN_NOTES:
                    note()
                    noted = time.monotonic()
                if interrupts.wished:
                    raise KeyboardInterrupt
    except LensphysError:
        if interrupts.wished:  # the signal went to the workers, too
            raise KeyboardInterrupt from None
        raise
    finally:
        note()
