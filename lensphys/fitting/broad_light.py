"""Light of the lens galaxy that is broader than arcs and that its Gaussians do not make: integrated over."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from pydantic import PositiveFloat
from torch import Tensor

from lensphys.basics.rows import Rows
from lensphys.basics.settings import Positives, Strict
from lensphys.tracing.grid import PixelGrid


class BroadLightSettings(Strict):
    """What the light that the Gaussians leave may be.

    Args:
        shares: of the light of the Gaussians, prior standard deviations; the image chooses by its evidence.
        length: over which it is correlated [arcsec].
        finest: wave number times that length beyond which it has no power.
    """

    shares: Positives = (0.03, 0.06, 0.12, 0.25)
    length: PositiveFloat = 0.3
    finest: PositiveFloat = 2.2


@dataclass(frozen=True)
class BroadLightFilter(Rows):
    """The square root of the inverse covariance of white noise and of broad light: S = 1 - A^T T A.

    Args:
        columns: A, the modes in units of the noise, (B, K, N).
        core: T, (B, K, K), without unit.
        volume: half of ln det (1 + A A^T), (B,).
        fitted: how many numbers of the field the data determine, (B,).
    """

    columns: Tensor
    core: Tensor
    volume: Tensor
    fitted: Tensor

    def rows(self, index: Tensor) -> Self:
        """Return it for some images (indices); that of a single image stands for as many as there are."""
        return self if len(self.columns) == 1 else super().rows(index)

    def __call__(self, whitened: Tensor) -> Tensor:
        """Return S applied to images (B, P, N) in units of the noise."""
        share = whitened @ self.columns.transpose(1, 2) @ self.core
        return torch.baddbmm(whitened, share, self.columns.expand(len(share), -1, -1), alpha=-1)


@dataclass(frozen=True)
class BroadLight(Rows):
    """A smooth field of light in front of the arcs with a Gaussian prior.

    Args:
        modes: images, each one prior standard deviation of a coefficient, (B, K, H, W) [flux per pixel].
    """

    modes: Tensor

    @classmethod
    def about(cls, front: Tensor, grid: PixelGrid, share: float, length: float, finest: float = 2.2) -> BroadLight:
        """Return the field that is a share of some light, as strong in the mean, and correlated over a length.

        Args:
            front: light of the galaxy, (B, 1, H, W) [flux per pixel].
            grid: its pixels.
            share: prior standard deviation of the field in units of the light.
            length: over which it is correlated [arcsec].
            finest: see `BroadLightSettings`.
        """
        sides = [n * grid.scale for n in grid.shape]
        counts = [1 + int(finest * side / (math.pi * length)) for side in sides]
        waves, powers = zip(*(_waves(n, side, length) for n, side in zip(counts, sides, strict=True)), strict=True)
        lines = [_cosines(n, size).to(front) for n, size in zip(counts, grid.shape, strict=True)]
        kept = (waves[0][:, None].square() + waves[1].square() < (finest / length) ** 2).nonzero()
        power = powers[0][:, None] * powers[1]
        power = (power / power[tuple(kept.T)].sum()).sqrt()
        planes = [lines[0][j][:, None] * lines[1][i] * power[j, i] for j, i in kept.tolist()]
        return cls(share * front * torch.stack(planes))

    def rows(self, index: Tensor) -> Self:
        """Return it for some images (indices); that of a single image stands for as many as there are."""
        return self if len(self.modes) == 1 else super().rows(index)

    def placed(self, window: tuple[slice, ...], like: Tensor) -> BroadLight:
        """Return it as a window of larger images (B, 1, H, W), and nothing outside of it."""
        modes = like.new_zeros(len(self.modes), self.modes.shape[1], *like.shape[-2:])
        modes[window] = self.modes
        return BroadLight(modes)

    def filter(self, inverse_sigma: Tensor) -> BroadLightFilter:
        """Return what integrates it over, for one over the noise (B, 1, H, W)."""
        columns = (self.modes * inverse_sigma).flatten(2)
        value, vector = torch.linalg.eigh((columns @ columns.transpose(1, 2)).double())
        value = value.clamp(min=1e-9)
        gain = (1 - (1 + value).rsqrt()) / value
        core = (vector * gain[:, None]) @ vector.transpose(1, 2)
        return BroadLightFilter(
            columns, core.to(columns), 0.5 * torch.log1p(value).sum(1), (value / (1 + value)).sum(1)
        )

    def evidence(self, rest: Tensor, inverse_sigma: Tensor) -> Tensor:
        """Return ln of the evidence of what all else leaves of an image, (B,), but for a constant."""
        root = self.filter(inverse_sigma)
        return -0.5 * root((rest * inverse_sigma).flatten(2)).double().square().sum((1, 2)) - root.volume

    def likeliest(self, rest: Tensor, inverse_sigma: Tensor) -> Tensor:
        """Return the field (B, 1, H, W) that is likeliest given what all else leaves of an image.

        Args:
            rest: (B, 1, H, W) [flux per pixel].
            inverse_sigma: one over the noise, (B, 1, H, W), 0 where pixels do not count.
        """
        return (self.coefficients(rest, inverse_sigma)[:, None] @ self.modes.flatten(2)).reshape_as(rest)

    def coefficients(self, rest: Tensor, inverse_sigma: Tensor) -> Tensor:
        """Return those of the `likeliest` field, (B, K), in prior standard deviations."""
        columns = (self.modes * inverse_sigma).flatten(2).double()
        right = columns @ (rest * inverse_sigma).flatten(1).double()[:, :, None]
        matrix = columns @ columns.transpose(1, 2) + torch.eye(columns.shape[1]).to(columns)
        return torch.linalg.solve(matrix, right)[:, :, 0].to(rest)


def _waves(count: int, side: float, length: float) -> tuple[Tensor, Tensor]:
    """Wave numbers of cosines along a side, (count,) [1 / arcsec], and the power that a correlation length gives."""
    wave = math.pi * torch.arange(count) / side
    power = torch.exp(-0.5 * (wave * length).square())
    power[0] *= 0.5  # it stands for no wave in the other direction
    return wave, power


def _cosines(count: int, pixels: int) -> Tensor:
    """Cosines at the centres of pixels with the mean square 1, (count, pixels)."""
    place = (torch.arange(pixels) + 0.5) / pixels
    norm = torch.full((count, 1), math.sqrt(2.0))
    norm[0] = 1
    return norm * torch.cos(math.pi * torch.arange(count)[:, None] * place)
