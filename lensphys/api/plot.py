"""Figures of images and results, for a look at them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lensphys.basics.panels import DPI, STYLE, Panel, draw, percentile
from lensphys.basics.sentences import readable
from lensphys.tracing.critical import critical_curves
from lensphys.tracing.grid import PixelGrid

Array = NDArray[Any]

_KAPPA = "$\\kappa$"


@dataclass(frozen=True)
class Look:
    """What is shown of a result.

    Args:
        grid: pixels of ``lr``.
        scale: how many times as fine ``sr`` is.
        lr: (H, W) [flux per pixel].
        noise: of ``lr``, (H, W) [flux per pixel], NaN where a pixel was left out; None where unknown: the residual's
            scatter stands for it.
        residual: of ``lr``, (H, W) [flux per pixel].
        chi2: per degree of freedom.
        sr: (sH, sW) [flux per pixel].
        sigma: of ``sr``, (sH, sW) [flux per pixel], or None.
        kappa: convergence, (sH, sW), without unit, or None.
        alpha: (2, sH, sW) [arcsec], or None.
        source: (S, S) [flux / arcsec^2], or None.
        source_scale: of its pixels [arcsec].
        theta_E: [arcsec], or None.
        lens_light: of the lens galaxy in ``lr``, (H, W) [flux per pixel], zero where there is none, or None.
    """

    grid: PixelGrid
    scale: int
    lr: Array
    noise: Array | None
    residual: Array
    chi2: float
    sr: Array
    sigma: Array | None = None
    kappa: Array | None = None
    alpha: Array | None = None
    source: Array | None = None
    source_scale: float | None = None
    theta_E: float | None = None
    lens_light: Array | None = None

    @property
    def name(self) -> str:
        """What ``sr`` is: on the image's own pixels, the model."""
        return "SR" if self.scale > 1 else "model"


def images_figure(images: Mapping[str, Array], grid: PixelGrid) -> Figure:
    """Return a figure of some images (H, W) [flux per pixel] on a pixel grid, by their titles."""
    panels = {t: Panel(x, _field(grid), "inferno", 0.0, percentile(x, 99.9)) for t, x in images.items()}
    return _figure(panels, min(4, len(panels)))


def result_figure(look: Look, sigmas: float = 4.0) -> Figure:
    """Return a figure of the result of one image: LR, SR, residual, sigma, kappa and source, as far as there are any.

    Where the lens galaxy is in the image, LR without it as well.

    LR and SR share a colour scale of surface brightness; the residual is in units of the noise. Over the image and
    kappa lie the critical curves.

    Args:
        look: what is shown.
        sigmas: where the colours of the residual end [sigma of the noise].
    """
    figure = _figure(_panels(look, sigmas), 3)
    if look.alpha is not None:
        for ax in figure.axes:
            if ax.get_title().startswith((look.name, _KAPPA)):
                for curve in critical_curves(look.alpha, look.grid.scale / look.scale):
                    ax.plot(*curve.critical.T, color="white", linewidth=0.7)
    return figure


def _panels(look: Look, sigmas: float) -> dict[str, Panel]:
    field, fine = _field(look.grid), look.grid.scale / look.scale
    ratio = look.scale**2  # a large pixel holds the flux of so many small ones
    peak = percentile(look.sr, 99.9) * ratio
    left = f"LR residual / {'noise' if look.noise is not None else 'its scatter'}, $\\chi^2$ {readable(look.chi2)}"
    noise = max(float(np.std(look.residual[look.residual != 0])), 1e-30) if look.noise is None else look.noise
    panels = {
        f'LR, {look.grid.scale:.3g}" pixels': Panel(look.lr, field, "inferno", 0.0, peak),
        f'{look.name}, {fine:.3g}" pixels': Panel(look.sr * ratio, field, "inferno", 0.0, peak),
        **_arcs(look, field),
        left: Panel(look.residual / noise, field, "RdBu_r", -sigmas, sigmas),
    }
    if look.sigma is not None:
        sigma = look.sigma * ratio
        panels[f"$\\sigma$ of {look.name}"] = Panel(sigma, field, "viridis", 0.0, percentile(sigma, 99.8))
    if look.kappa is not None:
        high = max(percentile(look.kappa, 99.5), 1e-6)
        low = max(percentile(look.kappa, 1), high / 100)
        ring = "" if look.theta_E is None else f'$\\theta_E$ {look.theta_E:.3g}"'
        panels[_KAPPA] = Panel(look.kappa, field, "cividis", low, high, ring, logarithmic=True)
    if look.source is not None and look.source_scale is not None:
        half = 0.5 * look.source_scale * len(look.source)
        panels["source"] = Panel(look.source, (half, half), "inferno", 0.0, percentile(look.source, 99.95))
    return panels


def _arcs(look: Look, field: tuple[float, float]) -> dict[str, Panel]:
    """The image without the light of the lens galaxy, which outshines the arcs; nothing where there is none."""
    if look.lens_light is None or not look.lens_light.any():
        return {}
    arcs = look.lr - look.lens_light
    return {"LR without the lens galaxy": Panel(arcs, field, "inferno", 0.0, percentile(arcs, 99.5))}


class Picture(Figure):
    """A figure without pyplot's state that notebooks show."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def _figure(panels: dict[str, Panel], columns: int) -> Figure:
    rows = -(-len(panels) // columns)
    with mpl.rc_context(STYLE):
        figure = Picture(figsize=(2.6 * columns + 0.3, 2.2 * rows + 0.2), dpi=DPI, layout="constrained")
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
