"""Noise maps of all kinds as standard deviations: variances, inverse variances and weights are never taken for one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from astropy.nddata import InverseVariance, StdDevUncertainty, VarianceUncertainty
from astropy.units import UnitBase
from astropy.units import s as second
from numpy.typing import NDArray
from pydantic import PositiveFloat
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.basics.remarks import Tally, literal
from lensphys.basics.scatter import scatter
from lensphys.basics.settings import Strict
from lensphys.data.npy import mapped_npy
from lensphys.fits.given import Subject
from lensphys.fits.image import NoiseMap, noise_by_file_name, read_noise_map
from lensphys.fits.names import DEVIATION, INVERSE_DEVIATION, INVERSE_VARIANCE, VARIANCE, WEIGHT
from lensphys.observation import ErrorMap, Noise, SkyNoise

Array = NDArray[Any]

# what a weight may be
EXPOSURE, INVERSE_WEIGHT, VARIANCE_WEIGHT = (
    "exposure map",
    "weight that is an inverse variance",
    "weight that is a variance",
)
_OF_WEIGHT = {INVERSE_WEIGHT: INVERSE_VARIANCE, VARIANCE_WEIGHT: VARIANCE}
_POWER = {DEVIATION: 1, VARIANCE: 2, INVERSE_VARIANCE: -2, INVERSE_DEVIATION: -1}  # of the image's unit
_NAMED = {DEVIATION: "ERR", VARIANCE: "VARIANCE", INVERSE_VARIANCE: "IVAR"}
_AS_DEVIATION = {
    DEVIATION: "give it in the unit of the image",
    VARIANCE: "give its square root",
    INVERSE_VARIANCE: "give 1 / its square root",
}
_UNCERTAINTY = {VARIANCE: VarianceUncertainty, INVERSE_VARIANCE: InverseVariance}


class NoiseChecks(Strict):
    """How near a standard deviation must be to the scatter of the sky.

    Args:
        least: of their ratio, where a weight is taken for what its name does not say.
        largest: likewise: what neighbours share (drizzling) lowers the scatter to 0.4 of the standard deviation.
        questioned: as many times as they may differ before that is told.
        implausible: as many times as they may differ before another reading is tried.
        unknown: as many times above the lower quartile of its map, from which on a value is none, but marks a pixel
            without a measurement (1e8, or a variance of 1e20): no light that a detector holds has such noise.
    """

    least: PositiveFloat = 0.8
    largest: PositiveFloat = 2.5
    questioned: PositiveFloat = 5.0
    implausible: PositiveFloat = 10.0
    unknown: PositiveFloat = 1e3

    def off_the_sky(self, level: float, sky: float, white: float) -> str:
        """Return by how much noise is off the sky's scatter, in words; none where that is plausible, or without sky.

        Args:
            level: of the noise, and of the next two [unit of the image].
            sky: scatter of the sky, whatever neighbours share.
            white: its white part.
        """
        if sky == 0 or any(_near(level, spread, self.questioned) for spread in (sky, white)):
            return ""
        return f"over {self.questioned:g} times {'larger' if level > sky else 'smaller'} than the scatter of the sky"


@dataclass(frozen=True)
class Deviation:
    """The standard deviation of each pixel, and how it was found.

    Args:
        values: (H, W) or (N, H, W), as the map [unit of the image].
        how: what was made of the map, in words that follow its name.
        marked: how many values were huge: they are NaN now.
    """

    values: Array
    how: str
    marked: int = 0


@dataclass(frozen=True)
class Scale:
    """In what an image is.

    Args:
        unit: None if it is not known.
        seconds: of its exposure, None if its header does not say.
    """

    unit: UnitBase | None = None
    seconds: float | None = None


def deviation(noise: NoiseMap, image: Tensor, scale: Scale = Scale(), checks: NoiseChecks = NoiseChecks()) -> Deviation:
    """Return a noise map as standard deviations; where it says nothing, they are not positive or not finite.

    Nor are they where it is huge, which marks pixels without a measurement.

    Its unit is brought to the image's where it can be, and tells its kind where no name does, or where it is the square
    of the image's against the name. A weight is an inverse variance where that is the scatter of the sky, else, and
    in seconds, an exposure map that is scaled to it.

    Args:
        noise: of the shape of the image.
        image: (N, 1, H, W), finite.
        scale: in what the image is.
        checks: what is plausible.

    Raises:
        LensphysError: if the map is the image itself, can hardly be what its file is taken for, or is by the second
            where the image is not, or the other way round, and nothing says for how long that was exposed.
    """
    if np.array_equal(noise.values.ravel(), image.numpy().ravel()):
        raise LensphysError(f"{noise.where} is the image itself: give the file of its noise")
    noise, conflict = _in_unit(noise, scale)
    noise, marked = _without_marks(noise, checks)
    if noise.kind == WEIGHT:
        noise = weight_as_noise(noise, image, checks)
    if noise.kind in _OF_WEIGHT:
        how = f"a weight, taken for {_article(_OF_WEIGHT[noise.kind])}: so the sky scatters"
        return Deviation(_converted(noise.values, _OF_WEIGHT[noise.kind]), how, marked)
    if noise.kind == EXPOSURE:
        return replace(_of_exposure(noise.values, image), marked=marked)
    values = _converted(noise.values, noise.kind)
    how = "standard deviations" if noise.kind == DEVIATION else f"{_article(noise.kind)}, made standard deviations"
    return Deviation(values, how + conflict + _question(noise, values, image, checks), marked)


def _without_marks(noise: NoiseMap, checks: NoiseChecks) -> tuple[NoiseMap, int]:
    """A map that is NaN where its noise is huge, and how many values that are; each map of a stack by itself."""
    maps = noise.values.reshape(-1, *noise.values.shape[-2:])
    with np.errstate(all="ignore"):  # of an exposure or a weight the root of the inverse
        sigma = np.abs(maps.astype(np.float64)) ** (1 / _POWER.get(noise.kind, -2))
    known = np.isfinite(maps) & (maps > 0)
    usual = np.array([np.quantile(x[k], 0.25) if k.any() else np.inf for x, k in zip(sigma, known, strict=True)])
    marks = known & (sigma > checks.unknown * usual[:, None, None])
    if not marks.any():
        return noise, 0
    values = np.where(marks, np.nan, maps).astype(np.float32).reshape(noise.values.shape)
    return replace(noise, values=values), int(marks.sum())


def _in_unit(noise: NoiseMap, scale: Scale) -> tuple[NoiseMap, str]:
    """The map in the unit of the image, or in the power of it that its kind has, and what is told of that.

    A square says that it is a variance, whatever the name, which nobody writes by mistake; the image's own unit says
    nothing against a name, since many copy it. Where units do not tell, the map stays as it is.
    """
    unit = scale.unit
    if unit is None or noise.unit is None:
        return noise, ""
    for kind in (noise.kind, VARIANCE, INVERSE_VARIANCE) if noise.named else _POWER:
        if kind in _POWER and noise.unit.is_equivalent(unit ** _POWER[kind]):
            factor = noise.unit.to(unit ** _POWER[kind])
            told = "" if kind == noise.kind else f", by its unit, {noise.unit}"
            return replace(noise, values=noise.values * np.float32(factor), kind=kind, named=True), told
    if noise.kind not in _POWER or noise.unit.is_equivalent(unit):  # many write the image's own for a variance
        return noise, ""
    for times in (1, -1):  # the map by the second, the image not, and the other way round
        power = _POWER[noise.kind]
        whole = noise.unit * second ** (times * power)
        if whole.is_equivalent(unit**power):
            if scale.seconds is None:
                raise LensphysError(
                    f"{noise.where} is in {noise.unit}, the image in {unit}, and its header has no EXPTIME: set it, or "
                    "save both in one unit"
                )
            factor = whole.to(unit**power) * scale.seconds ** (times * power)
            told = f", from {noise.unit} to {unit} by the exposure of {scale.seconds:g} s"
            return replace(noise, values=noise.values * np.float32(factor), named=True), told
    return noise, f", in {noise.unit} where the image is in {unit}: taken as they are"


def _converted(values: Array, kind: str) -> Array:
    if kind == DEVIATION:
        return values
    with np.errstate(all="ignore"):  # zeros and negative values become infinite or NaN, and are masked as such
        if kind == INVERSE_DEVIATION:
            return np.asarray(1 / values, np.float32)
        return np.asarray(_UNCERTAINTY[kind](values, copy=False).represent_as(StdDevUncertainty).array, np.float32)


def weight_as_noise(noise: NoiseMap, image: Tensor, checks: NoiseChecks = NoiseChecks()) -> NoiseMap:
    """Return a weight as what it is: an exposure map in seconds, else, by the scatter of the sky, any of three kinds.

    Args:
        noise: a weight, of the shape of the images.
        image: (N, 1, H, W), finite.
        checks: what is plausible.
    """
    if noise.unit is not None and noise.unit.is_equivalent("s"):
        return replace(noise, kind=EXPOSURE)
    white = float(SkyNoise.from_image(image).sigma.median())  # blind to light, and to what neighbours share
    low, high = checks.least * white, checks.largest * sky_deviation(image.numpy())
    fitting = (means for means, kind in _OF_WEIGHT.items() if low <= _median(_converted(noise.values, kind)) <= high)
    return replace(noise, kind=next(fitting, EXPOSURE))


def _of_exposure(exposure: Array, image: Tensor) -> Deviation:
    """Scaled to each image by itself: what becomes of it does not depend on the others of its stack."""
    sigma = _converted(exposure, INVERSE_VARIANCE).reshape(-1, *image.shape[-2:])
    white = SkyNoise.from_image(image).sigma.flatten().numpy()
    usual = np.array([_median(own) for own in sigma])
    told = f", {white[0]:.3g}" if len(image) == 1 else " of each image"
    values = sigma * (white / usual).astype(np.float32)[:, None, None]
    return Deviation(values, f"a weight, taken for an exposure map and scaled to the noise of the sky{told}")


def _question(noise: NoiseMap, sigma: Array, image: Tensor, checks: NoiseChecks) -> str:
    """What is asked of a map that gives standard deviations far off the sky's scatter; nothing, of a plausible one.

    Of an image without any sky, light scatters; what is white in it does not know of light.

    Raises:
        LensphysError: if the map is close to the sky only as another kind.
    """
    sky, white, level = sky_deviation(image.numpy()), _white(image), _median(sigma)
    off = checks.off_the_sky(level, sky, white)
    if not off:
        return ""
    plausible = any(_near(level, spread, checks.implausible) for spread in (sky, white))
    others = [] if plausible else [kind for kind in _NAMED if kind != noise.kind]
    for kind in others:
        if checks.least / 2 <= _median(_converted(noise.values, kind)) / sky <= checks.largest:
            raise LensphysError(
                f"{noise.where} looks like {_plainly(kind)}, not like {_plainly(noise.kind)}: if so, "
                f"{_remedy(noise.where, kind)}"
            )
    return f", {off}: are they in the unit of the image?"


def _remedy(where: str, kind: str) -> str:
    """What to do with a map of a kind that its name does not say: a file has a name, an array has none."""
    file = Path(where)
    if not file.suffix:
        return _AS_DEVIATION[kind]
    if where.endswith("]"):
        return f"name its extension {_NAMED[kind]}"
    return f"name the file {file.stem}_{_NAMED[kind].lower()}{file.suffix}"


def questioned_law(law: Noise, image: Tensor, checks: NoiseChecks = NoiseChecks()) -> list[str]:
    """Return the question that an instrument's noise calls for, far off the sky's scatter of images (N, 1, H, W)."""
    level = _median(law.variance(torch.zeros_like(image)).sqrt().numpy())
    off = checks.off_the_sky(level, sky_deviation(image.numpy()), _white(image))
    return [f"the instrument's noise is {off}: is the image in the instrument's unit?"] if off else []


def _plainly(kind: str) -> str:
    return "standard deviations" if kind == DEVIATION else _article(kind)


def _near(level: float, spread: float, times: float) -> bool:
    """Whether noise is near a scatter, to so many times."""
    return spread / times < level < spread * times


def _white(image: Tensor) -> float:
    """The white noise of images; 0 of an image without scatter."""
    try:
        return float(SkyNoise.from_image(image).sigma.median())
    except LensphysError:
        return 0.0


def sky_deviation(image: Array) -> float:
    """Return the standard deviation of the sky of an image (H, W), in its unit, whatever neighbours share.

    It is that of the side of the median without light: the fainter one, but of an image that somebody inverted.
    """
    above = image - np.median(image)
    sides = [above[side] for side in (above < 0, above > 0)]
    return min(float(scatter(side)) if side.size else 0.0 for side in sides)


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _median(values: Array) -> float:
    known = values[np.isfinite(values) & (values > 0)]
    return float(np.median(known)) if known.size else float("nan")


def noise_map_in(path: Path, image: Subject) -> NoiseMap:
    """Return a noise map in a file of its own; ``image``: of which it is, where the file has several.

    Raises:
        LensphysError: if the file is faulty.
    """
    if path.suffix.lower() != ".npy":
        return read_noise_map("error map", path, image)
    return noise_by_file_name(mapped_npy("error map", path), path)


def error_map(
    noise: NoiseMap, image: Tensor, scale: Scale, remarks: list[str], checks: NoiseChecks = NoiseChecks()
) -> tuple[ErrorMap, Tensor]:
    """Return the standard deviation that a noise map gives images, and where it is known.

    Args:
        noise: float32, of one image (H, W), or of each of them (N, H, W).
        image: (N, 1, H, W).
        scale: in what the images are.
        remarks: gets a sentence on what was made of the map.
        checks: what is plausible.

    Raises:
        LensphysError: if it is the image itself, can hardly be noise, or no value is positive and finite.
    """
    found = deviation(noise, image, scale, checks)
    remarks.append(f"noise: {noise.label}, {'; '.join((found.how, *noise.remarks))}")
    values = torch.from_numpy(found.values).reshape(-1, 1, *image.shape[-2:])
    known = torch.isfinite(values) & (values > 0)
    if not known.any():
        raise LensphysError(f"{noise.where} has no value that is positive and finite: it must hold the noise")
    huge = f"pixels whose noise is over {checks.unknown:g} times that of most"
    lost = int((~known).sum()) - found.marked
    for what, count in (("values that are not positive and finite", lost), (huge, found.marked)):
        if count:
            words = f"{literal(noise.label)}: {{}} {what} are masked"
            remarks.append(words.format(count) if len(known) == 1 else Tally(words, count))
    return ErrorMap(torch.where(known, values, values[known].median())), known
