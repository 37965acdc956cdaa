"""The project's HDF5 files of simulated lenses, to read."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lensphys.basics.checks import LensphysError, shortened
from lensphys.basics.remote import local
from lensphys.basics.sentences import counted
from lensphys.data.hdf5 import LENS_MODELS, check_sums, check_texts, damage, files_of, opened, rows_of
from lensphys.data.merging import virtual_file
from lensphys.data.recomputed import LEFT_OUT, alpha_hr
from lensphys.observation import Conditions, Instrument, Observation
from lensphys.observation.instrument import CONDITIONS
from lensphys.tracing.grid import PixelGrid

FORMAT, RANK_SET, RESULT = "lensphys lenses", "lensphys rank set", "lensphys super-resolved images"
FORMAT_VERSION = 1
_ATTRIBUTES = ("classes", "instrument", "pixel_scale_lr", "upscale", "identity")
_PROFILES = {
    "lens_model_list": "kwargs_lens",
    "source_light_model_list": "kwargs_source",
    "lens_light_model_list": "kwargs_lens_light",
}

# of numbers, one row a sample
_DATASETS = ("lr", "hr", "hr_clean", "alpha_hr", "lr_clean", "label", "flux_scale", *CONDITIONS)

Index = int | slice | Sequence[int] | NDArray[np.integer[Any]]


class LensFile:
    """A file that lensphys simulated or imported, read-only; opened anew in each process, so data loaders can share it.

    Low-resolution images alone are enough: nothing else is read until it is asked for, and /hr* may be missing. What a
    simulation left out (/alpha_hr, unless it was asked to store it) is computed when it is read.

    Args:
        path: the HDF5 file, or a folder of shards of `lensphys simulate`, which are read as one file; or the address of
            one of them on a server, see `lensphys.basics.remote.local`.

    Raises:
        LensphysError: if the file is missing, cut short, or was not written by lensphys.

    Example::

        with LensFile("model_2.h5") as lenses:
            batch = lenses.observation([0, 1, 2])  # 3 images of (1, 64, 64)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = local(path)
        self._file: h5py.File | None = None
        self._process = 0
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        with damage(str(self.path)):
            self._check_format()
            self._check_kinds()
            self._check_attributes()
            self._check_shapes()
            check_texts(self.path, self._open())

    def _check_format(self) -> None:
        attributes = self._open().attrs
        if attributes.get("format") == RANK_SET:
            raise LensphysError(f"{self.path} is a rank set: only the method ranker trains on it")
        if attributes.get("format") != FORMAT:
            raise LensphysError(
                f"{self.path} was not written by lensphys: make such a file with 'lensphys simulate' or 'lensphys "
                "import'"
            )
        if attributes.get("format_version") != FORMAT_VERSION:
            raise LensphysError(
                f"{self.path} has the format version {attributes.get('format_version')}, this lensphys reads "
                f"{FORMAT_VERSION}: make it again"
            )
        missing = [name for name in _ATTRIBUTES if name not in attributes]
        if "lr" not in self._open():
            missing.append("/lr")
        if missing:
            raise LensphysError(f"{self.path} lacks {', '.join(missing)}: it is damaged, make it again")

    def _check_attributes(self) -> None:
        """What all of the file goes by."""
        instrument, classes, scale = self.instrument, self.classes, float(self._open().attrs["pixel_scale_lr"])
        if not classes or self.upscale < 1 or not 0 < scale < float("inf"):
            raise LensphysError(
                f"{self.path}: classes {shortened(str(classes))}, upscale {self.upscale} and pixel_scale_lr {scale} "
                f"cannot be of images of {instrument.description}: it is damaged, make it again"
            )

    def _check_kinds(self) -> None:
        """Images are images, and all else is a number a sample."""
        file = self._open()
        for name in (name for name in _DATASETS if name in file):
            if not isinstance(file[name], h5py.Dataset) or not file[name].shape:
                raise LensphysError(f"{self.path}: /{name} is no dataset of one row a sample: make the file again")
            if file[name].dtype.kind not in "iuf":
                raise LensphysError(f"{self.path}: /{name} holds no numbers ({file[name].dtype}): make the file again")
        shape = file["lr"].shape
        if len(shape) != 4 or shape[1] != 1 or 0 in shape[2:]:
            raise LensphysError(f"{self.path}: /lr must be images (N, 1, H, W), got {shape}: make the file again")

    def _check_shapes(self) -> None:
        """HR images and deflections belong to the LR images, pixel for pixel: `upscale` times as fine."""
        file, (height, width) = self._open(), self.grid_lr.shape
        fine = (height * self.upscale, width * self.upscale)
        pixels = {"hr": fine, "hr_clean": fine, "alpha_hr": fine, "lr_clean": (height, width)}
        for name in (name for name in _DATASETS if name in file):
            shape = file[name].shape
            if shape[0] != len(self) or shape[-2:] != pixels.get(name, shape[-2:]):
                raise LensphysError(
                    f"{self.path}: /{name} {shape} does not match /lr {file['lr'].shape} at {self.upscale} x: "
                    "it is damaged, make it again"
                )

    def _open(self) -> h5py.File:
        # an HDF5 handle does not survive a fork
        if self._file is None or self._process != os.getpid():
            self._file = virtual_file(self.path) if self.path.is_dir() else opened(self.path)
            self._process = os.getpid()
        return self._file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_file": None, "_process": 0}

    def close(self) -> None:
        """Close the file; reading opens it again."""
        if self._file is not None and self._process == os.getpid():
            self._file.close()
        self._file = None

    def __len__(self) -> int:
        return int(self._open()["lr"].shape[0])

    @property
    def identity(self) -> str:
        """Hash of the recipe, instrument, seed, classes, number and engine that made the file, or of its content."""
        return str(self._open().attrs["identity"])

    @property
    def names(self) -> frozenset[str]:
        """The datasets that are stored; see `has` for those that can be read."""
        return frozenset(self._open())

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe that the lenses were drawn by; empty where none is known."""
        return dict(json.loads(self._open().attrs.get("recipe", "{}")))

    @property
    def files(self) -> list[Path]:
        """The file itself and those that it refers to, or the shards of a folder: none of them may be replaced."""
        if self.path.is_dir():
            return sorted(file for file in self.path.rglob("*") if file.is_file())
        return files_of(self.path)

    @property
    def instrument(self) -> Instrument:
        """The instrument of the low-resolution images; what they do not share with it is in `conditions`."""
        return Instrument.parse(json.loads(self._open().attrs["instrument"]), f"instrument of {self.path}")

    @property
    def target(self) -> Instrument | None:
        """The telescope that took the high-resolution images; None if it is that of the low-resolution ones."""
        found = self._open().attrs.get("target_instrument")
        return None if found is None else Instrument.parse(json.loads(found), f"target instrument of {self.path}")

    @property
    def classes(self) -> list[str]:
        """Names of the classes; labels count in this order."""
        return [str(name) for name in self._open().attrs["classes"]]

    @property
    def redshifts(self) -> tuple[float, float]:
        """Redshifts of the lens and of the source, by the recipe.

        Raises:
            LensphysError: if the file does not come from a recipe.
        """
        try:
            return float(self.recipe["z_lens"]), float(self.recipe["z_source"])
        except (KeyError, TypeError, ValueError, OSError, RuntimeError):
            raise LensphysError(
                f"{self.path} has no recipe with redshifts: only files of 'lensphys simulate' have one"
            ) from None

    @property
    def galaxies(self) -> dict[str, str]:
        """The files of galaxies that the images were made with, and the hash of each."""
        with damage(f"{self.path}: its list of galaxies"):
            return dict(json.loads(self._open().attrs.get("galaxies", "{}")))

    @property
    def upscale(self) -> int:
        """Factor by which HR pixels are smaller."""
        return int(self._open().attrs["upscale"])

    @property
    def grid_lr(self) -> PixelGrid:
        """Pixels of /lr."""
        height, width = self._open()["lr"].shape[-2:]
        return PixelGrid(int(height), int(width), float(self._open().attrs["pixel_scale_lr"]))

    @property
    def grid_hr(self) -> PixelGrid:
        """Pixels of /hr and /alpha_hr."""
        return self.grid_lr.resampled(self.upscale)

    @property
    def is_result(self) -> bool:
        """Whether /hr holds what `lensphys super-resolve` made of /lr: images, and no truth."""
        return self._open().attrs.get("kind") == RESULT

    def check_no_result(self) -> None:
        """Raise if /hr holds no truth, but what `lensphys super-resolve` made.

        Raises:
            LensphysError: with the remedy.
        """
        if self.is_result:
            raise LensphysError(
                f"{self.path} holds super-resolved images and no truth: evaluate the file they come from"
            )

    @property
    def has_truth(self) -> bool:
        """Whether the file holds clean high-resolution images."""
        return "hr_clean" in self._open()

    @property
    def left_out(self) -> list[str]:
        """Datasets that the file can be read as if it held: they are computed from the lens models."""
        return [str(name) for name in self._open().attrs.get("left_out", ())]

    def has(self, name: str) -> bool:
        """Return whether a dataset can be read: the file holds it, or left it out."""
        return name in self._open() or name in self.left_out

    @property
    def labels(self) -> NDArray[np.integer[Any]]:
        """Index of each sample's class in `classes`, (N,)."""
        return self.labels_of()

    def labels_of(self, index: Index = slice(None)) -> NDArray[np.integer[Any]]:
        """Return the index in `classes` of some samples' class, (n,).

        Raises:
            LensphysError: if the file has no labels, or one that is no class of it.
        """
        labels = self.read("label", index).astype(np.int64)
        wrong = labels[(labels < 0) | (labels >= len(self.classes))]
        if len(wrong):
            raise LensphysError(
                f"{self.path} has the label {wrong[0]}, but {len(self.classes)} classes: mend /label, or make it again"
            )
        return labels

    def read(self, name: str, index: Index = slice(None)) -> NDArray[Any]:
        """Return some samples of a dataset, (n, ...): the first axis stays for a single index too.

        Args:
            name: ``lr, hr, hr_clean, lr_clean, alpha_hr, flux_scale, ...``.
            index: which samples, in any order.

        Raises:
            LensphysError: if there is no such dataset or sample, or the file is damaged.
        """
        rows = index if isinstance(index, slice) else self._rows(index)
        if name not in self._open() and name in self.left_out:
            return self._computed(name, rows)
        dataset = self._dataset(name)
        with damage(f"{self.path}: /{name}"):
            found = rows_of(dataset, rows)
            if name == "lens_model" and LENS_MODELS in self._open():
                check_sums(f"{self.path}: /{name}", found, rows_of(self._dataset(LENS_MODELS), rows))
        return found

    def _computed(self, name: str, rows: slice | NDArray[np.integer[Any]]) -> NDArray[Any]:
        """A dataset that was left out, from the lens models."""
        if name not in LEFT_OUT:
            raise LensphysError(f"{self.path} left out /{name}, which this lensphys cannot compute: take a newer one")
        texts = self.read("lens_model", rows)
        with damage(f"{self.path}: /lens_model"):
            return alpha_hr(texts, self.grid_hr, str(self._open().attrs.get("engine", "torch")))

    def lr(self, index: Index = slice(None)) -> Tensor:
        """Return low-resolution images, (n, 1, H, W) float32 [unit of the instrument, per pixel]."""
        return torch.from_numpy(np.ascontiguousarray(self.read("lr", index), dtype=np.float32))

    def sharp(self, name: str, index: Index = slice(None)) -> Tensor:
        """Return ``hr`` or ``hr_clean`` images in the unit of the low-resolution ones, (n, 1, sH, sW) float32.

        Those of a file without /flux_scale are in that unit already.
        """
        found = np.asarray(self.read(name, index), dtype=np.float64)
        if self.has("flux_scale"):
            found = found * np.asarray(self.read("flux_scale", index), dtype=np.float64).reshape(-1, 1, 1, 1)
        return torch.from_numpy(found.astype(np.float32))

    def conditions(self, index: Index = slice(None)) -> Conditions:
        """Return what of the PSF and the noise was drawn for each of some images, float32."""
        drawn = [name for name in CONDITIONS if name in self._open()]
        return Conditions(**{name: torch.as_tensor(self.read(name, index), dtype=torch.float32) for name in drawn})

    def observation(self, index: Index = slice(None), device: torch.device | str = "cpu") -> Observation:
        """Return low-resolution images and how each was taken; super-resolved, they have the PSF of `target`."""
        taken = self.instrument.observation(self.lr(index).to(device), self.conditions(index).to(device))
        return taken if self.target is None else taken.with_target_psf(self.target.psf_of())

    def lens_model(self, index: int) -> dict[str, Any]:
        """Return ``lens_model_list, kwargs_lens, source_light_model_list, kwargs_source`` of one sample."""
        return self.lens_models(index)[0]

    def lens_models(self, index: Index = slice(None)) -> list[dict[str, Any]]:
        """Return what `lens_model` does, of each of some samples.

        Raises:
            LensphysError: if there is no such sample, or its names and parameters are not as many: it is damaged.
        """
        texts = self.read("lens_model", index)
        with damage(f"{self.path}: /lens_model"):
            return [_lens_model(text) for text in texts]

    def _dataset(self, name: str) -> h5py.Dataset:
        file = self._open()
        if name not in file:
            known = ", ".join(sorted({*file, *self.left_out}))
            raise LensphysError(f"{self.path} has no /{name}, only {known}: choose one, or make it again")
        return file[name]

    def _rows(self, index: int | Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
        rows = np.atleast_1d(np.asarray(index, dtype=np.int64))
        rows = np.where(rows < 0, rows + len(self), rows)
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self)):
            raise LensphysError(f"{self.path} holds {counted(len(self), 'sample')}: index {index} is out of range")
        return rows


def _lens_model(text: str | bytes) -> dict[str, Any]:
    model: dict[str, Any] = dict(json.loads(text))
    for names, keywords in _PROFILES.items():
        found = len(model.get(names, ())), len(model.get(keywords, ()))
        if found[0] != found[1]:
            raise ValueError(f"{names} has {found[0]} names and {keywords} {found[1]} sets of parameters")
    return model
