"""The options that commands share: the type of each, what the help says of it, and where it stands there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lensphys.basics.checks import LensphysError
from lensphys.basics.remote import local


def place(text: str) -> Path:
    """Return where a file or folder lies on this machine: what the address of a remote one names is copied."""
    try:
        return local(text)
    except LensphysError as error:
        raise typer.BadParameter(str(error)) from None


def _of_image(metavar: str, help: str, *names: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=help, rich_help_panel="The images")


def _of_method(metavar: str, help: str, *names: str, min: float | None = None) -> Any:
    return typer.Option(*names, metavar=metavar, help=help, rich_help_panel="What is fitted, and how", min=min)


def _of_many(metavar: str, help: str, *, min: float | None = None) -> Any:
    return typer.Option(metavar=metavar, help=help, rich_help_panel="Stacks and catalogues", min=min)


def _of_machine(metavar: str, help: str, *names: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=help, rich_help_panel="Where it runs")


Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting (a.b=value); may be repeated."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")]
Scale = Annotated[
    int | None,
    typer.Option(min=1, max=16, metavar="S", help="Factor by which pixels become smaller: the network's own, or 2."),
]

PSFs = Annotated[
    list[Path] | None,
    _of_image("FILE", "PSF: FITS, PSFEx or .npy. Of several images once for all, or once for each."),
]
Errors = Annotated[
    list[Path] | None,
    _of_image("FILE", "Noise map, FITS or .npy: standard deviations, or by its name a variance or a weight."),
]
Masks = Annotated[
    list[Path] | None,
    _of_image("FILE", "Mask, FITS or .npy: bits, or 0 and 1, read as a MASK or DQ in the image's own file is."),
]
MaskMeans = Annotated[str | None, _of_image("good|bad", "What nonzero pixels of a mask mean, if no file says.")]
PixelScales = Annotated[list[float] | None, _of_image("ARCSEC", "Side of a pixel.")]
Instrument = Annotated[
    str | None,
    _of_image("NAME", "Telescope and camera: a preset (`list instruments`) or a YAML file; used where no file says."),
]
Extension = Annotated[
    str | None,
    _of_image("NAME", "Extension of the image in a FITS file: SCI, `SCI,2`, 4, or a plane of a cube, `SCI[0]`."),
]
Band = Annotated[
    str | None,
    _of_image("NAME", "Band of a FITS file of several: VIS; or bands to fit together: VIS,NIR_H."),
]
Sky = Annotated[
    str,
    _of_image("keep|subtract", "subtract: take off the level along the borders, if these show no halo of a galaxy."),
]
BadPixels = Annotated[
    str,
    _of_image("mask|keep", "keep: pixels that no light of this PSF makes count, too (cold, hot, hit by cosmic rays)."),
]
Kind = Annotated[
    str | None,
    _of_image("exposures|bands", "What several images of ONE lens are, to be fitted together.", "--as"),
]

Method = Annotated[str | None, _of_method("NAME", "By default refine, a fit of each image: see `list methods`.")]
Model = Annotated[
    Path | None,
    _of_method("FILE", "YAML that says what refine fits: lenses, sources, sub-halos; see examples/my_model.yaml."),
]
Weights = Annotated[str | None, _of_method("NAME", "A network that comes with the package: see `list weights`.")]
Run = Annotated[Path | None, _of_method("FOLDER", "A network of your own: a run of `lensphys train`.", "--run")]
Refine = Annotated[
    int | None,
    _of_method(
        "K",
        "Rounds of fitting after an amortised network's answer, 0 for one forward pass; if not given, until the fit "
        "stops improving.",
        min=0,
    ),
]
TargetPSF = Annotated[
    Path | None,
    _of_method("FILE", "PSF of the result, FITS or .npy, on its pixels; if not given, the image's own."),
]
LensRedshift = Annotated[float | None, _of_method("Z", "Redshift of the lens: with --z-source, sub-halos get masses.")]
SourceRedshift = Annotated[float | None, _of_method("Z", "Redshift of the source, likewise.")]

Rows = Annotated[
    str | None,
    _of_many("ROWS", "Only these images, counted from 0, for example 5 or 100:200 or 0,7,20: (to the end)."),
]
Workers = Annotated[int, _of_many("N", "Processes that work side by side.", min=1)]
Scheduler = Annotated[
    str | None,
    _of_many("ADDRESS", "For catalogues: a Dask scheduler in place of --workers, for example tcp://host:8786."),
]
ShardSize = Annotated[
    int | None, _of_many("N", "Lenses that are written together: 16 by default, fewer in a small catalogue.")
]

Device = Annotated[str, _of_machine("auto|cpu|cuda", "auto: a GPU where there is one.")]
Trust = Annotated[
    list[str] | None,
    _of_machine("MODULE:CLASS", "A class of your own that a YAML file may import; may be repeated.", "--trust"),
]
