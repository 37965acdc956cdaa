"""Commands that make data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lensphys.api.device import device_of
from lensphys.basics.checks import LensphysError
from lensphys.basics.sentences import counted
from lensphys.cli import options
from lensphys.cli.base import app, claim, console, one_sentence

if TYPE_CHECKING:
    from lensphys.simulation.plan import Plan
    from lensphys.simulation.sample import Draws


_WORTH_IT = 200  # samples of a class: fewer are made while processes start


@app.command()
@one_sentence
def simulate(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the bare name of one in simulations/.")],
    n: Annotated[int, typer.Option("-n", help="Lenses of each class.")] = 9,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The HDF5 file to write (.h5), or a folder, in which the shards stay."),
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Some of the recipe's classes, for example no_sub,cdm.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same file on any machine.")] = 0,
    engine: Annotated[
        str, typer.Option(help="torch (fast) or lenstronomy (the reference, with any profile).")
    ] = "torch",
    instruments: Annotated[
        str | None,
        typer.Option(
            help="Several telescopes see the same lenses (euclid_vis,rubin_lsst_i, say): a file each, OUT_name.h5."
        ),
    ] = None,
    matched: Annotated[
        bool,
        typer.Option(
            "--matched", help="The same lenses, sources and noise in every class: substructure alone differs."
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes on this machine; by default one a core, and one alone for a few samples."),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Dask scheduler in place of --workers, for example tcp://host:8786."),
    ] = None,
    shard_size: Annotated[
        int | None,
        typer.Option(help="Samples of a shard; by default 256, or fewer if there would not be 16 shards."),
    ] = None,
    deflection: Annotated[
        bool,
        typer.Option("--deflection", help="Store /alpha_hr, not compute it when it is read: 2.3 times the bytes."),
    ] = False,
    device: Annotated[str, typer.Option(help="Of the torch engine: cpu, cuda or auto.")] = "cpu",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show recipe, size and time, and stop.")] = False,
    preview: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw nine samples, or one lens with all --instruments."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a preview that exists.")] = False,
    assignments: options.Assignments = None,
) -> None:
    """Simulate lensed images with their truth; an interrupted run resumes when it is started again.

    Examples:

    `lensphys simulate model_3 -n 1000 -o train.h5 --workers 4`

    `lensphys simulate roman -n 10000 --dry-run --preview roman.png`

    `lensphys simulate model_2 -n 100 -o test.h5 --classes no_sub,cdm --seed 7 --set hr_noise=true`

    `lensphys simulate lsst -n 100 -o same.h5 --instruments rubin_lsst_i,euclid_vis --matched`

    `lensphys simulate model_2 -n 1000000 -o survey/ --scheduler tcp://10.0.0.1:8786 --shard-size 1024`
    """
    from lensphys.basics.extras import need
    from lensphys.basics.runners import Cluster, Processes, warm

    count = _workers(n) if workers is None else workers
    if scheduler is None and out is not None and count > 1:
        warm("lensphys.simulation.shards")  # its imports go on beside ours

    from lensphys.simulation.plan import Plan
    from lensphys.simulation.recipe import Recipe
    from lensphys.simulation.writer import write

    chosen = [c.strip() for c in classes.split(",")] if classes is not None else None
    first = Recipe.named(recipe, assignments or [])
    names = [name.strip() for name in instruments.split(",")] if instruments is not None else [None]
    _check_stems([name for name in names if name is not None])
    draws: Draws = "matched" if matched else "own"
    plans = {
        name: Plan.from_recipe(
            first if name is None else first.seen_by(name), n,
            classes=chosen, seed=seed, engine=engine, draws=draws, shard_size=shard_size, deflection=deflection,
        )
        for name in names
    }  # fmt: skip
    where = device_of(device)
    if where == "cpu":
        need("numba", "lensphys simulate")
    if preview is not None:
        _preview({name or plan.recipe.instrument: plan for name, plan in plans.items()}, preview, overwrite=overwrite)
    if dry_run:
        for plan in plans.values():
            _dry_run(plan, count, where)
    if dry_run or (preview is not None and out is None):
        return
    if out is None:
        raise LensphysError("give --out FILE.h5 (or a folder), or one of --dry-run and --preview FILE.png")
    runner = Processes(count) if scheduler is None else Cluster(scheduler)
    for name, plan in plans.items():
        path = out if name is None else out.with_name(f"{out.stem}_{Path(name).stem}{out.suffix}")
        console.print(f"wrote {write(plan, path, runner, device=where)}")


def _check_stems(instruments: list[str]) -> None:
    """Raise where two instruments have the same name, by which their files are told apart."""
    stems: dict[str, str] = {}
    for name in instruments:
        other = stems.setdefault(Path(name).stem, name)
        if other != name:
            raise LensphysError(
                f"--instruments: the images of {other} and {name} would be one file: rename one of them"
            )


def _workers(n: int) -> int:
    """One a core, where there is work enough to be worth their start."""
    from lensphys.basics.runners import cores

    return cores() if n >= _WORTH_IT else 1


def _preview(plans: dict[str, Plan], path: Path, *, overwrite: bool) -> None:
    from lensphys.basics.panels import save_figure
    from lensphys.evaluation.preview import preview_figure, views_figure

    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise LensphysError(f"--preview {path}: choose a name that ends in .png, .pdf or .svg")
    claim(path, overwrite=overwrite)
    figure = preview_figure(*plans.values()) if len(plans) == 1 else views_figure(plans)
    save_figure(figure, path)
    console.print(f"wrote {path}")


def _dry_run(plan: Plan, workers: int, device: str) -> None:
    import yaml

    from lensphys.simulation.estimate import estimate

    for title, settings in (("recipe", plan.recipe), ("instrument", plan.instrument)):
        console.print(f"[bold]{title}[/]", markup=True)
        tree = settings.model_dump(mode="json", exclude_none=True)
        console.print(yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=120))
    cost = estimate(plan, device=device)
    each = {name: 1e3 * s / plan.n for name, s in cost.seconds.items()}
    per_class = ", ".join(f"{name} {ms:.0f}" if ms > 10 else f"{name} {ms:.2g}" for name, ms in each.items())
    console.print("[bold]cost[/]", markup=True)
    console.print(
        f"{counted(len(plan), 'sample')} ({plan.n} of each class), {counted(cost.shards, 'shard')}, "
        f"{cost.bytes / 1e9:.3g} GB ({cost.bytes / len(plan) / 1e3:.0f} kB a sample)\n"
        f"about {_duration(cost.wall_seconds(workers))} with {counted(workers, 'worker')} "
        f"(ms a sample, measured here: {per_class})"
    )


def _duration(seconds: float) -> str:
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (48 * 3600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86400:.3g} days"


@app.command()
@one_sentence
def merge(
    folder: Annotated[Path, typer.Argument(help="The folder that `lensphys simulate -o FOLDER` wrote.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The HDF5 file to write.")],
    virtual: Annotated[
        bool, typer.Option("--virtual", help="Refer to the shards, which must stay, instead of copying them.")
    ] = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Merge the shards of a folder into one HDF5 file, with their checksums verified.

    Examples:

    `lensphys merge survey/ -o survey.h5`

    `lensphys merge survey/ -o survey.h5 --virtual`
    """
    from lensphys.data.merging import COPIED, REFERRED
    from lensphys.data.merging import merge as run

    console.print(f"wrote {run(folder, out, way=REFERRED if virtual else COPIED, overwrite=overwrite)}")
