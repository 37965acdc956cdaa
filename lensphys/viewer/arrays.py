"""Stacks of super-resolved images: what `lensphys.data.results` wrote as .npz and HDF5."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensphys.basics.checks import LensphysError, shortened
from lensphys.data.hdf5 import damage, opened
from lensphys.data.lens_file import RESULT
from lensphys.viewer.result import LensResult, Quantity, surface_brightness, usable

Array = NDArray[Any]

_PLANES = ("image", "sigma", "constrained", "alpha", "kappa", "source", "lr", "model", "residual", "lens_light")
_NUMBERS = ("chi2", "theta_E", "subhalos", "false_subhalos")


def array_results(path: Path) -> list[Callable[[], LensResult]]:
    """Return what reads each lens of an .npz or HDF5 result.

    Raises:
        LensphysError: if it is another file, or damaged.
    """
    stack = _of_npz(path) if path.suffix.lower() == ".npz" else _of_hdf5(path)
    return [partial(stack.lens, i) for i in range(stack.count)]


class _Stack:
    """The arrays of a result, each of N rows, and its provenance."""

    def __init__(self, path: Path, arrays: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
        self.path, self.arrays, self.origin = path, arrays, origin
        self.count = len(arrays["image"])
        self.pixel_scale, self.scale = self._scales()

    def _scales(self) -> tuple[float, int]:
        """Of the fine pixels [arcsec], and how many of them make a large one."""
        try:
            scale = int(self.origin["scale"])
            return float(self.origin["pixel_scale_lr"]) / scale, scale
        except (KeyError, TypeError, ValueError):
            raise LensphysError(
                f"{self.path} does not say its pixel scale (it is of lensphys 0.1): super-resolve again"
            ) from None

    def lens(self, i: int) -> LensResult:
        with damage(str(self.path)):
            planes = {name: self._plane(name, i) for name in _PLANES if name in self.arrays}
            drawn, remarks = usable(surface_brightness(planes, self.pixel_scale, self.scale), self._name(i))
            return LensResult(
                self._name(i),
                drawn,
                self.pixel_scale,
                self.scale,
                source_scale=float(self.arrays["source_scale"][()]) if "source_scale" in self.arrays else 0.0,
                numbers={name: float(self.arrays[name][i]) for name in _NUMBERS if name in self.arrays},
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
        return f"{self.path.stem} {index}" if self.count > 1 else self.path.stem

    def _plane(self, name: str, i: int) -> Array:
        plane = np.asarray(self.arrays[name][i], dtype=np.float64)
        return plane[0] if plane.ndim == 3 and name != "alpha" else plane

    def _text(self, name: str, i: int) -> str:
        return _plain(self.arrays[name][i]) if name in self.arrays else ""

    def _parameters(self, i: int) -> tuple[Quantity, ...]:
        if "parameters" not in self.arrays:
            return ()
        names, units = (map(_plain, self.arrays[key]) for key in ("parameter_names", "parameter_units"))
        rows = zip(names, self.arrays["parameters"][i], self.arrays["errors"][i], units, strict=True)
        return tuple(Quantity(name, float(value), float(error), unit) for name, value, error, unit in rows)

    def _subhalos(self, i: int) -> tuple[dict[str, float], ...]:
        if "bodies" not in self.arrays or "body_columns" not in self.arrays:
            return ()
        names = [_plain(name) for name in self.arrays["body_columns"]]
        rows = [dict(zip(names, map(float, row), strict=True)) for row in self.arrays["bodies"][i]]
        if "body_masses" in self.arrays:
            rows = [row | {"mass": float(m)} for row, m in zip(rows, self.arrays["body_masses"][i], strict=True)]
        return tuple(row for row in rows if np.isfinite(row["x"]))


def _plain(text: Any) -> str:
    return text.decode() if isinstance(text, bytes) else str(text)


class _Loaded(dict[str, Any]):
    """The arrays of an .npz archive, each read when it is first wanted."""

    def __init__(self, archive: Any) -> None:
        super().__init__(dict.fromkeys(archive.files))
        self.archive = archive

    def __getitem__(self, name: str) -> Any:
        if super().__getitem__(name) is None:
            self[name] = self.archive[name]
        return super().__getitem__(name)


def _of_npz(path: Path) -> _Stack:
    try:
        arrays = _Loaded(np.load(path, allow_pickle=False))
        if "image" not in arrays or "provenance" not in arrays:
            raise LensphysError(f"{path} is no result of 'lensphys super-resolve': it lacks image and provenance")
        origin = json.loads(str(arrays["provenance"]))
        return _Stack(path, arrays, origin | ({"psf": str(arrays["psf"])} if "psf" in arrays else {}))
    except LensphysError:
        raise
    except Exception as error:  # a damaged archive fails in any way
        raise LensphysError(f"{path} is not a whole .npz file ({shortened(str(error))}): super-resolve again") from None


def _of_hdf5(path: Path) -> _Stack:
    file = opened(path)
    with damage(str(path)):
        if file.attrs.get("kind") != RESULT or "image" not in file:
            raise LensphysError(
                f"{path} holds lenses, not results: run 'lensphys super-resolve {path.name} -o RESULT.h5', and show "
                "that"
            )
        return _Stack(path, file, {name: _entry(value) for name, value in file.attrs.items()})


def _entry(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value
