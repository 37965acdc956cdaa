"""The command line: each command reads its arguments and calls the library."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional, ParamSpec, TypeVar

import typer
from rich.console import Console

import lensphys
from lensphys.checks import LensphysError, check_choice

if TYPE_CHECKING:
    from lensphys.methods import Method

P = ParamSpec("P")
R = TypeVar("R")

app = typer.Typer(
    help="Super-resolve strong gravitational lenses from low-resolution images alone. Start with `lensphys demo`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
_console, _errors = Console(soft_wrap=True, highlight=False), Console(stderr=True, soft_wrap=True, highlight=False)

Assignments = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads this annotation at run time
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting (a.b=value); may be repeated."),
]

Weights = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(metavar="NAME", help="Weights that come with the package: see `list weights`."),
]

Refine = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        min=0,
        metavar="K",
        help="Of weights or an amortised run: 0 is one forward pass, K so many rounds of refinement; by default until "
        "nothing more pays.",
    ),
]

Device = Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu or cuda.")]

_KEPT = {
    "simulate": "the finished shards are kept, the same command goes on",
    "train": "the state is kept, the same command with --resume goes on",
    "demo": "what is finished is kept, the same command goes on",
}


def _one_sentence(command: Callable[P, R]) -> Callable[P, R]:
    """Turn what the user got wrong into one sentence and exit code 2, and Ctrl-C into 130."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except LensphysError as error:
            _errors.print(f"error: {error}", markup=False)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            _errors.print(f"interrupted: {_KEPT.get(command.__name__, 'nothing was written')}")
            raise typer.Exit(130) from None

    return wrapped


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        _console.print(lensphys.__version__)
        raise typer.Exit


@app.command()
@_one_sentence
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
    _console.print(f"wrote {path}", markup=False)


@app.command()
@_one_sentence
def train(
    experiment: Annotated[Path, typer.Argument(help="A YAML file like those in experiments/.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The run folder.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the experiment and stop.")] = False,
    assignments: Assignments = None,
) -> None:
    """Train a method; where the experiment names a recipe, its data are simulated into the run folder first.

    Examples:

    `lensphys train experiments/unsupervised/model_3.yaml -o runs/model_3`

    `lensphys train experiment.yaml -o runs/a --set training.epochs=5 --set data='{file: mine.h5}'`

    `lensphys train experiment.yaml -o runs/a --resume`
    """
    from lensphys.config import Experiment
    from lensphys.config import train as run

    settings = Experiment.read(experiment, assignments or [])
    parameters = sum(p.numel() for p in settings.build().parameters())
    _console.print(f"{settings.method.name}, {settings.method.network.name}: {parameters} parameters")
    if dry_run:
        return
    run(settings, out, resume=resume)
    _console.print(f"trained: {out}", markup=False)


@app.command()
@_one_sentence
def evaluate(
    data: Annotated[Path, typer.Option("--data", help="An HDF5 file of `lensphys simulate`, with its truth.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder for metrics.json, table.md and figures.")],
    run: Annotated[Optional[Path], typer.Argument(help="A run folder of `lensphys train`.")] = None,  # noqa: UP045
    weights: Weights = None,
    method: Annotated[Optional[str], typer.Option(help="Instead of a run: see `list methods`.")] = None,  # noqa: UP045
    refine: Refine = None,
    name: Annotated[Optional[str], typer.Option(help="What tables call the method.")] = None,  # noqa: UP045
    limit: Annotated[Optional[int], typer.Option(help="Judge at most so many images of each class.")] = None,  # noqa: UP045
    batch_size: Annotated[int, typer.Option(help="Images at a time.")] = 32,
    device: Device = "auto",
) -> None:
    """Judge a method on simulated lenses, with bicubic interpolation and the ceiling beside it.

    Examples:

    `lensphys evaluate runs/model_3 --data test.h5 -o results/model_3`

    `lensphys evaluate --weights model_3 --refine 0 --data test.h5 -o results/one_pass`

    `lensphys evaluate --method fit --data test.h5 -o results/fit`
    """
    from lensphys.data.lens_file import LensFile
    from lensphys.evaluation.evaluate import evaluate as judge
    from lensphys.methods import READY
    from lensphys.provenance import check_writable, provenance

    where = _device(device)
    chosen = _chosen(run, weights, method, refine, where)
    name = name or chosen.name
    check_writable(out)
    with LensFile(data) as lenses:
        judged = judge(
            chosen.method,
            lenses,
            name=name,
            data=data.stem,
            baseline=None if method == "bicubic" else READY["bicubic"],
            baseline_name="bicubic",
            limit=limit,
            batch_size=batch_size,
            device=where,
        )
        origin = json.loads((chosen.folder / "provenance.json").read_text()) if chosen.folder is not None else None
        judged.write(out, provenance(method=name, trained=origin, data=data.name, identity=lenses.identity))
    _console.print((out / "table.md").read_text(), markup=False)
    _console.print(f"wrote {out}", markup=False)


@app.command("super-resolve")
@_one_sentence
def super_resolve(
    image: Annotated[Path, typer.Argument(metavar="INPUT", help="FITS, an .npy stack (N, H, W), or our .h5.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="FITS gives .fits, .npy gives .npz, .h5 gives .h5.")],
    weights: Weights = None,
    run: Annotated[Optional[Path], typer.Option(help="A run folder of `lensphys train`.")] = None,  # noqa: UP045
    method: Annotated[Optional[str], typer.Option(help="refine (the default): see `list methods`.")] = None,  # noqa: UP045
    refine: Refine = None,
    scale: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, max=16, help="Pixels become so many times as small; by default the run's own, or 2."),
    ] = None,
    instrument: Annotated[Optional[str], typer.Option(help="A preset or a YAML file: `lensphys list`.")] = None,  # noqa: UP045
    psf: Annotated[Optional[Path], typer.Option(help="PSF kernel, FITS or .npy: odd-sized, sum 1.")] = None,  # noqa: UP045
    target_psf: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="PSF that the result shall have, FITS or .npy, on its pixels; by default the image's own."),
    ] = None,
    error: Annotated[Optional[Path], typer.Option(help="Noise map (standard deviation), FITS or .npy.")] = None,  # noqa: UP045
    pixel_scale: Annotated[Optional[float], typer.Option(help="Pixel scale in arcsec.")] = None,  # noqa: UP045
    device: Device = "auto",
) -> None:
    """Super-resolve your own images; without a trained network, each image is fitted on its own.

    In FITS files the extensions ARC or SCI, ERR, MASK and PSF are used where present; the output's WCS keeps
    each source at its sky position.

    Examples:

    `lensphys super-resolve lens.fits -o lens_sr.fits`

    `lensphys super-resolve stack.npy -o sr.npz --weights model_2`

    `lensphys super-resolve stack.npy -o quick.npz --weights model_2 --refine 0`

    `lensphys super-resolve stack.npy -o sr.npz --instrument model_2 --run runs/model_2`

    `lensphys super-resolve lens.fits -o lens_x4.fits --scale 4 --psf psf.fits --error rms.fits`

    `lensphys super-resolve lens.fits -o as_hst.fits --scale 4 --target-psf hst_psf.fits`
    """
    import numpy as np

    from lensphys.config import run_instrument
    from lensphys.data.images import check_output, read_images, with_target_psf, write_images
    from lensphys.inference import super_resolve as resolve
    from lensphys.observation import Instrument
    from lensphys.provenance import provenance

    check_output(image, out)
    where = _device(device)
    if run is None and weights is None and method is None:
        method = "refine"
    chosen = _chosen(run, weights, method, refine, where)
    own = run_instrument(chosen.folder) if chosen.folder is not None and instrument is None else None
    preset = Instrument.named(instrument) if instrument is not None else own
    factor = scale or chosen.scale
    images = read_images(image, instrument=preset, psf=psf, error=error, pixel_scale=pixel_scale)
    if target_psf is not None:
        images = with_target_psf(images, target_psf, factor)
    for remark in images.remarks:
        _errors.print(f"note: {remark}", markup=False)
    result = resolve(chosen.method, images.observation, factor, device=where)
    lost = np.flatnonzero(np.isnan(result.get("theta_E", np.zeros(1))))
    if len(lost):
        numbers = ", ".join(map(str, lost))
        _errors.print(f"note: no Einstein radius was found (theta_E is NaN) in image {numbers}", markup=False)
    sharp = {} if target_psf is None else {"target_psf": target_psf.name}
    origin = provenance(input=image.name, method=chosen.name, scale=factor, **sharp)
    write_images(out, images, result, factor, origin)
    numbers = " ".join(f"{k} {float(np.nanmedian(result[k])):.4g}" for k in ("chi2", "theta_E") if k in result)
    _console.print(f"wrote {out}: {numbers}", markup=False)


@app.command("list")
@_one_sentence
def list_(
    kind: Annotated[str, typer.Argument(help="recipes, instruments, networks, methods, weights or all.")] = "all",
) -> None:
    """List what names mean something: recipes, instruments, networks, methods and weights."""
    from lensphys.methods import READY, TRAINABLE
    from lensphys.networks import NETWORKS
    from lensphys.observation import Instrument, instrument_names
    from lensphys.simulation.recipe import Recipe, recipe_names
    from lensphys.weights import weights_description, weights_names

    kinds = {
        "recipes": {name: Recipe.named(name, []).description for name in recipe_names()},
        "instruments": {name: Instrument.named(name).description for name in instrument_names()},
        "networks": {name: _first_line(settings) for name, settings in NETWORKS.items()},
        "methods": {name: _first_line(type(m)) for name, m in READY.items()}
        | {f"{name} (train it)": _first_line(settings) for name, settings in TRAINABLE.items()},
        "weights": {name: weights_description(name) for name in weights_names()},
    }
    check_choice("kind", kind, [*kinds, "all"])
    for title in kinds if kind == "all" else [kind]:
        _console.print(f"[bold]{title}[/]")
        for name, line in kinds[title].items():
            _console.print(f"  {name:24s} {line}", markup=False)


@app.command()
@_one_sentence
def demo(out: Annotated[Path, typer.Option("-o", "--out", help="The folder for everything.")] = Path("demo")) -> None:
    """Do the whole job on two cores in a few minutes: simulate, train from LR images alone, super-resolve, compare."""
    from lensphys.demo import demo as run

    run(out)


def _device(name: str) -> str:
    """Return ``cpu`` or ``cuda``; auto is a GPU where there is one."""
    import torch

    check_choice("device", name, ["auto", "cpu", "cuda"])
    if name == "cuda" and not torch.cuda.is_available():
        raise LensphysError("--device cuda: no GPU is available, use auto or cpu")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class _Chosen:
    """What super-resolves, what tables call it, and the folder of its run or weights, if it has one."""

    method: Method
    name: str
    folder: Path | None = None
    scale: int = 2


def _chosen(run: Path | None, weights: str | None, method: str | None, refine: int | None, device: str) -> _Chosen:
    """Return the method of a run folder, of weights or of a name."""
    from lensphys.methods import READY

    if sum(x is not None for x in (run, weights, method)) != 1:
        raise LensphysError("give one of a run folder, --weights and --method")
    if method is not None:
        check_choice("method", method, list(READY))
        if refine is not None:
            raise LensphysError("--refine goes on from a network's answer: give --weights or a run, not --method")
        return _Chosen(READY[method], method)
    if run is not None:
        return _trained(run, run.name, refine, device)
    from lensphys.weights import weights_folder

    return _trained(weights_folder(str(weights)), f"{weights} weights", refine, device)


def _trained(folder: Path, name: str, refine: int | None, device: str) -> _Chosen:
    """Return a trained method, refined where it can be."""
    from lensphys.config import load_run
    from lensphys.methods import AmortisedMethod

    method = load_run(folder).to(device)
    scale = int(getattr(method, "scale", 2))
    if not isinstance(method, AmortisedMethod):
        if refine is not None:
            raise LensphysError(f"--refine goes on from an amortised network's answer, and {folder} holds another one")
        return _Chosen(method, name, folder, scale)
    if refine == 0:
        return _Chosen(method, f"{name}, one pass", folder, scale)
    how = "refined" if refine is None else f"refined {refine} x"
    return _Chosen(method.refined(refine), f"{name}, {how}", folder, scale)


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").splitlines()[0]


def main() -> None:
    """Run the command line."""
    # Threads that spin while they wait make a busy machine ten times slower; this must be said before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app()
