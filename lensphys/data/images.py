"""The user's own images: FITS, .npy stacks and our HDF5 files in, the same kind out.

Rows of an array are y, growing upwards, and columns are x, exactly as the array stands in the file (a FITS image shown
with ``origin="lower"``): nothing is flipped or rotated. All positions in arcsec (deflections, lens and source centres)
are along these axes of the array, not along RA and Dec; the WCS of a FITS output maps its pixels back to the sky.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lensphys.checks import LensphysError, check_file, check_same_shape
from lensphys.data.fits import is_surface_brightness, read_fits_image, read_fits_plane, write_fits
from lensphys.data.fits import pixel_scale as fits_pixel_scale
from lensphys.data.hdf5 import new_file, reserved
from lensphys.data.lens_file import LensFile
from lensphys.data.npy import read_npy, write_npz
from lensphys.grid import PixelGrid
from lensphys.observation import (
    PSF,
    Camera,
    Conditions,
    ErrorMap,
    Instrument,
    Noise,
    NoPSF,
    Observation,
    PixelPSF,
    background_error_map,
)
from lensphys.outputs import whole_file

if TYPE_CHECKING:
    from astropy.io.fits import Header

Array = NDArray[Any]

RESULT_KIND = "lensphys super-resolved images"
_READ = {"FITS": (".fits", ".fit", ".fits.gz"), ".npy": (".npy",), "HDF5": (".h5", ".hdf5")}
_WRITTEN = {"FITS": (".fits", ".fit"), ".npy": (".npz",), "HDF5": (".h5", ".hdf5")}
_SMALLEST_SIDE = 8  # pixels; below it an array is not an image (a stack saved as (H, W, 3))
_FEWEST, _MOST = 2, 5  # points along the side of a pixel: the flux in it is not that at a point where light is steep
_SINGLE_PRECISION = (1e-15, 1e15)  # brightest pixels whose variance still fits into float32


@dataclass(frozen=True)
class ImageSet:
    """Images of the user, ready to be super-resolved.

    Args:
        observation: float32 images (N, 1, H, W), how they were taken, and which pixels count.
        header: of the image in a FITS file, for its WCS; None for other files.
        remarks: sentences for the user: what was masked, assumed or estimated.
    """

    observation: Observation
    header: Header | None = None
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Contents:
    """What a file says by itself: pixels (N, H, W), scale [arcsec], mask and error (H, W), PSF kernel and its scale."""

    pixels: Array
    scale: float | None = None
    mask: Array | None = None
    error: Array | None = None
    kernel: tuple[Array, float | None] | None = None
    instrument: Instrument | None = None
    conditions: Conditions = Conditions()
    header: Header | None = None


def read_images(
    path: Path,
    *,
    instrument: Instrument | None = None,
    psf: Path | None = None,
    error: Path | None = None,
    pixel_scale: float | None = None,
) -> ImageSet:
    """Return the images of a file.

    What is given here goes before what the file says, and that before the instrument. NaN and infinite pixels become 0
    and are masked. Without any noise information it is estimated from the images; without a PSF none is assumed.

    Args:
        path: FITS (.fits, .fit, .fits.gz: one image in ARC, SCI or the first HDU, and ERR, MASK where nonzero pixels
            count, PSF where present), .npy (N, H, W), or an HDF5 file of ``lensphys simulate``.
        instrument: for the pixel scale, the PSF and the noise, where nothing else gives them. What was drawn for each
            image of a lens file goes before the numbers of this instrument if the file names the same one.
        psf: FITS or .npy kernel (K, K), K odd, sum 1, on the image's pixels unless its header has a pixel scale.
        error: FITS or .npy standard deviation, (H, W) or for stacks (N, H, W).
        pixel_scale: [arcsec].

    Raises:
        LensphysError: one sentence on what is wrong with the files.
    """
    check_file("input", path)
    remarks: list[str] = []
    contents = _contents(path, pixel_scale, remarks)
    conditions = contents.conditions if instrument in (None, contents.instrument) else Conditions()
    instrument = instrument or contents.instrument
    scale = _pixel_scale(path, pixel_scale, contents, instrument)
    height, width = contents.pixels.shape[-2:]
    grid = PixelGrid(height, width, scale)
    if instrument is not None and abs(scale / instrument.pixel_scale - 1) > 0.01:
        remarks.append(f'the pixels have {scale:.4g}", not the {instrument.pixel_scale:.4g}" of the instrument')
        instrument = instrument.model_copy(update={"pixel_scale": scale})  # so much sky falls into a pixel
    image, good = _cleaned(path, contents.pixels, remarks)
    preset_psf = None if instrument is None else instrument.psf_of(conditions)
    blur = _psf(contents, scale, preset_psf, psf, remarks)
    preset_noise = None if instrument is None else partial(instrument.noise_of, conditions=conditions)
    noise, known = _noise(contents, image, good, preset_noise, error, remarks)
    mask = good & known
    if contents.mask is not None:
        mask = mask & torch.from_numpy(contents.mask)
    if not bool(mask.flatten(1).any(1).all()):
        raise LensphysError(f"{path}: an image has no pixel that counts (finite, in the mask, with a positive error)")
    # a telescope's pixel integrates over its area; an instrument says so of itself
    own_psf = isinstance(blur, PixelPSF) and contents.instrument is None
    camera = Camera(
        grid, blur, instrument.supersampling if instrument is not None and not own_psf else _points(blur, scale)
    )
    observation = Observation(image, camera, noise, None if bool(mask.all()) else mask)
    return ImageSet(observation, contents.header, remarks)


def _points(psf: PSF, scale: float) -> int:
    """Points along the side of a pixel: as fine as the kernel is known, where that is finer than the pixels."""
    if not isinstance(psf, PixelPSF):
        return _FEWEST
    return min(max(_FEWEST, round(scale / psf.scale)), _MOST)


def with_target_psf(images: ImageSet, path: Path, scale: int) -> ImageSet:
    """Return the images with the PSF that the super-resolved ones shall have.

    Args:
        images: to be super-resolved.
        path: FITS or .npy kernel (K, K), K odd, sum 1, on super-resolved pixels unless its header has a pixel scale.
        scale: pixels become so many times as small.

    Raises:
        LensphysError: if the file or its kernel is faulty.
    """
    kernel, own = _plane("target PSF file", path, "PSF")
    sharp = PixelPSF(torch.from_numpy(kernel), own or images.observation.camera.grid.scale / scale)
    return replace(images, observation=images.observation.sharpened_to(sharp))


def check_output(source: Path, path: Path) -> None:
    """Raise unless the results of one file can be written to another: to be called before the long computation.

    Args:
        source: the file that is read.
        path: the file to be written.

    Raises:
        LensphysError: if the suffixes do not fit, both are one file, or the folder cannot be written.
    """
    allowed = _WRITTEN[_kind(source, _READ)]
    if not path.name.lower().endswith(allowed):
        raise LensphysError(f"the output of {source.name} must be named *{' or *'.join(allowed)}, got {path}")
    if path.resolve() == source.resolve():
        raise LensphysError(f"the output {path} is the input: choose another name")
    if path.is_dir():
        raise LensphysError(f"cannot write {path}: it is a folder")
    folder = next(p for p in path.absolute().parents if p.exists())
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise LensphysError(f"cannot write {path}: {error.strerror or error}") from None


def write_images(path: Path, images: ImageSet, results: dict[str, Any], scale: int, provenance: dict[str, Any]) -> None:
    """Write super-resolved images as FITS, .npz or HDF5, by the suffix; whole or not at all.

    Args:
        path: the file.
        images: what was super-resolved.
        results: ``image`` (N, sH, sW) [flux per pixel]; where there are any ``sigma`` (N, sH, sW) [flux per pixel],
            ``constrained`` (N, sH, sW), ``alpha`` (N, 2, sH, sW) [arcsec], ``kappa`` (N, sH, sW), ``source`` (N, S, S)
            [flux / arcsec^2] with ``source_scale`` [arcsec], ``residual`` (N, H, W) [flux per pixel], ``chi2`` (N,) per
            degree of freedom, ``theta_E`` (N,) [arcsec], ``subhalos`` (N,), and the table of all parameters and the
            verdict: see `lensphys.inference.super_resolve`; ``body_masses`` (N, K) of the sub-halos [solar masses].
        scale: s, pixels are so many times as small.
        provenance: where the results come from.

    Raises:
        LensphysError: if the shapes do not fit, or the file cannot be written.
    """
    grid = images.observation.camera.grid
    expected = (len(images.observation), scale * grid.height, scale * grid.width)
    check_same_shape("super-resolved image", results["image"].shape, f"input at scale {scale}", expected)
    kind = _kind(path, _WRITTEN)
    if kind == "FITS":
        if images.header is None:
            raise LensphysError(f"cannot write {path}: only a FITS input gives a FITS output, choose .npz or .h5")
        write_fits(path, images.header, results, scale=scale, pixel_scale=grid.scale, provenance=provenance)
    elif kind == ".npy":
        write_npz(path, results | {"provenance": json.dumps(provenance, default=str)})
    else:
        _write_hdf5(path, results, provenance | {"scale": scale, "pixel_scale_lr": grid.scale})


def _write_hdf5(path: Path, results: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    size = sum(np.asarray(array).nbytes for array in results.values())
    with whole_file(path) as temporary, new_file(temporary) as file, reserved(file, size):
        file.attrs["kind"] = RESULT_KIND
        for name, entry in provenance.items():
            file.attrs[name] = entry if isinstance(entry, str | int | float) else json.dumps(entry, default=str)
        for name, array in results.items():
            text = isinstance(array, np.ndarray) and array.dtype.kind == "U"
            file[name] = array.astype(h5py.string_dtype()) if text else array


def _kind(path: Path, suffixes: Mapping[str, tuple[str, ...]]) -> str:
    for kind, endings in suffixes.items():
        if path.name.lower().endswith(endings):
            return kind
    known = ", ".join(ending for endings in suffixes.values() for ending in endings)
    raise LensphysError(f"unknown kind of file {path}: expected a name that ends in one of {known}")


def _contents(path: Path, pixel_scale: float | None, remarks: list[str]) -> _Contents:
    kind = _kind(path, _READ)
    if kind == "FITS":
        return _fits_contents(path, pixel_scale, remarks)
    if kind == "HDF5":
        with LensFile(path) as file:
            images, scale = file.lr()[:, 0].numpy(), file.grid_lr.scale
            return _Contents(images, scale, instrument=file.instrument, conditions=file.conditions())
    pixels = read_npy("input", path)
    if pixels.ndim != 3:
        remedy = "save image[None]" if pixels.ndim == 2 else "save stack[:, 0]" if pixels.ndim == 4 else "reshape it"
        raise LensphysError(f"{path} must be a stack of images (N, H, W), got {pixels.shape}: {remedy}")
    return _Contents(pixels)


def _pixel_scale(path: Path, given: float | None, contents: _Contents, instrument: Instrument | None) -> float:
    scales = (given, contents.scale, instrument.pixel_scale if instrument is not None else None)
    scale = next((s for s in scales if s is not None), None)
    if scale is None:
        raise LensphysError(f"{path} has no pixel scale: give --pixel-scale in arcsec, or --instrument")
    return scale


def _fits_contents(path: Path, pixel_scale: float | None, remarks: list[str]) -> _Contents:
    found = read_fits_image(path)
    remarks.append(f"the image is that of the extension {found.extension}")
    mask = None
    if found.mask is not None:
        check_same_shape(f"{path}[MASK]", found.mask.shape, "image", found.image.shape)
        mask = np.nan_to_num(found.mask) != 0
        remarks.append(f"MASK: {mask.sum()} of {mask.size} pixels count, those where it is not zero")
    if is_surface_brightness(found.header):
        remarks.append(f"the image is a surface brightness ({found.header['BUNIT']}), and so will be the result")
    return _Contents(
        pixels=found.image[None],
        scale=fits_pixel_scale(found.header, str(path)) if pixel_scale is None else None,
        mask=mask,
        error=found.error,
        kernel=None if found.psf is None else (found.psf, found.psf_scale),
        header=found.header,
    )


def _cleaned(path: Path, pixels: Array, remarks: list[str]) -> tuple[Tensor, Tensor]:
    """Images (N, 1, H, W) with 0 for NaN and infinite pixels, and where the others are."""
    if min(pixels.shape) < 1 or min(pixels.shape[-2:]) < _SMALLEST_SIDE:
        raise LensphysError(
            f"{path}: images (N, H, W) must have {_SMALLEST_SIDE} x {_SMALLEST_SIDE} pixels or more, got {pixels.shape}"
        )
    image = torch.from_numpy(pixels)[:, None]
    good = torch.isfinite(image)
    image = torch.where(good, image, torch.zeros_like(image))
    bad = (~good).flatten(1).sum(1)
    size = good[0].numel()
    for i in range(len(image)):
        which = f"image {i} of {path}" if len(image) > 1 else str(path)
        if bad[i] > size / 2:
            raise LensphysError(f"{which} has {bad[i]} NaN or infinite pixels of {size}, more than half: cut them off")
        peak = float(image[i].abs().max())
        if peak == 0:
            raise LensphysError(f"{which} is zero everywhere: there is nothing to super-resolve")
        if not _SINGLE_PRECISION[0] <= peak <= _SINGLE_PRECISION[1]:
            raise LensphysError(f"{which} has values up to {peak:.1e}, out of reach of float32: use another flux unit")
    if bad.any():
        total, images = int(bad.sum()), int((bad > 0).sum())
        remarks.append(f"{total} NaN or infinite pixels, in {images} of {len(bad)} images, are masked")
    return image, good


def _psf(contents: _Contents, scale: float, preset: PSF | None, path: Path | None, remarks: list[str]) -> PSF:
    kernel = contents.kernel if path is None else _plane("PSF file", path, "PSF")
    if kernel is not None:
        return PixelPSF(torch.from_numpy(kernel[0]), kernel[1] or scale)
    if preset is not None:
        return preset
    remarks.append("no PSF is known: none is assumed (give --psf or --instrument)")
    return NoPSF()


def _noise(
    contents: _Contents,
    image: Tensor,
    good: Tensor,
    preset: Callable[[Tensor], Noise] | None,
    path: Path | None,
    remarks: list[str],
) -> tuple[Noise, Tensor]:
    """The noise law, and where it is known, (1 or N, 1, H, W)."""
    sigma = contents.error if path is None else _plane("error map", path, "ERR")[0]
    if sigma is not None:
        return _error_map("ERR" if path is None else f"error map {path}", sigma, image, remarks)
    everywhere = torch.ones(1, 1, *image.shape[-2:], dtype=torch.bool)
    filled = _without_holes(image, good)
    if preset is not None:
        return preset(filled), everywhere
    remarks.append("no noise is known: it is estimated from the image (give --error or --instrument)")
    return background_error_map(filled), everywhere


def _error_map(name: str, sigma: Array, image: Tensor, remarks: list[str]) -> tuple[ErrorMap, Tensor]:
    shape = tuple(image.shape[-2:])
    if sigma.shape not in (shape, (1, *shape), (len(image), *shape)):
        raise LensphysError(f"{name} must have the shape of the image, {shape}, got {sigma.shape}")
    values = torch.from_numpy(sigma).reshape(-1, 1, *shape)
    known = torch.isfinite(values) & (values > 0)
    if not known.any():
        raise LensphysError(f"{name} has no value that is positive and finite: it must hold standard deviations")
    if not known.all():
        remarks.append(f"{name}: {int((~known).sum())} values that are not positive and finite are masked")
    return ErrorMap(torch.where(known, values, values[known].median())), known


def _without_holes(image: Tensor, good: Tensor) -> Tensor:
    """The images with pixels of their own faint parts for bad ones: zeros would look like less noise."""
    if good.all():
        return image
    image = image.clone()
    count = F.avg_pool2d(good.to(image), 5, stride=1, padding=2)
    local = F.avg_pool2d(image, 5, stride=1, padding=2) / count.clamp(min=1e-6)
    generator = torch.Generator().manual_seed(0)
    for x, ok, mean in zip(image, good, local, strict=True):
        faint = x[ok & (mean <= mean[ok].median())]
        x[~ok] = faint[torch.randint(len(faint), (int((~ok).sum()),), generator=generator)]
    return image


def _plane(name: str, path: Path, extension: str) -> tuple[Array, float | None]:
    """An array of a FITS or .npy file and its pixel scale [arcsec], if it has one."""
    if path.name.lower().endswith(_READ["FITS"]):
        return read_fits_plane(name, path, extension)
    if path.suffix.lower() == ".npy":
        return read_npy(name, path), None
    check_file(name, path)
    raise LensphysError(f"{name} {path} must be a .fits or .npy file")
