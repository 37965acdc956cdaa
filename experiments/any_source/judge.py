"""Judge the default on simulated lenses whose sources are no Sersics: PSNR, theta_E, sub-halos, coverage, verdicts.

    python experiments/any_source/judge.py DATA.h5 -o OUT.json [--method refine] [--workers 2]

Each image on its own, as `lensphys super-resolve` does it, from its LR image alone; the truth only judges. A killed run
goes on where it was: rows stand in OUT.rows.jsonl until all are there.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lensphys.basics.checks import LensphysError
from lensphys.basics.provenance import provenance
from lensphys.data.lens_file import LensFile
from lensphys.evaluation.metrics import normalise_peak, psnr
from lensphys.methods import READY, Method
from lensphys.model.by_name import deflection_of
from lensphys.observation import GaussianPSF, Observation
from lensphys.simulation.cosmology import einstein_radius_of_solar_mass
from lensphys.tracing.einstein import einstein_radius

sys.path.append(str(Path(__file__).parents[1]))
from resumed import KeptRows

ARC = 0.05  # of the peak of the true image: where coverage is counted; outside of it where there is light at all,
FAINT = 1e-5  # of the peak: beyond the edge of a drawn galaxy there is none, and no fit is wrong
NEAR = 0.3  # arcsec: a claimed sub-halo is real if a true one is as near; one further off the arc cannot be seen
MASSES = (0.0, 8.5, 9.0, 9.5, 10.0, 11.0)  # log10 of solar masses
BRIGHT = 60.0  # signal-to-noise of the brightest pixel: half of the lenses are above it


def radius_of_all(masses: list[tuple[str, dict[str, Any]]], largest: float) -> float:
    """Return the radius about the main lens within which the mean kappa of all masses is 1, up to so much [arcsec]."""
    main = masses[0][1]
    centre = torch.tensor([[main.get("center_x", 0.0), main.get("center_y", 0.0)]], dtype=torch.float64)

    def alpha(theta: torch.Tensor) -> torch.Tensor:
        points = theta.flatten(2)[:, :, None]
        return deflection_of([masses], points, compiled=False)[:, :, 0].unflatten(-1, theta.shape[-2:])

    return float(einstein_radius(alpha, centre, largest))


def with_wrong_psf(observation: Observation, factor: float) -> Observation:
    """Return the observation as a user has it whose PSF is so many times as wide as the truth."""
    psf = observation.camera.psf
    if not isinstance(psf, GaussianPSF):
        raise LensphysError(f"--psf-width is for Gaussian PSFs, and this is a {type(psf).__name__}")
    return replace(observation, camera=replace(observation.camera, psf=replace(psf, fwhm=factor * psf.fwhm)))


def judged(path: Path, row: int, method: Method, psf_width: float = 1.0) -> dict[str, Any]:
    """Return what one image's super-resolution is worth, and the seconds of one core that it took."""
    torch.set_num_threads(1)
    with LensFile(path) as lenses:
        observation = lenses.observation([row])
        if psf_width != 1:
            observation = with_wrong_psf(observation, psf_width)
        truth = torch.as_tensor(lenses.read("hr_clean", [row]) * lenses.read("flux_scale", row)[0])
        model, label = lenses.lens_model(row), lenses.classes[int(lenses.read("label", row)[0])]
        fine, solar = lenses.grid_hr, einstein_radius_of_solar_mass(*lenses.redshifts, "angular_diameter")
    started = time.process_time()
    found = method.predict(observation, 2)
    seconds = time.process_time() - started
    bicubic = READY["bicubic"].predict(observation, 2)
    masses = list(zip(model["lens_model_list"], model["kwargs_lens"], strict=True))
    points = np.array([[k["center_x"], k["center_y"], k["theta_E"]] for name, k in masses if name == "POINT_MASS"])
    points = points.reshape(-1, 3)
    lit = fine.positions(like=truth)[0][:, truth[0, 0] > ARC * truth.max()].T.numpy()
    report: dict[str, Any] = {"row": row, "class": label, "seconds": seconds}
    images = {"psnr": found.image, "bicubic": bicubic.image}
    report |= {name: float(psnr(*normalise_peak(image, truth))) for name, image in images.items()}
    report["signal_to_noise"] = float(observation.peak / observation.noise.variance(observation.smoothed).sqrt().amax())
    report["chi2"] = float(found.reduced_chi2(observation))
    if "theta_E" in found.parameters:
        known = masses[0][1]["theta_E"]
        report |= {"theta_E": float(found.parameters["theta_E"]), "theta_E_true": known}
    if "theta_E_total" in found.parameters:
        report["theta_E_total"] = float(found.parameters["theta_E_total"])
        report["theta_E_total_true"] = radius_of_all(masses, observation.camera.grid.radius)
    if found.sigma is not None:
        arc = truth > ARC * truth.max()
        covered = (found.image - truth).abs() < found.sigma
        report["coverage"] = float(covered[arc].float().mean())
        report["coverage_outside"] = float(covered[~arc & (truth > FAINT * truth.max())].float().mean())
    if found.bodies is not None:
        report["claims"] = found.bodies[0].tolist()
        away = [float(np.hypot(*(lit - point[:2]).T).min()) for point in points]
        masses_true = np.log10(np.maximum(points[:, 2] / solar, 1e-9) ** 2)
        report["subhalos_true"] = np.column_stack([points, masses_true, away]).tolist() if len(points) else []
    if found.verdicts:
        report |= {"quality": found.verdicts[0].quality, "reasons": list(found.verdicts[0].reasons)}
    return report


def table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of each class."""
    found = {}
    for name in dict.fromkeys(r["class"] for r in rows):
        mine = [r for r in rows if r["class"] == name]
        gains = np.array([r["psnr"] - r["bicubic"] for r in mine])
        entry: dict[str, Any] = {"images": len(mine), "psnr": float(np.mean([r["psnr"] for r in mine]))}
        entry |= {"bicubic": float(np.mean([r["bicubic"] for r in mine])), "gain": float(gains.mean())}
        entry |= {"gain_worst": float(gains.min()), "chi2": float(np.mean([r["chi2"] for r in mine]))}
        entry["seconds_median"] = float(np.median([r["seconds"] for r in mine]))
        for radius in ("theta_E", "theta_E_total"):
            if radius in mine[0]:
                error = np.array([abs(r[radius] / r[f"{radius}_true"] - 1) for r in mine])
                entry |= {f"{radius}_median": float(np.median(error)), f"{radius}_worst": float(error.max())}
                entry[f"{radius}_over_5_percent"] = int((error > 0.05).sum())
        if "coverage" in mine[0]:
            entry["coverage"] = float(np.mean([r["coverage"] for r in mine]))
        if "coverage_outside" in mine[0]:
            entry["coverage_outside"] = float(np.mean([r["coverage_outside"] for r in mine]))
        if "claims" in mine[0]:
            entry |= substructure(mine)
        if "quality" in mine[0]:
            entry["quality"] = {q: sum(r["quality"] == q for r in mine) for q in ("good", "suspect", "bad")}
        found[name] = entry
    return found


def substructure(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many sub-halos are claimed, and how many of the claims are real."""
    claims = [r["claims"] for r in rows]
    real = total = 0
    for r in rows:
        for x, y, *_ in r["claims"]:
            total += 1
            real += any(math.hypot(t[0] - x, t[1] - y) < NEAR for t in r["subhalos_true"])
    found = {f"{low:g} to {high:g}": completeness(rows, low, high) for low, high in pairwise(MASSES)}
    return {
        "completeness": {name: entry for name, entry in found.items() if entry["of"]},
        "lenses_with_claims": sum(len(c) > 0 for c in claims),
        "claims": total,
        "purity": real / total if total else math.nan,
    }


def completeness(rows: list[dict[str, Any]], low: float, high: float) -> dict[str, Any]:
    """Return how many sub-halos of a range of log10 mass, near the arc, are found; all, and at high signal-to-noise."""
    found: list[bool] = []
    bright: list[bool] = []
    for r in rows:
        for x, y, _, mass, away in r["subhalos_true"]:
            if low <= mass < high and away < NEAR:
                found.append(any(math.hypot(c[0] - x, c[1] - y) < NEAR for c in r["claims"]))
                bright += found[-1:] if r["signal_to_noise"] > BRIGHT else []
    shares = (float(np.mean(some)) if some else math.nan for some in (found, bright))
    return dict(zip(("found", "found_bright", "of", "of_bright"), (*shares, len(found), len(bright)), strict=True))


def main() -> None:
    """Judge all images of a file and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--method", default="refine")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--psf-width", type=float, default=1.0, help="of the PSF that the fit is given, over the true")
    parser.add_argument("--rows", help="only these, as 0,3,6")
    arguments = parser.parse_args()
    with LensFile(arguments.data) as lenses:
        wanted = range(len(lenses.labels)) if arguments.rows is None else map(int, arguments.rows.split(","))
        identity, recipe = lenses.identity, str(arguments.data.name)
    found = KeptRows(arguments.out)
    job = partial(judged, arguments.data, method=READY[arguments.method], psf_width=arguments.psf_width)
    for report in found.made(job, "row", sorted(set(wanted)), arguments.workers):
        claims = len(report.get("claims", []))
        print(f"{report['row']:4d} {report['class']:7s} {report['bicubic']:6.2f} -> {report['psnr']:6.2f} dB, "
              f"theta_E {100 * (report.get('theta_E', math.nan) / report.get('theta_E_true', 1) - 1):+.2f} %, "
              f"{claims} sub-halos, {report.get('quality')}, {report['seconds']:.1f} s", flush=True)  # fmt: skip
    rows = found.in_order
    origin = provenance(data=recipe, identity=identity, method=arguments.method, psf_width=arguments.psf_width)
    found.finish({"provenance": origin, "table": table(rows), "rows": rows})
    for name, entry in table(rows).items():
        print(name, json.dumps(entry))


if __name__ == "__main__":
    main()
