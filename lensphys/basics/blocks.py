"""How much is computed at a time."""

from __future__ import annotations

from torch import Tensor

_ON_A_GPU = 256  # times as much: it waits for orders, not for memory


def block(size: int, like: Tensor) -> int:
    """Return how many numbers to compute with at a time on the device of a tensor.

    Args:
        size: on a CPU, where they stay in its caches.
        like: says the device.
    """
    return size * _ON_A_GPU if like.is_cuda else size
