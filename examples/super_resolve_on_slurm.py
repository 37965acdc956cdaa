"""Super-resolve a survey on a SLURM cluster: Dask workers as jobs of the queue, images and results on a shared disk.

    pip install 'lensphys[cluster,parquet]'
    python examples/super_resolve_on_slurm.py /shared/cutouts /shared/survey --jobs 100 --queue normal

A job that the queue kills loses the part it was at, and another one makes it. Stopped as a whole, the same command
goes on. ``--local`` starts two processes on this machine instead, to try it out.
"""

import argparse
from pathlib import Path

from simulate_on_slurm import workers

from lensphys.basics.provenance import provenance
from lensphys.basics.runners import Cluster
from lensphys.catalogue import Reading, Survey, listed, super_resolve_all
from lensphys.catalogue.page import summary
from lensphys.methods import READY
from lensphys.observation import Instrument


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, help="a folder of images, a text with a path a line, or a stack")
    parser.add_argument("out", type=Path, help="the folder of the catalogue")
    parser.add_argument("--method", default="refine", choices=list(READY))
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--instrument", help="for what the files do not say: see `lensphys list instruments`")
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--queue", default=None)
    parser.add_argument("--walltime", default="04:00:00")
    parser.add_argument("--local", action="store_true")
    arguments = parser.parse_args()
    instrument = None if arguments.instrument is None else Instrument.named(arguments.instrument)
    survey = Survey(
        listed(arguments.images),
        READY[arguments.method],
        arguments.method,
        arguments.scale,
        Reading(instrument),
        provenance(method=arguments.method, scale=arguments.scale),
    )
    with workers(arguments) as cluster:
        print(summary(super_resolve_all(survey, arguments.out, Cluster(cluster.scheduler_address))))


if __name__ == "__main__":  # the workers import this file again
    main()
