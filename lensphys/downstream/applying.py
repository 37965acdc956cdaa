"""A trained reader as a folder, and what it says of a user's images."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat
from torch import Tensor

from lensphys.basics.checks import LensphysError, shortened
from lensphys.basics.outputs import whole_file
from lensphys.basics.provenance import SUPER_RESOLVING, provenance, source_hash
from lensphys.basics.runs import READER, WEIGHTS
from lensphys.basics.settings import Strict
from lensphys.data.images import Reading, read_images
from lensphys.downstream.inputs import AnyInput, Material, Seen
from lensphys.downstream.measures import of_classes
from lensphys.downstream.products import Product, Results, computed
from lensphys.downstream.readers import AnyReader, Trained
from lensphys.downstream.settings import Downstream
from lensphys.fits.header import same_scale
from lensphys.observation import Instrument, Observation
from lensphys.observation.fingerprint import fingerprint

if TYPE_CHECKING:
    from lensphys.downstream.lenses import Collection

_SETTINGS, _STATE = READER, "state.npz"


class SavedReader(Strict):
    """All that is needed to read other images with a trained reader.

    Args:
        reader: its settings.
        input: the name of what it looks at.
        inputs: that one, and those that it is made of.
        products: of which they are made.
        names: of the channels or numbers.
        classes: in their order; none for a number.
        target: the number.
        half_field: half side of what readers of images see [arcsec].
        pixel_scale: of the images that it learned from [arcsec].
        instrument: that took them.
        temperature: of the calibration.
        labelled: whether networks behind the input learned from classes, too.
        code: hash of the code that made the products.
        provenance: where it comes from.
    """

    reader: AnyReader
    input: str
    inputs: dict[str, AnyInput]
    products: dict[str, Product]
    names: list[str]
    classes: list[str]
    target: str | None
    half_field: PositiveFloat | None
    pixel_scale: PositiveFloat
    instrument: Instrument | None
    temperature: PositiveFloat
    labelled: bool = False
    code: str
    provenance: dict[str, Any]


def save_reader(
    trained: Trained, settings: Downstream, case: tuple[str, str, int, int], collection: Collection, folder: Path
) -> None:
    """Write a trained reader into a folder: ``reader.json`` and ``state.npz``, which holds plain arrays."""
    name, reader, budget, seed = case
    inputs, train = settings.closure(name), collection.sets["train"]
    saved = SavedReader(
        reader=settings.readers[reader],
        input=name,
        inputs=inputs,
        products={p: collection.origin(p).seen_from(folder) for x in inputs.values() for p in x.products},
        names=list(collection.seen("train", name).names),
        classes=list(train.target.classes),
        target=settings.target,
        half_field=settings.half_field,
        pixel_scale=train.material.observation.camera.grid.scale,
        instrument=collection.instrument,
        temperature=trained.temperature,
        labelled=bool(settings.labelled_products(name)),
        code=source_hash(*SUPER_RESOLVING),
        provenance=provenance(title=settings.title, budget=budget, seed=seed, data=train.provenance),
    )
    with whole_file(folder / _STATE) as temporary, temporary.open("wb") as file:
        arrays: dict[str, Any] = trained.state()
        np.savez_compressed(file, **arrays)
    with whole_file(folder / _SETTINGS) as temporary:
        temporary.write_text(saved.model_dump_json(indent=1, by_alias=True) + "\n", encoding="utf-8")


def load_reader(folder: Path, device: str = "cpu") -> tuple[SavedReader, Trained]:
    """Return a trained reader and what it needs.

    Raises:
        LensphysError: if the folder holds none, its state does not fit, or a run that it looks with is gone.
    """
    if not (folder / _SETTINGS).is_file() or not (folder / _STATE).is_file():
        raise LensphysError(f"{folder} holds no trained reader: name a folder in readers/ of `lensphys downstream`")
    try:
        tree = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
        with np.load(folder / _STATE, allow_pickle=False) as file:
            state = {name: file[name] for name in file.files}
    except Exception as error:  # a damaged file fails in any way
        raise LensphysError(f"{folder} is damaged ({shortened(str(error))}): run `lensphys downstream` again") from None
    saved = SavedReader.parse(tree, str(folder / _SETTINGS))
    found = {name: _found(product, name, folder) for name, product in saved.products.items()}
    saved = saved.model_copy(update={"products": found})
    trained = saved.reader.restored(state, len(saved.classes), device)
    trained.temperature = saved.temperature
    return saved, trained


def _found(product: Product, name: str, folder: Path) -> Product:
    """A product of a reader, its run where it lies now."""
    if product.run is None:
        return product
    places = [folder / product.run, Path(product.run)]  # versions up to 0.4.0 wrote it from where they were started
    place = next((place for place in places if (place / WEIGHTS).is_file()), None)
    if place is None:
        raise LensphysError(
            f"{folder / _SETTINGS} looks with the run {places[0].resolve()}, and its {WEIGHTS} is gone: copy it back, "
            f"or write where it is as 'run' of the product {name!r} there"
        )
    return product.trained_at(place)


def apply_reader(
    folder: Path, path: Path, *, instrument: Instrument | None = None, device: str = "cpu", workers: int = 1
) -> dict[str, Any]:
    """Return what a trained reader says of a user's images.

    Args:
        folder: of the reader.
        path: FITS, an .npy stack or an HDF5 file.
        instrument: of the images, where the file does not say; that of the training if None.
        device: where it computes.
        workers: processes that super-resolve side by side on a CPU.

    Returns:
        ``images``, a list of ``index``, ``probabilities`` by class and the likeliest ``class`` (or the number
        ``value``), and the ``quality`` of the fit, where there is one; ``remarks``; ``judged`` where the file has
        labels.

    Raises:
        LensphysError: if the reader or the images are faulty, or do not fit each other.
    """
    saved, trained = load_reader(folder, device)
    if wrong := [name for name, x in saved.inputs.items() if x.needs_hr]:
        raise LensphysError(f"{folder} reads true HR images ({wrong[0]}), which no user has: choose another reader")
    images = read_images(path, Reading(instrument, saved.instrument))
    answers, results = answered(saved, trained, images.observation, path, device=device, workers=workers)
    remarks = [*images.remarks]
    if saved.products and saved.code != source_hash(*SUPER_RESOLVING):
        remarks.append("the fits were made by different code than those that the reader learned from")
    found = {"images": _listed(saved, answers, images.index, results), "remarks": remarks}
    labelled = images.carried is not None and "label" in images.carried.columns
    return found | ({"judged": _judged(saved, answers, images.carried, path)} if labelled and saved.classes else {})


def answered(
    saved: SavedReader,
    trained: Trained,
    observation: Observation,
    path: Path,
    hr: Tensor | None = None,
    *,
    device: str = "cpu",
    workers: int = 1,
) -> tuple[NDArray[Any], dict[str, Results]]:
    """Return what a reader says of images, probabilities (N, K) or numbers (N,), and the products that it looked at.

    Args:
        saved: its settings.
        trained: the reader.
        observation: (N, 1, H, W) and how they were taken.
        path: of them, for messages.
        hr: true images (N, 1, sH, sW), for a reader of these.
        device: where methods compute.
        workers: processes that super-resolve side by side on a CPU.

    Raises:
        LensphysError: if the images are not such as it learned from.
    """
    _check_pixels(saved, observation, path)
    results = {name: computed(product, observation, fingerprint(observation), None, device=device, workers=workers)
               for name, product in saved.products.items()}  # fmt: skip
    seen = _seen(saved, Material(str(path), observation, results.__getitem__, hr, saved.half_field), saved.input)
    if list(seen.names) != saved.names:
        raise LensphysError(
            f"{path} gives the reader {', '.join(seen.names)}, and it learned from {', '.join(saved.names)}: train it "
            "again with this version"
        )
    return trained(seen.values), results


def _check_pixels(saved: SavedReader, observation: Observation, path: Path) -> None:
    scale = observation.camera.grid.scale
    if not same_scale(scale, saved.pixel_scale):
        raise LensphysError(
            f'{path} has pixels of {scale:.4g}", and the reader learned from pixels of {saved.pixel_scale:.4g}": train '
            "one on such images"
        )


def _seen(saved: SavedReader, material: Material, name: str) -> Seen:
    """An input of a reader, by its name."""
    return saved.inputs[name].seen(material, partial(_seen, saved, material))


def _listed(saved: SavedReader, answers: Any, index: Any, results: dict[str, Results]) -> list[dict[str, Any]]:
    """A row an image."""
    fits = [found for found in results.values() if "quality" in found]
    rows = []
    for k, i in enumerate(index.tolist()):
        row: dict[str, Any] = {"index": i}
        if saved.classes:
            row["class"] = saved.classes[int(answers[k].argmax())]
            row["probabilities"] = {name: float(p) for name, p in zip(saved.classes, answers[k], strict=True)}
        else:
            row["value"] = float(answers[k])
        if fits:
            row |= {"quality": str(fits[0]["quality"][k]), "reasons": str(fits[0]["reasons"][k])}
        rows.append(row)
    return rows


def _judged(saved: SavedReader, answers: Any, carried: Any, path: Path) -> dict[str, Any]:
    """What the answers are worth, where the file says the classes."""
    labels, names = carried.columns["label"].astype(int), carried.classes
    there = sorted({names[k] for k in labels})
    if not set(there) <= set(saved.classes):
        raise LensphysError(
            f"{path} has the classes {', '.join(there)}, and the reader tells {', '.join(saved.classes)} apart: use a "
            "file of the same"
        )
    own = np.array([saved.classes.index(names[k]) for k in labels])
    if len(set(own.tolist())) < len(saved.classes):
        return {"accuracy": float((answers.argmax(1) == own).mean())}
    found = of_classes(answers, own, saved.classes)
    return {name: found[name] for name in ("auc", "accuracy", "log_loss", "confusion", "ece")}
