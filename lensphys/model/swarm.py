"""The deflection of many bodies at once, fast and in constant memory, without gradients: for simulations.

On a processor, compiled kernels go over blocks of points that stay in its cache, body by body; on a GPU tensor
operations do, on so many points at a time that memory does not grow with the number of bodies.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lensphys.model.component import CORE
from lensphys.model.mass.tnfw import deflection_tnfw

_CHUNK = 1 << 20  # bodies times points at a time, where there is no kernel
_NODES = 1024
_CORE = 1e-9  # arcsec: no gradient is taken here, and with CORE a point next to a pixel would be off by 1e-4


@torch.no_grad()
def deflection_swarm(x: Tensor, y: Tensor, strength: Tensor, center_x: Tensor, center_y: Tensor) -> Tensor:
    """Return the deflection of point masses, sum_k s_k d_k / (|d_k|^2 + core^2), as `deflection_points` does.

    In float64: close to a body float32 is not enough.

    Args:
        x: (P,) [arcsec], float64.
        y: (P,) [arcsec].
        strength: theta_E^2 of each body, (B, K) [arcsec^2].
        center_x: (B, K) [arcsec].
        center_y: (B, K) [arcsec].

    Returns:
        (B, 2, P) [arcsec].
    """
    total = x.new_zeros(len(strength), 2, len(x))
    if x.device.type == "cpu":
        from lensphys.model import kernels

        kernels.points(*_arrays(x, y, strength, center_x, center_y), _CORE**2, total.numpy())
        return total
    points = max(1, _CHUNK // max(1, strength.numel()))
    for start in range(0, len(x), points):
        part = slice(start, start + points)
        dx, dy = (at[part] - centre[..., None] for at, centre in ((x, center_x), (y, center_y)))  # (B, K, points)
        weight = strength[..., None] / (dx.square() + dy.square() + _CORE**2)
        total[:, 0, part], total[:, 1, part] = (weight * dx).sum(1), (weight * dy).sum(1)
    return total


@torch.no_grad()
def deflection_tnfw_swarm(
    x: Tensor, y: Tensor, Rs: Tensor, alpha_Rs: Tensor, r_trunc: Tensor, center_x: Tensor, center_y: Tensor
) -> Tensor:
    """Return the deflection of truncated NFW halos, the sum of `deflection_tnfw` over them.

    On a processor alpha / r of each halo is tabulated on nodes that are even in the root of r, and interpolated by
    cubics: to 1e-6 of its deflection at Rs, and many times as fast as the formula.

    Args:
        x: (P,) [arcsec], float64.
        y: (P,) [arcsec].
        Rs: (B, K) [arcsec].
        alpha_Rs: (B, K) [arcsec].
        r_trunc: (B, K) [arcsec].
        center_x: (B, K) [arcsec].
        center_y: (B, K) [arcsec].

    Returns:
        (B, 2, P) [arcsec].
    """
    total = x.new_zeros(len(Rs), 2, len(x))
    if x.device.type != "cpu":
        theta = torch.stack([x, y])[None, :, None]
        for k in range(Rs.shape[1]):
            halo = (values[:, k] for values in (Rs, alpha_Rs, r_trunc, center_x, center_y))
            total += deflection_tnfw(theta, *halo)[:, :, 0]
        return total
    far = x.abs().max() + y.abs().max()
    from lensphys.model import kernels

    for i in range(len(Rs)):  # tables of one lens at a time, of its own halos and of no padding: the same in any batch
        there = alpha_Rs[i] != 0
        if not bool(there.any()):
            continue
        size, strength, cut, at_x, at_y = (values[i, there] for values in (Rs, alpha_Rs, r_trunc, center_x, center_y))
        step = float(far + at_x.abs().max() + at_y.abs().max()) ** 0.5 / (_NODES - 3)
        radius = (torch.arange(_NODES, dtype=x.dtype) * step).square().clamp(min=CORE)
        line = torch.stack([radius, torch.zeros_like(radius)])[None, :, None]
        slope = deflection_tnfw(line, size, strength, cut)[:, 0, 0] / radius
        kernels.tabulated(*_arrays(x, y, slope, at_x, at_y), 1 / step, total[i].numpy())
    return total


def _arrays(*tensors: Tensor) -> list[Any]:
    return [t.contiguous().numpy() for t in tensors]
