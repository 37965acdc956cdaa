"""What a file of images says by itself, before an instrument or the user says more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from astropy.io.fits import Header
from numpy.typing import NDArray

from lensphys.basics.checks import LensphysError, check_same_shape
from lensphys.basics.sentences import counted
from lensphys.data.hdf5 import ENDINGS
from lensphys.data.lens_file import LensFile
from lensphys.data.npy import as_float32, mapped_npy, open_npy
from lensphys.data.pixels import as_stack, check_size
from lensphys.fits.file import ASDF, PICTURE
from lensphys.fits.given import Subject
from lensphys.fits.header import pixel_scale as header_scale
from lensphys.fits.header import scale_conflict
from lensphys.fits.image import Choice, NoiseMap, fits_images, read_fits_image
from lensphys.fits.kernel import CubePlane, Kernel, same_plane
from lensphys.fits.masks import Mask, good_pixels, masks_lens
from lensphys.fits.units import is_magnitude, is_surface_brightness, unread
from lensphys.observation import (
    Conditions,
    Instrument,
)
from lensphys.observation.instrument import CONDITIONS

Array = NDArray[Any]
_FITS = (".fits", ".fit", ".fts", ".fits.gz", ".fits.bz2", ".fits.fz")
READ = {"FITS": _FITS, ".npz": (".npz",), ".npy": (".npy",), "HDF5": ENDINGS}
_ARCHIVE = "an archive: unpack it (of FITS files .fits.gz, .fits.bz2 and .fits.fz are read as they are)"
_OTHERS = {
    (".png", ".jpg", ".jpeg", ".gif", ".tif", ".tiff"): PICTURE,
    (".asdf",): ASDF,
    (".gz", ".bz2", ".fz", ".xz", ".z", ".zst", ".zip", ".tar", ".tgz"): _ARCHIVE,
}
WRITTEN = {"FITS": (".fits", ".fit"), ".npz": (".npz",), ".npy": (".npz",), "HDF5": ENDINGS}


@dataclass(frozen=True)
class Carried:
    """What a file of lenses, simulated or imported, says beside its images, and its results say after it.

    Args:
        instrument: of the images.
        identity: of the data set.
        classes: their names.
        columns: ``label`` (N,), and what was drawn of PSF and noise for each image, where the file has them.
        simulated: whether the images were: nothing is to be found in them that a telescope leaves.
    """

    instrument: Instrument
    identity: str
    classes: list[str]
    columns: dict[str, Array]
    simulated: bool = False

    @classmethod
    def of_parts(cls, parts: Sequence[Carried | None]) -> Carried | None:
        """Return what it says of all images, from what it says of parts of them; None where it says nothing."""
        told = [part for part in parts if part is not None]
        if not told:
            return None
        columns = {name: np.concatenate([part.columns[name] for part in told]) for name in told[0].columns}
        return replace(told[0], columns=columns)

    def rows(self, place: Array) -> Carried:
        """Return what it says of some images, by their places (n,), counted from 0."""
        return replace(self, columns={name: column[place] for name, column in self.columns.items()})


@dataclass(frozen=True)
class Contents:
    """What a file says by itself of its images, or of some of them.

    Args:
        pixels: (N, H, W).
        numbers: of these images in the file, (N,).
        total: how many images the file holds.
        scale: of the pixels [arcsec].
        mask: (1 or N, 1, H, W) bool, True where a pixel counts.
        noise: its map.
        kernel: of the PSF.
        carried: what a file of lenses says beside.
        conditions: what was drawn of PSF and noise for each image.
        header: of a FITS file.
        band: of the image.
        unit: of arrays that have one, as BUNIT would say it.
        plane: which one of a cube the image is.
        remarks: sentences for the user.
        where: the file and the extension, of one image of several arrays.
    """

    pixels: Array
    numbers: Array
    total: int
    scale: float | None = None
    mask: Array | None = None
    noise: NoiseMap | None = None
    kernel: Kernel | None = None
    carried: Carried | None = None
    conditions: Conditions = Conditions()
    header: Header | None = None
    band: str = ""
    unit: str = ""
    plane: CubePlane | None = None
    remarks: list[str] = field(default_factory=list)
    where: str = ""

    @property
    def units(self) -> Header | None:
        """The header that says the unit; None where nothing does."""
        return Header({"BUNIT": self.unit}) if self.header is None and self.unit else self.header

    @property
    def subject(self) -> Subject:
        """By what the images' maps in files of their own are told."""
        return Subject.of(self.band, self.header)

    @property
    def observed(self) -> bool:
        """Whether the images may show what a telescope leaves in them: a sky, bad pixels, padding."""
        return self.carried is None or not self.carried.simulated

    @property
    def instrument(self) -> Instrument | None:
        """What took the images, if the file says so."""
        return None if self.carried is None else self.carried.instrument

    def rows(self, place: Array) -> Contents:
        """Return what it says of some of the images, by their places here (n,), counted from 0."""
        if len(place) == len(self.pixels):
            return self
        carried = None if self.carried is None else self.carried.rows(place)
        conditions = self.conditions.rows(torch.from_numpy(place))
        mask = self.mask if self.mask is None or len(self.mask) == 1 else self.mask[place]
        noise = self.noise
        if noise is not None and noise.values.shape == self.pixels.shape:
            noise = replace(noise, values=noise.values[place])
        own = replace(self, pixels=self.pixels[place], numbers=self.numbers[place], mask=mask, noise=noise)
        return replace(own, carried=carried, conditions=conditions)

    def maps(self, values: Array, where: str) -> Array:
        """Return those of a file of maps that belong to the images, (H, W), or (N, H, W) of a map for each image.

        Args:
            values: one map for all images of the file, (H, W) or (1, H, W), or one for each, on the disk or in memory;
                of an image that is a plane of a cube also one for each plane.
            where: what they are called in errors.

        Raises:
            LensphysError: if there are as many of them as fit no file of so many images.
        """
        shape, values = self.pixels.shape[1:], same_plane(values, self.plane)
        if values.shape not in (shape, (1, *shape), (self.total, *shape)):
            stack = f", or of the stack, {(self.total, *shape)}" if self.total > 1 else ""
            raise LensphysError(f"{where} must have the shape of the image, {shape}{stack}, got {values.shape}")
        return values[self.numbers] if values.ndim == 3 and len(values) > 1 else np.asarray(values)


@dataclass(frozen=True)
class InMemory:
    """Images that are in memory, and not in a file.

    Args:
        pixels: (H, W) or (N, H, W) real numbers, rows = y.
        mask: (H, W), True where a pixel counts; all if None.
        unit: as BUNIT would say it; nothing if it is not known.
    """

    pixels: Array
    mask: Array | None = None
    unit: str = ""

    def __str__(self) -> str:
        return "the array"

    @property
    def contents(self) -> Contents:
        """What a file of them would say.

        Raises:
            LensphysError: if it is no stack of real numbers, they are logarithms, or the mask has another shape.
        """
        pixels = np.asarray(self.pixels)
        if pixels.dtype.kind not in "iuf" or pixels.ndim not in (2, 3):
            raise LensphysError(
                f"{self} must hold real numbers in the shape (H, W) or (N, H, W), got {pixels.dtype} {pixels.shape}"
            )
        stack = as_stack(self, pixels)
        check_size(self, stack)
        if is_magnitude(Header({"BUNIT": self.unit})):
            raise LensphysError(f"{self} holds magnitudes or another logarithm ({self.unit}): give fluxes")
        mask = None
        if self.mask is not None:
            check_same_shape("mask", np.shape(self.mask), "image", pixels.shape[-2:])
            mask = truth_values(np.asarray(self.mask))
            if masks_lens(Mask(mask, "mask", f"the mask of {self}"), pixels):
                raise LensphysError(
                    f"the mask of {self} masks the lens: it must be True where a pixel counts, give ~mask"
                )
        with np.errstate(over="ignore"):
            stack = np.ascontiguousarray(stack, dtype=np.float32)
        return Contents(stack, np.arange(len(stack)), len(stack), mask=mask, unit=self.unit)


def truth_values(mask: Array) -> Array:
    """Return a mask of ones and zeros as truth values, (H, W).

    Raises:
        LensphysError: if it holds anything else.
    """
    if mask.dtype.kind not in "biuf" or not np.isin(mask, (0, 1)).all():
        raise LensphysError("a mask must hold truth values, or 0 and 1: True where a pixel counts")
    return mask.astype(bool)


def is_image_file(path: Path) -> bool:
    """Return whether a file is one of images, by its name."""
    return path.name.lower().endswith(tuple(ending for endings in READ.values() for ending in endings))


def without_ending(name: str, endings: Iterable[str]) -> str:
    """Return the name of a file without that of some endings which it has.

    Example:
        >>> without_ending("a.FITS.gz", (".fits", ".fits.gz"))
        'a'
    """
    return name[: -len(next(ending for ending in endings if name.lower().endswith(ending)))]


def other_kind(path: Path) -> str | None:
    """Return what a file is by its name, and the remedy, where we know its kind and do not read it."""
    return next((words for endings, words in _OTHERS.items() if path.name.lower().endswith(endings)), None)


def passed_over(paths: Iterable[Path]) -> str | None:
    """Return what is to be said of the files that hold images of a kind that is not read; None if there are none.

    Args:
        paths: of files of any kind; those of no known one are nobody's images.
    """
    kinds = [(path.suffix.lower(), other_kind(path)) for path in paths if not is_image_file(path)]
    counts = Counter((ending, words) for ending, words in kinds if words is not None)
    if not counts:
        return None
    told = ", ".join(counted(count, f"{ending} file") for (ending, _), count in sorted(counts.items()))
    remedies = "; ".join(f"{ending} is {words}" for ending, words in sorted(counts))
    return f"passed over: {told} ({remedies})"


def kind_of(path: Path, suffixes: Mapping[str, tuple[str, ...]]) -> str:
    """Return which kind of file a name stands for: a key of ``suffixes``, `READ` or `WRITTEN`.

    Raises:
        LensphysError: if it stands for none of them.
    """
    for kind, endings in suffixes.items():
        if path.name.lower().endswith(endings):
            return kind
    known = ", ".join(ending for endings in suffixes.values() for ending in endings)
    told = other_kind(path)
    if told is not None and suffixes is READ:
        raise LensphysError(f"{path} is {told}")
    raise LensphysError(f"unknown kind of file {path}: expected a name that ends in one of {known}")


def images_in(path: Path, choice: Choice = Choice(), planes: bool = False) -> int | None:
    """Return how many images a stack holds, without reading them; None for a file that is read as one image.

    Args:
        path: of the file.
        choice: what of a FITS file is asked for.
        planes: whether each plane of a FITS cube (N, H, W) is an image, as of .npy and .npz; else those of
            (N, 1, H, W) alone.

    Raises:
        LensphysError: if the file is damaged.
    """
    kind = kind_of(path, READ)
    if kind in ("FITS", ".npz"):
        return fits_images(path, choice, planes or kind == ".npz")
    if kind == "HDF5":
        with LensFile(path) as file:
            return len(file)
    array = open_npy("input", path) if kind == ".npy" else None
    return len(array) if array is not None and array.ndim > 2 else None


def contents_of(path: Path, pixel_scale: float | None, choice: Choice, rows: Array | None) -> Contents:
    """Return what a file says by itself: see `lensphys.data.images.read_images`.

    Args:
        path: the file.
        pixel_scale: [arcsec], before that of the header; None for the header's.
        choice: what of a FITS file is asked for.
        rows: which images of a stack are read, (n,) in rising order; None for all of them.

    Raises:
        LensphysError: if the file is faulty, or is not of a kind that is read.
    """
    kind = kind_of(path, READ)
    if kind in ("FITS", ".npz"):
        count = fits_images(path, choice, kind == ".npz") if rows is None else None
        return _fits_contents(path, pixel_scale, choice, rows if count is None else np.arange(count))
    check_choice_of_fits(path, choice)
    if kind == "HDF5":
        return _lens_file_contents(path, rows)
    stack = as_stack(path, mapped_npy("input", path))
    check_size(path, stack)
    numbers = np.arange(len(stack)) if rows is None else rows
    return Contents(as_float32(stack[numbers]), numbers, len(stack))


def _lens_file_contents(path: Path, rows: Array | None) -> Contents:
    with LensFile(path) as file:
        numbers = np.arange(len(file)) if rows is None else rows
        columns = {name: file.read(name, numbers) for name in ("label", *CONDITIONS) if file.has(name)}
        return Contents(
            file.lr(numbers)[:, 0].numpy(),
            numbers,
            len(file),
            scale=file.grid_lr.scale,
            carried=Carried(file.instrument, file.identity, file.classes, columns, file.has("lens_model")),
            conditions=file.conditions(numbers),
            remarks=[f"{path.name} is a result of lensphys: its LR images are what is read"] if file.is_result else [],
        )


def _brightness(header: Header) -> list[str]:
    """What is to be said of an image in a unit per solid angle, or in one that no one could read."""
    if not is_surface_brightness(header):
        return unread(header)
    unit = header["BUNIT"]
    return [
        f"the image is a surface brightness ({unit}), and so is a result in FITS; in .npz, .h5 and Python it is "
        f"flux per pixel: of pixels s times as small, s^2 times it is {unit} again"
    ]


def _fits_contents(path: Path, pixel_scale: float | None, choice: Choice, rows: Array | None) -> Contents:
    found = read_fits_image(path, choice, rows)
    shape = found.image.shape[-2:]
    conflict = scale_conflict(found.header, str(path)) if pixel_scale is None else []
    return Contents(
        found.image.reshape(-1, *shape),
        np.arange(1) if rows is None else rows,
        found.total,
        scale=header_scale(found.header, str(path)) if pixel_scale is None else None,
        mask=None if found.mask is None else found.mask.reshape(-1, 1, *shape),
        noise=found.noise,
        kernel=found.psf,
        header=found.header,
        band=found.band,
        plane=found.plane,
        where=f"{path}[{found.used['image']}] (--ext takes another array)" if rows is None and found.unused else "",
        remarks=[*found.remarks, *conflict, *_brightness(found.header)],
    )


def masked(contents: Contents, mask: Mask, means: str | None) -> Contents:
    """Return the contents with the mask of a file of its own, and a remark on how it is read."""
    own = replace(mask, name=f"mask {mask.name}", values=contents.maps(mask.values, mask.where))
    good, how = good_pixels(own, contents.pixels, means)
    told = [f"{own.name}: {remark}" for remark in mask.remarks]
    return replace(contents, mask=good.reshape(-1, 1, *good.shape[-2:]), remarks=[*contents.remarks, how, *told])


def check_choice_of_fits(path: Path | InMemory, choice: Choice) -> None:
    """Raise where a choice within a FITS file was made, and the file is none."""
    means = None if "mask" in choice.given else choice.mask_means
    options = {"--ext": choice.extension, "--band": choice.band, "--mask-means": means}
    asked = [option for option, entry in options.items() if entry is not None]
    if asked:
        raise LensphysError(f"{', '.join(asked)} is about FITS files, and {path} is none")
