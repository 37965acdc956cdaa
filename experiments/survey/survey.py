"""A survey of 20 000 cut-outs, killed three times and finished, beside an unbroken run; and what 1e5 lenses would cost.

    python experiments/survey/survey.py kills WORK      # 20 000 cut-outs of 24 pixels, bicubic: minutes
    python experiments/survey/survey.py cost WORK       # eight of the size and kind of Euclid VIS, refined: minutes

``kills``: 19 480 images in stacks, 500 FITS files of three shapes with an error map and a PSF, and 20 that are damaged.
The run is ended by SIGKILL (the process that leads it, and with it its workers) when about a fifth, a half and four
fifths of the parts are there, and started again by the same command. ``cost``: each lens is fitted by `refine` on one
thread, in processor time; hours and bytes of 1e5 are those of these lenses times their number over the cores, no more.
Results stand in ``kills.json`` and ``cost.json`` beside this script.
"""

import argparse
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from lensphys.basics.outputs import write_json
from lensphys.basics.provenance import provenance
from lensphys.basics.runners import Processes
from lensphys.catalogue import Survey, listed, super_resolve_all
from lensphys.data.lens_file import LensFile
from lensphys.methods import READY
from lensphys.observation.kernel import psf_kernel
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.writer import simulate

HERE = Path(__file__).parent
STACKS, PER_STACK, SINGLE, DAMAGED = 20, 974, 500, 20
ENDED_AT = (0.2, 0.5, 0.8)  # of the parts
EUCLID, CORES = 8, 100


def cut_outs(folder: Path) -> int:
    """Make the files; return how many images they are."""
    folder.mkdir(parents=True)
    small = Recipe.named("model_2", ["height=24", "width=24"])
    path = simulate(small, SINGLE + 500, folder.parent / "lenses.h5", classes=["no_sub"])
    with LensFile(path) as lenses:
        images = lenses.lr()[:, 0].numpy()
        kernel, kernel_scale = psf_kernel(lenses.observation([0]).camera)
    rng = np.random.default_rng(0)
    for k in range(STACKS):
        chosen = rng.integers(len(images), size=PER_STACK)
        noise = rng.normal(0, 0.01 * images.max(), (PER_STACK, 24, 24))
        np.save(folder / f"stack_{k:02d}.npy", (images[chosen] + noise).astype("f4"))
    for k in range(SINGLE):
        image = images[k, : 24 - 2 * (k % 3)]
        planes = {"SCI": image, "ERR": np.full_like(image, 0.02 * images.max()), "PSF": kernel.astype("f4")}
        scales = {"PSF": kernel_scale}
        hdus = [fits.ImageHDU(x, fits.Header({"PIXSCALE": scales.get(n, 0.1)}), name=n) for n, x in planes.items()]
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(folder / f"lens_{k:03d}.fits")
    for k in range(DAMAGED):
        whole = (folder / f"lens_{k:03d}.fits").read_bytes()
        (folder / f"lens_{SINGLE + k:03d}.fits").write_bytes(whole[: 100 * (k + 1)])
    return sum(entry.count for entry in listed(folder))


def command(folder: Path, out: Path, *options: str) -> list[str]:
    """Return what a user types."""
    return [sys.executable, "-m", "lensphys", "super-resolve", str(folder), "-o", str(out), *options]


def parts(out: Path) -> int:
    """Return how many parts are there."""
    return len(list((out / "shards").glob("[0-9]*"))) if out.exists() else 0


def ended(words: list[str], out: Path, at: int) -> dict:
    """Start a command and kill it when so many parts are there."""
    start = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while parts(out) < at and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(2)  # the workers end once their parent is gone
    left = len([p for p in (out / "shards").iterdir() if p.name.startswith(".")])
    return {"seconds": time.perf_counter() - start, "parts": parts(out), "left_half_made": left,
            "returncode": process.returncode}  # fmt: skip


def finished(words: list[str]) -> dict:
    """Run a command to its end: seconds, and peak memory of the process that leads."""
    start, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        time.sleep(0.2)
    said = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} failed: {said}")
    return {"seconds": time.perf_counter() - start, "peak_MB": peak, "said": said.splitlines()[0].split(": ")[-1]}


def resident(pid: int) -> float:
    """Return the peak of a process's memory so far [MB]; what rusage tells begins with that of its parent."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return max((float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), default=0.0)


def content(out: Path) -> dict[str, bytes]:
    """Return all that a run wrote, but for the seconds (and for tables and pages, which hold them, or their folder)."""
    files = [p for p in out.rglob("*") if p.is_file() and p.name != "seconds.json" and p.suffix != ".html"]
    return {str(p.relative_to(out)): p.read_bytes() for p in files if p.parent != out or p.name == "manifest.json"}


def same_rows(a: Path, b: Path) -> bool:
    """Return whether two catalogues say the same, but for the seconds."""
    lines = [(out / "catalogue.ecsv").read_text().splitlines() for out in (a, b)]
    return [line.rsplit(" ", 1)[0] for line in lines[0]] == [line.rsplit(" ", 1)[0] for line in lines[1]]


def kills(work: Path) -> dict:
    """Return the row of the run that was killed."""
    folder, options = work / "in", ("--method", "bicubic", "--pixel-scale", "0.1", "--shard-size", "64")
    number = cut_outs(folder)
    total = -(-number // 64)
    words = command(folder, work / "broken", *options, "--workers", "2")
    killed = [ended(words, work / "broken", int(share * total)) for share in ENDED_AT]
    last = finished(words)
    unbroken = finished(command(folder, work / "unbroken", *options))
    a, b = content(work / "broken"), content(work / "unbroken")
    few = work / "few"
    few.mkdir()
    for k in range(2):
        shutil.copy(folder / f"stack_{k:02d}.npy", few)
    small = finished(command(few, work / "small", *options))
    statuses = Table.read(work / "broken/catalogue.ecsv")["status"].tolist()
    return {
        "cut_outs": number, "parts": total, "killed": killed, "last_run": last, "unbroken": unbroken,
        "files": len(b), "bytes": sum(map(len, b.values())), "identical": a == b,
        "rows_identical": same_rows(work / "broken", work / "unbroken"),
        "done": statuses.count("done"), "failed": statuses.count("failed"),
        "memory_of_fewer": {"cut_outs": 2 * PER_STACK} | small,
    }  # fmt: skip


def cost(work: Path) -> dict:
    """Return what lenses like those of Euclid VIS cost, and 1e5 of them, in processor time of this one process."""
    work.mkdir(parents=True)
    data = simulate(Recipe.named("model_2"), EUCLID, work / "euclid.h5", classes=["no_sub"], seed=1)
    survey = Survey(listed(data), READY["refine"], "refine", origin={"method": "refine"}, shard_size=1)
    used: list[float] = []

    class Timed(Processes):
        def run(self, job, parts):
            for part in parts:
                start = time.process_time()
                done = job(part)
                used.append(time.process_time() - start)
                yield done

    rows = super_resolve_all(survey, work / "fitted", Timed())
    size = sum(p.stat().st_size for p in (work / "fitted/shards").rglob("*") if p.is_file())
    mean, each = float(np.mean(used)), size / len(rows)
    return {
        "lenses": len(rows), "processor_seconds": used, "mean_processor_seconds": mean,
        "wall_seconds": [row["seconds"] for row in rows], "bytes_a_lens": each,
        "quality": [row["quality"] for row in rows],
        "theta_E": [row["theta_E"] for row in rows], "theta_E_error": [row["theta_E_error"] for row in rows],
        "of_100000": {"core_hours": 1e5 * mean / 3600, f"hours_on_{CORES}_cores": 1e5 * mean / 3600 / CORES,
                      "GB": 1e5 * each / 1e9},
    }  # fmt: skip


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["kills", "cost"])
    parser.add_argument("work", type=Path, help="an empty folder for all files")
    parser.add_argument("--note", default="", help="of the machine: what else it did")
    arguments = parser.parse_args()
    found = {"kills": kills, "cost": cost}[arguments.what](arguments.work)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    found |= {
        "cpu_seconds_without_the_killed": used.ru_utime + used.ru_stime,
        "note": arguments.note,
        "provenance": provenance(),
    }
    write_json(HERE / f"{arguments.what}.json", found)
    print(json.dumps({name: x for name, x in found.items() if name != "provenance"}, indent=1, default=str))


if __name__ == "__main__":
    main()
