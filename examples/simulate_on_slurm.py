"""Simulate on a SLURM cluster: Dask workers as jobs of the queue, shards on a disk that all nodes see.

    pip install 'lensphys[cluster]'
    python examples/simulate_on_slurm.py model_2 1000000 /shared/survey --jobs 200 --queue normal

A job that the queue kills loses the shard it was at, and another one makes it. Stopped as a whole, the same command
goes on. ``--local`` starts two processes on this machine instead, to try it out.
"""

import argparse

from lensphys.basics.runners import Cluster
from lensphys.simulation import Recipe
from lensphys.simulation.plan import Plan
from lensphys.simulation.writer import write


def workers(arguments: argparse.Namespace):
    """Start a cluster of single-threaded workers."""
    if arguments.local:
        from distributed import LocalCluster

        return LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    from dask_jobqueue import SLURMCluster

    cluster = SLURMCluster(queue=arguments.queue, cores=1, processes=1, memory="3GB", walltime=arguments.walltime)
    cluster.scale(jobs=arguments.jobs)
    return cluster


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("n", type=int, help="samples of each class")
    parser.add_argument("out", help="folder of the shards, on a shared disk; or an .h5 file")
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--queue", default=None)
    parser.add_argument("--walltime", default="04:00:00")
    parser.add_argument("--shard-size", type=int, default=1024)
    parser.add_argument("--local", action="store_true")
    arguments = parser.parse_args()
    plan = Plan.from_recipe(Recipe.named(arguments.recipe), arguments.n, shard_size=arguments.shard_size)
    with workers(arguments) as cluster:
        print(f"wrote {write(plan, arguments.out, Cluster(cluster.scheduler_address))}")


if __name__ == "__main__":  # the workers import this file again
    main()
