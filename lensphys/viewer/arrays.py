"""Stacks of super-resolved images: what `lensphys.data.results` wrote as .npz and HDF5."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensphys.data.hdf5 import damage
from lensphys.data.written import bands_in, open_arrays, plain, scales_of
from lensphys.fits.numbers import numbers_of
from lensphys.fits.planes import PLANES
from lensphys.viewer.result import LensResult, Quantity, surface_brightness, usable

Array = NDArray[Any]


def array_results(path: Path) -> list[Callable[[], LensResult]]:
    """Return what reads each lens of an .npz or HDF5 result, of one lens in several bands what reads each band.

    Raises:
        LensphysError: if it is another file, or damaged.
    """
    stacks = [_Stack(path, band, *open_arrays(path, band)) for band in bands_in(path)]
    return [partial(stack.lens, i) for stack in stacks for i in range(stack.count)]


class _Stack:
    """The arrays of a result, each of N rows, and its provenance; of several bands those of one."""

    def __init__(self, path: Path, band: str | None, arrays: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
        self.path, self.arrays, self.origin = path, arrays, origin
        self.name = path.stem if band is None else f"{path.stem} {band}"
        self.count = len(arrays["image"])
        large, self.scale = scales_of(path, origin)
        self.pixel_scale = large / self.scale

    def lens(self, i: int) -> LensResult:
        with damage(str(self.path)):
            planes = {name: self._plane(name, i) for name in PLANES if name in self.arrays}
            drawn, remarks = usable(surface_brightness(planes, self.pixel_scale, self.scale), self._name(i))
            return LensResult(
                self._name(i),
                drawn,
                self.pixel_scale,
                self.scale,
                source_scale=float(self.arrays["source_scale"][()]) if "source_scale" in self.arrays else 0.0,
                numbers=numbers_of(self.arrays, i),
                parameters=self._parameters(i),
                subhalos=self._subhalos(i),
                quality=self._text("quality", i),
                reasons=self._text("reasons", i),
                psf=str(self.origin.get("psf", "")),
                origin=self.origin,
                remarks=remarks,
            )

    def _name(self, i: int) -> str:
        index = int(self.arrays["index"][i]) if "index" in self.arrays else i
        return f"{self.name} {index}" if self.count > 1 else self.name

    def _plane(self, name: str, i: int) -> Array:
        plane = np.asarray(self.arrays[name][i], dtype=np.float64)
        return plane[0] if plane.ndim == 3 and name != "alpha" else plane

    def _text(self, name: str, i: int) -> str:
        return plain(self.arrays[name][i]) if name in self.arrays else ""

    def _parameters(self, i: int) -> tuple[Quantity, ...]:
        if "parameters" not in self.arrays:
            return ()
        names, units = (map(plain, self.arrays[key]) for key in ("parameter_names", "parameter_units"))
        rows = zip(names, self.arrays["parameters"][i], self.arrays["errors"][i], units, strict=True)
        return tuple(Quantity(name, float(value), float(error), unit) for name, value, error, unit in rows)

    def _subhalos(self, i: int) -> tuple[dict[str, float], ...]:
        if "bodies" not in self.arrays or "body_columns" not in self.arrays:
            return ()
        names = [plain(name) for name in self.arrays["body_columns"]]
        rows = [dict(zip(names, map(float, row), strict=True)) for row in self.arrays["bodies"][i]]
        if "body_masses" in self.arrays:
            rows = [row | {"mass": float(m)} for row, m in zip(rows, self.arrays["body_masses"][i], strict=True)]
        return tuple(row for row in rows if np.isfinite(row["x"]))
