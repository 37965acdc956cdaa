"""What a fit says beside its parameters: Einstein radius of all mass, flux and size of the source, magnification."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lensphys.fitting.posterior import Posterior
from lensphys.fitting.problem import LensProblem
from lensphys.model import centre_of
from lensphys.model.component import CENTRE
from lensphys.observation import Camera
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.einstein import einstein_radius

_POINTS = 96  # squared, of the source plane
DERIVED = {"theta_E_total": "arcsec", "source_flux": "flux", "source_radius": "arcsec", "magnification": ""}  # units


def derived(problem: LensProblem, x: Tensor) -> dict[str, Tensor]:
    """Return `DERIVED` of images that share a model, each (B,).

    ``theta_E_total``: the radius about the lens within which the mean kappa of all mass is 1 [arcsec]; ``source_flux``
    without the lens [flux]; ``source_radius`` that holds half of it about its centroid [arcsec]; ``magnification``: the
    flux of the image over that of the source.
    """
    lens, camera = problem.lens(x), problem.observation.camera
    name = problem.model.main
    about = centre_of(lens.values, name)
    field = DeflectionField.from_lens(lens.mass, camera.grid, like=x)
    flux, radius = _source(problem, x)
    seen = Camera(camera.grid, supersampling=camera.supersampling).render(lens.source, field)
    return {
        "theta_E_total": einstein_radius(lens.mass, about, camera.grid.radius),
        "source_flux": flux,
        "source_radius": radius,
        "magnification": seen.sum((1, 2, 3)) / flux.clamp(min=1e-30),
    }


def derived_errors(posterior: Posterior, draws: int = 12) -> dict[str, Tensor]:
    """Return the standard deviations of `DERIVED` over draws from the posterior, each (B,): pixels at their centres."""
    problem = posterior.fitted.problem.sampled(1)
    found = [derived(problem, x) for x in posterior.drawn(draws)]
    return {name: torch.stack([f[name] for f in found]).std(0) for name in DERIVED}


def _source(problem: LensProblem, x: Tensor) -> tuple[Tensor, Tensor]:
    """Flux and half-light radius of the source, (B,) each."""
    seen, source = problem.first_source(x) if problem.free is None else problem.free.frame, problem.lens(x).source
    size = seen.half_side
    centre = torch.stack([torch.as_tensor(getattr(seen, name)) for name in CENTRE], dim=1)
    line = (torch.arange(_POINTS, dtype=x.dtype, device=x.device) + 0.5) / _POINTS * 2 - 1
    y, xx = torch.meshgrid(line, line, indexing="ij")
    place = centre[:, :, None, None] + size[:, None, None, None] * torch.stack([xx, y])[None]
    light = source(place).flatten(1) * ((2 * size / _POINTS) ** 2)[:, None]
    flux = light.sum(1)
    middle = (light[:, None] * place.flatten(2)).sum(2) / flux.clamp(min=1e-30)[:, None]
    away = (place.flatten(2) - middle[:, :, None]).norm(dim=1)
    order = away.argsort(1)
    within = light.gather(1, order).cumsum(1)
    half = (within < 0.5 * flux[:, None]).sum(1, keepdim=True).clamp(max=_POINTS**2 - 1)
    radius = away.gather(1, order).gather(1, half)[:, 0]
    return flux, torch.where(flux > 0, radius, math.nan)
