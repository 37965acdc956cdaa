"""What `lensphys super-resolve` does with many files: a catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lensphys.basics.checks import LensphysError, check_file
from lensphys.cli.base import console, note

if TYPE_CHECKING:
    from lensphys.api.chosen import Chosen
    from lensphys.catalogue.rows import Row
    from lensphys.data.images import Reading

_SHOWN = 10  # lenses that a terminal lists


@dataclass(frozen=True)
class Request:
    """What was typed, beside the method and how files are read."""

    source: Path
    out: Path
    scale: int
    device: str
    workers: int
    scheduler: str | None
    shard_size: int | None
    overwrite: bool


def check_folder(source: Path, out: Path, reading: Reading) -> None:
    """Raise where the output is no folder of its own, or a file that all lenses share is not there.

    Raises:
        LensphysError: with the remedy.
    """
    if out.exists() and source.exists() and out.resolve() == source.resolve():
        raise LensphysError(f"the output {out} is the input: choose another folder")
    if out.suffix:
        raise LensphysError(f"{source} gives a catalogue: --out must be a folder, without an ending, got {out}")
    for path in (reading.psf, reading.error, reading.target_psf):
        if isinstance(path, Path):
            check_file("the file of all lenses", path)


def make_catalogue(request: Request, chosen: Chosen, reading: Reading) -> None:
    """Super-resolve all lenses, and say what became of them.

    Raises:
        LensphysError: see `lensphys.catalogue.super_resolve_all`; if every lens failed.
    """
    from lensphys.basics.provenance import provenance
    from lensphys.basics.runners import Cluster, Processes
    from lensphys.catalogue import Survey, listed, super_resolve_all
    from lensphys.catalogue.inputs import LISTS, told_of_others
    from lensphys.data.results import result_name

    origin = provenance(method=chosen.name, scale=request.scale, **chosen.record)
    survey = Survey(
        listed(request.source), chosen.method, chosen.identity, request.scale, reading, origin, request.shard_size,
        request.device,
    )  # fmt: skip
    single = request.source.is_file() and request.source.suffix.lower() not in LISTS
    if single and [entry.count for entry in survey.entries] == [1]:
        note(
            f"{request.out} has no ending: it becomes a catalogue of one lens; give -o {result_name(request.source)} "
            "for its result alone, with notes on image, noise and PSF"
        )
    if (others := told_of_others(request.source)) is not None:
        note(f"{request.source}: {others}")
    runner = Processes(request.workers) if request.scheduler is None else Cluster(request.scheduler)
    rows = super_resolve_all(survey, request.out, runner, overwrite=request.overwrite)
    _tell(request.out, rows)


def _tell(out: Path, rows: list[Row]) -> None:
    from lensphys.catalogue.page import summary

    lost = [row for row in rows if row["status"] == "failed"]
    if len(lost) == len(rows):
        raise LensphysError(
            f"every lens failed, the first one because: {lost[0]['reasons']} (all rows: {out}/catalogue.ecsv)"
        )
    console.print(f"wrote {out}/catalogue.ecsv: {summary(rows)}")
    for row in lost[:_SHOWN]:
        image = "" if row.get("image") is None else f" [{row['image']}]"
        console.print(f"  failed: {row['file']}{image} ({row['reasons']})")
    if len(lost) > _SHOWN:
        console.print(f"  and {len(lost) - _SHOWN} more")
