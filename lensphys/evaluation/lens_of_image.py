"""The lens that a super-resolved image shows: theta_E measured from the image alone, whatever made it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from lensphys.basics.checks import check_images, check_same_shape
from lensphys.basics.settings import Strict
from lensphys.fitting import LensProblem, Stop, minimised
from lensphys.fitting.starts import multistart
from lensphys.observation import Camera, ErrorMap, Observation, block_sum

_AT_ONCE = 16  # images


class MeasuredLens(Strict):
    """How the lens is measured that an image shows.

    Args:
        starts: how many starts are optimised for each image, at most as many as `fitting.starts.START_FACTORS`.
        steps: at most so many Jacobians a start.
        searched: pixels along the shorter side, or a few more, on which the lens is searched.
        finished: pixels on which it is finished: point-sampled, theta_E moves by less than 0.1 %.
        last: steps that finish a fit.
        noise: of the peak, the same in all pixels: only the priors' weight depends on it.
        explained: of the image's variance: a fit that explains less has found no lens.
    """

    starts: Annotated[int, Field(ge=1, le=8)] = 2
    steps: PositiveInt = 10
    searched: PositiveInt = 36
    finished: PositiveInt = 120
    last: PositiveInt = 3
    noise: PositiveFloat = 0.01
    explained: PositiveFloat = 0.5


def theta_E_of(image: Tensor, camera: Camera, settings: MeasuredLens = MeasuredLens()) -> Tensor:
    """Return the Einstein radius of the lens in each image, (B,) [arcsec], float64.

    SIE + shear + Sersic, by Levenberg-Marquardt with white noise: searched on the image binned, finished on the image
    itself. Where an image cannot be fitted theta_E is NaN: it is not finite, has no positive pixel, or the best lens
    leaves half of its variance. Substructure is part of what is measured, all mass within the ring: theta_E lies above
    that of the main lens alone, by 1 to 5 % in the legacy data.

    Args:
        image: (B, 1, H, W) [flux per pixel], such as ``Prediction.image``.
        camera: its pixels and PSF, such as ``Prediction.camera``.
        settings: how it is measured.

    Raises:
        LensphysError: if shapes do not fit.

    Example:
        >>> from lensphys.tracing.grid import PixelGrid
        >>> bool(theta_E_of(torch.zeros(1, 1, 64, 64), Camera(PixelGrid(64, 64, 0.08))).isnan())
        True
    """
    check_images("image", image)
    check_same_shape("image", image.shape[-2:], "camera grid", camera.grid.shape)
    flux, camera = _binned(image.detach().float(), camera, settings.finished)
    peak = flux.flatten(1).amax(1)
    found = torch.full_like(peak, math.nan, dtype=torch.float64)
    usable = (image.isfinite().flatten(1).all(1) & (peak > 0)).nonzero()[:, 0]
    with torch.no_grad():
        for rows in usable.split(_AT_ONCE) if len(usable) else ():
            scaled = flux[rows] / peak[rows, None, None, None]
            found[rows] = _fitted(scaled, camera.rows(rows), settings).double()
    return found


def _fitted(flux: Tensor, camera: Camera, settings: MeasuredLens) -> Tensor:
    """Return theta_E (B,) of images (B, 1, H, W) with their peaks at 1."""
    coarse = _problem(*_binned(flux, camera, settings.searched), settings.noise)
    problem = _problem(flux, camera, settings.noise)
    x = multistart(coarse, settings.starts, settings.steps)
    x = minimised(problem, x, Stop(settings.last), damping=1e-4).x
    left = (flux - problem.render(x)).square().flatten(1).mean(1)
    explained = 1 - left / flux.flatten(1).var(1).clamp(min=1e-30)
    return torch.where(explained > settings.explained, problem.values(x)["lens.theta_E"], torch.nan)


def _problem(flux: Tensor, camera: Camera, noise: float) -> LensProblem:
    peak = flux.flatten(1).amax(1)[:, None, None, None]
    return LensProblem.from_observation(Observation(flux, camera, ErrorMap(noise * peak.expand_as(flux))))


def _binned(flux: Tensor, camera: Camera, fewest: int) -> tuple[Tensor, Camera]:
    """Return images and camera with pixels as large as leave ``fewest`` along the shorter side, sampled at points."""
    height, width = camera.grid.shape
    most = max(1, min(height, width) // fewest)
    factor = next(n for n in range(most, 0, -1) if height % n == 0 and width % n == 0)
    camera = replace(camera, grid=camera.grid.resampled(1 / factor), supersampling=1)
    return block_sum(flux, camera.grid), camera
