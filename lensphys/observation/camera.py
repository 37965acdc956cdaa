"""The camera: from a lensed light distribution to the image that a telescope records."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lensphys.basics.checks import LensphysError, check_images, check_same_shape, check_whole
from lensphys.observation.matching import matching_kernel
from lensphys.observation.noise import Noise
from lensphys.observation.psf import PSF, NoPSF, convolved
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid


@dataclass(frozen=True)
class Camera:
    """Pixels, PSF and supersampling: the linear part of an observation.

    Args:
        grid: the pixels.
        psf: what blurs the image on these pixels.
        supersampling: each pixel is the sum of this many squared points; 1 evaluates it at its centre (legacy data).
        target_psf: the PSF that a super-resolved image shall have; the camera's own if None.

    Raises:
        LensphysError: if the supersampling is below 1.

    Example:
        >>> from lensphys.model import SIS, Sersic
        >>> from lensphys.observation import GaussianPSF
        >>> camera = Camera(PixelGrid(64, 64, 0.08), GaussianPSF(0.08))
        >>> field = DeflectionField.from_lens(SIS(theta_E=1.0), camera.grid)
        >>> camera.render(Sersic(amp=1.0, R_sersic=0.25, n_sersic=1.0), field).shape
        torch.Size([1, 1, 64, 64])
    """

    grid: PixelGrid
    psf: PSF = NoPSF()
    supersampling: int = 1
    target_psf: PSF | None = None

    def __post_init__(self) -> None:
        check_whole("supersampling", self.supersampling, 1)

    def at(self, factor: float) -> Camera:
        """Return the camera of the super-resolved image: pixels ``factor`` times as small, the same field of view.

        Its PSF is the ``target_psf``, or without one the same PSF on the sky, for every factor, 1 included. An
        oversampled camera needs fewer points a pixel: the supersampling shrinks with the pixels.
        """
        points = max(1, round(self.supersampling / max(factor, 1)))
        psf = self.psf if self.target_psf is None else self.target_psf
        return replace(self, grid=self.grid.resampled(factor), psf=psf, supersampling=points)

    def rows(self, index: Tensor) -> Camera:
        """Return the camera of some images of a batch, by their indices (n,), with their PSF widths."""
        return self._with(lambda psf: psf.rows(index))

    def to(self, device: torch.device | str) -> Camera:
        """Return the camera with the tensors of its PSF on a device."""
        return self._with(lambda psf: psf.to(device))

    def _with(self, change: Callable[[PSF], PSF]) -> Camera:
        return replace(
            self, psf=change(self.psf), target_psf=None if self.target_psf is None else change(self.target_psf)
        )

    def render(self, light: Callable[[Tensor], Tensor], field: DeflectionField) -> Tensor:
        """Return the clean image of a source seen through a lens.

        Args:
            light: beta (B, 2, H', W') [arcsec] -> surface brightness (B, 1, H', W') [flux / arcsec^2].
            field: the deflection, on any grid of this field of view.

        Returns:
            (B, 1, H, W) [flux per pixel].
        """
        fine = self.grid.resampled(self.supersampling)
        return self.expose(light(field.at(fine).beta) * fine.pixel_area)

    @property
    def blurs_first(self) -> bool:
        """Whether this camera's supersampled light is blurred before its pixels sum it."""
        return self.supersampling > 1

    def expose(self, flux: Tensor) -> Tensor:
        """Return the clean image of a flux map on this camera's (supersampled) pixels: blur, then sum, as light does.

        After the sum, what it aliases would stay in the image: up to 5 % of the peak where the PSF is no wider than a
        pixel. A kernel that is known on pixels no finer than the camera's holds them: see `PixelPSF.at`.

        Args:
            flux: (B, 1, sH, sW) [flux per pixel], s any whole number.

        Returns:
            (B, 1, H, W) [flux per pixel].

        Raises:
            LensphysError: if they are not s times those of the camera.
        """
        points = _points(flux, self.grid)
        return self.psf.summed(flux, self.grid.scale / points, points)

    def reobserved(self, image: Tensor) -> Tensor:
        """Return what the camera would record of a super-resolved image, which has the PSF of `at`; noise-free.

        Args:
            image: (B, 1, sH, sW) [flux per pixel], s any whole number.

        Returns:
            (B, 1, H, W) [flux per pixel].
        """
        if self.target_psf is None:
            return block_sum(image, self.grid)
        scale = self.grid.scale * self.grid.width / image.shape[-1]
        reach = 2 * max(self.psf.extent, self.target_psf.extent)  # the extent of a profile is its width alone
        size = 2 * min(math.ceil(reach / scale), (min(image.shape[-2:]) - 1) // 2) + 1
        kernel = matching_kernel(self.target_psf, self.psf, scale, size=size, like=image)
        return block_sum(convolved(image, kernel), self.grid)


def block_sum(flux: Tensor, grid: PixelGrid) -> Tensor:
    """Return a map of flux per pixel (B, C, sH, sW) summed into the pixels of ``grid``, (B, C, H, W).

    Raises:
        LensphysError: if the map does not divide into whole pixels.
    """
    factor = _points(flux, grid)
    return F.avg_pool2d(flux, factor) * factor**2 if factor > 1 else flux


def _points(flux: Tensor, grid: PixelGrid) -> int:
    """How many pixels of a map lie along the side of one of the grid's; raises if it does not divide into those."""
    factor = flux.shape[-1] // grid.width
    if flux.shape[-2:] != (factor * grid.height, factor * grid.width) or factor < 1:
        raise LensphysError(
            f"a map of {tuple(flux.shape[-2:])} does not divide into {grid.height} x {grid.width} pixels"
        )
    return factor


class Observations(Protocol):
    """Images and how they were taken, in memory or elsewhere, of which some are taken at a time."""

    @property
    def camera(self) -> Camera:
        """What took them."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor) -> Observation:
        """Return some images (rows, indices)."""
        ...


@dataclass(frozen=True)
class Observation:
    """A batch of low-resolution images, and all that is known of how they were taken.

    Args:
        image: (B, 1, H, W) [flux per pixel].
        camera: pixels and PSF.
        noise: the noise law.
        mask: (B or 1, 1, H, W), True where a pixel counts; all if None.

    Raises:
        LensphysError: if shapes do not fit.
    """

    image: Tensor
    camera: Camera
    noise: Noise
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        check_images("image", self.image)
        check_same_shape("image", self.image.shape[-2:], "pixel grid", self.camera.grid.shape)
        if self.mask is not None:
            check_same_shape("mask", self.mask.shape[-2:], "image", self.image.shape[-2:])

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, rows: Tensor) -> Observation:
        """Return some images (rows, indices) of the batch."""
        mask = self.mask if self.mask is None or len(self.mask) == 1 else self.mask[rows]
        camera, noise = self.camera.rows(rows), self.noise.rows(rows)
        return replace(self, image=self.image[rows], camera=camera, noise=noise, mask=mask)

    def to(self, device: torch.device | str) -> Observation:
        """Return the batch on a device."""
        mask = None if self.mask is None else self.mask.to(device)
        camera, noise = self.camera.to(device), self.noise.to(device)
        return replace(self, image=self.image.to(device), camera=camera, noise=noise, mask=mask)

    def with_target_psf(self, psf: PSF) -> Observation:
        """Return the observation with another PSF for its super-resolved images."""
        return replace(self, camera=replace(self.camera, target_psf=psf).to(self.image.device))

    def inner(self, height: int, width: int) -> Observation:
        """Return the middle of the images: so many pixels, as many cut off on opposite sides.

        Raises:
            LensphysError: if what is cut off is not the same on opposite sides.
        """
        grid = self.camera.grid
        top, left = (grid.height - height) / 2, (grid.width - width) / 2
        if top < 0 or left < 0 or not (top.is_integer() and left.is_integer()):
            raise LensphysError(f"{height} x {width} pixels are not the middle of {grid.height} x {grid.width}")
        rows, columns = slice(int(top), int(top) + height), slice(int(left), int(left) + width)
        camera = replace(self.camera, grid=replace(grid, height=height, width=width))
        mask = None if self.mask is None else self.mask[..., rows, columns]
        noise = self.noise.inner(grid.shape, rows, columns)
        return Observation(self.image[..., rows, columns], camera, noise, mask)

    def renewed(self, clean: Tensor) -> Observation:
        """Return it with the noise of clean models (B, 1, H, W): its numbers too, where the instrument has none."""
        return replace(self, noise=self.noise.updated(self.image, clean, self.weight))

    @property
    def without_pedestal(self) -> Observation:
        """The images less what the detector shows where there is no light."""
        return replace(self, image=self.image - self.noise.expected(torch.zeros_like(self.image)))

    @property
    def dark_sigma(self) -> Tensor:
        """The noise of pixels without light, (B, 1, H, W) [flux per pixel]."""
        return self.noise.variance(torch.zeros_like(self.image)).sqrt().expand_as(self.image)

    @property
    def weight(self) -> Tensor:
        """1 where a pixel counts and 0 elsewhere, (B, 1, H, W)."""
        if self.mask is None:
            return torch.ones_like(self.image)
        return self.mask.to(self.image).expand_as(self.image)

    @property
    def smoothed(self) -> Tensor:
        """The 3 x 3 running mean of the unmasked pixels, (B, 1, H, W): a first guess of the clean image."""
        light, counted = self._nine
        return light / counted.clamp(min=1)

    def significance(self, inverse_sigma: Tensor) -> Tensor:
        """Return the signal-to-noise of the 3 x 3 running mean, (B, 1, H, W).

        Args:
            inverse_sigma: one over the noise of each pixel, (B, 1, H, W).
        """
        light, counted = self._nine
        return light / counted.clamp(min=1).sqrt() * inverse_sigma

    @property
    def _nine(self) -> tuple[Tensor, Tensor]:
        """Light and number of the unmasked pixels among the nine about each pixel, (B, 1, H, W) each."""
        both = torch.cat([self.image * self.weight, self.weight], dim=1)
        light, counted = (9 * F.avg_pool2d(both, 3, stride=1, padding=1)).split(1, dim=1)
        return light, counted

    @property
    def peak(self) -> Tensor:
        """The brightest unmasked pixel of each image, (B,), or zero."""
        return (self.image * self.weight).flatten(1).amax(1)

    @property
    def peak_unit(self) -> Tensor:
        """The brightest unmasked pixel as a unit to divide images by, (B, 1, 1, 1); never zero."""
        return self.peak.clamp(min=1e-30)[:, None, None, None]

    def interpolated(self, grid: PixelGrid, *, mode: str = "bicubic") -> Tensor:
        """Return the image interpolated onto another grid, (B, 1, H', W') [flux per pixel of that grid]."""
        position = grid.positions(like=self.image)
        density = self.camera.grid.sample(self.image, position, mode=mode, padding="border")
        return density * (grid.pixel_area / self.camera.grid.pixel_area)

    def flux_ratio(self, clean: Tensor) -> Tensor:
        """Return the factor (B,) on a clean model image that gives it the image's flux inside the mask.

        One Newton step, because the expected image need not be linear in the clean one; between 1/2 and 2.
        """
        missing = ((self.image - self.noise.expected(clean)) * self.weight).flatten(1).sum(1)
        return (
            (1 + missing / (self.noise.slope(clean) * clean * self.weight).flatten(1).sum(1))
            .nan_to_num(1.0)
            .clamp(0.5, 2.0)
        )

    def chi2(self, clean: Tensor) -> Tensor:
        """Return sum (y - E[y])^2 / variance over the unmasked pixels, (B,), for a clean model image."""
        residual = (self.image - self.noise.expected(clean)) ** 2 / self.noise.variance(clean)
        return (residual * self.weight).flatten(1).sum(1)

    def sigma(self, clean: Tensor) -> Tensor:
        """Return the standard deviation of each pixel, given a clean model image, NaN where masked: (B, 1, H, W)."""
        return self.noise.variance(clean).sqrt().masked_fill(self.weight == 0, torch.nan)

    @property
    def n_unmasked(self) -> Tensor:
        """Number of unmasked pixels, (B,)."""
        return self.weight.flatten(1).sum(1)
