"""What is read, by whom, with how many labels, and what judges it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from lensphys.basics.checks import LensphysError, check_choice
from lensphys.basics.runs import check_trained
from lensphys.basics.settings import Strict
from lensphys.basics.sizes import SMALLEST_SIDE
from lensphys.data.lens_file import LensFile
from lensphys.downstream.inputs import AnyInput, Kind
from lensphys.downstream.products import Product
from lensphys.downstream.readers import AnyReader, ReaderSettings
from lensphys.downstream.sampling import classes_of
from lensphys.methods import READY, TrainableMethod
from lensphys.simulation.plan import Plan
from lensphys.simulation.recipe import Recipe
from lensphys.tracing.grid import PixelGrid
from lensphys.training.experiment import DataSettings, Experiment, built, lineage

Nuisance = Literal["flux", "arc_radius", "signal_to_noise"]
PLAIN = "test"  # what the unshifted test set is called
SEEN = "seen"  # lenses that teach, but not this reader: networks of products may know their labels

_NAME = re.compile(r"[^a-z0-9]+")


def slug(name: str) -> str:
    """Return a name as a file name; "PSF + 10 %" and "PSF - 10 %" have two."""
    spoken = name.lower().replace("+", " plus ").replace(" -", " minus ")
    return _NAME.sub("_", spoken).strip("_")


class Shift(Strict):
    """Another test set, beside the plain one: what a reader meets that it was not trained on.

    Args:
        set: recipe assignments after those of the plain test set.
        file: or a file of its own, with the same classes.
        n: lenses of each class; as many as in the plain test set if null.
        told: whether methods know PSF and noise as they are; else they take those of the plain test set for granted.
    """

    set: list[str] = []
    file: str | None = None
    n: PositiveInt | None = None
    told: bool = True

    @model_validator(mode="after")
    def _one_origin(self) -> Shift:
        if (self.file is None) == (not self.set):
            raise ValueError("a shift has either 'set' or 'file'")
        return self

    def applied_to(self, test: DataSettings) -> DataSettings:
        """Return the shifted test set."""
        if self.file is not None:
            return DataSettings(file=self.file)
        return test.model_copy(update={"set": [*test.set, *self.set], "n": self.n or test.n})


class Matched(Strict):
    """Classes are brought to be alike in what must not tell them apart: see `sampling.matched_rows`.

    Args:
        on: what they are alike in.
        caliper: largest distance of two lenses that count as alike, in standard deviations within a class.
        fewest: lenses of a class that can be matched: five folds of two.
    """

    on: Annotated[list[Nuisance], Field(min_length=1)] = ["flux", "arc_radius", "signal_to_noise"]
    caliper: PositiveFloat = 0.25
    fewest: PositiveInt = 10


class LabelFree(Strict):
    """What is told without a single label: by scores of a fit.

    Args:
        products: names of those that are fits.
        smooth: the class without substructure.
        pairs: of classes to be told from each other, the first of which has more mass in the middle and on a line.
    """

    products: Annotated[list[str], Field(min_length=1)]
    smooth: str = "no_sub"
    pairs: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = [["axion", "cdm"]]


class Published(Strict):
    """A row of somebody else's table, to stand beside ours.

    Args:
        name: whose, and of what.
        values: AUC of each class, or an error, by its name.
        note: why it is not comparable, or where it is from.
    """

    name: str
    values: dict[str, float]
    note: str = ""


class Downstream(Strict):
    """An experiment: see docs/downstream.md.

    Args:
        title: of the report.
        protocol: what a reader of the tables must know, in their head.
        task: ``classify``, or ``regress`` the ``target``.
        target: a number that simulated files tell.
        data: the lenses whose labels readers learn from.
        test: others, which judge them; null to keep back a part of the data.
        test_share: share of the sources that is kept back where ``test`` is null, 0 to 1.
        shifts: other test sets, by name.
        products: what methods make of the images, by name.
        inputs: what readers look at, by name.
        readers: by name.
        budgets: labels of each class; of a number, in all.
        seeds: how often labels are drawn anew.
        held_out: share of these labels by which a reader chooses and calibrates.
        half_field: half side of what readers of images see [arcsec]; all of the image if null.
        matched: whether classes are made alike; null for no.
        label_free: scores without labels; null for none.
        published: rows of others.
    """

    title: str
    protocol: str
    task: Literal["classify", "regress"] = "classify"
    target: Literal["log_axion_mass", "theta_E", "subhalo_fraction"] | None = None
    data: DataSettings
    test: DataSettings | None = None
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    shifts: dict[str, Shift] = {}
    products: dict[str, Product] = {}
    inputs: Annotated[dict[str, AnyInput], Field(min_length=1)]
    readers: Annotated[dict[str, AnyReader], Field(min_length=1)]
    budgets: Annotated[list[Annotated[int, Field(ge=5)]], Field(min_length=1)]
    seeds: PositiveInt = 5
    held_out: Annotated[float, Field(gt=0, lt=0.6)] = 0.2
    half_field: PositiveFloat | None = None
    matched: Matched | None = None
    label_free: LabelFree | None = None
    published: list[Published] = []

    @model_validator(mode="after")
    def _whole(self) -> Downstream:
        if (self.task == "regress") != (self.target is not None):
            raise ValueError("'target' names the number to regress: give it with task: regress, and only then")
        if self.task == "regress" and (self.matched or self.label_free):
            raise ValueError("'matched' and 'label_free' are about classes: leave them out of a regression")
        if self.shifts and self.test is None:
            raise ValueError("shifts need a test set of their own: give 'test'")
        set_ = [name for name, shift in self.shifts.items() if shift.set]
        if set_ and self.test is not None and self.test.recipe is None:
            raise ValueError(f"shift {set_[0]!r} sets what a recipe has, and 'test' is a file: give it a file too")
        if any(data is not None and data.fresh for data in (self.data, self.test)):
            raise ValueError("readers learn from a file or a recipe that is simulated once: leave 'fresh' out")
        self._check_names()
        return self

    def _check_names(self) -> None:
        for what, names in (
            ("product", self.products),
            ("input", self.inputs),
            ("reader", self.readers),
            ("shift", self.shifts),
        ):
            slugs = [slug(name) for name in names]
            if "" in slugs or len(set(slugs)) < len(slugs):
                raise ValueError(f"two {what}s share a file name, or one has no letter: rename it")
        if taken := [name for name in (PLAIN, SEEN) if name in self.shifts]:
            raise ValueError(f"a shift cannot be called {taken[0]!r}: that is a set of its own")
        asked = [name for x in self.inputs.values() for name in x.products]
        asked += self.label_free.products if self.label_free else []
        if missing := [name for name in asked if name not in self.products]:
            raise ValueError(f"{missing[0]!r} is none of the products: {', '.join(self.products) or 'there are none'}")
        self._check_starts()
        for name, own in self.inputs.items():
            if wrong := [n for n in own.parts if n not in self.inputs or self.inputs[n].parts]:
                raise ValueError(f"{name!r} puts {wrong[0]!r} together, which is no simple input")
            if len({self.kind_of(n) for n in own.parts}) > 1:
                raise ValueError(f"{name!r} puts images and numbers together, which no reader looks at")
        for name, reader in self.readers.items():
            if not self.inputs_of(reader):
                raise ValueError(f"{name!r} reads {reader.reads}, and none of its inputs are")
            if wrong := [n for n in reader.inputs or [] if n not in self.inputs_of(reader)]:
                raise ValueError(f"{name!r} cannot read {wrong[0]!r}: it must be an input of {reader.reads}")

    def _check_starts(self) -> None:
        earlier: set[str] = set()
        for name, product in self.products.items():
            if product.start is not None and product.start not in earlier:
                raise ValueError(
                    f"product {name!r} starts from {product.start!r}, which is no earlier one with weights"
                )
            earlier |= {name} if product.ready is None else set()

    def kind_of(self, name: str) -> Kind:
        """Return whether an input is images or numbers."""
        found = self.inputs[name]
        return self.kind_of(found.parts[0]) if found.parts else found.gives

    def inputs_of(self, reader: ReaderSettings) -> list[str]:
        """Return the names of the inputs that a reader looks at."""
        wanted = self.inputs if reader.inputs is None else [n for n in reader.inputs if n in self.inputs]
        return [name for name in wanted if self.kind_of(name) == reader.reads]

    def closure(self, name: str) -> dict[str, AnyInput]:
        """Return an input and those that it is made of, by their names."""
        return {n: self.inputs[n] for n in [*self.inputs[name].parts, name]}

    @property
    def shifted(self) -> dict[str, DataSettings]:
        """The shifted test sets, by their names."""
        return {} if self.test is None else {name: shift.applied_to(self.test) for name, shift in self.shifts.items()}

    @property
    def needs_hr(self) -> list[str]:
        """The inputs that look at the truth."""
        return [name for name, x in self.inputs.items() if x.needs_hr]

    def learned_from_labels(self, product: str) -> bool:
        """Return whether any network that went into a product learned from classes.

        Raises:
            LensphysError: if its settings are faulty, or its run is missing.
        """
        found = self.products[product]
        if found.train is not None:
            own = found.experiment(_LESSONS)
            before = found.start is not None and self.learned_from_labels(found.start)
            return before or _labelled(own) or any(_labelled(e) for run in own.runs for e in lineage(run).values())
        return found.folder is not None and any(_labelled(e) for e in lineage(found.folder).values())

    def labelled_products(self, name: str) -> list[str]:
        """Return the products behind an input whose networks learned from classes."""
        return [p for x in self.closure(name).values() for p in x.products if self.learned_from_labels(p)]

    @property
    def cases(self) -> list[tuple[str, str, int, int]]:
        """All that is trained: input, reader, budget, seed."""
        return [
            (name, reader, budget, seed)
            for reader, settings in self.readers.items()
            for name in self.inputs_of(settings)
            for budget in self.budgets
            for seed in range(self.seeds)
        ]


_LESSONS = Path("lessons.h5")  # stands for the lenses that teach, before there are any


def _labelled(experiment: Experiment) -> bool:
    return built(experiment.method).needs_labels


def check_downstream(settings: Downstream) -> None:
    """Raise unless all data, products and readers of an experiment can be made.

    Raises:
        LensphysError: naming what cannot.
    """
    for data in (settings.data, settings.test):
        if data is not None:
            _check_data(data, settings)
    for name, test in settings.shifted.items():
        try:
            _check_data(test, settings)
        except LensphysError as error:
            raise LensphysError(f"shift {name!r}: {error}") from None
    for name, product in settings.products.items():
        try:
            if product.ready is not None:
                check_choice("ready method", product.ready, list(READY))
            elif product.folder is not None:
                check_trained(product.folder)
            elif not isinstance(built(product.experiment(_LESSONS).method), TrainableMethod):
                raise LensphysError("what it trains super-resolves nothing: choose another method")
        except LensphysError as error:
            raise LensphysError(f"product {name!r}: {error}") from None
    for name in settings.label_free.products if settings.label_free else []:
        if settings.learned_from_labels(name):
            raise LensphysError(f"product {name!r} learned from labels: take it out of label_free")


def _check_data(data: DataSettings, settings: Downstream) -> None:
    if data.recipe is None:
        if data.unused is not None:
            raise LensphysError(data.unused)
        with LensFile(str(data.file)) as file:
            _check_field(settings, file.grid_lr)
            if settings.task == "classify":
                classes_of(file)
        return
    plan = Plan.from_recipe(Recipe.named(data.recipe, data.set), data.n, classes=data.classes, seed=data.seed)
    recipe = plan.recipe
    _check_field(settings, PixelGrid(recipe.height, recipe.width, plan.instrument.pixel_scale))
    if settings.task == "classify" and len(plan.classes) < 2:
        raise LensphysError(f"{data.recipe} with classes {', '.join(plan.classes)}: there is nothing to tell apart")
    check_label_free(settings, plan.classes)


def _check_field(settings: Downstream, grid: PixelGrid) -> None:
    """Raise where readers would see next to nothing of images on such pixels."""
    half = settings.half_field
    seen = None if half is None else grid.middle(half, half)
    if seen is not None and min(seen.shape) < SMALLEST_SIDE:
        raise LensphysError(
            f'half_field: of {half:g}" on each side readers see {seen.height} x {seen.width} pixels of '
            f'{grid.scale:.4g}", and images have {SMALLEST_SIDE} x {SMALLEST_SIDE} or more: raise it, or leave it out'
        )


def check_label_free(settings: Downstream, classes: Sequence[str]) -> None:
    """Raise unless there are the classes that scores without labels shall tell.

    Raises:
        LensphysError: naming the one that is missing.
    """
    free = settings.label_free
    asked: Mapping[str, None] = (
        {} if free is None else dict.fromkeys([free.smooth, *(n for p in free.pairs for n in p)])
    )
    if missing := [name for name in asked if name not in classes]:
        raise LensphysError(f"label_free names the class {missing[0]!r}, and there are only {', '.join(classes)}")
