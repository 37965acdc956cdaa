"""Images of others, into our HDF5 file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lensphys.checks import LensphysError, check_positive
from lensphys.data.lens_file import FORMAT, FORMAT_VERSION
from lensphys.data.sources import (
    Contents,
    Picked,
    Source,
    class_names,
    find_sources,
    is_axion,
    matched,
    read_contents,
)
from lensphys.observation import Instrument
from lensphys.provenance import provenance, versions, whole_file

Images = NDArray[np.float32]

_BATCH = 64  # images
_LISTED = 20  # inputs
_SAME_SCALE = 0.01


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
    """Some images of one file, of one class: lr (n, H, W), hr (n, sH, sW)."""

    source: Source
    first: int
    lr: Images
    hr: Images | None
    axion_mass: float

    def which(self, row: int) -> str:
        return f"image {self.first + row} of {self.source.path}"

    def only(self, good: NDArray[np.bool_]) -> _Rows:
        hr = None if self.hr is None else self.hr[good]
        return _Rows(self.source, self.first, self.lr[good], hr, self.axion_mass)


def import_images(
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    hr: str | Path | None = None,
    instrument: Instrument | None = None,
    pixel_scale: float | None = None,
    class_name: str | None = None,
    picked: Picked = Picked(),
    flux_scale: float = 1.0,
    skip_bad: bool = False,
) -> Imported:
    """Import folders of .npy files, stacks and FITS cut-outs into one HDF5 file; never more than a batch in memory.

    Args:
        inputs: folders and files; a sub-folder's name is the class of its files.
        out: the HDF5 file.
        hr: folder or file of high-resolution images, of the same names or in the same order; they become /hr.
        instrument: what took the LR images; if None, their noise is estimated from each and no PSF is known.
        pixel_scale: of the LR images [arcsec]; goes before that of the instrument and of FITS headers.
        class_name: the class of all images.
        picked: which parts of object arrays are what.
        flux_scale: from the unit of the HR images, flux per pixel, to that of the LR images.
        skip_bad: whether images with NaN or infinite pixels are left out and listed, not refused.

    Returns:
        What was imported.

    Raises:
        LensphysError: naming the first file that is faulty or does not fit the others; nothing is written then.
    """
    out = Path(out)
    check_positive("--flux-scale", flux_scale)
    _check_new(out)
    sources = find_sources([Path(path) for path in inputs], class_name)
    targets = None if hr is None else matched(sources, find_sources([Path(hr)]))
    done = Imported(out, class_names(sources))
    telescope = _instrument(sources[0].path, instrument, pixel_scale, read_contents(sources[0], picked), done.remarks)
    if targets is not None and [s.name for s in sources] != [t.name for t in targets]:
        done.remarks.append("the HR files are matched with the inputs by their order, because their names differ")
    with whole_file(out) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(_attributes(telescope, done.classes, [*sources, *(targets or [])]))
        rows = _read(sources, targets, picked, None if pixel_scale is not None else telescope.pixel_scale, done)
        for good in _checked(rows, done.skipped, skip_bad=skip_bad):
            _append(file, good, done.classes, flux_scale)
            done.count += len(good.lr)
        if done.count == 0:
            raise LensphysError(f"there is nothing to import: all {len(done.skipped)} images are bad")
        _finish(file, telescope, [str(path) for path in inputs], hr)
    return done


def _check_new(out: Path) -> None:
    if out.suffix not in (".h5", ".hdf5"):
        raise LensphysError(f"--out must be named *.h5 or *.hdf5, got {out}")
    if out.exists():
        raise LensphysError(f"{out} exists: remove it, or choose another --out")


def _instrument(
    path: Path, given: Instrument | None, pixel_scale: float | None, first: Contents, remarks: list[str]
) -> Instrument:
    if pixel_scale is not None:
        check_positive("--pixel-scale", pixel_scale)
    scale = pixel_scale or first.pixel_scale or (given.pixel_scale if given is not None else None)
    if scale is None:
        raise LensphysError(f"{path} has no pixel scale: give --pixel-scale in arcsec, or --instrument")
    if given is not None:
        if abs(scale / given.pixel_scale - 1) > _SAME_SCALE:
            remarks.append(f'the pixels have {scale:.4g}", not the {given.pixel_scale:.4g}" of the instrument')
        return given.model_copy(update={"pixel_scale": float(scale)})
    remarks.append("no PSF is known and the noise is estimated from each image: give --instrument for better")
    tree: dict[str, Any] = {"version": 1, "description": "imported images, noise estimated from each", "unit": "e-/s"}
    tree |= {"pixel_scale": float(scale), "psf": {"kind": "none"}, "noise": {"kind": "estimated"}}
    return Instrument.parse(tree, "instrument of imported images")


def _attributes(telescope: Instrument, classes: list[str], files: list[Source]) -> dict[str, Any]:
    listed = [(str(source.path), source.path.stat().st_size) for source in files]
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "identity": hashlib.sha256(json.dumps(listed).encode()).hexdigest(),
        "instrument": telescope.model_dump_json(),
        "classes": classes,
        "pixel_scale_lr": telescope.pixel_scale,
        "versions": json.dumps(versions()),
    }


def _read(
    sources: list[Source], targets: list[Source] | None, picked: Picked, scale: float | None, done: Imported
) -> Iterator[_Rows]:
    """All images in batches, of one shape; each file is opened once."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shape: tuple[int, ...] | None = None
    left_out: set[str] = set()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        for i, source in enumerate(progress.track(sources, description="importing")):
            lr = read_contents(source, picked)
            hr = None if targets is None else read_contents(targets[i], picked)
            own = lr.images.shape[1:]
            shape = shape or own
            if own != shape:
                raise LensphysError(f"{source.path} has images of {own}, those before it of {shape}: import them apart")
            if scale and lr.pixel_scale and abs(lr.pixel_scale / scale - 1) > _SAME_SCALE:
                raise LensphysError(
                    f'{source.path} has pixels of {lr.pixel_scale:.4g}", not {scale:.4g}" like the others: import it '
                    "apart, or give --pixel-scale"
                )
            if hr is not None and targets is not None and len(hr.images) != len(lr.images):
                raise LensphysError(
                    f"{targets[i].path} holds {len(hr.images)} HR images for the {len(lr.images)} of {source.path}"
                )
            left_out.update(lr.left_out)
            yield from _batches(source, lr, hr, None if targets is None else targets[i].path)
    if left_out:
        names = ", ".join(sorted(left_out))
        done.remarks.append(
            f"{names} of the FITS files are not stored: super-resolve those files themselves to use them"
        )


def _batches(source: Source, lr: Contents, hr: Contents | None, target: Path | None) -> Iterator[_Rows]:
    if hr is None:
        for k, coarse in enumerate(lr.batches(_BATCH)):
            yield _Rows(source, k * _BATCH, coarse, None, lr.axion_mass)
        return
    (h, w), (height, width) = lr.images.shape[1:], hr.images.shape[1:]
    if height % h or width % w or height // h != width // w:
        raise LensphysError(
            f"{target}: HR images of {(height, width)} are no whole multiple of the LR images {(h, w)} of {source.path}"
        )
    for k, (coarse, fine) in enumerate(zip(lr.batches(_BATCH), hr.batches(_BATCH), strict=True)):
        yield _Rows(source, k * _BATCH, coarse, fine, lr.axion_mass)


def _checked(rows: Iterator[_Rows], skipped: list[str], *, skip_bad: bool) -> Iterator[_Rows]:
    """The images whose pixels are finite, if bad ones are skipped; a bad one is refused if not."""
    for batch in rows:
        planes = (batch.lr,) if batch.hr is None else (batch.lr, batch.hr)
        good = np.array([all(np.isfinite(x[row]).all() for x in planes) for row in range(len(batch.lr))])
        for row in np.flatnonzero(~good):
            reason = f"{batch.which(int(row))} has NaN or infinite pixels"
            if not skip_bad:
                raise LensphysError(f"{reason}: mend it, or give --skip-bad to leave such images out")
            skipped.append(reason)
        if good.any():
            yield batch.only(good)


def _append(file: h5py.File, batch: _Rows, classes: list[str], flux_scale: float) -> None:
    """Add images at the end of every dataset."""
    n = len(batch.lr)
    label = np.full(n, classes.index(batch.source.class_name), np.int64)
    columns: dict[str, NDArray[Any]] = {"lr": batch.lr[:, None], "label": label}
    if batch.hr is not None:
        columns |= {"hr": batch.hr[:, None], "flux_scale": np.full(n, flux_scale)}
    if any(is_axion(name) for name in classes):
        columns["axion_mass"] = np.full(n, batch.axion_mass)
    for name, values in columns.items():
        if name not in file:
            _create(file, name, values)
        dataset = file[name]
        if dataset.shape[1:] != values.shape[1:]:
            raise LensphysError(
                f"{batch.which(0)}: /{name} would have images of {values.shape[2:]} after those of {dataset.shape[2:]}"
            )
        dataset.resize(len(dataset) + n, axis=0)
        dataset[-n:] = values


def _create(file: h5py.File, name: str, values: NDArray[Any]) -> None:
    shape, limit = (0, *values.shape[1:]), (None, *values.shape[1:])
    if values.ndim == 1:
        file.create_dataset(name, shape, values.dtype, maxshape=limit, chunks=(1024,))
        return
    file.create_dataset(
        name, shape, values.dtype, maxshape=limit, chunks=(1, *shape[1:]), compression="gzip", compression_opts=1,
        shuffle=True,
    )  # fmt: skip


def _finish(file: h5py.File, telescope: Instrument, inputs: list[str], hr: str | Path | None) -> None:
    """What is known when all images are there, and where they came from."""
    upscale = file["hr"].shape[-1] // file["lr"].shape[-1] if "hr" in file else 1
    file.attrs.update({"upscale": upscale, "pixel_scale_hr": telescope.pixel_scale / upscale})
    # an attribute of HDF5 holds 64 KiB; all files are in the identity
    origin = {"inputs": inputs[:_LISTED], "number_of_inputs": len(inputs), "hr": None if hr is None else str(hr)}
    file.attrs["imported"] = json.dumps(provenance(**origin))
    file["lr"].attrs["unit"] = f"{telescope.unit} per pixel"
    if "axion_mass" in file:
        file["axion_mass"].attrs["unit"] = "eV"
        if np.isnan(file["axion_mass"][:]).all():  # nobody asked for it
            del file["axion_mass"]
