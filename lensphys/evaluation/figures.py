"""Figures of an evaluation and of a training: matplotlib ``Figure`` objects, without pyplot's state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lensphys.basics.checks import LensphysError, check_same_shape
from lensphys.basics.extras import need
from lensphys.basics.panels import COLOURS, DPI, STYLE, Panel, draw, percentile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIGMA, _ALPHA, _KAPPA = r"$\sigma$", r"$|\alpha|$ [arcsec]", r"$\kappa$"
_BEYOND, _TRUE = r"$\delta\kappa$", r"true $\delta\kappa$"  # beyond the smooth lens


@dataclass(frozen=True)
class Sample:
    """One row of `sample_figure`; None where a method or a file has no such image.

    Args:
        title: what it shows: class and number.
        field: half width and half height of the images [arcsec].
        lr: low-resolution image, (H, W) [flux per LR pixel].
        sr: super-resolved image, (sH, sW) [flux per HR pixel].
        hr: noise-free target, (sH, sW) [flux per HR pixel], in the same unit.
        alpha: |alpha|, (sH, sW) [arcsec].
        sigma: standard deviation that the method states for ``sr``, (sH, sW) [flux per HR pixel].
        kappa: convergence, (sH, sW); this and the next two have no unit and are best smoothed a little, for point
            masses to be seen.
        substructure: convergence beyond the smooth macro lens, (sH, sW).
        true_substructure: the same of the truth, (sH, sW).
        source: (S, S) [flux / arcsec^2].
        source_field: half width and half height of the source image [arcsec].
        psnr: in the flux protocol [dB].
    """

    title: str
    field: tuple[float, float]
    lr: np.ndarray
    sr: np.ndarray
    hr: np.ndarray | None = None
    alpha: np.ndarray | None = None
    sigma: np.ndarray | None = None
    kappa: np.ndarray | None = None
    substructure: np.ndarray | None = None
    true_substructure: np.ndarray | None = None
    source: np.ndarray | None = None
    source_field: tuple[float, float] = (1.0, 1.0)
    psnr: float | None = None


def sample_figure(samples: Sequence[Sample], *, name: str = "SR", least_kappa: float = 0.01) -> Figure:
    """Return images of some samples, a row a sample: LR, SR, HR, SR - HR, sigma, |alpha|, kappa, its parts, source.

    LR, SR and HR share a colour scale, surface brightness in units of the target's peak (without a target, of the SR
    image's); so do sigma and |SR - HR|, and delta kappa (beyond the smooth lens) and its truth. Columns that no sample
    has are left out, and |alpha| gives way to delta kappa.

    Args:
        samples: the rows.
        name: the method's, over the SR column.
        least_kappa: where the colours of delta kappa end at least, without unit: where there is no substructure,
            rounding errors should not fill them.

    Raises:
        LensphysError: if there is no sample.
    """
    need("matplotlib", "a figure")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    if not samples:
        raise LensphysError("a figure of samples needs at least one sample, got none")
    rows = [_panels(sample, name, least_kappa) for sample in samples]
    order = ["LR", name, "HR", f"{name} − HR", _SIGMA, _ALPHA, _KAPPA, _BEYOND, _TRUE, "source"]
    headings = [heading for heading in order if any(heading in row for row in rows)]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.95 * len(headings) + 0.3, 1.5 * len(rows) + 0.4), dpi=DPI, layout="constrained")
        axes = figure.subplots(len(rows), len(headings), squeeze=False)
        for row, sample, line in zip(rows, samples, axes, strict=True):
            for heading, ax in zip(headings, line, strict=True):
                draw(ax, row.get(heading))
            line[0].set_ylabel(f"{sample.title}\ny [arcsec]")
        for heading, ax in zip(headings, axes[0], strict=True):
            ax.set_title(heading)
        for ax in axes[-1]:
            ax.set_xlabel("x [arcsec]")
    return figure


def distribution_figure(
    values: Mapping[str, np.ndarray], labels: np.ndarray, classes: Sequence[str], *, heading: str = "PSNR [dB]"
) -> Figure:
    """Return histograms of a metric, a panel a class, with dashed lines at the means; only finite values count.

    Args:
        values: method -> one number an image, (N,).
        labels: class of each image, (N,), indices into ``classes``.
        classes: their names.
        heading: what is shown.

    Raises:
        LensphysError: if values and labels differ in length.
    """
    need("matplotlib", "a figure")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    for name, x in values.items():
        check_same_shape(f"values of {name}", np.shape(x), "labels", np.shape(labels))
    finite = np.concatenate([x[np.isfinite(x)] for x in values.values()]) if values else np.zeros(0)
    edges = np.histogram_bin_edges(finite, bins=min(40, 5 + math.isqrt(len(labels))))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.4 * len(classes) + 0.6, 2.4), dpi=DPI, layout="constrained")
        axes = figure.subplots(1, len(classes), squeeze=False, sharex=True, sharey=True)[0]
        for k, (ax, label) in enumerate(zip(axes, classes, strict=True)):
            for (name, x), colour in zip(values.items(), COLOURS, strict=False):
                x = x[(labels == k) & np.isfinite(x)]
                ax.hist(x, edges, histtype="stepfilled", color=colour, alpha=0.35, linewidth=0)
                ax.hist(x, edges, histtype="step", color=colour, linewidth=1.2, label=name)
                if len(x):
                    ax.axvline(x.mean(), color=colour, linestyle="--", linewidth=1)
            ax.set_title(label)
            ax.set_xlabel(heading)
        axes[0].set_ylabel("images")
        figure.legend(*_line_handles(values), loc="outside upper center", ncols=max(1, len(values)), frameon=False)
    return figure


def _panels(sample: Sample, name: str, least_kappa: float) -> dict[str, Panel]:
    peak = float(np.max(sample.sr if sample.hr is None else sample.hr))
    peak = peak if math.isfinite(peak) and peak > 0 else 1.0
    # the same surface brightness fills a larger LR pixel with more flux
    lr = sample.lr * sample.lr.size / sample.sr.size
    note = "" if sample.psnr is None else f"{sample.psnr:.1f} dB"
    panels = {
        "LR": Panel(lr / peak, sample.field, "inferno", 0, 1),
        name: Panel(sample.sr / peak, sample.field, "inferno", 0, 1, note),
    }
    if sample.hr is not None:
        panels["HR"] = Panel(sample.hr / peak, sample.field, "inferno", 0, 1)
        residual = (sample.sr - sample.hr) / peak
        limit = percentile(np.abs(residual), 99.8)
        panels[f"{name} − HR"] = Panel(residual, sample.field, "RdBu_r", -limit, limit)
        if sample.sigma is not None:
            panels[_SIGMA] = Panel(sample.sigma / peak, sample.field, "viridis", 0, limit)
    elif sample.sigma is not None:
        panels[_SIGMA] = Panel(sample.sigma / peak, sample.field, "viridis", 0, percentile(sample.sigma / peak, 99.8))
    return panels | _lens_panels(sample, least_kappa)


def _lens_panels(sample: Sample, least_kappa: float) -> dict[str, Panel]:
    panels = {}
    if sample.alpha is not None and sample.substructure is None:
        low, high = percentile(sample.alpha, 1), percentile(sample.alpha, 99)
        low = min(low, 0.95 * high)  # a constant |alpha| (an isothermal sphere) should look constant
        panels[_ALPHA] = Panel(sample.alpha, sample.field, "viridis", low, high)
    if sample.kappa is not None:
        high = max(percentile(sample.kappa, 99.5), 1e-6)
        low = max(percentile(sample.kappa, 1), high / 100)
        panels[_KAPPA] = Panel(sample.kappa, sample.field, "cividis", low, high, logarithmic=True)
    pair = {_BEYOND: sample.substructure, _TRUE: sample.true_substructure}
    known = {heading: x for heading, x in pair.items() if x is not None}
    limit = max([least_kappa, *(percentile(np.abs(x), 99.7) for x in known.values())])
    for heading, x in known.items():
        panels[heading] = Panel(x, sample.field, "RdBu_r", -limit, limit)
    if sample.source is not None:
        source = sample.source / max(percentile(sample.source, 100), 1e-30)
        panels["source"] = Panel(source, sample.source_field, "inferno", 0, 1)
    return panels


def _line_handles(names: Mapping[str, Any]) -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], color=colour) for _, colour in zip(names, COLOURS, strict=False)], list(names)
