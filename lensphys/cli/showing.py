"""The command that shows results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lensphys.basics.checks import LensphysError
from lensphys.basics.extras import need
from lensphys.basics.terminal import tracked
from lensphys.cli import options
from lensphys.cli.base import app, claim, console, errors, note, one_sentence
from lensphys.cli.rows import rows_of

if TYPE_CHECKING:
    from lensphys.viewer.reading import Results

_PAGES = ("report.html", "catalogue.html")  # of `lensphys compare` and of `super-resolve FOLDER`
_TOLD = 3  # files that are no results


@app.command()
@one_sentence
def show(
    result: Annotated[
        Path,
        typer.Argument(
            help="A result of `super-resolve`: FITS, .npz, .h5; a folder of them; a catalogue; a report of `compare`."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The HTML page; by default next to the result."),
    ] = None,
    rows: options.Rows = None,
    regions: Annotated[
        Path | None,
        typer.Option(metavar="FILE.reg", help="Write critical curves, caustics and sub-halos for DS9, too."),
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Write the page, and open no browser.")] = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Show a result in the browser: one page that needs no network, or a catalogue of many lenses.

    Image, model, residual, super-resolved image, sigma, source, convergence and what is beyond a smooth lens, side by
    side: with critical curves, caustics, sub-halos, all parameters and the verdict; linked zoom, blinking, RA and Dec
    under the cursor. A page that `show` made before is replaced.

    Examples:

    `lensphys show lens_sr.fits`

    `lensphys show survey.npz -o survey.html --rows 0:200`

    `lensphys show lens_sr.fits --regions lens.reg --no-open`
    """
    made = _page(result)
    if made is not None:
        if out is not None or regions is not None or rows is not None:
            raise LensphysError(f"{made} is a page already: --out, --rows and --regions are about results")
        console.print(f"the page: {made}")
        _open(made, no_open)
        return
    page = _written(result, out, rows, regions, overwrite)
    _open(page, no_open)


def _page(path: Path) -> Path | None:
    """The page that is there already: in a folder, beside a catalogue, or the file itself."""
    folder = path.parent if path.name.startswith("catalogue.") else path
    for page in (folder / name for name in _PAGES):
        if page.is_file():
            return page
    return path if path.suffix.lower() == ".html" and path.is_file() else None


def _written(result: Path, out: Path | None, rows: str | None, regions: Path | None, overwrite: bool) -> Path:
    from lensphys.viewer.reading import read_results

    results = _chosen(read_results(result), rows)
    for sentence in results.skipped[:_TOLD]:
        note(f"left out: {sentence}")
    if len(results.skipped) > _TOLD:
        note(f"left out: {len(results.skipped) - _TOLD} more files that are no results")
    need("bokeh", "lensphys show")
    from lensphys.viewer.show import check_pages, default_page, made_here, write_pages

    page = default_page(result) if out is None else out
    if page.suffix.lower() not in (".html", ".htm"):
        raise LensphysError(f"the page must be named *.html, got {page}")
    inputs = [] if result.is_dir() else [result]
    claim(page, *inputs, overwrite=overwrite or made_here(page))
    check_pages(page, len(results.lenses), overwrite=overwrite)
    if regions is not None:
        _write_regions(results, regions, inputs, overwrite)
    several = len(results.lenses) > 1
    write_pages(results, page, (lambda numbers: tracked(numbers, "drawing", console=errors)) if several else iter)
    what = results.told if results.bands else f"a catalogue of {results.told}"
    console.print(f"wrote {page}" + (f": {what}" if several else ""))
    return page


def _chosen(results: Results, rows: str | None) -> Results:
    if rows is None:
        return results
    return replace(results, lenses=[results.lenses[i] for i in rows_of(rows, len(results.lenses))])


def _write_regions(results: Results, path: Path, inputs: list[Path], overwrite: bool) -> None:
    if len(results.lenses) > 1:
        raise LensphysError(
            f"--regions takes one lens, and {results.path} holds {len(results.lenses)}: choose with --rows"
        )
    need("regions", "--regions")
    from lensphys.viewer.regions import write_regions

    claim(path, *inputs, overwrite=overwrite)
    count = write_regions(path, results.lenses[0]())
    console.print(f"wrote {path}: {count} regions")


def _open(page: Path, no_open: bool) -> None:
    import webbrowser

    if not no_open and not webbrowser.open(page.resolve().as_uri()):
        console.print(f"no browser was found: open {page}")
