"""Numbers that never change, as tensors: sent to a GPU once, since that takes longer than to compute with them."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def constant(values: tuple[float, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return numbers (n,) on the device of a tensor, made once and shared: not to be written to.

    Args:
        values: the numbers.
        like: says the device, and the dtype where none is given.
        dtype: ``torch.long`` for places, ``torch.bool`` for what is true or false.
    """
    return _made(values, dtype or like.dtype, like.device)


@lru_cache(maxsize=4096)
def _made(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)
