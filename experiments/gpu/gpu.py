"""All that a GPU is for, in one script of under nine minutes whose parts are ordered by worth.

    python experiments/gpu/gpu.py [OUT] [--device cuda] [--miniature] [--parts tests,speed,waits,weights]
        [--kinds one_pass,simulator] [--networks hst_acs,varied] [--minutes 5] [--set KEY=VALUE]

tests: the suite's `cuda` marker, GPU beside CPU. speed: one pass, smooth fit, free source, a training step, the default
fit and the simulator (in memory), each on the GPU and on one CPU core in the same run. waits: where the CPU waits for
the GPU in a fit, by line. weights: the networks of `experiments/network`, trained side by side for ``--minutes`` into
OUT/runs; their images are simulated on the CPUs from the start on. Each part writes its JSON into OUT (by default the
folder of this script) as it ends, so a lease that runs out loses only what was not done. ``--device cpu --miniature``
runs the same code where there is no GPU, to know that it works. The supervised networks as rows of a table are
`experiments/any_source/zoo.yaml`, trained on a GPU where there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from lensphys.basics.outputs import write_json
from lensphys.basics.provenance import provenance
from lensphys.fitting import Fitted, FreeSourceSettings, LensProblem, freed
from lensphys.fitting.smooth import smooth_fit
from lensphys.methods import READY, RefinedFit
from lensphys.methods.lens_model import full_prediction
from lensphys.methods.supervised import SupervisedSettings
from lensphys.methods.trainable import Batch
from lensphys.networks import network_settings
from lensphys.observation import Observation
from lensphys.simulation.detector import conditions_of
from lensphys.simulation.plan import Plan
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.stream import LensStream
from lensphys.training.experiment import Experiment, load_run, training_data
from lensphys.weights import weights_folder

REPOSITORY = Path(__file__).parents[2]
NETWORKS, TRAINED = REPOSITORY / "experiments" / "network", ("hst_acs", "varied", "euclid_vis")
WORKERS = max(1, (os.cpu_count() or 1) // 3)  # that simulate; the others are for what is timed


@dataclass(frozen=True)
class Sizes:
    """How much of everything: enough to fill a GPU, or a miniature.

    Args:
        simulated: scenes at once.
        passed: images of a forward pass.
        fitted: images that are fitted together.
        defaults: images of a batch of the default fit, which looks at much of each image alone.
        repetitions: of which the fastest counts.
        changes: to the trainings.
        minutes: of the trainings.
        networks: that are trained.
        kinds: of what is timed.
    """

    simulated: tuple[int, ...] = (64, 512, 2048)
    passed: tuple[int, ...] = (32, 256)
    fitted: tuple[int, ...] = (1, 32, 256)
    defaults: tuple[int, ...] = (1, 8)
    repetitions: int = 3
    changes: tuple[str, ...] = ()
    minutes: float = 5.0
    networks: tuple[str, ...] = TRAINED
    kinds: tuple[str, ...] = ()


MINIATURE = Sizes(
    (2,), (2,), (1,), (1,), 1, ("training.epochs=1", "training.batch_size=4", "data.n=4", "more_data=[]"), 0.2
)
ONCE = Sizes(repetitions=1)


def tests(device: str, sizes: Sizes, out: Path) -> dict[str, Any]:
    """Run the tests that compare a device with the CPU."""
    report = out / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-n4", "-m", "cuda", f"--junitxml={report}", "tests/test_cuda.py"]
    environment = os.environ | {"LENSPHYS_TEST_DEVICE": device}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout[-3000:], flush=True)
    cases = list(ElementTree.parse(report).iter("testcase"))
    report.unlink()
    failed = [case.get("name") for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {"passed": len(cases) - len(failed) - skipped, "skipped": skipped, "failed": failed}


def speed(device: str, sizes: Sizes, out: Path) -> dict[str, Any]:
    """Time everything, on the device and on one CPU core."""
    rows, file = [], out / "speed.json"
    before = json.loads(file.read_text())["rows"] if file.exists() else []
    with torch.no_grad():
        for name in sizes.kinds:
            with torch.set_grad_enabled(name == "training_step"):
                rows += [row | {"commit": provenance()["commit"]} for row in KINDS[name](device, sizes)]
            measured = {row["what"] for row in rows}
            kept = [row for row in before if row["what"] not in measured]
            write_json(file, {"provenance": provenance(), "rows": kept + rows})
    return {"rows": kept + rows}


def simulator(device: str, sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Clean LR and HR images and HR deflection of Model 2 in memory, scenes drawn before."""
    recipe = Recipe.named("model_2")
    for name in recipe.classes:
        plan = Plan.from_recipe(recipe, max(sizes.simulated), classes=[name], seed=5)
        scenes = [plan.drawn(i).scene for i in range(max(sizes.simulated))]
        for where, counts in ((device, sizes.simulated), ("cpu", sizes.simulated[:1])):
            engine = plan.build_engine(where)
            for n in counts:
                yield timed(f"simulator, {name}", where, n, sizes,
                            lambda e=engine, s=scenes[:n]: e.render(s, conditions_of([{}] * len(s))).lr)  # fmt: skip


def one_pass(device: str, sizes: Sizes) -> Iterator[dict[str, Any]]:
    """The shipped network of Model 2, its free source and steps left out."""
    for where, counts in ((device, sizes.passed), ("cpu", sizes.passed[:1])):
        network = load_run(weights_folder("model_2")).to(where).eval()
        for n in counts:
            seen = observed("model_2", "no_sub", n).to(where)
            yield timed("one pass, model_2", where, n, sizes, lambda m=network, o=seen: m.predict(o, 2).image)


def smooth_and_free(device: str, sizes: Sizes) -> Iterator[dict[str, Any]]:
    """A smooth lens with a Sersic, then with a free source: drawn galaxies behind smooth lenses, fitted together."""
    for where, n in _batches(device, sizes.fitted):
        seen, ends = observed("model_4", "no_sub", n).to(where), list[Fitted]()

        def smooth(seen=seen, ends=ends) -> torch.Tensor:
            ends.append(smooth_fit(LensProblem.from_observation(seen)))
            return ends[-1].x

        def free(ends=ends) -> torch.Tensor:
            return freed(ends[-1].problem, ends[-1].x, FreeSourceSettings())[-1].x

        yield timed("smooth fit", where, n, ONCE, smooth)
        yield timed("free source", where, n, ONCE, free)


def refined(device: str, sizes: Sizes) -> Iterator[dict[str, Any]]:
    """The default fit with its verdict, of Sersic galaxies and of drawn ones behind smooth lenses."""
    method = READY["refine"]
    assert isinstance(method, RefinedFit)
    for what, recipe in (("default fit, Sersic", "model_2"), ("default fit, drawn galaxy", "model_4")):
        for where, n in _batches(device, sizes.defaults):
            seen = observed(recipe, "no_sub", n).to(where)
            yield timed(what, where, n, ONCE, lambda o=seen: fitted(method, o))


def _batches(device: str, counts: tuple[int, ...]) -> list[tuple[str, int]]:
    """Where so many images are fitted together."""
    return [*((device, n) for n in counts), ("cpu", min(4, max(counts)))]


def fitted(method: RefinedFit, seen: Observation) -> torch.Tensor:
    """Return the images of a batch of fits."""
    return full_prediction(method.refinement(method.problem(seen)), 2, method.report).image


def waits(device: str, sizes: Sizes, out: Path) -> dict[str, Any]:
    """Count where the CPU waits for the GPU while free sources are fitted together."""
    seen = observed("model_4", "no_sub", min(32, max(sizes.fitted))).to(device)
    with torch.no_grad(), warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        smooth = smooth_fit(LensProblem.from_observation(seen))
        freed(smooth.problem, smooth.x, FreeSourceSettings())
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    told = [w for w in found if "synchronizing" in str(w.message)]
    lines = Counter(f"{w.filename.removeprefix(f'{REPOSITORY}/')}:{w.lineno}" for w in told)
    return {"images": len(seen), "waits": sum(lines.values()), "lines": dict(lines.most_common())}


def weights(device: str, sizes: Sizes, out: Path) -> dict[str, Any]:
    """Train networks for real galaxies, side by side."""
    accelerator = "gpu" if device == "cuda" else "cpu"
    changes = [*sizes.changes, f"training.minutes={sizes.minutes}", f"training.accelerator={accelerator}"]
    command, environment = [sys.executable, "-m", "lensphys", "train"], os.environ | {"OMP_NUM_THREADS": "1"}
    assignments = [part for change in changes for part in ("--set", change)]
    running = [
        subprocess.Popen(
            [*command, NETWORKS / f"{name}.yaml", "-o", out / "runs" / name, *assignments],
            cwd=REPOSITORY, env=environment,
        )
        for name in sizes.networks
    ]  # fmt: skip
    ended = [process.wait() for process in running]
    logs = (out / "runs" / name / "log.jsonl" for name in sizes.networks)
    epochs = [[json.loads(line) for line in log.read_text().splitlines()] if log.exists() else [] for log in logs]
    return {"minutes": sizes.minutes, "exit": dict(zip(sizes.networks, ended, strict=True)),
            "epochs": dict(zip(sizes.networks, epochs, strict=True))}  # fmt: skip


def images(sizes: Sizes, out: Path) -> None:
    """Simulate the images of the trainings."""
    for name in sizes.networks:
        experiment = Experiment.from_yaml(NETWORKS / f"{name}.yaml", sizes.changes)
        for each, data in experiment.named_data.items():
            training_data(data.model_copy(update={"workers": WORKERS}), out / "runs" / name, each)


def training_step(device: str, sizes: Sizes) -> Iterator[dict[str, Any]]:
    """A step of full-size EDSR on 16 pairs of 64-pixel images."""
    n = min(16, max(sizes.passed))
    seen = observed("model_2", "no_sub", n)
    truth = torch.nn.functional.interpolate(seen.image, scale_factor=2) / 4
    for where in (device, "cpu"):
        method = SupervisedSettings(name="supervised", network=network_settings("edsr")(), scale=2).build().to(where)
        optimiser = torch.optim.Adam(method.parameters())
        batch = Batch(seen.to(where), truth.to(where))

        def step(method=method, optimiser=optimiser, batch=batch) -> torch.Tensor:
            optimiser.zero_grad()
            loss = method.training_terms(batch, 0)["loss"]
            loss.backward()
            optimiser.step()
            return loss.detach()

        yield timed("training step, EDSR", where, n, sizes, step)


def observed(recipe: str, kind: str, n: int) -> Observation:
    """Return noisy LR images of a recipe."""
    plan = Plan.from_recipe(Recipe.named(recipe), n, classes=[kind], seed=1000)
    return LensStream(plan).read(list(range(n)), "cpu")[0]


def timed(what: str, device: str, n: int, sizes: Sizes, do: Callable[[], torch.Tensor]) -> dict[str, Any]:
    """Return the milliseconds an image of the fastest repetition, after one that warms up, and the peak of memory."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(sizes.repetitions + (sizes.repetitions > 1)):
        started = time.perf_counter()
        do().cpu()
        seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None
    row = {"what": what, "device": device, "batch": n, "ms_an_image": 1e3 * min(seconds) / n, "peak_mib": peak}
    print(row, flush=True)
    return row


KINDS = {
    "one_pass": one_pass,
    "smooth_and_free": smooth_and_free,
    "training_step": training_step,
    "refined": refined,
    "simulator": simulator,
}
PARTS = {"tests": tests, "speed": speed, "waits": waits, "weights": weights}


def main() -> None:
    """Run the parts, in their order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=Path(__file__).parent)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--miniature", action="store_true")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--minutes", type=float, default=5.0, help="of the trainings")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of what is timed; rows of others in OUT stay")
    parser.add_argument("--networks", default=",".join(TRAINED), help="that are trained")
    parser.add_argument("--set", action="append", default=[], help="change to the trainings, KEY=VALUE; repeatable")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out = arguments.out.resolve()
    sizes = MINIATURE if arguments.miniature else Sizes(minutes=arguments.minutes)
    sizes = replace(
        sizes,
        kinds=tuple(arguments.kinds.split(",")),
        networks=tuple(arguments.networks.split(",")),
        changes=(*sizes.changes, *arguments.set),
    )
    out.mkdir(parents=True, exist_ok=True)
    parts = arguments.parts.split(",")
    simulating = get_context("spawn").Process(target=images, args=(sizes, out))
    if "weights" in parts:
        simulating.start()
    for name in parts:
        if name == "weights":
            simulating.join()
        found = PARTS[name](arguments.device, sizes, out)
        write_json(out / f"{name}.json", {"provenance": provenance()} | found)


if __name__ == "__main__":
    main()
