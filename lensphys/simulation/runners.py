"""Who computes the shards: this process, several on this machine, or the workers of a Dask cluster."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Protocol

from lensphys.checks import LensphysError
from lensphys.extras import need
from lensphys.interrupts import deaf, end_with
from lensphys.simulation.shards import Finished

Job = Callable[[int], Finished]


class Runner(Protocol):
    """What computes shards: they come as they are finished, in any order. Closing the generator ends all work."""

    def run(self, job: Job, shards: list[int]) -> Generator[Finished, None, None]:
        """Yield what the job returns for each shard."""
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
        if self.count < 1:
            raise LensphysError(f"--workers must be 1 or more, got {self.count}")

    def run(self, job: Job, shards: list[int]) -> Generator[Finished, None, None]:
        """Yield what the job returns for each shard."""
        if min(self.count, len(shards)) <= 1:
            yield from map(job, shards)
            return
        # spawn: a fork would copy torch's threads in an undefined state
        pool = ProcessPoolExecutor(
            min(self.count, len(shards)), get_context("spawn"), initializer=end_with, initargs=(os.getpid(),)
        )
        try:
            with deaf():
                futures = [pool.submit(job, shard) for shard in shards]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            raise LensphysError(
                "a simulation process died (out of memory?): run the same command again, with fewer --workers; "
                "finished parts are kept"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


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

    def run(self, job: Job, shards: list[int]) -> Generator[Finished, None, None]:
        """Yield what the job returns for each shard."""
        need("distributed", "--scheduler (Dask)")
        from distributed import Client, KilledWorker

        try:
            client = Client(self.address, timeout="20s", set_as_default=False)
        except (OSError, ValueError) as error:
            raise LensphysError(
                f"no Dask scheduler answers at {self.address}: start one with 'dask scheduler' ({error})"
            ) from None
        try:
            # a shard that kills its workers again and again is given up by Dask, with KilledWorker
            run = uuid.uuid4().hex  # Dask takes what has one key for one task, whoever asks
            pending = set(client.map(job, shards, key=[f"shard-{run}-{s}" for s in shards]))
            alone_since = None
            while pending:
                done, pending = _some(client, pending)
                for future in done:
                    yield future.result()
                if client.scheduler_info()["workers"]:
                    alone_since = None
                elif alone_since is None:
                    alone_since = time.monotonic()
                elif time.monotonic() - alone_since > self.patience:
                    raise LensphysError(
                        f"no worker is left at {self.address} for {self.patience:g} s: start some with 'dask worker "
                        f"{self.address}' and run the same command again; finished parts are kept"
                    )
        except KilledWorker as error:
            raise LensphysError(
                f"several workers died over one part (out of memory?): {error}; run the same command again, finished "
                "parts are kept"
            ) from None
        finally:
            client.close()


def _some(client: Any, pending: set[Any]) -> Any:
    """Those futures that are done within a second, and the others."""
    from distributed import wait

    try:
        with client.as_current():
            return wait(pending, timeout=1.0, return_when="FIRST_COMPLETED")
    except TimeoutError:
        return set(), pending
