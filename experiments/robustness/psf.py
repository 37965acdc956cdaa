"""What a fit says of a PSF that is right, too narrow or too wide: what other moments promise, and the width it finds.

    python experiments/robustness/psf.py DATA.h5 ... -o experiments/robustness/psf.json [--widths 0.9,1,1.1] [-n 6]

The first n lenses without substructure of each data set (`experiments/any_source/collect.py`), fitted by the default.
A killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lensphys.basics.provenance import provenance
from lensphys.data.lens_file import LensFile
from lensphys.fitting import Stop, verdicts
from lensphys.fitting.psf_moments import optimum, promised
from lensphys.fitting.verdict import PSFCheck
from lensphys.methods import READY

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "any_source")]
from judge import with_wrong_psf
from resumed import KeptRows


def asked(path: Path, row: int, width: float) -> dict[str, Any]:
    """Return what the fit of one image says of its PSF."""
    with LensFile(path) as lenses:
        seen = lenses.observation([row])
    if width != 1:
        seen = with_wrong_psf(seen, width)
    check = PSFCheck()
    with torch.no_grad():
        (fit,) = READY["refine"].fits(seen)  # type: ignore[attr-defined]
        ((rows, found),) = fit.groups
        (verdict,) = verdicts(found, fit.seen[rows], fit.smooth_theta_E[rows], rival=fit.rival.rows(rows))
        off = check.moments.integrated(found)
        return {
            "data": path.name,
            "row": row,
            "width": width,
            "free_source": found.problem.free is not None,
            "promised": float(promised(found, off)),
            "wider": float(check.moments.wider(optimum(off, Stop(check.steps, fall=check.fall)))),
            "told": any(why.startswith("a PSF about") for why in verdict.reasons),
        }


def main() -> None:
    """Ask and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--widths", default="1", help="of the PSF that the fit is given, over the true")
    parser.add_argument("-n", type=int, default=6, help="lenses of each data set")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = KeptRows(arguments.out)
    for path in arguments.data:
        with LensFile(path) as lenses:
            rows = np.flatnonzero(lenses.labels == lenses.classes.index("no_sub"))[: arguments.n].tolist()
        for width in map(float, arguments.widths.split(",")):
            for row in rows:
                name = f"{path.name} {row} {width:g}"
                if name not in found:
                    found[name] = asked(path, row, width)
                    print(found[name], flush=True)
    every = [found[name] for name in sorted(found)]
    table = {}
    for width in sorted({row["width"] for row in every}):
        mine = [row for row in every if row["width"] == width]
        table[f"{width:g}"] = {
            "lenses": len(mine),
            "told": sum(row["told"] for row in mine),
            "promised_most": max(row["promised"] for row in mine),
            "wider_median": float(np.median([row["wider"] for row in mine])),
        }
    found.finish({"provenance": provenance(widths=arguments.widths, n=arguments.n), "table": table, "rows": every})
    print(table)


if __name__ == "__main__":
    main()
