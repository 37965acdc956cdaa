"""Which map of a file of its own (noise, mask, PSF) belongs to an image: by band, filter and EXTVER, as in one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from astropy.io import fits

from lensphys.basics.checks import LensphysError
from lensphys.fits.file import FitsFile, Hdu, shown
from lensphys.fits.header import filter_of
from lensphys.fits.names import IMAGE, is_of, plain


@dataclass(frozen=True)
class Subject:
    """What is known of an image, by which its maps in other files are told.

    Args:
        band: in its name, "" if none.
        filter: by its header, "" if none.
        version: EXTVER, None if its header has none.
        telescope: whose bits the flags in a mask are that does not say it.
    """

    band: str = ""
    filter: str = ""
    version: int | None = None
    telescope: str = ""

    @classmethod
    def of(cls, band: str, header: fits.Header | None) -> Subject:
        """Return that of an image with this band in its name and this header, None where there is none."""
        if header is None:
            return cls(band)
        version = header.get("EXTVER")
        telescope = str(header.get("TELESCOP", ""))
        return cls(band, filter_of(header), version if isinstance(version, int) else None, telescope)

    @property
    def _names(self) -> frozenset[str]:
        return frozenset((plain(self.band), plain(self.filter))) - {""}

    def told_by(self, hdu: Hdu) -> frozenset[str]:
        """Return the bands that a map says it is of, by its name and its FILTER; none if it says none."""
        said = {word for name in self._names for word in name.split("_")}
        means = hdu.meaning
        own = "_".join(word for word in means.words if word in said or is_of(word, means.role, apart=True))
        return frozenset((own, plain(filter_of(hdu.header)))) - {""}

    def is_told_by(self, hdu: Hdu) -> bool:
        """Return whether a map says that it is of the image's band."""
        return bool(self.told_by(hdu) & self._names)

    def question(self, hdu: Hdu) -> list[str]:
        """Return what is asked of a map that says that it is of another band than the image."""
        told, own = self.told_by(hdu), self.filter or self.band
        if not own or not told or self.is_told_by(hdu):
            return []
        return [f"{hdu.label} is of {shown(' and '.join(sorted(told)))}, and the image of {shown(own)}: is it right?"]

    def nearest(self, maps: Sequence[Hdu]) -> list[Hdu]:
        """Return those of some maps that are of the image's band, else those of no band, else all; of its EXTVER."""
        own = [hdu for hdu in maps if self.is_told_by(hdu)]
        left = own or [hdu for hdu in maps if not self.told_by(hdu)] or list(maps)
        return [hdu for hdu in left if hdu.version == self.version] or left


def map_for(file: FitsFile, maps: Sequence[Hdu], image: Subject) -> tuple[Hdu, tuple[str, ...]]:
    """Return the map in a file of its own that belongs to an image, and a remark on the others where there are some.

    Args:
        file: that.
        maps: of one kind in it, one at least, the surest first.
        image: of which one is wanted.

    Raises:
        LensphysError: if nothing tells which of several is the image's.
    """
    left = image.nearest(maps)
    first = left[0]
    bands = {hdu.number: image.told_by(hdu) for hdu in left}
    apart = [] if image.is_told_by(first) else [hdu for hdu in left if bands[hdu.number] != bands[first.number]]
    nameless = first.meaning.role in (None, IMAGE)
    same = [hdu for hdu in left[1:] if hdu.name == first.name or (nameless and hdu.shape == first.shape)]
    if apart or same:
        held = ", ".join(dict.fromkeys((first.label, *(_apart(hdu, first) for hdu in (*apart, *same)))))
        raise LensphysError(
            f"{file.name} {file.path} has {held}, and neither a band, nor FILTER, nor EXTVER says which is of the "
            "image: save that one as a file of its own"
        )
    others = ", ".join(_apart(hdu, first) for hdu in sorted(maps, key=lambda hdu: hdu.number) if hdu is not first)
    return first, (f"not used: {others}",) if others else ()


def _apart(hdu: Hdu, first: Hdu) -> str:
    """What one of several maps is called: by its number where its name is that of the first."""
    return f"extension {hdu.number}" if hdu.label == first.label else hdu.label
