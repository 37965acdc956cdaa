"""Shards: what a simulation has finished so far, in a folder beside its file."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensphys.checks import LensphysError
from lensphys.data.lens_file import FORMAT_VERSION
from lensphys.observation import Instrument
from lensphys.provenance import versions, whole_file, write_json
from lensphys.simulation.lenstronomy_engine import LenstronomyEngine
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.sample import Sample, draw_sample, sample_seed

SHARD = 32  # samples
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Plan:
    """All that defines the bytes of a data set.

    Args:
        recipe: the recipe.
        instrument: its instrument.
        classes: the classes to simulate; labels count in this order.
        n: samples of each class.
        seed: of the whole data set.
    """

    recipe: Recipe
    instrument: Instrument
    classes: tuple[str, ...]
    n: int
    seed: int

    def __len__(self) -> int:
        return self.n * len(self.classes)

    @property
    def shards(self) -> int:
        """Number of shards."""
        return math.ceil(len(self) / SHARD)

    def samples_of(self, shard: int) -> range:
        """Return the samples of a shard."""
        return range(shard * SHARD, min((shard + 1) * SHARD, len(self)))

    def attributes(self) -> dict[str, Any]:
        """Return what the file says of itself."""
        scale = self.instrument.pixel_scale
        return {
            "recipe": self.recipe.model_dump_json(),
            "instrument": self.instrument.model_dump_json(),
            "classes": list(self.classes),
            "samples_per_class": self.n,
            "seed": self.seed,
            "upscale": self.recipe.upscale,
            "pixel_scale_lr": scale,
            "pixel_scale_hr": scale / self.recipe.upscale,
            "versions": json.dumps(versions()),
        }

    @property
    def identity(self) -> str:
        """Hash of what was asked for; the versions that made it are no part of it, an upgrade does not end a run."""
        asked = {name: value for name, value in self.attributes().items() if name != "versions"}
        text = json.dumps({"format_version": FORMAT_VERSION, "shard": SHARD} | asked, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def parts_folder(out: Path) -> Path:
    """Return the folder of the shards of a file."""
    return out.with_name(out.name + ".parts")


def claim_parts(plan: Plan, parts: Path) -> None:
    """Make the folder of the shards, or take up the one that an interrupted run of the same plan left.

    Raises:
        LensphysError: if the folder belongs to another simulation, or cannot be written.
    """
    manifest = parts / "manifest.json"
    if parts.exists() and (not parts.is_dir() or any(parts.glob("*.npz")) or manifest.exists()):
        try:
            owner = json.loads(manifest.read_text())["identity"]
        except (OSError, ValueError, KeyError, TypeError):
            owner = None
        if owner != plan.identity:
            raise LensphysError(
                f"{parts} holds parts of another simulation (another recipe, seed, number, classes or version): "
                "remove it, or choose another --out"
            )
    write_json(manifest, {"identity": plan.identity, **plan.attributes()})


def _path(parts: Path, shard: int) -> Path:
    return parts / f"{shard:06d}.npz"


def missing_shards(plan: Plan, parts: Path) -> list[int]:
    """Return the shards that are not there yet."""
    return [shard for shard in range(plan.shards) if not _path(parts, shard).exists()]


def write_shard(plan: Plan, parts: Path, shard: int) -> int:
    """Simulate one shard and write it, whole or not at all; return how many samples it holds."""
    engine = LenstronomyEngine(plan.recipe, plan.instrument)
    rows = []
    for position in plan.samples_of(shard):
        # classes take turns, so that every stretch of the file holds all of them
        index, label = divmod(position, len(plan.classes))
        name = plan.classes[label]
        seed = sample_seed(plan.seed, name, index)
        rows.append(_row(draw_sample(plan.recipe, plan.instrument, engine, name, seed), label))
    with whole_file(_path(parts, shard)) as temporary, temporary.open("wb") as file:
        np.savez(file, **{key: np.stack([row[key] for row in rows]) for key in rows[0]})  # type: ignore[arg-type]
    return len(rows)


def read_shard(parts: Path, shard: int) -> Arrays:
    """Return the arrays of a shard, one row a sample.

    Raises:
        LensphysError: if it is damaged.
    """
    path = _path(parts, shard)
    try:
        with np.load(path) as file:
            return {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise LensphysError(f"{path} is damaged: delete it and run the same command again") from None


def remove_parts(parts: Path) -> None:
    """Delete the folder of the shards."""
    shutil.rmtree(parts)


def _row(sample: Sample, label: int) -> Arrays:
    row: dict[str, Any] = {
        "lr": sample.lr,
        "lr_clean": sample.lr_clean,
        "hr_clean": sample.hr_clean,
        "alpha_hr": sample.alpha_hr,
        "label": np.int64(label),
        "axion_mass": np.float64(sample.scene.axion_mass),
        "theta_E": np.float64(sample.scene.theta_E),
        "flux_scale": np.float64(sample.flux_scale),
        "lens_model": np.bytes_(sample.scene.text().encode()),
    }
    row |= {name: np.float64(value) for name, value in sample.conditions.items()}
    return row if sample.hr is None else row | {"hr": sample.hr}
