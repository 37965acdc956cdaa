"""How long the default takes for an image as a user runs it: a stack, all cores, nothing set.

    python experiments/speed/fits.py DATA.h5 [--images 24] [--workers 2]

DATA holds lenses of several classes (those of ``experiments/any_source``: 64 x 64 pixels of Euclid VIS behind real
galaxies, see ``collect.py`` there). For each class `lensphys super-resolve` runs once on its first images, in a process
of its own; what stands in ``fits.json`` beside this file is the time that passed, start included, over their number.
Run it on a machine that does nothing else. Minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lensphys.basics.outputs import write_json
from lensphys.basics.provenance import provenance
from lensphys.data.lens_file import LensFile


def timed(data: Path, rows: list[int], workers: int) -> dict[str, Any]:
    """Return the seconds an image that the command takes for some images of a file."""
    with TemporaryDirectory() as folder:
        asked = ["--rows", ",".join(map(str, rows)), "--workers", str(workers), "-o", f"{folder}/out.h5"]
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "lensphys", "super-resolve", str(data), *asked], check=True)
        passed = time.perf_counter() - started
    return {"images": len(rows), "workers": workers, "seconds": passed / len(rows)}


def table(tree: dict[str, Any]) -> str:
    """Return the seconds an image in Markdown, a column a class."""
    classes, (height, width) = tree["classes"], tree["pixels"]
    some = next(iter(classes.values()))
    head = f"{tree['instrument']}, {height} x {width} pixels, {some['workers']} workers"
    lines = [["", *classes], ["---"] * (len(classes) + 1)]
    lines.append([head, *(f"{row['seconds']:.1f} s an image (of {row['images']})" for row in classes.values())])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Time each class, and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with LensFile(arguments.data) as lenses:
        labels, classes = lenses.labels, lenses.classes
        shape, instrument = lenses.grid_lr.shape, lenses.instrument.description
    found = {}
    for k, name in enumerate(classes):
        rows = np.flatnonzero(labels == k)[: arguments.images].tolist()
        found[name] = timed(arguments.data, rows, arguments.workers)
        print(name, found[name], flush=True)
    write_json(
        Path(__file__).with_suffix(".json"),
        {"provenance": provenance(), "instrument": instrument, "pixels": list(shape), "classes": found},
    )


if __name__ == "__main__":
    main()
