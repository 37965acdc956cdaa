"""The user's own images: FITS, .npy stacks and our HDF5 files in, the same kind out.

Rows of an array are y, growing upwards, and columns are x, exactly as the array stands in the file (a FITS image shown
with ``origin="lower"``): nothing is flipped or rotated. All positions in arcsec (deflections, lens and source centres)
are along these axes of the array, not along RA and Dec; the WCS of a FITS output maps its pixels back to the sky.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lensphys.basics import outputs
from lensphys.basics.checks import LensphysError, check_file, check_positive, check_same_shape
from lensphys.basics.outputs import whole_file
from lensphys.data.hdf5 import new_dataset, new_file, reserved, sign
from lensphys.data.kept import Stack
from lensphys.data.lens_file import FORMAT, FORMAT_VERSION, RESULT, LensFile
from lensphys.data.masks import check_fits, mask_in
from lensphys.data.noise_maps import deviation
from lensphys.data.npy import read_npy, write_npz
from lensphys.data.sky_levels import KEEP, sky_removed
from lensphys.fits.header import pixel_scale as header_scale
from lensphys.fits.header import questioned_scale, scale_conflict, scale_key
from lensphys.fits.image import Choice, NoiseMap, noise_by_file_name, read_fits_image, read_noise_map
from lensphys.fits.kernel import Kernel
from lensphys.fits.masks import good_pixels
from lensphys.fits.result import write_fits
from lensphys.fits.units import is_surface_brightness, unit_of
from lensphys.observation import (
    PSF,
    Camera,
    Conditions,
    ErrorMap,
    ExposureNoise,
    GaussianPSF,
    Instrument,
    MoffatPSF,
    Noise,
    NoPSF,
    Observation,
    PixelPSF,
    SkyNoise,
)
from lensphys.observation.borders import filled_border
from lensphys.observation.instrument import CONDITIONS
from lensphys.observation.kernel import psf_kernel
from lensphys.observation.psf_file import centred_psf, read_kernel, usable
from lensphys.observation.psf_settings import KernelPSFSettings
from lensphys.observation.units import unit_ratio
from lensphys.tracing.grid import PixelGrid

if TYPE_CHECKING:
    from astropy.io.fits import Header
    from astropy.units import UnitBase

Array = NDArray[Any]

_FITS = (".fits", ".fit", ".fts", ".fits.gz", ".fits.bz2", ".fits.fz")
_READ = {"FITS": _FITS, ".npz": (".npz",), ".npy": (".npy",), "HDF5": (".h5", ".hdf5")}
_WRITTEN = {"FITS": (".fits", ".fit"), ".npz": (".npz",), ".npy": (".npz",), "HDF5": (".h5", ".hdf5")}
_SMALLEST_SIDE = 8  # pixels; below it an array is not an image (a stack saved as (H, W, 3))
_FEWEST, _MOST = 2, 5  # points along the side of a pixel: the flux in it is not that at a point where light is steep
_SINGLE_PRECISION = (1e-15, 1e15)  # brightest pixels whose variance still fits into float32


_PSF_WORDS = {
    NoPSF: "none",
    GaussianPSF: 'Gaussian of FWHM {:.3g}"',
    MoffatPSF: 'Moffat of FWHM {:.3g}"',
    PixelPSF: 'kernel, {:.3g}" wide',
}


@dataclass(frozen=True)
class Carried:
    """What a file of simulated lenses says beside its images, and its results say after it.

    Args:
        instrument: of the images.
        identity: of the data set.
        classes: their names.
        columns: ``label`` (N,), and what was drawn of PSF and noise for each image, where the file has them.
    """

    instrument: Instrument
    identity: str
    classes: list[str]
    columns: dict[str, Array]

    def rows(self, place: Array) -> Carried:
        """Return what it says of some images, by their places."""
        return replace(self, columns={name: column[place] for name, column in self.columns.items()})


@dataclass(frozen=True)
class ImageSet:
    """Images of the user, ready to be super-resolved.

    Args:
        observation: float32 images (N, 1, H, W), how they were taken, and which pixels count.
        header: of the image in a FITS file, for its WCS; None for other files.
        remarks: sentences for the user: what was used, masked, assumed or estimated.
        psf: where the PSF comes from.
        carried: what a file of simulated lenses says beside its images.
        index: which images of the file these are, (N,).
    """

    observation: Observation
    header: Header | None = None
    remarks: list[str] = field(default_factory=list)
    psf: str = ""
    carried: Carried | None = None
    index: Array = field(default_factory=lambda: np.zeros(1, dtype=np.int64))

    @property
    def fingerprint(self) -> str:
        """A hash of the pixels, noise and mask: what a computation on them depends on."""
        seen = self.observation
        parts = [seen.image, seen.noise.variance(seen.image), seen.weight]
        return hashlib.sha256(b"".join(x.contiguous().numpy().tobytes() for x in parts)).hexdigest()

    def only(self, index: Array) -> ImageSet:
        """Return those images whose numbers in the file are in ``index``.

        Raises:
            LensphysError: if there is none.
        """
        place = np.flatnonzero(np.isin(self.index, index))
        if len(place) == 0:
            raise LensphysError("none of the rows that were asked for can be used: choose others")
        carried = None if self.carried is None else self.carried.rows(place)
        observation = self.observation[torch.from_numpy(place)]
        return replace(self, observation=observation, carried=carried, index=self.index[place])


@dataclass(frozen=True)
class _Contents:
    """What a file says by itself: pixels (N, H, W), scale [arcsec], mask (1 or N, 1, H, W) bool, noise and PSF.

    ``left``: the places in the file of the images that are looked at, where that is not all of them.
    """

    pixels: Array
    left: Array | None = None
    scale: float | None = None
    mask: Array | None = None
    noise: NoiseMap | None = None
    kernel: Kernel | None = None
    carried: Carried | None = None
    conditions: Conditions = Conditions()
    header: Header | None = None
    band: str = ""

    @property
    def instrument(self) -> Instrument | None:
        return None if self.carried is None else self.carried.instrument

    def rows(self, place: Array, numbers: Array) -> _Contents:
        """What it says of some images, by their places here, and their numbers in the file."""
        carried = None if self.carried is None else self.carried.rows(place)
        conditions = self.conditions.rows(torch.from_numpy(place))
        if len(place) == len(self.pixels) == numbers[-1] + 1:
            return self
        mask = self.mask if self.mask is None or len(self.mask) == 1 else self.mask[place]
        return replace(
            self, pixels=self.pixels[place], left=numbers[place], mask=mask, carried=carried, conditions=conditions
        )


@dataclass(frozen=True)
class _Preset:
    """What an instrument says of the images of a file: their PSF, and their noise in the unit of their header."""

    instrument: Instrument
    conditions: Conditions
    header: Header | None
    where: str

    @property
    def psf(self) -> PSF:
        return self.instrument.psf_of(self.conditions)

    def noise(self, image: Tensor, remarks: list[str]) -> Noise:
        """Return the noise law of images (N, 1, H, W), in their own unit."""
        law = self.instrument.noise_of(image, self.conditions)
        if self.header is None or not isinstance(law, ExposureNoise):
            return law
        ratio = unit_ratio(self.header, self.instrument, self.where, self.instrument.pixel_scale)
        remarks += ratio.remarks
        return ratio.noise(law)


@dataclass(frozen=True)
class InMemory:
    """Images that are in memory, and not in a file.

    Args:
        pixels: (H, W) or (N, H, W) real numbers, rows = y.
        mask: (H, W), True where a pixel counts; all if None.
    """

    pixels: Array
    mask: Array | None = None

    def __str__(self) -> str:
        return "the array"

    @property
    def contents(self) -> _Contents:
        """What a file of them would say.

        Raises:
            LensphysError: if it is no stack of real numbers, or the mask has another shape.
        """
        pixels = np.asarray(self.pixels)
        if pixels.dtype.kind not in "iuf" or pixels.ndim not in (2, 3):
            raise LensphysError(
                f"{self} must hold real numbers in the shape (H, W) or (N, H, W), got {pixels.dtype} {pixels.shape}"
            )
        mask = None if self.mask is None else np.asarray(self.mask, dtype=bool)
        if mask is not None:
            check_same_shape("mask", mask.shape, "image", pixels.shape[-2:])
        with np.errstate(over="ignore"):
            stack = np.ascontiguousarray(pixels.reshape(-1, *pixels.shape[-2:]), dtype=np.float32)
        return _Contents(stack, mask=mask)


def read_images(
    path: str | Path | InMemory,
    *,
    instrument: Instrument | None = None,
    fallback: Instrument | None = None,
    psf: str | Path | Kernel | None = None,
    error: str | Path | NoiseMap | None = None,
    mask: str | Path | None = None,
    pixel_scale: float | None = None,
    sky: str = KEEP,
    choice: Choice = Choice(),
    rows: range | None = None,
) -> ImageSet:
    """Return the images of a file.

    What is given here goes before what the file says, and that before the instrument. NaN and infinite pixels become 0
    and are masked. Without any noise information it is estimated from the images; without a PSF none is assumed.

    Args:
        path: FITS (.fits, .fit, .fits.gz: one image, its noise, mask and PSF, by the names that archives give them),
            .npz (the same, by the same names), .npy (N, H, W) or (H, W), or an HDF5 file of ``lensphys simulate``; or
            what is in memory.
        instrument: for the pixel scale, the PSF and the noise, where nothing else gives them. What was drawn for each
            image of a lens file goes before the numbers of this instrument if the file names the same one.
        fallback: the instrument where neither ``instrument`` nor the file names one: that of a training.
        psf: FITS or .npy kernel (K, K) with a sum of 1 within 10 %, or a PSFEx model; on the image's pixels unless its
            header has a pixel scale.
        error: FITS or .npy standard deviation, (H, W) or for stacks (N, H, W); a FITS file may hold a variance, an
            inverse variance or a weight, by its name.
        mask: FITS or .npy, (H, W) or for stacks (N, H, W): bits, or zero and another value, read as masks of FITS
            files are (`lensphys.fits.masks`).
        pixel_scale: [arcsec].
        sky: ``keep``, or ``subtract`` for the level of the borders: see `lensphys.data.sky_levels`.
        choice: what of a FITS file is asked for.
        rows: which images of a stack are read at all; None for all of them.

    Raises:
        LensphysError: one sentence on what is wrong with the files.
    """
    remarks: list[str] = []
    given = {"noise": error, "mask": mask, "PSF": psf}
    own = replace(choice, given=frozenset(what for what, file in given.items() if file is not None))
    if isinstance(path, InMemory):
        _check_choice(path, own)
        contents = path.contents
    else:
        path = Path(path)
        check_file("input", path)
        contents = _contents(path, pixel_scale, own, rows, remarks)
    if mask is not None:
        contents = _masked(contents, Path(mask), choice.mask_means, remarks)
    other = contents.instrument is not None and not contents.instrument.same_as(fallback)
    if instrument is None and fallback is not None and other:
        remarks.append(f"the instrument is that of the file, not that of the training ({fallback.description})")
    instrument = instrument or contents.instrument or fallback
    own_conditions = instrument is None or instrument.same_as(contents.instrument)
    conditions = contents.conditions if own_conditions else Conditions()
    scale = _pixel_scale(path, pixel_scale, contents, instrument, remarks)
    numbers = np.arange(len(contents.pixels)) if rows is None else np.array(rows, dtype=np.int64)
    place = _usable(path, contents.pixels, numbers, remarks)
    index, contents = numbers[place], contents.rows(place, numbers)
    height, width = contents.pixels.shape[-2:]
    grid = PixelGrid(height, width, scale)
    if instrument is not None and abs(scale / instrument.pixel_scale - 1) > 0.01:
        remarks.append(f'the pixels have {scale:.4g}", not the {instrument.pixel_scale:.4g}" of the instrument')
        instrument = instrument.model_copy(update={"pixel_scale": scale})  # so much sky falls into a pixel
    image, good = _cleaned(contents, remarks)
    seen = good if contents.mask is None else good & torch.from_numpy(contents.mask)
    if contents.carried is None or sky != KEEP:  # simulated skies are at zero
        image = sky_removed(image, seen, sky, remarks)
    preset = None if instrument is None else _Preset(instrument, conditions, contents.header, str(path))
    blur, source = _psf(contents, scale, preset, psf, remarks)
    noise, known = _noise(contents, image, good, preset, error, remarks)
    counts = seen & known
    if not bool(counts.flatten(1).any(1).all()):
        raise LensphysError(f"{path}: an image has no pixel that counts (finite, in the mask, with a positive error)")
    # a telescope's pixel integrates over its area; an instrument says so of itself
    own_psf = isinstance(blur, PixelPSF) and contents.instrument is None
    points = instrument.points if instrument is not None and not own_psf else _points(blur, scale)
    observation = Observation(image, Camera(grid, blur, points), noise, None if bool(counts.all()) else counts)
    return ImageSet(observation, contents.header, remarks, source, contents.carried, index)


def _points(psf: PSF, scale: float) -> int:
    """Points along the side of a pixel: as fine as the kernel is known, where that is finer than the pixels."""
    if not isinstance(psf, PixelPSF):
        return _FEWEST
    return min(max(_FEWEST, round(scale / psf.scale)), _MOST)


def with_target_psf(images: ImageSet, target: str | Path | Kernel, scale: int) -> ImageSet:
    """Return the images with the PSF that the super-resolved ones shall have.

    Both kernels, the target's and the images' own, are centred: else the images would move on the sky by the way
    between their centroids.

    Args:
        images: to be super-resolved.
        target: FITS or .npy kernel (K, K) with a sum of 1 within 10 %, on super-resolved pixels unless its header has
            a pixel scale.
        scale: pixels become so many times as small.

    Raises:
        LensphysError: if the file or its kernel is faulty.
    """
    camera = images.observation.camera
    kernel = target if isinstance(target, Kernel) else read_kernel("target PSF file", Path(target))
    name = target.label if isinstance(target, Kernel) else Path(target).name
    star = usable(kernel)
    sharp = PixelPSF(torch.from_numpy(star.kernel), kernel.scale_on(camera.grid.scale / scale))
    own = centred_psf(camera.psf) if isinstance(camera.psf, PixelPSF) else camera.psf
    wanted = centred_psf(sharp)
    remarks = [*images.remarks, f"target {star.told(kernel.label, sharp.scale)}"]
    if own is not camera.psf or wanted is not sharp:
        remarks.append("the kernels are centred, so that nothing moves on the sky")
    observation = replace(images.observation, camera=replace(camera, psf=own)).with_target_psf(wanted)
    return replace(images, observation=observation, remarks=remarks, psf=f"target {name}")


def is_image_file(path: Path) -> bool:
    """Return whether a file is one of images, by its name."""
    return path.name.lower().endswith(tuple(ending for endings in _READ.values() for ending in endings))


def result_name(source: Path) -> str:
    """Return the name that the results of a file have: its own, with the ending of what is written."""
    kind = _kind(source, _READ)
    ending = next(
        ending for ending in sorted(_READ[kind], key=len, reverse=True) if source.name.lower().endswith(ending)
    )
    return source.name[: -len(ending)] + _WRITTEN[kind][0]


def check_output(source: str | Path, path: str | Path) -> None:
    """Raise unless the results of one file can be written to another: to be called before the long computation.

    Args:
        source: the file that is read.
        path: the file to be written.

    Raises:
        LensphysError: if the suffixes do not fit, both are one file, or the folder cannot be written.
    """
    source, path = Path(source), Path(path)
    allowed = _WRITTEN[_kind(source, _READ)]
    if not path.name.lower().endswith(allowed):
        raise LensphysError(f"the output of {source.name} must be named *{' or *'.join(allowed)}, got {path}")
    outputs.check_file(path, [source], overwrite=True)
    folder = next(p for p in path.absolute().parents if p.exists())
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise LensphysError(f"cannot write {path}: {error.strerror or error}") from None


def write_images(
    path: str | Path, images: ImageSet, results: dict[str, Any], scale: int, provenance: dict[str, Any]
) -> None:
    """Write super-resolved images as FITS, .npz or HDF5, by the suffix; whole or not at all.

    Each says what PSF the images have. Those of a file of simulated lenses become such a file themselves, with the
    images as ``hr`` (N, 1, sH, sW), which ``image`` is another name of: trainings and `lensphys doctor` read it.

    Args:
        path: the file.
        images: what was super-resolved.
        results: ``image`` (N, sH, sW) [flux per pixel]; where there are any ``sigma`` (N, sH, sW) [flux per pixel],
            ``constrained`` (N, sH, sW), ``alpha`` (N, 2, sH, sW) [arcsec], ``kappa`` (N, sH, sW), ``source`` (N, S, S)
            [flux / arcsec^2] with ``source_scale`` [arcsec], ``lr``, ``model`` and ``residual`` (N, H, W) [flux per
            pixel], ``chi2`` (N,) per degree of freedom, ``theta_E`` (N,) [arcsec], ``subhalos`` (N,), and the table of
            all parameters and the verdict: see `lensphys.methods.super_resolve`; ``body_masses`` (N, K) of the
            sub-halos [solar masses].
        scale: s, pixels are so many times as small.
        provenance: where the results come from.

    Raises:
        LensphysError: if the shapes do not fit, or the file cannot be written.
    """
    path, grid = Path(path), images.observation.camera.grid
    expected = (len(images.observation), scale * grid.height, scale * grid.width)
    check_same_shape("super-resolved image", results["image"].shape, f"input at scale {scale}", expected)
    kind = _kind(path, _WRITTEN)
    results = results | {"psf": _psf_words(images, scale)}
    origin = provenance | {"scale": scale, "pixel_scale_lr": grid.scale}
    if kind == "FITS":
        if images.header is None:
            raise LensphysError(f"cannot write {path}: only a FITS input gives a FITS output, choose .npz or .h5")
        results |= _kernel_planes(images.observation.camera.at(scale))
        write_fits(path, images.header, results, scale=scale, pixel_scale=grid.scale, provenance=provenance)
    elif kind in (".npz", ".npy"):
        write_npz(path, results | {"provenance": json.dumps(origin, default=str)})
    else:
        origin["psf"] = results.pop("psf")
        carried = (
            {}
            if images.carried is None
            else _lens_file(images, images.carried, Stack.from_array(results["image"]), scale)
        )
        columns = carried.get("columns", {})
        if "hr" in columns:
            results.pop("image")  # it is /hr, stored once
        _write_hdf5(path, results | columns, origin | carried.get("attributes", {}))


def _psf_words(images: ImageSet, scale: int) -> str:
    psf = images.observation.camera.at(scale).psf
    words = _PSF_WORDS[type(psf)].format(psf.extent)
    return f"{words} ({images.psf})" if images.psf else words


def _kernel_planes(camera: Camera) -> dict[str, Any]:
    kernel = psf_kernel(camera)
    return {} if kernel is None else {"psf_kernel": kernel[0], "psf_scale": kernel[1]}


def _lens_file(images: ImageSet, carried: Carried, fine: Stack, scale: int) -> dict[str, dict[str, Any]]:
    """Attributes and data sets that make results a file of lenses: `LensFile` reads it."""
    observation = images.observation
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
    columns = {"lr": observation.image.cpu().numpy(), "hr": fine.of_one_channel(), "flux_scale": np.ones(len(fine))}
    return {"attributes": attributes, "columns": carried.columns | columns}


def _write_hdf5(path: Path, results: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
    stacks = {
        name: array if isinstance(array, Stack) else Stack.from_array(np.asarray(array))
        for name, array in results.items()
    }
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


def _kind(path: Path, suffixes: Mapping[str, tuple[str, ...]]) -> str:
    for kind, endings in suffixes.items():
        if path.name.lower().endswith(endings):
            return kind
    known = ", ".join(ending for endings in suffixes.values() for ending in endings)
    raise LensphysError(f"unknown kind of file {path}: expected a name that ends in one of {known}")


def _contents(
    path: Path, pixel_scale: float | None, choice: Choice, rows: range | None, remarks: list[str]
) -> _Contents:
    kind = _kind(path, _READ)
    if kind in ("FITS", ".npz"):
        return _fits_contents(path, pixel_scale, choice, remarks)
    _check_choice(path, choice)
    if kind == "HDF5":
        with LensFile(path) as file:
            some = slice(None) if rows is None else slice(rows.start, rows.stop)
            columns = {name: file.read(name, some) for name in ("label", *CONDITIONS) if file.has(name)}
            carried = Carried(file.instrument, file.identity, file.classes, columns)
            pixels = file.lr(some)[:, 0].numpy()
            return _Contents(pixels, scale=file.grid_lr.scale, carried=carried, conditions=file.conditions(some))
    pixels = read_npy("input", path, rows)
    if pixels.ndim == 4 and pixels.shape[1] == 1:
        pixels = pixels[:, 0]
    if pixels.ndim == 2:
        pixels = pixels[None]
    if pixels.ndim != 3:
        remedy = "save stack[:, 0]" if pixels.ndim == 4 else "reshape it"
        raise LensphysError(f"{path} must be a stack of images (N, H, W), got {pixels.shape}: {remedy}")
    return _Contents(pixels)


def _masked(contents: _Contents, path: Path, means: str | None, remarks: list[str]) -> _Contents:
    """With the mask of a file of its own."""
    telescope = "" if contents.header is None else str(contents.header.get("TELESCOP", ""))
    mask = mask_in(path, contents.band, telescope)
    check_fits(mask, contents.pixels.shape)
    good, how = good_pixels(mask, contents.pixels, means)
    remarks.append(f"mask {how}")
    return replace(contents, mask=good.reshape(-1, 1, *good.shape[-2:]))


def _check_choice(path: Path | InMemory, choice: Choice) -> None:
    means = None if "mask" in choice.given else choice.mask_means
    options = {"--ext": choice.extension, "--band": choice.band, "--mask-means": means}
    asked = [option for option, entry in options.items() if entry is not None]
    if asked:
        raise LensphysError(f"{', '.join(asked)} is about FITS files, and {path} is none")


def _pixel_scale(
    path: Path | InMemory, given: float | None, contents: _Contents, instrument: Instrument | None, remarks: list[str]
) -> float:
    scales = (given, contents.scale, instrument.pixel_scale if instrument is not None else None)
    scale = next((s for s in scales if s is not None), None)
    if scale is None:
        raise LensphysError(f"{path} has no pixel scale: give --pixel-scale in arcsec, or --instrument")
    check_positive("pixel scale", scale)
    key = "--pixel-scale" if given is not None or contents.header is None else scale_key(contents.header)
    question = questioned_scale(scale, key, str(path))
    remarks += [] if question is None else [question]
    return scale


def _fits_contents(path: Path, pixel_scale: float | None, choice: Choice, remarks: list[str]) -> _Contents:
    found = read_fits_image(path, choice)
    remarks += found.remarks
    conflict = scale_conflict(found.header, str(path)) if pixel_scale is None else None
    remarks += [] if conflict is None else [conflict]
    if is_surface_brightness(found.header):
        remarks.append(f"the image is a surface brightness ({found.header['BUNIT']}), and so will be the result")
    return _Contents(
        pixels=found.image[None],
        scale=header_scale(found.header, str(path)) if pixel_scale is None else None,
        mask=None if found.mask is None else found.mask[None, None],
        noise=found.noise,
        kernel=found.psf,
        header=found.header,
        band=found.band,
    )


def _usable(path: Path | InMemory, pixels: Array, numbers: Array, remarks: list[str]) -> Array:
    """The places of those images (N, H, W) of a file that can be super-resolved; the others are named."""
    if min(pixels.shape) < 1 or min(pixels.shape[-2:]) < _SMALLEST_SIDE:
        raise LensphysError(
            f"{path}: images (N, H, W) must have {_SMALLEST_SIDE} x {_SMALLEST_SIDE} pixels or more, got {pixels.shape}"
        )
    faults = {i: fault for i, image in enumerate(pixels) if (fault := _fault(image))}
    if len(pixels) == 1 and faults:
        raise LensphysError(f"{path} {faults[0]}")
    if len(faults) == len(pixels):
        raise LensphysError(f"{path} holds no image that can be used: the first one {faults[0]}")
    remarks += [f"image {numbers[i]} of {path} {fault}: it is left out" for i, fault in faults.items()]
    return np.array([i for i in range(len(pixels)) if i not in faults], dtype=np.int64)


def _fault(image: Array) -> str:
    """Why an image (H, W) cannot be super-resolved; nothing if it can."""
    good = np.isfinite(image)
    if good.sum() < image.size / 2:
        return f"has {image.size - good.sum()} NaN or infinite pixels of {image.size}, more than half: cut them off"
    peak = float(np.abs(image[good]).max())
    if peak == 0:
        return "is zero everywhere: there is nothing to super-resolve"
    if not _SINGLE_PRECISION[0] <= peak <= _SINGLE_PRECISION[1]:
        return f"has values up to {peak:.1e}, out of reach of float32: use another flux unit"
    if float(image[good].min()) == float(image[good].max()):
        return f"is {peak:.3g} everywhere: there is nothing to super-resolve"
    if float(image[good].max()) <= 0:
        return "has no positive pixel: there is nothing to super-resolve"
    return ""


def _cleaned(contents: _Contents, remarks: list[str]) -> tuple[Tensor, Tensor]:
    """Images (N, 1, H, W) with 0 for NaN and infinite pixels, and where the others are; not on an empty border."""
    image = torch.from_numpy(contents.pixels)[:, None]
    good = torch.isfinite(image)
    image = torch.where(good, image, torch.zeros_like(image))
    bad = (~good).flatten(1).sum(1)
    if bad.any():
        total, images = int(bad.sum()), int((bad > 0).sum())
        remarks.append(f"{total} NaN or infinite pixels, in {images} of {len(bad)} images, are masked")
    if contents.carried is None:
        border = filled_border(image) & good
        if border.any():
            images = int(border.flatten(1).any(1).sum())
            remarks.append(
                f"a border of one value, {int(border.sum())} pixels in {images} of {len(bad)} images, is masked"
            )
        good = good & ~border
    return image, good


def _psf(
    contents: _Contents, scale: float, preset: _Preset | None, given: str | Path | Kernel | None, remarks: list[str]
) -> tuple[PSF, str]:
    """The PSF, and where it comes from."""
    kernel = contents.kernel if given is None else given
    if isinstance(kernel, str | Path):
        kernel = read_kernel("PSF file", Path(kernel), contents.band)
    if kernel is not None:
        star, pixel = usable(kernel), kernel.scale_on(scale)
        remarks.append(star.told(kernel.label, pixel))
        return PixelPSF(torch.from_numpy(star.kernel), pixel), kernel.label
    if preset is not None:
        return preset.psf, preset.instrument.description
    remarks.append("no PSF is known: none is assumed (give --psf or --instrument)")
    return NoPSF(), "none is known"


def _noise(
    contents: _Contents,
    image: Tensor,
    good: Tensor,
    preset: _Preset | None,
    given: str | Path | NoiseMap | None,
    remarks: list[str],
) -> tuple[Noise, Tensor]:
    """The noise law, and where it is known, (1 or N, 1, H, W)."""
    noise = contents.noise if given is None else given
    if isinstance(noise, str | Path):
        noise = _noise_map(Path(noise), contents.band)
    filled = _without_holes(image, good)
    if noise is not None:
        if contents.left is not None and noise.values.ndim == 3 and len(noise.values) > contents.left.max():
            noise = replace(noise, values=noise.values[contents.left])
        unit = None if contents.header is None else unit_of(contents.header)
        return _error_map(noise, filled, unit, remarks)
    everywhere = torch.ones(1, 1, *image.shape[-2:], dtype=torch.bool)
    if preset is not None:
        return preset.noise(filled, remarks), everywhere
    remarks.append("no noise is known: it is estimated from the image (give --error or --instrument)")
    return SkyNoise.from_image(filled), everywhere


def _noise_map(path: Path, band: str) -> NoiseMap:
    """A noise map in a file of its own."""
    if path.suffix.lower() != ".npy":
        return read_noise_map("error map", path, band)
    return noise_by_file_name(read_npy("error map", path), path)


def _error_map(noise: NoiseMap, image: Tensor, unit: UnitBase | None, remarks: list[str]) -> tuple[ErrorMap, Tensor]:
    shape = tuple(image.shape[-2:])
    if noise.values.shape not in (shape, (1, *shape), (len(image), *shape)):
        raise LensphysError(f"{noise.where} must have the shape of the image, {shape}, got {noise.values.shape}")
    found = deviation(noise, image, unit)
    remarks.append(f"noise: {noise.label}, {found.how}")
    values = torch.from_numpy(found.values).reshape(-1, 1, *shape)
    known = torch.isfinite(values) & (values > 0)
    if not known.any():
        raise LensphysError(f"{noise.where} has no value that is positive and finite: it must hold the noise")
    if not known.all():
        remarks.append(f"{noise.where}: {int((~known).sum())} values that are not positive and finite are masked")
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
