"""Commands that train methods and judge them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lensphys.api.device import device_of
from lensphys.basics.checks import LensphysError
from lensphys.cli import options
from lensphys.cli.base import allow, app, claim, console, note, one_sentence
from lensphys.cli.rows import rows_of

if TYPE_CHECKING:
    from lensphys.api.chosen import Chosen
    from lensphys.evaluation.evaluate import Evaluation


@app.command()
@one_sentence
def train(
    experiment: Annotated[Path, typer.Argument(help="A YAML file like those in experiments/.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The run folder.")],
    start: Annotated[
        Path | None,
        typer.Option("--from", metavar="RUN", help="Start from the weights of another run, not from fresh ones."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the experiment and stop.")] = False,
    trust: options.Trust = None,
    assignments: options.Assignments = None,
) -> None:
    """Train a method; where the experiment names a recipe, its data are simulated into the run folder first.

    Examples:

    `lensphys train experiments/unsupervised/model_3.yaml -o runs/model_3`

    `lensphys train experiment.yaml -o runs/a --set training.epochs=5 --set data='{file: mine.h5}'`

    `lensphys train experiment.yaml -o runs/a --resume`

    `lensphys train fine_tuning.yaml -o runs/observed --from runs/simulated`
    """
    from lensphys.training.experiment import Experiment
    from lensphys.training.experiment import train as run
    from lensphys.training.loop import check_phases

    allow(trust)
    given = [] if start is None else [f"start={json.dumps(str(start))}"]
    settings = Experiment.from_yaml(experiment, [*(assignments or []), *given])
    for sentence in [data.unused for data in settings.named_data.values() if data.unused]:
        note(sentence)
    settings.check_losses()
    method = settings.build()
    check_phases(method, settings.training)
    parameters = sum(p.numel() for p in method.parameters())
    network = getattr(getattr(settings.method, "network", None), "name", None)
    console.print(f"{settings.method.name}{f', {network}' if network else ''}: {parameters} parameters")
    if dry_run:
        return
    run(settings, out, resume=resume)
    console.print(f"trained: {out}")


@app.command()
@one_sentence
def evaluate(
    data: Annotated[
        Path,
        typer.Option(
            "--data", metavar="FILE", parser=options.place, help="An HDF5 file of `lensphys simulate`, with its truth."
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder for metrics.json, table.md and figures.")],
    run: Annotated[Path | None, typer.Argument(help="A run folder of `lensphys train`.")] = None,
    weights: options.Weights = None,
    method: options.Method = None,
    refine: options.Refine = None,
    name: Annotated[str | None, typer.Option(help="What tables call the method.")] = None,
    rows: options.Rows = None,
    limit: Annotated[int | None, typer.Option(help="Judge at most so many images of each class.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images at a time.")] = 32,
    overwrite: options.Overwrite = False,
    trust: options.Trust = None,
    device: options.Device = "auto",
) -> None:
    """Judge a method on simulated lenses, with bicubic interpolation and the ceiling beside it.

    A reader of `lensphys downstream` is judged by the labels of the file: AUC, accuracy, calibration.

    Examples:

    `lensphys evaluate runs/model_3 --data test.h5 -o results/model_3`

    `lensphys evaluate --weights model_3 --refine 0 --data test.h5 -o results/one_pass`

    `lensphys evaluate --method fit --data test.h5 -o results/fit --rows 100:200`

    `lensphys evaluate runs/mine/readers/trees_fit_numbers --data test.h5 -o results/trees`

    What was interrupted resumes when the same command is given again.
    """
    from lensphys.api.chosen import chosen_for, network
    from lensphys.basics.extras import need
    from lensphys.basics.runs import READER
    from lensphys.data.pixels import left_out

    allow(trust)
    need("matplotlib", "lensphys evaluate")
    where = device_of(device)
    if run is not None and (run / READER).is_file():
        given = {"rows": rows, "limit": limit, "refine": refine, "weights": weights, "method": method}
        if more := [name for name, x in given.items() if x is not None]:
            raise LensphysError(f"{run} is a reader, which is judged on all lenses of a file: leave --{more[0]} out")
        _evaluate_reader(run, data, out, where, overwrite=overwrite)
        return
    asked = network(run, weights, method)
    if asked is None and method is None:
        raise LensphysError("nothing to judge: give a run folder, --weights or --method")
    chosen = chosen_for(asked, method, None, refine, where)
    _claim_results(out, data, overwrite=overwrite)
    judged = _evaluate_method(chosen, data, out, where, name or chosen.name, rows, limit, batch_size)
    for sentence in left_out(data, judged.unusable):
        note(sentence)
    _tell(out, judged.quality)


def _evaluate_method(
    chosen: Chosen, data: Path, out: Path, device: str, name: str, rows: str | None, limit: int | None, batch_size: int
) -> Evaluation:
    """Judge what super-resolves, and write what was found."""
    from lensphys.basics.provenance import provenance
    from lensphys.basics.runs import run_provenance
    from lensphys.data.lens_file import LensFile
    from lensphys.evaluation.evaluate import Judging
    from lensphys.evaluation.evaluate import evaluate as judge
    from lensphys.methods import READY

    trained = None if chosen.folder is None else run_provenance(chosen.folder)
    origin = provenance(method=name, trained=trained, data=data.name, rows=rows)
    bicubic = READY["bicubic"]
    with LensFile(data) as lenses:
        lenses.check_no_result()
        judged = judge(
            chosen.method,
            lenses,
            Judging(
                rows=None if rows is None else rows_of(rows, len(lenses)),
                limit=limit,
                batch_size=batch_size,
                device=device,
            ),
            name=name,
            data=data.stem,
            baseline=None if chosen.method is bicubic else bicubic,
            beside=out.with_name(f".{out.name}.parts"),
            origin=origin | {"method": chosen.identity, "limit": limit},
        )
        judged.write(out, origin | {"identity": lenses.identity})
    return judged


def _tell(out: Path, lines: list[str]) -> None:
    console.print((out / "table.md").read_text(encoding="utf-8"))
    for line in lines:
        console.print(line)
    console.print(f"wrote {out}")


def _claim_results(out: Path, data: Path, *, overwrite: bool) -> None:
    from lensphys.basics.outputs import check_writable

    check_writable(out)
    for written in ("metrics.json", "table.md"):
        claim(out / written, data, overwrite=overwrite)


def _evaluate_reader(reader: Path, data: Path, out: Path, device: str, *, overwrite: bool) -> None:
    """Judge what tells dark matter apart."""
    from lensphys.basics.extras import need

    need("sklearn", "lensphys evaluate")
    from lensphys.downstream import judge_reader, summary_line

    _claim_results(out, data, overwrite=overwrite)
    tree = judge_reader(reader, data, out, device=device)
    _tell(out, [summary_line(tree)])
