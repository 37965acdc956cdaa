"""Images of others, into our HDF5 file."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from lensphys.basics.checks import LensphysError, check_positive
from lensphys.basics.outputs import claimed, whole_file
from lensphys.basics.provenance import provenance, versions
from lensphys.basics.terminal import tracked
from lensphys.data.hdf5 import files_of, is_hdf5, new_dataset, new_file, reserved, sign
from lensphys.data.lens_file import FORMAT, FORMAT_VERSION
from lensphys.data.registration import Matching, Registration
from lensphys.data.sources import (
    Picked,
    Source,
    SourceImages,
    class_names,
    find_sources,
    is_axion,
    matched,
    read_contents,
)
from lensphys.fits.header import same_scale
from lensphys.observation import Instrument

Faulty = Literal["refuse", "leave out"]

Images = NDArray[np.float32]
Arrays = dict[str, NDArray[Any]]

_BATCH = 64  # images
_LISTED = 20  # inputs


@dataclass(frozen=True)
class Importing:
    """How images are imported.

    Args:
        instrument: what took the LR images; if None, their noise is estimated from each and no PSF is known.
        pixel_scale: of the LR images [arcsec]; goes before that of the instrument and of FITS headers.
        class_name: the class of all images.
        picked: which parts of object arrays are what.
        flux_scale: from the unit of the HR images, flux per pixel, to that of the LR images.
        faulty: what becomes of images with NaN or infinite pixels, and of pairs that cannot be registered: ``refuse``,
            or ``leave out`` and list.
        matching: how HR images are laid on their LR images; if None, they stay as they are. What was found stands in
            /hr_shift_x, /hr_shift_y and /hr_shift_sigma [arcsec], /hr_gain and /hr_offset, as simulated pairs have it.
        target: what took the HR images, if it is known: super-resolved images have its PSF.
        scale_tolerance: share by which the pixel scales of LR images may differ, and HR pixels from the ones that show
            the field of their LR image.

    Raises:
        LensphysError: if the flux scale is not positive, or is given and to be found, too.
    """

    instrument: Instrument | None = None
    pixel_scale: float | None = None
    class_name: str | None = None
    picked: Picked = Picked()
    flux_scale: float = 1.0
    faulty: Faulty = "refuse"
    matching: Matching | None = None
    target: Instrument | None = None
    scale_tolerance: float = 0.01

    def __post_init__(self) -> None:
        check_positive("--flux-scale", self.flux_scale)
        if self.matching is not None and self.matching.flux and self.flux_scale != 1:
            raise LensphysError("--flux-scale says what --match-flux is to find: give one of them")


@dataclass
class Imported:
    """What was imported.

    Args:
        path: the file that was written.
        classes: their names, in the order of the labels.
        count: images.
        skipped: images that were left out, each with its reason.
        remarks: sentences for the user: what was assumed or left behind.
    """

    path: Path
    classes: list[str]
    count: int = 0
    skipped: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Rows:
    """Some images of one file, of one class: lr (n, H, W), hr (n, sH, sW), their numbers in the file (n,)."""

    source: Source
    numbers: NDArray[np.int64]
    lr: Images
    hr: Images | None
    axion_mass: float
    found: tuple[Registration, ...] = ()

    def which(self, row: int) -> str:
        return f"image {self.numbers[row]} of {self.source.path}"

    def only(self, good: NDArray[np.bool_]) -> _Rows:
        hr = None if self.hr is None else self.hr[good]
        return replace(self, numbers=self.numbers[good], lr=self.lr[good], hr=hr)


@dataclass(frozen=True)
class _Job:
    """What is read, and how: twice, because a dataset without chunks must know its length before it is written.

    Args:
        sources: the LR files.
        targets: the HR file of each, if there are any.
        how: as asked for.
        classes: in the order of the labels.
        telescope: of the LR images.
    """

    sources: list[Source]
    targets: list[Source] | None
    how: Importing
    classes: list[str]
    telescope: Instrument

    @property
    def scale(self) -> float | None:
        """What the headers must say [arcsec]; None if it does not matter."""
        return None if self.how.pixel_scale is not None else self.telescope.pixel_scale


@dataclass
class _Column:
    """A dataset of the file: how many rows it has, of which shape and kind, and the hash of all."""

    shape: tuple[int, ...]
    kind: np.dtype[Any]
    rows: int = 0
    content: Any = field(default_factory=hashlib.sha256)


def import_images(
    inputs: Sequence[str | Path],
    out: str | Path,
    how: Importing = Importing(),
    *,
    hr: str | Path | None = None,
    overwrite: bool = False,
) -> Imported:
    """Import .npy files, stacks, FITS cut-outs and files of our own into one HDF5 file; a batch at a time in memory.

    Args:
        inputs: folders and files; a sub-folder's name is the class of its files.
        out: the HDF5 file.
        how: what the images are.
        hr: folder or file of high-resolution images, of the same names or in the same order; they become /hr.
        overwrite: a file that is there is replaced.

    Returns:
        What was imported.

    Raises:
        LensphysError: naming the first file that is faulty or does not fit the others; nothing is written then.
    """
    out = Path(out)
    if not is_hdf5(out):
        raise LensphysError(f"--out must be named *.h5 or *.hdf5, got {out}")
    sources = find_sources([Path(path) for path in inputs], how.class_name)
    targets = None if hr is None else matched(sources, find_sources([Path(hr)]))
    with claimed(out, _files(sources + (targets or [])), overwrite=overwrite):
        done, first = Imported(out, class_names(sources)), read_contents(sources[0], how.picked, scale=how.pixel_scale)
        telescope = _telescope(sources[0].path, how, first, done.remarks)
        if targets is not None and [s.name for s in sources] != [t.name for t in targets]:
            done.remarks.append("the HR files are matched with the inputs by their order, because their names differ")
        job = _Job(sources, targets, how, done.classes, telescope)
        columns = _survey(job, done)
        attributes = _attributes(telescope, done.classes, columns) | _origin(inputs, hr, how.matching)
        attributes |= {} if how.target is None else {"target_instrument": how.target.model_dump_json()}
        with whole_file(out) as temporary:
            _write(temporary, job, columns, attributes, f"{telescope.unit} per pixel")
    return done


def _files(sources: Sequence[Source]) -> list[Path]:
    paths = dict.fromkeys(source.path for source in sources)
    return [file for path in paths for file in (files_of(path) if is_hdf5(path) else [path])]


def _telescope(path: Path, how: Importing, first: SourceImages, remarks: list[str]) -> Instrument:
    """What took the LR images, with their pixel scale."""
    given = how.instrument or first.instrument
    if how.pixel_scale is not None:
        check_positive("--pixel-scale", how.pixel_scale)
    scale = how.pixel_scale or first.pixel_scale or (given.pixel_scale if given is not None else None)
    if scale is None:
        raise LensphysError(f"{path} has no pixel scale: give --pixel-scale in arcsec, or --instrument")
    if given is not None:
        if not same_scale(scale, given.pixel_scale):
            remarks.append(f'the pixels have {scale:.4g}", not the {given.pixel_scale:.4g}" of the instrument')
        return given.model_copy(update={"pixel_scale": float(scale)})
    remarks.append("no PSF is known and the noise is estimated from each image: give --instrument for better")
    tree: dict[str, Any] = {"version": 1, "description": "imported images, noise estimated from each", "unit": "e-/s"}
    tree |= {"pixel_scale": float(scale), "psf": {"kind": "unknown"}, "noise": {"kind": "estimated"}}
    return Instrument.parse(tree, "instrument of imported images")


def _attributes(telescope: Instrument, classes: list[str], columns: dict[str, _Column]) -> dict[str, Any]:
    upscale = columns["hr"].shape[-1] // columns["lr"].shape[-1] if "hr" in columns else 1
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "identity": _identity(telescope, classes, columns),
        "instrument": telescope.model_dump_json(),
        "classes": classes,
        "pixel_scale_lr": telescope.pixel_scale,
        "pixel_scale_hr": telescope.pixel_scale / upscale,
        "upscale": upscale,
        "versions": json.dumps(versions()),
    }


def _origin(inputs: Sequence[str | Path], hr: str | Path | None, matching: Matching | None) -> dict[str, str]:
    listed = [str(path) for path in inputs[:_LISTED]]
    origin: dict[str, Any] = {"inputs": listed, "number_of_inputs": len(inputs), "hr": None if hr is None else str(hr)}
    if matching is not None:
        origin["matching"] = {"shift": matching.shift, "flux": matching.flux, "hr_psf": repr(matching.hr_psf)}
    return {"imported": json.dumps(provenance(**origin))}


def _survey(job: _Job, done: Imported) -> dict[str, _Column]:
    """Read everything once: the datasets that the good images will fill, before anything is written."""
    columns: dict[str, _Column] = {}
    left_out: set[str] = set()
    known = False
    for batch in _good(job, "checking", left_out, done.skipped):
        for name, values in _arrays(job, batch).items():
            column = columns.setdefault(name, _Column(values.shape[1:], values.dtype))
            if column.shape != values.shape[1:]:
                raise LensphysError(
                    f"{batch.which(0)}: /{name} would have images of {values.shape[2:]} after those of "
                    f"{column.shape[1:]}"
                )
            column.rows += len(values)
            column.content.update(np.ascontiguousarray(values))
        known = known or not np.isnan(batch.axion_mass)
    if not columns:
        first = f" (the first: {done.skipped[0]})" if done.skipped else ""
        bad = "its only image is" if len(done.skipped) == 1 else f"all {len(done.skipped)} images are"
        raise LensphysError(f"there is nothing to import: {bad} bad{first}")
    if not known:  # nobody asked for it
        columns.pop("axion_mass", None)
    if left_out:
        names = ", ".join(sorted(left_out))
        done.remarks.append(f"{names} of the files are not stored: super-resolve those files themselves to use them")
    done.count = columns["lr"].rows
    return columns


def _arrays(job: _Job, batch: _Rows) -> Arrays:
    n = len(batch.lr)
    label = np.full(n, job.classes.index(batch.source.class_name), np.int64)
    arrays: Arrays = {"lr": batch.lr[:, None], "label": label}
    if batch.hr is not None:
        arrays |= {"hr": batch.hr[:, None], "flux_scale": np.full(n, job.how.flux_scale)}
    if job.how.matching is not None:
        arrays |= job.how.matching.columns(batch.found)
    if any(is_axion(name) for name in job.classes):
        arrays["axion_mass"] = np.full(n, batch.axion_mass)
    return arrays


def _write(path: Path, job: _Job, columns: dict[str, _Column], attributes: dict[str, Any], unit: str) -> None:
    """Read everything again, into datasets like those of `lensphys simulate`."""
    units = {"lr": unit, "axion_mass": "eV"} | (job.how.matching.units(unit) if job.how.matching else {})
    size = sum(c.rows * math.prod(c.shape) * c.kind.itemsize for c in columns.values())
    with new_file(path) as file:
        with reserved(file, size):
            file.attrs.update(attributes)
            sign(file)
            _describe(file, columns, units)
        start, rows = 0, columns["lr"].rows
        for batch in _good(job, "importing", set(), []):
            end = start + len(batch.lr)
            for name, values in _arrays(job, batch).items() if end <= rows else ():
                if name in columns:
                    file[name][start:end] = values
            start = end
        if start != rows:
            raise LensphysError(
                f"the inputs had {rows} good images and now have {start}: import them when they no longer change"
            )


def _describe(file: h5py.File, columns: dict[str, _Column], units: dict[str, str]) -> None:
    for name, column in columns.items():
        dataset = new_dataset(file, name, (column.rows, *column.shape), column.kind)
        dataset.attrs.update({"unit": units[name]} if name in units else {})


def _identity(telescope: Instrument, classes: list[str], columns: dict[str, _Column]) -> str:
    """The hash of what is written, wherever it came from."""
    hashes = {name: [*column.shape, str(column.kind), column.content.hexdigest()] for name, column in columns.items()}
    tree = {"instrument": telescope.model_dump_json(), "classes": classes, "datasets": hashes}
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _read(job: _Job, description: str, left_out: set[str]) -> Iterator[_Rows]:
    """All images in batches, of one shape; each file is opened once. What does not go along is told in ``left_out``."""
    shape: tuple[int, ...] | None = None
    for i, source in enumerate(tracked(job.sources, description)):
        lr = read_contents(source, job.how.picked, scale=job.how.pixel_scale)
        own = lr.images.shape[1:]
        shape = shape or own
        if own != shape:
            raise LensphysError(
                f"{source.path} has images of {own}, those before it of {shape}: import them separately"
            )
        if job.scale and lr.pixel_scale and not same_scale(lr.pixel_scale, job.scale, job.how.scale_tolerance):
            raise LensphysError(
                f'{source.path} has pixels of {lr.pixel_scale:.4g}", not {job.scale:.4g}" like the others: import '
                "it separately, or give --pixel-scale"
            )
        fine: Iterator[Images | None] = repeat(None)
        if job.targets is not None:
            hr = read_contents(job.targets[i], job.how.picked, "hr")
            _check_pair(source.path, lr, job.targets[i].path, hr, job.how.scale_tolerance)
            fine = hr.batches(_BATCH)
        left_out.update(lr.left_out)
        for k, (coarse, sharp) in enumerate(zip(lr.batches(_BATCH), fine, strict=False)):
            yield _Rows(source, k * _BATCH + np.arange(len(coarse)), coarse, sharp, lr.axion_mass)


def _check_pair(path: Path, lr: SourceImages, target: Path, hr: SourceImages, scale_tolerance: float) -> None:
    """Raise unless two files hold as many images, of the same fields."""
    if len(hr.images) != len(lr.images):
        raise LensphysError(f"{target} holds {len(hr.images)} HR images for the {len(lr.images)} of {path}")
    (h, w), (height, width) = lr.images.shape[1:], hr.images.shape[1:]
    if height % h or width % w or height // h != width // w:
        raise LensphysError(
            f"{target}: HR images of {(height, width)} are no whole multiple of the LR images {(h, w)} of {path}"
        )
    large, small = lr.pixel_scale, hr.pixel_scale
    if large and small and not same_scale(small * width / w, large, scale_tolerance):
        raise LensphysError(
            f'{target}: HR pixels of {small:.4g}" in {width // w} times as many along a side do not '
            f'show the field of {path}, pixels of {large:.4g}": cut both to the same field'
        )


def _good(job: _Job, description: str, left_out: set[str], skipped: list[str]) -> Iterator[_Rows]:
    """The good images, laid upon each other where that is asked for."""
    checked = _checked(_read(job, description, left_out), skipped, faulty=job.how.faulty)
    return checked if job.how.matching is None else _laid(checked, job, job.how.matching, skipped)


def _laid(rows: Iterator[_Rows], job: _Job, matching: Matching, skipped: list[str]) -> Iterator[_Rows]:
    """Pairs whose HR image lies on its LR image; one that cannot is refused, or left out if bad ones are skipped."""
    for batch in rows:
        found: dict[int, Registration] = {}
        for row, (lr, hr) in enumerate(zip(batch.lr, _hr(batch), strict=True)):
            try:
                found[row] = matching.register(lr, hr, job.telescope)
            except LensphysError as error:
                reason = f"{batch.which(row)}: {error}"
                if job.how.faulty == "refuse":
                    raise LensphysError(f"{reason}; --skip-bad leaves all such images out") from None
                skipped.append(reason)
        if found:
            good = batch.only(np.isin(np.arange(len(batch.lr)), list(found)))
            laid = np.stack([one.undone(hr) for one, hr in zip(found.values(), _hr(good), strict=True)])
            yield replace(good, hr=laid.astype(np.float32), found=tuple(found.values()))


def _hr(batch: _Rows) -> Images:
    if batch.hr is None:
        raise LensphysError("--register and --match-flux are about pairs: give the HR images, --hr")
    return batch.hr


def _checked(rows: Iterator[_Rows], skipped: list[str], *, faulty: Faulty) -> Iterator[_Rows]:
    """The images whose pixels are finite, if bad ones are skipped; a bad one is refused if not."""
    for batch in rows:
        planes = (batch.lr,) if batch.hr is None else (batch.lr, batch.hr)
        good = np.array([all(np.isfinite(x[row]).all() for x in planes) for row in range(len(batch.lr))])
        for row in np.flatnonzero(~good):
            reason = f"{batch.which(int(row))} has NaN or infinite pixels"
            if faulty == "refuse":
                raise LensphysError(f"{reason}: mend it, or give --skip-bad to leave such images out")
            skipped.append(reason)
        if good.any():
            yield batch.only(good)
