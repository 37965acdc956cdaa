"""What a fit says beside its parameters: Einstein radius of all mass, flux and size of the source, magnification."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.fitting.posterior import Posterior
from lensphys.fitting.problem import LensProblem
from lensphys.model import LightProfile, centre_of
from lensphys.model.component import CENTRE
from lensphys.observation import Camera
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.einstein import einstein_radius

_POINTS = 144  # squared, of each source
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
    """Flux and half-light radius of all sources together, (B,) each."""
    source = problem.lens(x).source
    places, fluxes = zip(*[_sampled(one, problem.radius, x) for one in source.summands], strict=True)
    place, light = torch.cat(places, dim=2), torch.cat(fluxes, dim=1)
    flux = light.sum(1)
    middle = (light[:, None] * place).sum(2) / flux.clamp(min=1e-30)[:, None]
    away = (place - middle[:, :, None]).norm(dim=1)
    order = away.argsort(1)
    within = light.gather(1, order).cumsum(1)
    half = (within < 0.5 * flux[:, None]).sum(1, keepdim=True).clamp(max=light.shape[1] - 1)
    radius = away.gather(1, order).gather(1, half)[:, 0]
    return flux, torch.where(flux > 0, radius, math.nan)


def _sampled(source: LightProfile, radius: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Places (B, 2, N) [arcsec] in the square that holds the light of one source, and the flux of each, (B, N).

    A source that does not know how far it reaches is sampled as far as the images do, ``radius`` [arcsec].
    """
    try:
        half_side = source.half_side
    except LensphysError:
        half_side = torch.full_like(like[:, 0], radius)
    size = half_side.to(like).expand(len(like))
    centre = torch.stack([torch.as_tensor(getattr(source, name)).to(like).expand(len(like)) for name in CENTRE], dim=1)
    line = (torch.arange(_POINTS, dtype=like.dtype, device=like.device) + 0.5) / _POINTS * 2 - 1
    y, xx = torch.meshgrid(line, line, indexing="ij")
    place = centre[:, :, None, None] + size[:, None, None, None] * torch.stack([xx, y])[None]
    return place.flatten(2), source(place).flatten(1) * ((2 * size / _POINTS) ** 2)[:, None]
