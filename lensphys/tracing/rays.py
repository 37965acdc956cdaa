"""The ray tracer: from the image plane to the source plane and back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lensphys.basics.checks import check_images, check_same_shape
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid


def trace(field: DeflectionField, light: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the lensed surface brightness I(theta) = S(theta - alpha(theta)): lensing conserves it.

    Args:
        field: the deflection on the pixels wanted.
        light: beta (B, 2, H, W) [arcsec] -> S (B, 1, H, W) [flux / arcsec^2]: `Sersic`, `ImageSource`.

    Returns:
        (B, 1, H, W) [flux / arcsec^2].

    Example:
        >>> from lensphys.model import SIS, Sersic
        >>> field = DeflectionField.from_lens(SIS(theta_E=1.0), PixelGrid(64, 64, 0.08))
        >>> trace(field, Sersic(amp=1.0, R_sersic=0.25, n_sersic=1.0)).shape
        torch.Size([1, 1, 64, 64])
    """
    return light(field.beta)


def back_project(image: Tensor, field: DeflectionField, source_grid: PixelGrid) -> tuple[Tensor, Tensor]:
    """Return A^T y and A^T 1, with A = bilinear sampling of a source image at beta(theta).

    Differentiable in the image and in the deflection.

    Args:
        image: y, (B, 1, H, W) [any unit] on the field's pixels.
        field: the deflection.
        source_grid: pixels of the source plane.

    Returns:
        A^T y [unit of y] and A^T 1 [pixels of the image], each (B, 1, H', W') on ``source_grid``.

    Raises:
        LensphysError: if the image does not fit the field.
    """
    check_images("image", image)
    check_same_shape("image", image.shape[-2:], "deflection field", field.grid.shape)
    beta = field.beta
    batch = max(len(image), len(beta))
    stacked = torch.cat([image, torch.ones_like(image)], dim=1).expand(batch, -1, -1, -1)
    blank = torch.zeros(batch, 2, *source_grid.shape, dtype=image.dtype, device=image.device, requires_grad=True)
    differentiable = torch.is_grad_enabled() and (image.requires_grad or beta.requires_grad)
    with torch.enable_grad():
        seen = (source_grid.sample(blank, beta) * stacked).sum()  # its gradient is A^T of what is stacked
        (adjoint,) = torch.autograd.grad(seen, blank, create_graph=differentiable)
    return adjoint[:, :1], adjoint[:, 1:]


def reconstruct_source(image: Tensor, field: DeflectionField, source_grid: PixelGrid) -> Tensor:
    """Return the source that an image shows, A^T y / A^T 1: the mean of all image pixels that land on a source pixel.

    Right for any number of multiple images, unlike beta + alpha(beta). Zero where no light path ends.

    Args:
        image: (B, 1, H, W) [flux / arcsec^2] on the field's pixels.
        field: the deflection.
        source_grid: pixels of the source plane.

    Returns:
        (B, 1, H', W') [flux / arcsec^2].
    """
    weighted, weight = back_project(image, field, source_grid)
    return torch.where(weight > 1e-3, weighted / weight.clamp(min=1e-3), torch.zeros_like(weight))
