"""Object arrays in .npy files, read without running any code that a pickle may hold.

A pickle may call whatever it can name. Here it can name only what numpy writes for arrays, dtypes and scalars, and even
those names lead to stand-ins of this file: numpy's own unpickling, which trusts its input, is never reached.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from lensphys.basics.checks import LensphysError, check_file

Fields = dict[int | str, Any]

_DTYPE = re.compile(r"[<>=|]?([biuf][1248]|f16|O8?|[OU?]|U\d+)")


def read_fields(name: str, path: Path) -> Fields:
    """Return what an object array of an .npy file holds: its items by position, or by key where it holds a dict.

    Args:
        name: what the file is called in the message.
        path: the file.

    Raises:
        LensphysError: if the file is cut short, its pickle names anything but arrays and numbers, or a key is neither a
            whole number nor a text.
    """
    check_file(name, path)
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            read(file)
            return _fields(_plain(_Unpickler(file).load()))
        except _Forbidden as error:
            raise LensphysError(
                f"{name} {path} is a pickle that names {error}, which is not an array, a dtype or a number: it is not "
                "read, because it could run code; save plain arrays with numpy.save"
            ) from None
        except Exception as error:  # a damaged pickle fails in any way
            raise LensphysError(
                f"{name} {path} is not a whole .npy file of arrays and numbers ({error!s:.80})"
            ) from None


class _Forbidden(Exception):
    """The pickle names something that it must not."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module.replace("numpy._core", "numpy.core"), name]
        except KeyError:
            raise _Forbidden(f"{module}.{name}") from None


class _Named:
    """What an allowed name leads to: it can be called, and nothing else (a class could be changed by the pickle)."""

    __slots__ = ("_make",)
    _make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "_make", make)

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> NoReturn:
        raise ValueError("a pickle of arrays does not change functions")

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise ValueError("a pickle of arrays does not change functions")


class _Dtype:
    """Stands in for numpy.dtype: numbers, texts and objects, no fields."""

    __slots__ = ("dtype",)

    def __init__(self, code: str, align: Any = False, copy: Any = False) -> None:
        if not isinstance(code, str) or not _DTYPE.fullmatch(code):
            raise ValueError(f"the dtype {code!r} is neither numbers nor objects")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order, described = state[1], state[2:5]
        if order not in ("<", ">", "|", "=") or any(x is not None for x in described):
            raise ValueError("a dtype with fields is not read")
        if order in "<>":
            self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands in for numpy.ndarray while it is unpickled."""

    __slots__ = ("array",)

    def __init__(self) -> None:
        self.array: NDArray[Any] = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.array = _array(data, dtype, shape, "F" if fortran else "C")


def _array(data: Any, dtype: _Dtype, shape: tuple[int, ...], order: str = "C") -> NDArray[Any]:
    if dtype.dtype.hasobject:
        flat = np.empty(len(data), dtype=object)
        for i, x in enumerate(data):  # one by one: numpy would look into sequences
            flat[i] = _plain(x)
    else:
        flat = np.frombuffer(data, dtype.dtype)
    if len(flat) != math.prod(shape):
        raise ValueError(f"{len(flat)} values do not fill an array of {shape}")
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _buffered(data: Any, dtype: _Dtype, shape: tuple[int, ...], order: str, *_: Any) -> _Array:
    new = _Array()
    new.array = _array(data, dtype, shape, order)
    return new


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    return _array(data, dtype, (1,))[0]


_ALLOWED = {
    ("numpy", "ndarray"): _Named(_Array),
    ("numpy", "dtype"): _Named(_Dtype),
    ("numpy.core.multiarray", "_reconstruct"): _Named(lambda *_: _Array()),
    ("numpy.core.multiarray", "scalar"): _Named(_scalar),
    ("numpy.core.numeric", "_frombuffer"): _Named(_buffered),
}


def _plain(x: Any) -> Any:
    return x.array if isinstance(x, _Array) else x


def _fields(whole: Any) -> Fields:
    if isinstance(whole, np.ndarray) and whole.ndim == 0:
        whole = whole.item()
    if isinstance(whole, dict):
        for key in whole:
            if not isinstance(key, int | str):  # others may be of any depth
                raise ValueError(f"a key is a {type(key).__name__}, neither a number nor a text")
        return {key: _plain(x) for key, x in whole.items()}
    if isinstance(whole, np.ndarray) and whole.ndim > 1:  # arrays of one shape, which numpy made one of
        whole = [_numbers(x) for x in whole] if whole.ndim > 2 else [_numbers(whole)]
    if isinstance(whole, np.ndarray | list | tuple):
        return {i: _plain(x) for i, x in enumerate(whole)}
    return {0: whole}


def _numbers(x: NDArray[Any]) -> NDArray[Any]:
    try:
        return x.astype(np.float64)
    except (TypeError, ValueError):
        return x
