"""A Dask cluster of separate processes: the same bytes, even when one of them is killed."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

distributed = pytest.importorskip("distributed")

from lensphys.basics.checks import LensphysError  # noqa: E402
from lensphys.basics.runners import Cluster  # noqa: E402
from lensphys.catalogue import Reading, Survey, listed, super_resolve_all  # noqa: E402
from lensphys.methods import READY  # noqa: E402
from lensphys.simulation import Recipe  # noqa: E402
from lensphys.simulation.plan import Plan  # noqa: E402
from lensphys.simulation.shards import PlanManifest, write_shard  # noqa: E402
from lensphys.simulation.writer import write  # noqa: E402

ROOT = Path(__file__).parents[1]


def plan_of(n: int = 20) -> Plan:
    """60 samples in 12 shards, of the slow engine: there is work left when a worker is killed."""
    return Plan.from_recipe(Recipe.named("model_2", ["height=12", "width=16"]), n, shard_size=5, engine="lenstronomy")


@pytest.fixture(scope="module")
def scheduler():
    """The address of a scheduler without workers."""
    with distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None, protocol="tcp://") as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def start(scheduler):
    """Start workers as a user does, each a process of its own without a nanny that would start it anew."""
    started = []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    command = [sys.executable, "-m", "distributed.cli.dask_worker", scheduler, "--no-nanny", "--nthreads", "1"]

    def run(count: int) -> list[subprocess.Popen]:
        for _ in range(count):
            process = subprocess.Popen(
                [*command, "--no-dashboard"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            started.append(process)
        return started

    yield run
    for process in started:
        process.kill()
        process.wait()


def waited(scheduler: str, count: int) -> None:
    with distributed.Client(scheduler, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=60)


def test_a_killed_worker_changes_nothing(tmp_path, scheduler, start):
    workers = start(2)
    waited(scheduler, 2)
    finished = []

    class Watched(Cluster):
        def run(self, job, shards, *stopped):
            for done in super().run(job, shards, *stopped):
                finished.append(done.shard)
                if len(finished) == 3:
                    workers[0].send_signal(signal.SIGKILL)
                yield done

    out = write(plan_of(), tmp_path / "cluster.h5", Watched(scheduler))
    assert sorted(finished) == list(range(12))
    assert workers[0].wait(10) == -signal.SIGKILL and workers[1].poll() is None
    assert out.read_bytes() == write(plan_of(), tmp_path / "here.h5").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cluster.h5", "here.h5"]


def test_what_was_taken_is_not_done_again(scheduler, start):
    """Dask recomputes what a dead worker had in memory as long as somebody holds it: nobody holds what was taken."""
    start(1)
    run = Cluster(scheduler, patience=60).run(abs, [-1, -2, -3])
    taken = [next(run) for _ in range(3)]  # the generator still stands after the last one: its client is not closed
    with distributed.Client(scheduler, set_as_default=False) as client:
        end = time.monotonic() + 20
        while (left := client.run_on_scheduler(held)) and time.monotonic() < end:
            time.sleep(0.05)
    run.close()
    assert sorted(taken) == [1, 2, 3] and left == []


def held(dask_scheduler) -> list[str]:
    return [key for key in dask_scheduler.tasks if key.startswith("part-")]


@pytest.mark.slow
def test_a_killed_worker_changes_nothing_in_a_catalogue(tmp_path, scheduler, start):
    workers = start(2)
    waited(scheduler, 2)
    image = np.random.default_rng(0).normal(1, 0.3, (24, 16, 16)).astype("f4")
    np.save(tmp_path / "a.npy", image)
    survey = Survey(listed(tmp_path / "a.npy"), READY["bicubic"], "bicubic", reading=Reading(pixel_scale=0.1))

    class Watched(Cluster):
        def run(self, job, parts, *stopped):
            for count, done in enumerate(super().run(job, parts, *stopped)):
                if count == 5:
                    workers[0].send_signal(signal.SIGKILL)
                yield done

    for name, runner in (("cluster", Watched(scheduler)), ("here", None)):
        super_resolve_all(survey, tmp_path / name, runner)
    assert workers[0].wait(10) == -signal.SIGKILL
    files = [p.relative_to(tmp_path / "here") for p in (tmp_path / "here/shards").rglob("*") if p.is_file()]
    assert len([p for p in files if p.suffix == ".npz"]) == 24
    for path in [Path("manifest.json"), *(p for p in files if p.name != "seconds.json")]:
        assert (tmp_path / "cluster" / path).read_bytes() == (tmp_path / "here" / path).read_bytes(), path


@pytest.mark.slow
def test_without_workers_a_run_gives_up_and_goes_on_later(tmp_path, scheduler, start):
    plan = plan_of(5)
    with pytest.raises(LensphysError, match=r"no worker is left at tcp://.* for 0.5 s: start some with 'dask worker"):
        write(plan, tmp_path / "survey", Cluster(scheduler, patience=0.5))
    assert [p.name for p in (tmp_path / "survey").iterdir()] == ["manifest.json"]
    start(1)
    write(plan, tmp_path / "survey", Cluster(scheduler, patience=60))
    assert len(list((tmp_path / "survey").glob("*.h5"))) == 3


def test_errors_of_workers_come_back(tmp_path, scheduler, start):
    """A worker on another disk does not see the folder."""
    start(1)
    plan, folder = plan_of(2), tmp_path / "here"
    PlanManifest(plan, folder).claim()
    elsewhere = partial(write_shard, plan, tmp_path / "there", "cpu")
    with pytest.raises(LensphysError, match=r"the worker on .* does not see .*there: it must lie on a disk that all"):
        list(Cluster(scheduler).run(elsewhere, [0, 1]))
    assert not (tmp_path / "there").exists()


@pytest.mark.slow
def test_a_shard_that_kills_its_workers_is_given_up(tmp_path, scheduler, start):
    start(5)  # Dask tries a task on four of them
    waited(scheduler, 5)
    with pytest.raises(LensphysError, match=r"several workers died over one part \(out of memory\?\): .*same command"):
        list(Cluster(scheduler, patience=20).run(die, [0]))


def die(shard: int):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense"])
def test_no_scheduler_at_the_address(tmp_path, monkeypatch, address):
    client = distributed.Client
    # it would try for 20 s
    monkeypatch.setattr(distributed, "Client", lambda a, timeout, **rest: client(a, timeout="0.5s", **rest))
    with pytest.raises(LensphysError, match=f"no Dask scheduler answers at {address}: start one with 'dask sched"):
        write(plan_of(2), tmp_path / "a.h5", Cluster(address))


def test_without_dask_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(LensphysError, match=r"--scheduler \(Dask\) needs distributed, .*'lensphys\[cluster\]'"):
        write(plan_of(2), tmp_path / "a.h5", Cluster("tcp://127.0.0.1:9"))
