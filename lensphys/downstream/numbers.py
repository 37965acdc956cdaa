"""Numbers of a lens: those of its fit, and those of its image that must not matter."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lensphys.downstream.products import Results
from lensphys.fitting import LensProblem
from lensphys.fitting.starts import significant_light
from lensphys.observation import Observation
from lensphys.observation.psf import GaussianPSF
from lensphys.tracing.grid import PixelGrid

Numbers = dict[str, NDArray[np.float64]]

_RINGS = (0.0, 0.5, 0.85, 1.15, 1.5, 2.0)  # of theta_E: between them the mean convergence is taken
_QUALITY = {"good": 0.0, "suspect": 1.0, "bad": 2.0}


def named_parameters(results: Results) -> dict[str, Tensor]:
    """Return the fitted parameters of a product by name, (N,) each; none of methods without."""
    if "parameters" not in results:
        return {}
    names = [str(name) for name in results["parameter_names"]]
    return {name: torch.from_numpy(results["parameters"][:, i]) for i, name in enumerate(names)}


def fit_numbers(
    observation: Observation, results: Results, delta_kappa: Tensor | None, fine: PixelGrid, residual: Tensor
) -> Numbers:
    """Return the numbers of each lens's fit, (N,) each; NaN where a fit has none.

    Args:
        observation: the images.
        results: of the product.
        delta_kappa: convergence beyond the smooth lens, (N, 1, sH, sW), without unit, or None.
        fine: its pixels.
        residual: image less model in units of the noise, (N, 1, H, W).
    """
    found: Numbers = {name: x.double().numpy() for name, x in named_parameters(results).items()}
    found["chi2"] = results["chi2"].astype(np.float64)
    found |= scores(results) | _of_residual(residual)
    if "quality" in results:
        found["quality"] = np.array([_QUALITY[str(q)] for q in results["quality"]])
    if delta_kappa is not None:
        found |= _of_kappa(delta_kappa, fine, found.get("lens.theta_E", np.full(len(observation), 1.0)))
    return found


def scores(results: Results) -> Numbers:
    """Return what a fit says of substructure, (N,) each, as far as the method tells it.

    ``best_gain`` and ``substructure_evidence``: see `fitting.source.Shown`, as asinh, for they span decades;
    ``subhalos``, their summed ``strength`` theta_E^2 [arcsec^2], that of the strongest, and ``distance``, their mean
    distance from the middle by strength [arcsec].
    """
    found: Numbers = {}
    for name in ("best_gain", "substructure_evidence"):
        if name in results:
            found[name] = np.arcsinh(results[name].astype(np.float64))
    if "bodies" in results:
        bodies = np.nan_to_num(results["bodies"].astype(np.float64))
        power = bodies[:, :, 2] ** 2
        total = power.sum(1)
        away = np.hypot(bodies[:, :, 0], bodies[:, :, 1])
        found["subhalos"] = (power > 0).sum(1).astype(np.float64)
        found["strength"], found["strongest"] = total, power.max(1, initial=0.0)
        found["distance"] = np.where(total > 0, (power * away).sum(1) / np.maximum(total, 1e-30), np.nan)
    return found


def _of_residual(residual: Tensor) -> Numbers:
    """What a fit leaves over: its spread, the largest 3 x 3 mean, and how much neighbours share."""
    blurred = 3 * torch.nn.functional.avg_pool2d(residual, 3, stride=1, padding=1)
    along = (residual[..., 1:] * residual[..., :-1]).flatten(1).mean(1)
    across = (residual[..., 1:, :] * residual[..., :-1, :]).flatten(1).mean(1)
    power = residual.square().flatten(1).mean(1)
    found = {
        "residual_rms": power.sqrt(),
        "residual_largest": blurred.abs().flatten(1).amax(1),
        "residual_shared": (along + across) / (2 * power.clamp(min=1e-30)),
    }
    return {name: x.double().numpy() for name, x in found.items()}


def _of_kappa(kappa: Tensor, grid: PixelGrid, theta_E: NDArray[np.float64]) -> Numbers:
    """Convergence beyond the smooth lens: rms, extremes, means of rings, and how much it is a line in the middle."""
    x, y = grid.positions(like=kappa)[0].double()
    radius = torch.hypot(x, y)
    scaled = radius / torch.from_numpy(np.nan_to_num(theta_E, nan=1.0)).clamp(min=0.1)[:, None, None]
    k, near = kappa[:, 0].double(), (scaled < _RINGS[-1]).double()
    count = near.sum((1, 2)).clamp(min=1)
    found = {
        "kappa_rms": ((k.square() * near).sum((1, 2)) / count).sqrt(),
        "kappa_highest": (k * near).flatten(1).amax(1),
        "kappa_lowest": (k * near).flatten(1).amin(1),
    }
    for low, high in pairwise(_RINGS):
        ring = ((scaled >= low) & (scaled < high)).double()
        found[f"kappa_{low:g}_{high:g}"] = (k * ring).sum((1, 2)) / ring.sum((1, 2)).clamp(min=1)
    squared = radius.square().clamp(min=grid.scale**2)
    turns = [(part / squared * k * near).sum((1, 2)) for part in (x.square() - y.square(), 2 * x * y)]
    found["kappa_line"] = torch.hypot(*turns) / (k.abs() * near).sum((1, 2)).clamp(min=1e-12)
    fine = k - GaussianPSF(8 * grid.scale).blur(kappa, grid.scale)[:, 0].double()
    found["kappa_clumps"] = ((fine.square() * near).sum((1, 2)) / count).sqrt()
    return {name: value.numpy() for name, value in found.items()}


def nuisances(observation: Observation) -> Numbers:
    """Return what of an image tells nothing of its dark matter, (N,) each.

    ``flux``: ln of the light that stands out of the noise [flux]; ``arc_radius``: its mean distance from the middle of
    the field [arcsec], which is theta_E as far as an image shows it without a model; ``signal_to_noise``: ln of that of
    all this light.
    """
    found = [_nuisances_of(observation[rows]) for rows in torch.arange(len(observation)).split(256)]
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def _nuisances_of(observation: Observation) -> Numbers:
    light = significant_light(LensProblem.from_observation(observation))[0].double()
    theta = observation.camera.grid.positions(like=light)
    sigma = observation.noise.variance(observation.image).double().sqrt()
    bright = (light > 0) * observation.weight
    flux = light.sum((1, 2, 3)).clamp(min=1e-30)
    radius = (light * theta.norm(dim=1, keepdim=True)).sum((1, 2, 3)) / flux
    power = ((observation.image * bright / sigma).square()).sum((1, 2, 3)).clamp(min=1e-30)
    return {"flux": flux.log().numpy(), "arc_radius": radius.numpy(), "signal_to_noise": (0.5 * power.log()).numpy()}
