"""The free source beside the textbook's: a Sersic times the exponential of a Gaussian field, and a Sersic plus one.

    python experiments/any_source/linear_field.py DATA.h5 ... -o experiments/any_source/linear_field.json

Same solver, frames, modes, evidence and verdict; each field has the prior that the image finds likeliest, of amplitudes
and scales that suit it. The linear field is that of Suyu et al. 2006 (MNRAS 371, 983) and Vegetti & Koopmans 2009
(MNRAS 392, 945), in cosines rather than in pixels, about a Sersic rather than about zero. The data sets are those of
`collect.py`. A killed run goes on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from judge import judged, table
from torch import Tensor

from lensphys.basics.provenance import provenance
from lensphys.data.lens_file import LensFile
from lensphys.fitting import FreeSourceSettings
from lensphys.fitting.beyond_smooth import BeyondSmooth
from lensphys.fitting.stages import Refinement
from lensphys.methods import Method
from lensphys.methods.fit import RefinedFit
from lensphys.model import Envelope, SourcePrior

sys.path.append(str(Path(__file__).parents[1]))
from resumed import KeptRows

_AMPLITUDES, _SCALES = (0.03, 0.1, 0.3, 1.0, 3.0), (6.0, 12.0, 24.0)  # [brightness at 0.3 R_sersic], [rad / arcsec]


class Added(Envelope):
    """A field that is added to the Sersic, in units of its brightness at 0.3 R_sersic: neither bounded nor positive."""

    def light(self, profile: Tensor, unit: Tensor, field: Tensor) -> Tensor:
        """Return the brightness."""
        return profile + unit * field

    def by_profile(self, profile: Tensor, unit: Tensor, field: Tensor) -> Tensor:
        """Return its derivative by that of the Sersic."""
        return (profile == profile).to(profile)

    def by_field(self, profile: Tensor, unit: Tensor, field: Tensor) -> Tensor:
        """Return its derivative by the field."""
        return unit.expand_as(field)


def methods() -> dict[str, Method]:
    """Return the default, and the same with the linear field."""
    priors = tuple(SourcePrior(amplitude=a, scale=k) for a in _AMPLITUDES for k in _SCALES)
    source = FreeSourceSettings(envelope=Added(), priors=priors)
    beyond = BeyondSmooth(source=source)
    return {"exponential": RefinedFit(), "linear": RefinedFit(stages=Refinement(beyond=beyond))}


def chosen(path: Path, per_class: int, classes: list[str]) -> list[int]:
    """Return the first rows of each class."""
    with LensFile(path) as lenses:
        labels = [lenses.classes[i] for i in lenses.labels]
    return [i for name in classes for i in [i for i, label in enumerate(labels) if label == name][:per_class]]


def main() -> None:
    """Judge both on each data set, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--per-class", type=int, default=24)
    parser.add_argument("--classes", nargs="+", default=["no_sub"])
    arguments = parser.parse_args()
    found, sets = KeptRows(arguments.out), []
    for path in arguments.data:
        rows = chosen(path, arguments.per_class, arguments.classes)
        for name, method in methods().items():
            keys = [f"{path.stem} {name} {row}" for row in rows]
            for key, row in zip(keys, rows, strict=True):
                if key not in found:
                    found[key] = judged(path, row, method)
                    print(key, f"{found[key]['psnr']:.2f} dB", found[key]["quality"], flush=True)
            mine = [found[key] for key in keys]
            sets.append({"data": path.stem, "field": name, "table": table(mine), "rows": mine})
    found.finish({"provenance": provenance(), "sets": sets})


if __name__ == "__main__":
    main()
