"""Flip and cut files of every kind, and see what the commands say: ``python experiments/robustness/fuzz.py OUT.json``.

Each case is a copy of a good file with a few bytes flipped, or cut short, and a command that reads it, in a process of
its own and within ``--seconds``. Counted are: ``refused`` (one sentence), ``same`` (the output is that of the good
file: the damage was in nothing that counts), ``warned`` (another output, with a warning), ``traceback``, ``hang``,
``crash`` (the process died) and ``silent``: another output and no word. FITS without a checksum, .npy and YAML have
nothing that could tell, so ``silent`` may be many there. Cost: ``-n 1000`` of all kinds, 45 minutes on one core. A
run that was killed goes on with the kind it was at.
Expected: no traceback, no hang, no crash; of hdf5, virtual and weights no silent. ``--only N`` runs one case of a kind
in this process, to see what it does.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import multiprocessing
import re
import shutil
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from astropy.io import fits
from typer.testing import CliRunner

from lensphys.basics.provenance import provenance
from lensphys.cli import app
from lensphys.data.merging import REFERRED, merge
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.writer import simulate
from lensphys.training.experiment import Experiment, train

sys.path.append(str(Path(__file__).parents[1]))
from resumed import KeptRows

SMALL = ["height=16", "width=16"]
TRAINING: dict[str, Any] = {
    "method": {"name": "supervised", "network": {"name": "fsrcnn", "channels": 4, "shrunk": 2, "layers": 1}},
    "training": {"epochs": 1, "batch_size": 4, "accelerator": "cpu"},
}


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Args:
        name: of it.
        damaged: the file that is damaged, within the folder of a case.
        command: what reads it, with ``out`` for its output.
    """

    name: str
    damaged: str
    command: Callable[[Path, Path], list[str]]


def _resolved(source: str, *options: str) -> Callable[[Path, Path], list[str]]:
    end = {"h5": "h5", "npy": "npz", "fits": "fits"}[source.split(".")[-1]]
    return lambda case, out: ["super-resolve", str(case / source), "-o", str(out / f"sr.{end}"), *(
        str(case / option[1:]) if option.startswith("@") else option for option in options
    )]  # fmt: skip


def _judged(case: Path, out: Path) -> list[str]:
    return ["evaluate", "--method", "bicubic", "--data", str(case / "lenses.h5"), "-o", str(out)]


def _exported(case: Path, out: Path) -> list[str]:
    return ["export", str(case / "lenses.h5"), "--all", "--format", "lenstronomy", "-o", str(out / "samples")]


def _dry_run(case: Path, out: Path) -> list[str]:
    return ["train", str(case / "experiment.yaml"), "-o", str(out), "--dry-run"]


BICUBIC = ("--method", "bicubic")
STACK = ("--instrument", "model_3", *BICUBIC)
KINDS = [
    Kind("hdf5", "lenses.h5", _resolved("lenses.h5", *BICUBIC)),
    Kind("hdf5, judged", "lenses.h5", _judged),
    Kind("hdf5, exported", "lenses.h5", _exported),
    Kind("virtual", "virtual.h5", _resolved("virtual.h5", *BICUBIC)),
    Kind("npy", "stack.npy", _resolved("stack.npy", *STACK)),
    Kind("yaml", "experiment.yaml", _dry_run),
    Kind("config of a run", "run/config.yaml", _resolved("lenses.h5", "--run", "@run")),
    Kind("weights", "run/best.safetensors", _resolved("lenses.h5", "--run", "@run")),
    Kind("fits", "lens.fits", _resolved("lens.fits", *STACK)),
]  # fmt: skip


def good_files(folder: Path) -> None:
    """Make a whole file of each kind."""
    simulate(Recipe.named("model_3", SMALL), 3, folder / "lenses.h5")
    shards = simulate(Recipe.named("model_3", SMALL), 3, folder / "shards")
    merge(shards, folder / "virtual.h5", way=REFERRED)
    with h5py.File(folder / "lenses.h5") as file:
        images = file["lr"][:, 0]
    np.save(folder / "stack.npy", images)
    fits.writeto(folder / "lens.fits", images[0], checksum=True)
    tree = TRAINING | {"data": {"file": str(folder / "lenses.h5")}}
    (folder / "experiment.yaml").write_text(yaml.safe_dump(tree))
    train(Experiment.parse(tree, "fuzz"), folder / "run")


_CHANGES = re.compile("provenance|seconds")  # parts of outputs that no two runs share


def damage(data: bytes, generator: np.random.Generator) -> bytes:
    """Return a file cut short (one in four), or with one to four bytes changed."""
    if generator.integers(4) == 0:
        return data[: int(generator.integers(len(data)))]
    flipped = bytearray(data)
    for place in generator.integers(len(data), size=int(generator.integers(1, 5))):
        flipped[place] ^= int(generator.integers(1, 256))
    return bytes(flipped)


class _Hang(BaseException):
    pass


def _raise(number: int, frame: object) -> None:
    raise _Hang


def outcome(command: list[str], seconds: float) -> tuple[int | str, str]:
    """Return the exit code of a command, ``traceback`` or ``hang``, and what it said."""
    before = signal.signal(signal.SIGALRM, _raise)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            done = CliRunner().invoke(app, command)
    except _Hang:
        return "hang", ""
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    said = done.output + " ".join(str(w.message) for w in caught if "lensphys" in str(w.message))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return "traceback", repr(done.exception)
    return done.exit_code, said


def content(folder: Path) -> dict[str, Any]:
    """Return the arrays and texts of all outputs in a folder, without what says where they come from."""
    found: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(path.relative_to(folder))
        if path.suffix == ".h5":
            with h5py.File(path) as file:
                found |= {f"{name}/{key}": file[key][()] for key in file}
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                found |= {f"{name}/{key}": arrays[key] for key in arrays.files if not _CHANGES.search(key)}
        elif path.suffix == ".fits":
            with fits.open(path) as hdus:
                found |= {f"{name}/{k}": np.array(hdu.data) for k, hdu in enumerate(hdus) if hdu.is_image}
        elif path.suffix == ".json":
            tree = json.loads(path.read_text())
            found[name] = json.dumps({key: x for key, x in tree.items() if not _CHANGES.search(key)})
    return found


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Return whether two outputs hold the same."""
    pairs = [(np.asarray(a[name]), np.asarray(b[name])) for name in a.keys() & b.keys()]
    equal = (np.array_equal(x, y, equal_nan=x.dtype.kind == y.dtype.kind == "f") for x, y in pairs)
    return a.keys() == b.keys() and all(equal)


def judged(kind: Kind, good: Path, case: Path, out: Path, expected: dict[str, Any], seconds: float) -> tuple[str, str]:
    """Return what became of a damaged case, and what was said."""
    code, said = outcome(kind.command(case, out), seconds)
    if isinstance(code, str):
        return code, said
    if code != 0:
        return ("refused" if "error: " in said else "traceback"), said
    if same(content(out), expected):
        return "same", said
    return ("warned" if "damaged" in said else "silent"), said


def apart(case: Callable[[], tuple[str, str]], seconds: float) -> tuple[str, str]:
    """Return what a case comes to in a process of its own; ``crash`` or ``hang`` where that dies, or heeds no alarm."""
    context = multiprocessing.get_context("fork")
    end, there = context.Pipe(duplex=False)
    child = context.Process(target=lambda: there.send(case()))
    child.start()
    there.close()
    try:
        if not end.poll(3 * seconds):
            child.kill()
            return "hang", ""
        return end.recv()
    except EOFError:
        child.join()
        return "crash", f"exit code {child.exitcode}"
    finally:
        child.join()
        end.close()


Run = Callable[[Callable[[], tuple[str, str]], float], tuple[str, str]]


def here(case: Callable[[], tuple[str, str]], seconds: float) -> tuple[str, str]:
    """Return what a case comes to in this process."""
    return case()


def fuzz(
    kind: Kind, good: Path, numbers: range, seed: int, seconds: float, run: Run = apart
) -> tuple[Counter[str], list[dict[str, Any]]]:
    """Damage a file many times; return how often each outcome came, and the cases that are none to be content with."""
    tally: Counter[str] = Counter()
    bad: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        case, out = Path(scratch) / "case", Path(scratch) / "out"
        shutil.copytree(good, case)
        out.mkdir()
        code, said = outcome(kind.command(case, out), 10 * seconds)
        assert code == 0, said
        expected, whole = content(out), (good / kind.damaged).read_bytes()
        for number in numbers:
            shutil.rmtree(out)
            out.mkdir()
            generator = np.random.default_rng([seed, number])
            (case / kind.damaged).write_bytes(damage(whole, generator))
            trial = partial(judged, kind, good, case, out, expected, seconds)
            what, said = run(trial, seconds)
            if what == "hang":  # a fork may inherit a lock that is held: what hangs of itself hangs again
                what, said = run(trial, seconds)
            tally[what] += 1
            if what in ("traceback", "hang", "silent", "crash"):
                told = "" if what == "silent" else said[-300:]
                bad.append({"kind": kind.name, "seed": [seed, number], "outcome": what, "said": told})
                if what != "silent":
                    print(bad[-1], flush=True)
    return tally, bad


def main() -> None:
    """Run the cases and write the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("-n", type=int, default=200, help="cases of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0, help="after which a command hangs")
    parser.add_argument("--kinds", nargs="+", help="some of the kinds")
    parser.add_argument("--only", type=int, help="a case of a kind, in this process")
    arguments = parser.parse_args()
    numbers = range(arguments.n) if arguments.only is None else range(arguments.only, arguments.only + 1)
    run: Run = apart if arguments.only is None else here
    faulthandler.enable()
    chosen = [kind for kind in KINDS if arguments.kinds is None or kind.name in arguments.kinds]
    done = KeptRows(arguments.out)
    with tempfile.TemporaryDirectory() as folder:
        good_files(Path(folder))
        for kind in (kind for kind in chosen if kind.name not in done):
            tally, cases = fuzz(kind, Path(folder), numbers, arguments.seed, arguments.seconds, run)
            done[kind.name] = {"counts": dict(sorted(tally.items())), "cases": cases}
            print(kind.name, done[kind.name]["counts"], flush=True)
    counts = {kind.name: done[kind.name]["counts"] for kind in chosen}
    bad = [case for kind in chosen for case in done[kind.name]["cases"]]
    done.finish({"n": arguments.n, "counts": counts, "cases": bad, "provenance": provenance(seed=arguments.seed)})


if __name__ == "__main__":
    main()
