"""What images a network has learned from, and what of another image lies outside of that."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import reduce
from operator import or_
from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from lensphys.basics.settings import Strict
from lensphys.observation import Observation
from lensphys.observation.star import star


class Span(Strict):
    """A smallest and a largest value, in a unit that whoever has it says.

    Args:
        low: the smallest, in that unit.
        high: the largest, in that unit.
    """

    low: NonNegativeFloat
    high: NonNegativeFloat

    @classmethod
    def from_values(cls, values: Tensor) -> Span:
        """Return the span of some values (N,), in their unit, to six digits."""
        low, high = (float(f"{float(x):.6g}") for x in values.aminmax())
        return cls(low=low, high=high)

    def __or__(self, other: Span) -> Span:
        return Span(low=min(self.low, other.low), high=max(self.high, other.high))

    def holds(self, value: float, margin: float) -> bool:
        """Return whether a value lies between both, or outside by a share of ``margin`` at most."""
        return self.low / (1 + margin) <= value <= self.high * (1 + margin)

    def __str__(self) -> str:
        low, high = f"{self.low:.3g}", f"{self.high:.3g}"
        return low if low == high else f"{low} to {high}"


WIDTH_OF_GAUSSIAN = math.sqrt(math.pi / (2 * math.log(2)))  # of FWHM 1, as `psf_width` has it


# what a network cannot be asked about outside of what it has seen, all in arcsec: how each is called
_DECIDES = {"pixel_scale": "pixels", "psf_fwhm": "PSF", "height": "height", "width": "width"}


class Validity(Strict):
    """The smallest and the largest of each quantity among the images of a training.

    Args:
        images: how many there were.
        pixel_scale: [arcsec].
        psf_fwhm: of the Gaussian that is as sharp as the PSF on the pixels [arcsec].
        height: of the field of view [arcsec].
        width: of the field of view [arcsec].
        peak_snr: of the brightest pixel; it is told, and limits nothing.
        margin: share by which an image may lie outside.

    Example:
        >>> side = Span(low=6, high=6)
        >>> str(Validity(images=9, pixel_scale=Span(low=0.1, high=0.1), psf_fwhm=Span(low=0.1, high=0.2),
        ...              height=side, width=side, peak_snr=Span(low=20, high=300)))
        'pixels of 0.1", PSF of 0.1 to 0.2" (FWHM), fields of 6 x 6", peak S/N of 20 to 300'
    """

    images: PositiveInt
    pixel_scale: Span
    psf_fwhm: Span
    height: Span
    width: Span
    peak_snr: Span
    margin: NonNegativeFloat = 0.1

    @classmethod
    def from_observations(cls, parts: Iterable[Observation]) -> Validity | None:
        """Return what all images of some batches span; None if there are none."""
        found = [cls._of_one(part) for part in parts if len(part)]
        return reduce(or_, found) if found else None

    @classmethod
    def _of_one(cls, observation: Observation) -> Validity:
        spans: dict[str, Any] = {name: Span.from_values(x) for name, x in _measured(observation).items()}
        return cls(images=len(observation), **spans)

    def __or__(self, other: Validity) -> Validity:
        spans = {name: span | getattr(other, name) for name, span in self if isinstance(span, Span)}
        return self.model_copy(update=spans | {"images": self.images + other.images})

    def outside(self, observation: Observation) -> list[str]:
        """Return for each image what lies outside of what was learned, in words; empty where nothing does."""
        found: list[list[str]] = [[] for _ in range(len(observation))]
        measured = _measured(observation)
        for name, words in _DECIDES.items():
            span: Span = getattr(self, name)
            for mine, x in zip(found, measured[name].tolist(), strict=True):
                if not span.holds(x, self.margin):
                    mine.append(f'{words} {x:.3g}" (it learned {span}")')
        return [", ".join(mine) for mine in found]

    def __str__(self) -> str:
        pixel = self.pixel_scale.low / WIDTH_OF_GAUSSIAN
        psf = f'PSF of {self.psf_fwhm}" (FWHM)' if self.psf_fwhm.high > 1.01 * pixel else "no PSF"
        field = f'fields of {self.height} x {self.width}"'
        return f'pixels of {self.pixel_scale}", {psf}, {field}, peak S/N of {self.peak_snr}'


def _measured(observation: Observation) -> dict[str, Tensor]:
    """Each quantity of each image, (B,)."""
    grid, one = observation.camera.grid, torch.ones_like(observation.peak)
    brightest = observation.peak_unit.expand_as(observation.image)
    noise = observation.noise.variance(brightest).flatten(1).mean(1).sqrt()
    return {
        "pixel_scale": grid.scale * one,
        "psf_fwhm": psf_fwhm(observation),
        "height": grid.height * grid.scale * one,
        "width": grid.width * grid.scale * one,
        "peak_snr": observation.peak.clamp(min=0) / noise,
    }


def psf_width(observation: Observation) -> Tensor:
    """Return the side of the square that holds a point's light as evenly as the PSF does, (B,) [pixels].

    It is 1 / sqrt(sum of squares) of the image of a point.
    """
    return _width(observation, 1)


def psf_fwhm(observation: Observation) -> Tensor:
    """Return the FWHM of the Gaussian that is as sharp as the PSF, (B,) [arcsec].

    As sharp on the camera's supersampled pixels: on those of the image a kernel is blurred by these, too, and a formula
    is not.
    """
    camera = observation.camera
    points = camera.supersampling if camera.blurs_first else 1
    return _width(observation, points) * camera.grid.scale / points / WIDTH_OF_GAUSSIAN


def _width(observation: Observation, points: int) -> Tensor:
    """The side of that square, (B,), in pixels of which so many lie along the side of one of the image."""
    psf, grid = observation.camera.psf, observation.camera.grid
    shape = points * grid.height, points * grid.width
    seen = star(psf, grid.scale / points, shape, like=observation.image, count=1 if psf.shared else len(observation))
    return seen.square().sum((1, 2, 3)).clamp(min=1e-12).rsqrt().expand(len(observation))
