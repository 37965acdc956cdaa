"""What is wrong with a data set, and what to do about it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lensphys.basics.sentences import counted
from lensphys.basics.terminal import tracked
from lensphys.data.lens_file import LensFile
from lensphys.data.sources import is_axion
from lensphys.evaluation.light_sampling import coarse_light
from lensphys.evaluation.symptoms import SymptomSettings, symptoms
from lensphys.simulation.light_sampling import POINTS
from lensphys.simulation.scene import substructure_of

Severity = Literal["error", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
_PIXELS = 2**21  # HR pixels at a time
_ROWS = 256  # images at a time
_FIRST = 5  # indices that a finding names
_TRUTH = ("hr_clean", "lr_clean", "alpha_hr", "lens_model", "flux_scale")
_WITHOUT = ("no_sub", "nosub", "no", "none", "smooth")


@dataclass(frozen=True)
class Finding:
    """Something about a data set.

    Args:
        name: of the kind of finding.
        severity: an error spoils results, a warning may, a note is good to know.
        message: what was found.
        images: how many show it; 0 if it is about the file.
        first: indices of the first ones.
        remedy: what to do.
    """

    name: str
    severity: Severity
    message: str
    images: int = 0
    first: tuple[int, ...] = ()
    remedy: str = ""

    @property
    def sentence(self) -> str:
        """All of it in one line."""
        more = ", ..." if self.images > len(self.first) else ""
        where = f" [{counted(self.images, 'image')}: {', '.join(map(str, self.first))}{more}]" if self.images else ""
        return f"{self.name}: {self.message}{where}" + (f"; {self.remedy}" if self.remedy else "")


class Kind(NamedTuple):
    """What is said of a symptom, and of what to do."""

    severity: Severity
    message: str  # {value}: the median of what was measured
    remedy: str


KINDS: dict[str, Kind] = {
    "not_finite": Kind("error", "LR images with NaN or infinite pixels ({value:.0f} each)", "mask or drop them"),
    "not_finite_lr_clean": Kind("error", "/lr_clean has NaN or infinite pixels", "make those samples again"),
    "not_finite_hr_clean": Kind("error", "/hr_clean has NaN or infinite pixels", "make those samples again"),
    "not_finite_hr": Kind("error", "/hr has NaN or infinite pixels", "mask or drop those images"),
    "not_finite_alpha_hr": Kind("error", "/alpha_hr has NaN or infinite pixels", "make those samples again"),
    "constant": Kind("error", "LR images of one value everywhere ({value:.3g})", "drop them"),
    "dark": Kind("error", "LR images without light: nothing stands 5 sigma out of their noise", "drop them"),
    "border": Kind(
        "warning",
        "{value:.1%} of the pixels are a border of one value, which nobody observed",
        "cut it off: it counts as a sky without noise",
    ),
    "flux_scale": Kind("error", "/flux_scale is not positive and finite", "store exposure times for counts, else 1"),
    "integers": Kind(
        "error",
        "whole numbers up to {value:.0f} in an instrument whose unit is a rate",
        "these are counts: divide them by the exposure time, or name an instrument in counts",
    ),
    "min_max": Kind(
        "error",
        "images scaled to 0..1 exactly: their flux and noise are lost",
        "go back to images in the unit of the detector",
    ),
    "clipped_high": Kind(
        "warning",
        "{value:.1%} of the pixels at exactly the highest value",
        "saturated or cut: mask them or drop the images",
    ),
    "clipped_low": Kind(
        "warning",
        "{value:.1%} of the pixels at exactly the lowest value",
        "cut or padded: the noise law does not hold there",
    ),
    "no_estimate": Kind(
        "error", "images whose noise cannot be estimated: most faint pixels are equal", "store unclipped images"
    ),
    "noise_free": Kind(
        "error",
        "images with hardly any noise ({value:.2g} of what is expected, or of the peak where no law is known)",
        "store the recorded image as /lr and the clean one as /lr_clean",
    ),
    "noise_law": Kind(
        "error",
        "noise that does not fit the instrument's law: chi^2 per pixel {value:.3g} beside /lr_clean",
        "name the instrument, exposure and background that these images were made with",
    ),
    "flux_ratio": Kind(
        "error",
        "LR images with {value:.3g} of the flux of the truth times /flux_scale: the unit is wrong",
        "multiply /flux_scale by about that number (import with --flux-scale)",
    ),
    "hr_moved": Kind(
        "error",
        "LR images that fit the HR image far better when it is turned or shifted by a pixel ({value:.3g} sigma apart)",
        "make both with the same axes and centre",
    ),
    "hr_foreign": Kind(
        "error",
        "LR images that are neither the binned nor the sampled HR image ({value:.3g} sigma apart)",
        "check that pairs belong together, that both have one PSF, and that HR is flux per HR pixel",
    ),
    "pair_moved": Kind(
        "warning",
        "LR images that fit the observed HR image far better when it is turned (correlation now {value:.2f})",
        "give both the same axes",
    ),
    "pair_foreign": Kind(
        "warning",
        "LR images that hardly resemble their observed HR image (correlation {value:.2f})",
        "check that pairs belong together and are centred alike",
    ),
    "hr_binned": Kind("note", "LR images are the binned HR images", ""),
    "hr_sampled": Kind("note", "LR images are the HR images sampled at pixel centres, as in the legacy data", ""),
    "alpha_theta_E": Kind(
        "warning",
        "deflections of {value:.3g} theta_E at the Einstein ring",
        "store the deflection and the theta_E that made the image (watch the source redshift convention)",
    ),
}  # fmt: skip


def diagnose(
    path: str | Path, others: Sequence[str | Path] = (), settings: SymptomSettings = SymptomSettings()
) -> list[Finding]:
    """Return what is wrong with a data set, errors first; memory is bounded, whatever its size.

    Args:
        path: an HDF5 file of ours.
        others: other splits, which must share no sample with it.
        settings: what is a symptom of an image.

    Raises:
        LensphysError: if a file is missing, damaged or not ours.
    """
    with LensFile(path) as file:
        held = set(file.names)
        for other in others:
            LensFile(other).close()  # a wrong name shows now, not after minutes
        if len(file) == 0:
            return [Finding("empty", "error", "the file holds no image", remedy="simulate or import again")]
        found = list(_of_file(file, held))
        found += _of_images(file, held, settings)
        found += _of_sampling(file)
        found += _of_labels(file, held)
        prints = _fingerprints(file, "lr")
        found += _doubled(prints)
        for other in others:
            found += _shared(file, held, prints, Path(other))
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def _of_file(file: LensFile, held: set[str]) -> Iterator[Finding]:
    missing = [f"/{name}" for name in _TRUTH if name not in held and name not in file.left_out]
    if missing:
        what = "what needs it (metrics, checks of pairs) is left out"
        yield Finding("missing_truth", "note", f"the file has no {', '.join(missing)}", remedy=what)
    if "flux_scale" not in held and held & {"hr", "hr_clean"}:
        remedy = "HR is taken to be in the unit of LR: store /flux_scale if it is not"
        yield Finding("flux_scale", "warning", "the file has HR images and no /flux_scale", remedy=remedy)


def _chunks(file: LensFile, held: set[str], title: str) -> Iterator[NDArray[np.int64]]:
    """Rows of the file, a batch at a time, with a progress bar."""
    grid = file.grid_hr if held & {"hr", "hr_clean", "alpha_hr"} else file.grid_lr
    size = max(1, min(_ROWS, _PIXELS // (grid.height * grid.width)))
    starts = range(0, len(file), size)
    for start in tracked(starts, title):
        yield np.arange(start, min(start + size, len(file)))


def _of_images(file: LensFile, held: set[str], settings: SymptomSettings) -> Iterator[Finding]:
    shown: dict[str, list[NDArray[np.floating]]] = {}
    rows: dict[str, list[NDArray[np.int64]]] = {}
    for index in _chunks(file, held, "looking at images"):
        for name, values in symptoms(file, held, index, settings).items():
            flagged = ~np.isnan(values)
            if flagged.any():
                shown.setdefault(name, []).append(values[flagged])
                rows.setdefault(name, []).append(index[flagged])
    counts = {name: sum(map(len, rows.get(name, []))) for name in ("hr_binned", "hr_sampled")}
    shown.pop(
        min(counts, key=lambda name: counts[name]), None
    )  # where there is no cusp, both fit: one answer is enough
    for name, kind in KINDS.items():
        if name in shown:
            message = kind.message.format(value=float(np.median(np.concatenate(shown[name]))))
            severity = kind.severity
            if name == "min_max" and file.instrument.noise.kind == "estimated":
                severity = "warning"  # nobody claims to know their unit
            yield _finding(name, severity, message, np.concatenate(rows[name]), kind.remedy)


def _finding(name: str, severity: Severity, message: str, index: NDArray[Any], remedy: str) -> Finding:
    return Finding(name, severity, message, len(index), tuple(int(i) for i in index[:_FIRST]), remedy)


def _of_sampling(file: LensFile) -> Iterator[Finding]:
    coarse = coarse_light(file)
    if coarse is None:
        return
    need = f"{coarse.needed} x {coarse.needed}" if coarse.needed else f"more than {POINTS[-1]} x {POINTS[-1]}"
    message = (
        f"light of {coarse.points} x {coarse.points} points a pixel, where these sources need {need}: the error adds "
        f"{coarse.chi2.max():.0f} to chi^2, and a fit takes it for sub-halos"
    )
    # a point a pixel is what the legacy data mean by one; whoever takes several means its area
    severity: Severity = "note" if coarse.points == 1 else "warning"
    remedy = "simulate again with `supersampling: auto` in the instrument's file"
    yield _finding("coarse_light", severity, message, coarse.rows, remedy)


def _of_labels(file: LensFile, held: set[str]) -> Iterator[Finding]:
    if "label" not in held:
        yield Finding(
            "label", "warning", "the file has no /label", remedy="evaluate needs one: store zeros for one class"
        )
        return
    labels, classes = np.asarray(file.read("label")), file.classes
    outside = (labels < 0) | (labels >= len(classes))
    if outside.any():
        message = f"labels outside of the {len(classes)} classes ({', '.join(classes)})"
        yield _finding("label_range", "error", message, np.flatnonzero(outside), "store indices into classes")
    counts = np.bincount(labels[~outside], minlength=len(classes))
    absent = [name for name, n in zip(classes, counts, strict=True) if n == 0]
    if absent:
        remedy = "drop it from classes, or add samples"
        yield Finding("class_absent", "warning", f"no sample of {', '.join(absent)}", remedy=remedy)
    if len(set(counts[counts > 0].tolist())) > 1:
        listed = ", ".join(f"{name} {n}" for name, n in zip(classes, counts, strict=True))
        yield Finding("class_counts", "note", f"the classes are not equally frequent: {listed}")
    names = np.array(["", *classes])[np.where(outside, 0, labels + 1)]
    if "lens_model" in held:
        yield from _of_lens_models(file, held, names)
    if "axion_mass" in held:
        mass = np.isfinite(file.read("axion_mass"))
        vortex = np.array([is_axion(name) for name in names])
        wrong = np.flatnonzero(mass & ~vortex & ~outside)
        if len(wrong):
            remedy = "check the labels, or store NaN"
            yield _finding("axion_mass", "error", "an axion mass outside of the axion classes", wrong, remedy)
        bare = np.flatnonzero(~mass & vortex)
        if len(bare):
            remedy = "check the labels, or store the mass [eV]"
            yield _finding("axion_mass", "warning", "axion samples without an axion mass", bare, remedy)


def _of_lens_models(file: LensFile, held: set[str], names: NDArray[Any]) -> Iterator[Finding]:
    """Samples whose lens is not of their class."""
    bodies = np.zeros(len(file), dtype=bool)
    for index in _chunks(file, held, "reading lens models"):
        bodies[index] = [bool(substructure_of(model)) for model in file.lens_models(index)]
    without = np.isin(names, [name for name in file.classes if _is_without(file, name)])
    wrong = np.flatnonzero(bodies & without)
    if len(wrong):
        message = "samples of a class without substructure whose lens model has some"
        yield _finding("label_lens_model", "error", message, wrong, "check the labels")
    for name in dict.fromkeys(names[~without & (names != "")].tolist()):
        own = names == name
        bare = np.flatnonzero(own & ~bodies)
        if len(bare):  # a population may be empty by chance
            severity: Severity = "warning" if len(bare) > own.sum() / 2 else "note"
            message = f"samples of {name} whose lens model has no substructure"
            yield _finding("label_lens_model", severity, message, bare, "check the labels")


def _is_without(file: LensFile, name: str) -> bool:
    """Whether a class has no substructure: by its recipe, else by its name."""
    population = file.recipe.get("classes", {}).get(name)
    kind = population.get("kind") if isinstance(population, dict) else None
    return name.lower() in _WITHOUT if kind is None else kind == "none"


def _fingerprints(file: LensFile, name: str) -> NDArray[np.uint64]:
    """A hash of each sample, 8 bytes: among 10^7 samples two are equal by chance once in 3 * 10^5 data sets."""
    prints = np.zeros(len(file), dtype=np.uint64)
    for index in _chunks(file, {"hr"}, f"comparing /{name}"):
        for i, x in zip(index, file.read(name, index), strict=True):
            data = x if isinstance(x, bytes) else np.ascontiguousarray(x).tobytes()
            prints[i] = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
    return prints


def _doubled(prints: NDArray[np.uint64]) -> Iterator[Finding]:
    _, first, count = np.unique(prints, return_index=True, return_counts=True)
    again = np.setdiff1d(np.arange(len(prints)), first)
    if len(again):
        several = int((count > 1).sum())
        copied = "1 image has" if several == 1 else f"{several} images have"
        message = f"LR images that repeat an earlier one exactly ({copied} copies)"
        yield _finding("doubled", "error", message, again, "drop the copies")


def _shared(file: LensFile, held: set[str], prints: NDArray[np.uint64], path: Path) -> Iterator[Finding]:
    """Samples that another file holds as well."""
    with LensFile(path) as other:
        same = np.isin(prints, _fingerprints(other, "lr"))
        if same.any():
            message = f"LR images that {path} holds as well"
            remedy = "a leak between splits: simulate with another --seed, or drop them from one"
            yield _finding("shared_images", "error", message, np.flatnonzero(same), remedy)
        if "lens_model" in held & other.names:
            twins = np.isin(_fingerprints(file, "lens_model"), _fingerprints(other, "lens_model")) & ~same
            if twins.any():
                message = f"lenses that {path} holds as well, in other images"
                remedy = "meant for counterfactuals and several telescopes; a leak if these are training and test"
                yield _finding("shared_truth", "warning", message, np.flatnonzero(twins), remedy)
