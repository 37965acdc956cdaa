"""What a file of a user's own images holds, what would be used of it, and what is odd about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from lensphys.basics.checks import LensphysError, check_file
from lensphys.basics.sentences import counted
from lensphys.data.contents import READ, contents_of, kind_of, other_kind
from lensphys.data.images import NO_PSF, ImageSet, Reading, read_images
from lensphys.data.written import open_arrays
from lensphys.evaluation.doctor import KINDS, SEVERITIES, Finding, Severity
from lensphys.evaluation.symptoms import SymptomSettings, pixel_symptoms, without_noise
from lensphys.fits.file import Hdu, opened
from lensphys.fits.header import scale_key
from lensphys.fits.image import PIXELS
from lensphys.fits.planes import PLANES
from lensphys.fits.units import unit_of, unit_text
from lensphys.observation.borders import filled_border
from lensphys.observation.darkness import shows_light

_FIRST = 5  # images that a finding names
_REMEDIES = {"noise_free": "is it a model, or was its noise taken away? The recorded image is what is fitted"}
_SEE = "see it with 'lensphys show {}', or lensphys.read_result in Python"
_PRETENDED = 1.0  # arcsec: pixel scale of a file that says none, to look at all else


def is_of_images(path: Path) -> bool:
    """Return whether a file is one of a user's own images by its name: FITS, .npz or .npy, and not a data set.

    Those that we know and do not read (ASDF, pictures) are, too: reading them says so.
    """
    ours = any(path.name.lower().endswith(endings) for kind, endings in READ.items() if kind != "HDF5")
    return ours or other_kind(path) is not None


def diagnose_images(path: Path, settings: SymptomSettings = SymptomSettings()) -> list[Finding]:
    """Return what a file of images holds, what would be used of it and what is odd about them, errors first.

    Args:
        path: FITS, .npz or .npy.
        settings: what counts as odd.

    Raises:
        LensphysError: if there is no such file.
    """
    check_file("input", path)
    if result := _of_result(path):
        return result
    found = list(_held(path))
    try:
        contents = contents_of(path, None, PIXELS, None)
        scale = None if contents.scale is not None else _PRETENDED
        images = read_images(path, Reading(pixel_scale=scale))
    except LensphysError as error:
        found.append(Finding("cannot_be_used", "error", str(error)))
        return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))
    found += _scale(path, images, contents.scale)
    found += _used(images, known=scale is None)
    found += _odd(images, settings)
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def _of_result(path: Path) -> list[Finding]:
    """The images and tables of a FITS or .npz result of lensphys, and what each is; nothing of any other file."""
    kind = kind_of(path, READ)
    found = _of_npz(path) if kind == ".npz" else _of_fits(path) if kind == "FITS" else []
    if not found:
        return []
    return [*found, Finding("result", "note", "the file is a result of lensphys", remedy=_SEE.format(path.name))]


def _of_npz(path: Path) -> list[Finding]:
    try:
        arrays, _ = open_arrays(path)
        held = {name: arrays[name].shape for name in arrays if name in PLANES}
    except LensphysError:
        return []
    return [Finding("holds", "note", f"{name} {shape}: {PLANES[name].words}") for name, shape in held.items()]


def _of_fits(path: Path) -> list[Finding]:
    words = {"PRIMARY": PLANES["image"].words} | {plane.extension: plane.words for plane in PLANES.values()}
    found = []
    try:
        with opened("input", path) as file:
            if "LENSPHYS" not in file.primary:
                return []
            for hdu in file.hdus:
                what = f": {words[hdu.name]}" if hdu.name in words else ""
                found.append(Finding("holds", "note", f"{hdu.label}, {_shape(hdu)}{what}"))
    except LensphysError:
        return []  # what is wrong is told by those who read the image
    return found


def _shape(hdu: Hdu) -> str:
    return " x ".join(map(str, hdu.shape)) if hdu.shape else "a table"


def _held(path: Path) -> Iterator[Finding]:
    """The arrays and tables of a FITS file or an .npz, and what each is by its name."""
    if kind_of(path, READ) == ".npy":
        return
    try:
        with opened("input", path) as file:
            for hdu in file.hdus:
                yield Finding("holds", "note", f"{hdu.label}, {_shape(hdu)}: {hdu.meaning.role or 'of no known name'}")
    except LensphysError:
        return  # what is wrong is told by those who read the image


def _scale(path: Path, images: ImageSet, own: float | None) -> Iterator[Finding]:
    if own is None:
        remedy = "give --pixel-scale or --instrument to 'lensphys super-resolve'"
        yield Finding("pixel_scale", "warning", f"{path.name} says no pixel scale", remedy=remedy)
    else:
        where = "" if images.header is None else f", by {scale_key(images.header)}"
        yield Finding("pixel_scale", "note", f'pixels of {own:.4g}"{where}')


def _used(images: ImageSet, *, known: bool) -> Iterator[Finding]:
    """What is used of the file, and what is assumed; in pixels where their scale is not known."""
    seen = images.observation
    height, width = seen.camera.grid.shape
    left = seen.image.numel() - int(seen.n_unmasked.sum())
    yield Finding("image", "note", f"{counted(len(seen), 'image')} of {height} x {width} pixels, {left} of them masked")
    if images.header is not None:
        unit = unit_text(images.header)
        yield Finding("unit", "note", f"in {unit}" if unit else "no unit is said (BUNIT)")
    for remark in images.remarks:
        severity: Severity = "warning" if remark == NO_PSF else "note"
        remark = remark.replace("(give --", "(give super-resolve --").replace(": give --", ": give super-resolve --")
        yield Finding("read", severity, remark if known else _in_pixels(remark))


def _in_pixels(remark: str) -> str:
    """A remark on what has the pretended scale: in its pixels, without their size."""
    plain = remark.replace(f' of {_PRETENDED:.4g}"', "")
    return remark if plain == remark else re.sub(r'(?<=\d)"', " pixels", plain)


def _odd(images: ImageSet, settings: SymptomSettings) -> Iterator[Finding]:
    """The symptoms that can be judged without a truth."""
    seen = images.observation
    unit = None if images.header is None else unit_of(images.header)
    rate = unit is not None and any(base.is_equivalent("s") and power < 0
                                    for base, power in zip(unit.bases, unit.powers, strict=True))  # fmt: skip
    found = pixel_symptoms(seen.image.double(), settings, counts=not rate, cut_at_zero=False)
    light = shows_light(seen)
    quiet, share = without_noise(seen.image.double(), seen.noise if seen.noise.known else None, settings)
    found["dark"] = torch.where(light, torch.nan, 0.0).numpy()
    found["noise_free"] = torch.where(quiet & light, share, torch.nan).numpy()
    border = filled_border(seen.image) & (seen.weight > 0)  # as it is read it is masked, which a remark says
    found["border"] = np.where(border.flatten(1).any(1).numpy(), found["border"], np.nan)
    for name, kind in KINDS.items():
        which = np.flatnonzero(~np.isnan(found.get(name, np.full(len(seen), np.nan))))
        if len(which):
            message = kind.message.format(value=float(np.median(found[name][which])))
            first = tuple(images.index[which[:_FIRST]].tolist()) if len(seen) > 1 else ()
            remedy = _REMEDIES.get(name, kind.remedy)
            yield Finding(name, kind.severity, message, len(which) if first else 0, first, remedy)
