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


def read_npy(name: str, path: Path, rows: range | None = None) -> NDArray[np.float32]:
    """Return the array of an .npy file as native float32, of any shape.

    Args:
        name: what the file is called in the message.
        path: the file.
        rows: along the first axis; the others are not read. None for all.

    Raises:
        LensphysError: if it is missing, cut short, not an .npy file, or holds anything but real numbers.
    """
    array = _loaded(name, path, "iuf", mapped=rows is not None)
    part = array if rows is None else np.array(array[rows.start : rows.stop])  # not the read-only map
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is masked or refused as such
        return np.ascontiguousarray(part, dtype=np.float32)


def read_npy_mask(name: str, path: Path) -> NDArray[Any]:
    """Return the array of an .npy file as it stands, of any shape: numbers, whose bits may count, or truth values.

    Args and errors as for `read_npy`.
    """
    return _loaded(name, path, "iufb")


def _loaded(name: str, path: Path, kinds: str, *, mapped: bool = False) -> NDArray[Any]:
    check_file(name, path)
    try:
        array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except Exception as error:  # a damaged header fails in any way
        if "Object arrays" in str(error):
            raise LensphysError(f"{name} {path} holds Python objects: save an array of numbers") from None
        raise _not_whole(name, path, error) from None
    if not isinstance(array, np.ndarray):
        raise LensphysError(f"{name} {path} is an .npz archive: save one array with numpy.save")
    if array.dtype.kind not in kinds:
        raise LensphysError(f"{name} {path} holds {array.dtype} values: save real numbers, as float32")
    return array


def open_npy(name: str, path: Path) -> NDArray[Any] | None:
    """Return the array of an .npy file as it lies on the disk, of any shape; None if it holds Python objects.

    Args:
        name: what the file is called in the message.
        path: the file.

    Raises:
        LensphysError: if it is missing, cut short, not an .npy file, or holds anything but real numbers and objects.
    """
    check_file(name, path)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        if "dtype=object" in str(error) or "Python objects" in str(error) or "Object arrays" in str(error):
            return None
        raise _not_whole(name, path, error) from None
    if not isinstance(array, np.ndarray):
        raise LensphysError(f"{name} {path} is an .npz archive: save one array with numpy.save")
    if array.dtype.kind not in "iuf":
        raise LensphysError(f"{name} {path} holds {array.dtype} values: save real numbers, as float32")
    return array


def _not_whole(name: str, path: Path, error: Exception) -> LensphysError:
    return LensphysError(
        f"{name} {path} is not a whole .npy file: save it anew with numpy.save ({shortened(str(error))})"
    )


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
