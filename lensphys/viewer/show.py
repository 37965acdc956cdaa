"""Results as pages: one lens as one file, many as a catalogue with the pages of its lenses beside it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote

from lensphys.basics.checks import LensphysError
from lensphys.basics.outputs import replace_folder, scratch, whole_file
from lensphys.viewer.catalogue import Entry, catalogue_page
from lensphys.viewer.library import Library
from lensphys.viewer.page import lens_page
from lensphys.viewer.reading import Results
from lensphys.viewer.result import LensResult

_CATALOGUE = ("bokeh", "bokeh-widgets", "bokeh-tables")
_GENERATOR = re.compile(rb'<meta name="generator" content="lensphys show ')


def default_page(path: Path) -> Path:
    """Return where the page of a result goes that is not told: next to it."""
    whole = path.resolve()
    return whole.with_name(f"{whole.name}.html") if whole.is_dir() else path.with_suffix(".html")


def made_here(page: Path) -> bool:
    """Return whether a file is a page that `lensphys show` wrote: it can be made again from its result."""
    try:
        with page.open("rb") as file:
            return _GENERATOR.search(file.read(1000)) is not None
    except OSError:
        return False


def pages_of(page: Path) -> Path:
    """Return the folder of the lenses' pages beside a catalogue."""
    return page.with_name(f"{page.stem}_lenses")


def write_pages(results: Results, page: Path, told: Callable[[range], Iterable[int]] = iter) -> int:
    """Write the page of one lens, or the catalogue of many and their pages; return how many lenses.

    Args:
        results: what is shown.
        page: the file. The pages of many lenses go into a folder beside it, `pages_of`, which is replaced.
        told: is given the numbers of the lenses, and yields them: for a progress bar.

    Raises:
        LensphysError: if a result is damaged, or a file cannot be written.
    """
    if len(results.lenses) == 1:
        _write(page, lens_page(results.lenses[0](), Library()))
        return 1
    folder = pages_of(page)
    with scratch(folder) as temporary:
        new = temporary / folder.name
        new.mkdir()
        Library(beside=True).write(new)
        home = os.path.relpath(page, folder)
        entries = [
            _lens(results.lenses[i](), new, i, quote(home), folder.name) for i in told(range(len(results.lenses)))
        ]
        replace_folder(new, folder)
    _write(page, catalogue_page(results.path.name, results.told, entries, Library(_CATALOGUE), results.skipped))
    return len(entries)


def _write(page: Path, text: str) -> None:
    with whole_file(page) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _lens(result: LensResult, folder: Path, number: int, home: str, address: str) -> Entry:
    name = f"{number:05d}.html"
    (folder / name).write_text(lens_page(result, Library(beside=True), home), encoding="utf-8")
    return Entry.from_result(result, quote(f"{address}/{name}"))


def check_pages(page: Path, count: int, *, overwrite: bool) -> None:
    """Raise unless the folder of many lenses' pages can be written.

    Raises:
        LensphysError: if there is something of that name that `lensphys show` did not write.
    """
    folder = pages_of(page)
    if count == 1 or not folder.exists() or overwrite:
        return
    if folder.is_dir() and all(made_here(file) or file.suffix == ".js" for file in folder.iterdir()):
        return
    raise LensphysError(
        f"{folder} exists, and was not written by 'lensphys show': remove it, choose another --out, or give --overwrite"
    )
