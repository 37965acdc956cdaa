"""Real lenses as other telescopes see them, each image alone with its galaxies, nothing set by hand.

    python experiments/real/telescopes/telescopes.py FOLDER [OUT]

FOLDER holds ``euclid_q1`` and ``euclid_q1_4band`` (Euclid VIS and NISP, cut-outs of the quick release Q1),
``hst_j0946`` (Hubble; a double ring, of which the inner one is modelled) and ``jwst_ring`` (the COSMOS-Web Ring by
NIRCam), which are not ours to give. Masks that were drawn by hand are not used. OUT (by default this folder) gets
``table.json`` and ``figure.png``. One to several minutes an image; a killed run goes on.

Published radii: PyAutoLens's pipeline (median of result.json), Herculens, info.json; Mercier et al. 2024 and van Dokkum
et al. 2024 for the ring (0.78 and 0.77 arcsec).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

import lensphys as lp
from lensphys.basics.outputs import write_json
from lensphys.basics.panels import save_figure
from lensphys.basics.provenance import provenance

FIELD = 12.0  # arcsec that are fitted, at most
SHOWN = 2.6  # arcsec from the middle
RING = {"F115W": 0.03, "F150W": 0.03, "F277W": 0.06, "F444W": 0.06}  # arcsec a pixel


@dataclass(frozen=True)
class Case:
    """An image of a lens, the Einstein radius that was published [arcsec], and how it is read."""

    name: str
    published: float
    path: Path
    how: dict[str, Any]


def cases(folder: Path) -> list[Case]:
    """Return all images."""
    found = []
    for place in sorted((folder / "euclid_q1").glob("*/*_cut.fits")):
        told = json.loads((place.parent / "result.json").read_text())
        name = f"Euclid {place.name[:9]} {place.name[-13:-9]}"
        found.append(Case(name, told["einstein_radius_median_pdf"], place, {"band": "VIS", "pixel_scale": 0.1}))
    for place in sorted((folder / "euclid_q1_4band").glob("*.fits")):
        found.append(Case("Euclid 102020532", 1.236, place, {"band": "VIS", "pixel_scale": 0.1}))
    place = folder / "hst_j0946"
    beside = {"psf": place / "psf.fits", "noise": place / "noise_map.fits"}
    found.append(Case("J0946+1006, HST", 1.38, place / "data.fits", {**beside, "pixel_scale": 0.05}))
    for band, scale in RING.items():
        place = folder / "jwst_ring" / band
        beside = {"psf": place / "psf.fits", "noise": place / "noise_map.fits"}
        found.append(Case(f"COSMOS-Web Ring, {band}", 0.77, place / "data.fits", {**beside, "pixel_scale": scale}))
    return found


def cut(images: lp.Images) -> lp.Images:
    """Return the middle of an image, at most `FIELD` wide."""
    seen = images.set.observation
    grid = seen.camera.grid.middle(FIELD / 2, FIELD / 2)
    return replace(images, set=replace(images.set, observation=seen.inner(*grid.shape), header=None))


def judged(case: Case) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the row of an image, and what is drawn of it."""
    torch.set_num_threads(1)
    images = cut(lp.read(case.path, **case.how))
    started = time.process_time()
    result = lp.super_resolve(images)
    seconds = time.process_time() - started
    theta_E = next(row for row in result.table if row["name"] == "theta_E")
    row = {
        "lens": case.name,
        "theta_E": float(theta_E["value"]),
        "error": float(theta_E["error"]),
        "published": case.published,
        "ratio": float(theta_E["value"]) / case.published,
        "chi2": float(result.chi2),
        "subhalos": len(result.subhalos),
        "quality": str(result.quality),
        "reasons": list(result.reasons),
        "cpu_seconds": seconds,
    }
    seen = images.set.observation
    model = seen.image[0, 0].numpy() - result.residual
    planes = {"image": images.image, "model": model, "left": result.residual, "sharp": result.image}
    return row, planes | {"sigma": images.noise, "half": np.array(seen.camera.grid.radius)}


def drawn(axes: Any, row: dict[str, Any], planes: dict[str, np.ndarray]) -> None:
    """Draw the image, the model, what is left, and the super-resolved image."""
    half, sigma = float(planes["half"]), np.median(planes["sigma"])
    four = planes["sharp"].size / planes["image"].size
    image, model, sharp = (np.arcsinh(planes[name] * size / sigma / 3) for name, size in
                           (("image", 1), ("model", 1), ("sharp", four)))  # fmt: skip
    shown = (image, model, planes["left"] / sigma, sharp)
    for axis, plane, top in zip(axes, shown, (None, None, 5, None), strict=True):
        low = None if top is None else -top
        axis.imshow(plane, origin="lower", extent=(-half, half, -half, half), vmin=low, vmax=top, cmap="magma")
        axis.set(xlim=(-SHOWN, SHOWN), ylim=(-SHOWN, SHOWN), xticks=[], yticks=[])
    axes[0].set_ylabel(f"{row['lens'].replace(', ', chr(10))}\n{row['ratio']:.2f} {row['quality']}", fontsize=6)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table, and how many are within 2 and 5 %."""
    lines = ["| image | theta_E | published | ratio | chi^2 / dof | sub-halos | quality | CPU s |\n|" + 8 * "---|"]
    for r in rows:
        found = f"{r['theta_E']:.3f} +- {r['error']:.3f} | {r['published']:.3f} | {r['ratio']:.3f}"
        told = f"{r['chi2']:.2f} | {r['subhalos']} | {r['quality']} | {r['cpu_seconds']:.0f}"
        lines.append(f"| {r['lens']} | {found} | {told} |")
    off = np.array([abs(r["ratio"] - 1) for r in rows])
    told = f"Within 2 % on {(off <= 0.02).sum()} of {len(off)}, within 5 % on {(off <= 0.05).sum()}."
    return "\n".join([*lines, "", told])


def main() -> None:
    """Fit what has no row yet, then write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", nargs="?", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    kept = arguments.out / "kept"
    kept.mkdir(parents=True, exist_ok=True)
    rows = []
    everything = cases(arguments.folder)
    figure = Figure(figsize=(6, 1.5 * len(everything)), layout="constrained")
    for axes, case in zip(figure.subplots(len(everything), 4, squeeze=False), everything, strict=True):
        place = kept / case.name.replace(" ", "_")
        if not place.with_suffix(".json").exists():
            row, planes = judged(case)
            np.savez(place.with_suffix(".npz"), **planes)  # type: ignore[arg-type]
            write_json(place.with_suffix(".json"), row)
        rows.append(json.loads(place.with_suffix(".json").read_text()))
        print(json.dumps(rows[-1]), flush=True)
        with np.load(place.with_suffix(".npz")) as planes:
            drawn(axes, rows[-1], dict(planes))
    save_figure(figure, arguments.out / "figure.png")
    write_json(arguments.out / "table.json", {"provenance": provenance(), "rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
