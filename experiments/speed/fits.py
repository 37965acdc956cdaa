"""How long the default takes for galaxies of any shape: stacks of them on some workers, and one large cut-out.

    python experiments/speed/fits.py [OUT] [--galaxies drawn] [--source FILE] [--images 24] [--workers 2] [--large]

The images are those of model_4 (Euclid VIS, 64 x 64 pixels) with richly drawn galaxies, or those of a FILE (which are
not ours to give), as sources; the large one has 300 x 300. Each row is a run of ``lensphys super-resolve``, start and
writing included. OUT (by default experiments/speed/fits.json) is written after each; rows on other ``--galaxies`` stay.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lensphys.basics.outputs import write_json
from lensphys.basics.provenance import provenance

LENSPHYS = [sys.executable, "-m", "lensphys"]
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Stack:
    """Images that are super-resolved together.

    Args:
        kind: class of the recipe.
        images: how many.
        side: of each [pixels].
        workers: processes.
    """

    kind: str
    images: int
    side: int
    workers: int


def measured(stack: Stack, source: str, folder: Path) -> dict[str, Any]:
    """Return the row of a stack."""
    data, result = folder / f"{stack.kind}_{stack.side}.h5", folder / f"{stack.kind}_{stack.side}_sr.h5"
    changes = (f"source.file={source}", "source.pixel_scale={kind: uniform, low: 0.010, high: 0.022}",
               f"height={stack.side}", f"width={stack.side}")  # fmt: skip
    assignments = [part for change in changes for part in ("--set", change)]
    simulate = ["simulate", "model_4", "-n", str(stack.images), "--classes", stack.kind, "--seed", "7", "-o", data]
    subprocess.run([*LENSPHYS, *simulate, *assignments], check=True)
    started = time.perf_counter()
    seconds, peak = _run([*LENSPHYS, "super-resolve", data, "-o", result, "--workers", str(stack.workers)])
    wall = time.perf_counter() - started
    return vars(stack) | {"wall_seconds": wall / stack.images, "cpu_seconds": seconds / stack.images, "peak_mib": peak}


def _run(command: list[Any]) -> tuple[float, float]:
    """The CPU seconds of a command and its workers, and the memory of the largest process of them [MiB].

    Workers are children of a server of forks, which outlives the command: whoever is left comes to the one who waits.
    """
    code = ("import ctypes, os, resource, subprocess, sys; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"
            "done = subprocess.run(sys.argv[1:], stdout=sys.stderr)\n"
            "try:\n    while True: os.wait()\nexcept ChildProcessError: pass\n"
            "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
            "print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024); sys.exit(done.returncode)")  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, command)], stdout=subprocess.PIPE, text=True, check=True
    )
    seconds, peak = map(float, done.stdout.split())
    return seconds, peak


def main() -> None:
    """Measure one stack after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=HERE / "fits.json")
    parser.add_argument("--source", default="richer_galaxies.npy")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--galaxies", default="drawn", help="what the table calls them")
    parser.add_argument("--large", action="store_true")
    arguments = parser.parse_args()
    stacks = [Stack(kind, arguments.images, 64, arguments.workers) for kind in ("no_sub", "axion", "cdm")]
    if arguments.large:
        stacks.append(Stack("no_sub", 1, 300, 1))
    before = json.loads(arguments.out.read_text())["rows"] if arguments.out.exists() else []
    rows = [row for row in before if row["galaxies"] != arguments.galaxies]
    with TemporaryDirectory() as folder:
        for stack in stacks:
            own = {"galaxies": arguments.galaxies, "commit": provenance()["commit"]}
            rows.append(own | measured(stack, arguments.source, Path(folder)))
            print(rows[-1], flush=True)
            write_json(arguments.out, {"provenance": provenance(cores=os.cpu_count()), "rows": rows})


if __name__ == "__main__":
    main()
