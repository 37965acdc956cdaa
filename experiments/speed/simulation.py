"""How fast lenses are simulated, beside the loop that the published simulators are, and beside caustics.

    python experiments/speed/simulation.py [OUT]

Model 2 (64 px LR, 128 px HR), each class by itself: milliseconds per finished sample on disk, median and interquartile
range over stretches of a run, once all processes work (`first_shard_s` holds their start). Everything is measured in
this one run; the machine should do nothing else. About 6 minutes and 3 GB of free disk. OUT is a JSON file, by default
``simulation.json`` beside this script.
"""

import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from published_loop import difference, write_one

from lensphys.basics.outputs import write_json
from lensphys.basics.provenance import commit, hardware, versions
from lensphys.basics.runners import Processes
from lensphys.data.merging import merge_shards
from lensphys.simulation.detector import conditions_of
from lensphys.simulation.plan import Plan
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.sample import render
from lensphys.simulation.shards import PlanManifest, checksum, shard_path, write_shard

RECIPE, CLASSES, SEED = "model_2", ("no_sub", "axion", "cdm"), 5
LOOP = {"no_sub": 100, "axion": 30, "cdm": 60}
TORCH = {"no_sub": 4096, "axion": 4096, "cdm": 4096}  # about 1 GB: more would measure the disk
REFERENCE = {"no_sub": 768, "axion": 256, "cdm": 384}
STRETCHES = 5


def plan(name: str, n: int, engine: str = "torch", shard_size: int = 256) -> Plan:
    """Return the plan of one class."""
    recipe = Recipe.named(RECIPE)
    return Plan.from_recipe(recipe, n, classes=[name], seed=SEED, engine=engine, shard_size=shard_size)


def summary(milliseconds: list[float]) -> dict[str, float]:
    """Return median and interquartile range."""
    low, median, high = np.percentile(milliseconds, [25, 50, 75])
    return {"median_ms": float(median), "iqr_ms": float(high - low)}


def loop(name: str) -> dict[str, float]:
    """Time the published loop."""
    rng, spent = np.random.default_rng(SEED), []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(LOOP[name] + 3):  # the first ones load and compile
            started = time.perf_counter()
            write_one(Path(folder), name, i, rng)
            spent.append(1e3 * (time.perf_counter() - started))
    return summary(spent[3:])


def run(what: Plan, workers: int, *, merged: bool = False) -> dict[str, float]:
    """Time the shards of a plan, and, if ``merged``, also their way into one file."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        manifest = PlanManifest(what, Path(folder) / "shards")
        manifest.claim()
        job = partial(write_shard, what, manifest.folder, "cpu")
        started, times, counts = time.perf_counter(), [], []
        for finished in Processes(workers).run(job, manifest.missing):
            manifest.finished[finished.shard] = finished
            times.append(time.perf_counter())
            counts.append(finished.samples)
        manifest.write()
        size = sum(f.bytes for f in manifest.finished.values()) / len(what)
        # from the second shard of each worker on: both work, nobody starts
        first = 2 * workers - 1
        edges = np.linspace(first, len(times) - 1, STRETCHES + 1).round().astype(int).tolist()
        stretches = [1e3 * (times[b] - times[a]) / sum(counts[a + 1 : b + 1]) for a, b in itertools.pairwise(edges)]
        row = summary(stretches) | {"bytes": size, "first_shard_s": times[0] - started}
        if merged:
            started = time.perf_counter()
            merge_shards(manifest.folder, Path(folder) / "all.h5")
            row["merge_ms"] = 1e3 * (time.perf_counter() - started) / len(what)
    row["peak_mib"] = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_CHILDREN,
                                                                       resource.RUSAGE_SELF)) / 1024  # fmt: skip
    return row


def typed(name: str) -> dict[str, float]:
    """Time the command as it is typed, defaults and all: wall and processor time, ms a sample."""
    count = TORCH[name]
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        words = ["simulate", RECIPE, "-n", str(count), "--classes", name, "-o", f"{folder}/x.h5"]
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, "-m", "lensphys", *words], check=True, stdout=subprocess.DEVNULL)
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        size = Path(f"{folder}/x.h5").stat().st_size
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"samples": count, "wall_ms": 1e3 * wall / count, "lead_ms": 1e3 * used / count, "bytes": size / count}


def steps(name: str) -> dict[str, float]:
    """Return where the time of one worker goes, in ms a sample."""
    what = plan(name, 256)
    engine = what.build_engine()
    parts: dict[str, list[float]] = {}

    def timed(step: str, do, count: int):
        started = time.perf_counter()
        done = do()
        parts.setdefault(step, []).append(1e3 * (time.perf_counter() - started) / count)
        return done

    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        manifest = PlanManifest(what, Path(folder))
        manifest.claim()
        for repetition in range(5):
            drawn = timed("draw", lambda: [what.drawn(i) for i in range(32)], 32)
            scenes = [d.scene for d in drawn]
            timed("deflection", lambda s=scenes: [engine._deflection(s[i : i + 6]) for i in range(0, 32, 6)], 32)
            timed("engine", lambda s=scenes: engine.render(s, conditions_of([{}] * 32)), 32)
            timed("engine and noise", lambda d=drawn: render(what.recipe, engine, d), 32)
            timed("all, to disk", lambda: write_shard(what, manifest.folder, "cpu", 0), 256)
            path = shard_path(manifest.folder, 0).rename(Path(folder) / f"{repetition}.h5")
            timed("checksum", lambda p=path: checksum(p), 256)
            content = path.read_bytes()
            raw = path.with_suffix(".raw")
            timed("a plain write of as many bytes", lambda c=content, p=raw: p.write_bytes(c), 256)
    return {step: float(np.median(values[1:])) for step, values in parts.items()}


def limits(name: str) -> dict[str, float]:
    """Return the floating-point work of the point masses, and what the processor could do at best."""
    bodies = {"no_sub": 0, "axion": 100, "cdm": 25}[name]
    a = torch.rand(1024, 1024, dtype=torch.float64)
    spent = []
    for _ in range(5):
        started = time.perf_counter()
        a @ a
        spent.append(time.perf_counter() - started)
    peak = 2 * 1024**3 / min(spent)
    flops = 9.0 * bodies * (64**2 + 128**2)  # 2 differences, 3 for the square, a division, 3 for the sums
    return {"point_mass_gflop": flops / 1e9, "peak_gflops": peak / 1e9, "point_masses_at_peak_ms": 1e3 * flops / peak}


def caustics_ms(name: str) -> dict[str, float]:
    """Time caustics: LR and HR images and the HR deflection, in memory, without noise, 32 lenses by `torch.vmap`."""
    import caustics.func as func

    grids = []
    for pixels in (64, 128):
        at = (torch.arange(pixels, dtype=torch.float32) - (pixels - 1) / 2) * 6.464 / pixels
        grids.append(torch.meshgrid(at, at, indexing="xy"))
    sigma = 0.16 / 2.3548
    kernels = [torch.exp(-0.5 * (torch.arange(-7, 8) * 6.464 / p / sigma) ** 2) for p in (64, 128)]
    kernels = [(k / k.sum())[:, None] * (k / k.sum()) for k in kernels]

    zero, one_, theta_E = torch.tensor(0.0), torch.tensor(1.0), torch.tensor(0.8128249)
    shape = [torch.tensor(v) for v in (0.753, 1.18, 1.0, 0.29, 1.0)]  # q, phi, n, Re, Ie

    def alpha(x, y, points):
        ax, ay = func.reduced_deflection_angle_sie(zero, zero, 0.999 * one_, zero, theta_E, x, y, 1e-6)
        if points is not None:
            px, py = torch.vmap(lambda p: func.reduced_deflection_angle_point(p[1], p[2], p[0], x, y, 1e-6))(points)
            ax, ay = ax + px.sum(0), ay + py.sum(0)
        return ax, ay

    def one(centre, points):
        images = []
        for (x, y), kernel in zip(grids, kernels, strict=True):
            ax, ay = alpha(x, y, points)
            k = func.k_sersic(shape[2])
            light = func.brightness_sersic(centre[0], centre[1], *shape, x - ax, y - ay, k)
            images.append(torch.nn.functional.conv2d(light[None, None], kernel[None, None], padding=7))
        return (*images, ax, ay)

    centre = 0.7 * torch.rand(32, 2) - 0.35
    bodies = {"no_sub": 0, "axion": 100, "cdm": 25}[name]
    points = None if bodies == 0 else torch.rand(32, bodies, 3)
    mapped = torch.vmap(one, in_dims=(0, None if points is None else 0), chunk_size=8)
    spent = []
    for _ in range(8):
        started = time.perf_counter()
        mapped(centre, points)
        spent.append(1e3 * (time.perf_counter() - started) / 32)
    return summary(spent[1:])


ROWS = {
    "loop": lambda name: loop(name),
    "torch, 1 worker": lambda name: run(plan(name, TORCH[name] // 2), 1),
    "torch, 2 workers": lambda name: run(plan(name, TORCH[name]), 2, merged=True),
    "as typed": typed,
    "lenstronomy, 1 worker": lambda name: run(plan(name, REFERENCE[name] // 2, "lenstronomy", 16), 1),
    "lenstronomy, 2 workers": lambda name: run(plan(name, REFERENCE[name], "lenstronomy", 16), 2),
    "caustics, in memory, 2 threads": caustics_ms,
    "steps": steps,
    "limits": limits,
}


def main(out: Path) -> None:
    """Measure everything, each row in a process of its own, so that threads and peaks are its own."""
    made = plan("no_sub", 1)
    first = render(made.recipe, made.build_engine(), [made.drawn(0)])
    source = first.drawn[0].scene.kwargs_source[0]
    same = difference(first.lr_clean[0, 0], source["center_x"], source["center_y"])
    print(f"the loop's image differs by {same:.1e} of the peak")
    rows: dict[str, dict] = {}
    for what in ROWS:
        for name in CLASSES:
            command = [sys.executable, __file__, "--row", what, name]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            rows.setdefault(what, {})[name] = json.loads(done.stdout.decode().splitlines()[-1])
            print(what, name, rows[what][name], flush=True)
    faster = {name: rows["loop"][name]["median_ms"] / rows["torch, 2 workers"][name]["median_ms"] for name in CLASSES}
    gain = {
        name: rows["lenstronomy, 1 worker"][name]["median_ms"] / rows["lenstronomy, 2 workers"][name]["median_ms"]
        for name in CLASSES
    }
    as_typed = {name: rows["loop"][name]["median_ms"] / rows["as typed"][name]["wall_ms"] for name in CLASSES}
    write_json(out, {"recipe": RECIPE, "loop_differs_by": same, "rows": rows, "times_as_fast_as_the_loop": faster,
                     "as_typed_times_as_fast": as_typed,
                     "gain_of_a_second_worker": gain, "hardware": hardware(), "commit": commit(),
                     "versions": versions()})  # fmt: skip
    print("times as fast as the loop:", faster, "gain of a second worker:", gain)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--row"]:
        if sys.argv[2] != "caustics, in memory, 2 threads":
            torch.set_num_threads(1)
        print(json.dumps(ROWS[sys.argv[2]](sys.argv[3])))
    else:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("simulation.json"))
