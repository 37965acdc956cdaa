"""The numbers of a result: what each is, and what files call it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Number:
    """One of them, of an image or of a lens seen in several.

    Args:
        name: in Python, .npz and HDF5.
        card: its keyword in a FITS header.
        comment: what it is, in a FITS header, where there is room for little.
        whole: whether it counts something.
        own: whether each band of a lens has its own, beside that of all together.
    """

    name: str
    card: str
    comment: str
    whole: bool = False
    own: bool = False

    def of(self, value: Any) -> int | float:
        """Return a value of it as Python has it."""
        return int(value) if self.whole else float(value)


NUMBERS = {
    number.name: number
    for number in (
        Number("theta_E", "THETA_E", "[arcsec] Einstein radius"),
        Number("chi2", "CHI2", "chi^2 of the LR image per degree of freedom", own=True),
        Number("evidence", "EVIDENCE", "ln Z: of the model, with all that was fitted"),
        Number("noise_scale", "NOISESCL", "noise of the sky / the error map, in the fit"),
        Number("left_out", "LEFTOUT", "pixels of other objects, bad ones: not fitted"),
        Number("best_gain", "SUBGAIN", "ln(L1/L0): one sub-halo at its best / none"),
        Number("substructure_evidence", "SUBEVID", "ln(Z/Z0): this result / the best without any"),
        Number("subhalos", "SUBHALOS", "sub-halos found", whole=True),
        Number("false_subhalos", "SUBFALSE", "sub-halos that a smooth lens would show"),
        Number("correlation", "CORREL", "of the sources of two bands, by the prior"),
        Number("z_lens", "Z_LENS", "redshift of the lens that was given, for masses"),
        Number("z_source", "Z_SOURCE", "redshift of the source that was given"),
    )
}
"""By their names, in the order of a file."""

OF_FITS = tuple(n for n in NUMBERS if n not in ("theta_E", "chi2", "correlation", "z_lens", "z_source"))
"""What `lensphys.prediction.Prediction` has by their names of each fit, beside its parameters and chi^2."""


def numbers_of(planes: Mapping[str, Any], place: int = 0) -> dict[str, int | float]:
    """Return the numbers of one image of a result, by their names, those that it has.

    Args:
        planes: arrays by their names, of numbers (N,) or NaN where one was not found.
        place: of the image.
    """
    return {name: number.of(planes[name][place]) for name, number in NUMBERS.items() if name in planes}
