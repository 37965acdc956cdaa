"""A super-resolved lens as its file tells it, whatever kind of file that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from lensphys.basics.checks import LensphysError, check_positive
from lensphys.fits.planes import PLANES, names

Array = NDArray[Any]

_ABSENT = {
    "alpha": "the method has no lens: there is no kappa, no critical curve and no source",
    "sigma": "the method states no sigma",
    "lr": "the file does not hold the image that was read: it is of lensphys 0.1, super-resolve again to see it",
}


@dataclass(frozen=True)
class Quantity:
    """A parameter: its name ``member.parameter``, value and error (NaN for none), and unit."""

    name: str
    value: float
    error: float
    unit: str


@dataclass(frozen=True)
class LensResult:
    """One super-resolved lens.

    Args:
        name: what the page calls it.
        planes: ``image`` (sH, sW) and what else there is of `PLANES`. All light is a surface brightness: lensing keeps
            it, so that one scale does for all.
        pixel_scale: of the super-resolved image [arcsec].
        scale: s, the factor by which pixels are smaller.
        source_scale: pixel scale of the source [arcsec].
        unit: of the surface brightness.
        numbers: ``chi2``, ``theta_E`` [arcsec], ``subhalos`` and ``false_subhalos``, where the file has them.
        parameters: with their errors.
        subhalos: a row each, by the names of `lensphys.prediction.BODY` and ``mass`` [solar masses].
        quality: ``good``, ``suspect``, ``bad``; empty for methods that do not judge themselves.
        reasons: of the verdict.
        psf: of the super-resolved image, in words.
        header: of the super-resolved image, for its WCS; None for other files than FITS.
        origin: provenance.
        remarks: what is missing, and why.
    """

    name: str
    planes: Mapping[str, Array]
    pixel_scale: float
    scale: int
    source_scale: float = 0.0
    unit: str = "flux / arcsec²"
    numbers: Mapping[str, float] = field(default_factory=dict)
    parameters: tuple[Quantity, ...] = ()
    subhalos: tuple[Mapping[str, float], ...] = ()
    quality: str = ""
    reasons: str = ""
    psf: str = ""
    header: fits.Header | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def value(self, name: str) -> Quantity | None:
        """Return a parameter by its name, None if there is none of a finite value."""
        return next((p for p in self.parameters if p.name == name and np.isfinite(p.value)), None)


def usable(planes: Mapping[str, Array], where: str) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Return the planes that can be drawn, and sentences on the others.

    Raises:
        LensphysError: if the super-resolved image is none, or a plane has another shape than its image.
    """
    image = planes.get("image")
    if image is None or image.ndim != 2 or not np.isfinite(image).any():
        raise LensphysError(f"{where} holds no super-resolved image with a finite pixel: super-resolve again")
    _check_shapes(planes, where)
    missing = [sentence for name, sentence in _ABSENT.items() if name not in planes]
    empty = [name for name, plane in planes.items() if not np.isfinite(plane).any()]
    partly = [name for name, plane in planes.items() if name not in (*empty, "noise") and not np.isfinite(plane).all()]
    remarks = [
        *missing,
        *(f"{PLANES[name].words} holds no finite value: it is not drawn" for name in empty),
        *(
            f"{PLANES[name].words} is NaN or infinite in {int((~np.isfinite(planes[name])).sum())} of "
            f"{planes[name].size} pixels: they are left blank"
            for name in partly
        ),
    ]
    return {name: plane for name, plane in planes.items() if name not in empty}, tuple(remarks)


def _check_shapes(planes: Mapping[str, Array], where: str) -> None:
    fine, large = planes["image"].shape, planes["lr"].shape if "lr" in planes else None
    expected = dict.fromkeys(names("fine"), fine) | {"alpha": (2, *fine)}
    expected |= {} if large is None else dict.fromkeys(names("large"), large)
    for name, plane in planes.items():
        if plane.shape != expected.get(name, plane.shape):
            raise LensphysError(
                f"{where}: {PLANES[name].words} has the shape {plane.shape}, expected {expected[name]}: it is damaged, "
                "super-resolve again"
            )


def surface_brightness(planes: Mapping[str, Array], pixel_scale: float, scale: int) -> dict[str, Array]:
    """Return the planes with flux per pixel divided by the pixel's area [arcsec^2]; the source is so already.

    Args:
        planes: by their names, of the shapes in `LensResult`, light [flux per pixel].
        pixel_scale: of the super-resolved image [arcsec].
        scale: s, the factor by which pixels are smaller.
    """
    check_positive("pixel scale", pixel_scale)
    area = dict.fromkeys(names("fine", light=True), 1.0) | dict.fromkeys(names("large", light=True), float(scale**2))
    return {name: plane / (area[name] * pixel_scale**2) if name in area else plane for name, plane in planes.items()}
