"""Numbers that never change, as tensors: made once and shared, whatever mode of torch a caller is in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from typing import ParamSpec

import torch
from torch import Tensor
from torch._C import _functorch  # nothing public tells whether `torch.func` is at work

P = ParamSpec("P")


def remembered(count: int) -> Callable[[Callable[P, Tensor]], Callable[P, Tensor]]:
    """Return a decorator for functions of what can be hashed, that keeps the last tensors they made: not written to.

    A tensor made in `torch.inference_mode` could not be trained with, and one made within a transform of `torch.func`
    dies with it: the first is made outside of the mode, the second is not kept.

    Args:
        count: how many tensors.

    Example:
        >>> square = remembered(8)(lambda x: torch.tensor([x * x]))
        >>> square(3.0) is square(3.0)
        True
    """

    def of(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
        @lru_cache(maxsize=count)
        def kept(*args: P.args, **kwargs: P.kwargs) -> Tensor:
            with normal_tensors():
                return function(*args, **kwargs)

        @wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> Tensor:
            if torch.compiler.is_compiling() or in_transform():
                return function(*args, **kwargs)
            return kept(*args, **kwargs)  # type: ignore[arg-type]  # whoever calls it knows that they can be hashed

        return wrapped

    return of


def in_transform() -> bool:
    """Return whether a transform of `torch.func` is at work."""
    return _functorch.maybe_current_level() is not None


@contextmanager
def normal_tensors() -> Iterator[None]:
    """Leave `torch.inference_mode` for the block: its tensors can be fitted and trained with."""
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False):
            yield
    else:
        yield


def constant(values: tuple[float, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return numbers (n,) on the device of a tensor, made once and shared: not to be written to.

    They are sent to a GPU once, since that takes longer than to compute with them.

    Args:
        values: the numbers.
        like: says the device, and the dtype where none is given.
        dtype: ``torch.long`` for places, ``torch.bool`` for what is true or false.
    """
    return _made(values, dtype or like.dtype, like.device)


@remembered(4096)
def _made(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)
