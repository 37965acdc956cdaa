"""Why train? One forward pass against the fit from scratch, on the same images of real galaxies that no training saw.

    python experiments/network/table.py "Euclid VIS" euclid_vis many.h5 --rows fits.json -o TABLE
    python experiments/network/table.py "HST ACS F814W" hst_acs hst.h5 -o TABLE
    python experiments/network/table.py "Euclid VIS, faint" euclid_vis faint.h5 --fit -o TABLE

TABLE: experiments/network/table.json. The data sets are those of `experiments/any_source/collect.py`, whose table has
the rows of the fit from scratch; with ``--fit`` it is run here, and ``--rows`` has them from `any_source/judge.py`.
many.h5 is euclid.h5 with -n 200 --seed 103: as many of them as 16 cores fitted in five minutes. Faint sources:

    lensphys simulate model_4 -n 48 --classes no_sub -o faint.h5 --seed 102 --set source.file=g.npy
        --set "source.pixel_scale={kind: uniform, low: 0.010, high: 0.022}"
        --set "source.magnitude={kind: uniform, low: 24.5, high: 26.8}"

Seconds are those of one core's own time, a batch of 32 divided by 32 for the forward pass. Sets of OUT not named stay.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lensphys.basics.outputs import write_json
from lensphys.basics.provenance import provenance
from lensphys.data.lens_file import LensFile
from lensphys.evaluation.metrics import normalise_peak, psnr
from lensphys.methods import READY, MarginalisedMethod
from lensphys.observation import Observation
from lensphys.prediction import Prediction
from lensphys.training.experiment import load_run
from lensphys.weights import weights_folder, weights_names

BATCH, BRIGHT, ASTRAY = 32, 30.0, 0.05  # images at once; peak signal-to-noise; of theta_E: a failure
SCRATCH = Path(__file__).parents[1] / "any_source" / "table.json"
NAMES = {"Euclid VIS": "Euclid VIS, real galaxies", "HST ACS F814W": "HST ACS F814W, real galaxies"}


def judged(
    lenses: LensFile, rows: list[int], predict: Callable[[Observation], Prediction], batch: int
) -> list[dict[str, Any]]:
    """Return what a method makes of some images, a row each."""
    found: list[dict[str, Any]] = []
    for part in (rows[i : i + batch] for i in range(0, len(rows), batch)):
        observation = lenses.observation(part)
        truth = torch.as_tensor(lenses.read("hr_clean", part) * lenses.read("flux_scale", part)[:, None, None, None])
        started = time.process_time()
        made = predict(observation)
        seconds = (time.process_time() - started) / len(part)
        decibels = psnr(*normalise_peak(made.image, truth))
        noise = observation.noise.variance(observation.smoothed).sqrt().flatten(1).amax(1)
        covered = (made.image - truth).abs() < made.sigma if made.sigma is not None else torch.zeros_like(truth) > 0
        arc = truth > 0.05 * truth.amax((1, 2, 3), keepdim=True)
        for i, row in enumerate(part):
            theta_E = float(made.parameters["theta_E"][i]) if "theta_E" in made.parameters else None
            found.append(
                {
                    "row": row,
                    "class": lenses.classes[int(lenses.read("label", [row])[0])],
                    "psnr": float(decibels[i]),
                    "signal_to_noise": float(observation.peak[i] / noise[i]),
                    "chi2": float(made.reduced_chi2(observation)[i]),
                    "theta_E": theta_E,
                    "theta_E_true": lenses.lens_model(row)["kwargs_lens"][0]["theta_E"],
                    "coverage": float(covered[i][arc[i]].float().mean()),
                    "quality": made.verdicts[i].quality if made.verdicts else None,
                    "seconds": seconds,
                }
            )
    return found


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the numbers of the table."""
    off = [abs(r["theta_E"] / r["theta_E_true"] - 1) for r in rows if r.get("theta_E") is not None]
    told = {"images": len(rows), "psnr": float(np.mean([r["psnr"] for r in rows]))}
    if off:
        told |= {"theta_E_median": float(np.median(off)), "failures": sum(x > ASTRAY or x != x for x in off)}
    return told | {"seconds": float(np.median([r["seconds"] for r in rows]))}


def told(methods: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the summary of each method, by class and by signal-to-noise."""
    parts: dict[str, Callable[[dict[str, Any]], bool]] = {
        name: lambda r, name=name: r["class"] == name  # type: ignore[misc]
        for name in dict.fromkeys(r["class"] for r in next(iter(methods.values())))
    }
    parts |= {
        f"peak S/N over {BRIGHT:.0f}": lambda r: r["signal_to_noise"] > BRIGHT,
        f"peak S/N to {BRIGHT:.0f}": lambda r: r["signal_to_noise"] <= BRIGHT,
        "all": lambda r: True,
    }
    return {
        part: {name: summary(chosen) for name, rows in methods.items() if (chosen := [r for r in rows if belongs(r)])}
        for part, belongs in parts.items()
    }


def from_scratch(fits: list[dict[str, Any]], rows: list[int]) -> list[dict[str, Any]]:
    """Return what a table says of the fit from scratch of some images, of the rows of `judge.py`."""
    kept = (
        "row",
        "class",
        "psnr",
        "signal_to_noise",
        "chi2",
        "theta_E",
        "theta_E_true",
        "coverage",
        "quality",
        "seconds",
    )
    return [{key: row[key] for key in kept} for row in fits if row["row"] in rows]


def committed(name: str) -> list[dict[str, Any]]:
    """Return the rows of the committed table of the fit from scratch."""
    (entry,) = (s for s in json.loads(SCRATCH.read_text())["sets"] if s["name"] == NAMES[name])
    return entry["rows"]


def main() -> None:
    """Judge and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("weights", help="a name, or a run folder")
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("-n", type=int, help="images of each class; all by default")
    parser.add_argument("--fit", action="store_true", help="run the fit from scratch here")
    parser.add_argument("--rows", type=Path, help="what `judge.py` wrote of some images: those are judged")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = weights_folder(arguments.weights) if arguments.weights in weights_names() else Path(arguments.weights)
    method = load_run(folder)
    assert isinstance(method, MarginalisedMethod)
    with LensFile(arguments.data) as lenses, torch.no_grad():
        labels = lenses.labels
        rows = sorted(int(i) for k in range(len(lenses.classes)) for i in np.flatnonzero(labels == k)[: arguments.n])
        if not arguments.fit:
            known = json.loads(arguments.rows.read_text())["rows"] if arguments.rows else committed(arguments.name)
            rows = sorted({row["row"] for row in known} & set(rows))
        methods = {
            "bicubic": judged(lenses, rows, lambda o: READY["bicubic"].predict(o, 2), BATCH),
            "one forward pass": judged(lenses, rows, lambda o: method.predict(o, 2), BATCH),
        }
        if arguments.fit:
            methods["fit from scratch"] = judged(lenses, rows, lambda o: READY["refine"].predict(o, 2), 1)
        else:
            methods["fit from scratch"] = from_scratch(known, rows)
    before = json.loads(arguments.out.read_text())["sets"] if arguments.out.exists() else []
    entry = {"name": arguments.name, "weights": folder.name, "table": told(methods), "rows": methods}
    entry["made"] = provenance()
    sets = [s for s in before if s["name"] != arguments.name] + [entry]
    write_json(arguments.out, {"sets": sets})
    for part, line in entry["table"].items():
        for made, numbers in line.items():
            print(f"{part:20s} {made:18s}", {k: round(v, 4) for k, v in numbers.items()})


if __name__ == "__main__":
    main()
