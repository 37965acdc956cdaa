"""Shards: parts of a data set, each a whole lens file of its own, in a folder with a manifest and their checksums."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lensphys.basics.checks import LensphysError
from lensphys.basics.manifest import Manifest, Part, check_folder, check_worker
from lensphys.basics.outputs import checksum, whole_file
from lensphys.basics.threads import on_one_thread
from lensphys.data.hdf5 import LENS_MODELS, new_dataset, new_file, reserved, sign, sums
from lensphys.data.lens_file import FORMAT, FORMAT_VERSION
from lensphys.data.merging import link_clean, shard_path
from lensphys.simulation.plan import Plan
from lensphys.simulation.sample import Samples, render

_BATCH = 32  # samples in memory
_WITH_TARGET = {
    "hr": "as the target telescope recorded it: its PSF and noise, displaced by hr_shift_x and hr_shift_y, times "
    "hr_gain, plus hr_offset",
    "hr_clean": "the truth, aligned with /lr and in its flux: the PSF of the target telescope, no noise",
}
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Finished(Part):
    """A shard that is whole.

    Args:
        samples: how many it holds.
        bytes: of the file.
        crc32: of the file.
    """

    samples: int
    bytes: int
    crc32: str


class PlanManifest(Manifest[Finished]):
    """The list of a folder's shards.

    Args:
        plan: of the data set.
        folder: of the shards.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        super().__init__(folder, plan.identity, Finished)
        self.plan = plan

    def head(self) -> dict[str, Any]:
        """Return the plan and its identity."""
        plan = self.plan
        return {"format": f"{FORMAT}: shards", "identity": self.identity, "shard_size": plan.shard_size,
                "left_out": plan.left_out, "samples": len(plan), "shards": plan.shards,
                **plan.attributes()}  # fmt: skip

    def is_same(self, tree: dict[str, Any]) -> bool:
        """Return whether a manifest is of the same plan, cut and stored in the same way."""
        asked = (self.plan.shard_size, self.plan.left_out)
        return super().is_same(tree) and (tree["shard_size"], tree.get("left_out", [])) == asked

    def parts(self) -> Iterable[Path]:
        """Return the shards that are there, of whatever plan."""
        return self.folder.glob("*.h5")

    def is_ours(self, part: Path) -> bool:
        """Return whether a shard is of this plan, by its attributes."""
        try:
            samples = len(self.plan.samples_of(int(part.stem)))
            with h5py.File(part) as file:
                stored = list(file.attrs.get("left_out", [])) == self.plan.left_out
                return bool(stored and file.attrs["identity"] == self.identity and len(file["lr"]) == samples)
        except (OSError, KeyError, ValueError):
            return False

    def claim(self) -> None:
        """Make the folder, or take up the one that an interrupted run of the same plan left.

        Raises:
            LensphysError: if the folder belongs to another simulation, holds other things, or cannot be written.
        """
        check_folder(self.folder, "simulation")
        listed = self.listed()
        if listed is None:
            raise LensphysError(
                f"{self.folder} holds parts of another simulation (another recipe, seed, number, classes, engine, "
                "shard size or choice of what is stored): remove it, or choose another --out"
            )
        self._adopt(listed)
        self.write()

    def _adopt(self, listed: dict[int, Finished]) -> None:
        """Take the shards that are there: those of the list as they were, and of ours such as it does not know."""
        for shard in range(self.plan.shards):
            path = shard_path(self.folder, shard)
            if not path.exists():
                continue
            found = Finished(shard, len(self.plan.samples_of(shard)), path.stat().st_size, checksum(path))
            if found == listed.get(shard) or (shard not in listed and self.is_ours(path)):
                self.finished[shard] = found

    @property
    def missing(self) -> list[int]:
        """The shards that are not there yet."""
        return [shard for shard in range(self.plan.shards) if shard not in self.finished]


def write_shard(plan: Plan, folder: Path, device: str, shard: int) -> Finished:
    """Simulate one shard and write it, whole or not at all: in any process, on any machine that sees the folder.

    Raises:
        LensphysError: if this process does not see the folder of this plan, runs another version of lensphys, or cannot
            write.
    """
    check_worker(folder, plan.version)
    path, rows = shard_path(folder, shard), plan.samples_of(shard)
    with on_one_thread(), whole_file(path) as temporary:  # the other cores belong to the other workers
        _write(plan, device, rows, temporary)
        size, digest = temporary.stat().st_size, checksum(temporary)
    return Finished(shard, len(rows), size, digest)


def _write(plan: Plan, device: str, rows: range, path: Path) -> None:
    engine = plan.build_engine(device)
    with new_file(path) as file:
        for start in range(rows.start, rows.stop, _BATCH):
            positions = range(start, min(start + _BATCH, rows.stop))
            samples = render(plan.recipe, engine, [plan.drawn(p) for p in positions])
            arrays = _arrays(samples, [plan.label_of(p) for p in positions])
            arrays = {name: array for name, array in arrays.items() if name not in plan.left_out}
            if start == rows.start:
                with reserved(file, len(rows) * _bytes(arrays) // len(positions)):
                    describe(file, plan, arrays, len(rows))
            for name, array in arrays.items():
                file[name][start - rows.start : start - rows.start + len(array)] = array
        link_clean(file)


def _bytes(arrays: Arrays) -> int:
    texts = sum(len(text) for text in arrays["lens_model"])
    return texts + sum(array.nbytes for array in arrays.values())


def describe(file: h5py.File, plan: Plan, arrays: Arrays, count: int) -> None:
    """Give a new file its attributes and its empty datasets, (count, ...), like those of ``arrays``, (n, ...)."""
    file.attrs.update({"format": FORMAT, "format_version": FORMAT_VERSION, "identity": plan.identity})
    file.attrs.update(plan.attributes())
    if plan.left_out:
        file.attrs["left_out"] = plan.left_out
    sign(file)
    units = _units(plan)
    for name, array in arrays.items():
        kind = h5py.string_dtype() if name == "lens_model" else array.dtype
        dataset = new_dataset(file, name, (count, *array.shape[1:]), kind)
        dataset.attrs.update({"unit": units[name]} if name in units else {})
        if plan.target is not None and name in _WITH_TARGET:
            dataset.attrs["description"] = _WITH_TARGET[name]


def _units(plan: Plan) -> dict[str, str]:
    recorded = plan.instrument.unit
    flux = "counts/s" if recorded == "counts" else recorded
    units = {"lr": f"{recorded} per pixel", "alpha_hr": "arcsec", "axion_mass": "eV", "theta_E": "arcsec"}
    units |= dict.fromkeys(("hr", "hr_clean", "lr_clean", "background_rms"), f"{flux} per pixel")
    units |= {"psf_fwhm": "arcsec", "exposure_time": "s", "hr_shift_x": "arcsec", "hr_shift_y": "arcsec"}
    return units | {"hr_gain": "1", "hr_offset": f"{flux} per HR pixel"}


def _arrays(samples: Samples, labels: list[int]) -> Arrays:
    drawn = samples.drawn
    arrays: Arrays = {
        "lr": samples.lr,
        "lr_clean": samples.lr_clean,
        "hr_clean": samples.hr_clean,
        "alpha_hr": samples.alpha_hr,
        "label": np.array(labels, dtype=np.int64),
        "axion_mass": np.array([d.scene.axion_mass for d in drawn]),
        "theta_E": np.array([d.scene.theta_E for d in drawn]),
        "flux_scale": np.array([d.detector.flux_scale for d in drawn]),
        "lens_model": np.array([d.scene.text() for d in drawn], dtype=object),
    }
    arrays |= {name: np.array([d.conditions[name] for d in drawn]) for name in drawn[0].conditions}
    arrays |= {name: np.array([d.mismatch[name] for d in drawn]) for name in drawn[0].mismatch}
    arrays[LENS_MODELS] = sums(arrays["lens_model"])
    return arrays if samples.hr is None else arrays | {"hr": samples.hr}
