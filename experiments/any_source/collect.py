"""Join the tables of `judge.py` into the one that README and docs show; sets of OUT not named here stay as they are.

    python experiments/any_source/collect.py "Euclid VIS, real galaxies=euclid.json,more.json" NAME=FILE,... -o OUT

Data sets of the committed table, with so many images of a class as it says:

    lensphys simulate model_4 -n 24 -o spirals.h5 --seed 7
    lensphys simulate model_4 -n 24 -o euclid.h5 --seed 100 --set source.file=g.npy
        --set "source.pixel_scale={kind: uniform, low: 0.010, high: 0.022}"
    lensphys simulate model_4 -n 24 -o hst.h5 --seed 101 --set instrument=hst_acs_f814w --set height=128 --set width=128
        --set source.file=g.npy --set "source.pixel_scale={kind: uniform, low: 0.010, high: 0.022}"

    lensphys simulate model_3 -n 12 -o model_3.h5 --seed 1000     (and model_1, model_2)

Of hst.h5 all smooth lenses were judged, and twelve of each other class. More smooth lenses, which nobody had looked at
while the default was made: euclid.h5 with `-n 48 --classes no_sub --seed 200`, hst.h5 with `-n 24 --classes no_sub
--seed 201`; and with `source.pixel_scale` of 0.022 to 0.045 (`-n 24 --classes no_sub --seed 202`) and of 0.004 to 0.010
(`--seed 203`) large and compact galaxies.

With the lens galaxy in the image, Sersic sources, NFW sub-halos: `lensphys simulate roman -n 4 -o roman.h5 --seed 501`.

PSFs that are wrong by a tenth: `judge.py euclid.h5 --psf-width 1.1`, of 12 smooth lenses.

g.npy: images of 22 real galaxies (HST, JWST, ground), which are not ours to give.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from judge import table

from lensphys.basics.outputs import write_json
from lensphys.basics.provenance import provenance

_LONG = ("subhalos_true", "claims")  # of a row: counted in the table


def main() -> None:
    """Read, join, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", help="NAME=FILE,FILE,...")
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    sets = []
    for entry in arguments.sets:
        name, files = entry.split("=")
        trees = [json.loads(Path(file).read_text()) for file in files.split(",")]
        rows = sorted((row for tree in trees for row in tree["rows"]), key=lambda row: row["row"])
        origins = [tree["provenance"] for tree in trees]
        told = [{key: value for key, value in row.items() if key not in _LONG} for row in rows]
        sets.append({"name": name, "table": table(rows), "rows": told, "made": origins})
    before = json.loads(arguments.out.read_text())["sets"] if arguments.out.exists() else []
    named = {entry["name"]: entry for entry in before} | {entry["name"]: entry for entry in sets}  # in their places
    write_json(arguments.out, {"provenance": provenance(), "sets": list(named.values())})


if __name__ == "__main__":
    main()
