"""Some lenses of a file as a file of their own."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lensphys.basics.outputs import whole_file
from lensphys.data.hdf5 import new_dataset, new_file, opened, rows_of, sign
from lensphys.data.lens_file import LensFile
from lensphys.data.merging import datasets_of, link_clean, virtual_file


def write_rows(source: Path, rows: NDArray[np.int64], out: Path) -> Path:
    """Write some lenses of a file, with all that is known of them, into another; return its path.

    Args:
        source: a file or a folder of shards.
        rows: which lenses, (n,), in ascending order.
        out: the new file, replaced where it is there.

    Raises:
        LensphysError: if the source is no lens file, or is damaged.
        OSError: if the new one cannot be written.
    """
    with LensFile(source) as lenses:
        own = f"{lenses.identity} {rows.tolist()}"
    whole = virtual_file(source) if source.is_dir() else opened(source)
    with whole as file, whole_file(out) as temporary, new_file(temporary) as part:
        part.attrs.update(dict(file.attrs))
        part.attrs["identity"] = hashlib.sha256(own.encode()).hexdigest()
        for name in datasets_of(file):
            dataset = new_dataset(part, name, (len(rows), *file[name].shape[1:]), file[name].dtype)
            dataset[...] = rows_of(file[name], rows)
            dataset.attrs.update(dict(file[name].attrs))
        link_clean(part)
        sign(part)
    return out
