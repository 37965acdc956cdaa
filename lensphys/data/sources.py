"""Where images that are to be imported come from: folders, .npy files of any make, and FITS cut-outs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensphys.basics.checks import LensphysError
from lensphys.data.contents import READ, other_kind, without_ending
from lensphys.data.hdf5 import ENDINGS, is_hdf5
from lensphys.data.lens_file import LensFile
from lensphys.data.npy import open_npy
from lensphys.data.pixels import as_stack, check_size
from lensphys.data.restricted_pickle import Fields, read_fields
from lensphys.fits.header import pixel_scale
from lensphys.fits.image import PIXELS, Choice, fits_images, read_fits_image
from lensphys.observation import Instrument
from lensphys.observation.instrument import CONDITIONS

_FITS = READ["FITS"]
_SUFFIXES = (".npy", *_FITS, *ENDINGS)
_SINGLE_CLASS = "lens"
_MOST_CLASSES = 100
_FIRST_CLASSES = ("no_sub", "no", "axion", "vort", "cdm", "sphere")


@dataclass(frozen=True)
class Picked:
    """Which parts of an object array are what; plain arrays and FITS files have no parts.

    Args:
        image: position or key of the image; the first array of two dimensions if None.
        axion_mass: position or key of the axion mass [eV], read in axion (vortex) classes; none if None.
    """

    image: int | str | None = None
    axion_mass: int | str | None = None


@dataclass(frozen=True)
class Source:
    """A file of images.

    Args:
        path: the file.
        class_name: of all its images.
        name: what a matching HR file has as well: the path inside of its folder, without suffix.
        rows: of a file of our own, which holds several classes: those of this one.
    """

    path: Path
    class_name: str
    name: str
    rows: tuple[int, ...] | None = None


@dataclass(frozen=True)
class _Stored:
    """Images in a file as if they were an array (N, H, W), read when they are asked for.

    Args:
        shape: (N, H, W).
        read: returns some of them, (n, H, W), by their places, (n,).
    """

    shape: tuple[int, ...]
    read: Callable[[NDArray[np.int64]], NDArray[Any]]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> NDArray[Any]:
        return self.read(np.arange(len(self))[part])


@dataclass(frozen=True)
class SourceImages:
    """The images of a source, and what its file says of them.

    Args:
        images: (N, H, W), as they lie in the file.
        pixel_scale: [arcsec], if the file has one.
        axion_mass: [eV]; NaN without one.
        left_out: what lies beside the image and does not go along.
        instrument: what took the images, if the file says so.
    """

    images: NDArray[Any] | _Stored
    pixel_scale: float | None = None
    instrument: Instrument | None = None
    axion_mass: float = float("nan")
    left_out: list[str] = field(default_factory=list)

    def batches(self, size: int) -> Iterator[NDArray[np.float32]]:
        """Return the images in batches (n, H, W), float32; what overflows becomes infinite."""
        for start in range(0, len(self.images), size):
            with np.errstate(over="ignore"):
                yield np.ascontiguousarray(self.images[start : start + size], dtype=np.float32)


def find_sources(inputs: Sequence[Path], class_name: str | None = None) -> list[Source]:
    """Return the .npy and FITS files of folders (with what lies in their folders) and of paths, in natural order.

    A file's class is the name of the folder that it was found in; of files that are named themselves only if they lie
    in different folders.

    Args:
        inputs: folders and files.
        class_name: the class of all files.

    Raises:
        LensphysError: if a path is missing or of another kind, or there is no file.
    """
    alone = [path for path in inputs if not path.is_dir()]
    folders = {path.absolute().parent for path in alone}
    found = []
    for path in inputs:
        if path.is_dir():
            inside = sorted((p for p in path.rglob("*") if _is_image(p)), key=lambda p: _natural(str(p)))
            if not inside:
                raise LensphysError(f"the folder {path} holds no file {', '.join('*' + s for s in _SUFFIXES)}")
            found += [
                Source(p, p.absolute().parent.name, without_ending(p.relative_to(path).as_posix(), _SUFFIXES))
                for p in inside
            ]
        elif not path.is_file():
            raise LensphysError(f"input not found: {path} is neither a file nor a folder")
        elif not _is_image(path):
            if told := other_kind(path):
                raise LensphysError(f"cannot import {path}: it is {told}")
            raise LensphysError(f"cannot import {path}: expected a folder, or a file *{', *'.join(_SUFFIXES)}")
        else:
            own = path.absolute().parent.name if len(folders) > 1 else _SINGLE_CLASS
            found.append(Source(path, own, without_ending(path.name, _SUFFIXES)))
    if not found:
        raise LensphysError("there is nothing to import: give folders or files")
    found = [one for source in found for one in _classes_of(source)]
    return found if class_name is None else [replace(source, class_name=class_name) for source in found]


def _classes_of(source: Source) -> list[Source]:
    """A file of our own as one source for each of its classes; any other file as it is."""
    if not is_hdf5(source.path):
        return [source]
    with LensFile(source.path) as file:
        names = file.classes
        labels = file.labels if file.has("label") else np.zeros(len(file), np.int64)
    parts = {name: tuple(np.flatnonzero(labels == k).tolist()) for k, name in enumerate(names)}
    alone = len(parts) == 1  # its name matches whatever other files have
    return [
        Source(source.path, name, source.name if alone else f"{source.name}/{name}", rows)
        for name, rows in parts.items()
        if rows
    ]


def class_names(sources: Sequence[Source]) -> list[str]:
    """Return the classes in the order of their labels: the usual names as usual, others by the alphabet.

    Raises:
        LensphysError: if there are so many that each image must have a folder of its own.
    """
    names = {source.class_name for source in sources}
    if len(names) > _MOST_CLASSES:
        raise LensphysError(f"the inputs lie in {len(names)} folders, too many to be classes: give --class NAME")
    order = {name: place for place, name in enumerate(_FIRST_CLASSES)}
    return sorted(names, key=lambda name: (order.get(name, len(order)), name))


def matched(sources: Sequence[Source], targets: Sequence[Source]) -> list[Source]:
    """Return the HR file of each LR file: that of the same name, or if no name is the same, that in the same place.

    Raises:
        LensphysError: naming the first file without a match.
    """
    pairs = zip(sources, targets, strict=False)
    if odd := next((t for s, t in pairs if s.rows is not None and t.rows is not None and s.rows != t.rows), None):
        raise LensphysError(
            f"{odd.path} does not have the same classes in the same rows as the LR images: pair such files"
        )
    by_name = {target.name: target for target in targets}
    names = [source.name for source in sources]
    if len(by_name) == len(targets) and len(set(names)) == len(names) and set(names) & set(by_name):
        for source in sources:
            if source.name not in by_name:
                raise LensphysError(f"{source.path} has no HR image: --hr holds no file {source.name}.npy or .fits")
        return [by_name[name] for name in names]
    if len(sources) != len(targets):
        raise LensphysError(
            f"--hr has {len(targets)} files for {len(sources)} inputs and no name in common (the first ones: "
            f"{targets[0].name}, {names[0]}): give each pair the same name"
        )
    return list(targets)


def is_axion(class_name: str) -> bool:
    """Return whether the samples of a class have an axion mass."""
    return any(word in class_name.lower() for word in ("axion", "vort"))


def read_contents(source: Source, picked: Picked, dataset: str = "lr", scale: float | None = None) -> SourceImages:
    """Return what a file holds.

    Args:
        source: the file.
        picked: which parts of an object array are what.
        dataset: of a file of our own, ``lr`` or ``hr``.
        scale: of the pixels [arcsec], before that of a FITS header.

    Raises:
        LensphysError: if it is damaged, or holds no images.
    """
    if source.rows is not None:
        return _own_contents(source.path, source.rows, dataset)
    if source.path.name.lower().endswith(_FITS):
        return _fits_contents(source.path, scale)
    plain = open_npy("input", source.path)
    if plain is not None:
        return SourceImages(_images(source.path, plain))
    fields = read_fields("input", source.path)
    images = _images(source.path, _image_of(source.path, fields, picked.image))
    if picked.axion_mass is None or not is_axion(source.class_name):
        return SourceImages(images)
    try:
        mass = np.asarray(_part(source.path, fields, picked.axion_mass, "axion mass"))
        known = mass.size == 1 and mass.dtype.kind in "iuf"
    except LensphysError:
        raise
    except (ValueError, RecursionError):  # lists of lists of different lengths
        known = False
    if not known:
        raise LensphysError(
            f"{source.path}: {picked.axion_mass!r} is not the axion mass, a number: choose another field"
        )
    return SourceImages(images, axion_mass=float(mass.reshape(())))


def _own_contents(path: Path, rows: Sequence[int], dataset: str) -> SourceImages:
    def read(places: NDArray[np.int64]) -> NDArray[Any]:
        with file:  # open for this read alone: an import may be of more files than may be open
            some = np.array(rows)[places]
            return np.asarray((file.sharp("hr", some).numpy() if dataset == "hr" else file.read(dataset, some))[:, 0])

    with LensFile(path) as file:
        grid = file.grid_hr if dataset == "hr" else file.grid_lr
        file.read(dataset, [0])  # refused here if there are none
        drawn = [name for name in CONDITIONS if file.has(name)] if dataset == "lr" else []
        return SourceImages(_Stored((len(rows), *grid.shape), read), grid.scale, file.instrument, left_out=drawn)


def _fits_contents(path: Path, scale: float | None) -> SourceImages:
    if fits_images(path, PIXELS, planes=True) is not None:
        return _stack_contents(path, scale)
    found = read_fits_image(path, Choice(mask_means="good"))  # whatever it means: it is not stored
    left_out = [name for what, name in found.used.items() if what != "image"]
    return SourceImages(_images(path, found.image), scale or pixel_scale(found.header, str(path)), left_out=left_out)


def _stack_contents(path: Path, scale: float | None) -> SourceImages:
    if fits_images(path, PIXELS, planes=False) is None:
        raise LensphysError(
            f"{path} is a cube: save it as (N, 1, H, W) if each plane is a lens of its own, else one plane as (H, W)"
        )
    first = read_fits_image(path, PIXELS, np.arange(1))
    check_size(path, first.image)
    images = _Stored((first.total, *first.image.shape[1:]), lambda rows: read_fits_image(path, PIXELS, rows).image)
    return SourceImages(images, scale or pixel_scale(first.header, str(path)), left_out=list(first.unused))


def _image_of(path: Path, fields: Fields, chosen: int | str | None) -> NDArray[Any]:
    if chosen is not None:
        image = _part(path, fields, chosen, "image")
        if not isinstance(image, np.ndarray) or image.dtype.kind not in "iuf":
            raise LensphysError(f"{path}: {chosen!r} is no array of numbers but {_kind(image)}: choose another field")
        return image
    for value in fields.values():
        if isinstance(value, np.ndarray) and value.dtype.kind in "iuf" and _squeezed(value).ndim == 2:
            return value
    held = ", ".join(f"{key}: {_kind(value)}" for key, value in list(fields.items())[:8])
    raise LensphysError(f"{path} holds no image (H, W) among its objects ({held}): choose one with --field or --key")


def _part(path: Path, fields: Fields, chosen: int | str, what: str) -> Any:
    if chosen in fields:
        return fields[chosen]
    if isinstance(chosen, int) and 0 <= chosen < len(fields):  # of a dict, by the order of its keys
        return list(fields.values())[chosen]
    held = ", ".join(str(key) for key in list(fields)[:8])
    raise LensphysError(f"{path} has no field {chosen!r} for the {what}: it holds {held}")


def _images(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    images = as_stack(path, array)
    check_size(path, images)
    return images


def _squeezed(array: NDArray[Any]) -> NDArray[Any]:
    while array.ndim > 2 and len(array) == 1:
        array = array[0]
    return array


def _kind(value: Any) -> str:
    return f"array {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def _is_image(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and path.name.lower().endswith(_SUFFIXES)


def _natural(text: str) -> list[Any]:
    """A key that puts sample_2 before sample_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]
