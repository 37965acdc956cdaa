"""Finite differences on a pixel grid, second order inside and one-sided at the edge; steps for exact derivatives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lensphys.basics.checks import check_images


def gradient(field: Tensor, scale: float) -> Tensor:
    """Return the gradient of a scalar field.

    Args:
        field: (B, 1, H, W) [any unit], H and W at least 3.
        scale: pixel scale [arcsec].

    Returns:
        (B, 2, H, W), channel 0 = d/dx [unit of the field / arcsec].
    """
    check_images("field", field)
    dy, dx = torch.gradient(field, spacing=scale, dim=(-2, -1), edge_order=2)
    return torch.cat([dx, dy], dim=1)


def jacobian(vector: Tensor, scale: float) -> Tensor:
    """Return dv_i/dx_j of a vector field.

    Args:
        vector: (B, 2, H, W) [any unit].
        scale: pixel scale [arcsec].

    Returns:
        (B, 2, 2, H, W), [:, i, j] = dv_i / dx_j [unit of the field / arcsec].
    """
    check_images("vector", vector, channels=2)
    return torch.stack([gradient(vector[:, :1], scale), gradient(vector[:, 1:], scale)], dim=1)


def divergence(vector: Tensor, scale: float) -> Tensor:
    """Return dv_x/dx + dv_y/dy, (B, 1, H, W), of a vector field (B, 2, H, W); scale in arcsec."""
    j = jacobian(vector, scale)
    return (j[:, 0, 0] + j[:, 1, 1])[:, None]


def curl(vector: Tensor, scale: float) -> Tensor:
    """Return dv_y/dx - dv_x/dy, (B, 1, H, W), of a vector field (B, 2, H, W); scale in arcsec."""
    j = jacobian(vector, scale)
    return (j[:, 1, 0] - j[:, 0, 1])[:, None]


def weighted_slopes(function: Callable[[Tensor], Tensor], at: Tensor, weight: Tensor) -> Tensor:
    """Return J^T w with J = d function / d argument, in the shape of the argument.

    `torch.func.vjp` gives the same and imports a compiler, a second and a half, for it.

    Args:
        function: of one tensor.
        at: the argument [any unit].
        weight: w, in the shape of the function's values.
    """
    with torch.enable_grad():
        argument = at.detach().requires_grad_()
        return torch.autograd.grad((function(argument) * weight).sum(), argument)[0]


def axes(position: Tensor) -> list[Tensor]:
    """Return a step along x and one along y at every position, each of the shape (B, 2, H, W): tangents for jvp."""
    steps = [torch.zeros_like(position) for _ in range(2)]
    steps[0][:, 0], steps[1][:, 1] = 1, 1
    return steps
