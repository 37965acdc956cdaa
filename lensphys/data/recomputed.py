"""What a file of simulated lenses left out, computed from the truth that it holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lensphys.basics.checks import LensphysError, shortened
from lensphys.model import MASS, by_lenstronomy
from lensphys.model.by_name import deflection_of
from lensphys.tracing.grid import PixelGrid

LEFT_OUT = ("alpha_hr",)  # what a file may do without
_BATCH = 32  # samples in memory


def alpha_hr(texts: Sequence[Any] | NDArray[Any], grid: PixelGrid, engine: str) -> NDArray[np.float32]:
    """Return the deflection of some samples at the centres of their HR pixels, (n, 2, sH, sW) [arcsec].

    Masses alone are looked at: light, for which a file may name others, does not deflect.

    Args:
        texts: their lens models.
        grid: the HR pixels.
        engine: which one simulated them: the digits are its own.
    """
    made = np.empty((len(texts), 2, *grid.shape), np.float32)
    theta = grid.positions(like=torch.empty(0, dtype=torch.float64))
    for start in range(0, len(texts), _BATCH):
        models = [json.loads(text) for text in texts[start : start + _BATCH]]
        made[start : start + _BATCH] = (_by_lenstronomy if engine == "lenstronomy" else _by_us)(models, theta)
    return made


@torch.no_grad()
def _by_us(models: list[dict[str, Any]], theta: torch.Tensor) -> NDArray[np.float32]:
    lenses = [list(zip(m["lens_model_list"], m["kwargs_lens"], strict=True)) for m in models]
    unknown = {name for lens in lenses for name, _ in lens} - set(by_lenstronomy(MASS))
    if unknown:
        raise LensphysError(
            f"/alpha_hr was left out, and needs the profile {shortened(min(unknown))} to be computed: import the "
            "module that has it, or simulate the file again with --deflection"
        )
    alpha = deflection_of(lenses, theta.flatten(2)[:, :, None], compiled=True)
    return alpha[:, :, 0].unflatten(-1, theta.shape[-2:]).float().numpy()


def _by_lenstronomy(models: list[dict[str, Any]], theta: torch.Tensor) -> NDArray[np.float32]:
    from lenstronomy.LensModel.lens_model import LensModel

    x, y = theta[0].flatten(1).numpy()
    alpha = [np.stack(LensModel(m["lens_model_list"]).alpha(x, y, m["kwargs_lens"])) for m in models]
    return np.stack(alpha).reshape(-1, *theta.shape[1:]).astype(np.float32)
