"""How much memory `super-resolve` and `evaluate` take for stacks of small images.

    python experiments/robustness/memory.py memory.json

Each command runs in a process of its own with the method bicubic; what the operating system says was its largest
resident set goes into the JSON, in MiB. The images are arcs in noise; what of them is read and written per image is
the same for each, so that memory that grows with their number shows. Cost: 20 minutes on one core.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from lensphys.basics.outputs import write_json
from lensphys.basics.provenance import provenance

SIDE = 32  # pixels
NOISE = 0.05


def stack(path: Path, count: int, scale: int, noise: float) -> Path:
    """Write rings (N, H, W) with a seed of their own each, a thousand at a time."""
    y, x = (np.indices((scale * SIDE, scale * SIDE)) + 0.5) / scale - SIDE / 2
    array = np.lib.format.open_memmap(path, "w+", np.float32, (count, *y.shape))
    for start in range(0, count, 1000):
        generator = np.random.default_rng(start)
        radius = generator.uniform(6, 10, (min(1000, count - start), 1, 1))
        ring = np.exp(-((np.hypot(y, x) - radius) ** 2)) / scale**2
        array[start : start + len(ring)] = ring + generator.normal(0, noise, ring.shape)
    array.flush()
    return path


def run(command: list[str]) -> dict[str, float]:
    """Return the largest resident set [MiB] of a command, and its time [s].

    Raises:
        RuntimeError: if it fails, with what it said.
    """
    started = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen([sys.executable, "-m", "lensphys", *command], stdout=said, stderr=said)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            raise RuntimeError(said.read().decode()[-2000:])
    return {"MiB": round(used.ru_maxrss / 1024, 1), "seconds": round(time.perf_counter() - started, 1)}


def commands(folder: Path, count: int) -> dict[str, list[str]]:
    """Return what is measured of a stack of so many images, by name; the files are made here."""
    low, high = stack(folder / "lr.npy", count, 1, NOISE), stack(folder / "hr.npy", count, 2, 0.0)
    lenses = folder / "lenses.h5"
    made = ["import", str(low), "--hr", str(high), "-o", str(lenses), "--pixel-scale", "0.1", "--class", "ring"]
    subprocess.run([sys.executable, "-m", "lensphys", *made], check=True, stdout=subprocess.DEVNULL)
    bicubic = ["--method", "bicubic"]
    return {
        "super-resolve .npy": [
            "super-resolve",
            str(low),
            "-o",
            str(folder / "a.npz"),
            "--pixel-scale",
            "0.1",
            *bicubic,
        ],
        "super-resolve .h5": ["super-resolve", str(lenses), "-o", str(folder / "a.h5"), *bicubic],
        "evaluate": ["evaluate", "--data", str(lenses), "-o", str(folder / "judged"), *bicubic],
    }


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[2000, 20000])
    arguments = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    for count in arguments.counts:
        with tempfile.TemporaryDirectory() as folder:
            for name, command in commands(Path(folder), count).items():
                found.setdefault(name, {})[str(count)] = run(command)
                print(count, name, found[name][str(count)], flush=True)
    write_json(arguments.out, {"provenance": provenance(), "side": SIDE, "memory": found})


if __name__ == "__main__":
    main()
