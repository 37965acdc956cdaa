"""Commands for users' own images, and those that show what there is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from lensphys.api.device import device_of
from lensphys.basics.checks import LensphysError, check_choice
from lensphys.cli.base import (
    Device,
    Overwrite,
    Refine,
    Trust,
    Weights,
    allow,
    app,
    claim,
    console,
    errors,
    one_sentence,
)
from lensphys.cli.joint import Several, alone, check_several, super_resolve_together
from lensphys.cli.many import Order, check_folder_options, make_catalogue
from lensphys.cli.rows import Rows, rows_of

if TYPE_CHECKING:
    from lensphys.model import Component


@app.command("super-resolve")
@one_sentence
def super_resolve(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT",
            help="FITS, an .npz of named arrays, an .npy stack (N, H, W), our .h5; or many: a folder of such files, or "
            "a text with a path a line; or several images of ONE lens, with --as.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("-o", "--out", help="FITS gives .fits, .npy and .npz .npz, .h5 .h5; many: a folder, a catalogue."),
    ],
    weights: Weights = None,
    run: Annotated[Optional[Path], typer.Option(help="A run folder of `lensphys train`.")] = None,  # noqa: UP045
    method: Annotated[Optional[str], typer.Option(help="refine (the default): see `list methods`.")] = None,  # noqa: UP045
    refine: Refine = None,
    model: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A YAML file that says what is fitted: lenses, sources, sub-halos; with method refine."),
    ] = None,
    scale: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, max=16, help="Factor by which pixels become smaller; by default the network's own, or 2."),
    ] = None,
    instrument: Annotated[Optional[str], typer.Option(help="A preset or a YAML file: `lensphys list`.")] = None,  # noqa: UP045
    kind: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--as",
            help="What several images of ONE lens are, to be fitted together: exposures or bands.",
        ),
    ] = None,
    psf: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(help="PSF kernel, FITS, PSFEx or .npy; of several images once for all, or once for each."),
    ] = None,
    target_psf: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="PSF that the result shall have, FITS or .npy, on its pixels; by default the image's own."),
    ] = None,
    error: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(
            help="Noise map, FITS or .npy: standard deviation, or by its name a variance or a weight; likewise."
        ),
    ] = None,
    mask: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(help="Mask, FITS or .npy: bits, or 0 and 1, read as a MASK or DQ in the image's own file is."),
    ] = None,
    ext: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Extension of the image in a FITS file: SCI, `SCI,2`, 4, or a plane of a cube, `SCI[0]`."),
    ] = None,
    band: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Band of the image in a FITS file of several: VIS; or bands to fit together: VIS,NIR_H."),
    ] = None,
    mask_means: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="What nonzero pixels of MASK are, good or bad, where the file does not tell."),
    ] = None,
    pixel_scale: Annotated[
        Optional[list[float]],  # noqa: UP045
        typer.Option(help="Pixel scale in arcsec; of several images once for all, or once for each."),
    ] = None,
    sky: Annotated[
        str, typer.Option(help="keep, or subtract: the level along the borders, where these show no galaxy's halo.")
    ] = "keep",
    z_lens: Annotated[Optional[float], typer.Option(help="Redshift of the lens: gives sub-halos a mass.")] = None,  # noqa: UP045
    z_source: Annotated[Optional[float], typer.Option(help="Redshift of the source, likewise.")] = None,  # noqa: UP045
    rows: Rows = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that fit images in parallel.")] = 1,
    scheduler: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="ADDRESS", help="For a catalogue: of a Dask cluster, instead of --workers."),
    ] = None,
    shard_size: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="For a catalogue: lenses that are written together; by default 16, fewer for a small one."),
    ] = None,
    overwrite: Overwrite = False,
    trust: Trust = None,
    device: Device = "auto",
) -> None:
    """Super-resolve your own images; without a trained network, each image is fitted on its own.

    In FITS files image, noise, mask and PSF are found by the names that archives give them (ARC, SCI, VIS_FLUX; ERR,
    VARIANCE, WHT; MASK, DQ; PSF: docs/files.md); the output's WCS keeps each source at its sky position.

    Examples:

    `lensphys super-resolve lens.fits -o lens_sr.fits`

    `lensphys super-resolve stack.npy -o sr.npz --weights model_2`

    `lensphys super-resolve stack.npy -o quick.npz --weights model_2 --refine 0`

    `lensphys super-resolve stack.npy -o sr.npz --instrument model_2 --run runs/model_2`

    `lensphys super-resolve lens.fits -o lens_x4.fits --scale 4 --psf psf.fits --error rms.fits --mask dq.fits`

    `lensphys super-resolve euclid.fits -o lens_sr.fits --band NIR_H`

    `lensphys super-resolve exposure_1.fits exposure_2.fits -o lens_sr.fits --as exposures`

    `lensphys super-resolve euclid.fits -o bands_sr.fits --band VIS,NIR_Y,NIR_J,NIR_H`

    `lensphys super-resolve lens.fits -o lens_sr.fits --model examples/my_model.yaml`

    `lensphys super-resolve lens.fits -o as_hst.fits --scale 4 --target-psf hst_psf.fits`

    `lensphys super-resolve survey.npy -o sr.npz --instrument euclid_vis --workers 8`

    `lensphys super-resolve cutouts/ -o survey/ --workers 8`

    `lensphys super-resolve lenses.txt -o survey/ --scheduler tcp://10.0.0.1:8786`

    Of a folder, a list, or where the output is a folder, a catalogue is made: a row a lens as ECSV, Parquet and HTML,
    and the super-resolved images in `shards/`. A file that cannot be used costs its own row.

    A stack or a catalogue that was interrupted resumes when the same command is given again.

    Several images of one lens are explained by one fit: exposures share everything, bands the mass. Each is moved and
    turned within the pointing error about where its WCS, or its middle, puts it.
    """
    from lensphys.api.chosen import asked_for, chosen_for, chosen_method
    from lensphys.api.images import choice_of
    from lensphys.api.resolve import resolved, solar_radius
    from lensphys.catalogue.inputs import is_many
    from lensphys.data.contents import images_in
    from lensphys.data.results import check_output
    from lensphys.data.stack import Reading, open_images
    from lensphys.observation import Instrument

    allow(trust)
    solar, where = solar_radius(z_lens, z_source), device_of(device)
    preset = None if instrument is None else Instrument.named(instrument)
    bands = [name.strip() for name in band.split(",")] if band is not None and "," in band else []
    if len(inputs) > 1 or bands or kind is not None:
        given = {"psf": psf, "error": error, "mask": mask, "pixel_scale": pixel_scale}
        beside: dict[str, list[Any]] = {name: list(values or []) for name, values in given.items()}
        kind = "bands" if bands and kind is None else kind
        several = Several(inputs, kind, bands, beside, preset, ext, mask_means, sky)
        claim(out, *inputs, *beside["psf"], *beside["error"], *beside["mask"], model, overwrite=overwrite)
        foreign: dict[str, object] = {"--rows": rows, "--run": run, "--weights": weights, "--refine": refine}
        foreign |= {"--target-psf": target_psf}
        foreign |= {"--scheduler": scheduler, "--shard-size": shard_size, "--band": None if bands else band}
        check_several(several, foreign)
        chosen = chosen_for(None, method, model, None, where)
        super_resolve_together(several, chosen, scale or 2, out, solar, where)
        return
    image, one_psf, one_error = inputs[0], alone("--psf", psf), alone("--error", error)
    one_mask, side = alone("--mask", mask), alone("--pixel-scale", pixel_scale)
    many = is_many(image, out)
    if many:
        foreign = {"--rows": rows, "--z-lens": z_lens, "--z-source": z_source, "--mask": one_mask}
        check_folder_options(foreign, image, out, one_psf, one_error, target_psf)
    else:
        if scheduler is not None or shard_size is not None:
            raise LensphysError("--scheduler and --shard-size are for catalogues: give a folder as --out")
        check_output(image, out)
        claim(out, image, one_psf, target_psf, one_error, one_mask, model, overwrite=overwrite)
    if model is not None:
        chosen = asked_for(model, run=run, weights=weights, method=method, refine=refine)
    else:
        named = "refine" if run is None and weights is None and method is None else method
        chosen = chosen_method(run, weights, named, refine, where)
    own = None if instrument is not None else chosen.instrument
    choice, factor = choice_of(ext, band, mask_means), scale or chosen.scale
    reading = Reading(preset, own, one_psf, one_error, one_mask, target_psf, side, choice, sky)
    if many:
        order = Order(image, out, factor, where, workers, scheduler, shard_size, overwrite)
        make_catalogue(order, chosen, reading)
        return
    images = open_images(image, reading, factor, None if rows is None else rows_of(rows, images_in(image) or 1))
    for remark in images.remarks:
        errors.print(f"note: {remark}", markup=False)
    record = {"input": image.name} | ({} if target_psf is None else {"target_psf": target_psf.name})
    result = resolved(images, chosen, factor, solar=solar, workers=workers, device=where, record=record, beside=out)
    if result.lost is not None:
        errors.print(f"note: {result.lost}", markup=False)
    result.save(out)
    console.print(f"wrote {out}: {result.summary}", markup=False)
    for line in result.verdict:
        console.print(line, markup=False, soft_wrap=True)


@app.command("list")
@one_sentence
def list_(
    kind: Annotated[
        str, typer.Argument(help="recipes, instruments, components, networks, methods, weights or all.")
    ] = "all",
) -> None:
    """List the names that commands know: recipes, instruments, components, networks, methods and weights."""
    check_choice("kind", kind, [*_KINDS, "all"])
    for title in _KINDS if kind == "all" else [kind]:
        console.print(f"[bold]{title}[/]")
        for name, line in _KINDS[title]().items():
            console.print(f"  {name:24s} {line}", markup=False)


def _recipes() -> dict[str, str]:
    from lensphys.simulation.folder import recipe_names
    from lensphys.simulation.recipe import Recipe

    return {name: Recipe.named(name, []).description for name in recipe_names()}


def _instruments() -> dict[str, str]:
    from lensphys.observation import Instrument, instrument_names

    return {name: Instrument.named(name).description for name in instrument_names()}


def _components() -> dict[str, str]:
    from lensphys.model import LIGHT, MASS

    kinds = (("mass", MASS), ("light", LIGHT))
    return {f"{kind} ({what})": _parameters(c) for what, of in kinds for kind, c in of.items()}


def _networks() -> dict[str, str]:
    from lensphys.networks import NETWORKS, network_settings

    return {name: _first_line(network_settings(name)) for name in NETWORKS}


def _methods() -> dict[str, str]:
    from lensphys.methods import READY, TRAINABLE

    ready = {name: _first_line(type(m)) for name, m in READY.items()}
    return ready | {f"{name} (train it)": _first_line(settings) for name, settings in TRAINABLE.items()}


def _weights() -> dict[str, str]:
    from lensphys.weights import weights_description, weights_names

    return {name: weights_description(name) for name in weights_names()}


_KINDS = {
    "recipes": _recipes,
    "instruments": _instruments,
    "components": _components,
    "networks": _networks,
    "methods": _methods,
    "weights": _weights,
}


@app.command()
@one_sentence
def demo(out: Annotated[Path, typer.Option("-o", "--out", help="The folder for everything.")] = Path("demo")) -> None:
    """Do the whole job on two cores in a few minutes: simulate, train from LR images alone, super-resolve, compare."""
    from lensphys.basics.extras import need
    from lensphys.cli.demo import demo as run

    for package in ("numba", "tensorboard", "matplotlib"):
        need(package, "lensphys demo")
    run(out)


def _parameters(component: type[Component]) -> str:
    """What a component is, and what a recipe or a model may say of it."""
    return f"{_first_line(component).split(':')[0].rstrip('.')}: {', '.join(component.scene_names())}"


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").splitlines()[0]
