"""Which sizes an image of a lens can have: those of simulations, instruments and files alike."""

from __future__ import annotations

PIXEL_SCALES = (1e-4, 60.0)  # smallest and largest [arcsec]: no telescope that sees lenses has others
SMALLEST_SIDE = 8  # pixels; below it an array is not an image (a stack saved as (H, W, 3))
