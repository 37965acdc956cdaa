"""Pixel grids and the only place where arcsec, pixels and ``grid_sample`` coordinates meet."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lensphys.basics.checks import LensphysError, check_images, check_positive
from lensphys.basics.constants import constant, remembered


@dataclass(frozen=True)
class PixelGrid:
    """An H x W grid of square pixels on the sky, centred on the origin.

    Pixel (i, j) (row, column) has its centre at y = (i - (H-1)/2) scale, x = (j - (W-1)/2) scale: the row index grows
    with y (``origin="lower"``).

    Args:
        height: number of rows H.
        width: number of columns W.
        scale: side of a pixel [arcsec].

    Raises:
        LensphysError: if a size or the scale is not positive.

    Example:
        >>> grid = PixelGrid(2, 3, 0.5)
        >>> grid.positions()[0, 0, 0].tolist()
        [-0.5, 0.0, 0.5]
    """

    height: int
    width: int
    scale: float

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise LensphysError(f"a pixel grid needs at least one row and one column, got {self.height} x {self.width}")
        check_positive("pixel scale", self.scale)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.height, self.width

    @property
    def pixel_area(self) -> float:
        """Area of a pixel [arcsec^2]."""
        return self.scale**2

    @property
    def radius(self) -> float:
        """Half of the longer side of the field of view [arcsec]."""
        return 0.5 * max(self.shape) * self.scale

    def resampled(self, factor: float) -> PixelGrid:
        """Return the grid of the same field of view with pixels ``factor`` times as small.

        Raises:
            LensphysError: if the field does not divide into whole pixels.
        """
        height, width = self.height * factor, self.width * factor
        if abs(height - round(height)) > 1e-6 or abs(width - round(width)) > 1e-6 or round(height) * round(width) < 1:
            raise LensphysError(f"a grid of {self.height} x {self.width} pixels cannot be resampled by {factor:g}")
        return PixelGrid(round(height), round(width), self.scale / factor)

    def middle(self, far_y: float, far_x: float) -> PixelGrid:
        """Return the middle of the grid that reaches so far from its centre [arcsec], as much cut off on both sides."""
        cut_y, cut_x = (
            max(0, int(n / 2 - far / self.scale)) for n, far in zip(self.shape, (far_y, far_x), strict=True)
        )
        return PixelGrid(self.height - 2 * cut_y, self.width - 2 * cut_x, self.scale)

    def positions(self, *, like: Tensor | None = None) -> Tensor:
        """Return the pixel centres, (1, 2, H, W) [arcsec], channel 0 = x; dtype and device of ``like``."""
        dtype, device = (like.dtype, like.device) if like is not None else (torch.float32, torch.device("cpu"))
        return _positions(self, dtype, device).clone()

    def normalised(self, position: Tensor) -> Tensor:
        """Return positions as ``grid_sample`` wants them: u = 2 x / (W scale), for ``align_corners=False``.

        Args:
            position: (B, 2, H', W') [arcsec].

        Returns:
            (B, H', W', 2), -1 and 1 at the outer edges of the grid.
        """
        side = constant((self.width * self.scale, self.height * self.scale), position)
        return 2 * position.movedim(1, -1) / side

    def sample(self, image: Tensor, position: Tensor, *, mode: str = "bilinear", padding: str = "zeros") -> Tensor:
        """Return an image on this grid, read at positions on the sky: the only ``grid_sample`` of the project.

        Args:
            image: (B or 1, C, H, W) on this grid.
            position: (B or 1, 2, H', W') [arcsec].
            mode: ``bilinear``, ``bicubic`` or ``nearest``.
            padding: ``zeros`` or ``border`` outside of the grid.

        Returns:
            (B, C, H', W').

        Raises:
            LensphysError: if the image is not on this grid.
        """
        check_images("position", position, channels=2)
        if image.ndim != 4 or tuple(image.shape[-2:]) != self.shape:
            raise LensphysError(
                f"image must have the shape (B, C, {self.height}, {self.width}), got {tuple(image.shape)}"
            )
        batch = max(len(image), len(position))
        u = self.normalised(position).expand(batch, -1, -1, -1)
        image = image.expand(batch, -1, -1, -1)
        return F.grid_sample(image, u, mode=mode, padding_mode=padding, align_corners=False)


@remembered(16)
def _positions(grid: PixelGrid, dtype: torch.dtype, device: torch.device) -> Tensor:
    x = (torch.arange(grid.width, dtype=torch.float64) - (grid.width - 1) / 2) * grid.scale
    y = (torch.arange(grid.height, dtype=torch.float64) - (grid.height - 1) / 2) * grid.scale
    yy, xx = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([xx, yy])[None].to(dtype=dtype, device=device)


def polar_from_cartesian(vector: Tensor, theta: Tensor, centre: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the radial and tangential parts of a vector field about a centre.

    Args:
        vector: (B, 2, H, W) [any unit].
        theta: (B or 1, 2, H, W) [arcsec], where the vectors stand.
        centre: (B, 2) [arcsec]; the origin if None.

    Returns:
        radial and tangential part, each (B, 1, H, W); at the centre itself r_hat = x_hat.
    """
    c, s = _direction(theta, centre)
    vx, vy = vector[:, :1], vector[:, 1:]
    return c * vx + s * vy, c * vy - s * vx


def cartesian_from_polar(radial: Tensor, tangential: Tensor, theta: Tensor, centre: Tensor | None = None) -> Tensor:
    """Return radial * r_hat + tangential * t_hat, with t_hat = (-sin phi, cos phi), as (B, 2, H, W).

    Args:
        radial: (B, 1, H, W) [any unit].
        tangential: (B, 1, H, W) [the same unit].
        theta: (B or 1, 2, H, W) [arcsec].
        centre: (B, 2) [arcsec]; the origin if None.
    """
    c, s = _direction(theta, centre)
    return torch.cat([radial * c - tangential * s, radial * s + tangential * c], dim=1)


def _direction(theta: Tensor, centre: Tensor | None) -> tuple[Tensor, Tensor]:
    d = theta if centre is None else theta - centre[:, :, None, None]
    r = torch.linalg.vector_norm(d, dim=1, keepdim=True)
    at_centre = r == 0
    safe = torch.where(at_centre, torch.ones_like(r), r)
    return torch.where(at_centre, torch.ones_like(r), d[:, :1] / safe), d[:, 1:] / safe
