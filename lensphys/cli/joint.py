"""What `lensphys super-resolve` does with several images of one lens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lensphys.basics.checks import LensphysError, check_choice
from lensphys.cli.base import console, errors

if TYPE_CHECKING:
    from lensphys.api.chosen import Chosen
    from lensphys.api.joint import Dataset
    from lensphys.observation import Instrument

T = TypeVar("T")
KINDS = ("exposures", "bands")


@dataclass(frozen=True)
class Several:
    """What was typed: the files, and what goes with them, once for all images or once for each.

    Args:
        files: of the images; one file where it has several bands.
        kind: ``exposures`` or ``bands``.
        bands: of one file that are asked for.
        beside: ``psf``, ``error``, ``mask``, ``pixel_scale``: none, one for all, or one for each image.
        instrument: where the files do not tell.
        ext: extension of the image in each file.
        mask_means: see `read_images`.
        sky: likewise.
    """

    files: Sequence[Path]
    kind: str | None
    bands: Sequence[str]
    beside: Mapping[str, Sequence[Any]]
    instrument: Instrument | None
    ext: str | None
    mask_means: str | None
    sky: str

    @property
    def count(self) -> int:
        """How many images there are."""
        return max(len(self.files), len(self.bands))

    def dataset(self) -> Dataset:
        """Return the images as they are fitted.

        Raises:
            LensphysError: if a file is faulty, or the options do not fit together.
        """
        from lensphys.api.images import Images, choice_of
        from lensphys.api.joint import Dataset
        from lensphys.data.images import read_images

        images, names = [], []
        for i in range(self.count):
            file = self.files[i if len(self.files) > 1 else 0]
            band = self.bands[i] if self.bands else None
            own = {name: self._of(name, values, i) for name, values in self.beside.items()}
            choice = choice_of(self.ext, band, self.mask_means)
            found = read_images(file, instrument=self.instrument, sky=self.sky, choice=choice, **own)
            images.append(Images(found, True, file.name))
            names.append(self._band(file, band, found.header))
            for remark in found.remarks:
                errors.print(f"note: {names[-1] or file.name}: {remark}", markup=False)
        return Dataset(images, [""] * len(images) if self.kind == "exposures" else _unique(names, self.files))

    def _of(self, name: str, values: Sequence[T], i: int) -> T | None:
        if len(values) not in (0, 1, self.count):
            option = "--" + name.replace("_", "-")
            raise LensphysError(
                f"{option} is given {len(values)} times for {self.count} images: give it once for all, or once for each"
            )
        return None if not values else values[i if len(values) > 1 else 0]

    def _band(self, file: Path, band: str | None, header: Any) -> str:
        """The name of a band: as asked for, of the header, else of the file."""
        told = "" if header is None else str(header.get("FILTER", "")).strip()
        return band or told or file.name.split(".")[0]


def alone(option: str, values: Sequence[T] | None) -> T | None:
    """Return what an option says of one image; None if it is not given.

    Raises:
        LensphysError: if it is given for several.
    """
    if values is not None and len(values) > 1:
        raise LensphysError(f"{option} is given {len(values)} times for one image: give it once")
    return values[0] if values else None


def check_several(several: Several, foreign: Mapping[str, object]) -> None:
    """Raise where an option has no meaning for several images of one lens.

    Raises:
        LensphysError: with the remedy.
    """
    if several.kind is None:
        raise LensphysError(
            f"{several.count} images: say with --as what they are of one lens, exposures (of one band) or bands"
        )
    check_choice("--as", several.kind, list(KINDS))
    if several.count == 1:
        raise LensphysError(f"--as {several.kind} is of several images: give more than {several.files[0]}")
    if several.bands and len(several.files) > 1:
        raise LensphysError("--band is of one file: give one file that has several bands, or several files of one")
    wrong = [name for name, value in foreign.items() if value is not None]
    if wrong:
        raise LensphysError(f"{', '.join(wrong)} cannot be given for several images of one lens: take it away")


def super_resolve_together(
    several: Several, chosen: Chosen, scale: int, out: Path, solar: float | None, device: str
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
    result = super_resolved(dataset, method, scale, solar=solar, device=device)
    result.save(out)
    console.print(f"wrote {out}: {result.summary}", markup=False)
    for line in result.verdict:
        console.print(line, markup=False, soft_wrap=True)


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
