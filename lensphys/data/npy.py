"""Plain arrays: .npy files in, .npz files out."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lensphys.basics.checks import LensphysError, check_file, shortened
from lensphys.basics.outputs import whole_file
from lensphys.data.kept import Stack

REAL, TRUTH = "iuf", "iufb"  # kinds of numbers: with truth values or without


def read_npy(name: str, path: Path) -> NDArray[np.float32]:
    """Return the array of an .npy file as native float32, of any shape.

    Args:
        name: what the file is called in the message.
        path: the file.

    Raises:
        LensphysError: if it is missing, cut short, not an .npy file, or holds anything but real numbers.
    """
    return as_float32(mapped_npy(name, path))


def as_float32(array: NDArray[Any]) -> NDArray[np.float32]:
    """Return a copy of numbers of any shape as float32; what overflows becomes infinite, and is masked or refused."""
    with np.errstate(over="ignore"):
        return np.array(array, dtype=np.float32, order="C")


def mapped_npy(name: str, path: Path, kinds: str = REAL) -> NDArray[Any]:
    """Return the array of an .npy file as it lies on the disk, of any shape and read-only.

    Args:
        name: what the file is called in the message.
        path: the file.
        kinds: of numbers that are wanted.

    Raises:
        LensphysError: if it is missing, cut short, not an .npy file, or holds anything else.
    """
    array = open_npy(name, path, kinds)
    if array is None:
        raise LensphysError(f"{name} {path} holds Python objects: save an array of numbers")
    return array


def open_npy(name: str, path: Path, kinds: str = REAL) -> NDArray[Any] | None:
    """Return the array of an .npy file, of any shape, as `mapped_npy` does; None if it holds Python objects.

    Args and errors as there.
    """
    check_file(name, path)
    try:
        array = _mapped(path)
    except Exception as error:  # a damaged header fails in any way
        if "dtype=object" in str(error) or "Python objects" in str(error) or "Object arrays" in str(error):
            return None
        raise LensphysError(
            f"{name} {path} is not a whole .npy file: save it anew with numpy.save ({shortened(str(error))})"
        ) from None
    if not isinstance(array, np.ndarray):
        raise LensphysError(f"{name} {path} is an .npz archive: save one array with numpy.save")
    if array.dtype.kind not in kinds:
        raise LensphysError(f"{name} {path} holds {array.dtype} values: save real numbers, as float32")
    return array


def _mapped(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "empty file" not in str(error):
            raise
        return np.load(path, allow_pickle=False)  # of no numbers: there is nothing to map


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write named arrays (and texts, and stacks that are read a chunk at a time) to an .npz file, whole or not at all.

    Raises:
        LensphysError: if the file cannot be written.
    """
    with whole_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                _write_npy(file, Stack.from_array(array))


def _write_npy(file: IO[bytes], stack: Stack) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(stack.dtype), "fortran_order": False, "shape": stack.shape}
    np.lib.format.write_array_header_2_0(file, header)
    for part in stack.chunks():
        file.write(np.ascontiguousarray(part, dtype=stack.dtype).tobytes())
