"""Real lenses in four bands, each alone and all together, nothing set by hand.

    python experiments/real/joint/real.py JWST_RING EUCLID_Q1_4BAND [OUT]

JWST_RING has a folder a band (``data.fits``, ``noise_map.fits``, ``psf.fits``, and a mask drawn by hand that is not
used), of the COSMOS-Web Ring by NIRCam; EUCLID_Q1_4BAND one FITS file of a lens in VIS and NISP. Neither is ours to
give. The middle 10 arcsec of each image are fitted. OUT (by default this folder) gets ``real.json`` and a picture a
lens. Minutes a band; a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

import lensphys as lp
from lensphys.basics.outputs import write_json
from lensphys.basics.panels import save_figure
from lensphys.basics.provenance import provenance

PUBLISHED = {"Euclid": 1.236, "COSMOS-Web Ring": None}  # arcsec, of VIS; none comes with the ring
FIELD = 10.0  # arcsec
SIDE = {"F115W": 0.03, "F150W": 0.03, "F277W": 0.06, "F444W": 0.06}  # arcsec


def ring(folder: Path) -> dict[str, lp.Images]:
    """Return the COSMOS-Web Ring in its four bands."""
    return {
        band: lp.read(folder / band / "data.fits", psf=folder / band / "psf.fits",
                      noise=folder / band / "noise_map.fits", pixel_scale=scale)
        for band, scale in SIDE.items()
    }  # fmt: skip


def euclid(folder: Path) -> dict[str, lp.Images]:
    """Return the Euclid lens in its four bands."""
    (path,) = folder.glob("*.fits")
    return {band: lp.read(path, band=band) for band in ("VIS", "NIR_Y", "NIR_J", "NIR_H")}


def cut(images: lp.Images) -> lp.Images:
    """Return the middle of an image, `FIELD` wide."""
    seen = images.set.observation
    grid = seen.camera.grid.middle(FIELD / 2, FIELD / 2)
    return replace(images, set=replace(images.set, observation=seen.inner(*grid.shape), header=None))


def timed(make: Callable[[], Any]) -> tuple[Any, float]:
    """Return what is made, and the CPU seconds that it took."""
    torch.set_num_threads(1)
    started = time.process_time()
    made = make()
    return made, time.process_time() - started


def alone(images: lp.Images) -> dict[str, Any]:
    """Return what one band says by itself."""
    result, seconds = timed(lambda: lp.super_resolve(images))
    row = next(row for row in result.table if row["name"] == "theta_E")
    return {
        "theta_E": float(row["value"]),
        "error": float(row["error"]),
        "chi2": float(result.chi2),
        "quality": str(result.quality),
        "reasons": list(result.reasons),
        "cpu_seconds": seconds,
    }


def jointly(bands: dict[str, lp.Images]) -> tuple[dict[str, Any], lp.JointResult]:
    """Return what all bands say together."""
    result, seconds = timed(lambda: lp.super_resolve(lp.Dataset.bands(bands)))
    rows = {row.name: row for row in result.found.table}
    placed = {name: [row.value, row.error] for name, row in rows.items() if name.rpartition(".")[2] in ("x", "y")}
    told = {
        "theta_E": result.theta_E,
        "error": rows["theta_E"].error,
        "chi2": result.chi2,
        "chi2_of_bands": result.found.each,
        "first": result.found.first,
        "correlation": result.found.correlation,
        "subhalos": len(next(iter(result.bands.values())).subhalos),
        "placements": placed,
        "quality": result.quality,
        "reasons": result.reasons,
        "cpu_seconds": seconds,
    }
    return told, result


def drawn(result: lp.JointResult, path: Path) -> None:
    """Draw each band: image, model, what is left of it, and the super-resolved image."""
    figure = Figure(figsize=(8, 2 * len(result.bands)))
    axes = figure.subplots(len(result.bands), 4, squeeze=False)
    for row, (band, one) in zip(axes, result.bands.items(), strict=True):
        half, noise = 2.5, np.median(one.images.noise)
        reach = one.images.pixel_scale * one.images.image.shape[0] / 2
        shown = (one.images.image, one.images.image - one.residual, one.residual, one.image * one.scale**2)
        for axis, plane, top in zip(row, shown, (None, None, 5 * noise, None), strict=True):
            show = plane if top is not None else np.arcsinh(plane / noise / 3)
            axis.imshow(show, origin="lower", extent=(-reach, reach) * 2, cmap="magma",
                        vmin=None if top is None else -top, vmax=top)  # fmt: skip
            axis.set(xlim=(-half, half), ylim=(-half, half), xticks=[], yticks=[])
        row[0].set_ylabel(f"{band}\nchi^2 {result.found.each[band]:.2f}", fontsize=7)
    for axis, title in zip(axes[0], ("image", "model", "left, +-5 sigma", "super-resolved"), strict=True):
        axis.set_title(title, fontsize=8)
    save_figure(figure, path)


def table(lenses: dict[str, Any]) -> str:
    """Return a row a band and one for all of them, lens by lens."""
    lines = [
        "| lens | band | theta_E | published | chi^2 / dof | quality | CPU s |\n|---|---|---|---|---|---|---|",
    ]
    for name, found in lenses.items():
        known = "" if found["published"] is None else f"{found['published']:.3f}"
        together = {"all": found["jointly"]} if "jointly" in found else {}
        for band, row in (found["alone"] | together).items():
            each = ", ".join(f"{one} {chi2:.2f}" for one, chi2 in row.get("chi2_of_bands", {}).items())
            theta_E = f"{row['theta_E']:.3f} +- {row['error']:.3f}" if row["error"] < row["theta_E"] else "not known"
            lines.append(
                f"| {name} | {band} | {theta_E} | {known} | {row['chi2']:.2f}{f' ({each})' if each else ''} "
                f"| {row['quality']} | {row['cpu_seconds']:.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Fit what has no row yet, then write all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jwst", type=Path)
    parser.add_argument("euclid", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).parent)
    arguments = parser.parse_args()
    place = arguments.out / "real.json"
    lenses = json.loads(place.read_text())["lenses"] if place.exists() else {}
    read: dict[str, Callable[[], dict[str, lp.Images]]] = {
        "Euclid": lambda: euclid(arguments.euclid),
        "COSMOS-Web Ring": lambda: ring(arguments.jwst),
    }
    for name, bands in read.items():
        rows = lenses.setdefault(name, {"published": PUBLISHED[name], "alone": {}})
        images = {band: cut(one) for band, one in bands().items()}
        if "jointly" not in rows:
            rows["jointly"], result = jointly(images)
            drawn(result, arguments.out / f"{name.split()[0].lower()}.png")
            write_json(place, {"provenance": provenance(), "lenses": lenses})
        for band, one in images.items():
            if band not in rows["alone"]:
                rows["alone"][band] = alone(one)
                write_json(place, {"provenance": provenance(), "lenses": lenses})
        print(name, json.dumps(rows, indent=1), flush=True)


if __name__ == "__main__":
    main()
