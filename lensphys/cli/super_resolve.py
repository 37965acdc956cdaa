"""The command that super-resolves users' own images: of one file, of many lenses, or several images of one lens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lensphys.api.device import device_of
from lensphys.basics.checks import LensphysError
from lensphys.cli import options
from lensphys.cli.base import allow, app, claim, keeps, note, one_sentence, option, tell_result
from lensphys.cli.joint import SeveralImages, alone, super_resolve_together
from lensphys.cli.many import Request, check_folder, make_catalogue
from lensphys.cli.rows import rows_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensphys.api.chosen import Chosen
    from lensphys.api.redshifts import Redshifts
    from lensphys.data.images import Reading


@dataclass(frozen=True)
class Mode:
    """One of the things that the command does.

    Args:
        what: it is.
        meaningless: options that mean nothing there, by the names of the arguments.
        remedy: what to do if one is given.
    """

    what: str
    meaningless: tuple[str, ...]
    remedy: str = "take it away"

    def check(self, context: typer.Context) -> None:
        """Raise if an option is given that means nothing here.

        Raises:
            LensphysError: with the remedy.
        """
        sources = {name: context.get_parameter_source(name) for name in self.meaningless}
        wrong = [option(name) for name, source in sources.items() if source is not None and source.name in _TYPED]
        if wrong:
            raise LensphysError(f"{', '.join(wrong)} cannot be given for {self.what}: {self.remedy}")


_TYPED = ("COMMANDLINE", "ENVIRONMENT")  # where an option is from, that is not left as it is
_OF_MANY = ("scheduler", "shard_size")
_ONE_FILE = Mode("one file", _OF_MANY, "it is for catalogues, give a folder as --out")
_CATALOGUE = Mode("a catalogue", ("rows", "z_lens", "z_source", "mask"), "take it away, or name one file")
_TOGETHER = Mode("several images of one lens", ("rows", "run", "weights", "refine", "target_psf", "workers", *_OF_MANY))


@app.command("super-resolve")
@one_sentence
def super_resolve(
    context: typer.Context,
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT",
            parser=options.place,
            show_default=False,
            help="FITS, an .npz of named arrays, an .npy stack (N, H, W), an .h5 of lensphys; or many: a folder of "
            "such files, or a text file with a path on each line; or several images of ONE lens, with --as. A path may "
            "be s3://bucket/name.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help=".fits for FITS, .npz for .npy and .npz, .h5 for .h5; for many lenses a folder, the catalogue.",
        ),
    ],
    scale: options.Scale = None,
    overwrite: options.Overwrite = False,
    psf: options.PSFs = None,
    error: options.Errors = None,
    mask: options.Masks = None,
    mask_means: options.MaskMeans = None,
    pixel_scale: options.PixelScales = None,
    instrument: options.Instrument = None,
    ext: options.Extension = None,
    band: options.Band = None,
    sky: options.Sky = "keep",
    bad_pixels: options.BadPixels = "mask",
    kind: options.Kind = None,
    method: options.Method = None,
    model: options.Model = None,
    weights: options.Weights = None,
    run: options.Run = None,
    refine: options.Refine = None,
    target_psf: options.TargetPSF = None,
    z_lens: options.LensRedshift = None,
    z_source: options.SourceRedshift = None,
    rows: options.Rows = None,
    workers: options.Workers = 1,
    scheduler: options.Scheduler = None,
    shard_size: options.ShardSize = None,
    device: options.Device = "auto",
    trust: options.Trust = None,
) -> None:
    """Super-resolve your own images; without a trained network, each image is fitted on its own.

    In FITS files image, noise, mask and PSF are found by the names that archives give them (ARC, SCI, VIS_FLUX; ERR,
    VARIANCE, WHT; MASK, DQ; PSF: docs/files.md); the output's WCS keeps each source at its sky position.

    Examples:

    `lensphys super-resolve lens.fits -o lens_sr.fits`

    `lensphys super-resolve lens.fits -o lens_x4.fits --scale 4 --psf psf.fits --error rms.fits --mask dq.fits`

    `lensphys super-resolve euclid.fits -o lens_sr.fits --band NIR_H`

    `lensphys super-resolve lens.fits -o lens_sr.fits --model examples/my_model.yaml`

    `lensphys super-resolve lens.fits -o as_hst.fits --scale 4 --target-psf hst_psf.fits`

    `lensphys super-resolve stack.npy -o sr.npz --weights model_2`

    `lensphys super-resolve stack.npy -o quick.npz --weights model_2 --refine 0`

    `lensphys super-resolve stack.npy -o sr.npz --instrument model_2 --run runs/model_2`

    `lensphys super-resolve survey.npy -o sr.npz --instrument euclid_vis --workers 8`

    `lensphys super-resolve cutouts/ -o survey/ --workers 8`

    `lensphys super-resolve lenses.txt -o survey/ --scheduler tcp://10.0.0.1:8786`

    `lensphys super-resolve exposure_1.fits exposure_2.fits -o lens_sr.fits --as exposures`

    `lensphys super-resolve euclid.fits -o bands_sr.fits --band VIS,NIR_Y,NIR_J,NIR_H`

    For a folder, a list, or an output that is a folder, a catalogue is made: a row for each lens as ECSV, Parquet and
    HTML, and the super-resolved images in `shards/`. A file that cannot be used has a row that says why.

    A stack or a catalogue that was interrupted resumes when the same command is given again.

    Several images of one lens are fitted together: exposures share everything, bands the mass. The fit shifts and
    rotates each within the pointing error about where its WCS, or its middle, puts it.
    """
    from lensphys.api.chosen import chosen_for, network
    from lensphys.api.images import choice_of
    from lensphys.api.redshifts import Redshifts
    from lensphys.catalogue.inputs import is_many
    from lensphys.data.images import Reading
    from lensphys.data.results import check_output
    from lensphys.observation import Instrument

    allow(trust)
    redshifts, where = Redshifts.given(z_lens, z_source), device_of(device)
    bands = [] if band is None else [name.strip() for name in band.split(",")]
    preset = None if instrument is None else Instrument.named(instrument)
    choice = choice_of(ext, band, mask_means)
    reading = Reading(preset, target_psf=target_psf, choice=choice, sky=sky, bad_pixels=bad_pixels)
    given = {"psf": psf, "error": error, "mask": mask, "pixel_scale": pixel_scale}
    beside: dict[str, list[Any]] = {name: list(values or []) for name, values in given.items()}
    files = [*inputs, *beside["psf"], *beside["error"], *beside["mask"], target_psf, model]
    if len(inputs) > 1 or len(bands) > 1 or kind is not None:
        _TOGETHER.check(context)
        several = SeveralImages(inputs, kind or ("bands" if len(bands) > 1 else None), bands, beside, reading)
        several.check()
        keeps(lambda: False)
        claim(out, *files, overwrite=overwrite)
        super_resolve_together(several, chosen_for(None, method, model, None, where), scale or 2, out, redshifts, where)
        return
    source, many = inputs[0], is_many(inputs[0], out)
    (_CATALOGUE if many else _ONE_FILE).check(context)
    own: dict[str, Any] = {name: alone(name, values) for name, values in beside.items()}
    reading = replace(reading, **own)
    if many:
        check_folder(source, out, reading)
    else:
        claim(out, *files, overwrite=overwrite)
        count = _count(source, reading, out, rows)
        check_output(source, out, count is not None)
    chosen = chosen_for(network(run, weights, method), method, model, refine, where)
    reading = replace(reading, fallback=None if preset is not None else chosen.instrument)
    request = Request(source, out, scale or chosen.scale, where, workers, scheduler, shard_size, overwrite)
    if many:
        make_catalogue(request, chosen, reading)
    else:
        _super_resolve_file(request, chosen, reading, _wanted(rows, count), redshifts)


def _count(source: Path, reading: Reading, out: Path, rows: str | None) -> int | None:
    """How many images of lenses a file holds, once for all that asks; None of a file of one image.

    Raises:
        LensphysError: if the file is faulty, or is a FITS cube of which the output alone says that it is a stack.
    """
    from lensphys.data.contents import READ, images_in, kind_of

    count = images_in(source, reading.choice, planes=rows is not None)
    maybe = count is None and out.suffix.lower() == ".npz" and kind_of(source, READ) == "FITS"
    if maybe and images_in(source, reading.choice, planes=True) is not None:
        raise LensphysError(f"{source} is a cube: give --rows : if each plane is a lens of its own, else --ext of one")
    return count


def _wanted(rows: str | None, count: int | None) -> NDArray[Any] | None:
    """Which images of a stack are asked for, all if nothing is said; None of a file of one image."""
    import numpy as np

    asked = None if rows is None else rows_of(rows, 1 if count is None else count)
    if count is None:
        return None
    return np.arange(count) if asked is None else asked


def _super_resolve_file(
    request: Request, chosen: Chosen, reading: Reading, rows: NDArray[Any] | None, redshifts: Redshifts | None
) -> None:
    """Super-resolve the images of one file, and say what was found."""
    from lensphys.api.resolve import kept_beside, resolved
    from lensphys.data.stack import open_images

    keeps(lambda: any(kept_beside(request.out).glob("*.npz")))
    images = open_images(request.source, reading, request.scale, rows)
    for sentence in [*images.remarks, *([] if redshifts is None else redshifts.remarks(images.header))]:
        note(sentence)
    record = {"input": request.source.name}
    record |= {} if reading.target_psf is None else {"target_psf": reading.target_psf.name}
    result = resolved(
        images,
        chosen,
        request.scale,
        redshifts=redshifts,
        workers=request.workers,
        device=request.device,
        record=record,
        beside=request.out,
    )
    if result.without_theta_E is not None:
        note(result.without_theta_E)
    result.save(request.out)
    tell_result(request.out, result)
