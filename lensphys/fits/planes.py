"""The images that a result is made of: what each is, on which pixels, and what files call it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Plane:
    """One of them.

    Args:
        name: in Python, .npz and HDF5; in FITS in capitals, without underscores.
        words: what it is, in a message.
        comment: the same in a FITS header, where there is room for little.
        pixels: of the super-resolved image, of the image that was read, or of the source plane.
        light: flux per pixel; of the source flux / arcsec^2.
        unit: of what is no light.
    """

    name: str
    words: str
    comment: str = ""
    pixels: Literal["fine", "large", "source"] = "fine"
    light: bool = False
    unit: str = ""

    @property
    def extension(self) -> str:
        """What FITS calls it."""
        return self.name.upper().replace("_", "")


IMAGE = Plane("image", "the super-resolved image", light=True)
LENS_LIGHT = Plane(
    "lens_light", "the light of the lens galaxy", "model of the lens galaxy's light", "large", light=True
)
PLANES = {
    plane.name: plane
    for plane in (
        IMAGE,
        Plane("sigma", "sigma", "standard deviation of the image", light=True),
        Plane("constrained", "the map of what the data determine", "deflection: 1 by the data, 0 by the prior"),
        Plane("alpha", "alpha", "x (along columns), y; not RA and Dec", unit="arcsec"),
        Plane("kappa", "kappa", "convergence"),
        Plane("source", "the source", "source plane, centred on the lens axis", "source", light=True),
        Plane("lr", "the image as it was read", "the image as it was read", "large", light=True),
        Plane("model", "the model", "of the image, by the method", "large", light=True),
        Plane("residual", "the residual", "image - model", "large", light=True),
        Plane("noise", "the noise", "sigma of each pixel, NaN: not fitted", "large", light=True),
        LENS_LIGHT,
    )
}
"""By their names, in the order of a file."""


def names(pixels: str, *, light: bool | None = None) -> tuple[str, ...]:
    """Return the names of those on some pixels, of light alone or of all else where that is asked for."""
    return tuple(p.name for p in PLANES.values() if p.pixels == pixels and light in (None, p.light))
