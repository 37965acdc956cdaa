"""The image of a FITS file, and what else of the file belongs to it: noise, mask and PSF."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.units import UnitBase
from numpy.typing import NDArray

from lensphys.basics.checks import LensphysError
from lensphys.fits.beside import bands_of, maps_beside, of_all_noise
from lensphys.fits.file import FitsFile, Hdu, opened, shown
from lensphys.fits.given import Subject, map_for
from lensphys.fits.header import check_rescalable, header_of, lost_cards
from lensphys.fits.kernel import CubePlane, Kernel, kernel_of, same_plane
from lensphys.fits.masks import Mask, good_in_all, sense, without_objects
from lensphys.fits.names import (
    DEVIATION,
    IMAGE,
    MASK,
    MASKS,
    NAMES,
    NOISE,
    OBJECTS,
    OF_LENS,
    PSF,
    WEIGHT,
    meaning_of_file,
    plain,
)
from lensphys.fits.units import is_magnitude, unit_of
from lensphys.fits.written import super_resolved

Array = NDArray[Any]

_FIRST = NAMES[IMAGE][:2]  # ARC, the lens light subtracted, before SCI, before the others in the order of the file


@dataclass(frozen=True)
class NoiseMap:
    """What a file says of the noise.

    Args:
        values: (H, W) or (N, H, W) float32.
        kind: standard deviation, variance, inverse variance or weight: see `lensphys.fits.names`.
        where: what it is called in messages.
        named: whether the kind is said by a name, not assumed.
        unit: of the values, None if it is not known.
        remarks: on the choice among the maps of a file of its own.
    """

    values: Array
    kind: str = DEVIATION
    where: str = "ERR"
    named: bool = True
    unit: UnitBase | None = None
    remarks: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The file and the extension, without folders."""
        return Path(self.where).name


@dataclass(frozen=True)
class Choice:
    """What of a file the user asks for.

    Args:
        extension: of the image: its name, its name and version (``SCI,2``) or its number, and a plane of a cube in
            brackets (``PRIMARY[2]``).
        band: of the image, where a file has several (``VIS``).
        mask_means: what nonzero pixels of a MASK are, good or bad, where the file does not say.
        given: what the user gives in a file of its own (noise, mask, PSF), and is thus not taken from this one.
    """

    extension: str | None = None
    band: str | None = None
    mask_means: str | None = None
    given: frozenset[str] = frozenset()


PIXELS = Choice(given=frozenset(("noise", "mask", "PSF")))  # of the image, and nothing beside it


@dataclass(frozen=True)
class FitsImage:
    """An image of a FITS file, or some of a stack of them, and what the file has for it.

    Args:
        image: (H, W), or (n, H, W) of a stack, float32; NaN and infinite values as they are in the file.
        total: how many images the stack holds.
        header: of the image, and of the primary one what it alone says.
        band: of the image, "" if it has none.
        noise: of the image, or (H, W) for all of a stack; None if there is none.
        mask: bool, likewise, True where a pixel counts; None if there is none.
        psf: or None.
        used: names of extensions by what they are: image, noise, mask, PSF.
        unused: names of the others that hold arrays.
        remarks: sentences for the user.
        plane: which one of a cube it is.
    """

    image: Array
    total: int
    header: fits.Header
    band: str
    noise: NoiseMap | None
    mask: Array | None
    psf: Kernel | None
    used: Mapping[str, str]
    unused: tuple[str, ...]
    remarks: tuple[str, ...]
    plane: CubePlane | None


def read_fits_image(path: Path, choice: Choice = Choice(), rows: Array | None = None) -> FitsImage:
    """Return the image of a FITS file or some of a stack, and the noise, mask and PSF that the file has for it.

    Names are those of `lensphys.fits.names.NAMES`: ARC (lens light subtracted) comes before SCI, that before others.

    Args:
        path: the file.
        choice: what of it is asked for.
        rows: which images of a stack, (n,), that `fits_images` counted: no others are read. None for an image (H, W).

    Raises:
        LensphysError: if the file is missing, cut short, not FITS, or has no such image.
    """
    with opened("input", path, verified=rows is not None) as file:
        hdu, number, remarks = _chosen(file, choice)
        image = _plane(hdu, number) if rows is None else hdu.planes(rows)
        plane = None if number is None else CubePlane(number, hdu.shape[0])

        def part(other: Hdu) -> Array:
            return same_plane(other.array(), plane) if rows is None else _rows_of(other, rows, hdu)

        header = header_of(hdu, file)
        check_linear(hdu, header)
        if rows is None:
            check_rescalable(str(path), header)
        beside, said = maps_beside(file, hdu, choice.given)
        good, how = _good(beside, image, choice, lambda mask: _mask(mask, part(mask), hdu, file))
        how += map(_of_lens, file.arrays_of(OF_LENS))
        what = "image" if rows is None else "images"
        used, unused = _shares(file, {what: [hdu], **beside})
        used[what] += "" if plane is None else f"[{plane.number}]"
        return FitsImage(
            image,
            1 if rows is None else hdu.shape[0],
            header,
            hdu.meaning.band,
            next((_noise(noise, part(noise)) for noise in beside["noise"]), None),
            good,
            next((kernel_of(psf, file, plane) for psf in beside["PSF"]), None),
            used,
            unused,
            (_sentence(path, used, unused), *remarks, *lost_cards(hdu, file), *said, *how),
            plane,
        )


def fits_images(path: Path, choice: Choice, planes: bool) -> int | None:
    """Return how many images of lenses a FITS cube or an .npz holds, its checksums verified; None for one image.

    Args:
        path: the file.
        choice: what of it is asked for.
        planes: whether each plane of a cube (N, H, W) is one; else those of (N, 1, H, W) alone.

    Raises:
        LensphysError: if the file is faulty.
    """
    with opened("input", path, verified=True) as file:
        hdu, plane, _ = _chosen(file, choice)
        if plane is not None or len(hdu.shape) != 3 or not (planes or hdu.stack):
            return None
        file.verify()
        return hdu.shape[0]


def _rows_of(hdu: Hdu, rows: Array, images: Hdu) -> Array:
    """What a map of all images has for some of them: itself, or their planes."""
    if hdu.meaning.role == WEIGHT:
        raise LensphysError(f"{hdu.where} is a weight of a stack: save it as IVAR, else give --error")
    _check_shape(hdu, images)
    return hdu.planes(rows, kind=None)


def _check_shape(hdu: Hdu, image: Hdu) -> None:
    """Raise unless a map is of an image, or of each plane of a cube."""
    if hdu.shape not in (image.shape, image.shape[-2:]):
        raise LensphysError(f"{hdu.where} {hdu.shape} and {image.where} {image.shape} must have the same shape")


def read_noise_map(name: str, path: Path, image: Subject = Subject()) -> NoiseMap:
    """Return the noise map of a file of its own: what is named so, else its only image, by the file's own name.

    Args:
        name: what the file is called in messages.
        path: the file.
        image: of which it is, where the file has several.

    Raises:
        LensphysError: if the file is faulty, holds nothing but an image, or several maps and nothing tells which one.
    """
    with opened(name, path) as file:
        named = sorted(file.arrays_of(*NOISE), key=_sureness)
        maps = named or file.arrays_of(None)
        if not maps:
            raise LensphysError(f"{name} {path} holds no noise map: it holds {file.contents}")
        hdu, told = map_for(file, maps, image)
        noise = _noise(hdu, hdu.array()) if named else noise_by_file_name(hdu.image(), path)
        return replace(noise, unit=unit_of(hdu.header), remarks=(*told, *image.question(hdu)))


def _sureness(noise: Hdu) -> tuple[bool, int, int]:
    return *of_all_noise(noise), NOISE.index(str(noise.meaning.role))


def noise_by_file_name(values: Array, path: Path) -> NoiseMap:
    """Return (H, W) or (N, H, W) values as the noise map that their file's name says: standard deviations, if none."""
    role = meaning_of_file(path).role
    return NoiseMap(values, str(role), str(path)) if role in NOISE else NoiseMap(values, where=str(path), named=False)


def read_mask(name: str, path: Path, image: Subject) -> Mask:
    """Return the mask of a file of its own: what is named so, else its only array, by the file's own name.

    Args:
        name: what the file is called in messages.
        path: the file.
        image: of which it is, where the file has several.

    Raises:
        LensphysError: if the file is faulty, holds nothing but images or noise, or several masks and nothing tells
            which one.
    """
    with opened(name, path) as file:
        named = [hdu for role in MASKS for hdu in file.arrays_of(role)]
        masks = named or file.arrays_of(OBJECTS, OF_LENS) or file.arrays_of(None)
        if not masks:
            raise LensphysError(f"{name} {path} holds no mask: it holds {file.contents}")
        hdu, told = map_for(file, masks, image)
        mask = Mask.from_hdu(hdu, image.telescope or str(file.primary.get("TELESCOP", "")))
        mask = replace(mask, name=Path(mask.where).name, remarks=(*told, *image.question(hdu)))
        return mask if named else replace(mask, role=mask_role(path))


def mask_role(path: Path) -> str:
    """Return what a file's own name says of the mask in it: flags, good pixels, or just a mask."""
    role = meaning_of_file(path).role
    return str(role) if role in MASKS else MASK


def _shares(file: FitsFile, found: Mapping[str, list[Hdu]]) -> tuple[dict[str, str], tuple[str, ...]]:
    """What is used of a file, in words, and the names of the other arrays."""
    used = {what: " and ".join(hdu.label for hdu in hdus) for what, hdus in found.items() if hdus}
    taken = [hdu.number for hdus in found.values() for hdu in hdus]
    return used, tuple(other.label for other in file.arrays if other.number not in taken)


def _sentence(path: Path, used: dict[str, str], unused: Sequence[str]) -> str:
    rest = "" if not unused else f"; not used: {', '.join(unused[:8])}{', ...' if len(unused) > 8 else ''}"
    return f"{path.name}: {', '.join(f'{what} {name}' for what, name in used.items())}{rest}"


# ---------------------------------------------------------------- which image


def _chosen(file: FitsFile, choice: Choice) -> tuple[Hdu, int | None, list[str]]:
    """The HDU of the image, the plane of a cube, and what to say of the choice."""
    if choice.extension is not None:
        return *_asked_for(file, choice.extension), []
    images = list(super_resolved(file).values()) or file.arrays_of(None, IMAGE)
    if not images:
        raise LensphysError(
            f"{file.path} has no image (H, W): save the cut-out as the primary image or as SCI (it holds "
            f"{file.contents})"
        )
    plane = None
    if choice.band is not None:
        images, plane = _of_band(file, images, choice.band)
    named = [hdu for hdu in images if hdu.meaning.role == IMAGE]
    named.sort(key=lambda hdu: _FIRST.index(hdu.meaning.name) if hdu.meaning.name in _FIRST else len(_FIRST))
    flat = [hdu for hdu in images if len(hdu.shape) == 2]
    hdu = (named or flat or images)[0]
    return hdu, plane, [*_of_a_result(file, hdu), *_others(hdu, images)]


def _of_a_result(file: FitsFile, hdu: Hdu) -> list[str]:
    """What to say where the file is a result of ours: its image was super-resolved before."""
    if "LENSPHYS" not in file.primary:
        return []
    return [f"{file.path.name} is a result of lensphys: {hdu.label} was super-resolved before; LR is what was read"]


def _others(hdu: Hdu, images: Sequence[Hdu]) -> list[str]:
    """What to say where the file has more images of the same name, or of no known one."""
    means = hdu.meaning
    if means.role is None:
        nameless = [other for other in images if other.meaning.role is None and len(other.shape) == len(hdu.shape)]
        many = f"{len(nameless)} arrays of no known name ({_listed(nameless)}): the first is taken, else give --ext"
        return [many] if len(nameless) > 1 else []
    same = [other for other in images if (other.meaning.role, other.meaning.name) == (means.role, means.name)]
    if len(same) < 2:
        return []
    remedy = "--band" if means.band else "--ext"
    return [f"{len(same)} images ({_listed(same)}): the first is taken, choose another one with {remedy}"]


def _listed(hdus: Sequence[Hdu]) -> str:
    """Some arrays by their names, with their shapes where these are not the same."""
    apart = len({hdu.shape for hdu in hdus}) > 1
    return ", ".join(f"{hdu.label} {hdu.shape}" if apart else hdu.label for hdu in hdus[:6])


def _of_band(file: FitsFile, images: list[Hdu], band: str) -> tuple[list[Hdu], int | None]:
    """The images of a band, or the cube that has it and its plane there (BANDS = 'grz': Legacy Surveys)."""
    found = [hdu for hdu in images if plain(band) in map(plain, bands_of(hdu))]
    if found:
        return found, None
    planes: dict[str, tuple[list[Hdu], int]] = {}
    for hdu in reversed(images):
        letters = str(hdu.header.get("BANDS", "")).strip().lower()
        if hdu.shape[:-2] == (len(letters),):
            planes |= {letter: ([hdu], place) for place, letter in enumerate(letters)}
    if band.lower() in planes:
        return planes[band.lower()]
    known = ", ".join(sorted({*planes, *(band for hdu in images for band in bands_of(hdu))})[:12])
    silent = f"no image in it says its band (it holds {file.contents}); leave the band out"
    remedy = f"choose one of {known}" if known else silent
    raise LensphysError(f"{file.path} has no image of the band {shown(band)}: {remedy}")


def _asked_for(file: FitsFile, extension: str) -> tuple[Hdu, int | None]:
    form = re.fullmatch(r"\s*([^,\[\]]+?)\s*(?:,\s*(\d+))?\s*(?:\[(\d+)\])?\s*", extension)
    if form is None:
        raise LensphysError(f"--ext {shown(extension)} is not NAME, NAME,VERSION or a number, with [PLANE] of a cube")
    name, version, plane = form[1].upper(), form[2], form[3]
    found = [
        hdu
        for hdu in file.arrays
        if (hdu.name.upper() == name and version in (None, str(hdu.version))) or str(hdu.number) == name
    ]
    if not found:
        raise LensphysError(f"{file.path} has no image {shown(extension)}: it holds {file.contents}")
    if found[0].meaning.role in (*NOISE, *MASKS, PSF):
        raise LensphysError(
            f"{found[0].where} is no image by its name, but {found[0].meaning.role}: give another --ext"
        )
    return found[0], None if plane is None else int(plane)


def _plane(hdu: Hdu, plane: int | None) -> Array:
    if plane is None:
        if len(hdu.shape) != 2 or 0 in hdu.shape:
            raise LensphysError(f"{hdu.where} has the shape {hdu.shape}, expected one image (H, W): {_remedy(hdu)}")
        return hdu.image()
    if len(hdu.shape) != 3 or plane >= hdu.shape[0]:
        raise LensphysError(f"{hdu.where} has the shape {hdu.shape}, and no plane {plane}")
    return hdu.image()[plane]


def _remedy(hdu: Hdu) -> str:
    """What to do with an array that is no image."""
    if len(hdu.shape) != 3:
        return "save one plane"
    if 4 * hdu.shape[-1] < min(hdu.shape[:2]):
        return f"its planes are last, save one as (H, W) = {hdu.shape[:2]}"
    return f"choose a plane with --ext '{hdu.label}[0]', or give --rows : if each is a lens of its own"


def check_linear(hdu: Hdu, header: fits.Header) -> None:
    """Raise where pixels are logarithms.

    Raises:
        LensphysError: with the remedy.
    """
    if is_magnitude(header):
        raise LensphysError(f"{hdu.where} holds magnitudes or another logarithm ({header['BUNIT']}): save fluxes")
    if "BSOFTEN" in header and "BOFFSET" in header:  # Pan-STARRS stacks
        raise LensphysError(
            f"{hdu.where} holds asinh magnitudes, by BSOFTEN: save the fluxes BOFFSET + 2 BSOFTEN sinh(x ln(10) / "
            "2.5), or remove BSOFTEN if it has them"
        )


def _noise(hdu: Hdu, values: Array) -> NoiseMap:
    with np.errstate(over="ignore"):
        return NoiseMap(values.astype(np.float32), str(hdu.meaning.role), hdu.where, unit=unit_of(hdu.header))


def _good(
    beside: Mapping[str, list[Hdu]], pixels: Array, choice: Choice, mask_of: Callable[[Hdu], Mask]
) -> tuple[Array | None, list[str]]:
    """Where the pixels of an image or of a stack count, and what is to be said of each mask."""
    masks = [mask_of(hdu) for hdu in beside["mask"]]
    if pixels.ndim == 3 and choice.mask_means is None:
        for mask in masks:
            if sense(mask, pixels) is not None:
                raise LensphysError(f"{mask.where} is of a stack and does not say its sense: give --mask-means")
    good, how = good_in_all(masks, pixels, choice.mask_means)
    for hdu in beside["objects"]:
        good, said = without_objects(mask_of(hdu), pixels, good)
        how += said
    return good, how


def _mask(hdu: Hdu, values: Array, image: Hdu, file: FitsFile) -> Mask:
    """The mask in an extension, with those of its values that are of an image."""
    _check_shape(hdu, image)
    return Mask.from_hdu(hdu, str(image.header.get("TELESCOP") or file.primary.get("TELESCOP", "")), values)


def _of_lens(hdu: Hdu) -> str:
    return f"{hdu.label} is not used, by its name it marks the lens, which is modelled: give it as --mask to have it"


def read_fits_cube(name: str, path: Path) -> Array:
    """Return the first array of a FITS file that is an image (H, W) or a stack of them (N, H, W), float32.

    Args:
        name: what the file is called in the message.
        path: the file.

    Raises:
        LensphysError: if the file is missing, cut short, not FITS, or has no such array.
    """
    with opened(name, path) as file:
        for hdu in file.arrays:
            if len(hdu.shape) in (2, 3):
                return hdu.image()
        raise LensphysError(f"{name} {path} has no image (H, W) or stack of images (N, H, W)")
