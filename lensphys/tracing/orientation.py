"""The eight orientations of a square: what is true of an image is true of it turned and reflected."""

from __future__ import annotations

import torch
from torch import Tensor


def transformed(x: Tensor, g: int) -> Tensor:
    """Return maps (..., H, W) turned, and first reflected, by the element ``g``, 0 to 7, of the square's group."""
    return torch.rot90(x.flip(-1) if g >= 4 else x, g % 4, (-2, -1))


def reoriented(images: Tensor) -> Tensor:
    """Return images (..., H, W) in one of the eight orientations, drawn at random."""
    return transformed(images, int(torch.randint(8, ())))  # by the generator whose state a checkpoint holds
