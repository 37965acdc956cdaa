"""Figures of images and results, for a look at them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from lensphys.deflection import DeflectionField
from lensphys.evaluation.panels import DPI, STYLE, Panel, draw, percentile
from lensphys.grid import PixelGrid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lensphys.api.images import Images
    from lensphys.api.result import Result

Array = NDArray[Any]

_MOST = 8  # images of a stack
_SIGMAS = 4.0  # of the noise: the scale of residuals


def images_figure(images: Images) -> Figure:
    """Return a figure of the first images of a stack, or of the one there is."""
    shown = images.set.observation.image[:_MOST, 0].numpy()
    field, unit = _field(images.set.observation.camera.grid), " [flux/pixel]"
    titles = [f"image {i}{unit}" for i in images.set.index] if len(images) > 1 else [f"{images.name}{unit}"]
    panels = {t: Panel(x, field, "inferno", 0.0, percentile(x, 99.9)) for t, x in zip(titles, shown, strict=False)}
    return _figure(panels, min(4, len(panels)))


def result_figure(result: Result) -> Figure:
    """Return a figure of the result of one image: LR, SR, residual, sigma, kappa and source, as far as there are any.

    LR and SR share a colour scale of surface brightness; the residual is in units of the noise. Over the image and
    kappa lie the critical curves.
    """
    figure = _figure(_panels(result), 3)
    if result.alpha is not None:
        for ax in figure.axes:
            if ax.get_title().startswith(("SR", "$\\kappa")):
                _critical_lines(ax, result)
    return figure


def _panels(result: Result) -> dict[str, Panel]:
    images, field = result.images, _field(result.images.set.observation.camera.grid)
    ratio = result.scale**2  # a large pixel holds the flux of so many small ones
    peak = percentile(result.image, 99.9) * ratio
    scatter = result.residual / images.noise
    panels = {
        f'LR, {images.pixel_scale:.3g}" pixels': Panel(images.image, field, "inferno", 0.0, peak),
        f'SR, {result.pixel_scale:.3g}" pixels': Panel(result.image * ratio, field, "inferno", 0.0, peak),
        "LR residual / noise": Panel(scatter, field, "RdBu_r", -_SIGMAS, _SIGMAS, f"$\\chi^2$ {result.chi2:.2f}"),
    }
    if result.sigma is not None:
        sigma = result.sigma * ratio
        panels["$\\sigma$ of SR"] = Panel(sigma, field, "viridis", 0.0, percentile(sigma, 99.8))
    if result.kappa is not None:
        high = max(percentile(result.kappa, 99.5), 1e-6)
        low = max(percentile(result.kappa, 1), high / 100)
        panels["$\\kappa$"] = Panel(result.kappa, field, "cividis", low, high, _ring(result), logarithmic=True)
    if result.source is not None and result.source_scale is not None:
        half = 0.5 * result.source_scale * len(result.source)
        panels["source"] = Panel(result.source, (half, half), "inferno", 0.0, percentile(result.source, 99.95))
    return panels


def _ring(result: Result) -> str:
    return "" if result.theta_E is None else f'$\\theta_E$ {result.theta_E:.3g}"'


def _critical_lines(ax: Axes, result: Result) -> None:
    """Draw where det A = 0, on the pixels of the result."""
    grid = result.images.set.observation.camera.grid.resampled(result.scale)
    det = 1 / DeflectionField(torch.from_numpy(result.alpha)[None], grid).magnification[0, 0]
    x, y = grid.positions()[0].numpy()
    ax.contour(x, y, det.numpy(), levels=[0.0], colors="white", linewidths=0.6)


def _figure(panels: dict[str, Panel], columns: int) -> Figure:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = -(-len(panels) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.6 * columns + 0.3, 2.2 * rows + 0.2), dpi=DPI, layout="constrained")
        axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
        for ax, title in zip(axes, [*panels, *[""] * (len(axes) - len(panels))], strict=True):
            draw(ax, panels.get(title))
            ax.set_title(title)
        for ax in axes[::columns]:
            ax.set_ylabel("y [arcsec]")
        for ax in axes[-columns:]:
            ax.set_xlabel("x [arcsec]")
    return figure


def _field(grid: PixelGrid) -> tuple[float, float]:
    return 0.5 * grid.width * grid.scale, 0.5 * grid.height * grid.scale
