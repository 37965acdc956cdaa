"""Noise maps of all kinds as standard deviations: variances, inverse variances and weights are never taken for one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from astropy.nddata import InverseVariance, StdDevUncertainty, VarianceUncertainty
from astropy.units import UnitBase
from numpy.typing import NDArray
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.fits.image import NoiseMap
from lensphys.fits.names import DEVIATION, INVERSE_VARIANCE, VARIANCE, WEIGHT
from lensphys.observation import SkyNoise

Array = NDArray[Any]

_POWER = {DEVIATION: 1, VARIANCE: 2, INVERSE_VARIANCE: -2}  # of the image's unit
_UNCERTAINTY = {VARIANCE: VarianceUncertainty, INVERSE_VARIANCE: InverseVariance}
# A standard deviation over the scatter of the sky: what neighbours share (drizzling) lowers the scatter to 0.4 of it
_ALIKE = (0.8, 2.5)
_IMPLAUSIBLE = 10.0  # as far as a standard deviation may lie from the sky's scatter before another reading is tried


@dataclass(frozen=True)
class Deviation:
    """The standard deviation of each pixel, and what was made of the map to find it, in words that follow its name."""

    values: Array
    how: str


def deviation(noise: NoiseMap, image: Tensor, unit: UnitBase | None = None) -> Deviation:
    """Return a noise map as standard deviations; where it says nothing, they are not positive or not finite.

    Its unit is brought to the image's where it can be, and tells its kind where no name does. A weight is an inverse
    variance where that is the scatter of the sky, else an exposure map that is scaled to it.

    Args:
        noise: of the shape of the image.
        image: (N, 1, H, W), finite.
        unit: of the image, None if it is not known.

    Raises:
        LensphysError: if the map is the image itself, or can hardly be what its file is taken for.
    """
    if np.array_equal(noise.values.ravel(), image.numpy().ravel()):
        raise LensphysError(f"{noise.where} is the image itself: give the file of its noise")
    noise = _in_unit(noise, unit)
    if noise.kind == WEIGHT:
        return _of_weight(noise, image)
    if noise.kind in _UNCERTAINTY:
        return Deviation(_converted(noise.values, noise.kind), f"{_article(noise.kind)}, made standard deviations")
    if not noise.told:
        _check_plausible(noise, sky_scatter(image.numpy()))
    return Deviation(noise.values, "standard deviations")


def _in_unit(noise: NoiseMap, unit: UnitBase | None) -> NoiseMap:
    """The map in the unit of the image, or in the power of it that its kind has; as it is, where units do not tell."""
    if unit is None or noise.unit is None:
        return noise
    for kind in (noise.kind,) if noise.told else _POWER:
        if kind in _POWER and noise.unit.is_equivalent(unit ** _POWER[kind]):
            factor = noise.unit.to(unit ** _POWER[kind])
            return replace(noise, values=noise.values * np.float32(factor), kind=kind, told=True)
    return noise


def _converted(values: Array, kind: str) -> Array:
    with np.errstate(all="ignore"):  # zeros and negative values become infinite or NaN, and are masked as such
        return np.asarray(_UNCERTAINTY[kind](values, copy=False).represent_as(StdDevUncertainty).array, np.float32)


def _of_weight(noise: NoiseMap, image: Tensor) -> Deviation:
    sigma = _converted(noise.values, INVERSE_VARIANCE)
    white = float(SkyNoise.from_image(image).sigma.median())  # blind to light, and to what neighbours share
    if _ALIKE[0] * white <= _median(sigma) <= _ALIKE[1] * sky_scatter(image.numpy()):
        return Deviation(sigma, "a weight, taken for an inverse variance: so the sky scatters")
    told = f"a weight, taken for an exposure map and scaled to the noise of the sky, {white:.3g}"
    return Deviation(sigma * np.float32(white / _median(sigma)), told)


def _check_plausible(noise: NoiseMap, sky: float) -> None:
    """Raise where a map without a name is far off the sky's scatter as it is, and close to it as another kind."""
    if sky == 0 or 1 / _IMPLAUSIBLE < _median(noise.values) / sky < _IMPLAUSIBLE:
        return
    for kind in (VARIANCE, INVERSE_VARIANCE):
        if _ALIKE[0] / 2 <= _median(_converted(noise.values, kind)) / sky <= _ALIKE[1]:
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
