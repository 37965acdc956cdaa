"""Super-resolved images, written in the kind of file that they were read from."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from lensphys.basics import outputs
from lensphys.basics.checks import LensphysError, check_same_shape
from lensphys.basics.outputs import whole_file
from lensphys.data.contents import READ, WRITTEN, Carried, kind_of, without_ending
from lensphys.data.hdf5 import new_dataset, new_file, reserved, sign
from lensphys.data.images import ImageSet
from lensphys.data.kept import Stack
from lensphys.data.lens_file import FORMAT, FORMAT_VERSION, RESULT
from lensphys.data.npy import write_npz
from lensphys.data.stack import ImageStack
from lensphys.fits.result import write_fits
from lensphys.observation import Observations, PixelPSF
from lensphys.observation.kernel import psf_kernel
from lensphys.observation.psf_settings import KernelPSFSettings

_AT_ONCE = 64  # images that are read and written together


def result_name(source: Path) -> str:
    """Return the name that the results of a file have: its own, with the ending of what is written."""
    kind = kind_of(source, READ)
    return without_ending(source.name, READ[kind]) + WRITTEN[kind][0]


def check_output(source: str | Path, path: str | Path, stack: bool = False) -> None:
    """Raise unless the results of one file can be written to another: to be called before the long computation.

    Args:
        source: the file that is read.
        path: the file to be written.
        stack: whether it holds several images; those of a FITS cube become an .npz.

    Raises:
        LensphysError: if the suffixes do not fit, both are one file, or the folder cannot be written.
    """
    source, path = Path(source), Path(path)
    kind = kind_of(source, READ)
    allowed = WRITTEN[".npy" if stack and kind == "FITS" else kind]
    if not path.name.lower().endswith(allowed):
        raise LensphysError(f"the output of {source.name} must be named *{' or *'.join(allowed)}, got {path}")
    outputs.check_file(path, [source], overwrite=True)
    folder = next(p for p in path.absolute().parents if p.exists())
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise LensphysError(f"cannot write {path}: {error.strerror or error}") from None


def write_images(
    path: str | Path, images: ImageSet | ImageStack, results: dict[str, Any], scale: int, provenance: dict[str, Any]
) -> None:
    """Write super-resolved images as FITS, .npz or HDF5, by the suffix; whole or not at all.

    Each says what PSF the images have. Those of a file of simulated lenses become such a file themselves, with the
    images as ``hr`` (N, 1, sH, sW), which ``image`` is another name of: trainings and `lensphys doctor` read it.

    Args:
        path: the file.
        images: what was super-resolved.
        results: ``image`` (N, sH, sW) [flux per pixel], and where there are any the other `PLANES`,
            numbers of each image, the table of all parameters and the verdict, with the shapes and units that
            `lensphys.methods.super_resolve` gives; ``body_masses`` (N, K) of the sub-halos [solar masses].
        scale: s, the factor by which pixels are smaller.
        provenance: where the results come from.

    Raises:
        LensphysError: if the shapes do not fit, or the file cannot be written.
    """
    path, grid = Path(path), images.observation.camera.grid
    expected = (len(images.observation), scale * grid.height, scale * grid.width)
    check_same_shape("super-resolved image", results["image"].shape, f"input at scale {scale}", expected)
    kind = kind_of(path, WRITTEN)
    results = results | {"psf": _psf_words(images, scale)}
    origin = provenance | {"scale": scale, "pixel_scale_lr": grid.scale}
    if kind == "FITS":
        if images.header is None:
            raise LensphysError(f"cannot write {path}: only a FITS input gives a FITS output, choose .npz or .h5")
        planes = fits_planes(images, results, scale)
        write_fits(path, images.header, planes, scale=scale, pixel_scale=grid.scale, provenance=provenance)
    elif kind in (".npz", ".npy"):
        write_npz(path, results | {"provenance": json.dumps(origin, default=str)})
    else:
        origin["psf"] = results.pop("psf")
        if images.carried is not None:
            attributes, columns = _lens_file(images, images.carried, results, scale)
            results.pop("image")  # it is /hr, stored once
            results, origin = results | columns, origin | attributes
        _write_hdf5(path, results, origin)


def fits_planes(images: ImageSet | ImageStack, results: Mapping[str, Any], scale: int) -> dict[str, Any]:
    """Return results with the PSF that super-resolved images have, as `lensphys.fits.result` writes them."""
    kernel = psf_kernel(images.observation.camera.at(scale))
    own = {} if kernel is None else {"psf_kernel": kernel[0], "psf_scale": kernel[1]}
    return dict(results) | {"psf": _psf_words(images, scale)} | own


def _psf_words(images: ImageSet | ImageStack, scale: int) -> str:
    words = images.observation.camera.at(scale).psf.words
    return f"{words} ({images.psf})" if images.psf else words


def _lens_file(
    images: ImageSet | ImageStack, carried: Carried, results: Mapping[str, Any], scale: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attributes and datasets that make results a file of lenses: `LensFile` reads it."""
    observation, fine = images.observation, Stack.from_array(results["image"])
    pixel_scale = observation.camera.grid.scale
    content = hashlib.sha256(carried.identity.encode())
    for part in fine.chunks():
        content.update(np.ascontiguousarray(part).tobytes())
    attributes = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "identity": content.hexdigest(),
        "input_identity": carried.identity,
        "instrument": carried.instrument.model_dump_json(),
        "classes": carried.classes,
        "pixel_scale_hr": pixel_scale / scale,
        "upscale": scale,
    }
    sharp = observation.camera.target_psf
    if isinstance(sharp, PixelPSF):
        psf = KernelPSFSettings.from_kernel(sharp.kernel.double().cpu().numpy(), sharp.scale)
        attributes["target_instrument"] = carried.instrument.model_copy(update={"psf": psf}).model_dump_json()
    columns = {"lr": _pixels(observation), "hr": fine.of_one_channel(), "flux_scale": np.ones(len(fine))}
    return attributes, carried.columns | columns


def _pixels(observation: Observations) -> Stack:
    """The images, (N, 1, H, W)."""
    rows = torch.arange(len(observation)).split(_AT_ONCE)
    shape = (len(observation), 1, *observation.camera.grid.shape)
    return Stack(shape, np.dtype(np.float32), lambda: (observation[part].image.cpu().numpy() for part in rows))


def _write_hdf5(path: Path, results: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
    stacks = {name: Stack.from_array(array) for name, array in results.items()}
    size = sum(stack.nbytes for stack in stacks.values())
    with whole_file(path) as temporary, new_file(temporary) as file, reserved(file, size):
        file.attrs["kind"] = RESULT
        for name, entry in attributes.items():
            plain = isinstance(entry, str | int | float) or name == "classes"
            file.attrs[name] = entry if plain else json.dumps(entry, default=str)
        for name, stack in stacks.items():
            _write_stack(file, name, stack)
        if "hr" in file:
            file["image"] = file["hr"]  # a hard link
        sign(file)


def _write_stack(file: h5py.File, name: str, stack: Stack) -> None:
    dataset = new_dataset(file, name, stack.shape, h5py.string_dtype() if stack.dtype.kind == "U" else stack.dtype)
    start = 0
    for part in stack.chunks():
        if part.ndim == 0:
            dataset[()] = part
        elif len(part):
            dataset[start : start + len(part)] = part.astype(object) if part.dtype.kind == "U" else part
            start += len(part)
