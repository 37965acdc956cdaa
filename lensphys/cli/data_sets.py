"""Commands that make data sets, and look into them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from lensphys.cli.base import Assignments, app, console, one_sentence


@app.command()
@one_sentence
def simulate(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the bare name of one in simulations/.")],
    n: Annotated[int, typer.Option("-n", help="Samples of each class.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The HDF5 file to write.")],
    classes: Annotated[Optional[str], typer.Option(help="Some of the recipe's classes, as no_sub,cdm.")] = None,  # noqa: UP045
    seed: Annotated[int, typer.Option(help="The same seed gives the same file, whatever the number of workers.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    assignments: Assignments = None,
) -> None:
    """Simulate lensed images with their truth; an interrupted run goes on when it is started again.

    Examples:

    `lensphys simulate model_3 -n 1000 -o train.h5 --workers 4`

    `lensphys simulate model_2 -n 100 -o test.h5 --classes no_sub,cdm --seed 7 --set hr_noise=true`
    """
    from lensphys.simulation.recipe import Recipe
    from lensphys.simulation.writer import simulate as run

    chosen = [c.strip() for c in classes.split(",")] if classes is not None else None
    path = run(Recipe.named(recipe, assignments or []), n, out, classes=chosen, seed=seed, workers=workers)
    console.print(f"wrote {path}", markup=False)
