"""Samples of a lens file for other tools: lenstronomy, COOLEST, caustics and FITS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lensphys.basics.checks import LensphysError, check_choice
from lensphys.basics.outputs import check_output, move_into_place, replace_folder, scratch
from lensphys.basics.sentences import counted
from lensphys.data.lens_file import LensFile
from lensphys.interop.caustics import write_caustics
from lensphys.interop.coolest import write_coolest
from lensphys.interop.lenstronomy import write_lenstronomy
from lensphys.interop.sample import Truth, write_cut_out
from lensphys.simulation.galaxies import fingerprint

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
        inputs = lenses.files
        check_output(out, inputs, overwrite=overwrite)
        into_file = _is_file(out, kind, suffix, len(chosen))
        stems = [out.stem] if into_file else [f"{_SAMPLE}{index:06d}" for index in chosen]
        with scratch(out) as folder:
            made = folder / "made"
            made.mkdir()
            for index, stem in zip(chosen, stems, strict=True):
                truth = Truth.from_file(lenses, index)
                _check_galaxies(lenses, truth)
                write(made / f"{stem}{suffix}", truth)
            if into_file:
                _move(made, out, inputs, overwrite=overwrite)
            else:
                replace_folder(made, out)
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
            there = counted(len(lenses), "sample")
            raise LensphysError(f"{lenses.path} holds {there}: index {index} is out of range (0 to {len(lenses) - 1})")
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


def _move(made: Path, out: Path, inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Move the files of one sample; the one that was asked for comes last."""
    files = sorted(made.iterdir(), key=lambda path: path.name == out.name)
    for path in files:
        beside = out.parent / path.name
        if beside.exists() and not overwrite:
            raise LensphysError(f"{beside} exists, and would be written beside {out.name}: remove it")
        check_output(beside, inputs, overwrite=overwrite)
    for path in files:
        move_into_place(path, out.parent / path.name)
