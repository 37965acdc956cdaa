"""Colours of the page's images: palettes, and stretches as palettes whose colours are not evenly spaced."""

from __future__ import annotations

import numpy as np
from bokeh.palettes import Cividis256, Greys256, Inferno256, Viridis256, interp_palette

STRETCHES = ("linear", "sqrt", "asinh", "log")
PALETTES: dict[str, tuple[str, ...]] = {
    "inferno": Inferno256,
    "grey": Greys256,
    "grey, inverted": tuple(reversed(Greys256)),
    "viridis": Viridis256,
    "cividis": Cividis256,
}
# both signs, dark where nothing is: on a dark page what differs shines
TWO_SIDED = tuple(interp_palette(["#8fe3ff", "#2f8fd8", "#173f6b", "#0c0f14", "#6b241c", "#dd5b39", "#ffd08a"], 255))
OF_GROUP = {
    "light": Inferno256,
    "arcs": Inferno256,
    "residual": TWO_SIDED,
    "sigma": Viridis256,
    "kappa": Cividis256,
    "beyond": TWO_SIDED,
    "share": Greys256,
}
OF_LIGHT = ("light", "arcs")  # groups whose stretch and colours the reader chooses
STEPS = 1024  # colours of a stretched palette
SOFTENING = {"asinh": 0.05, "log": 0.01}  # in units of the highest value: where a stretch is linear below


def stretched(palette: tuple[str, ...], stretch: str) -> list[str]:
    """Return a palette of `STEPS` colours that, drawn on a linear scale, looks like another stretch.

    assets/display.js does the same in the page.

    Args:
        palette: evenly spaced colours.
        stretch: one of `STRETCHES`.
    """
    x = np.linspace(0, 1, STEPS)
    if stretch == "asinh":
        x = np.arcsinh(x / SOFTENING["asinh"]) / np.arcsinh(1 / SOFTENING["asinh"])
    elif stretch == "log":
        x = np.log1p(x / SOFTENING["log"]) / np.log1p(1 / SOFTENING["log"])
    elif stretch == "sqrt":
        x = np.sqrt(x)
    return [palette[i] for i in np.rint(x * (len(palette) - 1)).astype(int)]
