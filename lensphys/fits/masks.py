"""Which pixels of a mask count: archives mark the bad ones with bits, modellers the bad or the good ones with 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from lensphys.checks import LensphysError
from lensphys.fits.file import Hdu
from lensphys.fits.names import BAD_BITS, BAD_PLANES, FLAGS, GOOD

Array = NDArray[Any]

_CLEAR = (0.3, 0.7)  # shares of the lens under the ones of a mask: between them either sense cuts it in two
_BRIGHT = 5.0  # sigma over the sky


def counted(hdu: Hdu, image: Array, means: str | None = None, telescope: str = "") -> tuple[Array, str]:
    """Return where pixels count, and the sentence that says in which sense the mask was read.

    The surest comes first: what the user says, planes with names in the header, the name of the extension. A plain
    MASK of zeros and ones does not say: its sense is the one in which the lens counts.

    Args:
        hdu: the mask, (H, W).
        image: (H, W).
        means: what nonzero pixels are, good or bad, if the user says so.
        telescope: whose bits they are.

    Returns:
        (H, W) bool, and the sentence.

    Raises:
        LensphysError: if the sense cannot be told.
    """
    values = hdu.array()
    if values.dtype.kind == "f":
        values = np.nan_to_num(values)
    planes = _planes(hdu.header)
    if means is None and planes and values.dtype.kind in "iu":
        return _by_planes(hdu, values, planes)
    if means is None and hdu.meaning.role == FLAGS:
        return _by_flags(hdu, values, telescope.strip().upper())
    ones = values != 0
    why = "those where it is {}"
    if means is None:
        means, why = ("good", why) if hdu.meaning.role == GOOD else _by_lens(hdu, values, image)
    good = ones if means == "good" else ~ones
    return good, _told(hdu, good, why.format("not zero" if means == "good" else "zero"))


def _told(hdu: Hdu, good: Array, why: str) -> str:
    return f"{hdu.name}: {good.sum()} of {good.size} pixels count, {why}"


def _planes(header: fits.Header) -> dict[str, int]:
    """Names and bits of the planes of a mask: MP_SAT = 1."""
    found = {key[3:]: header[key] for key in header if key.startswith("MP_")}
    return {name: bit for name, bit in found.items() if isinstance(bit, int) and 0 <= bit < 63}


def _by_planes(hdu: Hdu, values: Array, planes: dict[str, int]) -> tuple[Array, str]:
    bad = [name for name in BAD_PLANES if name in planes]
    good = values.astype(np.int64) & sum(1 << planes[name] for name in bad) == 0
    return good, _told(hdu, good, f"those without {', '.join(bad) or 'a bad plane'}")


def _by_flags(hdu: Hdu, values: Array, telescope: str) -> tuple[Array, str]:
    bits = BAD_BITS.get(telescope)
    if bits is None or values.dtype.kind not in "iu":
        good, what = values == 0, "a flag"
    else:
        good = values.astype(np.int64) & bits == 0
        what = "DO_NOT_USE" if bits == 1 else f"a bad flag of {telescope}"
    if not good.any():  # nothing is said of any pixel, if the same is said of all
        return ~good, f"{hdu.name} is not used: every pixel has {what} (give --mask-means good if 1 is good in it)"
    return good, _told(hdu, good, f"those without {what}")


def _by_lens(hdu: Hdu, values: Array, image: Array) -> tuple[str, str]:
    marks = np.unique(values[values != 0])
    if len(marks) > 1 and values.dtype.kind in "iu":
        raise LensphysError(
            f"{hdu.where} is a bit mask ({', '.join(map(str, marks[:4]))}{', ...' if len(marks) > 4 else ''}) without "
            "names of its bits (MP_...): give --mask-means bad if each of them is a fault, else good"
        )
    middle, light = _middle(image.shape), _light(image)
    low, high = _CLEAR
    share = float((values != 0)[middle].mean())
    if share >= high:
        return "good", f"those where it is {{}} ({100 * share:.0f} % of the middle, where the lens is)"
    share = max(share, float((values != 0)[middle & light].mean()) if (middle & light).any() else 0.0)
    if share <= low:
        return "bad", f"those where it is {{}} ({100 * (1 - share):.0f} % of the middle, where the lens is)"
    raise LensphysError(
        f"{hdu.where} is not zero on {100 * share:.0f} % of the lens: give --mask-means good or --mask-means bad"
    )


def _middle(shape: tuple[int, ...]) -> Array:
    """The middle of an image, half as wide and as high, where the lens is; (H, W) bool."""
    height, width = shape
    middle = np.zeros(shape, bool)
    middle[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    return middle


def _light(image: Array) -> Array:
    """Where pixels stand out of the sky, (H, W) bool."""
    finite = np.isfinite(image)
    if not finite.any():
        return finite
    sky = np.median(image[finite])
    scatter = 1.4826 * np.median(np.abs(image[finite] - sky))
    return finite & (np.where(finite, image, sky) > sky + _BRIGHT * scatter)
