"""What a simulation will cost, from a few of its samples."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from lensphys.simulation.plan import Plan
from lensphys.simulation.shards import PlanManifest, write_shard

_TRIAL = 16  # samples of each class


@dataclass(frozen=True)
class Estimate:
    """The cost of a simulation.

    Args:
        bytes: of the finished samples, on the disk.
        seconds: of one worker, by class, for all samples of the class.
        shards: number of shards.
    """

    bytes: float
    seconds: dict[str, float]
    shards: int

    def wall_seconds(self, workers: int) -> float:
        """Return the time that so many workers take, without the seconds in which they start."""
        return sum(self.seconds.values()) / workers


def estimate(plan: Plan, *, device: str = "cpu") -> Estimate:
    """Return what a plan will cost: a few samples of each class are simulated into a temporary folder and timed."""
    seconds, size = {}, 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name in plan.classes:
            count = min(_TRIAL, plan.n)
            trial = replace(plan, classes=(name,), n=1 + count, shard_size=1)
            manifest = PlanManifest(trial, Path(folder) / name)
            manifest.claim()
            write_shard(trial, manifest.folder, device, 0)  # compiles and loads
            trial = replace(trial, n=count, shard_size=count)
            started = time.perf_counter()
            finished = write_shard(trial, manifest.folder, device, 0)
            seconds[name] = (time.perf_counter() - started) / count * plan.n
            size += finished.bytes / count * plan.n
    return Estimate(size, seconds, plan.shards)
