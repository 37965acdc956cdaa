"""Commands about readers, which tell dark matter apart."""

from __future__ import annotations

from collections.abc import Sized
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lensphys.api.device import device_of
from lensphys.basics.checks import LensphysError
from lensphys.basics.extras import need
from lensphys.cli import options
from lensphys.cli.base import app, claim, console, note, one_sentence

_RUN = "run"
_SHOWN = 12  # images that a terminal lists


class _RunUnlessNamed(TyperGroup):
    """`lensphys downstream EXPERIMENT.yaml` is `lensphys downstream run EXPERIMENT.yaml`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command in front of what is none."""
        named = bool(args) and (args[0] in self.commands or args[0] in ("--help",))
        return super().parse_args(ctx, args if named or not args else [_RUN, *args])


group = typer.Typer(
    cls=_RunUnlessNamed,
    no_args_is_help=True,
    help="Train and judge readers that tell dark matter apart, and apply them: `lensphys downstream EXPERIMENT.yaml`.",
    rich_markup_mode="markdown",
)
app.add_typer(group, name="downstream")


@group.command(_RUN)
@one_sentence
def downstream(
    experiment: Annotated[Path, typer.Argument(help="A YAML file like those in experiments/downstream/.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder for results, data, products and readers.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the experiment, say what it takes, and stop.")
    ] = False,
    workers: options.Workers = 1,
    device: options.Device = "auto",
    assignments: options.Assignments = None,
) -> None:
    """Train every reader on every input with every number of labels, judge it on unseen lenses, write one report.

    After an interruption the same command resumes. The keys of the YAML are explained in docs/downstream.md.

    Examples:

    `lensphys downstream experiments/downstream/model_2.yaml -o runs/model_2`

    `lensphys downstream experiments/downstream/full.yaml -o runs/full --dry-run`
    """
    need("sklearn", "lensphys downstream")
    from lensphys.downstream import Downstream, check_downstream
    from lensphys.downstream import downstream as run

    settings = Downstream.from_yaml(experiment, assignments or [])
    check_downstream(settings)
    names = ("inputs", "readers", "products", "shifts")
    parts: dict[str, Sized] = {name: getattr(settings, name) for name in names} | {"trainings": settings.cases}
    console.print(f"{settings.title}: " + ", ".join(f"{name} {len(part)}" for name, part in parts.items()))
    if dry_run:
        return
    run(settings, out, device_of(device), workers)
    console.print((out / "table.md").read_text(encoding="utf-8"))
    console.print(f"wrote {out / 'report.html'}")


@group.command()
@one_sentence
def apply(
    reader: Annotated[Path, typer.Argument(help="A folder in readers/ of an experiment.")],
    image: Annotated[Path, typer.Argument(metavar="INPUT", help="FITS, an .npy stack (N, H, W), or our .h5.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="A .json file.")],
    instrument: options.Instrument = None,
    workers: options.Workers = 1,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
) -> None:
    """Let a trained reader tell the dark matter of your images: calibrated probabilities, and the verdict of each fit.

    Where the file has labels, the answers are judged, too.

    Example:

    `lensphys downstream apply runs/model_2/readers/trees_numbers mine.h5 -o mine.json`
    """
    need("sklearn", "lensphys downstream")
    from lensphys.basics.outputs import write_json
    from lensphys.basics.provenance import provenance
    from lensphys.downstream import apply_reader
    from lensphys.observation import Instrument

    if out.suffix != ".json":
        raise LensphysError(f"--out {out}: choose a name that ends in .json")
    claim(out, image, overwrite=overwrite)
    preset = None if instrument is None else Instrument.named(instrument)
    found = apply_reader(reader, image, instrument=preset, device=device_of(device), workers=workers)
    write_json(out, {"provenance": provenance(reader=str(reader), input=image.name)} | found)
    for remark in found["remarks"]:
        note(remark)
    for row in found["images"][:_SHOWN]:
        console.print(_line(row))
    if len(found["images"]) > _SHOWN:
        console.print(f"and {len(found['images']) - _SHOWN} more in {out}")
    if "judged" in found:
        judged = found["judged"]
        auc = "".join(f", AUC {name} {value:.3f}" for name, value in judged.get("auc", {}).items())
        console.print(f"judged by the labels of the file: accuracy {judged['accuracy']:.3f}{auc}")
    console.print(f"wrote {out}")


def _line(row: dict[str, Any]) -> str:
    """What is said of an image."""
    quality = f", fit {row['quality']}" if "quality" in row else ""
    if "class" not in row:
        return f"image {row['index']}: {row['value']:.4g}{quality}"
    shares = ", ".join(f"{name} {p:.2f}" for name, p in row["probabilities"].items())
    return f"image {row['index']}: {row['class']} ({shares}){quality}"
