"""Noise maps of all kinds as standard deviations: variances, inverse variances and weights are never taken for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.nddata import InverseVariance, StdDevUncertainty, VarianceUncertainty
from numpy.typing import NDArray

from lensphys.checks import LensphysError
from lensphys.fits.image import NoiseMap
from lensphys.fits.names import INVERSE_VARIANCE, VARIANCE, WEIGHT

Array = NDArray[Any]

_UNCERTAINTY = {VARIANCE: VarianceUncertainty, INVERSE_VARIANCE: InverseVariance}
# scatter of the sky over the standard deviation of a pixel: neighbours that share noise (drizzling) lower it to 0.4
_ALIKE = (0.4, 1.6)
_IMPLAUSIBLE = 10.0  # as far as a standard deviation may lie from the sky's scatter before another reading is tried


@dataclass(frozen=True)
class Deviation:
    """The standard deviation of each pixel, and the sentences that say how it was found."""

    values: Array
    remarks: tuple[str, ...] = ()


def deviation(noise: NoiseMap, image: Array) -> Deviation:
    """Return a noise map as standard deviations; where it says nothing, they are not positive or not finite.

    A weight is an inverse variance where that is the scatter of the sky, else an exposure map that is scaled to it.

    Args:
        noise: of the shape of the image.
        image: (N, 1, H, W), finite.

    Raises:
        LensphysError: if the map is the image itself, or can hardly be what its file is taken for.
    """
    if np.array_equal(noise.values.ravel(), image.ravel()):
        raise LensphysError(f"{noise.where} is the image itself: give the file of its noise")
    if noise.kind == WEIGHT:
        return _of_weight(noise, sky_scatter(image))
    if noise.kind in _UNCERTAINTY:
        return Deviation(_converted(noise.values, noise.kind), (f"{noise.where} is {_article(noise.kind)}",))
    if not noise.told:
        _check_plausible(noise, sky_scatter(image))
    return Deviation(noise.values)


def _converted(values: Array, kind: str) -> Array:
    with np.errstate(all="ignore"):  # zeros and negative values become infinite or NaN, and are masked as such
        return np.asarray(_UNCERTAINTY[kind](values, copy=False).represent_as(StdDevUncertainty).array, np.float32)


def _of_weight(noise: NoiseMap, sky: float) -> Deviation:
    if sky == 0:
        raise LensphysError(f"{noise.where} is a weight, and the image has no scatter to scale it by: give --error")
    sigma = _converted(noise.values, INVERSE_VARIANCE)
    ratio = sky / _median(sigma)
    low, high = _ALIKE
    if low <= ratio <= high:
        return Deviation(sigma, (f"{noise.where} is taken for an inverse variance: so the sky scatters",))
    told = f"{noise.where} is taken for an exposure map: it is scaled to the scatter of the sky, {sky:.3g}"
    return Deviation(sigma * np.float32(ratio), (told,))


def _check_plausible(noise: NoiseMap, sky: float) -> None:
    """Raise where a map without a name is far off the sky's scatter as it is, and close to it as another kind."""
    if sky == 0 or 1 / _IMPLAUSIBLE < _median(noise.values) / sky < _IMPLAUSIBLE:
        return
    low, high = _ALIKE
    for kind in (VARIANCE, INVERSE_VARIANCE):
        if low <= sky / _median(_converted(noise.values, kind)) <= high:
            raise LensphysError(
                f"{noise.where} looks like {_article(kind)}, not like standard deviations: name its extension "
                f"{'VARIANCE' if kind == VARIANCE else 'IVAR'}, or give its square root"
            )


def sky_scatter(image: Array) -> float:
    """Return the standard deviation of the sky: of what is fainter than the median, whatever neighbours share."""
    level = np.median(image)
    fainter = level - image[image < level]
    return 1.4826 * float(np.median(fainter)) if fainter.size else 0.0


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _median(values: Array) -> float:
    known = values[np.isfinite(values) & (values > 0)]
    return float(np.median(known)) if known.size else float("nan")
