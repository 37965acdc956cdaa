"""What a sub-halo is: a point mass or a truncated NFW halo, any number of them, each of a strength and a place."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from torch import Tensor

from lensphys.basics.constants import constant
from lensphys.model import TNFW, MassProfile, PointSwarm
from lensphys.model.component import CORE
from lensphys.model.mass.tnfw import enclosed_tnfw, truncated_mass
from lensphys.tracing.grid import PixelGrid


@dataclass(frozen=True)
class Bodies(ABC):
    """Sub-halos of one kind. A vector (B, 3 K) holds ln strength, x and y of each.

    The strength is theta_E^2 of the total mass as a point, whatever the kind.

    Args:
        core: softening [arcsec].
        strength: prior of ln(theta_E^2 / arcsec^2): mean and standard deviation.
        reach: standard deviation of the prior of their places about the middle [arcsec].
    """

    core: float
    strength: tuple[float, float] = (-7.0, 3.0)
    reach: float = 4.0

    @abstractmethod
    def made(self, x: Tensor) -> MassProfile:
        """Return the bodies of a vector (B, 3 K)."""

    @abstractmethod
    def strengths(self, place: Tensor, theta: Tensor, slope: Tensor) -> Tensor:
        """Return the derivatives (B, C, H, W) of the brightness by the strength of a weak body at places (C, 2).

        Args:
            place: (C, 2) [arcsec].
            theta: positions (B or 1, 2, H, W) [arcsec].
            slope: gradient of the source's brightness by beta there, (B, 2, H, W) [flux / arcsec^3].
        """

    @abstractmethod
    def columns(self, x: Tensor, theta: Tensor, slope: Tensor) -> Tensor:
        """Return the derivatives (B, 3 K, H, W) of the brightness by a vector, from its slope (B, 2, H, W)."""

    def prior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (value - mean) / width and 1 / width of each entry of a vector (B, 3 K)."""
        count = x.shape[1] // 3
        mean = constant((self.strength[0], 0.0, 0.0), x).repeat(count)
        width = constant((self.strength[1], self.reach, self.reach), x).repeat(count)
        return (x - mean) / width, (1 / width).expand_as(x)

    @property
    def volume(self) -> float:
        """ln of the prior widths of one body: what its place and strength cost in evidence before they are known."""
        return math.log(self.strength[1]) + 2 * math.log(self.reach)


def gain_by_error(variance: Tensor) -> Tensor:
    """Return what sub-halos gain in ln likelihood by the error of their strength, of the shape of the variance.

    A strength that is known to sigma e-folds is 1 / sigma times its error: without it the likelihood falls by
    1 / (2 sigma^2).

    Args:
        variance: of ln strength, any shape.
    """
    return 0.5 / variance.clamp(min=1e-12)


@dataclass(frozen=True)
class PointBodies(Bodies):
    """Softened point masses."""

    @classmethod
    def on(cls, grid: PixelGrid) -> PointBodies:
        """Return them for the pixels of an image, of which they are a tenth in size."""
        return cls(0.1 * grid.scale)

    def made(self, x: Tensor) -> MassProfile:
        """Return the bodies of a vector (B, 3 K)."""
        strength, at_x, at_y = x.unflatten(1, (-1, 3)).unbind(2)
        return PointSwarm(strength.exp(), at_x, at_y, self.core)

    def strengths(self, place: Tensor, theta: Tensor, slope: Tensor) -> Tensor:
        """Return the derivatives (B, C, H, W) of the brightness by theta_E^2 of a body at places (C, 2)."""
        dx, dy = theta[:, :1] - place[:, 0, None, None], theta[:, 1:] - place[:, 1, None, None]
        square = torch.addcmul(dx * dx + self.core**2, dy, dy)
        return torch.addcmul(slope[:, :1] * dx, slope[:, 1:], dy).neg_().div_(square)

    def columns(self, x: Tensor, theta: Tensor, slope: Tensor) -> Tensor:
        """Return the derivatives (B, 3 K, H, W) of the brightness, in closed form, from its slope (B, 2, H, W)."""
        strength, at_x, at_y = x.unflatten(1, (-1, 3))[..., None, None].unbind(2)
        dx, dy = theta[:, :1] - at_x, theta[:, 1:] - at_y
        square = dx**2 + dy**2 + self.core**2
        scale = strength.exp() / square
        gx, gy = slope[:, :1], slope[:, 1:]
        along = scale * (gx * dx + gy * dy)  # slope . alpha
        steep = 2 * along / square
        return torch.stack([-along, scale * gx - steep * dx, scale * gy - steep * dy], dim=2).flatten(1, 2)


_REFERENCE = 1e-3  # arcsec^2: the strength of a halo of the size that the settings give


@dataclass(frozen=True)
class TNFWBodies(Bodies):
    """Truncated NFW halos, larger the heavier they are: Rs = size (strength / 1e-3 arcsec^2)^(1/3).

    With x = r / Rs and g the mass inside of x, alpha = strength g(x) / g(infinity) / r: see `deflection_tnfw`.

    Args:
        size: scale radius of a halo of theta_E^2 = 1e-3 arcsec^2 [arcsec].
        truncation: r_trunc in units of Rs.
    """

    core: float = CORE
    size: float = 0.1
    truncation: float = 5.0

    @property
    def _total(self) -> float:
        return float(truncated_mass(self.truncation))

    def radius(self, strength: Tensor) -> Tensor:
        """Return Rs [arcsec] of halos of some strengths [arcsec^2], of their shape."""
        return self.size * (strength / _REFERENCE) ** (1 / 3)

    def made(self, x: Tensor) -> MassProfile:
        """Return the bodies of a vector (B, 3 K)."""
        strength, at_x, at_y = x.unflatten(1, (-1, 3)).unbind(2)
        Rs = self.radius(strength.exp())
        alpha_Rs = strength.exp() * (1 - math.log(2)) / (Rs * self._total)
        values = zip(*(v.unbind(1) for v in (Rs, alpha_Rs, self.truncation * Rs, at_x, at_y)), strict=True)
        return reduce(add, [TNFW(*halo) for halo in values])

    def strengths(self, place: Tensor, theta: Tensor, slope: Tensor) -> Tensor:
        """Return the derivatives (B, C, H, W) of the brightness by the strength, of halos of the size of 1e-3."""
        dx, dy = theta[:, :1] - place[:, 0, None, None], theta[:, 1:] - place[:, 1, None, None]
        x = (dx**2 + dy**2 + self.core**2).sqrt() / self.size
        scale = enclosed_tnfw(x, torch.full_like(x[:1, :1, :1, :1], self.truncation)) / (self._total * self.size**2)
        return -(slope[:, :1] * dx + slope[:, 1:] * dy) * scale

    def columns(self, x: Tensor, theta: Tensor, slope: Tensor) -> Tensor:
        """Return the derivatives (B, 3 K, H, W) of the brightness, from its slope (B, 2, H, W).

        With h = g / x^2 and d from its centre, alpha = strength d h / (total Rs^2): h and its slope h' say it all.
        """
        strength, at_x, at_y = x.unflatten(1, (-1, 3))[..., None, None].unbind(2)
        dx, dy = theta[:, :1] - at_x, theta[:, 1:] - at_y
        Rs = self.radius(strength.exp())
        r = (dx**2 + dy**2 + self.core**2).sqrt()
        tau = torch.full_like(Rs, self.truncation)
        h, steep = torch.func.jvp(lambda u: enclosed_tnfw(u, tau), (r / Rs,), (torch.ones_like(r),))[:2]
        scale = strength.exp() / (self._total * Rs**2)
        gx, gy = slope[:, :1], slope[:, 1:]
        along = scale * (gx * dx + gy * dy)
        turn = along * steep / (Rs * r)
        grown = -along * (h - r / Rs * steep) / 3
        return torch.stack([grown, scale * h * gx + turn * dx, scale * h * gy + turn * dy], dim=2).flatten(1, 2)
