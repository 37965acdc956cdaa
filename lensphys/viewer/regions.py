"""DS9 region files of what a lens shows: critical curves, caustics and sub-halos."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from regions import LinePixelRegion, PixCoord, PointPixelRegion, PolygonPixelRegion, RegionMeta, Regions, RegionVisual

from lensphys.basics.checks import LensphysError
from lensphys.basics.outputs import whole_file
from lensphys.tracing.critical import Curve, critical_curves
from lensphys.viewer.result import LensResult
from lensphys.viewer.sky import celestial

Array = NDArray[Any]
_COLOURS = {"tangential": "cyan", "radial": "orange"}
_PRECISION = 9  # digits after the point: microarcseconds


def write_regions(path: Path, result: LensResult) -> int:
    """Write the curves and sub-halos of a lens as a DS9 region file; return how many regions.

    Positions are right ascensions and declinations where the result has a WCS, else pixels of the super-resolved image.
    Caustics lie in the source plane: they are written at its angles on the same sky, and are dashed.

    Args:
        path: the file.
        result: the lens.

    Raises:
        LensphysError: if the lens has neither curves nor sub-halos, or the file cannot be written.
    """
    alpha = result.planes.get("alpha")
    curves = [] if alpha is None else critical_curves(alpha, result.pixel_scale)
    pixels = [*_of_curves(result, curves), *_of_bodies(result)]
    if not pixels:
        raise LensphysError(
            f"{result.name} has neither critical curves nor sub-halos: there is nothing to write into {path}"
        )
    wcs = None if result.header is None else celestial(result.header)
    placed = pixels if wcs is None else [region.to_sky(wcs) for region in pixels]
    with whole_file(path) as temporary:
        temporary.write_text(Regions(placed).serialize(format="ds9", precision=_PRECISION), encoding="utf-8")
    return len(pixels)


def _of_curves(result: LensResult, curves: Sequence[Curve]) -> list[Any]:
    return [
        region
        for curve in curves
        for name, points, dashed in (("critical curve", curve.critical, False), ("caustic", curve.caustic, True))
        for region in _line(_pixels(result, points), curve, f"{curve.kind} {name}", dashed)
    ]


def _line(at: Array, curve: Curve, text: str, dashed: bool) -> list[Any]:
    """A polygon, or lines one after the other where the image cuts the curve: DS9 has no other open shape."""
    visual = RegionVisual({"color": _COLOURS[curve.kind], **({"linestyle": "--"} if dashed else {})})
    if curve.closed:
        named = RegionMeta({"text": text})
        return [PolygonPixelRegion(PixCoord(*at[:-1].T), meta=named, visual=visual)]
    return [LinePixelRegion(PixCoord(*start), PixCoord(*end), visual=visual) for start, end in pairwise(at)]


def _of_bodies(result: LensResult) -> list[Any]:
    return [
        PointPixelRegion(
            PixCoord(*_pixels(result, np.array([[body["x"], body["y"]]]))[0]),
            meta=RegionMeta({"text": _named(body)}),
            visual=RegionVisual({"color": "green", "marker": "o"}),
        )
        for body in result.subhalos
    ]


def _named(body: Any) -> str:
    mass = f"{body['mass']:.2e} Msun, " if "mass" in body else ""
    return f"{mass}theta_E {body['theta_E']:.4f} arcsec, gain {body['gain']:.1f}"


def _pixels(result: LensResult, points: Array) -> Array:
    """Pixels from 0 of points [arcsec] about the middle of the super-resolved image, (M, 2) as x, y."""
    height, width = result.planes["image"].shape
    return points / result.pixel_scale + (np.array([width, height]) - 1) / 2
