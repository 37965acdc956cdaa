"""The per-image fit: SIE + shear + Sersic to one low-resolution image, through tracing and observation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lensphys.checks import LensphysError, check_finite
from lensphys.deflection import DeflectionField
from lensphys.fitting.levenberg import levenberg_marquardt
from lensphys.fitting.parameters import Parameter, ParameterSpace
from lensphys.grid import PixelGrid, polar_from_cartesian
from lensphys.observation import Noise, Observation, RectifiedCountNoise
from lensphys.profiles import SIE, SIS, MassProfile, Sersic, Shear
from lensphys.tracing import reconstruct_source

START_FACTORS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25)  # of the arc's flux-weighted radius


def lens_parameters(radius: float) -> ParameterSpace:
    """Return the parameters of SIE + shear + Sersic in a field of view of half width ``radius`` [arcsec].

    Positions are in arcsec; ``amp`` is in units of the image's brightest pixel. The priors hold what an image of low
    signal-to-noise leaves open: lenses are near the middle, nearly round, weakly sheared.
    """
    return ParameterSpace(
        [
            Parameter("theta_E", 0.05 * radius, radius, logarithmic=True),
            Parameter("e1", -0.6, 0.6, 0.0, 0.2),
            Parameter("e2", -0.6, 0.6, 0.0, 0.2),
            Parameter("center_x", -0.25 * radius, 0.25 * radius, 0.0, 0.1),
            Parameter("center_y", -0.25 * radius, 0.25 * radius, 0.0, 0.1),
            Parameter("gamma1", -0.4, 0.4, 0.0, 0.1),
            Parameter("gamma2", -0.4, 0.4, 0.0, 0.1),
            Parameter("amp", 1e-4, 1e3, logarithmic=True),
            Parameter("R_sersic", 0.01, radius, 0.25, 1.0, logarithmic=True),
            Parameter("n_sersic", 0.3, 8.0, 1.5, 0.7, logarithmic=True),
            Parameter("source_e1", -0.6, 0.6, 0.0, 0.3),
            Parameter("source_e2", -0.6, 0.6, 0.0, 0.3),
            Parameter("source_x", -0.6 * radius, 0.6 * radius),
            Parameter("source_y", -0.6 * radius, 0.6 * radius),
        ]
    )


def macro_lens(values: dict[str, Tensor]) -> MassProfile:
    """Return SIE + shear (about the SIE's centre) from named parameters, each (B,)."""
    centre = values["center_x"], values["center_y"]
    return SIE(values["theta_E"], values["e1"], values["e2"], *centre) + Shear(
        values["gamma1"], values["gamma2"], *centre
    )


def sersic_source(values: dict[str, Tensor]) -> Sersic:
    """Return the Sersic source from named parameters, each (B,)."""
    return Sersic(
        values["amp"],
        values["R_sersic"],
        values["n_sersic"],
        values["source_e1"],
        values["source_e2"],
        values["source_x"],
        values["source_y"],
    )


@dataclass(frozen=True)
class LensFit:
    """The best SIE + shear + Sersic for each image of a batch.

    Args:
        values: named parameters, each (B,), positions in arcsec, ``amp`` in flux / arcsec^2.
        noise: the noise law, its numbers estimated anew from the residuals where the instrument does not know them.
        gradient_norm: (B,), the gradient's cosine at the end (see `LeastSquaresFit`).
        seen: (B,), whether anything stands 5 sigma out of the noise; else the values mean nothing.
    """

    values: dict[str, Tensor]
    noise: Noise
    gradient_norm: Tensor
    seen: Tensor

    @property
    def mass(self) -> MassProfile:
        """The lens, SIE + shear."""
        return macro_lens(self.values)

    @property
    def source(self) -> Sersic:
        """The source."""
        return sersic_source(self.values)


def fit_lens(observation: Observation, *, starts: int = 4, steps: int = 60) -> LensFit:
    """Fit SIE + shear + Sersic to each image of a batch, by Levenberg-Marquardt from several starts.

    The starts are SIS lenses of `START_FACTORS` times the arc's radius, each with the source that it back-projects; the
    ``starts`` that fit best go on with each pixel at its centre, and the best of them is finished with the camera's own
    sampling and the noise variance of the model, renewed twice. At the end the amplitude takes the whole flux inside
    the mask (intensity conservation).

    Args:
        observation: images (B, 1, H, W) and how they were taken.
        starts: how many starts are optimised for each image, at most 8.
        steps: at most so many Jacobians a start.

    Raises:
        LensphysError: if an image holds NaN, or no positive pixel.
    """
    check_finite("image", observation.image)
    starts = min(starts, len(START_FACTORS))
    with torch.no_grad():
        quick = replace(observation, camera=replace(observation.camera, supersampling=1))
        problem = _Problem.of(quick, observation.noise)
        u = problem.starting_points(starts)
        everyone = torch.arange(len(observation), device=u.device)
        rows = everyone.repeat_interleave(starts)
        first = levenberg_marquardt(problem.residual, u.flatten(0, 1), rows=rows, steps=steps // 2, tolerance=1e-3)
        best = first.cost.reshape(-1, starts).argmin(1)
        u = first.x.reshape(-1, starts, u.shape[-1])[everyone, best]
        problem = replace(problem, observation=observation)
        for _ in range(2):
            problem = problem.renewed(u)
            final = levenberg_marquardt(problem.residual, u, steps=steps // 2)
            u = final.x
        seen = arc_light(problem.observation, problem.inverse_sigma)[1]
        values = problem.space.physical(u)
        values["amp"] = values["amp"] * problem.unit * problem.observation.flux_ratio(problem.render(u, everyone))
        return LensFit(values, problem.observation.noise, final.gradient_norm, seen)


@dataclass(frozen=True)
class _Problem:
    """The least-squares problem of a batch at a fixed noise variance."""

    observation: Observation
    space: ParameterSpace
    unit: Tensor  # (B,) surface brightness of the brightest pixel
    inverse_sigma: Tensor  # (B, 1, H, W), 0 where masked

    @classmethod
    def of(cls, observation: Observation, noise: Noise, clean: Tensor | None = None) -> _Problem:
        """Return the problem with the variance of a clean image, by default the smoothed image itself."""
        grid = observation.camera.grid
        clean = observation.smoothed if clean is None else clean
        inverse_sigma = (observation.weight / noise.variance(clean)).sqrt()
        peak = observation.peak
        if bool((peak <= 0).any()):
            raise LensphysError("an image has no positive pixel inside the mask: there is nothing to fit")
        observation = replace(observation, noise=noise)
        return cls(observation, lens_parameters(grid.radius), peak / grid.pixel_area, inverse_sigma)

    def renewed(self, u: Tensor) -> _Problem:
        """Return the problem with the noise of the model at u (B, P)."""
        rows = torch.arange(len(u), device=u.device)
        clean = self.render(u, rows)
        noise = self.observation.noise
        if isinstance(noise, RectifiedCountNoise):
            noise = noise.updated(self.observation.image, clean)
        return _Problem.of(self.observation, noise, clean)

    def render(self, u: Tensor, rows: Tensor) -> Tensor:
        """Return the clean images (b, 1, H, W) of parameters (b, P)."""
        values = self.space.physical(u)
        values["amp"] = values["amp"] * self.unit[rows]
        camera = self.observation.camera.rows(rows)
        fine = camera.grid.resampled(camera.supersampling)
        return camera.render(sersic_source(values), DeflectionField.of(macro_lens(values), fine, like=u))

    def residual(self, u: Tensor, rows: Tensor) -> Tensor:
        """Return (y - E[model]) / sigma of all pixels and the prior's residuals, (b, H W + priors)."""
        expected = self.observation.noise.rows(rows).expected(self.render(u, rows))
        data = (self.observation.image[rows] - expected) * self.inverse_sigma[rows]
        return torch.cat([data.flatten(1), self.space.prior_residual(u)], dim=1)

    def starting_points(self, count: int) -> Tensor:
        """Return the ``count`` best starts of each image, (B, count, P)."""
        arc = arc_light(self.observation, self.inverse_sigma)[0]
        costs, points = zip(*(self._start(arc, factor) for factor in START_FACTORS), strict=True)
        order = torch.stack(costs, dim=1).argsort(1)[:, :count]
        stacked = torch.stack(points, dim=1)
        return torch.gather(stacked, 1, order[:, :, None].expand(-1, -1, stacked.shape[-1]))

    def _start(self, arc: Tensor, factor: float) -> tuple[Tensor, Tensor]:
        """Return the cost (B,) and the parameters (B, P) of an SIS of ``factor`` times the arc's radius."""
        grid = self.observation.camera.grid
        distance = grid.positions(like=arc).norm(dim=1, keepdim=True)
        radius = (distance * arc).flatten(1).sum(1) / arc.flatten(1).sum(1).clamp(min=1e-30)
        theta_E = (factor * radius).clamp(0.06 * grid.radius, 0.95 * grid.radius)
        source_grid = PixelGrid(41, 41, grid.radius / 41)
        field = DeflectionField.of(SIS(theta_E), grid, like=arc)
        centre, spread = moments(reconstruct_source(arc, field, source_grid), source_grid)
        zero = torch.zeros_like(theta_E)
        values = dict.fromkeys(self.space.names, zero)
        values |= {"theta_E": theta_E, "source_x": centre[:, 0], "source_y": centre[:, 1]}
        values |= {"amp": torch.ones_like(zero), "n_sersic": torch.ones_like(zero)}
        values["R_sersic"] = (1.4 * spread).clamp(min=0.5 * grid.scale)
        rows = torch.arange(len(theta_E), device=arc.device)
        model = self.render(self.space.unconstrained(values), rows) * self.inverse_sigma
        data = self.observation.image * self.inverse_sigma
        overlap = (model * data).flatten(1).sum(1).clamp(min=0)
        power = model.square().flatten(1).sum(1).clamp(min=1e-30)
        values["amp"] = (overlap / power).clamp(min=1e-3)
        return -(overlap**2) / power, self.space.unconstrained(values)


def arc_light(observation: Observation, inverse_sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Return the light that stands 3 sigma out of the noise of a 3 x 3 mean, the rest zero; and if it is any.

    Args:
        observation: images (B, 1, H, W).
        inverse_sigma: one over the noise of each pixel, 0 where masked, (B, 1, H, W).

    Returns:
        light (B, 1, H, W) and whether anything stands 5 sigma out (B,): of thousands of pixels some pass 3 by chance.
        Of an image where nothing does, all positive light.
    """
    pedestal = observation.noise.expected(torch.zeros_like(observation.image))
    light = replace(observation, image=observation.image - pedestal).smoothed
    significance = 3 * light * inverse_sigma  # the mean of 9 pixels has a third of their noise
    seen = significance.flatten(1).amax(1) >= 5
    faint = seen[:, None, None, None] & (significance < 3)
    return torch.where(faint, torch.zeros_like(light), light.clamp(min=0)), seen


def moments(image: Tensor, grid: PixelGrid) -> tuple[Tensor, Tensor]:
    """Return the centroid (B, 2) and the rms radius (B,) [arcsec] of images (B, 1, H, W), weighed by their square."""
    weight = image.clamp(min=0).square()
    weight = weight / weight.flatten(1).sum(1).clamp(min=1e-30)[:, None, None, None]
    position = grid.positions(like=image)
    centre = (weight * position).flatten(2).sum(2)
    spread = (weight * (position - centre[:, :, None, None]).square()).flatten(1).sum(1)
    return centre, spread.clamp(min=0).sqrt()


def einstein_radius(field: DeflectionField) -> Tensor:
    """Return the radius (B,) [arcsec] at which the mean radial deflection equals the radius: mean kappa = 1 inside.

    For a network's field, which has no theta_E of its own. NaN where the deflection never equals the radius.
    """
    radius = torch.linalg.vector_norm(field.theta, dim=1).flatten()
    bins = max(8, min(field.grid.shape) // 2)
    edge = 0.5 * min(field.grid.shape) * field.grid.scale
    index = (radius / edge * bins).long()
    inside = index < bins
    counts = radius.new_zeros(bins).index_add(0, index[inside], torch.ones_like(radius[inside]))
    radial = polar_from_cartesian(field.alpha, field.theta)[0]  # about the origin, like the radius
    excess = (radial.flatten(1) - radius)[:, inside]
    mean = radius.new_zeros(len(excess), bins).index_add(1, index[inside], excess) / counts.clamp(min=1)
    middle = (torch.arange(bins, dtype=radius.dtype, device=radius.device) + 0.5) * edge / bins
    crossing = (mean[:, :-1] > 0) & (mean[:, 1:] <= 0)
    first = crossing.float().argmax(1, keepdim=True)
    above, below = mean.gather(1, first)[:, 0], mean.gather(1, first + 1)[:, 0]
    where = middle[first[:, 0]] + (edge / bins) * above / (above - below)
    return torch.where(crossing.any(1), where, torch.full_like(where, math.nan))
