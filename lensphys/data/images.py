"""The user's own images: FITS, .npy stacks and our HDF5 files in, the same kind out.

Rows of an array are y, growing upwards, and columns are x, exactly as the array stands in the file (a FITS image shown
with ``origin="lower"``): nothing is flipped or rotated. All positions in arcsec (deflections, lens and source centres)
are along these axes of the array, not along RA and Dec; the WCS of a FITS output maps its pixels back to the sky.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lensphys.basics.checks import LensphysError, check_file, check_positive
from lensphys.basics.remarks import of_all
from lensphys.data.noise_maps import Scale, error_map, noise_map_in, questioned_law
from lensphys.data.sky_levels import KEEP, sky_removed
from lensphys.fits.beam import Beam
from lensphys.fits.given import Subject
from lensphys.fits.header import NO_SKY, filter_of, questioned_scale, same_scale, scale_key, scale_overruled
from lensphys.fits.image import PIXELS, Choice, NoiseMap
from lensphys.fits.kernel import Kernel
from lensphys.fits.masks import Mask
from lensphys.fits.sky import Frame
from lensphys.fits.units import is_surface_brightness, unit_of
from lensphys.observation import (
    PSF,
    Camera,
    Conditions,
    ExposureNoise,
    Instrument,
    Noise,
    Observation,
    PixelPSF,
    SkyNoise,
    UnknownPSF,
)
from lensphys.observation.fingerprint import fingerprint
from lensphys.observation.psf_file import centred_psf, read_kernel, usable
from lensphys.observation.units import exposure_of, unit_ratio
from lensphys.tracing.grid import PixelGrid

if TYPE_CHECKING:
    from astropy.io.fits import Header

from lensphys.data.contents import Carried, Contents, InMemory, check_choice_of_fits, contents_of, masked
from lensphys.data.masks import mask_in
from lensphys.data.npy import as_float32
from lensphys.data.pixels import MASK, cleaned, usable_images, without_bad_pixels, without_filled, without_holes

Array = NDArray[Any]
NO_PSF = "no PSF is known: the image is taken as it is, without blur (give --psf or --instrument)"
_FEWEST_PIXELS = 25  # that count in an image: a smooth lens and its source have a dozen parameters
_FEWEST, _MOST = 2, 5  # points along the side of a pixel: the flux in it is not that at a point where light is steep

_TELESCOPES = frozenset(("HST", "JWST", "EUCLID", "ROMAN", "RUBIN"))  # as TELESCOP and instruments call them
_WIDE = re.compile(r"F\d{3}[WMNX]|F\d{3}LP")  # filters of HST and JWST
_FINEST, _COARSEST = 100.0, 3.0  # pixels of a kernel to one of the image, and of the image to one of a kernel


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
        """A hash of the images and of how they were taken: what a computation on them depends on."""
        return fingerprint(self.observation)

    def at(self, place: Array) -> ImageSet:
        """Return some of the images, by their places here (n,), in that order and as often as they are named."""
        carried = None if self.carried is None else self.carried.rows(place)
        return replace(
            self, observation=self.observation[torch.from_numpy(place)], carried=carried, index=self.index[place]
        )


@dataclass(frozen=True)
class Reading:
    """How files of images are read: what is given here goes before what a file says.

    Args:
        instrument: for the pixel scale, the PSF and the noise, where nothing else gives them. What was drawn for each
            image of a lens file goes before the numbers of this instrument if the file names the same one.
        fallback: the instrument where neither ``instrument`` nor the file names one: that of a training.
        psf: FITS or .npy kernel (K, K) with a sum of 1 within 10 %, or a PSFEx model; on the image's pixels unless its
            header has a pixel scale.
        error: FITS or .npy standard deviation, (H, W) or for stacks (N, H, W); a FITS file may hold a variance, an
            inverse variance or a weight, by its name.
        mask: FITS or .npy, (H, W) or for stacks (N, H, W): bits, or zero and another value, read as masks of FITS
            files are (`lensphys.fits.masks`).
        target_psf: kernel that the super-resolved images shall have: see `with_target_psf`.
        pixel_scale: [arcsec].
        choice: what of a FITS file is asked for.
        sky: ``keep``, or ``subtract`` for the level of the borders: see `lensphys.data.sky_levels`.
        bad_pixels: ``mask`` those that no light made, or ``keep`` them: see `lensphys.observation.bad_pixels`.
    """

    instrument: Instrument | None = None
    fallback: Instrument | None = None
    psf: str | Path | Kernel | None = None
    error: str | Path | NoiseMap | None = None
    mask: str | Path | Mask | None = None
    target_psf: Path | None = None
    pixel_scale: float | None = None
    choice: Choice = Choice()
    sky: str = KEEP
    bad_pixels: str = MASK

    def __post_init__(self) -> None:
        for name in ("psf", "error", "mask", "target_psf"):
            if isinstance(given := getattr(self, name), str):
                object.__setattr__(self, name, Path(given))

    @property
    def own(self) -> Choice:
        """What of a FITS file is asked for beside what is given here."""
        given = {"noise": self.error, "mask": self.mask, "PSF": self.psf}
        return replace(self.choice, given=frozenset(what for what, file in given.items() if file is not None))

    @property
    def of_pixels(self) -> Choice:
        """What of a FITS file is asked for, of its pixels alone."""
        return replace(self.choice, mask_means=None, given=PIXELS.given)


@dataclass(frozen=True)
class _Preset:
    """What an instrument says of the images of a file: their PSF, and their noise in the unit of their header."""

    instrument: Instrument
    conditions: Conditions
    header: Header | None
    where: str
    origin: str  # in words; nothing where the file itself says it

    @property
    def psf(self) -> PSF:
        return self.instrument.psf_of(self.conditions)

    def told(self, what: str) -> list[str]:
        """Return the sentence that says whose PSF or noise it is."""
        return [f"{what}: {self.origin}"] if self.origin else []

    def noise(self, image: Tensor, remarks: list[str]) -> Noise:
        """Return the noise law of images (N, 1, H, W), in their own unit."""
        law = self.instrument.noise_of(image, self.conditions)
        if self.header is None or not isinstance(law, ExposureNoise):
            return law
        ratio = unit_ratio(self.header, self.instrument, self.where, self.instrument.pixel_scale)
        remarks += ratio.remarks
        return ratio.noise(law)


def read_images(
    path: str | Path | InMemory, reading: Reading = Reading(), rows: Array | None = None, scale: int = 1
) -> ImageSet:
    """Return the images of a file.

    What the reading gives goes before what the file says, and that before the instrument. NaN and infinite pixels
    become 0 and are masked. Without any noise information it is estimated from the images; without a PSF none is
    assumed.

    Args:
        path: FITS (.fits, .fit, .fits.gz: one image, its noise, mask and PSF, by the names that archives give them),
            .npz (the same, by the same names), .npy (N, H, W) or (H, W), or an HDF5 file of ``lensphys simulate``; or
            what is in memory.
        reading: how.
        rows: which images of a stack are read at all, (n,) in rising order; None for all of them.
        scale: factor by which pixels will become smaller: a target PSF is given on those.

    Raises:
        LensphysError: one sentence on what is wrong with the files.
    """
    images = _images(Path(path) if isinstance(path, str) else path, reading, rows)
    return images if reading.target_psf is None else with_target_psf(images, reading.target_psf, scale)


def _images(path: Path | InMemory, reading: Reading, rows: Array | None) -> ImageSet:
    """The images with their own PSF."""
    contents = _opened(path, reading, rows)
    remarks = [*contents.remarks]
    instrument, conditions, origin = _telescope(contents, reading, remarks)
    scale = _pixel_scale(path, reading.pixel_scale, contents, instrument, remarks)
    contents = contents.rows(usable_images(contents.where or path, contents.pixels, contents.numbers, remarks))
    height, width = contents.pixels.shape[-2:]
    grid = PixelGrid(height, width, scale)
    if instrument is not None and not same_scale(scale, instrument.pixel_scale):
        remarks.append(f'the pixels have {scale:.4g}", not the {instrument.pixel_scale:.4g}" of the instrument')
        instrument = instrument.model_copy(update={"pixel_scale": scale})  # so much sky falls into a pixel
    image, good, seen = _pixels(contents, reading.sky, remarks)
    preset = None if instrument is None else _Preset(instrument, conditions, contents.units, str(path), origin)
    blur, source, told = _psf(contents, scale, preset, reading.psf, remarks)
    noise, known = _noise(contents, image, good, preset, reading.error, remarks)
    counts = seen & known
    _check_enough(path, contents.numbers, counts.expand_as(image))
    # a telescope's pixel integrates over its area; an instrument says so of itself
    own_psf = isinstance(blur, PixelPSF) and contents.instrument is None
    points = instrument.points if instrument is not None and not own_psf else _points(blur, scale)
    observation = Observation(image, Camera(grid, blur, told or points), noise, None if bool(counts.all()) else counts)
    if contents.observed:
        observation = without_bad_pixels(observation, reading.bad_pixels, remarks)
    return ImageSet(observation, contents.header, of_all([remarks]), source, contents.carried, contents.numbers)


def _opened(path: Path | InMemory, reading: Reading, rows: Array | None) -> Contents:
    """What a file holds, with the mask that goes before its own, and the first remarks."""
    if isinstance(path, InMemory):
        check_choice_of_fits(path, reading.own)
        contents = path.contents
    else:
        check_file("input", path)
        contents = contents_of(path, reading.pixel_scale, reading.own, rows)
    contents = replace(contents, remarks=[*contents.remarks, *_what_it_is(path, contents)])
    if reading.mask is not None:
        mask = reading.mask if isinstance(reading.mask, Mask) else mask_in(Path(reading.mask), contents.subject)
        contents = masked(contents, mask, reading.choice.mask_means)
    return contents


def _telescope(contents: Contents, reading: Reading, remarks: list[str]) -> tuple[Instrument | None, Conditions, str]:
    """What took the images, what was drawn for each of them, if they name the same instrument, and who says so."""
    fallback = reading.fallback
    other = contents.instrument is not None and not contents.instrument.same_as(fallback)
    if reading.instrument is None and fallback is not None and other:
        remarks.append(f"the instrument is that of the file, not that of the training ({fallback.description})")
    instrument = reading.instrument or contents.instrument or fallback
    if instrument is None or instrument.same_as(contents.instrument):
        return instrument, contents.conditions, ""
    remarks += [] if contents.header is None else _other_telescope(instrument, contents.header)
    who = "the instrument" if reading.instrument is not None else "the instrument of the training"
    return instrument, Conditions(), f"that of {who} ({instrument.description})"


def _other_telescope(instrument: Instrument, header: Header) -> list[str]:
    """The question that an instrument calls for whose description names another telescope or filter than the header."""
    words = set(re.findall(r"\w+", instrument.description.upper()))
    telescope, own = str(header.get("TELESCOP", "")).strip().upper(), filter_of(header)
    telescopes, filters = words & _TELESCOPES, {word for word in words if _WIDE.fullmatch(word)}
    other = bool(telescopes) and telescope in _TELESCOPES - telescopes
    other |= bool(filters) and _WIDE.fullmatch(own) is not None and own not in filters
    said = " ".join(word for word in (telescope, own) if word)
    question = f"the image is of {said} by its header, the instrument is {instrument.description}: is it the right one?"
    return [question] if other else []


def _pixels(contents: Contents, sky: str, remarks: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """The images (N, 1, H, W), where they are numbers, and where these count too."""
    image, good = cleaned(contents.pixels, remarks)
    if contents.observed:
        good = without_filled(image, good, remarks)
    seen = good if contents.mask is None else good & torch.from_numpy(contents.mask)
    if contents.observed or sky != KEEP:  # simulated skies are at zero
        image = sky_removed(image, seen, sky, remarks)
    return image, good, seen


def _check_enough(path: Path | InMemory, numbers: Array, counts: Tensor) -> None:
    """Raise where an image, by its number in the file (N,), has too few pixels that count, (N, 1, H, W), for a lens."""
    size = counts[0].numel()
    for number, n in zip(numbers.tolist(), counts.flatten(1).sum(1).tolist(), strict=True):
        if n < min(_FEWEST_PIXELS, size):
            many = "no pixel that counts" if n == 0 else f"{n} of {size} pixels that count, too few for a lens"
            which = "the image" if len(numbers) == 1 else f"image {number}"
            raise LensphysError(
                f"{path}: {which} has {many} (finite, in the mask, not filled in, with a positive error)"
            )


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
        scale: factor by which pixels become smaller.

    Raises:
        LensphysError: if the file or its kernel is faulty.
    """
    camera = images.observation.camera
    if isinstance(target, Kernel):
        kernel, name = target, target.label
    else:
        kernel, name = read_kernel("target PSF file", Path(target), Subject.of("", images.header)), Path(target).name
    star = usable(kernel.of_result)
    sharp = PixelPSF(torch.from_numpy(star.kernel), kernel.scale_on(camera.grid.scale / scale))
    own = centred_psf(camera.psf) if isinstance(camera.psf, PixelPSF) else camera.psf
    wanted = centred_psf(sharp)
    remarks = [*images.remarks, f"target {star.sentence(_with_fwhm(kernel.label, sharp), sharp.scale)}"]
    if own is not camera.psf or wanted is not sharp:
        remarks.append("the kernels are centred, so that nothing moves on the sky")
    observation = replace(images.observation, camera=replace(camera, psf=own)).with_target_psf(wanted)
    return replace(images, observation=observation, remarks=remarks, psf=f"target {name}")


def _what_it_is(path: Path | InMemory, contents: Contents) -> Iterator[str]:
    """What is said of a stack, which may have been meant as something else, and of the unit of an array."""
    count, (height, width) = contents.total, contents.pixels.shape[-2:]
    if count > 1 and contents.carried is None:
        yield f"{_name(path)} is a stack: {count} images of {height} x {width} pixels, each by itself"
    if contents.unit and contents.units is not None:
        brightness = ", a surface brightness" if is_surface_brightness(contents.units) else ""
        yield f"{_name(path)} is in {contents.unit}{brightness}, and so is the flux of a pixel of it"


def _name(path: Path | InMemory) -> str:
    return path.name if isinstance(path, Path) else str(path)


def _pixel_scale(
    path: Path | InMemory, given: float | None, contents: Contents, instrument: Instrument | None, remarks: list[str]
) -> float:
    scales = (given, contents.scale, instrument.pixel_scale if instrument is not None else None)
    scale = next((s for s in scales if s is not None), None)
    if scale is None:
        lost = next((f" ({remark})" for remark in contents.remarks if remark.endswith(NO_SKY)), "")
        raise LensphysError(f"{path} has no pixel scale{lost}: give --pixel-scale in arcsec, or --instrument")
    check_positive("pixel scale", scale)
    if instrument is not None and given is None and contents.scale is None:
        remarks.append(f'{_name(path)} says no pixel scale: {scale:.4g}" of the instrument ({instrument.description})')
    key = "--pixel-scale" if given is not None or contents.header is None else scale_key(contents.header)
    remarks += questioned_scale(scale, key or "--instrument", str(path))
    if given is not None and contents.header is not None:
        remarks += scale_overruled(contents.header, given)
    return scale


def _psf(
    contents: Contents, scale: float, preset: _Preset | None, given: str | Path | Kernel | None, remarks: list[str]
) -> tuple[PSF, str, int | None]:
    """The PSF, where it comes from, and at how many points to a pixel's side light is taken, where it says so."""
    kernel = contents.kernel if given is None else given
    if isinstance(kernel, str | Path):
        kernel = read_kernel("PSF file", Path(kernel), contents.subject, contents.plane)
    kernel = _beam(contents, scale, remarks) if kernel is None else kernel
    if kernel is not None:
        star, pixel = usable(kernel), kernel.scale_on(scale)
        psf = PixelPSF(torch.from_numpy(star.kernel), pixel)
        remarks.append(star.sentence(_with_fwhm(kernel.label, psf), pixel))
        remarks += [*kernel.contradiction(scale), *_other_filter(kernel, contents)]
        _check_kernel_scale(kernel.where, pixel, scale)
        return psf, kernel.label, kernel.points
    if preset is not None:
        remarks += preset.told("PSF")
        return preset.psf, preset.instrument.description, None
    remarks.append(NO_PSF)
    return UnknownPSF(), "none is known", None


def _with_fwhm(name: str, psf: PixelPSF) -> str:
    """The name of a kernel with its FWHM, that of the Gaussian of the same peak; of one pixel the name alone."""
    if psf.kernel.numel() == 1:
        return name
    fwhm = math.sqrt(4 * math.log(2) / math.pi / float(psf.kernel.max())) * psf.scale
    return f'{name}, FWHM {fwhm:.2g}"'


def _beam(contents: Contents, scale: float, remarks: list[str]) -> Kernel | None:
    """The beam that the header of an interferometer's image says, as a kernel; None where there is none of use."""
    if contents.header is None or (beam := Beam.of(contents.header)) is None:
        return None
    height, width = contents.pixels.shape[1:]
    shape = height, width
    result = "that of the image before it was super-resolved" if "LENSPHYS" in contents.header else ""
    fault = result or beam.fault(shape, scale)
    if fault:
        remarks.append(f"the header says {beam}, {fault}; it is not used: give --psf, a kernel")
        return None
    remarks.append("the beam is the PSF of a cleaned image: for one that is not, give the dirty beam as --psf")
    return beam.kernel(Frame("the image", contents.header, shape, scale))


def _other_filter(kernel: Kernel, contents: Contents) -> list[str]:
    """The question that a kernel of another filter than the image's calls for."""
    own = "" if contents.header is None else filter_of(contents.header)
    if not own or not kernel.band or own == kernel.band:
        return []
    return [f"{kernel.label} is of the filter {kernel.band}, and the image of {own}: is it the right PSF?"]


def _check_kernel_scale(where: str, pixel: float, scale: float) -> None:
    """Raise where the pixels of a kernel [arcsec] cannot be meant for an image with pixels of ``scale`` [arcsec]."""
    if not scale / _FINEST <= pixel <= scale * _COARSEST:
        raise LensphysError(
            f'{where} has pixels of {pixel:.4g}", and the image pixels of {scale:.4g}": repair the scale that is wrong '
            "(arcsec)"
        )


def _noise(
    contents: Contents,
    image: Tensor,
    good: Tensor,
    preset: _Preset | None,
    given: str | Path | NoiseMap | None,
    remarks: list[str],
) -> tuple[Noise, Tensor]:
    """The noise law, and where it is known, (1 or N, 1, H, W)."""
    noise = contents.noise if given is None else given
    if isinstance(noise, str | Path):
        noise = noise_map_in(Path(noise), contents.subject)
    filled = without_holes(image, good)
    if noise is not None:
        own = given is None and noise.values.shape == contents.pixels.shape  # of a FITS stack, and of these images
        noise = noise if own else replace(noise, values=as_float32(contents.maps(noise.values, noise.where)))
        header = contents.units
        scale = Scale() if header is None else Scale(unit_of(header), exposure_of(header))
        return error_map(noise, filled, scale, remarks)
    everywhere = torch.ones(1, 1, *image.shape[-2:], dtype=torch.bool)
    if preset is not None:
        remarks += preset.told("noise")
        law = preset.noise(filled, remarks)
        remarks += questioned_law(law, filled) if contents.observed else []
        return law, everywhere
    remarks.append("no noise is known: it is estimated from the image (give --error or --instrument)")
    return SkyNoise.from_image(filled), everywhere
