"""Two images of one sky by two telescopes: where and how bright the finer one is, and how to undo it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from lensphys.basics.checks import LensphysError, check_positive
from lensphys.basics.scatter import scatter
from lensphys.basics.settings import Strict
from lensphys.observation import PSF, Instrument, NoPSF

Array = NDArray[np.floating[Any]]


class RegistrationSettings(Strict):
    """How the images of a pair are compared.

    Args:
        largest_shift: in x and in y [LR pixels]; with 0, gain and offset alone are fitted.
        least_correlation: of the images; pairs of one lens have 0.9 or more, of two lenses mostly less.
        widest: sigma of the blur between both telescopes, at most [LR pixels].
        most_wings: share of its light, at most, that is in a Gaussian twice as wide.
        outlier: sigma from which on a pixel counts less, ...
        model_error: ... or this share of the peak, which two PSFs may differ by; the larger of both.
        edge: pixels at each side that are not compared, for what lies beyond is not known [LR pixels].
        least_good: share of the pixels that must be good.
    """

    largest_shift: NonNegativeFloat = 3.0
    least_correlation: PositiveFloat = 0.8
    widest: PositiveFloat = 4.0
    most_wings: PositiveFloat = 0.5
    outlier: PositiveFloat = 3.0
    model_error: PositiveFloat = 0.05
    edge: PositiveInt = 2
    least_good: PositiveFloat = 0.2

    @property
    def unshifted(self) -> RegistrationSettings:
        """The same, but that gain and offset alone are fitted."""
        return self.model_copy(update={"largest_shift": 0.0})


@dataclass(frozen=True)
class Registration:
    """How the HR image of a pair differs from its LR image: hr(x) = gain * sky(x - shift) + offset.

    Args:
        shift_x: by which the sky is displaced in the HR image [arcsec].
        shift_y: [arcsec].
        sigma: standard deviation of both shifts [arcsec].
        gain: HR flux over LR flux, without unit.
        offset: [HR unit per HR pixel].
        correlation: of the LR image, but for its noise, and what the HR image says of it, -1 to 1.
        residual: root of their mean squared difference [LR unit per LR pixel].
        scale: side of an HR pixel [arcsec].
    """

    shift_x: float
    shift_y: float
    sigma: float
    gain: float
    offset: float
    correlation: float
    residual: float
    scale: float

    @property
    def unscaled(self) -> Registration:
        """The shift alone."""
        return replace(self, gain=1.0, offset=0.0)

    def undone(self, hr: Array) -> Array:
        """Return an HR image (sH, sW) on the sky of its LR image and in its unit.

        The shift is that of a cubic spline: its ringing dies off within a few pixels, where a Fourier shift would carry
        that of each cosmic ray and of the edges through the whole image, and it raises the noise less than a quintic
        one. What comes in at an edge repeats it, and nothing wraps around.
        Pixels within four of one that is not finite become NaN.
        """
        from scipy.ndimage import binary_dilation, shift

        bad = ~np.isfinite(hr)
        back = (-self.shift_y / self.scale, -self.shift_x / self.scale)
        values = np.where(bad, np.median(hr[~bad]), hr) if bad.any() else hr
        if any(back):
            values = shift(values.astype(np.float64), back, order=3, mode="nearest")
            bad = binary_dilation(bad, iterations=4) if bad.any() else bad
        return np.where(bad, np.nan, (values - self.offset) / self.gain)


@dataclass
class Matching:
    """What is taken out of pairs of one telescope and another; a pair that was fitted once is not fitted again.

    Args:
        shift: whether HR images are shifted onto their LR images.
        flux: whether they are put into the unit of their LR images.
        hr_psf: of the HR images, if it is known: used where that of the LR images is known, too.
        settings: how pairs are compared.
    """

    shift: bool
    flux: bool
    hr_psf: PSF | None = None
    settings: RegistrationSettings = RegistrationSettings()
    _known: dict[str, Registration] = field(default_factory=dict, repr=False)

    def register(self, lr: Array, hr: Array, telescope: Instrument) -> Registration:
        """Return what is to be undone for a pair, LR (H, W) and HR (sH, sW), whose LR image a telescope took.

        Raises:
            LensphysError: as `registration` does.
        """
        key = hashlib.sha256(lr.tobytes() + hr.tobytes()).hexdigest()
        if key not in self._known:
            settings = self.settings if self.shift else self.settings.unshifted
            lr_psf = telescope.psf_of()
            psfs = None if self.hr_psf is None or isinstance(lr_psf, NoPSF) else (lr_psf, self.hr_psf)
            self._known[key] = registration(lr, hr, telescope.pixel_scale, psfs=psfs, settings=settings)
        return self._known[key] if self.flux else self._known[key].unscaled

    def columns(self, found: Sequence[Registration]) -> dict[str, NDArray[np.float64]]:
        """Return the datasets of some pairs, (n,) each."""
        names = {"hr_shift_x": "shift_x", "hr_shift_y": "shift_y", "hr_shift_sigma": "sigma"} if self.shift else {}
        names |= {"hr_gain": "gain", "hr_offset": "offset"} if self.flux else {}
        names |= {"hr_correlation": "correlation"}
        return {name: np.array([getattr(one, field) for one in found]) for name, field in names.items()}

    def units(self, flux: str) -> dict[str, str]:
        """Return the units of the datasets, /hr among them if its flux is matched; ``flux`` is that of /lr."""
        shifts = dict.fromkeys(("hr_shift_x", "hr_shift_y", "hr_shift_sigma"), "arcsec")
        own = {
            "hr": flux,
            "hr_gain": "unit of the HR input / unit of /lr",
            "hr_offset": "unit of the HR input per pixel",
        }
        return {"hr_correlation": "1"} | (shifts if self.shift else {}) | (own if self.flux else {})


def registration(
    lr: Array,
    hr: Array,
    pixel_scale: float,
    *,
    psfs: tuple[PSF, PSF] | None = None,
    settings: RegistrationSettings = RegistrationSettings(),
) -> Registration:
    """Return the shift, gain and offset of an HR image, by robust least squares against its LR image.

    The block sum of the HR image, shifted and blurred in Fourier space, is compared with the LR image. With both PSFs,
    each image is first blurred by that of the other, so that both have the same. Without, the HR image is blurred by
    two Gaussians, a core and its wings, whose width and share are fitted: symmetric, so it moves nothing. The start is
    the peak of the cross-correlation (Guizar-Sicairos et al. 2008, Optics Letters 33, 156); what only one image shows
    counts less, as an outlier.

    Args:
        lr: (H, W); NaN does not count.
        hr: (sH, sW), s any whole number; NaN does not count.
        pixel_scale: of the LR image [arcsec].
        psfs: of the LR and of the HR image.
        settings: how they are compared.

    Raises:
        LensphysError: if the shapes do not fit, the images do not show the same object or the shift is too large.
    """
    check_positive("pixel_scale", pixel_scale)
    factor, largest_shift = _factor(lr, hr), settings.largest_shift
    pair = _Pair.from_images(lr, hr, factor, pixel_scale, psfs, settings)
    start = pair.rough_shift() if largest_shift else (0.0, 0.0)
    x, variance = _fitted(pair, start, free_width=psfs is None)
    model = pair.model(*x)
    slope, level = pair.line(model)
    difference = (pair.lr - slope * model - level)[pair.good]
    # the blur hides the noise of the HR image, but not from the shift, which is what it has in common with smooth light
    noise = np.hypot(scatter(difference), slope * factor * _white_noise(hr))
    correlation = _correlation(model[pair.good], pair.lr[pair.good], _white_noise(np.where(pair.good, lr, np.nan)))
    if not (correlation >= settings.least_correlation and slope > 0):
        raise LensphysError(
            f"LR and HR image do not show the same object: their correlation is {correlation:.2f} at the best shift, "
            f"expected {settings.least_correlation} or more: pair the right files, or leave this one out"
        )
    if largest_shift and max(abs(x[0]), abs(x[1])) > 0.99 * largest_shift:
        raise LensphysError(
            f"the HR image is shifted by ({x[0]:.2f}, {x[1]:.2f}) LR pixels or more, expected at most "
            f"{largest_shift:g}: align the pair by its WCS first"
        )
    return Registration(
        shift_x=float(x[0] * pixel_scale),
        shift_y=float(x[1] * pixel_scale),
        sigma=pixel_scale * float(np.sqrt(variance) * noise),
        gain=1 / slope,
        offset=-level / slope / factor**2,
        correlation=correlation,
        residual=float(np.sqrt(np.mean(difference**2))),
        scale=pixel_scale / factor,
    )


def _factor(lr: Array, hr: Array) -> int:
    factor = hr.shape[-1] // lr.shape[-1] if lr.ndim == hr.ndim == 2 else 0
    if factor < 1 or hr.shape != (factor * lr.shape[0], factor * lr.shape[1]):
        raise LensphysError(
            f"the HR image must be (s H, s W) of an LR image (H, W), s a whole number, got {hr.shape} and {lr.shape}"
        )
    return factor


@dataclass(frozen=True)
class _Pair:
    """A pair, prepared.

    Args:
        lr: (H, W).
        spectrum: of the HR image, mirrored at its edges so that it goes on smoothly, (2 sH, sW + 1).
        good: LR pixels that count, (H, W).
        factor: s.
        settings: how they are compared.
    """

    lr: Array
    spectrum: NDArray[np.complex128]
    good: NDArray[np.bool_]
    factor: int
    settings: RegistrationSettings

    @classmethod
    def from_images(
        cls,
        lr: Array,
        hr: Array,
        factor: int,
        pixel_scale: float,
        psfs: tuple[PSF, PSF] | None,
        settings: RegistrationSettings,
    ) -> _Pair:
        """Return the pair with its bad pixels filled, blurred alike where both PSFs, LR and HR, are known.

        Args:
            lr: (H, W) [any unit].
            hr: (sH, sW) [any unit].
            factor: s.
            pixel_scale: of the LR image [arcsec].
            psfs: of the LR and of the HR image.
            settings: how they are compared.

        Raises:
            LensphysError: if an image shows nothing, or too few pixels are good.
        """
        from scipy.ndimage import binary_dilation

        (lr, lr_bad), (hr, hr_bad) = _filled(lr), _filled(hr)
        bad = binary_dilation(lr_bad, iterations=1 if psfs is None else 2)
        bad |= binary_dilation(_blocks(hr_bad, factor) > 0, iterations=3)
        if psfs is not None:
            lr, hr = _blurred(lr, psfs[1], pixel_scale), _blurred(hr, psfs[0], pixel_scale / factor)
        good, inner = np.zeros(lr.shape, bool), (slice(settings.edge, -settings.edge),) * 2
        good[inner] = ~bad[inner]
        if good.sum() < settings.least_good * good.size:
            raise LensphysError(
                f"only {good.sum()} of {good.size} pixels of the pair are good, too few to register it: leave it out"
            )
        height, width = hr.shape
        mirrored = np.pad(hr, ((0, height), (0, width)), mode="symmetric")
        return cls(lr, np.fft.rfft2(mirrored), good, factor, settings)

    def model(self, x: float, y: float, width: float, wings: float) -> Array:
        """The LR pixels (H, W) by the HR image shifted back by (x, y) and blurred; lengths in LR pixels."""
        rows = 2 * self.factor * self.lr.shape[0]
        columns = 2 * self.factor * self.lr.shape[1]
        v = np.fft.fftfreq(rows)[:, None] * self.factor  # cycles per LR pixel
        u = np.fft.rfftfreq(columns)[None] * self.factor
        core = np.exp(-2 * np.pi**2 * width**2 * (u**2 + v**2))
        change = np.exp(2j * np.pi * (u * x + v * y)) * ((1 - wings) * core + wings * core**4)
        fine = np.fft.irfft2(self.spectrum * change, s=(rows, columns))
        return _blocks(fine[: rows // 2, : columns // 2], self.factor)

    def rough_shift(self) -> tuple[float, float]:
        """The shift (x, y) in tenths of an LR pixel, by the peak of the cross-correlation of both images."""
        from skimage.registration import phase_cross_correlation

        images = [np.where(self.good, image - np.median(image), 0) for image in (self.model(0, 0, 1, 0), self.lr)]
        # without whitening: what both PSFs cut off is noise alone
        (y, x), _, _ = phase_cross_correlation(*images, upsample_factor=10, normalization=None)
        largest = self.settings.largest_shift
        return float(np.clip(x, -largest, largest)), float(np.clip(y, -largest, largest))

    def line(self, model: Array) -> tuple[float, float]:
        """The slope and the level that turn the model into the LR image, robustly (Huber weights, iterated)."""
        x, y = model[self.good], self.lr[self.good]
        matrix, weight = np.stack([x, np.ones_like(x)], axis=1), np.ones_like(x)
        for _ in range(10):
            root = np.sqrt(weight)
            slope, level = np.linalg.lstsq(root[:, None] * matrix, root * y, rcond=None)[0]
            residual = np.abs(y - slope * x - level)
            weight = np.minimum(1.0, self.outlier(residual) / np.maximum(residual, 1e-300))
        return float(slope), float(level)

    def outlier(self, residual: Array) -> float:
        """The residual from which on a pixel counts less: no noise, and more than two PSFs may differ by."""
        low, high = np.quantile(self.lr[self.good], [0.5, 0.995])
        allowed = self.settings.model_error * float(high - low)
        return max(self.settings.outlier * float(scatter(residual)), allowed, 1e-300)


def _fitted(
    pair: _Pair, start: tuple[float, float], *, free_width: bool
) -> tuple[tuple[float, float, float, float], float]:
    """Shift in x and y, width of the blur [LR pixels], its wings; and the variance of a shift, for noise of 1."""
    from scipy.optimize import least_squares

    settings = pair.settings
    moves = settings.largest_shift > 0

    def full(p: Array) -> tuple[float, float, float, float]:
        x, y = p[:2] if moves else (0.0, 0.0)
        width, wings = p[-2:] if free_width else (0.0, 0.0)
        return float(x), float(y), float(width), float(wings)

    def residuals(p: Array) -> Array:
        model = pair.model(*full(p))
        slope, level = pair.line(model)
        return (pair.lr - slope * model - level)[pair.good]

    p = np.array([*(start if moves else ()), *((1.0, 0.1) if free_width else ())])
    if not len(p):
        return full(p), 0.0
    shifts, blur = (settings.largest_shift,) * 2, (settings.widest, settings.most_wings)
    bound = np.array([*(shifts if moves else ()), *(blur if free_width else ())])
    low = np.where(np.arange(len(p)) < 2 * moves, -bound, 0.0)
    outlier = pair.outlier(residuals(p))
    found = least_squares(
        residuals, p, bounds=(low, bound), loss="huber", f_scale=outlier, xtol=1e-6, x_scale=1.0, max_nfev=50
    )
    if not moves:
        return full(found.x), 0.0
    return full(found.x), float(np.linalg.pinv(found.jac.T @ found.jac)[:2, :2].trace() / 2)


def _filled(image: Array) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The image with its bad pixels as those around them, and where they are."""
    bad = ~np.isfinite(image)
    if bad.all():
        raise LensphysError("an image of the pair has no finite pixel: leave it out")
    if np.ptp(image[~bad]) == 0:
        raise LensphysError("an image of the pair is the same everywhere, it shows nothing to register: leave it out")
    if not bad.any():
        return image.astype(np.float64), bad
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(bad, return_distances=False, return_indices=True)
    return image[tuple(nearest)].astype(np.float64), bad


def _correlation(model: Array, image: Array, noise: float) -> float:
    """The correlation of an image (N,) with a model, as it would be without the noise of the image."""
    signal = max(1 - noise**2 / max(float(image.var()), 1e-300), 0.1)
    return float(min(np.corrcoef(model, image)[0, 1] / signal**0.5, 1.0))


def _white_noise(image: Array) -> float:
    """The noise of an image by its second differences, where it has no bad pixels."""
    from scipy.ndimage import laplace

    second = laplace(image.astype(np.float64))
    return scatter(second[np.isfinite(second)]) / np.sqrt(20.0)  # of the weights 1, 1, 1, 1, -4


def _blocks(image: NDArray[Any], factor: int) -> NDArray[Any]:
    height, width = (n // factor for n in image.shape)
    return image.reshape(height, factor, width, factor).sum((1, 3))


def _blurred(image: Array, psf: PSF, scale: float) -> Array:
    return psf.blur(torch.from_numpy(image)[None, None], scale)[0, 0].numpy()
