"""The sets of lenses of an experiment: usable, alike in every class where that is asked for, and what they are."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupShuffleSplit

from lensphys.basics.checks import LensphysError
from lensphys.data.lens_file import LensFile
from lensphys.data.subset import write_rows
from lensphys.data.unusable import unusable
from lensphys.downstream.inputs import Material, Seen
from lensphys.downstream.numbers import nuisances
from lensphys.downstream.products import Product, Results, computed
from lensphys.downstream.sampling import Rows, Target, classes_of, groups_of, matched_rows, number_of
from lensphys.downstream.settings import PLAIN, Downstream, Matched, slug
from lensphys.observation import Instrument, Observation
from lensphys.observation.fingerprint import fingerprint
from lensphys.training.experiment import DataSettings, train, training_data


@dataclass(frozen=True)
class Lenses:
    """A set of lenses, and what each is.

    Args:
        material: what can be read of them.
        target: what is to be told.
        groups: a name that dependent lenses share, one each.
        in_file: where each stands in its file.
        rows: which of them count.
        provenance: how the set came about, for the report.
    """

    material: Material
    target: Target
    groups: list[str]
    in_file: Rows
    rows: Rows
    provenance: dict[str, Any] = field(default_factory=dict)


class Collection:
    """All sets of an experiment, their products and inputs, each made once.

    Args:
        settings: of the experiment.
        folder: for data and products.
        device: where methods compute.
        workers: processes that super-resolve side by side.
    """

    def __init__(self, settings: Downstream, folder: Path, device: str = "cpu", workers: int = 1) -> None:
        self.settings, self.folder, self.device, self.workers = settings, folder, device, workers
        self._paths: dict[str, Path] = {}
        self._seen: dict[tuple[str, str], Seen] = {}
        self._products: dict[tuple[str, str], Results] = {}
        self._trained: set[str] = set()

    @property
    def instrument(self) -> Instrument:
        """That of the training set."""
        return self._instrument(self.settings.data)

    @cached_property
    def sets(self) -> dict[str, Lenses]:
        """The training set, ``train``, and all test sets by their names.

        Raises:
            LensphysError: if a set cannot be made, or every lens of the training shares its source with a test set.
        """
        settings = self.settings
        train = self._made("train", settings.data, None, None)
        like = train.target.classes or None
        if settings.test is None:
            return self._split(train)
        found = {PLAIN: self._made(PLAIN, settings.test, like, None)}
        believed = self._instrument(settings.test)
        for name, shift in settings.shifts.items():
            found[name] = self._made(name, shift.applied_to(settings.test), like, None if shift.told else believed)
        seen = {group for lenses in found.values() for group in np.array(lenses.groups)[lenses.rows]}
        free = np.array([i for i in train.rows if train.groups[i] not in seen], dtype=np.int64)
        if not len(free):
            raise LensphysError(
                f"every lens of {train.provenance['file']} shares its source with a test set: give other test lenses, "
                "or test: null, which keeps a part of the data back"
            )
        origin = train.provenance | {"shares_source_with_test": len(train.rows) - len(free), "lenses": len(free)}
        return {"train": replace(train, rows=free, provenance=origin), **found}

    def _split(self, lenses: Lenses) -> dict[str, Lenses]:
        """Training and test set of one file, which share no source."""
        split = GroupShuffleSplit(1, test_size=self.settings.test_share, random_state=0)
        learn, judge = next(split.split(lenses.rows, groups=[lenses.groups[i] for i in lenses.rows]))
        parts = {"train": lenses.rows[learn], PLAIN: lenses.rows[judge]}
        return {
            n: replace(lenses, rows=rows, provenance=lenses.provenance | {"lenses": len(rows)})
            for n, rows in parts.items()
        }

    def _path(self, data: DataSettings) -> Path:
        name = hashlib.sha256(data.model_dump_json(exclude={"workers"}).encode()).hexdigest()[:12]
        if name not in self._paths:
            self._paths[name] = training_data(data, self.folder / "data" / name)
        return self._paths[name]

    def _instrument(self, data: DataSettings) -> Instrument:
        with LensFile(self._path(data)) as file:
            return file.instrument

    def _made(self, name: str, data: DataSettings, like: tuple[str, ...] | None, believed: Instrument | None) -> Lenses:
        settings = self.settings
        with LensFile(self._path(data)) as file:
            if settings.needs_hr and not file.has_truth:
                raise LensphysError(
                    f"{file.path} has no HR images (/hr_clean), which the input {settings.needs_hr[0]!r} looks at: "
                    "take it away, or use simulated lenses"
                )
            target = classes_of(file, like) if settings.target is None else number_of(file, settings.target)
            faulty = unusable(file, np.arange(len(file)))
            rows = np.setdiff1d(target.known, np.array(list(faulty), dtype=np.int64))
            origin: dict[str, Any] = {"file": data.recipe or Path(str(data.file)).name, "identity": file.identity}
            origin |= {"in_file": len(file), "unusable": len(faulty), "not_known": len(file) - len(target.known)}
            if settings.matched is not None:
                rows = rows[_alike(settings.matched, file.observation(rows), target.values[rows])]
            origin |= {"lenses": len(rows), "order": file.classes != list(target.classes) and bool(target.classes)}
            observation = _observation(file, rows, believed)
            truth = file.sharp("hr_clean", rows) if settings.needs_hr else None
            every = groups_of(file)
            groups = [every[i] for i in rows]
        material = Material(name, observation, lambda product: self.product(name, product), truth, settings.half_field)
        return Lenses(material, Target(target.values[rows], target.classes), groups, rows, np.arange(len(rows)), origin)

    def origin(self, name: str) -> Product:
        """Return a product whose method is there: what the experiment trains is trained first, if not done yet."""
        product = self.settings.products[name]
        if product.train is None:
            return product
        run = self.folder / "runs" / slug(name)
        if name not in self._trained:
            start = None if product.start is None else self.origin(product.start).folder
            train(product.experiment(self._lessons, start), run, resume=True)
            self._trained.add(name)
        return product.trained_at(run)

    @cached_property
    def _lessons(self) -> Path:
        """The file of the lenses that teach: no other label, and no other image, enters a training."""
        teach = self.sets["train"]
        return write_rows(
            self._path(self.settings.data), np.sort(teach.in_file[teach.rows]), self.folder / "data" / "lessons.h5"
        )

    def product(self, lenses: str, name: str) -> Results:
        """Return what a method makes of a set."""
        # one file may be training and test set
        made_of = self._materials[lenses]
        if (made_of, name) not in self._products:
            observation = self.sets[lenses].material.observation
            folder = self.folder / "products" / slug(name) / slug(made_of)
            self._products[made_of, name] = computed(
                self.origin(name), observation, fingerprint(observation), folder,
                device=self.device, workers=self.workers,
            )  # fmt: skip
        return self._products[made_of, name]

    @property
    def _materials(self) -> dict[str, str]:
        """The name under which the products of each set are kept."""
        return {name: lenses.material.name for name, lenses in self.sets.items()}

    def seen(self, lenses: str, name: str) -> Seen:
        """Return an input of a set."""
        material = self.sets[lenses].material
        key = (material.name, name)
        if key not in self._seen:
            self._seen[key] = self.settings.inputs[name].seen(material, partial(self.seen, lenses))
        return self._seen[key]


def _alike(matched: Matched, observation: Observation, labels: NDArray[Any]) -> Rows:
    known = nuisances(observation)
    return matched_rows(labels, {name: known[name] for name in matched.on}, matched.caliper, fewest=matched.fewest)


def _observation(file: LensFile, rows: Rows, believed: Instrument | None) -> Observation:
    return file.observation(rows) if believed is None else believed.observation(file.lr(rows))


def identity(lenses: Lenses) -> str:
    """Return a hash of the lenses of a set that count, and of what is to be told of them."""
    told = [
        fingerprint(lenses.material.observation),
        lenses.rows.tolist(),
        lenses.target.values.tolist(),
        lenses.groups,
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
