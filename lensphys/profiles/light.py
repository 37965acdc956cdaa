"""Light profiles: surface brightness [flux / arcsec^2] of a source, differentiable in every parameter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lensphys.checks import check_images, check_same_shape
from lensphys.grid import PixelGrid
from lensphys.profiles.mass import Parameter, as_planes, offset

SMOOTHING = 1e-5  # arcsec: keeps d(R^(1/n))/dR finite at the centre, lenstronomy's own value


def sersic_b(n_sersic: Tensor) -> Tensor:
    """Return b_n = 1.9992 n - 0.3271, which makes R_sersic the half-light radius (lenstronomy's approximation)."""
    return (1.9992 * n_sersic - 0.3271).clamp(min=1e-5)


def brightness_sersic(
    beta: Tensor,
    amp: Parameter,
    R_sersic: Parameter,
    n_sersic: Parameter,
    e1: Parameter = 0.0,
    e2: Parameter = 0.0,
    center_x: Parameter = 0.0,
    center_y: Parameter = 0.0,
) -> Tensor:
    """Return the surface brightness of an elliptical Sersic profile.

    I = amp exp(-b_n ((R / R_sersic)^(1/n) - 1)), R^2 = q x'^2 + y'^2 / q = |z - e conj(z)|^2 / (1 - |e|^2), so that
    it is smooth in (e1, e2) through e = 0.

    Args:
        beta: (B or 1, 2, H, W) [arcsec].
        amp: surface brightness at R_sersic [flux / arcsec^2].
        R_sersic: half-light radius on the intermediate axis sqrt(a b) [arcsec].
        n_sersic: Sersic index.
        e1: ellipticity (1-q)/(1+q) cos 2 phi, |e| < 1.
        e2: ellipticity (1-q)/(1+q) sin 2 phi.
        center_x: [arcsec].
        center_y: [arcsec].

    Returns:
        (B, 1, H, W) [flux / arcsec^2].

    Source: Sersic 1968; lenstronomy ``SERSIC_ELLIPSE``.
    """
    x, y = offset(beta, center_x, center_y)
    e1, e2 = as_planes(e1, beta), as_planes(e2, beta)
    n = as_planes(n_sersic, beta)
    wx, wy = x - (e1 * x + e2 * y), y - (e2 * x - e1 * y)
    radius = ((wx**2 + wy**2) / (1 - e1**2 - e2**2) + SMOOTHING**2).sqrt()
    reduced = torch.exp(torch.log(radius / as_planes(R_sersic, beta)) / n)
    return (as_planes(amp, beta) * torch.exp(-sersic_b(n) * (reduced - 1)))[:, None]


@dataclass(frozen=True)
class Sersic:
    """Elliptical Sersic source: see `brightness_sersic`.

    Example:
        >>> source = Sersic(amp=1.0, R_sersic=0.25, n_sersic=1.0)
        >>> source(torch.tensor([0.25, 0.0]).reshape(1, 2, 1, 1)).item()
        1.0
    """

    amp: Parameter
    R_sersic: Parameter
    n_sersic: Parameter
    e1: Parameter = 0.0
    e2: Parameter = 0.0
    center_x: Parameter = 0.0
    center_y: Parameter = 0.0

    def __call__(self, beta: Tensor) -> Tensor:
        """Return the surface brightness (B, 1, H, W) at beta (B or 1, 2, H, W) [arcsec]."""
        return brightness_sersic(beta, **vars(self))


@dataclass(frozen=True)
class ImageSource:
    """An image as a source: a real galaxy, or a reconstruction; zero outside of its pixels.

    Args:
        image: (B or 1, 1, H, W) [flux / arcsec^2].
        grid: its pixels in the source plane.
        mode: interpolation, ``bilinear`` or ``bicubic``.
        center_x: where the middle of the image stands [arcsec], a number or (B,).
        center_y: [arcsec].

    Raises:
        LensphysError: if the image is not on the grid.
    """

    image: Tensor
    grid: PixelGrid
    mode: str = "bilinear"
    center_x: Parameter = 0.0
    center_y: Parameter = 0.0

    def __post_init__(self) -> None:
        check_images("source image", self.image)
        check_same_shape("source image", self.image.shape[-2:], "source grid", self.grid.shape)

    def __call__(self, beta: Tensor) -> Tensor:
        """Return the surface brightness (B, 1, H, W) at beta (B or 1, 2, H, W) [arcsec]."""
        x, y = offset(beta, self.center_x, self.center_y)
        return self.grid.sample(self.image, torch.stack([x, y], dim=1), mode=self.mode)
