"""NIQE: how natural an image looks, without a reference.

An image is cut into blocks; 36 numbers say how its locally normalised pixels and their neighbours' products are
distributed; their mean and covariance are compared with those of clean images.

Source: Mittal, Soundararajan & Bovik 2013, IEEE Signal Processing Letters 20, 209, and the authors' code.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lensphys.basics.checks import LensphysError, check_file, check_finite, check_images
from lensphys.basics.outputs import write_json
from lensphys.networks.contrast import PEAK, normalised_pixels

FEATURES = 36  # 18 at each of two scales
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))  # to the neighbours: along x, along y, both diagonals
_SHAPES = torch.arange(0.2, 10.0, 0.001, dtype=torch.float64)  # of a generalised Gaussian: tails to a box
_FLAT = 1e-3  # deviation, of 255, below which a block holds the rounding of single precision
_AT_ONCE = 64  # images


@dataclass(frozen=True)
class NIQE:
    """What clean images look like; the lower the score of an image, the more it looks like them.

    Images are (B, 1, H, W) in any unit: each is divided by its own peak, times 255. Of each image, clean or judged,
    the flat blocks do not count: a lens is an object on an empty sky, and where nothing varies nothing can look
    natural. Scores of two models do not compare.

    Args:
        mean: of the features of clean blocks, (36,).
        covariance: of the same, (36, 36).
        block: side of a block [pixels], even; what is left over at the right and at the bottom is not used.
        sharpness: blocks count whose mean local standard deviation is at least this share of the sharpest block's. The
            authors fit with 0.75 and judge with 0. A lens has few blocks: 0.25 leaves 4 of 16, too few for the spread
            of their noise, and of two noisy images the cleaner one may score worse; 0 lets an empty sky decide.

    Example:
        >>> images = torch.rand(10, 1, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> NIQE.fit(images).score(images[:2]).shape
        torch.Size([2])

    Raises:
        LensphysError: if shapes or numbers do not fit.
    """

    mean: Tensor
    covariance: Tensor
    block: int = 32
    sharpness: float = 0.05

    def __post_init__(self) -> None:
        if self.mean.shape != (FEATURES,) or self.covariance.shape != (FEATURES, FEATURES):
            raise LensphysError(
                f"NIQE needs a mean of shape ({FEATURES},) and a covariance of ({FEATURES}, {FEATURES}), got "
                f"{tuple(self.mean.shape)} and {tuple(self.covariance.shape)}"
            )
        _check_blocks(self.block, self.sharpness)

    @classmethod
    def fit(cls, images: Tensor, *, block: int = 32, sharpness: float = 0.05) -> NIQE:
        """Return the model of clean images.

        Args:
            images: (B, 1, H, W), clean, some hundreds of blocks in all.
            block: side of a block [pixels], even.
            sharpness: see `NIQE`.

        Raises:
            LensphysError: if an image is smaller than a block, or fewer blocks than features can be used.
        """
        _check_blocks(block, sharpness)
        check_finite("images", images)
        found = block_features(images, block, sharpness).flatten(0, 1)
        used = found[found.isfinite().all(1)]
        if len(used) <= FEATURES:
            raise LensphysError(
                f"the images have {len(used)} sharp blocks of {block} pixels, and {FEATURES} numbers are to be "
                "correlated: give more images"
            )
        return cls(used.mean(0), torch.cov(used.T), block, sharpness)

    def score(self, images: Tensor) -> Tensor:
        """Return the distance of each image from clean ones, (B,), float64.

        NaN for an image that is not finite, has no positive pixel, or nothing that varies.

        Args:
            images: (B, 1, H, W) [any unit].

        Raises:
            LensphysError: if they are smaller than a block.
        """
        parts = images.split(_AT_ONCE)
        return torch.cat([self.distance(block_features(part, self.block, self.sharpness)) for part in parts])

    def distance(self, features: Tensor) -> Tensor:
        """Return sqrt(d^T ((C + C') / 2)^-1 d) of features (B, blocks, 36), (B,); blocks with NaN do not count."""
        used = features.isfinite().all(2, keepdim=True)
        count = used.sum(1)
        rows = torch.where(used, features, 0)
        mean = rows.sum(1) / count
        spread = torch.where(used, features - mean[:, None], 0)
        own = spread.transpose(1, 2) @ spread / (count - 1).clamp(min=1)[:, :, None]
        some = count[:, 0] > 0
        difference = (mean - self.mean)[some, None]
        inverse = torch.linalg.pinv((self.covariance + own[some]) / 2, hermitian=True)
        square = (difference @ inverse @ difference.transpose(1, 2))[:, 0, 0]
        return torch.full_like(features[:, 0, 0], math.nan).masked_scatter(some, square.clamp(min=0).sqrt())

    def save(self, path: Path, provenance: dict[str, Any]) -> None:
        """Write the model as JSON.

        Args:
            path: the file.
            provenance: `provenance.provenance` of the fit, with what the images were.
        """
        write_json(path, {"provenance": provenance, **vars(self)})

    @classmethod
    def load(cls, path: Path) -> NIQE:
        """Return the model that `save` wrote.

        Raises:
            LensphysError: if the file is missing or holds something else.
        """
        check_file("NIQE model", path)
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            mean, covariance = (torch.tensor(tree[name], dtype=torch.float64) for name in ("mean", "covariance"))
            return cls(mean, covariance, int(tree["block"]), float(tree["sharpness"]))
        except (KeyError, TypeError, ValueError) as error:
            raise LensphysError(f"{path} is not a NIQE model: write it with NIQE.save ({error})") from None


def _check_blocks(block: int, sharpness: float) -> None:
    if block < 8 or block % 2:
        raise LensphysError(f"a block must be an even number of 8 pixels or more, got {block}")
    if not 0 <= sharpness <= 1:
        raise LensphysError(f"sharpness must be between 0 and 1, got {sharpness}")


def block_features(images: Tensor, block: int, sharpness: float) -> Tensor:
    """Return the features of each block of images (B, 1, H, W), (B, blocks, 36), float64, at two scales.

    NaN for blocks that are less sharp than asked, or where nothing varies.

    Args:
        images: (B, 1, H, W), in any unit.
        block: side of a block [pixels], even.
        sharpness: see `NIQE`.

    Raises:
        LensphysError: if the images are smaller than a block.
    """
    check_images("images", images)
    rows, columns = (size // block for size in images.shape[-2:])
    if min(rows, columns) == 0:
        raise LensphysError(f"images of {tuple(images.shape[-2:])} pixels hold no block of {block}: give larger ones")
    whole = images.detach().double()[..., : rows * block, : columns * block]
    peak = whole.flatten(1).amax(1)[:, None, None, None]
    whole = torch.where(peak > 0, whole * (PEAK / peak), torch.nan)
    half = F.interpolate(whole, scale_factor=0.5, mode="bicubic", antialias=True)
    normalised, deviation = normalised_pixels(whole)
    both = [(normalised, block), (normalised_pixels(half)[0], block // 2)]
    found = torch.cat([_features(blocks_of(x, side)) for x, side in both], dim=2)
    sharp = blocks_of(deviation, block).mean((2, 3))
    counts = (sharp > _FLAT) & (sharp >= sharpness * sharp.amax(1, keepdim=True))
    return torch.where(counts[:, :, None], found, torch.nan)


def blocks_of(image: Tensor, side: int) -> Tensor:
    """Return the blocks of images (B, 1, n side, m side), row by row, (B, n m, side, side)."""
    return image[:, 0].unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3).flatten(1, 2)


def _features(blocks: Tensor) -> Tensor:
    """Return the features of normalised pixels (B, n, side, side) at one scale, (B, n, 18)."""
    shape, left, right = asymmetric_gaussian(blocks)
    found = [shape, (left + right) / 2]
    for shift in _SHIFTS:
        shape, left, right = asymmetric_gaussian(blocks * blocks.roll(shift, (-2, -1)))
        mean = (right - left) * torch.exp(torch.lgamma(2 / shape) - torch.lgamma(1 / shape))
        found += [shape, mean, left, right]
    return torch.stack(found, dim=2)


def asymmetric_gaussian(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return shape and the scales to the left and to the right of the distribution of values, by their moments.

    p(x) ~ exp(-(|x| / scale)^shape), with another scale on each side of zero; shape 2 is Gaussian.

    Args:
        blocks: values, (B, n, side, side).

    Returns:
        each (B, n); NaN where all values have the same sign.

    Source: Lasmar, Stitou & Berthoumieu 2009, IEEE ICIP, 2281.
    """
    values = blocks.flatten(2)
    square = values**2
    low = values < 0
    left = ((square * low).sum(2) / low.sum(2)).sqrt()
    right = ((square * ~low).sum(2) / (~low).sum(2)).sqrt()
    skew = left / right
    ratio = values.abs().mean(2) ** 2 / square.mean(2) * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = _shape(ratio)
    scale = torch.exp(0.5 * (torch.lgamma(1 / shape) - torch.lgamma(3 / shape)))
    return shape, scale * left, scale * right


def _shape(ratio: Tensor) -> Tensor:
    """Return the shape of a generalised Gaussian whose (mean |x|)^2 / mean x^2 is ``ratio``; NaN where that is NaN."""
    shapes = _SHAPES.to(ratio.device)
    known = torch.exp(2 * torch.lgamma(2 / shapes) - torch.lgamma(1 / shapes) - torch.lgamma(3 / shapes))
    middle = (known[1:] + known[:-1]) / 2
    return torch.where(ratio.isfinite(), shapes[torch.searchsorted(middle, ratio)], torch.nan)
