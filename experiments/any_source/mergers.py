"""Mergers behind smooth lenses, the hardest sources for a fit that begins with a Sersic: how often is the lens missed?

    python experiments/any_source/mergers.py -o experiments/any_source/mergers.json [--lenses 40] [--workers 2]

Three to five galaxies (n = 1, radii of 0.06 to 0.14 arcsec) within half an arcsecond, behind an SIE with shear, as
Euclid VIS sees them: 64 x 64 pixels. Each is fitted by the default. There is no substructure. A killed run goes on.
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
from lensphys.methods import READY
from lensphys.model import LightSum
from lensphys.observation import Observation

sys.path.append(str(Path(__file__).parents[1]))
from resumed import KeptRows

SEED, SIDE = 100, 64


def merger(seed: int) -> tuple[float, Observation]:
    """Return the Einstein radius [arcsec] of a lens, and its image."""
    rng = np.random.default_rng(seed)
    theta_E, (e1, e2), (gamma1, gamma2) = rng.uniform(0.7, 1.4), rng.normal(0, 0.1, 2), rng.normal(0, 0.03, 2)
    count, middle = rng.integers(3, 6), rng.normal(0, 0.15, 2)
    parts = []
    for _ in range(count):
        amp, radius, (x, y) = rng.uniform(4, 22), rng.uniform(0.06, 0.14), middle + rng.normal(0, 0.28, 2)
        parts.append(lp.Sersic(amp=amp, R_sersic=radius, n_sersic=1.0, center_x=x, center_y=y))
    lens = lp.SIE(theta_E=theta_E, e1=e1, e2=e2) + lp.Shear(gamma1=gamma1, gamma2=gamma2)
    seen = lp.observe(lens, LightSum(parts), "euclid_vis", height=SIDE, width=SIDE, seed=seed)
    return float(theta_E), seen.set.observation


def fitted(seed: int) -> dict[str, Any]:
    """Return what the default makes of a merger."""
    torch.set_num_threads(1)
    theta_E, observation = merger(seed)
    started = time.process_time()
    found = READY["refine"].predict(observation, 2)
    return {
        "seed": seed,
        "theta_E_true": theta_E,
        "theta_E": float(found.parameters["theta_E"]),
        "chi2": float(found.reduced_chi2(observation)),
        "subhalos": int(found.numbers["subhalos"]),
        "quality": found.verdicts[0].quality,
        "reasons": list(found.verdicts[0].reasons),
        "seconds": time.process_time() - started,
    }


def table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the numbers of the table."""
    off = np.array([abs(row["theta_E"] / row["theta_E_true"] - 1) for row in rows])
    quality = np.array([row["quality"] for row in rows])
    return {
        "lenses": len(rows),
        "theta_E_median": float(np.median(off)),
        "over_5_percent": int((off > 0.05).sum()),
        "over_5_percent_and_good": int(((off > 0.05) & (quality == "good")).sum()),
        "with_subhalos": sum(row["subhalos"] > 0 for row in rows),
        "with_subhalos_and_good": sum(row["subhalos"] > 0 and row["quality"] == "good" for row in rows),
        "quality": {q: int((quality == q).sum()) for q in ("good", "suspect", "bad")},
        "seconds_median": float(np.median([row["seconds"] for row in rows])),
    }


def main() -> None:
    """Fit all and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--lenses", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    rows = KeptRows(arguments.out)
    for row in rows.made(fitted, "seed", range(SEED, SEED + arguments.lenses), arguments.workers):
        off = 100 * (row["theta_E"] / row["theta_E_true"] - 1)
        print(f"{row['seed']}: theta_E {off:+.2f} %, chi^2 {row['chi2']:.2f}, {row['subhalos']} sub-halos, "
              f"{row['quality']}, {row['seconds']:.0f} s", flush=True)  # fmt: skip
    found = table(rows.in_order)
    rows.finish({"provenance": provenance(), "table": found, "rows": rows.in_order})
    print(found)


if __name__ == "__main__":
    main()
