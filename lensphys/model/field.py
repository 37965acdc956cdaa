"""Smooth random fields in a cosine basis: the correction to a lens's potential, and to a source's light.

A field is f(p) = sum_ab c_ab (2/L) cos(k_a (x + L/2)) cos(k_b (y + L/2)) with k_a = pi a / L, on a square of side L
about the origin: the basis of the discrete cosine transform, but known, with its gradient, at every position. It does
not depend on any pixel grid, so the field of a low-resolution image is that of its super-resolved one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Protocol

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from lensphys.basics.blocks import block
from lensphys.basics.checks import LensphysError
from lensphys.basics.constants import constant
from lensphys.basics.settings import Strict
from lensphys.model.component import MassProfile, Named, check_one
from lensphys.tracing.grid import PixelGrid

_WAVES_AT_ONCE = 1 << 16  # modes times places: what stays in caches
_POINTS = 24  # to half a wave, of a grid for other tools: linear in between it is off by (pi / 24)^2 / 8 of the wave


@dataclass(frozen=True)
class CosineBasis:
    """The modes of a square field. Coefficients (B, m, m) with m < n are those of the first, widest modes.

    Args:
        modes: number of modes n along each axis.
        side: L [arcsec]; the field is periodic (mirrored) beyond.

    Raises:
        LensphysError: if there is no mode or no field.
    """

    modes: int
    side: float

    def __post_init__(self) -> None:
        if self.modes < 2 or not self.side > 0:
            raise LensphysError(f"a cosine basis needs 2 modes or more and a side, got {self.modes} and {self.side}")

    @classmethod
    def covering(cls, grid: PixelGrid, modes: int) -> CosineBasis:
        """Return the basis of a field 10 % wider than ``grid``, so that its mirrored edge lies outside."""
        return cls(modes, 2.2 * grid.radius)

    def wavenumbers(self, like: Tensor) -> Tensor:
        """Return k = pi a / L, (n,) [rad / arcsec]."""
        return math.pi / self.side * torch.arange(self.modes, dtype=like.dtype, device=like.device)

    def _along(self, x: Tensor, modes: int) -> tuple[Tensor, Tensor]:
        """Values and slopes of the first modes along an axis, each (..., modes), at coordinates (...) [arcsec]."""
        k = self.wavenumbers(x)[:modes]
        phase = (x + self.side / 2)[..., None] * k
        norm = math.sqrt(2 / self.side)
        return norm * torch.cos(phase), -norm * k * torch.sin(phase)

    def lines(self, grid: PixelGrid, modes: int, like: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return values and slopes of the first modes along x, (modes, W), and along y, (modes, H), of a pixel grid."""
        theta = grid.positions(like=like)
        axes = (theta[0, 0, 0], theta[0, 1, :, 0])
        return [(value.T, slope.T) for value, slope in (self._along(axis, modes) for axis in axes)]

    def planes(self, position: Tensor, modes: int) -> list[tuple[Tensor, Tensor]]:
        """Return values and slopes of the first modes along x and along y, (modes, H, W) each, at (1, 2, H, W)."""
        pairs = (self._along(position[0, axis], modes) for axis in (0, 1))
        return [(value.movedim(-1, 0), slope.movedim(-1, 0)) for value, slope in pairs]

    def at(self, position: Tensor) -> Callable[[Tensor], Tensor]:
        """Return coefficients (B, n, n), [b, a] = (y, x), -> the field (B, 1, H, W) at positions (B or 1, 2, H, W)."""
        (cx, _), (cy, _) = (self._along(position[:, axis], self.modes) for axis in (0, 1))
        return lambda c: _contract(cy[..., : c.shape[-1]], c, cx[..., : c.shape[-1]])[:, None]

    def gradient(self, coefficients: Tensor, position: Tensor) -> Tensor:
        """Return the gradient (B, 2, H, W) [1 / arcsec], channel 0 = d/dx, at positions (B or 1, 2, H, W).

        Where the positions are those of a pixel grid, two matrix products do: a hundred times as fast.
        """
        if len(position) == 1 and not position.requires_grad and _is_mesh(position[0]):
            return self._on_mesh(coefficients, position[0, 0, 0], position[0, 1, :, 0])
        (cx, sx), (cy, sy) = (self._along(position[:, axis], coefficients.shape[-1]) for axis in (0, 1))
        return torch.stack([_contract(cy, coefficients, sx), _contract(sy, coefficients, cx)], dim=1)

    def gradient_on(self, coefficients: Tensor, grid: PixelGrid) -> Tensor:
        """Return the gradient on the pixels of a grid, (B, 2, H, W)."""
        theta = grid.positions(like=coefficients)
        return self._on_mesh(coefficients, theta[0, 0, 0], theta[0, 1, :, 0])

    def _on_mesh(self, coefficients: Tensor, x: Tensor, y: Tensor) -> Tensor:
        modes = coefficients.shape[-1]
        (cx, sx), (cy, sy) = self._along(x, modes), self._along(y, modes)
        return torch.stack([cy @ coefficients @ sx.T, sy @ coefficients @ cx.T], dim=1)


def _is_mesh(position: Tensor) -> bool:
    """Whether x (H, W) is the same in each row and y in each column."""
    x, y = position
    return bool((x == x[:1]).all() & (y == y[:, :1]).all())


def _contract(y: Tensor, coefficients: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("bhwj,bhwj->bhw", torch.einsum("bhwi,bij->bhwj", y, coefficients), x)


@dataclass(frozen=True)
class Modes:
    """Cosine modes of a unit square, the widest first: those with a wave number below ``count`` half waves a side.

    A field is f(p) = sum_m c_m n_a n_b cos(pi a x) cos(pi b y), n_0 = 1 and n_a = sqrt 2: independent coefficients of
    standard deviation sigma_m make a field whose mean variance is sum sigma_m^2.

    Args:
        count: modes along each axis.
    """

    count: int

    def __len__(self) -> int:
        return len(self.pairs[0])

    @cached_property
    def pairs(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Half waves along x and along y of each mode, M numbers each."""
        a = range(self.count)
        x, y = zip(*((x, y) for y in a for x in a if x**2 + y**2 < self.count**2), strict=True)
        return x, y

    def _pairs_near(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """`pairs` on the device of a tensor, (M,) each."""
        x, y = self.pairs
        return constant(x, like, torch.long), constant(y, like, torch.long)

    @cached_property
    def rows(self) -> list[int]:
        """How many modes there are of each number of half waves along y: those with 0, 1, ... along x, in order."""
        return [self.pairs[1].count(y) for y in range(self.count)]

    def along(self, place: Tensor) -> Tensor:
        """Return n_a cos(pi a x) along both axes, (B, 2, count, H, W), at places (B, 2, H, W), 0 to 1."""
        a = torch.arange(self.count, dtype=place.dtype, device=place.device)[:, None, None]
        norm = torch.where(a > 0, math.sqrt(2), 1.0)
        return norm * torch.cos(math.pi * a * place[:, :, None])

    def square(self, coefficients: Tensor) -> Tensor:
        """Return coefficients (B, M) in a square, (B, count, count): rows are half waves along y."""
        x, y = self._pairs_near(coefficients)
        full = coefficients.new_zeros(len(coefficients), self.count**2)
        return full.index_copy(1, y * self.count + x, coefficients).reshape(-1, self.count, self.count)

    def grown(self, square: Tensor) -> Tensor:
        """Return the coefficients (B, M) of a field of fewer modes, given in a square (B, n, n)."""
        x, y = self._pairs_near(square)
        return torch.nn.functional.pad(square, (0, max(0, self.count - square.shape[-1])) * 2)[:, y, x]

    def field(self, coefficients: Tensor, place: Tensor) -> Tensor:
        """Return the field, (B, 1, H, W)."""
        square, found = self._scaled(coefficients), []
        for some in self._shares(place):
            x, y = torch.cos(self._angles(some)).unbind(1)
            found.append((square @ y * x).sum(1))
        return torch.cat(found, dim=1).unflatten(1, (1, *place.shape[2:]))

    def field_and_gradient(self, coefficients: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Return the field (B, 1, H, W) and its gradient by the place, (B, 2, H, W) [1 / side]."""
        square, found = self._scaled(coefficients), []
        a = self._waves(place)
        for some in self._shares(place):
            angles = self._angles(some)
            x, y = torch.cos(angles).unbind(1)
            slope_x, slope_y = (torch.sin(angles) * -a).unbind(1)
            rows = square @ y
            parts = rows * x, rows * slope_x, square @ slope_y * x
            found.append(torch.stack([part.sum(1) for part in parts], dim=1))
        whole = torch.cat(found, dim=2).unflatten(2, place.shape[2:])
        return whole[:, :1], whole[:, 1:]

    def _scaled(self, coefficients: Tensor) -> Tensor:
        """The coefficients in a square (B, count, count) with the norms of the waves: rows are half waves along x."""
        norm = torch.full((self.count,), math.sqrt(2), dtype=coefficients.dtype, device=coefficients.device)
        norm[:1] = 1.0
        return self.square(coefficients).transpose(1, 2) * (norm[:, None] * norm)

    def _waves(self, like: Tensor) -> Tensor:
        """pi a, (count, 1)."""
        return math.pi * torch.arange(self.count, dtype=like.dtype, device=like.device)[:, None]

    def _angles(self, place: Tensor) -> Tensor:
        """pi a x along both axes, (B, 2, count, N), at places (B, 2, N)."""
        return self._waves(place) * place[:, :, None]

    def _shares(self, place: Tensor) -> tuple[Tensor, ...]:
        """Places (B, 2, H, W) some at a time, (B, 2, N): as many as there are caches for."""
        size = max(1, block(_WAVES_AT_ONCE, place) // (len(place) * self.count))
        return place.flatten(2).split(size, dim=2)

    def sigma(self, prior: Spectrum, side: Tensor) -> Tensor:
        """Return the prior standard deviation of each coefficient, (B, M), in a frame of a side (B,) [arcsec]."""
        x, y = (pair.to(side) for pair in self._pairs_near(side))
        k = math.pi * (x.square() + y.square()).sqrt() / side[:, None]
        shape = (1 + (k / prior.scale).square()) ** (-prior.slope / 2)
        return prior.amplitude * shape / shape.square().sum(1, keepdim=True).sqrt()


class Spectrum(Protocol):
    """The numbers of a field's prior: see `SourcePrior`; learned ones are tensors."""

    @property
    def amplitude(self) -> Any:
        """Standard deviation of the field in a point."""

    @property
    def scale(self) -> Any:
        """k0 [rad / arcsec]."""

    @property
    def slope(self) -> Any:
        """p."""


class SourcePrior(Strict):
    """How a galaxy differs from its Sersic: a Gaussian field with a power spectrum (1 + (k / k0)^2)^-p.

    Args:
        amplitude: standard deviation of the field in a point: e-folds of brightness.
        scale: k0 [rad / arcsec].
        slope: p.
    """

    amplitude: PositiveFloat = 0.6
    scale: PositiveFloat = 12.0
    slope: PositiveFloat = 2.5


class FieldPrior(Strict):
    """A Gaussian random field: independent modes, each normal with sigma A (1 + (k / k0)^2)^(-p/2).

    Point-like sub-halos have a flat spectrum of kappa, so a potential that holds them falls as k^-2.

    Args:
        amplitude: A [arcsec times the unit of the field]; 0 for no field.
        scale: k0 [rad / arcsec].
        slope: p.
    """

    amplitude: Annotated[float, Field(ge=0)] = 0.1
    scale: PositiveFloat = 2.0
    slope: PositiveFloat = 3.0

    def sigma(self, basis: CosineBasis, like: Tensor) -> Tensor:
        """Return the standard deviation of each coefficient, (n, n); no constant mode."""
        k = basis.wavenumbers(like)
        k2 = k[:, None] ** 2 + k**2
        sigma = self.amplitude * (1 + k2 / self.scale**2) ** (-self.slope / 2)
        return sigma * (k2 > 0)


@dataclass(frozen=True)
class PotentialField(MassProfile):
    """A lensing potential psi in a cosine basis: alpha = grad psi, without curl at any resolution.

    Args:
        coefficients: (B, n, n) [arcsec^3].
        basis: the modes.
    """

    coefficients: Tensor
    basis: CosineBasis
    lenstronomy = "INTERPOL"

    def to_lenstronomy(self) -> list[Named]:
        """Return it in lenstronomy's words, of one lens: on a grid over the frame of the basis, linear in between.

        Its deflection is ours to within 1 % of the largest one; beyond the frame it is that of the edge.

        Raises:
            LensphysError: if it is of several lenses.
        """
        check_one("the potential is", len(self.coefficients))
        axis = torch.linspace(-0.5, 0.5, _POINTS * self.coefficients.shape[-1] + 1, dtype=torch.float64)
        axis = axis * self.basis.side
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        theta, field = torch.stack([x, y])[None], replace(self, coefficients=self.coefficients.detach().cpu().double())
        alpha, slopes = field(theta)[0], field.jacobian(theta)[0]
        planes = {"f_": field.psi(theta)[0, 0], "f_x": alpha[0], "f_y": alpha[1]}
        planes |= {"f_xx": slopes[0, 0], "f_yy": slopes[1, 1], "f_xy": slopes[0, 1]}
        axes = {"grid_interp_x": axis.numpy(), "grid_interp_y": axis.numpy()}
        return [(self.lenstronomy, axes | {name: plane.numpy() for name, plane in planes.items()})]

    def __call__(self, theta: Tensor) -> Tensor:
        """Return alpha, (B, 2, H, W) [arcsec], at theta (B or 1, 2, H, W) [arcsec]."""
        return self.basis.gradient(self.coefficients.to(theta), theta)

    def psi(self, theta: Tensor) -> Tensor:
        """Return the potential, (B, 1, H, W) [arcsec^2], at theta (B or 1, 2, H, W) [arcsec]."""
        return self.basis.at(theta)(self.coefficients.to(theta))
