"""What all figures share: style, colours, an image with its axes and colour bar, and the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lensphys.basics.outputs import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito: told apart with every kind of colour vision
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
DPI = 160
STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 8,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
}


@dataclass(frozen=True)
class Panel:
    """An image, and how it is shown.

    Args:
        image: (H, W), in any unit.
        field: half width and half height [arcsec].
        cmap: colours.
        low: of their scale, in the unit of the image.
        high: likewise.
        note: in a corner.
        logarithmic: whether the scale is.
    """

    image: np.ndarray
    field: tuple[float, float]
    cmap: str
    low: float
    high: float
    note: str = ""
    logarithmic: bool = False


def percentile(x: np.ndarray, q: float) -> float:
    """Return the ``q``-th percentile, 0 to 100, of the finite values of any shape; 0 if there is none."""
    finite = x[np.isfinite(x)]
    return float(np.percentile(finite, q)) if finite.size else 0.0


def draw(ax: Axes, panel: Panel | None) -> None:
    """Draw a panel with its colour bar; nothing, and no axes, for None."""
    if panel is None:
        ax.set_axis_off()
        return
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, ScalarFormatter

    x, y = panel.field
    high = panel.high if panel.high > panel.low else panel.low + 1e-12
    shown = ax.imshow(
        panel.image,
        origin="lower",
        extent=(-x, x, -y, y),
        cmap=panel.cmap,
        norm=(LogNorm if panel.logarithmic else Normalize)(panel.low, high, clip=panel.logarithmic),
        interpolation="none",
    )
    ax.locator_params(nbins=4)
    ax.text(0.05, 0.94, panel.note, transform=ax.transAxes, color="white", va="top")
    number = ScalarFormatter(useMathText=True)
    number.set_powerlimits((-2, 3))
    ticks = LogLocator(subs=(1, 3)) if panel.logarithmic else MaxNLocator(nbins=4)
    form = FormatStrFormatter("%g") if panel.logarithmic else number
    bar = ax.figure.colorbar(shown, ax=ax, fraction=0.046, pad=0.03, ticks=ticks, format=form)
    bar.minorticks_off()
    bar.ax.yaxis.get_offset_text().set_fontsize(6)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, or as PDF or SVG where its name ends so, whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(DPI)
    kind = path.suffix.lower().removeprefix(".")
    with whole_file(path) as temporary:
        if kind in ("pdf", "svg"):
            figure.savefig(temporary, format=kind)
        else:
            FigureCanvasAgg(figure).print_png(temporary)  # `savefig` draws a figure with a layout twice
