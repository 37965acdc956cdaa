"""The command that hands samples over to other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lensphys.basics.checks import LensphysError
from lensphys.basics.sentences import counted
from lensphys.cli import options
from lensphys.cli.base import app, console, one_sentence


@app.command()
@one_sentence
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", parser=options.place, help="An HDF5 file of `simulate`.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="A new folder, or for one sample a new file.")],
    kind: Annotated[str, typer.Option("--format", help="lenstronomy, coolest, caustics or fits.")],
    index: Annotated[str | None, typer.Option(metavar="I[,J..]", help="Which samples, counted from 0.")] = None,
    whole: Annotated[bool, typer.Option("--all", help="All samples.")] = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Export simulated lenses and their truth to lenstronomy, COOLEST or caustics, or as FITS cut-outs.

    Examples:

    `lensphys export test.h5 --index 3 --format lenstronomy -o lens_3.json`

    `lensphys export test.h5 --index 0,3 --format coolest -o templates/`

    `lensphys export test.h5 --all --format fits -o cutouts/`
    """
    from lensphys.interop.exporting import export as run

    if whole == (index is not None):
        raise LensphysError("say which samples: give --index I[,J..] or --all, not both")
    written = run(file, out, kind, None if index is None else _indices(index), overwrite=overwrite)
    console.print(f"wrote {out}" + (f": {counted(len(written), 'sample')}" if written != [out] else ""))


def _indices(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise LensphysError(f"--index takes whole numbers, such as 0,3,7, got {text!r}") from None
