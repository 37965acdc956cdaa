"""How long a super-resolved image takes: one forward pass, and refined to convergence.

    python experiments/speed/speed.py [OUT]

32 noisy 64-pixel images of Model 3 (as many of each class as go), twice as fine, with sigma; 7 repetitions, median and
interquartile range per image, peak memory of the process (on a GPU: of the device). On every device that there is. The
machine should do nothing else. OUT is a JSON file, by default ``speed.json`` beside this script.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from lensphys.basics.outputs import write_json
from lensphys.basics.provenance import commit, hardware
from lensphys.data.lens_file import LensFile
from lensphys.methods import READY, Method
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.writer import simulate
from lensphys.training.experiment import load_run
from lensphys.weights import weights_folder

BATCH, REPETITIONS, NAME = 32, 7, "model_3"
METHODS = ("bicubic", "one forward pass", "refined", "refined, no_sub only")


def method(name: str, device: str) -> Method:
    """Return a method by the name it has in the table."""
    if name == "bicubic":
        return READY["bicubic"]
    network = load_run(weights_folder(NAME)).to(device).eval()
    return network if name == "one forward pass" else network.refined()


def images(classes: list[str] | None, device: str):
    """Return the images of some classes."""
    recipe = Recipe.named(NAME, [])
    with tempfile.TemporaryDirectory() as folder:
        number = -(-BATCH // (len(classes) if classes else 3))
        path = simulate(recipe, number, Path(folder) / "images.h5", classes=classes, seed=1000)
        with LensFile(path) as lenses:
            order = np.arange(len(lenses.labels)).reshape(-1, number).T.flatten()[:BATCH]
            return lenses.observation(np.sort(order)).to(device)


def measured(name: str, device: str) -> dict:
    """Return the row of a method on a device: in a process of its own, so that the peak is its own."""
    observation = images(["no_sub"] if name.endswith("no_sub only") else None, device)
    chosen, seconds = method(name, device), []
    for _ in range(REPETITIONS + 1):  # the first one warms up
        start = time.perf_counter()
        with torch.no_grad():
            chosen.predict(observation, 2).image.cpu()
        seconds.append((time.perf_counter() - start) / BATCH * 1e3)
    low, median, high = np.percentile(seconds[1:], [25, 50, 75])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    return {"what": name, "device": device, "batch": BATCH, "median_ms": float(median), "iqr_ms": float(high - low),
            "peak_mib": float(peak), "hardware": hardware(), "threads": torch.get_num_threads(),
            "commit": commit()}  # fmt: skip


def main(out: Path) -> None:
    """Measure each method on each device, one process each."""
    rows = []
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for name in METHODS:
            found = subprocess.run(
                [sys.executable, __file__, "--row", name, device], stdout=subprocess.PIPE, check=True
            )
            rows.append(json.loads(found.stdout.decode().splitlines()[-1]))
            print(f"{device} {name}: {rows[-1]['median_ms']:.1f} ms an image")
    write_json(out, rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--row"]:
        print(json.dumps(measured(sys.argv[2], sys.argv[3])))
    else:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("speed.json"))
