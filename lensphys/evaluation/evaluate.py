"""Judge a method on a file of lenses, with a baseline and the ceiling beside it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lensphys.basics.checks import LensphysError, check_whole
from lensphys.basics.outputs import whole_file, write_json
from lensphys.basics.panels import save_figure
from lensphys.basics.terminal import counted_inside
from lensphys.data.hdf5 import damage
from lensphys.data.kept import Kept
from lensphys.data.unusable import unusable
from lensphys.evaluation import metrics
from lensphys.evaluation.figures import Sample, distribution_figure, sample_figure
from lensphys.evaluation.quality import counts, lens_lines, summary_lines
from lensphys.evaluation.statistics import summary
from lensphys.evaluation.substructure import beyond_macro, soft_kappa, true_substructure
from lensphys.evaluation.tables import ALL, COLUMNS, metrics_table
from lensphys.observation import Observation
from lensphys.prediction import QUALITIES, Method, Prediction, Verdict, source_grid
from lensphys.tracing.grid import PixelGrid

if TYPE_CHECKING:
    from lensphys.data.lens_file import LensFile

_TRUTH = ("flux_scale", "hr", "hr_clean", "lr_clean", "alpha_hr", "theta_E")
_SCENE = "lens_model"
_EXAMPLES = 1  # images of each class in the figure of samples
_QUALITY, _REASONS = "verdict/quality", "verdict/reasons"
_CEILING = "ceiling (noise-free truth)"

Values = dict[str, np.ndarray]
Measures = Callable[[Prediction, "Truth"], Values]


@dataclass(frozen=True)
class Judging:
    """Which images are judged, and how.

    Args:
        rows: which images of the file, their indices (n,) in rising order; all if None.
        limit: at most this many images of each class, the first ones; all if None.
        batch_size: images at a time.
        seed: of the bootstrap.
        device: where the methods compute.
        measures: more metrics, (n,) each, of a prediction and the truth; they stand in for those of the same name.

    Raises:
        LensphysError: if the batch size is not 1 or more.
    """

    rows: np.ndarray | None = None
    limit: int | None = None
    batch_size: int = 32
    seed: int = 0
    device: str = "cpu"
    measures: Measures | None = None

    def __post_init__(self) -> None:
        check_whole("batch_size", self.batch_size, 1)

    def of(self, labels: np.ndarray) -> np.ndarray:
        """Return the indices of the images that are asked for, (n,), of a file with such labels (N,)."""
        asked = np.arange(len(labels)) if self.rows is None else self.rows
        return asked[first_of_each(labels[asked], self.limit)]


@dataclass(frozen=True)
class Evaluation:
    """What a method reached on each image, beside a baseline and the ceiling.

    Args:
        data: name of the data set.
        classes: their names.
        index: which images of the file were judged, (N,).
        labels: their classes, (N,), indices into ``classes``.
        names: how ``method``, ``baseline`` and ``ceiling`` are called.
        values: role -> metric -> one number an image, (N,); NaN where there is none.
        samples: rows of the figure of samples.
        verdicts: what each image's fit says of itself, N of them; none if the method does not judge itself.
        unusable: why images were left out, by their index.
        seed: of the bootstrap.
        kept: the numbers of each batch on the disk, which go once all is written.
    """

    data: str
    classes: list[str]
    index: np.ndarray
    labels: np.ndarray
    names: dict[str, str]
    values: dict[str, Values]
    samples: list[Sample] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    unusable: dict[int, str] = field(default_factory=dict)
    seed: int = 0
    kept: Kept | None = None

    @property
    def quality(self) -> list[str]:
        """How many fits call themselves good, suspect and bad, and the worst ones: lines for a terminal."""
        return summary_lines(self._lenses, self.verdicts)

    @property
    def _lenses(self) -> list[str]:
        return [f"image {i} ({self.classes[k]})" for i, k in zip(self.index, self.labels, strict=True)]

    def tree(self) -> dict[str, Any]:
        """Return what ``metrics.json`` holds: a `statistics.summary` for each role, class (and ``all``) and metric."""
        chosen = {c: self.labels == k for k, c in enumerate(self.classes)} | {ALL: np.ones(len(self.labels), bool)}
        results = {
            role: {
                c: {m: summary(x[rows], self.seed) for m, x in values.items() if m != "seconds"}
                for c, rows in chosen.items()
            }
            for role, values in self.values.items()
        }
        seconds = {
            role: float(np.median(values["seconds"])) for role, values in self.values.items() if "seconds" in values
        }
        return {
            "data": self.data,
            "classes": self.classes,
            "images": {c: int(rows.sum()) for c, rows in chosen.items()},
            "names": self.names,
            "median_seconds_per_image": seconds,
            "verdicts": counts(self.verdicts),
            "left_out": self.unusable,
            "results": results,
        }

    def write(self, folder: Path, provenance: dict[str, Any]) -> None:
        """Write ``samples.npz`` (one number an image), the figures (PNG), ``table.md`` and, last, ``metrics.json``.

        A method that judges itself has ``verdicts.txt``, too: a line a lens, the worst first. What was kept of the
        batches goes when all of it stands.

        Args:
            folder: made if it is not there.
            provenance: `provenance.provenance` of the run.
        """
        tree = {"provenance": provenance, **self.tree()}
        arrays: dict[str, Any] = {f"{role}/{m}": x for role, values in self.values.items() for m, x in values.items()}
        with whole_file(folder / "samples.npz") as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, index=self.index, label=self.labels, **arrays)
        if self.verdicts:
            with whole_file(folder / "verdicts.txt") as temporary:
                temporary.write_text(
                    "".join(f"{line}\n" for line in lens_lines(self._lenses, self.verdicts)), encoding="utf-8"
                )
        self._draw(folder / "figures")
        with whole_file(folder / "table.md") as temporary:
            temporary.write_text(metrics_table(tree), encoding="utf-8")
        write_json(folder / "metrics.json", tree)
        if self.kept is not None:
            self.kept.remove()

    def _draw(self, folder: Path) -> None:
        if self.samples:
            save_figure(sample_figure(self.samples, name=self.names["method"]), folder / "samples.png")
        for metric in ("psnr_flux", "psnr_seed"):
            shown = {
                self.names[r]: v[metric] for r, v in self.values.items() if metric in v and np.isfinite(v[metric]).any()
            }
            if shown:
                figure = distribution_figure(shown, self.labels, self.classes, heading=COLUMNS[metric][0])
                save_figure(figure, folder / f"{metric}.png")


def evaluate(
    method: Method,
    file: LensFile,
    how: Judging = Judging(),
    *,
    name: str,
    data: str = "",
    baseline: Method | None = None,
    baseline_name: str = "bicubic",
    beside: Path | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Return how well a method does on the images of a file; metrics whose truth the file lacks are left out.

    Of each image a few numbers are kept, so that memory does not grow with the images.

    Args:
        method: what is judged.
        file: LR images and their truth.
        how: which of them, and how many at a time.
        name: of the method, in the results.
        data: name of the data set, in the results.
        baseline: judged beside the method, batch by batch; none if None.
        baseline_name: its name.
        beside: a folder where the numbers of finished batches are kept until `Evaluation.write` is done, so that a
            run that was killed goes on; none if None.
        origin: what the numbers depend on beside the images: others are not taken from the folder.

    Raises:
        LensphysError: if there is nothing to judge, or a method's image does not fit the HR image.
    """
    labels = np.asarray(file.labels)
    asked = how.of(labels)
    lost = unusable(file, asked, *(["hr_clean"] if file.has("hr_clean") else []))
    index = asked[~np.isin(asked, list(lost))]
    if len(index) == 0:
        raise LensphysError(f"{file.path}: none of the {len(asked)} images can be judged, image {_first(lost)}")
    batches = np.split(index, range(how.batch_size, len(index), how.batch_size))
    methods = {"method": method} | ({"baseline": baseline} if baseline is not None else {})
    judged = _Judged(index, labels, {role: {} for role in (*methods, "ceiling")})
    kept = None
    if beside is not None:
        of = {"data": file.identity, "index": index.tolist(), "batch_size": how.batch_size, **(origin or {})}
        kept = Kept(beside, of, len(batches))
    judged.judge_all(methods, file, _progress(batches, f"evaluating {name}"), how, kept)
    return Evaluation(
        data=data,
        classes=list(file.classes),
        index=index,
        labels=labels[index],
        names={"method": name, "baseline": baseline_name, "ceiling": _CEILING},
        values=judged.values,
        samples=judged.samples,
        verdicts=judged.verdicts,
        unusable=lost,
        seed=how.seed,
        kept=kept,
    )


def _first(lost: dict[int, str]) -> str:
    return next(f"{i} {reason}" for i, reason in lost.items())


@dataclass
class _Judged:
    """What was found of the images so far.

    Args:
        index: of all images that shall be judged, (N,).
        labels: of all images of the file.
        values: role -> metric -> (N,), NaN where there is none: made at once, so that no image stays behind.
    """

    index: np.ndarray
    labels: np.ndarray
    values: dict[str, Values]
    samples: list[Sample] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    def judge_all(
        self,
        methods: dict[str, Method],
        file: LensFile,
        batches: Iterable[np.ndarray],
        how: Judging,
        kept: Kept | None,
    ) -> None:
        """Judge all methods on all images, but for those of batches that are kept."""
        held = _held(file)
        missing = set() if kept is None else set(kept.missing)
        for i, batch in enumerate(batches):
            titles = self._titles(file.classes, batch)
            if kept is not None and i not in missing and not titles:  # what is shown is not kept
                found = _Batch.from_arrays(kept.chunk(i))
            else:
                found = _judged_batch(methods, file, held, batch, how, titles)
                if kept is not None:
                    kept.keep(i, found.arrays)
            for role, values in found.values.items():
                self._keep(role, batch, values)
            self.verdicts += found.verdicts
            self.samples += found.samples

    def _titles(self, classes: Sequence[str], batch: np.ndarray) -> dict[int, str]:
        """Which rows of a batch are shown in the figure of samples, the first of each class, and their titles."""
        shown = set(self.index[first_of_each(self.labels[self.index], _EXAMPLES)].tolist())
        return {k: f"{classes[self.labels[i]]} #{i}" for k, i in enumerate(batch.tolist()) if i in shown}

    def _keep(self, role: str, batch: np.ndarray, values: Values) -> None:
        rows = np.searchsorted(self.index, batch)
        for metric, x in values.items():
            self.values[role].setdefault(metric, np.full(len(self.index), np.nan))[rows] = x


@dataclass(frozen=True)
class _Batch:
    """What was found of a batch: see `_Judged`."""

    values: dict[str, Values]
    verdicts: list[Verdict]
    samples: list[Sample] = field(default_factory=list)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The numbers and verdicts, by name, to be kept."""
        found = {f"{role}/{name}": x for role, values in self.values.items() for name, x in values.items()}
        words = np.array([json.dumps(v.reasons) for v in self.verdicts], dtype=str)
        return found | {_QUALITY: np.array([v.quality for v in self.verdicts], dtype=str), _REASONS: words}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> _Batch:
        """Return what was kept."""
        pairs = zip(arrays.pop(_QUALITY).tolist(), arrays.pop(_REASONS).tolist(), strict=True)
        verdicts = [Verdict(quality, tuple(json.loads(words))) for quality, words in pairs]
        values: dict[str, Values] = {}
        for name, x in arrays.items():
            role, metric = name.split("/", 1)
            values.setdefault(role, {})[metric] = x
        return cls(values, verdicts)


def _judged_batch(
    methods: dict[str, Method],
    file: LensFile,
    held: frozenset[str],
    batch: np.ndarray,
    how: Judging,
    titles: dict[int, str],
) -> _Batch:
    """Judge all methods on a batch; ``titles`` are of those of its rows that are shown."""
    truth, observation = Truth.read(file, held, batch), file.observation(batch, how.device)
    found: dict[str, Values] = {}
    verdicts: list[Verdict] = []
    samples: list[Sample] = []
    for role, method in methods.items():
        prediction, seconds = _timed(method, observation, file.upscale)
        values = _judge(prediction, observation, truth)
        values |= how.measures(prediction, truth) if how.measures is not None else {}
        found[role] = values | {"seconds": np.full(len(batch), seconds)}
        if role == "method":
            verdicts += prediction.verdicts
            masses = _masses(file, held, batch[list(titles)], prediction.camera.grid)
            samples += _samples(titles, prediction, observation, truth, values, masses)
    return _Batch(found | {"ceiling": _ceiling(observation, truth)}, verdicts, samples)


@dataclass(frozen=True)
class Truth:
    """What a file knows of some lenses, in float64; None where it does not.

    Args:
        index: which lenses of the file, (n,).
        flux_scale: from the unit of the HR images to that of the LR images, (n, 1, 1, 1).
        hr: HR images as they were recorded, (n, 1, sH, sW) [flux per HR pixel].
        hr_clean: those without noise, (n, 1, sH, sW) [flux per HR pixel].
        lr_clean: LR images without noise, (n, 1, H, W) [flux per LR pixel], in the unit of the HR images.
        alpha: reduced deflection, (n, 2, sH, sW) [arcsec].
        theta_E: Einstein radius of the main lens, (n,) [arcsec].
    """

    index: np.ndarray
    flux_scale: Tensor
    hr: Tensor | None
    hr_clean: Tensor | None
    lr_clean: Tensor | None
    alpha: Tensor | None
    theta_E: Tensor | None

    @classmethod
    def read(cls, file: LensFile, names: frozenset[str], index: np.ndarray) -> Truth:
        """Return the truth of some lenses, by their indices (n,); ``names`` are what the file holds of it."""
        found: dict[str, Tensor | None] = dict.fromkeys(_TRUTH)
        for name in names - {_SCENE}:
            x = torch.as_tensor(np.asarray(file.read(name, index)), dtype=torch.float64)
            found[name] = x[:, None] if x.ndim == 3 else x
        scale, alpha = found.pop("flux_scale"), found.pop("alpha_hr")
        scale = torch.ones(len(index), dtype=torch.float64) if scale is None else scale
        return cls(index, scale.reshape(-1, 1, 1, 1), alpha=alpha, **found)


def _held(file: LensFile) -> frozenset[str]:
    """The truths that a file holds: asking for no row fails where a dataset is missing, not where it is damaged."""
    held = set()
    for name in (*_TRUTH, _SCENE):
        with suppress(LensphysError):
            file.read(name, slice(0, 0))
            held.add(name)
    return frozenset(held)


def first_of_each(labels: np.ndarray, limit: int | None) -> np.ndarray:
    """Return the first ``limit`` indices (n,) of each label of (N,), in ascending order (as HDF5 wants them).

    Raises:
        LensphysError: if there are none.
    """
    if limit is not None:
        check_whole("the number of images of each class", limit, 1)
    index = np.sort(np.concatenate([np.flatnonzero(labels == k)[:limit] for k in np.unique(labels)] or [labels]))
    if len(index) == 0:
        raise LensphysError("the file holds no images to evaluate")
    return index


def _progress(batches: list[np.ndarray], description: str) -> Iterable[np.ndarray]:
    return counted_inside(batches, description, len, sum(map(len, batches)))


def _timed(method: Method, observation: Observation, scale: int) -> tuple[Prediction, float]:
    """The prediction, and seconds per image."""
    start = time.perf_counter()
    with torch.no_grad():
        prediction = method.predict(observation, scale)
    prediction.image.detach().cpu()  # waits for a GPU
    return prediction, (time.perf_counter() - start) / len(observation)


def _judge(prediction: Prediction, observation: Observation, truth: Truth) -> Values:
    """Every metric that prediction and truth allow, (n,)."""
    image = _double(prediction.image) / truth.flux_scale
    found = {"chi2_dof": prediction.reduced_chi2(observation).detach()}
    if truth.hr_clean is not None:
        found |= metrics.flux_protocol(image, truth.hr_clean)
        found["flux_bias"] = metrics.flux_bias(image, truth.hr_clean)
        if prediction.sigma is not None:
            found |= metrics.coverage(image, _double(prediction.sigma) / truth.flux_scale, truth.hr_clean)
        if truth.alpha is not None and prediction.deflection is not None:
            alpha = _double(prediction.deflection.alpha).expand(len(image), -1, -1, -1)
            found["alpha_error"] = metrics.alpha_error(alpha, truth.alpha, truth.hr_clean)
    if truth.hr is not None:
        found |= metrics.seed_protocol(image, truth.hr)
    if truth.theta_E is not None and "theta_E" in prediction.parameters:
        found["theta_E_error"] = _double(prediction.parameters["theta_E"]) / truth.theta_E - 1
    if prediction.verdicts:
        found |= {q: torch.tensor([float(v.quality == q) for v in prediction.verdicts]) for q in QUALITIES}
    return {metric: _double(x).numpy() for metric, x in found.items()}


def _ceiling(observation: Observation, truth: Truth) -> Values:
    """What the truth itself would score, where that is limited by noise."""
    found = {}
    if truth.lr_clean is not None:
        clean = (truth.lr_clean * truth.flux_scale).to(observation.image)
        found["chi2_dof"] = observation.chi2(clean) / observation.n_unmasked
    if truth.hr is not None and truth.hr_clean is not None:
        found |= metrics.seed_protocol(truth.hr_clean, truth.hr)
    return {metric: _double(x).numpy() for metric, x in found.items()}


def _masses(file: LensFile, held: frozenset[str], index: np.ndarray, grid: PixelGrid) -> Tensor | None:
    """The true substructure of some lenses, if the file has it."""
    if len(index) == 0 or _SCENE not in held:
        return None
    models = file.lens_models(index)
    with damage(f"{file.path}: /lens_model"):
        return true_substructure(models, grid)


def _samples(
    titles: dict[int, str],
    prediction: Prediction,
    observation: Observation,
    truth: Truth,
    values: Values,
    masses: Tensor | None,
) -> Iterator[Sample]:
    """Rows of the figure of samples; ``titles`` names the rows of the batch, ``masses`` has their true substructure."""
    if not titles:
        return
    grid, lens = observation.camera.grid, prediction.deflection
    behind = source_grid(grid)
    source = prediction.source_image(behind)

    def plane(x: Tensor | None, row: int) -> np.ndarray | None:
        return None if x is None else _double(x)[row if len(x) > 1 else 0, 0].numpy()

    scaled = None if truth.hr_clean is None else truth.hr_clean * truth.flux_scale
    kappa, beyond = None if lens is None else soft_kappa(lens), beyond_macro(prediction)
    for k, (row, title) in enumerate(titles.items()):
        yield Sample(
            title=title,
            field=(grid.width * grid.scale / 2, grid.height * grid.scale / 2),
            lr=_double(observation.image)[row, 0].numpy(),
            sr=_double(prediction.image)[row, 0].numpy(),
            hr=plane(scaled, row),
            alpha=None if lens is None else plane(torch.linalg.vector_norm(lens.alpha, dim=1, keepdim=True), row),
            kappa=plane(kappa, row),
            substructure=plane(beyond, row),
            true_substructure=None if lens is None else plane(masses, k),
            sigma=plane(prediction.sigma, row),
            source=plane(source, row),
            source_field=(behind.radius, behind.radius),
            psnr=float(values["psnr_flux"][row]) if "psnr_flux" in values else None,
        )


def _double(x: Tensor) -> Tensor:
    return x.detach().to("cpu", torch.float64)
