"""What bends the arcs beyond a smooth lens, as images of convergence to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lensphys.model import LensModel
from lensphys.model.by_name import deflection_of
from lensphys.observation import GaussianPSF
from lensphys.prediction import Prediction
from lensphys.simulation.scene import substructure_of
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
    """Return the smoothed kappa of all that is no smooth mass of simulated lenses, (B, 1, H, W).

    Args:
        models: what `LensFile.lens_model` returns, one a lens.
        grid: the pixels.
    """
    theta = grid.positions(like=torch.zeros(1, dtype=torch.float64))
    masses = [substructure_of(model) for model in models]
    alpha = deflection_of(masses, theta.flatten(2)[:, :, None], compiled=True)
    return soft_kappa(DeflectionField(alpha.reshape(len(models), *theta.shape[1:]), grid))
