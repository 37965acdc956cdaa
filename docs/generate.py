"""Write all tables of README and docs from the committed results, and what ``lensphys list`` says from the registries.

    python docs/generate.py

A table stands between ``<!-- table:NAME -->`` and ``<!-- /table -->``. Where its results are missing it is left empty.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from result_tables import (
    MODELS,
    any_source_table,
    comparison_tables,
    downstream_tables,
    ground_table,
    model_table,
    network_table,
    simulation_table,
    speed_table,
    studies_tables,
)
from summary_tables import (
    completeness_table,
    drawn_with_light,
    fits_table,
    fuzz_table,
    gain_caption,
    gpu_table,
    injected_table,
    linear_field_table,
    memory_table,
    mergers_table,
    multipoles_table,
    overfit_table,
    pair_sentence,
    real_lenses,
    short_table,
    slope_table,
    survey_cost_table,
    zoo_table,
)

from lensphys.basics.outputs import whole_file
from lensphys.cli.listing import LISTS, lists
from lensphys.evaluation.tables import lenses_table, replace_between_markers

ROOT = Path(__file__).parents[1]
CASES = "docs/cases.md"

# where a table stands, by page
PAGES: dict[str, tuple[str, ...]] = {
    "README.md": ("gain", "short", "real_lenses"),
    "docs/index.md": ("gain",),
    "docs/results/simulated.md": ("simulated", "studies"),
    "docs/results/galaxies.md": (
        "any_source",
        "linear_field",
        "zoo",
        "mergers",
        "slope",
        "completeness",
        "injected",
        "network",
    ),
    "docs/results/real.md": (
        "real",
        "multipoles",
        "lens_light",
        "lens_light_drawn",
        "telescopes",
        "joint_simulated",
        "joint_real",
        "ground",
        "pair",
    ),
    "docs/results/speed.md": ("speed", "fits", "gpu", "simulation"),
    "docs/results/comparisons.md": ("comparisons", "overfit"),
    "docs/results/dark_matter.md": ("downstream",),
    "docs/where_it_fails.md": ("doors", "fuzz"),
    "docs/files.md": ("memory",),
    "docs/survey.md": ("survey_cost",),
}


def lens_light_table(tree: dict[str, Any]) -> str:
    """Return the table of lenses with their galaxies."""
    return str(_script(ROOT / "experiments/real/lens_light/lens_light.py").table(tree["rows"]))


# what a table is made from, below experiments/, and by what
_TABLES: dict[str, tuple[tuple[str, ...], Callable[..., str]]] = {
    "gain": (("any_source/gain.json",), gain_caption),
    "short": (("any_source/table.json",), short_table),
    "any_source": (("any_source/table.json",), any_source_table),
    "zoo": (("any_source/zoo.json",), zoo_table),
    "injected": (("any_source/injected.json",), injected_table),
    "mergers": (("any_source/mergers.json",), mergers_table),
    "slope": (("any_source/slope.json",), slope_table),
    "linear_field": (("any_source/linear_field.json",), linear_field_table),
    "network": (("network/table.json",), network_table),
    "fits": (("speed/fits.json",), fits_table),
    "gpu": (("gpu/speed.json",), gpu_table),
    "lens_light": (("real/lens_light/table.json",), lens_light_table),
    "lens_light_drawn": (
        tuple(
            f"real/lens_light/simulated/{telescope}/table.json" for telescope in ("hst", "hst_more", "euclid", "hsc")
        ),
        drawn_with_light,
    ),
    "telescopes": (
        ("real/telescopes/table.json",),
        lambda tree: _script(ROOT / "experiments/real/telescopes/telescopes.py").table(tree["rows"]),
    ),
    "joint_simulated": (
        ("real/joint/simulated.json",),
        lambda tree: _script(ROOT / "experiments/real/joint/simulated.py").table(tree["rows"]),
    ),
    "joint_real": (
        ("real/joint/real.json",),
        lambda tree: _script(ROOT / "experiments/real/joint/real.py").table(tree["lenses"]),
    ),
    "completeness": (("any_source/table.json",), completeness_table),
    "real": (("real/slacs/table.json",), lambda tree: lenses_table(tree["rows"])),
    "real_lenses": (
        ("real/slacs/table.json", "real/lens_light/table.json", "real/telescopes/table.json"),
        real_lenses,
    ),
    "multipoles": (("real/slacs/table.json", "real/slacs/multipoles/table.json"), multipoles_table),
    "ground": (("real/ground/table.json",), lambda tree: ground_table(tree["arcs"])),
    "pair": (("real/pair/table.json",), pair_sentence),
    "studies": (("amortised/studies.json",), studies_tables),
    "speed": (("speed/speed.json",), speed_table),
    "survey_cost": (("survey/cost.json", "any_source/table.json"), survey_cost_table),
    "simulation": (("speed/simulation.json",), simulation_table),
    "overfit": (("comparisons/overfit.json",), overfit_table),
    "doors": (("robustness/doors.json",), fuzz_table),
    "fuzz": (("robustness/fuzz.json",), fuzz_table),
    "memory": (("robustness/memory.json", "robustness/memory_before.json"), memory_table),
}


def table(root: Path, name: str) -> str:
    """Return one table of a checkout; without its results, nothing.

    Raises:
        LensphysError: if a file is not the result of an evaluation.
    """
    experiments = root / "experiments"
    if name == "simulated":
        return "\n".join(f"**{model}**\n\n{model_table(experiments, model)}" for model in MODELS)
    if name == "comparisons":
        return comparison_tables(experiments / "comparisons")
    if name == "downstream":
        return downstream_tables(experiments / "downstream")
    paths, made = _TABLES[name]
    files = [experiments / path for path in paths]
    return made(*(json.loads(file.read_text()) for file in files)) if all(file.is_file() for file in files) else ""


def generated(root: Path, pages: Mapping[str, tuple[str, ...]] = PAGES) -> dict[str, str]:
    """Return the text of each page of a checkout with its tables made anew, by its path.

    Raises:
        LensphysError: if a marker is missing, or a file is not the result of an evaluation.
    """
    texts = {}
    for path, names in pages.items():
        texts[path] = (root / path).read_text()
        for name in names:
            texts[path] = replace_between_markers(texts[path], name, table(root, name))
    results = root / "experiments/robustness"
    if (results / "cases.json").is_file():
        texts[CASES] = _script(ROOT / "experiments/robustness/cases.py").page(results)
    return texts


def _script(path: Path) -> ModuleType:
    """Return a script as a module."""
    spec: Any = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look for it there
    spec.loader.exec_module(module)
    return module


def main(root: Path = ROOT) -> None:
    """Write all pages of a checkout."""
    for path, text in generated(root).items():
        with whole_file(root / path) as temporary:
            temporary.write_text(text)
    with whole_file(LISTS) as temporary:
        temporary.write_text(json.dumps(lists(), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
