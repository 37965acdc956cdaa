"""Which pixels of a mask count: archives mark the bad ones with bits, modellers the bad or the good ones with 1."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from pydantic import PositiveFloat

from lensphys.basics.checks import LensphysError
from lensphys.basics.remarks import Tally, literal
from lensphys.basics.scatter import scatter
from lensphys.basics.settings import Strict
from lensphys.fits.file import Hdu
from lensphys.fits.names import BAD_BITS, BAD_PLANES, FLAGS, GOOD, MASK, MASKS

Array = NDArray[Any]

_LARGEST_BITS = 2.0**53  # above it a float skips whole numbers


class MaskReading(Strict):
    """How the sense of a mask is told that does not say it.

    Args:
        fewest: share of the lens under the ones of a mask, up to which they are bad; ...
        most: ... and from which on they are good: between both, either sense cuts the lens in two.
        off_middle: share of an image's light, below which the middle has none of the lens, and all light tells.
        bright: sigma over the sky, from which on a pixel shows light.
    """

    fewest: PositiveFloat = 0.3
    most: PositiveFloat = 0.7
    off_middle: PositiveFloat = 0.1
    bright: PositiveFloat = 5.0


@dataclass(frozen=True)
class Mask:
    """A mask as a file has it, its sense not told yet.

    Args:
        values: (H, W), or (N, H, W) for the images of a stack; bits, or zero and another value.
        name: what it is called in notes.
        where: what it is called in errors.
        role: what its name says: flags, mask or good pixels.
        planes: names and bits of its planes.
        telescope: whose bits they are.
        reading: how its sense is told.
        remarks: on the choice among the masks of a file of its own.
    """

    values: Array
    name: str
    where: str
    role: str = MASK
    planes: Mapping[str, int] = field(default_factory=dict)
    telescope: str = ""
    reading: MaskReading = MaskReading()
    remarks: tuple[str, ...] = ()

    @classmethod
    def from_hdu(cls, hdu: Hdu, telescope: str = "", values: Array | None = None) -> Mask:
        """Return that of an extension, or some (H, W) of it; TELESCOP of its header goes before ``telescope``."""
        telescope = str(hdu.header.get("TELESCOP") or telescope)
        role = str(hdu.meaning.role) if hdu.meaning.role in MASKS else MASK
        return cls(hdu.array() if values is None else values, hdu.name, hdu.where, role, _planes(hdu.header), telescope)

    def light(self, image: Array) -> Array:
        """Return where pixels stand out of the sky of their image, (H, W) or (N, H, W) bool, as the image."""
        known = np.where(np.isfinite(image), image, np.nan)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an image without a number has no sky, and no light
            sky = np.nanmedian(known, (-2, -1), keepdims=True)
            noise = scatter(known - sky, (-2, -1))
        return known > sky + self.reading.bright * noise


def sense(mask: Mask, image: Array) -> str | None:
    """Return in which sense the lens counts, good or bad, of a mask that does not say itself; None of one that does.

    Args and errors as for `good_pixels`.
    """
    values = _numbers(mask)
    return None if _says_sense(mask, values) else _by_lens(mask, values, image)[0]


def masks_lens(mask: Mask, image: Array) -> bool:
    """Return whether a mask that is said to be one where pixels count leaves the lens out, for sure.

    Args as for `good_pixels`.
    """
    try:
        return _by_lens(mask, _numbers(mask), image)[0] == "bad"
    except LensphysError:  # either sense is one that a user may mean
        return False


def good_pixels(mask: Mask, image: Array, means: str | None = None) -> tuple[Array, str]:
    """Return where pixels count, and the sentence that says in which sense the mask was read.

    The surest comes first: what the user says, planes with names in the header, the name of the extension. A plain
    MASK of zeros and ones does not say: its sense is the one in which the lens counts, or a ring about the middle where
    that tells no more. Where it is NaN no pixel counts.

    Args:
        mask: what the file has; an (H, W) one holds for each image.
        image: (H, W) or (N, H, W).
        means: what nonzero pixels are, good or bad, if the user says so.

    Returns:
        (H, W) or (N, H, W) bool, as the mask, and the sentence.

    Raises:
        LensphysError: if the sense cannot be told.
    """
    values = _numbers(mask)
    if means is None and _has_planes(mask, values):
        return _by_planes(mask, values)
    if means is None and mask.role == FLAGS:
        return _by_flags(mask, values)
    ones = values != 0
    why = "those where it is {}"
    if means is None:
        means, why = ("good", why) if mask.role == GOOD else _by_lens(mask, values, image)
    good = ones if means == "good" else ~ones
    return _told(mask, good, why.format("not zero" if means == "good" else "zero"))


def good_in_all(masks: Sequence[Mask], image: Array, means: str | None = None) -> tuple[Array | None, list[str]]:
    """Return where pixels count in every one of some masks, each read by itself, and a sentence on each.

    Args:
        masks: what the file has; of none all pixels count, which is None.
        image: (H, W) or (N, H, W).
        means: what nonzero pixels are, good or bad, of the masks that do not say it themselves; of all if each does.

    Raises:
        LensphysError: if the sense of one cannot be told.
    """
    sure = [_says_sense(mask, _numbers(mask)) for mask in masks]
    found = [
        good_pixels(mask, image, None if says and not all(sure) else means)
        for mask, says in zip(masks, sure, strict=True)
    ]
    good = None
    for counts, _ in found:
        good = counts if good is None else good & counts
    return good, [said for _, said in found]


def without_objects(mask: Mask, image: Array, good: Array | None) -> tuple[Array | None, list[str]]:
    """Return where pixels count, less those of other objects, and what is to be said of it.

    A mask that marks the lens too is one of all that was detected, and not used; each image is judged by itself.

    Args:
        mask: not zero where objects are.
        image: (H, W) or (N, H, W).
        good: where pixels count without it, bool, of all images or of each; None for everywhere.
    """
    marked = (mask.values != 0) & np.ones(image.shape, bool)  # NaN is marked
    light = mask.light(image) & _middle(image.shape[-2:])
    share = (marked & light).sum((-2, -1)) / np.maximum(light.sum((-2, -1)), 1)
    unused = share > mask.reading.fewest
    how = f"it marks {100 * share:.0f} % of" if share.ndim == 0 else "in {} of the images it marks"
    said = [Tally(f"{literal(mask.name)} is not used: {how} the lens's own light, in the middle", int(unused.sum()))]
    if unused.all():
        return good, [*said]
    marked &= ~unused[..., None, None]
    masked = Tally(f"{literal(mask.name)}: {{}} pixels of objects are masked", int(marked.sum()))
    return ~marked if good is None else good & ~marked, [masked, *(said if unused.any() else [])]


def _numbers(mask: Mask) -> Array:
    """The values, NaN as zero (it counts in no sense); bits that were saved as floats become bits again."""
    if mask.values.dtype.kind != "f":
        return mask.values
    values = np.nan_to_num(mask.values)
    whole = (values == np.round(values)).all() and np.abs(values).max(initial=0) < _LARGEST_BITS
    return values.astype(np.int64) if whole else values


def _has_planes(mask: Mask, values: Array) -> bool:
    return bool(mask.planes) and values.dtype.kind in "iu"


def _says_sense(mask: Mask, values: Array) -> bool:
    return mask.role != MASK or _has_planes(mask, values)


def _told(mask: Mask, good: Array, why: str) -> tuple[Array, str]:
    """Where pixels count, less those where the mask is NaN, and the sentence."""
    unknown = np.isnan(mask.values) if mask.values.dtype.kind == "f" else np.zeros_like(good)
    good, why = good & ~unknown, f"{why}, and none where it is NaN" if unknown.any() else why
    return good, Tally(f"{literal(mask.name)}: {{}} of {{}} pixels count, {why}", int(good.sum()), good.size)


def _planes(header: fits.Header) -> dict[str, int]:
    """Names and bits of the planes of a mask: MP_SAT = 1."""
    found = {key[3:]: header[key] for key in header if key.startswith("MP_")}
    return {name: bit for name, bit in found.items() if isinstance(bit, int) and 0 <= bit < 63}


def _by_planes(mask: Mask, values: Array) -> tuple[Array, str]:
    bad = [name for name in BAD_PLANES if name in mask.planes]
    good = values.astype(np.int64) & sum(1 << mask.planes[name] for name in bad) == 0
    return _told(mask, good, f"those without {', '.join(bad) or 'a bad plane'}")


def _by_flags(mask: Mask, values: Array) -> tuple[Array, str]:
    telescope = mask.telescope.strip().upper()
    bits = BAD_BITS.get(telescope)
    if bits is None or values.dtype.kind not in "iu":
        good, what = values == 0, "a flag"
    else:
        good = values.astype(np.int64) & bits == 0
        what = "DO_NOT_USE" if bits == 1 else f"a bad flag of {telescope}"
    if not good.any():  # nothing is said of any pixel, if the same is said of all
        return ~good, f"{mask.name} is not used: every pixel has {what} (give --mask-means good if 1 is good in it)"
    return _told(mask, good, f"those without {what}")


def _by_lens(mask: Mask, values: Array, image: Array) -> tuple[str, str]:
    marks = np.unique(values[values != 0])
    if len(marks) > 1:
        held = f"({', '.join(f'{mark:g}' for mark in marks[:4])}{', ...' if len(marks) > 4 else ''})"
        if (marks != np.round(marks)).any():
            raise LensphysError(
                f"{mask.where} holds other numbers than those of a mask {held}: save zeros and ones, or give "
                "--mask-means if all that is not zero is good, or bad"
            )
        raise LensphysError(
            f"{mask.where} is a bit mask {held} without names of its bits (MP_...): give --mask-means bad if each of "
            "them is a fault, else good"
        )
    ones, light = (values != 0) & np.ones(image.shape, bool), mask.light(image)
    middle = np.broadcast_to(_middle(image.shape[-2:]), image.shape)
    share = float(ones[middle].mean())
    if share >= mask.reading.most and _keeps_lens(mask, ones, light, middle):
        return "good", f"those where it is {{}} ({100 * share:.0f} % of the middle, where the lens is)"
    lit = float(ones[middle & light].mean()) if (middle & light).any() else 0.0
    share = max(share, lit)
    if share <= mask.reading.fewest and _keeps_lens(mask, ~ones, light, middle):
        return "bad", f"those where it is {{}} ({100 * (1 - share):.0f} % of the middle, where the lens is)"
    for means, kept, seen in (("good", values != 0, lit), ("bad", values == 0, 1 - lit)):
        if seen > mask.reading.fewest and all(map(_is_ring, kept.reshape(-1, *kept.shape[-2:]))):
            return means, f"those where it is {{}} (a ring about the middle, with {100 * seen:.0f} % of its light)"
    of = "lens" if mask.reading.fewest < share < mask.reading.most else "middle, and the light lies elsewhere"
    raise LensphysError(
        f"{mask.where} is not zero on {100 * share:.0f} % of the {of}: give --mask-means good or --mask-means bad"
    )


def _keeps_lens(mask: Mask, kept: Array, light: Array, middle: Array) -> bool:
    """Whether the pixels that a sense keeps have light of the middle, or of all where the middle has hardly any."""
    lens = middle & light
    lens = lens if lens.sum() >= mask.reading.off_middle * light.sum() else light
    return not lens.any() or float(kept[lens].mean()) > mask.reading.fewest


def _is_ring(kept: Array) -> bool:
    """Whether pixels (H, W) lie about the middle of the image, and neither in it nor along all borders."""
    from scipy.ndimage import label

    parts, _ = label(~kept)
    height, width = kept.shape
    core = parts[(height - 1) // 2 : height // 2 + 1, (width - 1) // 2 : width // 2 + 1]
    edges = [edge[edge > 0] for edge in (parts[0], parts[-1], parts[:, 0], parts[:, -1])]
    around = set(np.concatenate(edges).tolist())
    return bool((core > 0).all() and all(map(len, edges)) and not around & set(core.ravel().tolist()))


def _middle(shape: tuple[int, ...]) -> Array:
    """The middle of an image, half as wide and as high, where the lens is; (H, W) bool."""
    height, width = shape
    middle = np.zeros(shape, bool)
    middle[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    return middle
