"""Which images and pixels can be used: faults of whole images, pixels that are masked, holes that are filled."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lensphys.basics.checks import LensphysError, check_choice
from lensphys.basics.remarks import Tally
from lensphys.basics.sizes import SMALLEST_SIDE
from lensphys.observation import Observation
from lensphys.observation.bad_pixels import BadPixels
from lensphys.observation.borders import filled_border, filled_patches

Array = NDArray[Any]
MASK, KEEP = "mask", "keep"  # what is done to bad pixels
_SINGLE_PRECISION = (1e-15, 1e15)  # brightest pixels whose variance still fits into float32


def as_stack(name: object, array: Array) -> Array:
    """Return images (H, W), (N, H, W) or (N, 1, H, W) as (N, H, W).

    Raises:
        LensphysError: if it is none of them.
    """
    stack = array[:, 0] if array.ndim == 4 and array.shape[1] == 1 else array
    stack = stack[None] if stack.ndim == 2 else stack
    if stack.ndim != 3:
        last = stack.ndim == 4 and stack.shape[-1] < stack.shape[1]
        remedy = f"save stack[{'..., 0' if last else ':, 0'}]" if stack.ndim == 4 else "reshape it"
        raise LensphysError(f"{name} must be a stack of images (N, H, W), got {array.shape}: {remedy}")
    return stack


def check_size(name: object, images: Array) -> None:
    """Raise unless images (N, H, W), one at least, have enough pixels to be images.

    Raises:
        LensphysError: with the shape that came.
    """
    if min(images.shape) < 1 or min(images.shape[-2:]) < SMALLEST_SIDE:
        raise LensphysError(
            f"{name}: images (N, H, W) must have {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels or more, got {images.shape}: "
            "the last two axes are those of an image"
        )


def usable_images(path: object, pixels: Array, numbers: Array, remarks: list[str]) -> Array:
    """Return the places of those images (N, H, W) of a file that can be super-resolved; remarks name the others.

    Args:
        path: of the file, for messages.
        pixels: (N, H, W).
        numbers: of the images in the file, (N,).
        remarks: gets a sentence for each image that is left out.

    Raises:
        LensphysError: if there is none.
    """
    check_size(path, pixels)
    faults = faults_of(pixels, numbers)
    check_some_left(path, faults, len(pixels))
    remarks += left_out(path, faults)
    return np.flatnonzero(~np.isin(numbers, list(faults)))


def faults_of(pixels: Array, numbers: Array) -> dict[int, str]:
    """Return why some of the images (N, H, W) cannot be super-resolved, by their numbers (N,)."""
    return {int(number): why for number, image in zip(numbers, pixels, strict=True) if (why := fault(image))}


def check_some_left(path: object, faults: dict[int, str], count: int) -> None:
    """Raise if none of so many images of a file can be super-resolved.

    Raises:
        LensphysError: with what is wrong with the first one.
    """
    if len(faults) == count:
        first, why = next(iter(faults.items()))
        alone = f"image {first} of {path}" if first else str(path)
        raise LensphysError(
            f"{alone} {why}" if count == 1 else f"{path} holds no image that can be used: the first one {why}"
        )


def left_out(path: object, faults: dict[int, str]) -> list[str]:
    """Return what is told of images that cannot be super-resolved, a sentence each."""
    return [f"image {number} of {path} {why}: it is left out" for number, why in faults.items()]


def fault(image: Array) -> str:
    """Return why an image (H, W) cannot be super-resolved; nothing if it can."""
    finite, good = np.isfinite(image), _measured(image)
    if finite.sum() < image.size / 2:
        return f"has {image.size - finite.sum()} NaN or infinite pixels of {image.size}, more than half: cut them off"
    peak = float(np.abs(image[good if good.sum() >= image.size / 2 else finite]).max())
    if peak == 0:
        return "is zero everywhere: there is nothing to super-resolve"
    if not _SINGLE_PRECISION[0] <= peak <= _SINGLE_PRECISION[1]:
        unit = f"1e{math.floor(math.log10(peak))}"
        return (
            f"has values up to {peak:.1e}, and their squares are out of reach of float32: divide it and its noise by "
            f"{unit}, a variance by its square, and write {unit} before its unit (BUNIT)"
        )
    if float(image[good].min()) == float(image[good].max()):
        return f"is {peak:.3g} everywhere: there is nothing to super-resolve"
    if float(image[good].max()) <= 0:
        return "has no positive pixel: there is nothing to super-resolve"
    return ""


def _measured(image: Array) -> Array:
    """Which pixels are numbers, and none that stands for a lack of one (-1e30, or 1.6e38 of IRAF), bool."""
    return np.isfinite(image) & (np.abs(image) <= _SINGLE_PRECISION[1])


class MaskedPixels(Tally):
    """A sentence on masked pixels; of a file of a single image it does not count images.

    Args:
        words: with braces for how many pixels there are, and how many images have some.
        numbers: these two, and how many images there are.

    Example:
        >>> MaskedPixels("{} pixels are masked, images that have some: {}", 1, 1, 1)
        '1 pixel is masked'
    """

    def __new__(cls, words: str, *numbers: int) -> Self:
        """Return the sentence, which is the text that it makes."""
        pixels, _, count = numbers
        told = re.sub(r", images that have \w+: {}", "", words) if count == 1 else words
        if pixels == 1:
            told = told.replace("pixels", "pixel", 1).replace(" are masked", " is masked")
        made = str.__new__(cls, told.format(*numbers))
        made.key, made.numbers = words, numbers
        return made


def _tell(remarks: list[str], words: str, bad: Tensor) -> None:
    """Add a sentence on the bad pixels of images (N, 1, H, W), where there are any."""
    if bad.any():
        remarks.append(MaskedPixels(words, int(bad.sum()), int(bad.flatten(1).any(1).sum()), len(bad)))


def cleaned(pixels: Array, remarks: list[str]) -> tuple[Tensor, Tensor]:
    """Return images (N, 1, H, W) of an array (N, H, W) with 0 for what is no number, and where the others are."""
    image = torch.from_numpy(pixels)[:, None]
    finite, good = torch.isfinite(image), torch.from_numpy(_measured(pixels))[:, None]
    _tell(remarks, "{} NaN or infinite pixels are masked, images that have some: {}", ~finite)
    beyond = f"{{}} pixels beyond {_SINGLE_PRECISION[1]:g} are masked, images that have some: {{}}"
    _tell(remarks, beyond, finite & ~good)
    return torch.where(good, image, torch.zeros_like(image)), good


def without_filled(image: Tensor, good: Tensor, remarks: list[str]) -> Tensor:
    """Return where pixels of images are good (N, 1, H, W), less what was filled with one value: borders and patches."""
    seen = torch.where(good, image, torch.nan)  # zeros for what is no number would be one with zeros that are observed
    border = filled_border(seen) & good
    inside = filled_patches(seen) & good & ~border
    _tell(remarks, "a border of one value, {} pixels, is masked, images that have one: {}", border)
    _tell(remarks, "patches of one value, {} pixels, are masked, images that have some: {}", inside)
    return good & ~border & ~inside


def without_bad_pixels(observation: Observation, way: str, remarks: list[str]) -> Observation:
    """Return images without the pixels that no light made: see `BadPixels`.

    Args:
        observation: the images.
        way: ``mask``, or ``keep``, which leaves the images as they are.
        remarks: gets a sentence on them.

    Raises:
        LensphysError: if ``way`` is neither.
    """
    check_choice("--bad-pixels", way, [MASK, KEEP])
    if way == KEEP:
        return observation
    bad = BadPixels().found(observation) & (observation.weight > 0)
    if not bad.any():
        return observation
    words = (
        "{} pixels that no light of this PSF makes (cold, hot, or hit by a cosmic ray) are masked, images that have "
        "some: {} (--bad-pixels keep lets them count)"
    )
    _tell(remarks, words, bad)
    return replace(observation, mask=(observation.weight > 0) & ~bad)


def without_holes(image: Tensor, good: Tensor) -> Tensor:
    """Return the images with pixels of their own faint parts for bad ones: zeros would look like less noise."""
    if good.all():
        return image
    image = image.clone()
    count = F.avg_pool2d(good.to(image), 5, stride=1, padding=2)
    local = F.avg_pool2d(image, 5, stride=1, padding=2) / count.clamp(min=1e-6)
    for x, ok, mean in zip(image, good, local, strict=True):
        if not ok.any():
            continue  # nothing to take them from: such an image is left out later
        generator = torch.Generator().manual_seed(0)  # each its own: what is drawn does not depend on the others
        faint = x[ok & (mean <= mean[ok].median())]
        x[~ok] = faint[torch.randint(len(faint), (int((~ok).sum()),), generator=generator)]
    return image
