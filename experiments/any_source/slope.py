"""How well are slope, magnification and flux known, when the mass is no isothermal and the source is no Sersic?

    python experiments/any_source/slope.py -o experiments/any_source/slope.json [--lenses 24] [--workers 2]

A power law with shear, whose slope scatters as those of SLACS do (2.08 +- 0.16), and behind it an exponential disc with
four knots, as Euclid VIS sees them. Each is fitted three times: by the default, whose lens is isothermal unless the
evidence wants more, by one that is told to free the slope, and by that with a frame of the source that moves and grows
with it. There is no substructure. A killed run goes on.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lensphys as lp
from lensphys.basics.provenance import provenance
from lensphys.methods import RefinedFit
from lensphys.model import LightSum, MassSum
from lensphys.observation import Observation

sys.path.append(str(Path(__file__).parents[1]))
from resumed import KeptRows

SEED, SIDE = 700, 64
FREE = {"model": {"lens": {"kind": "epl"}}}
MODELS: dict[str, dict[str, Any]] = {
    "default": {},
    "free slope": FREE,
    "free slope, moving frame": FREE | {"stages": {"beyond": {"source": {"frame": "moving"}}}},
}
ASKED = ("theta_E", "slope", "magnification", "source_flux")


def lens_and_source(seed: int) -> tuple[MassSum, LightSum, float]:
    """Return the mass, the source and the slope of a lens."""
    rng = np.random.default_rng(seed)
    slope = float(np.clip(rng.normal(2.08, 0.16), 1.7, 2.4))
    (e1, e2), (gamma1, gamma2) = rng.normal(0, 0.1, 2), rng.normal(0, 0.03, 2)
    x, y = rng.normal(0, 0.1, 2)
    lens = lp.EPL(theta_E=rng.uniform(0.8, 1.3), gamma=slope, e1=e1, e2=e2) + lp.Shear(gamma1=gamma1, gamma2=gamma2)
    parts = [lp.Sersic(amp=rng.uniform(5, 10), R_sersic=0.25, n_sersic=1.0, center_x=x, center_y=y)]
    for at_x, at_y in rng.normal((x, y), 0.15, (4, 2)):
        knot = {"amp": rng.uniform(10, 30), "R_sersic": rng.uniform(0.03, 0.06), "n_sersic": 1.0}
        parts.append(lp.Sersic(**knot, center_x=at_x, center_y=at_y))
    return lens, LightSum(parts), slope


def truth(lens: MassSum, source: LightSum, slope: float) -> dict[str, float]:
    """Return what is asked of a fit; fluxes in points that are a tenth of a pixel apart."""

    def points(half: float) -> torch.Tensor:
        line = torch.arange(-half + 0.0025, half, 0.005, dtype=torch.float64)
        y, x = torch.meshgrid(line, line, indexing="ij")
        return torch.stack([x, y])[None]

    own = float(source(points(2.5)).sum()) * 0.005**2
    theta = points(3.2)
    seen = float(source(theta - lens(theta)).sum()) * 0.005**2
    theta_E = float(lens.profiles[0].theta_E)
    return {"theta_E": theta_E, "slope": slope, "magnification": seen / own, "source_flux": own}


def observed(seed: int, lens: MassSum, source: LightSum) -> Observation:
    """Return the image of a lens."""
    return lp.observe(lens, source, "euclid_vis", height=SIDE, width=SIDE, seed=seed).set.observation


def fitted(seed: int) -> dict[str, Any]:
    """Return the truth of a lens, and what each model says of it."""
    torch.set_num_threads(1)
    lens, source, slope = lens_and_source(seed)
    observation, row = observed(seed, lens, source), {"seed": seed, "truth": truth(lens, source, slope)}
    for name, model in MODELS.items():
        started = time.process_time()
        found = RefinedFit.parse(model, name).predict(observation, 2)
        keys = {key: {"slope": "lens.gamma"}.get(key, key) for key in ASKED}
        row[name] = {
            **{key: [float(of[n]) for of in (found.parameters, found.errors)] if n in found.errors else None
               for key, n in keys.items()},
            "chi2": float(found.reduced_chi2(observation)),
            "evidence": float(found.numbers["evidence"]),
            "subhalos": int(found.numbers["subhalos"]),
            "quality": found.verdicts[0].quality,
            "seconds": time.process_time() - started,
        }  # fmt: skip
    return row


def table(rows: list[dict[str, Any]], model: str) -> dict[str, Any]:
    """Return how far a model is off in the median, in shares of the truth, and how often within its error."""
    found: dict[str, Any] = {"lenses": len(rows), "good": sum(row[model]["quality"] == "good" for row in rows)}
    for key in ASKED:
        known = [(row[model][key], row["truth"][key]) for row in rows if row[model][key] is not None]
        off = np.array([abs(value / true - 1) for (value, _), true in known])
        within = [abs(value - true) < error for (value, error), true in known]
        found[key] = {"of": len(known), "within_error": int(sum(within))}
        if known:
            found[key] |= {"off_median": float(np.median(off)), "off_largest": float(off.max())}
    return found


def main() -> None:
    """Fit all and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--lenses", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    rows = KeptRows(arguments.out)
    for row in rows.made(fitted, "seed", range(SEED, SEED + arguments.lenses), arguments.workers):
        print(row["seed"], row["truth"], *(f"{name}: {row[name]}" for name in MODELS), sep="\n  ", flush=True)
    found = {name: table(rows.in_order, name) for name in MODELS}
    rows.finish({"provenance": provenance(), "table": found, "rows": rows.in_order})


if __name__ == "__main__":
    main()
