"""Simulated lenses with real galaxies behind them: four dithered exposures against one, and two bands against one.

    python experiments/real/joint/simulated.py GALAXIES [OUT] [--lenses 8]

GALAXIES is an .npz with ``images`` (N, H, W) of galaxies, background taken off, which are not ours to give. Each lens
is seen by Euclid VIS in four exposures of 566 s, half a pixel apart but for a pointing error that no fit is told, and
in a second, redder band with twice the pixels and the PSF, moved and turned as well. OUT (by default this folder) gets
``simulated.json``. Two minutes a lens; a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lensphys.basics.outputs import write_json
from lensphys.basics.provenance import provenance
from lensphys.evaluation.metrics import normalise_peak, psnr
from lensphys.fitting.joint_fit import Exposure
from lensphys.fitting.placement import PlacedLight, PlacedMass, Placement
from lensphys.methods.joint import JointPrediction, JointRefinedFit
from lensphys.model import SIE, ImageSource, LightProfile, MassProfile, Shear
from lensphys.observation import Instrument, Observation
from lensphys.tracing.deflection import DeflectionField

DITHER = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5))  # pixels
POINTING, ROTATION = 0.03, 0.1  # scatter of where an exposure lies [arcsec] and of how it is turned [degrees]
SIDE = 64  # pixels of VIS


@dataclass(frozen=True)
class Truth:
    """A lens with a real galaxy behind it.

    Args:
        mass: SIE and shear.
        sources: the galaxy in each band [flux / arcsec^2].
    """

    mass: MassProfile
    sources: dict[str, LightProfile]

    @property
    def theta_E(self) -> float:
        """Einstein radius [arcsec]."""
        return float(self.mass.summands[0].values["theta_E"])

    def seen(self, observation: Observation, placement: Placement, band: str, scale: int = 1) -> Tensor:
        """Return the noise-free image on pixels ``scale`` times as small, (1, 1, sH, sW)."""
        camera = observation.camera.at(scale)
        field = DeflectionField.from_lens(PlacedMass(self.mass, placement), camera.grid, like=observation.image)
        return camera.render(PlacedLight(self.sources[band], placement), field)


def drawn(galaxy: np.ndarray, rng: np.random.Generator) -> Truth:
    """Return a lens in front of a galaxy, whose second band is of its bright parts more."""
    e, shear = 0.1 * rng.standard_normal(2), 0.03 * rng.standard_normal(2)
    x, y = 0.03 * rng.standard_normal(2)
    mass = SIE(rng.uniform(0.9, 1.4), *e.clip(-0.25, 0.25), x, y) + Shear(*shear, x, y)
    scale, magnitude = rng.uniform(0.012, 0.022), rng.uniform(21.5, 22.5)
    at = dict(zip(("center_x", "center_y"), rng.uniform(-0.2, 0.2, 2), strict=True))
    vis = Instrument.named("euclid_vis")
    flux = {"VIS": vis.flux(magnitude), "RED": vis.flux(magnitude - 0.5)}
    red = galaxy**1.25
    shapes = {"VIS": galaxy / galaxy.sum(), "RED": red / red.sum()}
    return Truth(mass, {b: ImageSource.from_image(s * flux[b] / scale**2, scale, **at) for b, s in shapes.items()})


def instruments() -> dict[str, Instrument]:
    """Return one exposure of Euclid VIS, and a band with pixels and PSF twice as large."""
    vis = Instrument.named("euclid_vis")
    noise = vis.noise.model_copy(update={"num_exposures": 1})
    psf = vis.psf.model_copy(update={"fwhm": 2 * vis.psf.fwhm})
    red = {"pixel_scale": 2 * vis.pixel_scale, "psf": psf, "noise": noise}
    return {"VIS": vis.model_copy(update={"noise": noise}), "RED": vis.model_copy(update=red)}


def exposures(truth: Truth, rng: np.random.Generator) -> list[tuple[Exposure, Placement]]:
    """Return four exposures in VIS and one in the red band, and where each lies."""
    found = []
    for i, (band, dither) in enumerate([("VIS", d) for d in DITHER] + [("RED", (0.25, 0.25))]):
        instrument = instruments()[band]
        place = instrument.pixel_scale * np.array(dither) + POINTING * rng.standard_normal(2)
        angle = math.radians(ROTATION) * rng.standard_normal()
        placement = Placement(torch.tensor([[*place, angle, 0.0]], dtype=torch.float32))
        side = round(SIDE * instruments()["VIS"].pixel_scale / instrument.pixel_scale)
        empty = instrument.observation(torch.zeros(1, 1, side, side))
        fine = replace(empty, camera=replace(empty.camera, supersampling=8))
        clean = truth.seen(fine, placement, band)
        taken = empty.noise.sample(clean, torch.Generator().manual_seed(int(rng.integers(2**31))))
        found.append((Exposure(f"{band}{i}", band, instrument.observation(taken)), placement))
    return found


def judged(
    name: str, found: JointPrediction, truth: Truth, seen: list[tuple[Exposure, Placement]], seconds: float
) -> dict[str, Any]:
    """Return what a joint fit found of a lens, beside the truth."""
    rows = {row.name: row for row in found.table}
    by = {one.name: (one, placement) for one, placement in seen}
    first, origin = by[found.leaders["VIS"]]
    true = truth.seen(first.observation, origin, "VIS", 2)
    between = first.observation.interpolated(found.bands["VIS"].camera.grid)
    at = placements(found, by, by[found.first][1])
    theta_E, error = rows["theta_E"].value, rows["theta_E"].error
    return {
        "fit": name,
        "theta_E": theta_E,
        "error": error,
        "pull": (theta_E - truth.theta_E) / error,
        "psnr": float(psnr(*normalise_peak(found.bands["VIS"].image, true))),
        "interpolated": float(psnr(*normalise_peak(between, true))),
        "chi2": found.chi2,
        "quality": found.verdict.quality,
        "reasons": list(found.verdict.reasons),
        "first": found.first,
        "subhalos": int(found.bands["VIS"].numbers["subhalos"]),
        "correlation": found.correlation,
        "placement_pulls": at,
        "cpu_seconds": seconds,
    }


def placements(found: JointPrediction, by: dict[str, tuple[Exposure, Placement]], origin: Placement) -> list[float]:
    """Return (found - true) / error of x and y of each image on the sky of the first one."""
    pulls = []
    for row in found.table:
        name, _, number = row.name.rpartition(".")
        if name in by and number in ("x", "y"):
            true = by[name][1].about(origin).numbers[0, "xy".index(number)]
            pulls.append((row.value - float(true)) / row.error)
    return pulls


def fitted(seen: list[tuple[Exposure, Placement]]) -> tuple[JointPrediction, float]:
    """Return the joint fit of some images, and the CPU seconds that it took."""
    started = time.process_time()
    method = JointRefinedFit()
    found = method.prediction(method.fitted([one for one, _ in seen]), 2)
    return found, time.process_time() - started


def lens(number: int, galaxy: np.ndarray) -> list[dict[str, Any]]:
    """Return the rows of a lens: one exposure, four, and one with a second band."""
    rng = np.random.default_rng([17, number])
    truth = drawn(galaxy.astype(np.float64), rng)
    seen = exposures(truth, rng)
    rows = []
    for name, chosen in (("one exposure", seen[:1]), ("four exposures", seen[:4]), ("two bands", [seen[0], seen[4]])):
        found, seconds = fitted(chosen)
        rows.append({"lens": number, "true": truth.theta_E} | judged(name, found, truth, chosen, seconds))
        print(rows[-1], flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return what each kind of fit comes to, over all lenses."""
    head = (
        "| fit | lenses | PSNR, dB | error of theta_E | theta_E within 1 sigma | rms pull | place within 1 sigma "
        "| sub-halos (there are none) | chi^2 / dof | CPU s |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    lines = [head]
    for name in dict.fromkeys(row["fit"] for row in rows):
        mine = [row for row in rows if row["fit"] == name]
        pulls = np.array([row["pull"] for row in mine])
        places = np.abs([pull for row in mine for pull in row["placement_pulls"]])
        where = f"{np.sum(places < 1)} of {len(places)}" if len(places) else ""
        within = f"{np.sum(np.abs(pulls) < 1)} of {len(pulls)}"
        lines.append(
            f"| {name} | {len(mine)} | {np.mean([row['psnr'] for row in mine]):.1f} "
            f"| {1e3 * np.median([row['error'] for row in mine]):.2f} mas | {within} "
            f"| {np.sqrt(np.mean(pulls**2)):.2f} | {where} | {sum(row['subhalos'] for row in mine)} "
            f"| {np.median([row['chi2'] for row in mine]):.2f} "
            f"| {np.median([row['cpu_seconds'] for row in mine]):.0f} |"
        )
    plain = np.mean([row["interpolated"] for row in rows if row["fit"] == "one exposure"])
    return "\n".join([*lines, "", f"Bicubic interpolation of one exposure: {plain:.1f} dB."])


def main() -> None:
    """Fit each lens that has no rows yet, then write all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("galaxies", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).parent)
    parser.add_argument("--lenses", type=int, default=8)
    arguments = parser.parse_args()
    galaxies = np.load(arguments.galaxies)["images"]
    place = arguments.out / "simulated.json"
    rows = json.loads(place.read_text())["rows"] if place.exists() else []
    for number in range(arguments.lenses):
        if number not in {row["lens"] for row in rows}:
            rows += lens(number, galaxies[number % len(galaxies)])
            write_json(place, {"provenance": provenance(lenses=arguments.lenses), "rows": rows})


if __name__ == "__main__":
    main()
