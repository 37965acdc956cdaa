"""The Einstein radius of any deflection."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_RINGS, _ANGLES = 64, 96


def einstein_radius(deflection: Callable[[Tensor], Tensor], centre: Tensor, largest: float) -> Tensor:
    """Return the radius (B,) [arcsec] about a centre within which the mean convergence is 1.

    That is where the radial deflection, averaged over the circle, equals the radius: the outermost such circle, since
    sub-halos make small ones further in. NaN if there is none up to ``largest``.

    Args:
        deflection: theta (B, 2, H, W) [arcsec] -> alpha (B, 2, H, W) [arcsec].
        centre: (B, 2) [arcsec].
        largest: radius that is looked at [arcsec].
    """
    radius = torch.linspace(0.02, 1.0, _RINGS).to(centre) * largest
    angle = torch.arange(_ANGLES).to(centre) * (2 * math.pi / _ANGLES)
    outward = torch.stack([angle.cos(), angle.sin()])[:, None, :]
    alpha = deflection(centre[:, :, None, None] + radius[None, None, :, None] * outward)
    excess = (alpha * outward).sum(1).mean(2) - radius
    crossing = (excess[:, :-1] > 0) & (excess[:, 1:] <= 0)
    last = crossing.shape[1] - 1 - crossing.flip(1).float().argmax(1, keepdim=True)
    above, below = excess.gather(1, last)[:, 0], excess.gather(1, last + 1)[:, 0]
    where = radius[last[:, 0]] + (radius[1] - radius[0]) * above / (above - below)
    return torch.where(crossing.any(1), where, math.nan)
