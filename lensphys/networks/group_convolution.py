"""Convolutions that are equivariant to turns by 90 degrees (C4), or to turns and reflections (D4).

A feature field holds a map for each element g of the group: (B, C, G, H, W). Where the image is turned by u, so are its
maps, and they change places: (u f)(x, g) = f(u^-1 x, u^-1 g). The element g = 4 m + r turns by r times 90 degrees,
after a reflection along x where m = 1. Every layer reads one kernel in all its orientations, and zero padding keeps
the symmetry, so equivariance holds to rounding at any height and width.

Source: Cohen & Welling 2016, arXiv:1602.07576, eq. 10 and 11.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lensphys.tracing.orientation import transformed

Group = Literal["c4", "d4"]
ORDER: dict[Group, int] = {"c4": 4, "d4": 8}


def orientations(kernel: Tensor, group: Group) -> Tensor:
    """Return a kernel (C, C', k, k) in all orientations, (C, G, C', k, k)."""
    return torch.stack([transformed(kernel, g) for g in range(ORDER[group])], dim=1)


def quotient(g: int, h: int) -> int:
    """Return the element g^-1 h.

    Example:
        >>> quotient(1, 3), quotient(4, 5)  # a reflection turns a turn around
        (2, 3)
    """
    turn = h - g if g < 4 else g - h
    return 4 * (g // 4 ^ h // 4) + turn % 4


class _Weighted(nn.Module):
    """A layer with a kernel that starts, by its fan-in over the group, so that PReLU keeps the size of the maps."""

    def __init__(self, shape: tuple[int, ...], fan_in: int, biases: int) -> None:
        super().__init__()
        gain = nn.init.calculate_gain("leaky_relu", 0.25)
        self.weight = nn.Parameter(torch.randn(shape) * gain * fan_in**-0.5)
        self.bias = nn.Parameter(torch.zeros(biases))


class LiftingConv(_Weighted):
    """Image (B, in, H, W) -> fields (B, out, G, H, W); ``kernel`` is odd."""

    def __init__(self, in_channels: int, fields: int, kernel: int, group: Group) -> None:
        super().__init__((fields, in_channels, kernel, kernel), in_channels * kernel**2, fields)
        self.group = group

    def forward(self, image: Tensor) -> Tensor:
        """Return the fields (B, out, G, H, W): the image (B, in, H, W) through the kernel in every orientation."""
        kernels = orientations(self.weight, self.group).flatten(0, 1)
        maps = F.conv2d(image, kernels, padding=kernels.shape[-1] // 2)
        return maps.unflatten(1, (-1, ORDER[self.group])) + self.bias[:, None, None, None]


class GroupConv(_Weighted):
    """Fields (B, in, G, H, W) -> fields (B, out, G, H, W); ``kernel`` is odd.

    ``quotients``: the number of g^-1 h in the group, (G, G).
    """

    quotients: Tensor

    def __init__(self, in_fields: int, fields: int, kernel: int, group: Group) -> None:
        order = ORDER[group]
        super().__init__((fields, in_fields * order, kernel, kernel), in_fields * order * kernel**2, fields)
        table = torch.tensor([[quotient(g, h) for h in range(order)] for g in range(order)])
        self.register_buffer("quotients", table, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the fields (B, out, G, H, W): the kernel of (g, h) is that of g^-1 h, turned by g.

        Args:
            maps: fields (B, in, G, H, W).
        """
        by_element = self.weight.unflatten(1, (-1, len(self.quotients)))
        by_pair = by_element[:, :, self.quotients]  # (out, in, g, h, k, k)
        turned = torch.stack([transformed(k, g) for g, k in enumerate(by_pair.unbind(2))], dim=1)
        kernels = turned.flatten(2, 3).flatten(0, 1)  # (out g, in h, k, k)
        found = F.conv2d(maps.flatten(1, 2), kernels, padding=kernels.shape[-1] // 2)
        return found.unflatten(1, (-1, len(self.quotients))) + self.bias[:, None, None, None]


class UpscalingProjection(_Weighted):
    """Fields (B, in, G, H, W) -> maps (B, out, scale H, scale W) that only turn: a transposed convolution.

    The kernel stands in the middle of the coarse pixel, so its width is even where ``scale`` is; one that is not is
    widened by a pixel.
    """

    def __init__(self, fields: int, out_channels: int, kernel: int, scale: int, group: Group) -> None:
        kernel += (kernel - scale) % 2
        super().__init__((fields, out_channels, kernel, kernel), fields * ORDER[group] * kernel**2, out_channels)
        self.scale, self.group = scale, group

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps (B, out, scale H, scale W): what each element of the group adds, in its orientation."""
        kernels = orientations(self.weight, self.group).flatten(0, 1)
        padding = (kernels.shape[-1] - self.scale) // 2
        return F.conv_transpose2d(maps.flatten(1, 2), kernels, self.bias, stride=self.scale, padding=padding)
