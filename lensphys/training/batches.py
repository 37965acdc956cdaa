"""The batches of a training: of a file, or drawn from a recipe on the fly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Annotated, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.basics.settings import Strict
from lensphys.data.lens_file import LensFile
from lensphys.data.unusable import unusable
from lensphys.methods import Batch, RankBatch
from lensphys.methods.ranking.rank_set import RankSet
from lensphys.observation.validity import Validity
from lensphys.simulation.stream import LensStream

_ROWS = 256  # images at a time, where all are looked at
_HELD_OUT = 1 << 40  # the first validation image of a stream: no epoch comes there
_APART = 1 << 48  # between the indices of data sets that train together: none has so many images


class BatchSettings(Strict):
    """How data are cut into batches: ``batch_size`` a device, on ``devices`` of each of ``nodes`` machines."""

    batch_size: PositiveInt = 16
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    devices: PositiveInt = 1
    nodes: PositiveInt = 1


B = TypeVar("B", covariant=True)


class TrainingData(Protocol[B]):
    """What a training reads: the same batches for the same seed and epoch, whoever asks and in whatever process.

    Attributes:
        identity: hash of the data.
        name: what messages call them.
        unusable: why some images are left out, by their index.
        validity: what the images span; None where they are not images of a telescope.
    """

    identity: str
    name: str
    unusable: dict[int, str]
    validity: Validity | None

    @property
    def parts(self) -> Sequence[TrainingData[B]]:
        """The data sets that these are made of: itself, where it is one."""
        ...

    def of_epoch(self, epoch: int, rank: int, ranks: int) -> list[Tensor]:
        """Return the indices (n,) of each batch of one process; every process has the same number of full batches."""
        ...

    def of_validation(self, rank: int, ranks: int) -> list[Tensor]:
        """Return the indices (n,) of the validation batches of one process."""
        ...

    def read(self, index: Tensor, device: torch.device) -> B:
        """Return some images, by their indices (n,), as the method wants them."""
        ...


class _Split:
    """A file's images, some held out, the others in a new order in each epoch; patches of one image stay together."""

    unusable: dict[int, str] = {}
    validity: Validity | None = None

    def __init__(self, image: Tensor, name: str, settings: BatchSettings, seed: int) -> None:
        usable = ~torch.isin(image, torch.tensor(list(self.unusable), dtype=image.dtype))
        images = image[usable].unique()
        order = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))]
        held_out = torch.isin(image, order[: max(1, round(settings.validation_fraction * len(images)))])
        self.validation, self.training = held_out.nonzero()[:, 0], (usable & ~held_out).nonzero()[:, 0]
        if len(self.training) < settings.batch_size * settings.devices * settings.nodes:
            left = f", {len(self.unusable)} of them unusable (ask 'lensphys doctor')" if self.unusable else ""
            raise LensphysError(
                f"{name} holds {len(image)} images{left}, too few for a batch of {settings.batch_size} a device beside "
                f"{len(self.validation)} held out: simulate more or lower training.batch_size"
            )
        self.name, self.seed, self.size = name, seed, settings.batch_size

    @property
    def parts(self) -> Sequence[Self]:
        """Itself: one data set."""
        return (self,)

    def of_epoch(self, epoch: int, rank: int, ranks: int) -> list[Tensor]:
        """Return the indices (n,) of each batch of one process; every process has the same number of full batches."""
        mixed = self.training[_order(len(self.training), self.seed, epoch)]
        count = len(mixed) // (self.size * ranks)
        return list(mixed[: count * self.size * ranks].reshape(count, ranks, self.size)[:, rank].sort(1).values)

    def of_validation(self, rank: int, ranks: int) -> list[Tensor]:
        """Return the indices (n,) of the validation batches of one process."""
        return _shared(self.validation, rank, ranks, self.size)


class Batches(_Split):
    """The batches of a data set: the same ones for the same seed and epoch, whoever asks and in whatever process.

    All images are looked at once before: those from which nothing can be learned are left out.

    Args:
        lenses: the data.
        settings: batch size and validation fraction.
        seed: of the split and of the order.
        needs_truth: whether HR images are read at all.

    Raises:
        LensphysError: if HR images are needed and missing, or there are too few images.
    """

    def __init__(self, lenses: LensFile, settings: BatchSettings, seed: int, *, needs_truth: bool) -> None:
        self._hr = "hr" if lenses.has("hr") else "hr_clean"
        if needs_truth and not lenses.has(self._hr):
            raise LensphysError(f"{lenses.path} has no HR images: this method needs LR-HR pairs")
        self.unusable = unusable(lenses, np.arange(len(lenses)), *([self._hr] if needs_truth else []))
        super().__init__(torch.arange(len(lenses)), str(lenses.path), settings, seed)
        every = torch.cat([self.training, self.validation]).sort().values
        self.validity = Validity.from_observations(lenses.observation(rows.numpy()) for rows in every.split(_ROWS))
        self.lenses, self.needs_truth, self.identity = lenses, needs_truth, lenses.identity

    def read(self, index: Tensor, device: torch.device) -> Batch:
        """Return some images, by indices (n,): observation, classes and, if needed, HR images in the unit of LR."""
        rows, truth, label = index.numpy(), None, None
        if self.needs_truth:
            truth = self.lenses.sharp(self._hr, rows).to(device)
        if self.lenses.has("label"):
            label = torch.as_tensor(self.lenses.labels_of(rows), device=device)
        return Batch(self.lenses.observation(rows, device), truth, label)


class RankBatches(_Split):
    """The batches of a rank set.

    Args:
        ranked: the rank set.
        settings: batch size and validation fraction.
        seed: of the split and of the order.

    Raises:
        LensphysError: if there are too few patches.
    """

    def __init__(self, ranked: RankSet, settings: BatchSettings, seed: int) -> None:
        super().__init__(ranked.row, str(ranked.path), settings, seed)
        self.ranked, self.identity = ranked, ranked.identity

    def read(self, index: Tensor, device: torch.device) -> RankBatch:
        """Return some patches, by their indices (n,), of all networks, and their NIQE."""
        image, niqe = self.ranked.read(index.tolist())
        return RankBatch(image.to(device), niqe.to(device))


class FreshBatches:
    """Batches that no epoch sees again: each is simulated when it is read.

    Args:
        stream: where the lenses come from.
        settings: batch size and validation fraction, of the images of an epoch; the validation images stay the same.
        needs_truth: whether HR images are handed out.

    Raises:
        LensphysError: if an epoch is shorter than a batch.
    """

    unusable: dict[int, str] = {}

    def __init__(self, stream: LensStream, settings: BatchSettings, *, needs_truth: bool) -> None:
        if len(stream) < settings.batch_size * settings.devices * settings.nodes:
            raise LensphysError(
                f"an epoch of {len(stream)} fresh images is shorter than a batch of {settings.batch_size} a device: "
                "raise data.n or lower training.batch_size"
            )
        self.stream, self.needs_truth, self.size = stream, needs_truth, settings.batch_size
        self.identity, self.name = stream.identity, stream.name
        self.held_out = max(1, round(settings.validation_fraction * len(stream)))
        examples = (stream.read(index.tolist(), "cpu")[0] for index in self.of_validation(0, 1))
        self.validity = Validity.from_observations(examples)

    @property
    def parts(self) -> Sequence[Self]:
        """Itself: one data set."""
        return (self,)

    def of_epoch(self, epoch: int, rank: int, ranks: int) -> list[Tensor]:
        """Return the indices (n,) of each batch of one process; every process has the same number of full batches."""
        count = len(self.stream) // (self.size * ranks)
        index = epoch * len(self.stream) + torch.arange(count * self.size * ranks)
        return list(index.reshape(count, ranks, self.size)[:, rank])

    def of_validation(self, rank: int, ranks: int) -> list[Tensor]:
        """Return the indices (n,) of the validation batches of one process."""
        return _shared(_HELD_OUT + torch.arange(self.held_out), rank, ranks, self.size)

    def read(self, index: Tensor, device: torch.device) -> Batch:
        """Return some images, by indices (n,): observation, classes and, if needed, HR images in the unit of LR."""
        observation, truth = self.stream.read(index.tolist(), device)
        label = torch.tensor(self.stream.labels(index.tolist()), device=device)
        return Batch(observation, truth if self.needs_truth else None, label)


class Together(Generic[B]):
    """Several data sets, of other telescopes say, as one: images of a batch share pixels and field, so it is of one.

    Args:
        parts: the data sets.
        seed: of the order of their batches.
    """

    unusable: dict[int, str] = {}

    def __init__(self, parts: Sequence[TrainingData[B]], seed: int) -> None:
        self.parts, self.seed = parts, seed
        self.name = ", ".join(part.name for part in parts)
        self.identity = "+".join(part.identity for part in parts)
        known = [part.validity for part in parts if part.validity is not None]
        self.validity = reduce(or_, known) if len(known) == len(parts) else None

    def of_epoch(self, epoch: int, rank: int, ranks: int) -> list[Tensor]:
        """Return the indices (n,) of each batch of one process, the data sets mixed; all processes mix them alike."""
        found = [_placed(k, index) for k, x in enumerate(self.parts) for index in x.of_epoch(epoch, rank, ranks)]
        return [found[i] for i in _order(len(found), self.seed, epoch).tolist()]

    def of_validation(self, rank: int, ranks: int) -> list[Tensor]:
        """Return the indices (n,) of the validation batches of one process."""
        return [_placed(k, index) for k, x in enumerate(self.parts) for index in x.of_validation(rank, ranks)]

    def read(self, index: Tensor, device: torch.device) -> B:
        """Return some images of one data set, by their indices (n,)."""
        return self.parts[int(index[0]) // _APART].read(index % _APART, device)


def _order(count: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch, (count,): the same in all processes."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch + 1))


def _placed(k: int, index: Tensor) -> Tensor:
    """The indices of the k-th data set among those of all."""
    return k * _APART + index


def _shared(index: Tensor, rank: int, ranks: int, size: int) -> list[Tensor]:
    """The batches of one process; where there are fewer images than processes, each has all of them."""
    mine = index[rank::ranks] if len(index) >= ranks else index
    return list(mine.split(size))
