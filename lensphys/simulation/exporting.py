"""Samples of a lens file for other tools: lenstronomy, COOLEST, caustics and FITS."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lensphys.checks import LensphysError, check_choice, check_file
from lensphys.data.caustics import write_caustics
from lensphys.data.coolest import write_coolest
from lensphys.data.exporting import Component, Truth, lacking, psf_kernel, write_cut_out
from lensphys.data.hdf5 import files_of
from lensphys.data.lens_file import LensFile
from lensphys.model import LIGHT, MASS, by_lenstronomy
from lensphys.observation import GaussianPSF
from lensphys.outputs import check_output, put, scratch, write_json
from lensphys.simulation.galaxies import fingerprint, with_image

Keywords = dict[str, Any]


def lenstronomy_keywords(truth: Truth) -> dict[str, Keywords]:
    """Return a sample in the words of lenstronomy, with numpy images.

    ``create_image_model(kwargs_data, kwargs_psf, kwargs_numerics, kwargs_model).image(**kwargs_params)`` renders
    lr_clean (of lenstronomy 1.14: square images only). Data are in flux: in counts/s where the instrument counts. A
    camera that integrates over pixels blurs on its supersampled pixels: ``supersampling_convolution`` is on, but for a
    kernel on pixels no finer than the image's, which blurs afterwards. lenstronomy's defaults differ: without it pixels
    are summed first (up to 5 % of the peak where the PSF is no wider than a pixel), and of a kernel it blurs only 5
    pixels on the supersampled grid (``supersampling_kernel_size``; 0.7 % with the Moffat PSF of rubin_lsst_i).

    Returns:
        ``kwargs_model`` (of the class creator), ``kwargs_params`` (``kwargs_lens, kwargs_source, kwargs_lens_light``),
        ``kwargs_data``, ``kwargs_psf``, ``kwargs_numerics``.

    Raises:
        LensphysError: if lenstronomy has no such profile, or the images of galaxies are missing.
    """
    names: dict[str, list[str]] = {}
    parameters: dict[str, list[Keywords]] = {}
    lights = (("source_light", "kwargs_source", truth.sources), ("lens_light", "kwargs_lens_light", truth.lens_light))
    for key, keywords, components in (("lens", "kwargs_lens", truth.lenses), *lights):
        names[f"{key}_model_list"] = [_known(component) for component in components]
        parameters[keywords] = [with_image(values) for _, values in components]
    return {
        "kwargs_model": {**names, "z_lens": truth.z_lens, "z_source": truth.z_source},
        "kwargs_params": dict(parameters),
        "kwargs_data": _data(truth),
        "kwargs_psf": _psf(truth),
        "kwargs_numerics": {
            "supersampling_factor": truth.camera.supersampling,
            "supersampling_convolution": truth.camera.blurs_first,
            "supersampling_kernel_size": None,  # not only 5 pixels of the kernel
        },
    }


def _known(component: Component) -> str:
    name = component[0]
    ours = by_lenstronomy(MASS) | by_lenstronomy(LIGHT)
    if name in ours and not ours[name].in_lenstronomy:
        raise lacking("lenstronomy", name, [known for known, of in ours.items() if of.in_lenstronomy])
    return name


def _data(truth: Truth) -> Keywords:
    grid = truth.camera.grid
    place = {
        "ra_at_xy_0": -0.5 * (grid.width - 1) * grid.scale,
        "dec_at_xy_0": -0.5 * (grid.height - 1) * grid.scale,
        "transform_pix2angle": grid.scale * np.eye(2),
    }
    data = {"image_data": np.asarray(truth.lr / truth.flux_scale, dtype=np.float64)} | place
    if truth.exposure is not None:
        return data | {"background_rms": truth.exposure[0], "exposure_time": truth.exposure[1]}
    return data | {"noise_map": np.asarray(truth.error / truth.flux_scale, dtype=np.float64)}


def _psf(truth: Truth) -> Keywords:
    camera, kernel = truth.camera, psf_kernel(truth.camera)
    if kernel is None:
        return {"psf_type": "NONE"}
    if isinstance(camera.psf, GaussianPSF):
        width = {"fwhm": camera.psf.extent, "truncation": camera.psf.truncate}
        return {"psf_type": "GAUSSIAN", "pixel_size": camera.grid.scale} | width
    factor = camera.supersampling if camera.blurs_first else 1
    return {"psf_type": "PIXEL", "kernel_point_source": kernel[0], "point_source_supersampling_factor": factor}


def write_lenstronomy(path: Path, truth: Truth) -> None:
    """Write a sample in the words of lenstronomy as JSON: see `lenstronomy_keywords`; images are lists of rows.

    Args:
        path: the file; it is overwritten.
        truth: the sample.

    Raises:
        LensphysError: as `lenstronomy_keywords` does.
    """
    write_json(path, lenstronomy_keywords(truth))


def read_lenstronomy(path: Path) -> dict[str, Keywords]:
    """Return what `write_lenstronomy` wrote, with numpy images again.

    Raises:
        LensphysError: if there is no such file, or it is another one.
    """
    check_file("keywords of lenstronomy", path)
    try:
        tree = json.loads(path.read_text())
        groups = [tree[name] for name in ("kwargs_data", "kwargs_psf")]
        groups += [values for lists in tree["kwargs_params"].values() for values in lists]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LensphysError(f"{path} was not written by 'lensphys export --format lenstronomy'") from None
    for group in groups:
        group.update({name: np.array(value) for name, value in group.items() if isinstance(value, list)})
    return dict(tree)


_WRITERS: dict[str, tuple[str, Callable[[Path, Truth], None]]] = {
    "lenstronomy": (".json", write_lenstronomy),
    "coolest": (".json", write_coolest),
    "caustics": (".yaml", write_caustics),
    "fits": (".fits", write_cut_out),
}
EXPORT_FORMATS = tuple(_WRITERS)
_SAMPLE = "sample_"  # what the files in a folder begin with


def export(
    source: str | Path, out: str | Path, kind: str, indices: Sequence[int] | None = None, *, overwrite: bool = False
) -> list[Path]:
    """Write samples of a lens file for another tool, all or none.

    Args:
        source: the HDF5 file of ``lensphys simulate``.
        out: a new folder, which gets sample_000000 and so on; or for a single sample a new file of the format's suffix.
        kind: ``lenstronomy`` (JSON), ``coolest`` (JSON and FITS), ``caustics`` (YAML) or ``fits`` (cut-outs).
        indices: which samples; all if None.
        overwrite: a file, or a folder of samples alone, that is there is replaced.

    Returns:
        The files, one a sample.

    Raises:
        LensphysError: if the format is unknown, the file holds no truth or no such sample, the tool lacks one of its
            profiles, or ``out`` is an input, exists or cannot be written.
    """
    out = Path(out)
    check_choice("format", kind, EXPORT_FORMATS)
    suffix, write = _WRITERS[kind]
    with LensFile(source) as lenses:
        chosen = list(range(len(lenses)) if indices is None else dict.fromkeys(indices))
        _check(lenses, chosen)
        inputs = files_of(lenses.path)
        check_output(out, inputs, overwrite=overwrite)
        into_file = _is_file(out, kind, suffix, len(chosen))
        stems = [out.stem] if into_file else [f"{_SAMPLE}{index:06d}" for index in chosen]
        with scratch(out) as folder:
            made = folder / "made"
            made.mkdir()
            for index, stem in zip(chosen, stems, strict=True):
                truth = Truth.of(lenses, index)
                _check_galaxies(lenses, truth)
                write(made / f"{stem}{suffix}", truth)
            if into_file:
                _move(made, out, inputs, overwrite=overwrite)
            else:
                _replace(made, out, folder / "before")
    return [out] if into_file else [out / f"{stem}{suffix}" for stem in stems]


def _check_galaxies(lenses: LensFile, truth: Truth) -> None:
    """The images that a sample names are those that made it, and no other file of this machine."""
    named = {keywords["file"] for _, keywords in (*truth.sources, *truth.lens_light) if "file" in keywords}
    for file in named:
        if lenses.galaxies.get(file) != fingerprint(file):
            raise LensphysError(f"{lenses.path} was not made with the images of galaxies that are in {file} now")


def _check(lenses: LensFile, chosen: list[int]) -> None:
    if not lenses.has("lens_model"):
        raise LensphysError(f"{lenses.path} has no /lens_model: only files of 'lensphys simulate' hold what to export")
    for index in chosen:
        if not 0 <= index < len(lenses):
            raise LensphysError(
                f"{lenses.path} holds {len(lenses)} samples: index {index} is out of range (0 to {len(lenses) - 1})"
            )
    if not chosen:
        raise LensphysError("there is nothing to export: give --index I,J or --all")


def _is_file(out: Path, kind: str, suffix: str, samples: int) -> bool:
    if out.is_dir():
        others = [path.name for path in out.iterdir() if not path.name.startswith(_SAMPLE)]
        if others:
            raise LensphysError(f"{out} holds more than samples ({others[0]}) and is kept: choose another --out")
        return False
    if out.suffix not in {other for other, _ in _WRITERS.values()}:
        return False
    if out.suffix != suffix:
        raise LensphysError(f"the format {kind} is written as *{suffix}, got {out}: rename it, or name a folder")
    if samples > 1:
        raise LensphysError(f"{out} can hold one sample, not {samples}: name a folder")
    return True


def _replace(made: Path, out: Path, before: Path) -> None:
    """Put a folder into its place; what is there is put aside."""
    if out.is_dir():
        os.replace(out, before)
    put(made, out)


def _move(made: Path, out: Path, inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Move the files of one sample; the one that was asked for comes last."""
    files = sorted(made.iterdir(), key=lambda path: path.name == out.name)
    for path in files:
        beside = out.parent / path.name
        if beside.exists() and not overwrite:
            raise LensphysError(f"{beside} exists, and would be written beside {out.name}: remove it")
        check_output(beside, inputs, overwrite=overwrite)
    for path in files:
        put(path, out.parent / path.name)
