"""What bends the arcs beyond a smooth lens, as images of convergence to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lensphys.model import LensModel, PointSwarm
from lensphys.observation import GaussianPSF
from lensphys.prediction import Prediction
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid


def soft_kappa(field: DeflectionField, fwhm: float = 3.0) -> Tensor:
    """Return kappa, smoothed by a Gaussian of ``fwhm`` [pixels], so that point masses can be seen, (B, 1, H, W)."""
    return GaussianPSF(fwhm * field.grid.scale).blur(field.kappa, field.grid.scale)


def beyond_macro(prediction: Prediction) -> Tensor | None:
    """Return the smoothed kappa of a prediction less that of its SIE + shear, (B, 1, H, W); None if it names no such.

    The deflections are subtracted before the derivative, for the SIE's kappa is infinite at its centre.
    """
    return None if prediction.deflection is None else beyond(prediction.deflection, prediction.parameters)


def beyond(
    field: DeflectionField, values: Mapping[str, Tensor], model: LensModel = LensModel.smooth()
) -> Tensor | None:
    """Return the smoothed kappa of a deflection field less that of a model, (B, 1, H, W); None without its values.

    Args:
        field: of everything.
        values: ``member.parameter`` -> (B,): the free parameters of the model's mass components, and any others.
        model: what is subtracted.
    """
    names = [f"{name}.{p.name}" for name, member in model.mass.items() for p in member.free]
    if any(name not in values for name in names):
        return None
    macro = model.deflector({name: values[name].to(field.alpha) for name in names})(field.theta)
    return soft_kappa(DeflectionField(field.alpha - macro, field.grid))


def true_substructure(models: Sequence[dict[str, Any]], grid: PixelGrid) -> Tensor:
    """Return the smoothed kappa of all the point masses of simulated lenses, (B, 1, H, W).

    Args:
        models: what `LensFile.lens_model` returns, one a lens.
        grid: the pixels.
    """
    images = []
    for model in models:
        names, values = model["lens_model_list"], model["kwargs_lens"]
        points = [v for name, v in zip(names, values, strict=True) if name == "POINT_MASS"]
        strength, x, y = (
            torch.tensor([[f(p) for p in points]], dtype=torch.float64).reshape(1, -1)
            for f in (lambda p: p["theta_E"] ** 2, lambda p: p["center_x"], lambda p: p["center_y"])
        )
        images.append(soft_kappa(DeflectionField.from_lens(PointSwarm(strength, x, y), grid, like=strength)))
    return torch.cat(images)
