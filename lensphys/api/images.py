"""Images to be fitted or super-resolved: read from files or taken from memory, with all that is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from lensphys.api.words import in_python, tell
from lensphys.basics.checks import LensphysError, check_choice, check_positive, shortened
from lensphys.basics.remote import local
from lensphys.basics.sentences import counted
from lensphys.data.contents import InMemory, truth_values
from lensphys.data.images import ImageSet, Reading, read_images
from lensphys.data.lens_file import LensFile
from lensphys.fits.header import wcs_scale
from lensphys.fits.image import Choice, NoiseMap
from lensphys.fits.kernel import Kernel
from lensphys.fits.masks import Mask
from lensphys.fits.names import GOOD
from lensphys.observation import Instrument
from lensphys.observation.kernel import psf_kernel
from lensphys.tracing.grid import PixelGrid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[Any]
File = str | Path


def places(index: int | slice | Sequence[int] | Array, count: int) -> Array:
    """Return the places (n,) that an index of so many images names, in its order and as often as it names them.

    Raises:
        LensphysError: if there is no such image.
    """
    try:
        return np.atleast_1d(np.arange(count)[index]).copy()
    except IndexError:
        there = f"there are {count} images, 0 to {count - 1}" if count > 1 else "there is one image, 0"
        raise LensphysError(f"{there}: {index} is none") from None


@dataclass(frozen=True)
class Images:
    """One image or a stack of them, and how they were taken.

    Rows are y, growing upwards, and columns are x: show them with ``origin="lower"``.

    Args:
        set: pixels, PSF, noise and mask.
        single: whether it is one image (H, W), and not a stack (N, H, W).
        name: of the file, for provenance.

    Example:
        >>> from lensphys.api.simulated import observe
        >>> from lensphys.model import SIE, Sersic
        >>> seen = observe(SIE(theta_E=1.0), Sersic(amp=5.0, R_sersic=0.2, n_sersic=1.0), "euclid_vis", seed=None)
        >>> seen.image.shape, seen.pixel_scale, bool(seen.mask.all())
        ((64, 64), 0.101, True)
    """

    set: ImageSet
    single: bool = False
    name: str = "array"

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int | slice | Sequence[int]) -> Images:
        """Return one image of a stack, or some."""
        return replace(self, set=self.set.at(places(index, len(self))), single=isinstance(index, int | np.integer))

    def __repr__(self) -> str:
        seen = self.set.observation
        height, width = seen.camera.grid.shape
        kept = int(seen.n_unmasked.sum())
        masked = "" if kept == seen.image.numel() else f", {counted(seen.image.numel() - kept, 'pixel')} masked"
        many = counted(len(self), "image")
        psf = self.set.psf or "none"
        return f'{many} of {height} x {width} pixels of {self.pixel_scale:.4g}" ({self.name}), PSF: {psf}{masked}'

    @property
    def index(self) -> Array:
        """The number of each image in its file, (N,)."""
        return self.set.index

    @property
    def image(self) -> Array:
        """The pixels, (H, W) or (N, H, W) [flux per pixel]."""
        return self._of(self.set.observation.image)

    @property
    def noise(self) -> Array:
        """Standard deviation of the noise, (H, W) or (N, H, W) [flux per pixel]; of photons by the smoothed image."""
        seen = self.set.observation
        return self._of(seen.noise.variance(seen.smoothed).sqrt().expand_as(seen.image))

    @property
    def mask(self) -> Array:
        """True where a pixel counts, (H, W) or (N, H, W)."""
        return self._of(self.set.observation.weight > 0)

    @property
    def psf(self) -> Array | None:
        """The PSF, a kernel (K, K) with the sum 1 on pixels of ``psf_scale``; None where none is known.

        Of a stack whose images differ in it, that of the first one.
        """
        found = psf_kernel(self.set.observation.camera)
        return None if found is None else found[0]

    @property
    def psf_scale(self) -> float | None:
        """Side of a pixel of ``psf`` [arcsec]; smaller than the image's where light is integrated over each pixel."""
        found = psf_kernel(self.set.observation.camera)
        return None if found is None else found[1]

    @property
    def pixel_scale(self) -> float:
        """Side of a pixel [arcsec]."""
        return self.grid.scale

    @property
    def grid(self) -> PixelGrid:
        """The pixels, and where they are."""
        return self.set.observation.camera.grid

    @property
    def positions(self) -> tuple[Array, Array]:
        """The centres of the pixels, x and y, (H, W) each [arcsec] from the middle of the image."""
        x, y = self.grid.positions(like=torch.zeros((), dtype=torch.float64))[0].numpy()
        return x, y

    @property
    def remarks(self) -> list[str]:
        """Sentences on what was used, masked, assumed or estimated."""
        return self.set.remarks

    def plot(self, *, most: int = 8) -> Figure:
        """Return a figure of the first images.

        Args:
            most: how many of a stack.
        """
        from lensphys.api.plot import images_figure

        titles = [f"image {i}" for i in self.index[:most]] if len(self) > 1 else [self.name]
        shown = dict(zip(titles, self.set.observation.image[:most, 0].cpu().numpy(), strict=True))
        return images_figure(shown, self.set.observation.camera.grid)

    def _of(self, planes: torch.Tensor) -> Array:
        array: Array = planes.detach().cpu().numpy()[:, 0]
        return array[0] if self.single else array


def as_images(given: Images | File | Array, fallback: Instrument | None = None) -> Images:
    """Return images that were read as they are, and others, a file or an array (H, W) or (N, H, W), as `read` does.

    Args:
        given: the images.
        fallback: the instrument of what neither names one nor says it: that of a training.
    """
    if isinstance(given, Images):
        return given
    with in_python():
        found = _given(_as_array(given), None, None)
        psf = kernel(found.psf, "the PSF given")
        return _seen(found, psf=psf, pixel_scale=found.pixel_scale, fallback=fallback)


def read(
    path: File | Array | LensFile,
    *,
    psf: File | Array | None = None,
    psf_scale: float | None = None,
    noise: File | Array | float | None = None,
    mask: File | Array | None = None,
    sky: str = "keep",
    bad_pixels: str = "mask",
    instrument: str | Instrument | None = None,
    ext: str | int | None = None,
    band: str | None = None,
    mask_means: str | None = None,
    pixel_scale: float | None = None,
) -> Images:
    """Return the images of a file, or of an array, ready to be fitted or super-resolved.

    In FITS files image, noise, mask and PSF are found by the names that archives give them. Each remark, on what was
    used, masked, assumed or estimated, comes as a `lensphys.Note`, a warning.

    Args:
        path: FITS (one image), an .npy stack (N, H, W), an HDF5 file of `lensphys.simulate`, or an array, a tensor or
            nested lists (H, W) or (N, H, W) [flux per pixel]; the unit of an astropy Quantity is used as BUNIT of a
            FITS file is. NDData and CCDData come with their unit, uncertainty, mask, PSF and pixel scale.
        psf: kernel (K, K) with a sum of 1: FITS, PSFEx or .npy file, or an array.
        psf_scale: side of the kernel's pixels [arcsec], of an array that is not on the image's; files say it themselves
            (PIXSCALE, ``psf_scale``).
        noise: standard deviation of each pixel, (H, W) or (N, H, W) [unit of the image]: FITS or .npy file (a variance
            or a weight, if its name says so), or an array; for arrays also one number.
        mask: True where a pixel counts, (H, W); of a file also another file, FITS or .npy. It goes before its own.
        sky: ``keep``, or ``subtract``: the level along the borders, where these show no galaxy's halo.
        bad_pixels: ``mask``, or ``keep``: those that no light of this PSF makes (cold, hot, hit by cosmic rays).
        instrument: a preset (``lensphys list instruments``), a YAML file, or an `Instrument`: pixel scale, PSF and
            noise where nothing else gives them.
        ext: extension of the image in a FITS file: ``SCI``, ``SCI,2``, 4, ``SCI[0]``.
        band: of the image in a FITS file of several: ``VIS``.
        mask_means: what nonzero pixels of a FITS mask are, ``good`` or ``bad``, where the file does not tell.
        pixel_scale: [arcsec].

    Raises:
        LensphysError: one sentence on what is wrong, and what to do.

    Example:
        >>> import numpy as np
        >>> ring = np.hypot(*np.mgrid[-16:16, -16:16]) - 8
        >>> read(np.exp(-ring**2 / 8), pixel_scale=0.1, noise=np.full((32, 32), 0.01), psf=np.ones((1, 1)))
        1 image of 32 x 32 pixels of 0.1" (array), PSF: the PSF given
    """
    with in_python():
        for name, scale in (("pixel_scale", pixel_scale), ("psf_scale", psf_scale)):
            if not isinstance(scale, Real | None) or isinstance(scale, bool):
                raise LensphysError(f"{name} must be a number [arcsec], got {scale!r}")
        psf, noise, mask = map(_as_array, (psf, noise, mask))
        given = _given(_as_array(path), mask, noise)
        pixel_scale = given.pixel_scale if pixel_scale is None else pixel_scale
        return _seen(
            given,
            instrument=None if instrument is None else telescope(instrument),
            psf=kernel(given.psf if psf is None else psf, "the PSF given", psf_scale),
            pixel_scale=pixel_scale,
            sky=sky,
            bad_pixels=bad_pixels,
            choice=choice_of(None if ext is None else str(ext), band, mask_means),
        )


@dataclass(frozen=True)
class _Given:
    """Where images come from.

    Args:
        contents: a file, or arrays with their mask.
        noise: of each pixel.
        mask: beside a file, in another one or taken from an array.
        name: for provenance.
        single: whether it is an array of one image; of a file its contents tell.
        psf: what comes with the images, where nothing else is given, and
        pixel_scale: likewise [arcsec].
    """

    contents: Path | InMemory
    noise: File | Array | None
    mask: File | Mask | None
    name: str
    single: bool = False
    psf: Array | None = None
    pixel_scale: float | None = None


def _seen(given: _Given, **reading: Any) -> Images:
    """Return the images that are given, read with their noise and mask, and so; tell of them."""
    images = read_images(given.contents, Reading(error=_noise_map(given.noise), mask=given.mask, **reading))
    tell(images.remarks)
    return Images(images, given.single or (images.header is not None and len(images.index) == 1), given.name)


@singledispatch
def _given(images: object, mask: Any, noise: Any) -> _Given:
    """What is given: an array, a file, or simulated lenses."""
    if hasattr(images, "uncertainty"):
        return _of_nddata(images, mask, noise)
    raise LensphysError(f"images are a file or an array, got {type(images).__name__}: give numpy.asarray of it")


@_given.register(np.ndarray)
def _(images: Array, mask: Any, noise: Any) -> _Given:
    if isinstance(mask, File):
        raise LensphysError("the mask of an array is an array, True where a pixel counts: got a file")
    each = np.broadcast_to(noise, images.shape[-2:], subok=True) if _is_number(noise) else noise
    unit = str(getattr(images, "unit", ""))  # of a Quantity
    return _Given(InMemory(_with_holes(images), mask, unit), each, None, "array", images.ndim == 2)


@_given.register(str)
@_given.register(Path)
def _(images: File, mask: Any, noise: Any) -> _Given:
    if _is_number(noise):
        raise LensphysError("one number for the noise is for arrays: give a file or an array of the noise of a file")
    if isinstance(mask, np.ndarray):
        mask = Mask(truth_values(mask).astype(np.uint8), "the mask", "the mask", GOOD)
    return _Given(local(images), noise, mask, Path(images).name)


@_given.register
def _(images: LensFile, mask: Any, noise: Any) -> _Given:
    return _given(images.path, mask, noise)


def _of_nddata(images: Any, mask: Any, noise: Any) -> _Given:
    """What NDData or CCDData of astropy hold; what is given beside them goes before it."""
    from astropy.nddata import StdDevUncertainty

    unit = 1 if images.unit is None else images.unit
    if noise is None and images.uncertainty is not None:
        try:
            error = images.uncertainty.represent_as(StdDevUncertainty)
            noise = error.array * (unit if error.unit is None else error.unit)
        except Exception as fault:  # of a kind that is none, or without an array
            raise LensphysError(f"the uncertainty of the images is of an unknown kind ({fault}): give noise") from None
    mask = ~np.asarray(images.mask) if mask is None and images.mask is not None else mask
    given = _given(np.asarray(images.data) * unit, mask, noise)
    name, sky = type(images).__name__, getattr(images.wcs, "has_celestial", False)
    scale = wcs_scale(images.wcs.celestial, name) if sky else None
    return replace(given, name=name, psf=getattr(images, "psf", None), pixel_scale=scale)


def _as_array(given: Any) -> Any:
    """A tensor or nested lists of numbers as an array; all else as it is.

    Raises:
        LensphysError: if the lists hold no numbers, or are not of one length.
    """
    if isinstance(given, torch.Tensor):
        plain = given.detach().cpu()
        return (plain.float() if plain.dtype in (torch.float16, torch.bfloat16) else plain).numpy()
    if not isinstance(given, list | tuple):
        return given
    try:
        found = np.asarray(given)
    except ValueError:
        found = np.asarray([""])
    if found.dtype.kind not in "biuf":
        raise LensphysError(
            f"lists are nested lists of numbers (H, W) or (N, H, W), got {shortened(repr(given), 80)}: read each file "
            "by itself; several images of one lens are a lensphys.Dataset"
        )
    return found


def _is_number(noise: Any) -> bool:
    """Whether one number is given, with a unit or not."""
    if isinstance(noise, bool | np.bool_):
        return False
    return isinstance(noise, float | int | np.generic) or (isinstance(noise, np.ndarray) and noise.ndim == 0)


def _with_holes(array: Any) -> Any:
    """An array of any kind; of a masked one, NaN where it is masked."""
    return np.ma.filled(array.astype(np.float64), np.nan) if isinstance(array, np.ma.MaskedArray) else np.asarray(array)


def _noise_map(noise: File | Array | None) -> File | NoiseMap | None:
    """The noise as it is read: an array becomes a map, in its unit if it has one, a file stays one."""
    if isinstance(noise, File | None):
        return noise
    unit = getattr(noise, "unit", None)  # of a Quantity: it tells a variance from a standard deviation
    try:
        found = _with_holes(noise)
        if found.dtype == bool:
            raise TypeError
        values = np.asarray(found, np.float32)
    except (TypeError, ValueError):
        said = shortened(repr(noise))
        raise LensphysError(f"noise must be a number, an error map (H, W) or a file of one, got {said}") from None
    return NoiseMap(values, where="the noise", named=unit is None, unit=unit)


def choice_of(ext: str | None, band: str | None, mask_means: str | None) -> Choice:
    """Return what of a FITS file is asked for.

    Raises:
        LensphysError: if ``mask_means`` is neither good nor bad.
    """
    if mask_means is not None:
        check_choice("--mask-means", mask_means, ["good", "bad"])
    return Choice(ext, band, mask_means)


def kernel(given: File | Array | None, name: str, scale: float | None = None) -> File | Kernel | None:
    """Return a PSF as it is read: an array (K, K), of sum 1, becomes a kernel of this name, a file stays one.

    Args:
        given: it.
        name: for messages.
        scale: side of its pixels [arcsec], of an array; those of the image if None.

    Raises:
        LensphysError: if it is neither, or a scale is given where there is no array.
    """
    given = _as_array(given)
    if isinstance(given, np.ndarray) and given.dtype.kind in "iuf":
        if scale is not None:
            check_positive("psf_scale", float(scale))
        return Kernel(np.asarray(_with_holes(given), np.float64), None if scale is None else float(scale), where=name)
    if scale is not None:
        raise LensphysError("psf_scale is for a PSF that is an array: a file says its own, as PIXSCALE or psf_scale")
    if isinstance(given, File | None):
        return given
    raise LensphysError(f"{name} must be a kernel (K, K) or a file of one, got {shortened(repr(given))}")


@singledispatch
def telescope(given: object) -> Instrument:
    """Return an instrument: of a preset's name, of a YAML file, or as it is.

    Raises:
        LensphysError: if it is something else, or faulty.
    """
    raise LensphysError(f"instrument must be a preset, a YAML file or an Instrument, got {given!r}")


@telescope.register
def _(given: Instrument) -> Instrument:
    return given


@telescope.register(str)
@telescope.register(Path)
def _(given: File) -> Instrument:
    return Instrument.named(str(given))
