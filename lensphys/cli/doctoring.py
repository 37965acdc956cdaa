"""Commands that take in data sets of others, and that say what is wrong with one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lensphys.basics.checks import LensphysError
from lensphys.basics.sentences import counted
from lensphys.cli import options
from lensphys.cli.base import app, claim, console, in_own_options, note, one_sentence

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


@app.command("import")
@one_sentence
def import_(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT...", parser=options.place, help="Folders, .npy files, FITS."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The HDF5 file to write.")],
    hr: Annotated[Path | None, typer.Option(help="Folder or file of HR images, same names or same order.")] = None,
    instrument: options.Instrument = None,
    pixel_scale: Annotated[float | None, typer.Option(help="Side of an LR pixel, in arcsec.")] = None,
    class_name: Annotated[
        str | None,
        typer.Option("--class", metavar="NAME", help="The class of all images; by default the name of their folder."),
    ] = None,
    field: Annotated[int | None, typer.Option(min=0, help="Which item of object arrays is the image.")] = None,
    key: Annotated[str | None, typer.Option(help="Under which key dicts in object arrays hold the image.")] = None,
    axion_mass_field: Annotated[
        str | None,
        typer.Option(metavar="N|KEY", help="Which item of object arrays is the axion mass [eV]."),
    ] = None,
    flux_scale: Annotated[float, typer.Option(help="Factor from the unit of HR images to that of LR images.")] = 1.0,
    register: Annotated[bool, typer.Option("--register", help="Shift HR images onto their LR images.")] = False,
    match_flux: Annotated[
        bool,
        typer.Option("--match-flux", help="Put HR images into the flux of their LR images: a gain and a constant."),
    ] = False,
    hr_instrument: Annotated[
        str | None,
        typer.Option(help="Telescope of the HR images: with both PSFs known, --register and --match-flux fit no blur."),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out images with NaN and pairs that do not match, and list them.")
    ] = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Import .npy files (plain or object arrays), stacks, FITS cut-outs and HDF5 files of lensphys into one HDF5 file.

    Pickled object arrays are read without running any code. Ask `lensphys doctor` about the file afterwards.

    Examples:

    `lensphys import Model_III/ -o model_3.h5 --instrument model_3`

    `lensphys import lr/ --hr hr/ -o pairs.h5 --pixel-scale 0.168 --class lens`

    `lensphys import hsc.h5 --hr hst.h5 -o pairs.h5 --register --match-flux`

    `lensphys import cutouts/ -o cutouts.h5 --class lens --skip-bad`
    """
    from lensphys.data.importing import Importing, import_images
    from lensphys.data.registration import Matching
    from lensphys.data.sources import Picked
    from lensphys.observation import Instrument

    if field is not None and key is not None:
        raise LensphysError("--field and --key both choose the image: give one of them")
    mass = int(axion_mass_field) if axion_mass_field is not None and axion_mass_field.isdigit() else axion_mass_field
    target = None if hr_instrument is None else Instrument.named(hr_instrument)
    done = import_images(
        inputs,
        out,
        Importing(
            instrument=None if instrument is None else Instrument.named(instrument),
            pixel_scale=pixel_scale,
            class_name=class_name,
            picked=Picked(key if field is None else field, mass),
            flux_scale=flux_scale,
            faulty="leave out" if skip_bad else "refuse",
            matching=Matching(register, match_flux, None if target is None else target.psf_of())
            if register or match_flux
            else None,
            target=target,
        ),
        hr=hr,
        overwrite=overwrite,
    )
    for remark in (*done.remarks, *(f"left out: {reason}" for reason in done.skipped)):
        note(remark)
    console.print(f"wrote {out}: {counted(done.count, 'image')}, classes {', '.join(done.classes)}")


@app.command()
@one_sentence
def doctor(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            parser=options.place,
            help="An HDF5 file of `lensphys simulate` or `lensphys import`; or an image of yours: FITS, .npz, .npy.",
        ),
    ],
    others: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[OTHER_FILES...]",
            parser=options.place,
            help="Other splits, which must share no sample with FILE.",
        ),
    ] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the findings to this file.")] = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Check a data set or an image of yours, say what is wrong and what to do; the exit code is 1 if there are errors.

    Of an image it says what the file holds, what `super-resolve` would use of it, and what is odd about its pixels.

    Examples:

    `lensphys doctor lens.fits`

    `lensphys doctor train.h5 validation.h5 test.h5`

    `lensphys doctor imported.h5 --json findings.json`
    """
    from dataclasses import asdict

    from lensphys.basics.outputs import write_json
    from lensphys.evaluation.doctor import diagnose
    from lensphys.evaluation.image_doctor import diagnose_images, is_of_images

    claim(json_path, file, *(others or []), overwrite=overwrite)
    if is_of_images(file) and others:
        raise LensphysError(f"{file} holds images, and splits are for data sets: give one file of images at a time")
    findings = diagnose_images(file) if is_of_images(file) else diagnose(file, others or [])
    for finding in findings:
        console.print(f"[{_COLOURS[finding.severity]}]{finding.severity}[/]", end=" ", markup=True)
        console.print(in_own_options(finding.sentence))
    if json_path is not None:
        write_json(json_path, {"file": str(file), "findings": [asdict(finding) for finding in findings]})
    counts = {name: sum(f.severity == name for f in findings) for name in _COLOURS}
    console.print(f"{file}: " + ", ".join(counted(n, name) for name, n in counts.items()))
    if counts["error"]:
        raise typer.Exit(1)
