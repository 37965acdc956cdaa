"""What is compared, on what, and how."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from lensphys.basics.settings import Strict, merged, override, read_yaml
from lensphys.training.experiment import DataSettings, Experiment
from lensphys.weights import weights_folder

_KINDS = ("ready", "weights", "run", "train", "rank_set")
ENDLESS = 1_000_000  # epochs: the budget ends the training


class RankSetSettings(Strict):
    """The first stage of RankSRGAN: the same images by some methods, ranked by NIQE.

    ``of``: names of methods of the comparison; ``patch``: side of the patches [HR pixels], whole images if None;
    ``limit``: at most so many images; ``mixtures``: how many random mixtures of the methods' images join each patch;
    ``distorted``: how many copies of these with faint noise or a faint grid.
    """

    of: Annotated[list[str], Field(min_length=2)]
    patch: PositiveInt | None = None
    limit: PositiveInt | None = None
    mixtures: NonNegativeInt = 0
    distorted: NonNegativeInt = 0

    @model_validator(mode="after")
    def _distinct(self) -> RankSetSettings:
        if len(set(self.of)) < len(self.of):
            raise ValueError("'of' names a method twice")
        return self


class Entry(Strict):
    """One method, and where it comes from: exactly one of ``ready, weights, run, train`` and ``rank_set``.

    ``ready``: a method that needs no training. ``weights``: those of the package. ``run``: a run folder. ``train``: an
    experiment as `lensphys train` reads it, laid over the data and the training of the comparison; with ``from``, an
    earlier entry, it starts from that one's weights. ``refine``: rounds, of an amortised method. ``group``: what kind
    of method it is; without one it has no row of its own and serves others.

    Within ``train``, ``@NAME`` stands for what an earlier entry left behind: a run folder, or a rank set.
    """

    name: Annotated[str, Field(min_length=1)]
    group: str | None = None
    ready: str | None = None
    weights: str | None = None
    run: str | None = None
    train: dict[str, Any] | None = None
    rank_set: RankSetSettings | None = None
    start: Annotated[str | None, Field(alias="from")] = None
    refine: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Entry:
        if sum(getattr(self, kind) is not None for kind in _KINDS) != 1:
            raise ValueError(f"{self.name!r} must have exactly one of {', '.join(_KINDS)}")
        if self.start is not None and self.train is None:
            raise ValueError(f"{self.name!r} has 'from', but only what is trained starts from something")
        if not self.slug:
            raise ValueError(f"a method cannot be called {self.name!r}: its folder needs a letter or a digit")
        if self.rank_set is not None and self.group is not None:
            raise ValueError(f"{self.name!r} is a rank set, which has no row: leave out its group")
        if self.refine is not None and (self.ready is not None or self.rank_set is not None):
            raise ValueError(f"{self.name!r} has 'refine', which goes on from an amortised network's answer")
        return self

    @property
    def slug(self) -> str:
        """The name as a file name."""
        return re.sub(r"[^a-z0-9]+", "_", self.name.lower()).strip("_")

    @property
    def needs(self) -> list[str]:
        """The names of the entries that this one starts from or refers to."""
        of = self.rank_set.of if self.rank_set is not None else []
        found = [*([self.start] if self.start else []), *of, *(name for _, name in references(self.train))]
        return list(dict.fromkeys(found))


class Comparison(Strict):
    """A comparison: all methods train on ``data`` for ``minutes`` on ``threads``, and are judged on ``test``.

    ``protocol``: what a reader of the table must know, in its head. ``limit``: judge at most so many test images of
    each class. ``niqe_block``: side of a block of NIQE [HR pixels], which is fitted on the clean HR images of ``data``.
    ``training``: what the trainings have in common.
    """

    title: str
    protocol: str
    seed: int = 0
    minutes: PositiveFloat
    threads: PositiveInt = 1
    data: DataSettings
    test: DataSettings
    limit: PositiveInt | None = None
    niqe_block: Annotated[int, Field(ge=8, multiple_of=2)] = 32
    training: dict[str, Any] = {}
    methods: Annotated[list[Entry], Field(min_length=1)]

    @classmethod
    def read(cls, path: Path, assignments: list[str]) -> Self:
        """Return the comparison of a YAML file, with ``a.b=value`` assignments applied.

        Raises:
            LensphysError: naming each faulty key.
        """
        return cls.parse(override(read_yaml(path), assignments), str(path))

    @model_validator(mode="after")
    def _whole(self) -> Comparison:
        seen: set[str] = set()
        for entry in self.methods:
            if entry.slug in {Entry.model_construct(name=name).slug for name in seen}:
                raise ValueError(f"{entry.name!r} would share its folder with another method: rename it")
            if entry.start in seen and not {"train", "run", "weights"} & self.entry(entry.start).model_fields_set:
                raise ValueError(f"{entry.name!r} starts from {entry.start!r}, which has no weights")
            missing = [name for name in entry.needs if name not in seen]
            if missing:
                raise ValueError(f"{entry.name!r} needs {missing[0]!r}, which is no earlier method")
            seen.add(entry.name)
        return self

    def entry(self, name: str) -> Entry:
        """Return the entry of a name."""
        return next(entry for entry in self.methods if entry.name == name)

    def all_needs(self, entry: Entry) -> list[Entry]:
        """Return all entries that one builds on, directly or not."""
        found: dict[str, Entry] = {}
        for name in entry.needs:
            for other in [*self.all_needs(self.entry(name)), self.entry(name)]:
                found[other.name] = other
        return list(found.values())

    def experiment(self, entry: Entry, folder: Path) -> Experiment:
        """Return what a trained entry trains.

        Args:
            entry: with ``train``.
            folder: of the comparison.

        Raises:
            LensphysError: naming each faulty key.
        """
        base = {
            "seed": self.seed,
            "data": self.data.model_dump(exclude_none=True),
            "training": {"epochs": ENDLESS, "minutes": self.minutes} | self.training,
        }
        tree = merged(base, _resolved(entry.train or {}, self, folder))
        if entry.start is not None:
            tree["start"] = str(self.left_behind(self.entry(entry.start), folder))
        return Experiment.parse(tree, f"method {entry.name!r}")

    @staticmethod
    def left_behind(entry: Entry, folder: Path) -> Path:
        """Return where an entry's work lies: a run folder, or a rank set."""
        if entry.run is not None:
            return Path(entry.run)
        if entry.weights is not None:
            return weights_folder(entry.weights)
        return folder / "runs" / (entry.slug if entry.rank_set is None else f"{entry.slug}.h5")


def references(tree: Any, where: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the keys that lead to each ``@`` of a tree, and the name behind it."""
    if isinstance(tree, str) and tree.startswith("@"):
        yield where, tree[1:]
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, part in parts:
        yield from references(part, (*where, str(key)))


def _resolved(tree: Any, comparison: Comparison, folder: Path) -> Any:
    """A tree with paths in place of ``@NAME``."""
    if isinstance(tree, str) and tree.startswith("@"):
        return str(comparison.left_behind(comparison.entry(tree[1:]), folder))
    if isinstance(tree, dict):
        return {key: _resolved(part, comparison, folder) for key, part in tree.items()}
    return [_resolved(part, comparison, folder) for part in tree] if isinstance(tree, list) else tree
