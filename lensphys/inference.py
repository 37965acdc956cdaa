"""Super-resolving a set of images of any size, a chunk at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from lensphys.grid import PixelGrid
from lensphys.methods import Method, Prediction
from lensphys.observation import Observation
from lensphys.prediction import BODY

_SOURCE_PIXELS = 100


def super_resolve(
    method: Method, observation: Observation, scale: int, *, batch_size: int = 16, device: str = "cpu"
) -> dict[str, Any]:
    """Return what a method makes of a set of images.

    Args:
        method: any `Method`.
        observation: images (N, 1, H, W) and how they were taken.
        scale: pixels become so many times as small.
        batch_size: images at once.
        device: where the method computes.

    Returns:
        ``image`` (N, sH, sW) [flux per pixel], ``residual`` (N, H, W) [flux per pixel] and ``chi2`` (N,) per degree of
        freedom; where the method has them ``sigma`` (N, sH, sW) [flux per pixel], the standard deviation of ``image``,
        ``constrained`` (N, sH, sW), 1 where the data and 0 where the prior determined the deflection, ``alpha`` (N, 2,
        sH, sW) [arcsec], ``kappa`` (N, sH, sW), ``theta_E`` (N,) [arcsec], ``subhalos`` (N,), how many were found,
        ``source`` (N, 100, 100) [flux / arcsec^2] and ``source_scale`` [arcsec]; ``parameters`` and ``errors`` (N, P)
        of ``parameter_names`` and ``parameter_units`` (P,); ``bodies`` (N, K, 7), the sub-halos, NaN where an image
        has fewer, in the columns of ``body_columns``; ``quality`` (N,), good, suspect or bad, and ``reasons`` (N,).
    """
    rows = torch.arange(len(observation)).split(batch_size)
    source_grid = _source_grid(observation.camera.grid)
    chunks = []
    with torch.no_grad():
        for chunk in track(rows, description="super-resolving", transient=True, console=Console(stderr=True)):
            part = observation[chunk].to(device)
            chunks.append(_planes(method.predict(part, scale), part, source_grid))
    result: dict[str, Any] = {name: _together(name, chunks) for name in chunks[0]}
    if "source" in result:
        result["source_scale"] = source_grid.scale
    return result


def _together(name: str, chunks: list[dict[str, np.ndarray]]) -> np.ndarray:
    parts = [chunk[name] for chunk in chunks]
    if name.startswith("parameter_") or name == "body_columns":
        return parts[0]
    if name == "bodies":
        most = max(part.shape[1] for part in parts)
        parts = [np.pad(p, ((0, 0), (0, most - p.shape[1]), (0, 0)), constant_values=np.nan) for p in parts]
    return np.concatenate(parts)


def _table(prediction: Prediction) -> dict[str, np.ndarray]:
    """All parameters with their errors; nothing for methods without."""
    if not prediction.errors:
        return {}
    names = list(prediction.errors)
    none = torch.full_like(prediction.image[:, 0, 0, 0], torch.nan)
    values, errors = (
        torch.stack([of.get(name, none).to(none) for name in names], dim=1)
        for of in (prediction.parameters, prediction.errors)
    )
    return {
        "parameters": values.cpu().numpy(),
        "errors": errors.cpu().numpy(),
        "parameter_names": np.array(names),
        "parameter_units": np.array([parameter_unit(name) for name in names]),
        "body_columns": np.array(BODY),
    }


def parameter_unit(name: str) -> str:
    """Return the unit of a fitted or derived parameter, by its name ``member.parameter``."""
    units = {"source_flux": "flux", "amp": "flux/arcsec^2", "magnification": ""}
    short = name.split(".")[-1]
    if short in units:
        return units[short]
    if short in ("e1", "e2", "gamma1", "gamma2", "gamma", "n_sersic", "evidence"):
        return ""
    return "rad" if short.startswith("phi") else "arcsec"


def _verdicts(prediction: Prediction) -> dict[str, np.ndarray]:
    """Quality and reasons of each image; nothing for methods that cannot tell."""
    if not prediction.verdicts:
        return {}
    return {
        "quality": np.array([v.quality for v in prediction.verdicts]),
        "reasons": np.array(["; ".join(v.reasons) for v in prediction.verdicts]),
    }


def _source_grid(grid: PixelGrid) -> PixelGrid:
    """The inner half of the field of view: where the sources of strong lenses are."""
    return PixelGrid(_SOURCE_PIXELS, _SOURCE_PIXELS, grid.radius / _SOURCE_PIXELS)


def _planes(prediction: Prediction, observation: Observation, source_grid: PixelGrid) -> dict[str, np.ndarray]:
    residual = (observation.image - observation.noise.expected(prediction.observed)) * observation.weight
    found = prediction.parameters
    planes: dict[str, Tensor | None] = {
        "image": prediction.image[:, 0],
        "sigma": None if prediction.sigma is None else prediction.sigma[:, 0],
        "constrained": None if prediction.constrained is None else prediction.constrained[:, 0],
        "residual": residual[:, 0],
        "chi2": prediction.reduced_chi2(observation),
        "theta_E": found.get("theta_E"),
        "subhalos": found["subhalos"].int() if "subhalos" in found else None,
        "bodies": prediction.bodies,
    }
    field = prediction.deflection
    if field is not None:
        planes |= {"alpha": field.alpha, "kappa": field.kappa[:, 0]}
    source = prediction.source_image(source_grid)
    if source is not None:
        planes["source"] = source[:, 0]
    arrays = {
        name: (x.float() if x.is_floating_point() else x).cpu().numpy() for name, x in planes.items() if x is not None
    }
    return arrays | _table(prediction) | _verdicts(prediction)
