"""Which noise, masks and PSF of a FITS file belong to one of its images: by names, bands, filters and order."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lensphys.basics.checks import LensphysError
from lensphys.fits.file import FitsFile, Hdu, shown
from lensphys.fits.header import filter_of
from lensphys.fits.kernel import holds_kernel
from lensphys.fits.names import IMAGE, MASKS, NOISE, OBJECTS, PSF, WEIGHT, is_of, part_of_noise, plain

# what the user may give in its place, by which option, and its roles
_BESIDE: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "noise": ("noise", "--error", NOISE),
    "mask": ("mask", "--mask", MASKS),
    "PSF": ("PSF", "--psf", (PSF,)),
    "objects": ("mask", "--mask", (OBJECTS,)),
}


def maps_beside(file: FitsFile, image: Hdu, user: Collection[str]) -> tuple[dict[str, list[Hdu]], list[str]]:
    """Return what a file has for one of its images, and what is to be said of it.

    Args:
        file: that.
        image: the image.
        user: what the user gives, ``noise``, ``mask`` or ``PSF``: nothing is looked for in place of that.

    Returns:
        Noise, mask, PSF and objects: all masks, of the others the surest; and sentences.

    Raises:
        LensphysError: if nothing tells which of several is the image's.
    """
    chips = [hdu for hdu in file.arrays if hdu.name == image.name]
    near = [
        hdu
        for hdu in file.hdus
        if hdu.number != image.number
        and (hdu.version == image.version or len(chips) < 2)
        and (hdu.shape or holds_kernel(hdu))
    ]
    names, found, how = _Names.of(file, image), {}, []
    for what, (given, option, roles) in _BESIDE.items():
        maps = [hdu for hdu in near if hdu.meaning.role in roles and given not in user]
        own = names.of_image([hdu for hdu in maps if names.fit(hdu)], option)
        own.sort(key=lambda hdu: names.order(hdu, roles))
        how += [said for hdu in maps for said in names.told(hdu)]
        if what in ("noise", "PSF"):
            names.check_one(own, option)
            own = own[:1]
        found[what] = own
    return found, how


@dataclass(frozen=True)
class _Names:
    """The names in a file, as they tell what belongs to one of its images.

    Args:
        file: that.
        image: one of its images.
        images: all of them.
        said: words of the names, bands and filters of all of them.
        apart: whether they say bands, of which a word that none of them has may be another one.
    """

    file: FitsFile
    image: Hdu
    images: Sequence[Hdu]
    said: frozenset[str]
    apart: bool

    @classmethod
    def of(cls, file: FitsFile, image: Hdu) -> _Names:
        """Return those of a file, to tell what belongs to one of its images."""
        images = file.arrays_of(None, IMAGE)
        said = {
            word for hdu in images for name in (*bands_of(hdu), hdu.meaning.name) for word in plain(name).split("_")
        }
        letters = {letter for hdu in images for letter in str(hdu.header.get("BANDS", "")).strip().upper()}
        alike = [hdu for hdu in images if hdu.meaning.role == image.meaning.role]
        filters = {plain(filter_of(header)) for header in (file.primary, *(hdu.header for hdu in images))} - {""}
        of_bands = any(is_of(w, IMAGE, apart=True) for hdu in images for w in hdu.meaning.words)
        said |= {word for name in filters for word in name.split("_")} | letters
        return cls(file, image, images, frozenset(said), len(alike) > 1 or of_bands or bool(filters))

    @property
    def filter(self) -> str:
        """Of the image."""
        return filter_of(self.image.header) or filter_of(self.file.primary)

    def _words(self, hdu: Hdu) -> list[str]:
        own = self.image.meaning.name.split("_")
        return [word for word in hdu.meaning.words if word not in own]

    def band(self, hdu: Hdu) -> str:
        """What a map is of by its name."""
        words = self._words(hdu)
        return "_".join(w for w in words if w in self.said or is_of(w, hdu.meaning.role, self.apart))

    def unknown(self, hdu: Hdu) -> list[str]:
        """Words of its name that are not known, and of no image."""
        return [w for w in self._words(hdu) if w not in self.said and is_of(w, hdu.meaning.role, apart=True)]

    def fit(self, hdu: Hdu) -> bool:
        """Whether a map is of the image or of no band; an image of no known name may hold any word: ``o1234.ima``."""
        image = self.image
        name, own = plain(image.name), self.filter
        words = name.split("_") if image.meaning.role is None else []
        of_another = {filter_of(other.header) for other in self.images} - {own, ""}
        named = self.band(hdu) in (image.meaning.band, "", name, plain(own), *words)
        return named and filter_of(hdu.header) not in of_another

    def of_image(self, maps: Sequence[Hdu], option: str) -> list[Hdu]:
        """Return those of the image where several have one name: of its FILTER, else between it and the next image.

        Raises:
            LensphysError: if neither tells.
        """
        images = [hdu.number for hdu in self.images if hdu.meaning.role == self.image.meaning.role]
        if len(images) < 2:
            return list(maps)
        after = min((number for number in images if number > self.image.number), default=len(self.file.raw))
        found = []
        for name in dict.fromkeys(hdu.name for hdu in maps):
            same = [hdu for hdu in maps if hdu.name == name]
            same = [hdu for hdu in same if self.filter and filter_of(hdu.header) == self.filter] or same
            near = [hdu for hdu in same if self.image.number < hdu.number < after]
            if len(same) == 1:
                found += same
            elif near and same[0].number > images[0]:
                found += near
            else:
                raise LensphysError(
                    f"{self.file.path} has {len(same)} arrays {shown(name)}, and neither FILTER nor their order says "
                    f"which is of {self.image.label}, extension {self.image.number}: give {option}, or each its EXTVER"
                )
        return found

    def order(self, hdu: Hdu, roles: Sequence[str]) -> tuple[bool, bool, bool, int, int, int, int]:
        """By what the surest map is the first: the shape, the band, all noise before a part, the role, the plainest."""
        return (
            PSF not in roles and hdu.shape[-2:] != self.image.shape[-2:],
            self.band(hdu) == "" and self.image.meaning.band != "",
            *of_all_noise(hdu),
            len(self.unknown(hdu)),
            roles.index(str(hdu.meaning.role)),
            len(hdu.name),  # ERR before ERR_IMAGE
        )

    def told(self, hdu: Hdu) -> list[str]:
        """What to say of a map that is not used, of a word that no image has."""
        band, image = self.band(hdu), self.image.label
        if self.fit(hdu) or set(band.split("_")) <= self.said | {""}:
            return []
        return [f"{hdu.label} is not used, by its name it is of {shown(band)}: name it otherwise if it is of {image}"]

    def check_one(self, own: Sequence[Hdu], option: str) -> None:
        """Raise where words that are not known tell maps apart, of which one is wanted: PSF_G and PSF_R."""
        first = self.unknown(own[0]) if own else []
        if first and any(self.unknown(hdu) not in ([], first) for hdu in own):
            held = ", ".join(hdu.label for hdu in own[:6])
            raise LensphysError(
                f"{self.file.path} has {held}, and no image that says its band: give {option}, or a FILTER to "
                f"{self.image.label}"
            )


def of_all_noise(hdu: Hdu) -> tuple[bool, int]:
    """Return by what noise maps are sorted: of all noise, of a part; last weights, which do not say what they are."""
    return hdu.meaning.role == WEIGHT, part_of_noise(hdu.name)


def bands_of(hdu: Hdu) -> set[str]:
    """What an image may be asked for by: the band in its name, its filter, its name where that says nothing else."""
    own = hdu.name.upper() if hdu.meaning.role is None and hdu.name.upper() != "PRIMARY" else ""
    return {band for band in (hdu.meaning.band, filter_of(hdu.header), own) if band}
