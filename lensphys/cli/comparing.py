"""Commands that set many methods side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lensphys.api.device import device_of
from lensphys.cli import options
from lensphys.cli.base import allow, app, console, one_sentence


@app.command()
@one_sentence
def compare(
    experiment: Annotated[Path, typer.Argument(help="A YAML file like those in experiments/comparisons/.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder for results, data and runs.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all experiments and stop.")] = False,
    trust: options.Trust = None,
    device: options.Device = "auto",
    assignments: options.Assignments = None,
) -> None:
    """Train or load all methods of an experiment under one budget, judge them alike, write one table and one report.

    After an interruption the same command resumes. Entries without a `group` have no row: they serve others. The exit
    code is 1 if something failed. The keys of the YAML are explained in experiments/README.md.

    Examples:

    `lensphys compare experiments/comparisons/networks.yaml -o runs/networks`

    `lensphys compare experiments/comparisons/networks.yaml -o runs/long --set minutes=60 --set data.n=5000`
    """
    from lensphys.basics.extras import need
    from lensphys.evaluation.comparison import Comparison, check_comparison
    from lensphys.evaluation.comparison import compare as run

    allow(trust)
    need("matplotlib", "lensphys compare")
    comparison = Comparison.from_yaml(experiment, assignments or [])
    check_comparison(comparison)
    rows = sum(entry.group is not None for entry in comparison.methods)
    helpers = len(comparison.methods) - rows
    console.print(f"{comparison.title}: methods: {rows}, helpers: {helpers}")
    if dry_run:
        return
    tree = run(comparison, out, device_of(device))
    console.print((out / "table.md").read_text(encoding="utf-8"))
    console.print(f"wrote {out / 'report.html'}")
    failed = [row["name"] for row in (*tree["rows"], *tree["helpers"]) if row["failed"]]
    if failed:
        console.print(f"failed: {', '.join(failed)}")
        raise typer.Exit(1)


@app.command("rank-set")
@one_sentence
def rank_set(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of two or more methods, for RankSRGAN: three.")],
    data: Annotated[Path, typer.Option("--data", help="An HDF5 file of `lensphys simulate`, with clean HR images.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The rank set, an .h5 file.")],
    patch: Annotated[
        int | None,
        typer.Option(min=2, help="Side of the patches [HR pixels]; whole images by default."),
    ] = None,
    block: Annotated[int, typer.Option(min=2, help="Side of a block of NIQE [HR pixels].")] = 32,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many images.")] = None,
    mixtures: Annotated[int, typer.Option(min=0, help="Random mixtures of the methods' images beside them.")] = 0,
    distorted: Annotated[
        int, typer.Option(min=0, help="Copies of all these with faint noise or a faint grid, beside them.")
    ] = 0,
    trust: options.Trust = None,
    device: options.Device = "auto",
) -> None:
    """Rank the images of several runs by NIQE: the first stage of RankSRGAN. After an interruption it resumes.

    The second stage is `lensphys train` of the method `ranker` on the rank set, the third that of the method
    `adversarial` with `rank.run`, the ranker's run folder.

    Examples:

    `lensphys rank-set runs/srresnet runs/srgan runs/esrgan --data train.h5 -o runs/rank_set.h5`

    `lensphys train ranker.yaml -o runs/ranker --set data='{file: runs/rank_set.h5}'`
    """
    from lensphys.basics.checks import LensphysError
    from lensphys.basics.outputs import check_file
    from lensphys.data.hdf5 import is_hdf5
    from lensphys.data.lens_file import LensFile
    from lensphys.methods.ranking.building import build_rank_set, clean_niqe
    from lensphys.training.experiment import load_run

    allow(trust)
    where = device_of(device)
    if not is_hdf5(out):
        raise LensphysError(f"--out {out}: choose a name that ends in .h5")
    check_file(out, [data], overwrite=True)  # one that is there stays: it is the same one, or refused
    if len({run.name for run in runs}) < len(runs):
        raise LensphysError("two runs have the same name, and a rank set tells them apart by it: rename a folder")
    done = out.exists()
    methods = {run.name: load_run(run).to(where) for run in runs}
    with LensFile(data) as lenses:
        niqe = clean_niqe(lenses, block)
        build_rank_set(
            dict(methods),
            lenses,
            niqe,
            out,
            patch=patch,
            limit=limit,
            mixtures=mixtures,
            distorted=distorted,
            device=where,
        )
    console.print(f"{out} is already complete" if done else f"wrote {out}")
