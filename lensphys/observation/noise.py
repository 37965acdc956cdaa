"""Noise laws: what a detector makes of a clean image, and how sure one can be of each pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lensphys.basics.checks import LensphysError, check_images, check_positive
from lensphys.basics.scatter import GAUSSIAN
from lensphys.observation.per_image import PerImage

# torch's own generator keeps 32 bits of a seed: in a survey of 1e5 images noise would repeat
Randomness = torch.Generator | np.random.Generator


class Noise(Protocol):
    """A noise law. Images are (B, 1, H, W) in the unit of the data; variances (B, 1, H, W) in its square.

    ``known``: whether the instrument knows its numbers; else they are estimated from the image itself, and chi^2 says
    little.
    """

    @property
    def known(self) -> bool:
        """Whether the instrument knows its numbers."""
        ...

    def expected(self, clean: Tensor) -> Tensor:
        """Return the mean (B, 1, H, W) of the noisy image, given the clean one."""
        ...

    def slope(self, clean: Tensor) -> Tensor:
        """Return d mean / d clean of each pixel, (B, 1, H, W)."""
        ...

    def variance(self, clean: Tensor) -> Tensor:
        """Return the variance (B, 1, H, W) of the noisy image, given the clean one."""
        ...

    def sample(self, clean: Tensor, generator: Randomness) -> Tensor:
        """Return a noisy image (B, 1, H, W)."""
        ...

    def updated(self, image: Tensor, clean: Tensor, weight: Tensor) -> Self:
        """Return the law with its unknown numbers estimated anew, from noisy images and their clean models.

        ``weight`` is 1 where a pixel counts, else 0; of the shape of the image.
        """
        ...

    def merged(self, index: Tensor, part: Self) -> Self:
        """Return the law with that of some images, by their indices (n,), replaced by ``part``."""
        ...

    def rows(self, index: Tensor) -> Self:
        """Return the law of some images of the batch, by their indices (n,)."""
        ...

    def inner(self, shape: tuple[int, int], rows: slice, columns: slice) -> Self:
        """Return the law of a part of its images (H, W)."""
        ...

    def to(self, device: torch.device | str) -> Self:
        """Return the law with its tensors on a device."""
        ...


class KnownNoise(PerImage):
    """A law whose numbers the instrument knows."""

    known: ClassVar[bool] = True

    def updated(self, image: Tensor, clean: Tensor, weight: Tensor) -> Self:
        """Return the law as it is, whatever the images (B, 1, H, W)."""
        return self


@dataclass(frozen=True)
class ExposureNoise(KnownNoise):
    """Gaussian background (sky and read-out) plus photon noise in its Gaussian limit, as lenstronomy has it.

    Args:
        background_rms: [e-/s] per pixel: a number, or a tensor (B, 1, 1, 1) with one for each image.
        exposure_time: total [s], likewise.

    Raises:
        LensphysError: if a number is not positive and finite, or a tensor has another shape.
    """

    background_rms: float | Tensor
    exposure_time: float | Tensor

    def __post_init__(self) -> None:
        for name, value in (("background_rms", self.background_rms), ("exposure_time", self.exposure_time)):
            if not isinstance(value, Tensor):
                check_positive(name, value)
                continue
            if value.ndim != 4 or value.shape[1:] != (1, 1, 1):
                raise LensphysError(f"{name} must be a number or have the shape (B, 1, 1, 1), got {tuple(value.shape)}")
            for extreme in (value.min(), value.max()):
                check_positive(name, float(extreme))

    @classmethod
    def from_instrument(
        cls,
        *,
        read_noise: float,
        sky_brightness: float,
        zero_point: float,
        exposure_time: float,
        num_exposures: int,
        pixel_scale: float,
    ) -> ExposureNoise:
        """Return the noise of an exposure.

        Args:
            read_noise: [e-] per pixel and read-out.
            sky_brightness: [mag / arcsec^2].
            zero_point: of 1 e-/s [mag].
            exposure_time: of one exposure [s].
            num_exposures: how many are added.
            pixel_scale: [arcsec].

        Source: lenstronomy.Util.data_util.bkg_noise.
        """
        total = exposure_time * num_exposures
        sky = 10 ** (-0.4 * (sky_brightness - zero_point)) * pixel_scale**2
        return cls(math.sqrt(num_exposures * read_noise**2 + total * sky) / total, total)

    def expected(self, clean: Tensor) -> Tensor:
        """Return the clean image (B, 1, H, W): this noise has no bias."""
        return clean

    def slope(self, clean: Tensor) -> Tensor:
        """Return 1 for each pixel, (B, 1, H, W)."""
        return torch.ones_like(clean)

    def variance(self, clean: Tensor) -> Tensor:
        """Return background_rms^2 + I / t, (B, 1, H, W) [(e-/s)^2]."""
        return self.background_rms**2 + clean.clamp(min=0) / self.exposure_time

    def sample(self, clean: Tensor, generator: Randomness) -> Tensor:
        """Return the clean image (B, 1, H, W) [e-/s] plus Gaussian noise of this variance."""
        return clean + self.variance(clean).sqrt() * _normal(clean, generator)


@dataclass(frozen=True)
class ModelErrorNoise:
    """A noise law, and beside it the error of a part of the model that can be no better: bright light in front, say.

    Args:
        law: of the detector.
        extra: variance of that part, (B, 1, H, W) [flux^2].
    """

    law: Noise
    extra: Tensor

    @property
    def known(self) -> bool:
        """Whether the instrument knows its numbers."""
        return self.law.known

    def expected(self, clean: Tensor) -> Tensor:
        """Return the mean (B, 1, H, W) of the noisy image, given the clean one."""
        return self.law.expected(clean)

    def slope(self, clean: Tensor) -> Tensor:
        """Return d mean / d clean of each pixel, (B, 1, H, W)."""
        return self.law.slope(clean)

    def variance(self, clean: Tensor) -> Tensor:
        """Return the sum of the variances, (B, 1, H, W) [unit of the image squared]."""
        return self.law.variance(clean) + self.extra

    def sample(self, clean: Tensor, generator: Randomness) -> Tensor:
        """Return a noisy image (B, 1, H, W): of the detector alone."""
        return self.law.sample(clean, generator)

    def updated(self, image: Tensor, clean: Tensor, weight: Tensor) -> Self:
        """Return the law with its unknown numbers estimated anew, from images (B, 1, H, W)."""
        return replace(self, law=self.law.updated(image, clean, weight))

    def merged(self, index: Tensor, part: Self) -> Self:
        """Return the law with that of some images, by their indices (n,), replaced by ``part``."""
        extra = self.extra.index_copy(0, index, part.extra)
        return replace(self, law=self.law.merged(index, part.law), extra=extra)

    def rows(self, index: Tensor) -> Self:
        """Return the law of some images of the batch, by their indices (n,)."""
        return replace(self, law=self.law.rows(index), extra=self.extra[index])

    def inner(self, shape: tuple[int, int], rows: slice, columns: slice) -> Self:
        """Return the law of a part of its images (H, W)."""
        return replace(self, law=self.law.inner(shape, rows, columns), extra=self.extra[..., rows, columns])

    def to(self, device: torch.device | str) -> Self:
        """Return the law with its tensors on a device."""
        return replace(self, law=self.law.to(device), extra=self.extra.to(device))


@dataclass(frozen=True)
class RectifiedCountNoise(PerImage):
    """Counts whose background was cut off at zero: the noise of the legacy Model 1.

    x = Poisson(max(0, N(m, s^2 + m))) for a clean image m in counts. The cut leaves a pedestal of 0.4 s where there is
    no light. In another unit (counts times c) the photon terms scale with c, which ``shot`` carries:
    variance = s^2 + shot * m for m >> s, shot = 2 in counts.

    Args:
        background_rms: s, (B, 1, 1, 1) [unit of the image].
        shot: photon variance per unit flux, (B, 1, 1, 1) [unit of the image].
        fewest: pixels that tell a number anew; by fewer it stays as it is.
    """

    known: ClassVar[bool] = False
    background_rms: Tensor
    shot: Tensor
    fewest: int = 100

    @classmethod
    def from_image(cls, image: Tensor) -> RectifiedCountNoise:
        """Estimate both numbers from the image itself.

        The background comes from the faintest corner, which the wings of an arc reach least (a Gaussian cut at zero has
        the mean s / sqrt(2 pi)), the photon noise from the scatter of bright pixels about their four neighbours.

        Args:
            image: (B, 1, H, W) [any unit], positive somewhere.

        Raises:
            LensphysError: if an image is zero everywhere.
        """
        check_images("image", image)
        local = F.avg_pool2d(F.pad(image, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
        flat = local.flatten(1)
        if bool((flat.amax(1) <= 0).any()):
            raise LensphysError("an image is zero everywhere: its noise cannot be estimated")
        side = max(2, min(image.shape[-2:]) // 5)
        ends = (slice(None, side), slice(-side, None))
        corners = torch.stack([image[:, 0, y, x].mean((1, 2)) for y in ends for x in ends], dim=1)
        background = corners.amin(1) * math.sqrt(2 * math.pi)
        background = torch.maximum(background, 1e-6 * flat.amax(1))[:, None]
        neighbours = image.new_tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]])[None, None] / 4
        scatter = (image - F.conv2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), neighbours)).flatten(1) ** 2 / 1.25
        bright = flat > torch.maximum(2 * background, flat.quantile(0.8, dim=1, keepdim=True))
        count = bright.sum(1, keepdim=True).clamp(min=1)
        excess = ((scatter - background**2) * bright).sum(1, keepdim=True) / count
        shot = excess / ((flat * bright).sum(1, keepdim=True) / count).clamp(min=1e-12)
        floor = 1e-3 * background**2 / flat.amax(1, keepdim=True)
        return cls(background[:, :, None, None], torch.maximum(shot, floor)[:, :, None, None])

    def updated(self, image: Tensor, clean: Tensor, weight: Tensor) -> RectifiedCountNoise:
        """Return both numbers estimated anew, now that the clean image is known, (B, 1, H, W) like the image.

        Two weighted regressions: the background from the pedestal under faint pixels, the photon noise from the
        squared residuals of bright ones.
        """
        faint = (clean < 0.1 * self.background_rms).to(image) * weight
        pixels = faint.sum((1, 2, 3), keepdim=True)
        ratio = (image * faint).sum((1, 2, 3), keepdim=True) / (self.expected(clean) * faint).sum(
            (1, 2, 3), keepdim=True
        ).clamp(min=1e-30)
        background = torch.where(pixels >= self.fewest, self.background_rms * ratio, self.background_rms)
        bright = (clean > 2 * background).to(image) * weight
        pixels = bright.sum((1, 2, 3), keepdim=True)
        excess = ((image - clean) ** 2 - background**2) * bright
        shot = excess.sum((1, 2, 3), keepdim=True) / (clean * bright).sum((1, 2, 3), keepdim=True).clamp(min=1e-30)
        shot = torch.where((pixels >= self.fewest) & (shot > 0), shot, self.shot)
        return replace(self, background_rms=background, shot=shot)

    def _gaussian(self, clean: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return m, sigma, phi(m / sigma) and Phi(m / sigma)."""
        m = clean.clamp(min=0)
        sigma = (self.background_rms**2 + 0.5 * self.shot * m).sqrt()
        t = m / sigma
        return m, sigma, torch.exp(-0.5 * t**2) / math.sqrt(2 * math.pi), 0.5 * (1 + torch.erf(t / math.sqrt(2)))

    def expected(self, clean: Tensor) -> Tensor:
        """Return m Phi(m/sigma) + sigma phi(m/sigma), (B, 1, H, W): the mean of a Gaussian cut at zero."""
        m, sigma, density, below = self._gaussian(clean)
        return m * below + sigma * density

    def slope(self, clean: Tensor) -> Tensor:
        """Return Phi(m/sigma) + phi(m/sigma) dsigma/dm, (B, 1, H, W); below zero 0."""
        _, sigma, density, below = self._gaussian(clean)
        return torch.where(clean < 0, 0.0, below + density * 0.25 * self.shot / sigma)

    def variance(self, clean: Tensor) -> Tensor:
        """Return the variance (B, 1, H, W) of the cut Gaussian plus the photon noise of what it lets through."""
        m, sigma, density, below = self._gaussian(clean)
        mean, square = m * below + sigma * density, (m**2 + sigma**2) * below + m * sigma * density
        return square - mean**2 + 0.5 * self.shot * mean

    def sample(self, clean: Tensor, generator: Randomness) -> Tensor:
        """Return Poisson(max(0, N(m, s^2 + m))), (B, 1, H, W), in the unit of the image."""
        unit = 0.5 * self.shot
        sigma = (self.background_rms**2 + unit * clean.clamp(min=0)).sqrt()
        cut = (clean + sigma * _normal(clean, generator)).clamp(min=0)
        return poisson(cut / unit, generator) * unit


class _OfOneSigma(PerImage):
    """Gaussian noise that does not depend on the light."""

    sigma: Tensor

    def expected(self, clean: Tensor) -> Tensor:
        """Return the clean image (B, 1, H, W): this noise has no bias."""
        return clean

    def slope(self, clean: Tensor) -> Tensor:
        """Return 1 for each pixel, (B, 1, H, W)."""
        return torch.ones_like(clean)

    def variance(self, clean: Tensor) -> Tensor:
        """Return sigma^2, of the shape of the image."""
        return (self.sigma**2).expand_as(clean)

    def sample(self, clean: Tensor, generator: Randomness) -> Tensor:
        """Return the clean image plus Gaussian noise."""
        return clean + self.sigma * _normal(clean, generator)


@dataclass(frozen=True)
class ErrorMap(_OfOneSigma, KnownNoise):
    """Gaussian noise of a known standard deviation in each pixel.

    Args:
        sigma: (B or 1, 1, H, W) [unit of the image], positive.

    Raises:
        LensphysError: if a value is not positive and finite.
    """

    sigma: Tensor

    def __post_init__(self) -> None:
        check_images("error map", self.sigma)
        bad = int((~(torch.isfinite(self.sigma) & (self.sigma > 0))).sum())
        if bad:
            raise LensphysError(f"the error map holds {bad} values that are not positive and finite: mask those pixels")


@dataclass(frozen=True)
class SkyNoise(_OfOneSigma):
    """Gaussian noise as large everywhere as that of the sky: for data that come without any noise information.

    Args:
        sigma: (B, 1, 1, 1) [unit of the image].
        fewest: pixels of the sky that tell it anew; by fewer it stays as it is.
    """

    known: ClassVar[bool] = False
    sigma: Tensor
    fewest: int = 100

    @classmethod
    def from_image(cls, image: Tensor) -> SkyNoise:
        """Estimate it from the image itself, by `white_noise`.

        Args:
            image: (B, 1, H, W) [any unit].

        Raises:
            LensphysError: if an image is constant.
        """
        sigma = white_noise(image)
        if bool((sigma <= 0).any()):
            raise LensphysError(
                "the noise cannot be estimated from an image without scatter: give --error or --instrument"
            )
        return cls(sigma)

    def updated(self, image: Tensor, clean: Tensor, weight: Tensor) -> SkyNoise:
        """Return the scatter of what a clean model, (B, 1, H, W), leaves where it shines less than the noise."""
        sky = (clean < 0.5 * self.sigma) & (weight > 0)
        found = _scatter(image - clean, sky)
        enough = (sky.sum((1, 2, 3), keepdim=True) >= self.fewest) & (found > 0)
        return replace(self, sigma=torch.where(enough, found, self.sigma))


def white_noise(image: Tensor) -> Tensor:
    """Return the noise of each pixel of the sky that its neighbours do not share, (B, 1, 1, 1).

    sigma = 1.4826 MAD of x - (mean of its four neighbours) / sqrt(1.25), over the fainter half of the pixels.

    Args:
        image: (B, 1, H, W) [any unit].
    """
    neighbours = image.new_tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]])[None, None] / 4
    local = F.conv2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), neighbours)
    difference = (image - local) / math.sqrt(1.25)
    return _scatter(difference, local <= local.flatten(1).median(1).values[:, None, None, None])


def _scatter(values: Tensor, where: Tensor) -> Tensor:
    """1.4826 times the median of |values| (B, 1, H, W) over some pixels of each image, (B, 1, 1, 1); 0 of none."""
    chosen = torch.where(where, values.abs(), torch.nan).flatten(1)
    return GAUSSIAN * chosen.nanmedian(1).values.nan_to_num(0.0)[:, None, None, None]


def _normal(like: Tensor, generator: Randomness) -> Tensor:
    if isinstance(generator, np.random.Generator):
        return torch.from_numpy(generator.standard_normal(tuple(like.shape))).to(like)
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)


def poisson(rate: Tensor, generator: Randomness) -> Tensor:
    """Return Poisson numbers of a rate, of its shape."""
    if isinstance(generator, np.random.Generator):
        return torch.from_numpy(generator.poisson(rate.cpu().double().numpy())).to(rate)
    return torch.poisson(rate, generator=generator)
