"""From many images to a catalogue: in parts, which are kept; the same bytes, whoever computes them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lensphys.basics.checks import LensphysError, MissingExtraError, check_whole
from lensphys.basics.lock import sole_run
from lensphys.basics.manifest import MANIFEST, Manifest, check_folder
from lensphys.basics.outputs import check_writable, remove_leftovers
from lensphys.basics.runners import Processes, Runner, run_parts
from lensphys.basics.terminal import progress_bar, progress_console
from lensphys.basics.version import VERSION
from lensphys.catalogue.inputs import Entry, Task, tasks
from lensphys.catalogue.page import write_pages
from lensphys.catalogue.rows import Row
from lensphys.catalogue.table import write_ecsv, write_parquet
from lensphys.catalogue.work import (
    ROWS,
    SHARDS,
    Finished,
    Work,
    finished,
    identity_of,
    rows_in,
    seconds_in,
    shard_path,
)
from lensphys.data.images import Reading
from lensphys.methods import Method

_MOST, _PARTS = 16, 64  # lenses of a part at most; parts at least, where there are lenses enough


@dataclass(frozen=True)
class Survey:
    """What is to be super-resolved, and how.

    Args:
        entries: the files.
        method: what super-resolves.
        name: what says which method it is, with its weights.
        scale: factor by which pixels become smaller.
        reading: how the files are read.
        origin: where the results come from: it goes into every file.
        shard_size: lenses of a part; None for 16, or fewer if there would not be 64 parts.
        device: where the method computes.

    Raises:
        LensphysError: if shard_size is below 1.
    """

    entries: Sequence[Entry]
    method: Method
    name: str
    scale: int = 2
    reading: Reading = Reading()
    origin: Mapping[str, Any] = field(default_factory=dict)
    shard_size: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.shard_size is not None:
            check_whole("--shard-size", self.shard_size, 1)

    def __len__(self) -> int:
        return sum(entry.count for entry in self.entries)

    @property
    def size(self) -> int:
        """Lenses of a part."""
        return self.shard_size or max(1, min(_MOST, len(self) // _PARTS))

    @cached_property
    def tasks(self) -> list[Task]:
        """The parts."""
        return tasks(self.entries, self.size)

    @cached_property
    def identity(self) -> str:
        """Hash of what was asked for: files by name and number of images, method, scale, and how files are read."""
        asked = {
            "version": VERSION,
            "files": [(e.name, e.count) for e in self.entries],
            "method": self.name,
            "scale": self.scale,
            "reading": identity_of(self.reading),
            "shard_size": self.size,
        }
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def super_resolve_all(survey: Survey, out: Path, runner: Runner | None = None, *, overwrite: bool = False) -> list[Row]:
    """Super-resolve many images into a folder, and write their catalogue; an interrupted run resumes.

    ``shards/`` holds the super-resolved images, each as `lensphys.data.results.write_images` writes it, in folders that
    are written whole; ``catalogue.ecsv``, ``catalogue.parquet`` and ``catalogue.html`` a row a lens.

    Args:
        survey: what is asked for.
        out: the folder.
        runner: who computes; this process if None. It changes no bit but the seconds.
        overwrite: another catalogue that is there is replaced.

    Returns:
        The rows: see `lensphys.catalogue.rows.COLUMNS`.

    Raises:
        LensphysError: if the folder holds other things or another run's, or cannot be written, or a worker dies.
    """
    check_folder(out, "catalogue")
    check_writable(out)
    with sole_run(out):
        manifest = _SurveyManifest(survey, out)
        manifest.claim(overwrite=overwrite)
        _run(manifest, runner or Processes())
        return _catalogued(survey, out)


class _SurveyManifest(Manifest[Finished]):
    """The list of the parts of a catalogue."""

    def __init__(self, survey: Survey, folder: Path) -> None:
        super().__init__(folder, survey.identity, Finished)
        self.survey = survey

    def head(self) -> dict[str, Any]:
        survey = self.survey
        return {"format": "lensphys catalogue: parts", "identity": self.identity, "lenses": len(survey),
                "shards": len(survey.tasks), "shard_size": survey.size, "provenance": dict(survey.origin)}  # fmt: skip

    def parts(self) -> Iterable[Path]:
        return (path.parent for path in (self.folder / SHARDS).glob(f"*/{ROWS}"))

    def is_ours(self, part: Path) -> bool:
        with suppress(OSError, ValueError, KeyError, TypeError):
            return bool(json.loads((part / ROWS).read_text(encoding="utf-8"))["identity"] == self.identity)
        return False

    def claim(self, *, overwrite: bool) -> None:
        """Make the folder ours, or take up what an interrupted run of the same survey left."""
        listed = self.listed()
        if listed is None and not overwrite:
            raise LensphysError(
                f"{self.folder} holds the catalogue of another run (other files, method, scale, settings or version): "
                "choose another --out, or give --overwrite"
            )
        if listed is None:
            _clear(self.folder)
        for task in self.survey.tasks:
            self._adopt(task, listed or {})
        self.write()

    def _adopt(self, task: Task, listed: dict[int, Finished]) -> None:
        """Take a part that is there: whole, of ours, and of files that did not change since."""
        path, said = shard_path(self.folder, task.shard), listed.get(task.shard)
        with suppress(OSError, ValueError, KeyError, TypeError):
            tree = json.loads((path / ROWS).read_text(encoding="utf-8"))
            if tree["identity"] == self.identity and tree["inputs"] == task.inputs:
                found = finished(path, task)
                timed = len(seconds_in(path)) == found.lenses  # no checksum knows them
                if timed and (found == said or (said is None and found.lenses == task.count)):
                    self.finished[task.shard] = found

    @property
    def missing(self) -> list[Task]:
        return [task for task in self.survey.tasks if task.shard not in self.finished]


def _clear(folder: Path) -> None:
    """Remove what a catalogue consists of, and nothing else."""
    shutil.rmtree(folder / SHARDS, ignore_errors=True)
    for path in [folder / MANIFEST, *folder.glob("catalogue.*"), *folder.glob("catalogue_[0-9]*.html")]:
        path.unlink(missing_ok=True)


def _run(manifest: _SurveyManifest, runner: Runner) -> None:
    survey, missing = manifest.survey, manifest.missing
    work = Work(
        manifest.folder.resolve(), survey.method, survey.scale, survey.reading, survey.identity, survey.origin,
        survey.device,
    )  # fmt: skip
    console = progress_console()
    if not missing:
        console.print(f"{manifest.folder} is already complete", highlight=False, markup=False, soft_wrap=True)
        return
    left = sum(task.count for task in missing)
    with progress_bar(console) as progress:
        bar = progress.add_task("super-resolving", total=len(survey), completed=len(survey) - left)

        def take(done: Finished) -> None:
            manifest.finished[done.shard] = done
            progress.advance(bar, done.lenses)

        try:
            run_parts(runner, work, missing, take, manifest.write)
        finally:
            remove_leftovers(manifest.folder / SHARDS)  # of workers that were killed


def _catalogued(survey: Survey, out: Path) -> list[Row]:
    """Write the catalogue of all parts."""
    rows: list[Row] = []
    for task in survey.tasks:
        path = shard_path(out, task.shard)
        rows += [row | {"seconds": s} for row, s in zip(rows_in(path), seconds_in(path), strict=True)]
    write_ecsv(out / "catalogue.ecsv", rows, survey.origin)
    try:
        write_parquet(out / "catalogue.parquet", rows, survey.origin)
    except MissingExtraError as error:
        progress_console().print(f"note: {error}", highlight=False, markup=False, soft_wrap=True)
    write_pages(out, f"{survey.origin.get('method', 'lenses')}: {out.resolve().name}", rows, survey.size)
    return rows
