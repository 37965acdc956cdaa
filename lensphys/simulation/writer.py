"""From a recipe to one HDF5 file: the same bytes for the same seed, with any number of processes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from multiprocessing import get_context
from pathlib import Path

import h5py
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lensphys.checks import LensphysError, check_choice
from lensphys.data.lens_file import FORMAT, FORMAT_VERSION, LensFile
from lensphys.interrupts import Interrupts
from lensphys.observation import Instrument
from lensphys.provenance import whole_file
from lensphys.simulation.detector import check_detector
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.shards import (
    Arrays,
    Plan,
    claim_parts,
    missing_shards,
    parts_folder,
    read_shard,
    remove_parts,
    write_shard,
)


def simulate(
    recipe: Recipe, n: int, out: str | Path, *, classes: list[str] | None = None, seed: int = 0, workers: int = 1
) -> Path:
    """Simulate a data set and write it to one HDF5 file; an interrupted run resumes when it is started again.

    Args:
        recipe: what to simulate.
        n: samples of EACH class.
        out: the HDF5 file. Until it is whole, its shards stand in the folder ``OUT.parts`` beside it.
        classes: some of the recipe's classes, labelled in the recipe's order; all if None.
        seed: a sample depends on it, on its class and on its index alone.
        workers: processes; they change the speed and nothing else.

    Returns:
        The path of the file.

    Raises:
        LensphysError: if an argument is out of range, the file or its parts belong to another simulation, or it
            cannot be written.
    """
    out = Path(out)
    plan = _plan(recipe, n, classes, seed)
    if workers < 1:
        raise LensphysError(f"--workers must be 1 or more, got {workers}")
    console = Console(stderr=True)
    if out.exists():
        _check_same(plan, out)
        console.print(f"{out} is already complete", highlight=False, markup=False, soft_wrap=True)
        return out
    parts = parts_folder(out)
    claim_parts(plan, parts)
    with _progress(console) as progress:
        todo = missing_shards(plan, parts)
        left = sum(len(plan.samples_of(shard)) for shard in todo)
        bar = progress.add_task("simulating", total=len(plan), completed=len(plan) - left)
        processes = min(workers, len(todo))
        run = _in_processes(plan, parts, todo, processes) if processes > 1 else _in_this_process(plan, parts, todo)
        # on Ctrl-C the workers stop at once, not when the exception is forgotten
        with closing(run), Interrupts() as interrupts:
            for finished in run:
                progress.advance(bar, finished)
                if interrupts.wished:
                    raise KeyboardInterrupt
        bar = progress.add_task("writing", total=len(plan))
        _assemble(plan, parts, out, lambda samples: progress.advance(bar, samples))
    remove_parts(parts)
    return out


def _plan(recipe: Recipe, n: int, classes: list[str] | None, seed: int) -> Plan:
    for name, value, least in (("-n", n, 1), ("--seed", seed, 0)):
        if value < least:
            raise LensphysError(f"{name} must be {least} or more, got {value}")
    chosen = list(recipe.classes) if classes is None else classes
    for name in chosen:
        check_choice("class", name, list(recipe.classes))
    if not chosen:
        raise LensphysError(f"--classes is empty: choose some of {', '.join(recipe.classes)}")
    instrument = Instrument.named(recipe.instrument)
    check_detector(recipe, instrument)
    return Plan(recipe, instrument, tuple(name for name in recipe.classes if name in chosen), n, seed)


def _check_same(plan: Plan, out: Path) -> None:
    remedy = "remove it, or choose another --out"
    try:
        with LensFile(out) as file:
            same = file.identity == plan.identity
    except LensphysError as error:
        raise LensphysError(f"{out} exists and is not a whole lens file: {remedy} ({error})") from None
    if not same:
        raise LensphysError(
            f"{out} exists and is another simulation (recipe, seed, number, classes or version): {remedy}"
        )


def _progress(console: Console) -> Progress:
    text = TextColumn("{task.description}")
    return Progress(text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console)


def _in_this_process(plan: Plan, parts: Path, shards: list[int]) -> Generator[int, None, None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for shard in shards:
            yield write_shard(plan, parts, shard)
    finally:
        torch.set_num_threads(threads)


def _in_processes(plan: Plan, parts: Path, shards: list[int], workers: int) -> Generator[int, None, None]:
    # spawn: a fork would copy torch's threads in an undefined state
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    )
    try:
        with _deaf_to_interrupts():
            futures = [pool.submit(write_shard, plan, parts, shard) for shard in shards]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise LensphysError(
            "a simulation process died (out of memory?): run the same command again, with fewer --workers; "
            "finished parts are kept"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    # processes started here inherit it: Ctrl-C is for the parent, which stops them quietly
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _assemble(plan: Plan, parts: Path, out: Path, report: Callable[[int], None]) -> None:
    with whole_file(out) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update({"format": FORMAT, "format_version": FORMAT_VERSION, "identity": plan.identity})
        file.attrs.update(plan.attributes())
        for shard in range(plan.shards):
            arrays, rows = read_shard(parts, shard), plan.samples_of(shard)
            if shard == 0:
                _create(file, plan, arrays)
            for name, array in arrays.items():
                file[name][rows.start : rows.stop] = array
            report(len(rows))
        if "hr" not in file:
            file["hr"] = file["hr_clean"]  # a hard link: stored once


def _create(file: h5py.File, plan: Plan, first: Arrays) -> None:
    recorded = plan.instrument.unit
    flux = "counts/s" if recorded == "counts" else recorded
    units = {"lr": f"{recorded} per pixel", "alpha_hr": "arcsec", "axion_mass": "eV", "theta_E": "arcsec"}
    units |= dict.fromkeys(("hr", "hr_clean", "lr_clean", "background_rms"), f"{flux} per pixel")
    units |= {"psf_fwhm": "arcsec", "exposure_time": "s"}
    for name, array in first.items():
        shape = (len(plan), *array.shape[1:])
        if name == "lens_model":
            dataset = file.create_dataset(name, shape, h5py.string_dtype())
        elif array.ndim > 1:
            dataset = file.create_dataset(
                name, shape, array.dtype, chunks=(1, *shape[1:]), compression="gzip", compression_opts=1, shuffle=True
            )
        else:
            dataset = file.create_dataset(name, shape, array.dtype)
        dataset.attrs.update({"unit": units[name]} if name in units else {})
