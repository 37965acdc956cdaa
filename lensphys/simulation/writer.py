"""From a recipe to a data set: the same bytes for the same seed, whoever computes them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from lensphys.basics.checks import LensphysError
from lensphys.basics.lock import sole_run
from lensphys.basics.manifest import check_folder
from lensphys.basics.outputs import check_writable, remove_leftovers
from lensphys.basics.runners import Processes, Runner, run_parts
from lensphys.basics.terminal import progress_bar, progress_console
from lensphys.data.hdf5 import is_hdf5
from lensphys.data.lens_file import LensFile
from lensphys.data.merging import merge_shards
from lensphys.simulation.plan import Plan
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.shards import Finished, PlanManifest, write_shard


def simulate(
    recipe: Recipe,
    n: int,
    out: str | Path,
    *,
    classes: list[str] | None = None,
    seed: int = 0,
    workers: int = 1,
    engine: str = "torch",
    deflection: bool = False,
) -> Path:
    """Simulate a data set on this machine; an interrupted run resumes when it is started again.

    Args:
        recipe: what to simulate.
        n: samples of EACH class.
        out: see `write`.
        classes: some of the recipe's classes, labelled in the recipe's order; all if None.
        seed: a sample depends on it, on its class and on its index alone.
        workers: processes; they change the speed and nothing else.
        engine: ``torch`` or ``lenstronomy``.
        deflection: /alpha_hr is stored; else it is computed when it is read.

    Returns:
        The path of the file or folder.

    Raises:
        LensphysError: if an argument is out of range, the file or its parts belong to another simulation, or it
            cannot be written.
    """
    runner = Processes(workers)
    return write(
        Plan.from_recipe(recipe, n, classes=classes, seed=seed, engine=engine, deflection=deflection), out, runner
    )


def write(plan: Plan, out: str | Path, runner: Runner | None = None, *, device: str = "cpu") -> Path:
    """Simulate what was planned.

    Args:
        plan: what to simulate.
        out: an HDF5 file, ``.h5`` or ``.hdf5``: until it is whole, its shards stand in the folder ``OUT.parts`` beside
            it. Any other name is a folder, in which the shards stay: for `merge`, or to be used one by one.
        runner: who computes; this process if None.
        device: of the torch engine.

    Returns:
        The path of the file or folder.

    Raises:
        LensphysError: if the file or folder has another ending, belongs to another simulation, or cannot be written.
    """
    out, runner = Path(out), runner or Processes()
    if out.suffix and not is_hdf5(out) and not out.is_dir():
        raise LensphysError(f"{out}: give the name of a file that ends in .h5, or of a folder, without an ending")
    if not is_hdf5(out):
        check_folder(out, "simulation")
        check_writable(out)
    with sole_run(out):
        return _write(plan, out, runner, device)


def _write(plan: Plan, out: Path, runner: Runner, device: str) -> Path:
    console = progress_console()
    into_file, parts = is_hdf5(out), out.with_name(out.name + ".parts")
    if into_file and out.exists():
        _check_same(plan, out)
        shutil.rmtree(parts, ignore_errors=True)  # a run that was killed just after its file was whole
        console.print(f"{out} is already complete", highlight=False, markup=False, soft_wrap=True)
        return out
    manifest = PlanManifest(plan, parts if into_file else out)
    manifest.claim()
    if not (into_file or manifest.missing):
        console.print(f"{out} is already complete", highlight=False, markup=False, soft_wrap=True)
        return out
    with progress_bar(console) as progress:
        bar = progress.add_task("simulating", total=len(plan), completed=len(plan) - _left(manifest))
        _run(manifest, runner, device, lambda samples: progress.advance(bar, samples))
        if into_file:
            bar = progress.add_task("writing", total=len(plan))
            merge_shards(manifest.folder, out, report=lambda samples: progress.advance(bar, samples))
    if into_file:
        shutil.rmtree(manifest.folder)
    return out


def _left(manifest: PlanManifest) -> int:
    return sum(len(manifest.plan.samples_of(shard)) for shard in manifest.missing)


def _run(manifest: PlanManifest, runner: Runner, device: str, report: Callable[[int], None]) -> None:
    def take(finished: Finished) -> None:
        manifest.finished[finished.shard] = finished
        report(finished.samples)

    job = partial(write_shard, manifest.plan, manifest.folder.resolve(), device)
    try:
        run_parts(runner, job, manifest.missing, take, manifest.write)
    finally:
        remove_leftovers(manifest.folder)  # of workers that were killed


def _check_same(plan: Plan, out: Path) -> None:
    remedy = "remove it, or choose another --out"
    try:
        with LensFile(out) as file:
            same, stored = file.identity == plan.identity, file.left_out == plan.left_out
    except LensphysError as error:
        raise LensphysError(f"{out} exists and is not a whole lens file: {remedy} ({error})") from None
    if not same:
        raise LensphysError(
            f"{out} exists and is another simulation (recipe, seed, number, classes or engine): {remedy}"
        )
    if not stored:
        raise LensphysError(f"{out} exists and stores other data sets (--deflection): {remedy}")
