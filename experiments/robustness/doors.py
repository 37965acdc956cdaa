"""Flip and cut files of every kind, and read them: ``python experiments/robustness/doors.py OUT.json``.

What `fuzz.py` does with whole commands, this does with the readers alone, a thousand times and more. Each reader is
called in a process that reads many cases; if it dies or hangs, the next process goes on behind that case. The outcomes
are those of `fuzz.py`; ``unnamed`` is a refusal that does not name the file. Cost: ``-n 1000``, 5 minutes on one core.
A run that was killed goes on with the kind it was at. ``--only N`` shows what one case of each kind comes to.
"""

from __future__ import annotations

import argparse
import gzip
import multiprocessing
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from astropy.io import fits

from lensphys.basics.checks import LensphysError
from lensphys.basics.provenance import provenance
from lensphys.data import LensFile
from lensphys.data.images import Reading, read_images
from lensphys.data.restricted_pickle import read_fields
from lensphys.observation import Instrument
from lensphys.observation.psf_file import read_kernel, usable
from lensphys.simulation import Recipe
from lensphys.training.experiment import Experiment, load_run

sys.path.append(str(Path(__file__).parents[1]))
from resumed import KeptRows
from robustness import fuzz

Content = dict[str, Any]
SHAPE = (24, 24)


@dataclass(frozen=True)
class Door:
    """A reader.

    Args:
        name: of the kind of file.
        damaged: the file that is damaged, within the folder of a case.
        read: returns what was read, by name.
        told: whether a checksum could tell any change.
    """

    name: str
    damaged: str
    read: Callable[[Path], Content]
    told: bool = False


# ---------------------------------------------------------------- what is read


def _image(file: str) -> Callable[[Path], Content]:
    def read(case: Path) -> Content:
        found = read_images(case / file, Reading(pixel_scale=0.1))
        seen = found.observation
        psf = getattr(seen.camera.psf, "kernel", torch.zeros(0))
        return {
            "image": seen.image, "sigma": seen.noise.variance(seen.image), "weight": seen.weight, "psf": psf,
        }  # fmt: skip

    return read


def _kernel(case: Path) -> Content:
    kernel = read_kernel("PSF file", case / "psfex.fits")
    return {"kernel": usable(kernel).kernel, "scale": kernel.scale_on(0.1)}


def _lenses(file: str) -> Callable[[Path], Content]:
    def read(case: Path) -> Content:
        with LensFile(case / file) as lenses:
            held = ("lr", "hr", "hr_clean", "lr_clean", "flux_scale")
            found: Content = {name: lenses.read(name) for name in held if lenses.has(name)}
            found |= {"label": lenses.labels, "instrument": lenses.instrument.model_dump_json()}
            return found | {"lenses": [lenses.lens_model(i) for i in range(len(lenses))]}

    return read


def _objects(case: Path) -> Content:
    return {str(name): item for name, item in read_fields("input", case / "objects.npy").items()}


def _tree(file: str, parse: Callable[[Path], Any]) -> Callable[[Path], Content]:
    return lambda case: {"tree": parse(case / file).model_dump_json()}


def _weights(case: Path) -> Content:
    return dict(load_run(case / "run").state_dict())


FITS_IMAGE = "lens.fits"
DOORS = [
    Door("FITS with checksums", FITS_IMAGE, _image(FITS_IMAGE), told=True),
    Door("FITS", "plain.fits", _image("plain.fits")),
    Door("FITS, tile-compressed", "tiled.fits", _image("tiled.fits"), told=True),
    Door("FITS, gzip", "lens.fits.gz", _image("lens.fits.gz"), told=True),
    Door("PSFEx", "psfex.fits", _kernel, told=True),
    Door("HDF5", "lenses.h5", _lenses("lenses.h5"), told=True),
    Door("HDF5, virtual", "virtual.h5", _lenses("virtual.h5"), told=True),
    Door("npy", "stack.npy", _image("stack.npy")),
    Door("npy of objects", "objects.npy", _objects),
    Door("npz", "lens.npz", _image("lens.npz"), told=True),
    Door("YAML experiment", "experiment.yaml", _tree("experiment.yaml", Experiment.from_yaml)),
    Door("YAML recipe", "recipe.yaml", _tree("recipe.yaml", Recipe.named)),
    Door("YAML instrument", "instrument.yaml", _tree("instrument.yaml", lambda path: Instrument.named(str(path)))),
    Door("config of a run", "run/config.yaml", _weights),
    Door("weights (safetensors)", "run/best.safetensors", _weights, told=True),
]


# ---------------------------------------------------------------- whole files


def good_files(folder: Path) -> None:
    """Make a whole file of each kind."""
    fuzz.good_files(folder)
    _fits_files(folder)
    image, sigma, star = _arrays()
    np.savez(folder / "lens.npz", image=image, err=sigma, psf=star, pixel_scale=0.1)
    objects = np.empty(2, dtype=object)
    objects[:] = [image, {"mass": 1e-23}]
    np.save(folder / "objects.npy", objects, allow_pickle=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(Recipe.named("model_3").model_dump(mode="json")))
    (folder / "instrument.yaml").write_text(yaml.safe_dump(Instrument.named("euclid_vis").model_dump(mode="json")))


def _arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image with a blob in noise, its noise map and its PSF."""
    y, x = np.indices(SHAPE) - (SHAPE[0] - 1) / 2
    blob = np.exp(-0.5 * (x**2 + y**2) / 2.0)
    noise = np.random.default_rng(0).normal(0, 0.05, SHAPE)
    star = np.exp(-0.5 * (x**2 + y**2))[4:-5, 4:-5]
    return (blob + noise).astype("f4"), np.full(SHAPE, 0.05, "f4"), (star / star.sum()).astype("f4")


def _fits_files(folder: Path) -> None:
    image, sigma, star = _arrays()
    head = fits.Header({"PIXSCALE": 0.1, "BUNIT": "electron/s"})
    mask = np.zeros(SHAPE, "i2")
    mask[:, 0] = 1
    beside = [fits.ImageHDU(sigma, name="ERR"), fits.ImageHDU(mask, name="DQ"), fits.ImageHDU(star, name="PSF")]
    whole = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(image, head, name="SCI"), *beside])
    whole.writeto(folder / FITS_IMAGE, overwrite=True, checksum=True)
    for hdu in whole:
        hdu.header.remove("CHECKSUM")
        hdu.header.remove("DATASUM")
    whole.writeto(folder / "plain.fits")
    tiled = fits.CompImageHDU(image, head, name="SCI", compression_type="RICE_1", quantize_level=32.0)
    fits.HDUList([fits.PrimaryHDU(), tiled]).writeto(folder / "tiled.fits", checksum=True)
    (folder / "lens.fits.gz").write_bytes(gzip.compress((folder / FITS_IMAGE).read_bytes()))
    terms = np.stack([star, 0 * star, 0 * star])
    column = fits.Column("PSF_MASK", f"{terms.size}E", dim=f"({len(star)},{len(star)},3)", array=terms[None])
    model = fits.BinTableHDU.from_columns([column], name="PSF_DATA")
    model.header.update({"PSFAXIS1": len(star), "PSFAXIS2": len(star), "PSFAXIS3": 3, "PSF_SAMP": 0.5})
    fits.HDUList([fits.PrimaryHDU(), model]).writeto(folder / "psfex.fits", checksum=True)


# ---------------------------------------------------------------- one case, and many


def outcome(door: Door, case: Path, expected: Content) -> tuple[str, str]:
    """Return what became of a damaged file, and what was said."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = door.read(case)
    except LensphysError as error:
        said = str(error)
        return "refused" if Path(door.damaged).name in said and "\n" not in said else "unnamed", said
    except Exception as error:
        return "traceback", repr(error)
    warned = any("damaged" in str(warning.message) for warning in caught)
    return "same" if same(found, expected) else "warned" if warned else "silent", ""


def same(a: Any, b: Any) -> bool:
    """Return whether two contents hold the same."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    x, y = np.asarray(a), np.asarray(b)
    return x.dtype == y.dtype and np.array_equal(x, y, equal_nan=x.dtype.kind == y.dtype.kind == "f")


def _read_all(
    door: Door, case: Path, whole: bytes, expected: Content, numbers: range, seed: int, there: Connection
) -> None:
    """What a process does: it reads case after case, and says what each came to."""
    for number in numbers:
        (case / door.damaged).write_bytes(fuzz.damage(whole, np.random.default_rng([seed, number])))
        there.send(outcome(door, case, expected))


def outcomes(door: Door, good: Path, numbers: range, seed: int, seconds: float) -> Iterator[tuple[str, str]]:
    """Yield what becomes of a file that is damaged again and again."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as scratch:
        case = Path(scratch) / "case"
        shutil.copytree(good, case)
        whole, expected = (good / door.damaged).read_bytes(), door.read(good)
        while numbers:
            end, there = context.Pipe(duplex=False)
            child = context.Process(target=_read_all, args=(door, case, whole, expected, numbers, seed, there))
            child.start()
            there.close()
            for _ in numbers:
                found = _answer(end, child, seconds)
                numbers = numbers[1:]
                yield found
                if found[0] in ("crash", "hang"):
                    break
            child.join()
            end.close()


def _answer(end: Connection, child: Any, seconds: float) -> tuple[str, str]:
    try:
        if end.poll(seconds):
            found: tuple[str, str] = end.recv()
            return found
    except EOFError:
        child.join()
        return "crash", f"exit code {child.exitcode}"
    child.kill()
    return "hang", ""


def tried(door: Door, good: Path, numbers: range, seed: int, seconds: float) -> dict[str, Any]:
    """Return how often each outcome came, and the cases that are none to be content with."""
    tally: Counter[str] = Counter()
    cases = []
    for number, (what, said) in zip(numbers, outcomes(door, good, numbers, seed, seconds), strict=True):
        tally[what] += 1
        if what in ("traceback", "hang", "crash", "unnamed") or (what == "silent" and door.told):
            cases.append({"kind": door.name, "seed": [seed, number], "outcome": what, "said": said[-300:]})
            print(cases[-1], flush=True)
    return {"kind": door.name, "counts": dict(sorted(tally.items())), "cases": cases}


def main() -> None:
    """Try all readers and write the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("-n", type=int, default=1000, help="cases of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=30.0, help="after which a reader hangs")
    parser.add_argument("--kinds", nargs="+", help="some of the kinds")
    parser.add_argument("--only", type=int, help="one case, and what is said of it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    doors = [door for door in DOORS if arguments.kinds is None or door.name in arguments.kinds]
    done = KeptRows(arguments.out)
    with tempfile.TemporaryDirectory() as folder:
        good_files(Path(folder))
        if arguments.only is not None:
            for door in doors:
                one = range(arguments.only, arguments.only + 1)
                print(door.name, *outcomes(door, Path(folder), one, arguments.seed, arguments.seconds))
            return
        for door in (door for door in doors if door.name not in done):
            done[door.name] = tried(door, Path(folder), range(arguments.n), arguments.seed, arguments.seconds)
            print(door.name, done[door.name]["counts"], flush=True)
    counts = {door.name: done[door.name]["counts"] for door in doors}
    cases = [case for door in doors for case in done[door.name]["cases"]]
    done.finish({"n": arguments.n, "counts": counts, "cases": cases, "provenance": provenance(seed=arguments.seed)})


if __name__ == "__main__":
    main()
