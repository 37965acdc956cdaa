"""What `lensphys super-resolve` does with several images of one lens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lensphys.basics.checks import LensphysError, check_choice
from lensphys.cli.base import note, option, tell_result

if TYPE_CHECKING:
    from lensphys.api.chosen import Chosen
    from lensphys.api.joint import Dataset
    from lensphys.api.redshifts import Redshifts
    from lensphys.data.images import Reading

T = TypeVar("T")
KINDS = ("exposures", "bands")


@dataclass(frozen=True)
class SeveralImages:
    """What was typed: the files, and what goes with them, once for all images or once for each.

    Args:
        files: of the images; one file where it has several bands.
        kind: ``exposures`` or ``bands``.
        bands: of one file that are asked for.
        beside: ``psf``, ``error``, ``mask``, ``pixel_scale``: none, one for all, or one for each image.
        reading: how each image is read, beside that.
    """

    files: Sequence[Path]
    kind: str | None
    bands: Sequence[str]
    beside: Mapping[str, Sequence[Any]]
    reading: Reading

    def check(self) -> None:
        """Raise where something has no meaning for several images of one lens.

        Raises:
            LensphysError: with the remedy.
        """
        if self.kind is None:
            raise LensphysError(
                f"{self.count} images: say with --as what they are of one lens, exposures (of one band) or bands; "
                "different lenses are given as a folder, or as a list of their paths (.txt)"
            )
        check_choice("--as", self.kind, list(KINDS))
        if self.count == 1:
            raise LensphysError(f"--as {self.kind} takes several images: give more than {self.files[0]}")
        if self.bands and len(self.files) > 1:
            raise LensphysError(
                "--band is for a single file: give one file with several bands, or several files of one"
            )

    @property
    def count(self) -> int:
        """How many images there are."""
        return max(len(self.files), len(self.bands))

    def dataset(self) -> Dataset:
        """Return the images as they are fitted.

        Raises:
            LensphysError: if a file is faulty, or the options do not fit together.
        """
        from lensphys.api.images import Images
        from lensphys.api.joint import Dataset
        from lensphys.data.images import read_images

        images, names = [], []
        for i in range(self.count):
            file = self.files[i if len(self.files) > 1 else 0]
            band = self.bands[i] if self.bands else None
            own: dict[str, Any] = {name: self._of(name, values, i) for name, values in self.beside.items()}
            choice = replace(self.reading.choice, band=band)
            found = read_images(file, replace(self.reading, choice=choice, **own))
            images.append(Images(found, True, file.name))
            names.append(self._band(file, band, found.header))
        bands = [""] * len(images) if self.kind == "exposures" else _unique(names, self.files)
        for band, one in zip(bands, images, strict=True):
            for remark in one.set.remarks:
                note(f"{band or one.name}: {remark}")
        return Dataset(images, bands)

    def _of(self, name: str, values: Sequence[T], i: int) -> T | None:
        if len(values) not in (0, 1, self.count):
            raise LensphysError(
                f"{option(name)} is given {len(values)} times for {self.count} images: give it once for all, or once "
                "for each"
            )
        return None if not values else values[i if len(values) > 1 else 0]

    def _band(self, file: Path, band: str | None, header: Any) -> str:
        """The name of a band: as asked for, of the header, else of the file."""
        from lensphys.fits.header import filter_of

        told = "" if header is None else filter_of(header)
        return band or told or file.name.split(".")[0]


def alone(name: str, values: Sequence[T]) -> T | None:
    """Return what an option says of one image; None if it is not given.

    Raises:
        LensphysError: if it is given for several.
    """
    if len(values) > 1:
        raise LensphysError(f"{option(name)} is given {len(values)} times for one image: give it once")
    return values[0] if values else None


def super_resolve_together(
    several: SeveralImages, chosen: Chosen, scale: int, out: Path, redshifts: Redshifts | None, device: str
) -> None:
    """Fit all images of a lens together, write the result, and say what was found.

    Raises:
        LensphysError: if the method is no fit, or something is wrong with an image.
    """
    from lensphys.api.joint import joint_method, super_resolved
    from lensphys.data.joint import check_joint_output

    method = joint_method(chosen.method, chosen.name)
    dataset = several.dataset()
    check_joint_output(out, all(one.set.header is not None for one in dataset.images))
    for line in dataset.doubts(redshifts):
        note(line)
    result = super_resolved(dataset, method, scale, redshifts, device=device)
    result.save(out)
    tell_result(out, result)


def _unique(names: Sequence[str], files: Sequence[Path]) -> list[str]:
    """The names of bands; of files in folders that are called alike, those of the folders."""
    if len(set(names)) == len(names):
        return list(names)
    folders = [file.absolute().parent.name for file in files]
    if len(set(folders)) == len(names):
        return folders
    raise LensphysError(
        f"the bands of the images have no names of their own ({', '.join(names)}): rename the files, or write FILTER "
        "in their headers"
    )
