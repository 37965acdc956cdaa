"""Beside the supervised networks of `zoo.yaml` ours on the same lenses, from LR images alone: one table.

    python experiments/any_source/zoo.py FOLDER/rows -o experiments/any_source/zoo.json

FOLDER: of `lensphys compare zoo.yaml`, trained on a GPU, judged on a CPU. Ours is "Euclid VIS, real galaxies" of
`table.json`, whose images are the same ones: as many of each class as the networks were judged on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import yaml

from lensphys.basics.outputs import write_json
from lensphys.basics.provenance import provenance

_HERE, _OURS = Path(__file__).parent, "Euclid VIS, real galaxies"


def main() -> None:
    """Read, join, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    settings = yaml.safe_load((_HERE / "zoo.yaml").read_text())
    rows = []
    for path in sorted(arguments.rows.glob("*.json")):
        tree = json.loads(path.read_text())
        psnr = {name: tree["results"][name]["psnr_flux"]["mean"] for name in ("no_sub", "axion", "cdm")}
        rows.append({"method": path.stem, "parameters": tree.get("parameters"), "psnr": psnr})
    (table,) = (s for s in json.loads((_HERE / "table.json").read_text())["sets"] if s["name"] == _OURS)
    ours = {}
    for name in ("no_sub", "axion", "cdm"):
        mine = sorted((r for r in table["rows"] if r["class"] == name), key=lambda r: r["row"])
        ours[name] = float(np.mean([r["psnr"] for r in mine[: settings["limit"]]]))
    rows.append({"method": "ours, LR images alone", "parameters": None, "psnr": ours})
    rows.sort(key=lambda row: np.mean(list(row["psnr"].values())))
    origin = provenance(protocol=settings["protocol"], minutes=settings["minutes"], limit=settings["limit"])
    write_json(arguments.out, {"provenance": origin, "rows": rows})
    for row in rows:
        print(f"{row['method']:24s}", *(f"{name} {value:.2f}" for name, value in row["psnr"].items()))


if __name__ == "__main__":
    main()
