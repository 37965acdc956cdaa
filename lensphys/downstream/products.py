"""What methods make of a set of images: computed once, kept with what it depends on, and refused where that changed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, model_validator

from lensphys.basics.checks import LensphysError, check_choice
from lensphys.basics.provenance import SUPER_RESOLVING, source_hash
from lensphys.basics.runs import WEIGHTS
from lensphys.basics.settings import Strict
from lensphys.basics.version import VERSION
from lensphys.data.kept import Kept, Stack
from lensphys.methods import READY, Method
from lensphys.methods.refined import with_rounds
from lensphys.methods.super_resolve import super_resolve
from lensphys.networks.base import Scale
from lensphys.observation import Observation
from lensphys.training.experiment import Experiment, load_run
from lensphys.weights import weights_folder

Results = Mapping[str, NDArray[Any]]

_IMAGES = ("image", "alpha", "residual", "bodies")  # of more than two dimensions; nothing else of that size is read
_CHUNK = 16  # images: what is lost of a run that is killed


class Product(Strict):
    """Super-resolution that readers look at: exactly one of ``ready``, ``weights``, ``run`` and ``train``.

    Args:
        ready: a method that needs no training.
        weights: those of the package.
        run: a run folder of `lensphys train`.
        train: ``method`` and ``training`` of an experiment of `lensphys train`: it learns from the lenses that teach
            the readers, and from no other.
        start: with ``train``, the product from whose weights it starts.
        refine: of weights or an amortised run, rounds of refinement: 0 is one pass, null until the fit stops improving.
        scale: factor by which pixels become smaller.
    """

    ready: str | None = None
    weights: str | None = None
    run: str | None = None
    train: dict[str, Any] | None = None
    start: Annotated[str | None, Field(alias="from")] = None
    refine: NonNegativeInt | None = None
    scale: Scale = 2

    @model_validator(mode="after")
    def _one_origin(self) -> Product:
        if sum(x is not None for x in (self.ready, self.weights, self.run, self.train)) != 1:
            raise ValueError("a product has exactly one of ready, weights, run and train")
        if self.start is not None and self.train is None:
            raise ValueError("'from' is of a product that is trained: give 'train', or leave it out")
        if self.train is not None and {"data", "start"} & set(self.train):
            raise ValueError(
                "a product is trained on the experiment's own lenses: leave 'data' and 'start' out of 'train'"
            )
        if self.ready is not None and self.refine is not None:
            raise ValueError("'refine' starts from a network's answer: give weights or run, not ready")
        return self

    @property
    def folder(self) -> Path | None:
        """Of its run or weights."""
        if self.run is not None:
            return Path(self.run)
        return None if self.weights is None else weights_folder(self.weights)

    def experiment(self, data: Path, start: Path | None = None) -> Experiment:
        """Return what a product with ``train`` trains.

        Args:
            data: file of the lenses to learn from.
            start: run folder whose weights it starts from.

        Raises:
            LensphysError: naming each faulty key.
        """
        tree = {**(self.train or {}), "data": {"file": str(data)}, "start": None if start is None else str(start)}
        return Experiment.parse(tree, "train")

    def trained_at(self, run: Path) -> Product:
        """Return the same product, once its training has left a run folder."""
        return self.model_copy(update={"run": str(run), "train": None, "start": None})

    def seen_from(self, reader: Path) -> Product:
        """Return the same product, its run as the folder of a reader, ``EXPERIMENT/readers/NAME``, finds it again.

        Within the experiment that is the way from there, and the whole may be moved; else it is an absolute path.
        """
        if self.run is None:
            return self
        run, home = Path(self.run).resolve(), reader.resolve()
        within = run.is_relative_to(home.parent.parent)
        return self.trained_at(Path(os.path.relpath(run, home)) if within else run)

    def method(self, device: str = "cpu") -> Method:
        """Return what super-resolves.

        Raises:
            LensphysError: if there is no such method, or its weights are missing.
        """
        if self.folder is None:
            check_choice("ready method", str(self.ready), list(READY))
            return READY[str(self.ready)]
        return with_rounds(load_run(self.folder).to(device), self.refine, self.folder)

    @property
    def identity(self) -> dict[str, Any]:
        """What the product of an image depends on, beside the image."""
        weights = None if self.folder is None else (self.folder / WEIGHTS).read_bytes()
        told = {} if weights is None else {"weights_sha256": hashlib.sha256(weights).hexdigest()}
        asked = self.model_dump(exclude={"run", "train", "start"})
        return asked | told | {"version": VERSION, "code": source_hash(*SUPER_RESOLVING)}


class _Chunks(Kept):
    """Chunks without what no reader looks at."""

    def keep(self, index: int, planes: Mapping[str, NDArray[Any]]) -> None:
        super().keep(index, {n: x for n, x in planes.items() if x.ndim <= 2 or n in _IMAGES})


def computed(
    product: Product, observation: Observation, images: str, folder: Path | None, *, device: str = "cpu",
    workers: int = 1,
) -> Results:  # fmt: skip
    """Return what a method makes of images, from the cache where it is there.

    Args:
        product: the method.
        observation: (N, 1, H, W).
        images: hash of what is super-resolved: pixels, and what is known of them.
        folder: of the cache; none if None.
        device: where the method computes.
        workers: processes side by side on a CPU.

    Raises:
        LensphysError: if the cache was made from other images, with other settings or by other code.
    """
    kept = None
    if folder is not None:
        identity = product.identity | {"images": images, "chunk": _CHUNK}
        _check_cache(folder, identity)
        kept = _Chunks(folder, identity, -(-len(observation) // _CHUNK))
    method = None if kept is not None and not kept.missing else product.method(device)
    found = super_resolve(
        method or _nobody, observation, product.scale, batch_size=_CHUNK, device=device, workers=workers, kept=kept
    )
    return {
        name: np.concatenate(list(x.chunks())) if isinstance(x, Stack) else np.asarray(x) for name, x in found.items()
    }


class _Nobody:
    """Stands for the method where nothing is left to compute."""

    def predict(self, observation: Observation, scale: int) -> Any:
        raise LensphysError("a product that is kept whole is not computed")


_nobody = _Nobody()


def _check_cache(folder: Path, identity: Mapping[str, Any]) -> None:
    path = folder / "identity.json"
    if not path.exists():
        return
    now = json.loads(json.dumps(identity, default=str))
    try:
        before = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError):
        raise LensphysError(f"{path} is damaged: remove the folder {folder} to compute it again") from None
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if changed:
        raise LensphysError(
            f"{folder} was made with another {', '.join(changed)}: remove the folder to compute it again, or choose "
            "another --out"
        )
