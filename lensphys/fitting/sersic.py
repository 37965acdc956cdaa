"""Sersic fits of a source: from its image, or through the lens from the observation itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace

import torch
from torch import Tensor

from lensphys.basics.checks import check_images, check_same_shape
from lensphys.fitting.newton import Differentiated, Residual, Stop, gauss_newton_step, minimised
from lensphys.model import SIS, MassProfile, ParameterSpace, Sersic, Shear
from lensphys.model.light import sersic_b
from lensphys.observation import Observation
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid

# An exponential disc weighed by its square: R_sersic over the rms radius.
_RADIUS_PER_RMS = 1.37


def source_parameters(radius: float) -> ParameterSpace:
    """Return the seven parameters of a Sersic anywhere within ``radius`` [arcsec]; ``amp`` in units of the peak."""
    anywhere = {"center_x": (-radius, radius), "center_y": (-radius, radius)}
    declared = [p.seen_in(radius) for p in Sersic.parameters]
    return ParameterSpace([p.between(*anywhere.get(p.name, (p.low, p.high))) for p in declared])


def sersic_brightest_pixel(image: Tensor, grid: PixelGrid, *, R_sersic: float = 0.25, n_sersic: float = 1.0) -> Sersic:
    """Return a round Sersic of fixed size at the brightest pixel, with that pixel's brightness, as S1 has it.

    Differentiable in the brightness only.

    Args:
        image: (B, 1, H, W) [flux / arcsec^2].
        grid: its pixels in the source plane.
        R_sersic: [arcsec].
        n_sersic: Sersic index.
    """
    _check_source(image, grid)
    peak, index = image.flatten(1).max(1)
    centre = grid.positions(like=image).flatten(2)[0][:, index]
    amp = peak * torch.exp(-sersic_b(image.new_tensor(n_sersic)))
    return Sersic(amp, R_sersic, n_sersic, 0.0, 0.0, centre[0], centre[1])


def sersic_moments(image: Tensor, grid: PixelGrid) -> Sersic:
    """Return the n = 1 Sersic that has the image's centroid, size, ellipticity and flux; differentiable.

    The moments are weighed by the squared brightness, which keeps the noise of the faint outskirts out.

    Args:
        image: (B, 1, H, W) [flux / arcsec^2].
        grid: its pixels in the source plane.
    """
    _check_source(image, grid)
    light = image.clamp(min=0)
    weight = light.square() / light.square().flatten(1).sum(1).clamp(min=1e-30)[:, None, None, None]
    position = grid.positions(like=image)
    centre = (weight * position).flatten(2).sum(2)
    d = position - centre[:, :, None, None]
    xx, yy = (weight[:, 0] * d.square().unbind(1)[0]).flatten(1).sum(1), (weight[:, 0] * d[:, 1] ** 2).flatten(1).sum(1)
    xy = (weight[:, 0] * d[:, 0] * d[:, 1]).flatten(1).sum(1)
    floor = grid.pixel_area / 12
    area = ((xx + floor) * (yy + floor) - xy**2).clamp(min=floor**2).sqrt()
    e1, e2 = (part / (xx + yy + 2 * floor + 2 * area) for part in (xx - yy, 2 * xy))
    size = _RADIUS_PER_RMS * (2 * area).sqrt()
    unit = Sersic(1.0, size, 1.0, e1, e2, centre[:, 0], centre[:, 1])
    shape = unit(position)
    overlap = (light * shape).flatten(1).sum(1) / shape.square().flatten(1).sum(1).clamp(min=1e-30)
    return Sersic(overlap, size, 1.0, e1, e2, centre[:, 0], centre[:, 1])


def sersic_least_squares(image: Tensor, grid: PixelGrid, *, steps: int = 15) -> Sersic:
    """Return the Sersic that fits a source image best in all seven parameters; differentiable in the image.

    Args:
        image: (B, 1, H, W) [flux / arcsec^2].
        grid: its pixels in the source plane.
        steps: of Levenberg-Marquardt, before the last, differentiable one.
    """
    first = sersic_moments(image.detach(), grid)
    position = grid.positions(like=image)
    unit = image.detach().flatten(1).amax(1).clamp(min=1e-30)
    space = source_parameters(grid.radius)
    sigma = 1e-2 * math.sqrt(grid.height * grid.width)  # lets the priors count as a hundredth of the peak, in total

    def residual(u: Tensor, rows: Tensor) -> Tensor:
        model = Sersic(**space.physical(u))(position)
        data = (image[rows] / unit[rows, None, None, None] - model) / sigma
        return torch.cat([data.flatten(1), 1e-2 * space.prior_residual(u)], dim=1)

    u = _differentiable(residual, _minimum(residual, _start(space, first, unit), steps))
    return _source(_physical(space, u, unit))


def sersic_through_lens(observation: Observation, field: DeflectionField, start: Sersic, *, steps: int = 8) -> Sersic:
    """Return the Sersic that, lensed by a given field and observed, fits the images best, weighed by their noise.

    Differentiable in the field: the loss of the re-observed image reaches the deflection through the source as well.

    Args:
        observation: images (B, 1, H, W) and how they were taken.
        field: the deflection, on any grid of this field of view.
        start: where to start, each parameter a number or (B,).
        steps: of Levenberg-Marquardt, before the last, differentiable one.
    """
    space = source_parameters(observation.camera.grid.radius)
    return _source(_fit_through_lens(observation, field, start, space, None, steps))


def joint_through_lens(
    observation: Observation, field: DeflectionField, start: Sersic, *, steps: int = 10
) -> tuple[Sersic, MassProfile]:
    """Return the Sersic and a smooth correction to a given field that together fit the images best.

    The correction, an SIS of either sign plus a shear, takes up what a network's field has wrong as a whole (its
    Einstein radius, a stretch), which no network predicts to the hundredth of a pixel that bright arcs show.
    Differentiable in the field, like `sersic_through_lens`.

    Args:
        observation: images (B, 1, H, W) and how they were taken.
        field: the deflection, on any grid of this field of view.
        start: where to start, each parameter a number or (B,).
        steps: of Levenberg-Marquardt, before the last, differentiable one.
    """
    source = source_parameters(observation.camera.grid.radius).parameters
    space = ParameterSpace([*source, *_CORRECTION])
    values = _fit_through_lens(observation, field, start, space, _correction, steps)
    return _source(values), _correction(values)


# a correction of either sign to a field that is nearly right: narrower than the priors of a whole lens
_DECLARED = {p.name: p for p in (*SIS.parameters, *Shear.parameters)}
_CORRECTION = [
    replace(_DECLARED["theta_E"], low=-0.5, high=0.5, mean=0.0, sigma=0.1, logarithmic=False),
    *(replace(_DECLARED[name], low=-0.3, high=0.3, sigma=0.05) for name in ("gamma1", "gamma2")),
]


def _correction(values: dict[str, Tensor]) -> MassProfile:
    return SIS(values["theta_E"]) + Shear(values["gamma1"], values["gamma2"])


def _source(values: dict[str, Tensor]) -> Sersic:
    return Sersic(**{f.name: values[f.name] for f in fields(Sersic)})


def _fit_through_lens(
    observation: Observation,
    field: DeflectionField,
    start: Sersic,
    space: ParameterSpace,
    correction: Callable[[dict[str, Tensor]], MassProfile] | None,
    steps: int,
) -> dict[str, Tensor]:
    """Return the named values, each (B,), of a source and (if any) a correction to the field, fitted to the images."""
    camera, image = observation.camera, observation.image
    fine = field.at(camera.grid.resampled(camera.supersampling))
    beta = fine.beta.expand(len(image), -1, -1, -1)
    unit = observation.peak.clamp(min=1e-30) / camera.grid.pixel_area

    def render(u: Tensor, rows: Tensor) -> Tensor:
        """Return the model images (R, 1, H, W) [flux per pixel] of unconstrained values (R, P)."""
        values = space.physical(u)
        values["amp"] = values["amp"] * unit[rows]
        source_plane = beta[rows] if correction is None else beta[rows] - correction(values)(fine.theta)
        return camera.rows(rows).expose(_source(values)(source_plane) * fine.grid.pixel_area)

    def weighed(clean: Tensor) -> Residual:
        # the variance is that of a smooth image: that of the noisy one would favour pixels that came out faint
        weight = (observation.weight / observation.noise.variance(clean)).sqrt().detach()

        def residual(u: Tensor, rows: Tensor) -> Tensor:
            data = (image[rows] - observation.noise.rows(rows).expected(render(u, rows))) * weight[rows]
            return torch.cat([data.flatten(1), space.prior_residual(u)], dim=1)

        return residual

    u = _minimum(weighed(observation.smoothed), _start(space, start, unit), steps)
    with torch.no_grad():
        clean = render(u, torch.arange(len(u), device=u.device))
    u = _differentiable(weighed(clean), _minimum(weighed(clean), u, steps))
    return _physical(space, u, unit)


def _start(space: ParameterSpace, start: Sersic, unit: Tensor) -> Tensor:
    """Return the unconstrained vectors (B, P) of a source; the correction of a deflection starts at 0."""
    with torch.no_grad():
        values = {n: torch.as_tensor(getattr(start, n, 0.0)).to(unit).expand_as(unit) for n in space.names}
        return space.unconstrained(values | {"amp": (values["amp"] / unit).clamp(min=1e-3)})


def _minimum(residual: Residual, u: Tensor, steps: int) -> Tensor:
    rows = torch.arange(len(u), device=u.device)
    return minimised(Differentiated(residual, rows), u, Stop(steps, cosine=1e-4)).x


def _differentiable(residual: Residual, u: Tensor) -> Tensor:
    return gauss_newton_step(residual, u) if torch.is_grad_enabled() else u


def _physical(space: ParameterSpace, u: Tensor, unit: Tensor) -> dict[str, Tensor]:
    """Return the named values, each (B,), with ``amp`` back in flux / arcsec^2."""
    fitted = space.physical(u)
    return fitted | {"amp": fitted["amp"] * unit}


def _check_source(image: Tensor, grid: PixelGrid) -> None:
    check_images("source image", image)
    check_same_shape("source image", image.shape[-2:], "source grid", grid.shape)
