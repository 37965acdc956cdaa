"""Real lenses with their galaxies in the image, nothing set by hand: Einstein radii against the published ones.

    python experiments/real/lens_light/lens_light.py FOLDER [OUT] [--masked]

FOLDER holds Hubble cut-outs (FITS; SCI, ERR, MASK, PSF; header THETA_E of Bolton et al. 2008, good to 3 to 5 %, and
THETA_TL, what TinyLensGPU found, where that is known), which are not ours to give, or the lenses of `simulated.py`.
MASK, where neighbours were marked by hand, is used with --masked alone. OUT (by default this folder) gets
``table.json``, ``table.md`` and ``figure.png``. A minute a lens; a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from astropy.io import fits
from matplotlib.figure import Figure

from lensphys.basics.outputs import write_json
from lensphys.basics.panels import save_figure
from lensphys.basics.provenance import provenance
from lensphys.data.images import read_images
from lensphys.methods import READY
from lensphys.observation import Observation

HALF, WIDE = 2.6, 1.6  # arcsec that are shown, and Einstein radii of a wider lens
SHOWN = 12  # lenses in the figure


def observed(path: Path, masked: bool) -> Observation:
    """Return the image and how it was taken."""
    if masked:
        return read_images(path).observation
    with TemporaryDirectory() as folder, fits.open(path) as found:
        unmarked = Path(folder) / path.name
        fits.HDUList([hdu for hdu in found if hdu.name != "MASK"]).writeto(unmarked)
        return read_images(unmarked).observation


def judged(path: Path, masked: bool) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the row of a lens, and what is drawn of it."""
    torch.set_num_threads(1)
    observation = observed(path, masked)
    started = time.process_time()
    found = READY["refine"].predict(observation, 2)
    header = fits.getheader(path, "SCI")
    theta_E, light = float(found.parameters["theta_E"]), found.lens_light
    assert light is not None
    row = {
        "lens": path.stem,
        "theta_E": theta_E,
        "error": float(found.errors["theta_E"]),
        "published": header["THETA_E"],
        "ratio": theta_E / header["THETA_E"],
        "ratio_tinylens": header["THETA_TL"] / header["THETA_E"] if "THETA_TL" in header else None,
        "chi2": float(found.reduced_chi2(observation)),
        "subhalos": int(found.numbers["subhalos"]),
        "quality": found.verdicts[0].quality,
        "reasons": list(found.verdicts[0].reasons),
        "lens_light_found": bool(light.any()),
        "cpu_seconds": time.process_time() - started,
    }
    planes = {"image": observation.image, "arcs": observation.image - light, "model": found.observed - light}
    return row, {name: plane[0, 0].numpy() for name, plane in planes.items()} | {
        "sigma": observation.noise.variance(observation.image)[0, 0].sqrt().numpy(),
        "half": np.array(observation.camera.grid.radius),
    }


def drawn(axes: Any, row: dict[str, Any], planes: dict[str, np.ndarray]) -> None:
    """Draw the image, the image without its galaxy, the model of the arcs, and what is left."""
    half, sigma = float(planes["half"]), np.median(planes["sigma"])
    edge = max(HALF, WIDE * row["published"])
    left = planes["arcs"] - planes["model"]
    shown = (np.arcsinh(planes["image"] / sigma / 3), planes["arcs"] / sigma, planes["model"] / sigma, left / sigma)
    for axis, image, top in zip(axes, shown, (None, 10, 10, 5), strict=True):
        low = None if top is None else -top / (1 if top == 5 else 3)
        axis.imshow(image, origin="lower", extent=(-half, half, -half, half), vmin=low, vmax=top, cmap="magma")
        axis.set(xlim=(-edge, edge), ylim=(-edge, edge), xticks=[], yticks=[])
    axes[0].set_ylabel(f"{row['lens'].removeprefix('SDSS')}\n{row['ratio']:.2f} {row['quality']}", fontsize=7)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table and what it comes to, beside TinyLensGPU's where that is known, else beside the errors."""
    drawn = all(r["ratio_tinylens"] is None for r in rows)
    known, other = ("true", "off by") if drawn else ("published", "TinyLensGPU")
    head = f"| lens | theta_E | {known} | ratio | {other} | chi^2 / dof | sub-halos | quality | CPU s |"
    lines = [head, "|---|---|---|---|---|---|---|---|---|"]
    for r in rows:
        beside = f"{pull(r):+.1f} sigma" if drawn else f"{r['ratio_tinylens']:.3f}"
        lines.append(f"| {r['lens']} | {r['theta_E']:.3f} +- {r['error']:.3f} | {r['published']:.2f} "
                     f"| {r['ratio']:.3f} | {beside} | {r['chi2']:.2f} | {r['subhalos']} "
                     f"| {r['quality']} | {r['cpu_seconds']:.0f} |")  # fmt: skip
    return "\n".join([*lines, "", summary(rows, drawn)])


def pull(row: dict[str, Any]) -> float:
    """Return by how many of its errors an Einstein radius is off."""
    return float((row["theta_E"] - row["published"]) / row["error"])


def summary(rows: list[dict[str, Any]], drawn: bool) -> str:
    """Return how many are within 5 and beyond 20 %, ours and TinyLensGPU's, and how many failures are called good."""
    words = []
    for name, key in [("lensphys", "ratio")] + [("TinyLensGPU", "ratio_tinylens")] * (not drawn):
        off = np.array([abs(r[key] - 1) for r in rows])
        words.append(f"{name}: within 5 % on {(off <= 0.05).sum()} of {len(off)}, within 10 % on {(off <= 0.1).sum()}, "
                     f"off by over 20 % on {(off > 0.2).sum()}")  # fmt: skip
    if drawn:
        words.append(f"within its error on {sum(abs(pull(r)) < 1 for r in rows)} of {len(rows)}")
    wrong = sum(abs(r["ratio"] - 1) > 0.1 and r["quality"] == "good" for r in rows)
    seconds = float(np.median([r["cpu_seconds"] for r in rows])) if rows else math.nan
    return f"{'; '.join(words)}. Off by over 10 % and called good: {wrong}. Median {seconds:.0f} s of one core."


def main() -> None:
    """Fit all, write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", nargs="?", type=Path, default=Path(__file__).parent)
    parser.add_argument("--masked", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    kept = arguments.out / "kept"
    kept.mkdir(exist_ok=True)
    paths = sorted(arguments.folder.glob("*.fits"))
    for path in paths:
        if (kept / f"{path.stem}.json").exists():
            continue
        row, planes = judged(path, arguments.masked)
        np.savez(kept / f"{path.stem}.npz", **planes)  # type: ignore[arg-type]
        write_json(kept / f"{path.stem}.json", row)
        print(f"{row['lens']}: {row['ratio']:.3f}, chi^2 {row['chi2']:.2f}, {row['quality']}", flush=True)
    rows = [json.loads((kept / f"{path.stem}.json").read_text()) for path in paths]
    seen = rows[:SHOWN]
    figure = Figure(figsize=(6, 1.5 * len(seen)), layout="constrained")
    for axes, row in zip(figure.subplots(len(seen), 4, squeeze=False), seen, strict=True):
        with np.load(kept / f"{row['lens']}.npz") as planes:
            drawn(axes, row, dict(planes))
    save_figure(figure, arguments.out / "figure.png")
    write_json(arguments.out / "table.json", {"provenance": provenance(masked=arguments.masked), "rows": rows})
    (arguments.out / "table.md").write_text(table(rows) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
