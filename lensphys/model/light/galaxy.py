"""The image of a galaxy as a source whose place, size and brightness are fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lensphys.model.component import CENTRE, LightProfile, Value, as_planes, chosen, offset
from lensphys.model.parameter import SOURCE_CENTRE, Parameter, Peaks

_DARK = 8  # pixels of sky about an image: a cubic spline has forgotten its edge there to 3e-5


@dataclass(frozen=True, eq=False)
class Pixels:
    """An image as a cubic spline, smooth to its second derivatives; zero outside of it.

    Args:
        coefficients: (h, w) float64 of its B-splines, in units of its brightest pixel, with a dark border.
        scale: of its pixels [arcsec].
        provenance: file, pixel scale and checksum, for records.
    """

    coefficients: Tensor
    scale: float
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_image(cls, image: NDArray[Any], scale: float, provenance: Mapping[str, Any] | None = None) -> Pixels:
        """Return an image (H, W) in units of its brightest pixel.

        Args:
            image: (H, W) in any unit, rows are y, upwards; some of it is positive.
            scale: of its pixels [arcsec].
            provenance: file, pixel scale and checksum, for records.
        """
        from scipy.ndimage import spline_filter

        dark = np.pad(np.asarray(image, dtype=np.float64) / np.max(image), _DARK)
        return cls(torch.from_numpy(spline_filter(dark, order=3, mode="mirror")), scale, provenance or {})

    @property
    def half_side(self) -> float:
        """Of the longer side of the image [arcsec]."""
        return 0.5 * self.scale * (max(self.coefficients.shape) - 2 * _DARK)

    def at(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return brightness and its gradient at places about the image's middle.

        Args:
            x: (B, H, W) [pixels of the image].
            y: (B, H, W) [pixels of the image].

        Returns:
            Brightness [of the brightest pixel] and its derivatives by x and y [per pixel], (B, H, W) each.
        """
        height, width = self.coefficients.shape
        column, row = x + 0.5 * (width - 1), y + 0.5 * (height - 1)
        inside = (column > 1) & (column < width - 2) & (row > 1) & (row < height - 2)
        i, j = (u.detach().floor().clamp(1, n - 3) for u, n in ((column, width), (row, height)))
        (wx, dx), (wy, dy) = _weights(column - i), _weights(row - j)
        place = (j.long()[..., None] + _NEAR.to(x.device))[..., :, None] * width
        place = place + (i.long()[..., None] + _NEAR.to(x.device))[..., None, :]
        near = self.coefficients.to(x).flatten()[place] * inside[..., None, None]

        def summed(rows: Tensor, columns: Tensor) -> Tensor:
            return torch.einsum("...jk,...j,...k->...", near, rows, columns)

        return summed(wy, wx), summed(wy, dx), summed(dy, wx)


_NEAR = torch.arange(-1, 3)


def _weights(t: Tensor) -> tuple[Tensor, Tensor]:
    """Of the four cubic B-splines about a place ``t`` of the way from one pixel to the next, and their slopes."""
    s = 1 - t
    weights = [s**3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (3 * s**3 - 6 * s**2 + 4) / 6, t**3 / 6]
    slopes = [-(s**2) / 2, (3 * t**2 - 4 * t) / 2, (4 * s - 3 * s**2) / 2, t**2 / 2]
    return torch.stack(weights, dim=-1), torch.stack(slopes, dim=-1)


def brightness_galaxy(
    beta: Tensor, image: Pixels, amp: Value, scale: Value, center_x: Value, center_y: Value
) -> Tensor:
    """Return the surface brightness (B, 1, H, W) of an image at beta (B or 1, 2, H, W) [arcsec].

    Args:
        beta: positions, (B or 1, 2, H, W) [arcsec].
        image: the pixels.
        amp: brightness of the brightest pixel [flux / arcsec^2].
        scale: of the image: 1 for its own pixel scale.
        center_x: where its middle stands [arcsec].
        center_y: [arcsec].
    """
    x, y = offset(beta, center_x, center_y)
    pixel = as_planes(scale, beta) * image.scale
    return (as_planes(amp, beta) * image.at(x / pixel, y / pixel)[0])[:, None]


@dataclass(frozen=True)
class GalaxyImage(LightProfile):
    """The image of a galaxy, moved, magnified and brightened: see `brightness_galaxy`.

    Args:
        image: its pixels.
        amp: brightness of its brightest pixel [flux / arcsec^2].
        scale: how many times as large it is, without unit.
        center_x: [arcsec].
        center_y: [arcsec].

    Example:
        >>> import numpy as np
        >>> source = GalaxyImage(Pixels.from_image(np.eye(5), 0.1), amp=2.0, scale=1.0)
        >>> round(source(torch.zeros(1, 2, 1, 1)).item(), 6)
        2.0
    """

    image: Pixels
    amp: Value
    scale: Value = 1.0
    center_x: Value = 0.0
    center_y: Value = 0.0
    formula = staticmethod(brightness_galaxy)
    parameters = (
        Parameter("amp", "flux / arcsec^2", Peaks(1e-4), Peaks(1e3), logarithmic=True),
        Parameter("scale", "", 0.2, 5.0, 1.0, 0.3, logarithmic=True),
        *SOURCE_CENTRE,
    )

    @property
    def half_side(self) -> Tensor:
        """Of the square that holds its light, (B,) [arcsec]."""
        return self.image.half_side * torch.as_tensor(self.scale)

    def derivatives(self, position: Tensor, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Return the brightness (B, 1, H, W) and its derivatives by some parameters, (B, P, 1, H, W)."""
        light, along_x, along_y, x, y = self._seen(position)
        by = {
            "amp": light / as_planes(self.amp, position),
            "scale": -(along_x * x + along_y * y) / as_planes(self.scale, position),
            CENTRE[0]: -along_x,
            CENTRE[1]: -along_y,
        }
        value = light[:, None]
        return value, chosen({name: column[:, None] for name, column in by.items()}, names, value)

    def gradient(self, beta: Tensor) -> Tensor:
        """Return the gradient of the brightness by beta, (B, 2, H, W) [flux / arcsec^3]."""
        return torch.stack(self._seen(beta)[1:3], dim=1)

    def _seen(self, beta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Brightness, its derivatives by x and y [per arcsec], and x and y about the middle, (B, H, W) each."""
        x, y = offset(beta, self.center_x, self.center_y)
        pixel, amp = as_planes(self.scale, beta) * self.image.scale, as_planes(self.amp, beta)
        light, along_x, along_y = self.image.at(x / pixel, y / pixel)
        return amp * light, amp * along_x / pixel, amp * along_y / pixel, x, y
