"""The lens that a super-resolved image shows: theta_E measured from the image alone, whatever made it."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from lensphys.basics.checks import check_images, check_same_shape
from lensphys.fitting import LensProblem, Stop, minimised
from lensphys.fitting.starts import multistart
from lensphys.observation import Camera, ErrorMap, Observation, block_sum

_SEARCHED = 36  # pixels along the shorter side, or a few more, on which the lens is searched
_FINISHED = 120  # and on which it is finished: point-sampled, theta_E moves by less than 0.1 %
_NOISE = 0.01  # of the peak, the same in all pixels: only the priors' weight depends on it
_EXPLAINED = 0.5  # of the image's variance: a fit that leaves more than half of it has found no lens
_LAST = 3  # steps that finish a fit
_AT_ONCE = 16  # images


def theta_E_of(image: Tensor, camera: Camera, *, starts: int = 2, steps: int = 10) -> Tensor:
    """Return the Einstein radius of the lens in each image, (B,) [arcsec], float64.

    SIE + shear + Sersic, by Levenberg-Marquardt with white noise: searched on the image binned, finished on the image
    itself. Where an image cannot be fitted theta_E is NaN: it is not finite, has no positive pixel, or the best lens
    leaves half of its variance. Substructure is part of what is measured, all mass within the ring: theta_E lies above
    that of the main lens alone, by 1 to 5 % in the legacy data.

    Args:
        image: (B, 1, H, W) [flux per pixel], such as ``Prediction.image``.
        camera: its pixels and PSF, such as ``Prediction.camera``.
        starts: how many starts are optimised for each image, at most 8.
        steps: at most so many Jacobians a start.

    Raises:
        LensphysError: if shapes do not fit.

    Example:
        >>> from lensphys.tracing.grid import PixelGrid
        >>> bool(theta_E_of(torch.zeros(1, 1, 64, 64), Camera(PixelGrid(64, 64, 0.08))).isnan())
        True
    """
    check_images("image", image)
    check_same_shape("image", image.shape[-2:], "camera grid", camera.grid.shape)
    flux, camera = _binned(image.detach().float(), camera, _FINISHED)
    peak = flux.flatten(1).amax(1)
    found = torch.full_like(peak, math.nan, dtype=torch.float64)
    usable = (image.isfinite().flatten(1).all(1) & (peak > 0)).nonzero()[:, 0]
    with torch.no_grad():
        for rows in usable.split(_AT_ONCE) if len(usable) else ():
            found[rows] = _fitted(flux[rows] / peak[rows, None, None, None], camera.rows(rows), starts, steps).double()
    return found


def _fitted(flux: Tensor, camera: Camera, starts: int, steps: int) -> Tensor:
    """Return theta_E (B,) of images (B, 1, H, W) with their peaks at 1."""
    x = multistart(_problem(*_binned(flux, camera, _SEARCHED)), starts, steps)
    problem = _problem(flux, camera)
    x = minimised(problem, x, Stop(_LAST), damping=1e-4).x
    left = (flux - problem.render(x)).square().flatten(1).mean(1)
    explained = 1 - left / flux.flatten(1).var(1).clamp(min=1e-30)
    return torch.where(explained > _EXPLAINED, problem.values(x)["lens.theta_E"], torch.nan)


def _problem(flux: Tensor, camera: Camera) -> LensProblem:
    peak = flux.flatten(1).amax(1)[:, None, None, None]
    return LensProblem.from_observation(Observation(flux, camera, ErrorMap(_NOISE * peak.expand_as(flux))))


def _binned(flux: Tensor, camera: Camera, fewest: int) -> tuple[Tensor, Camera]:
    """Return images and camera with pixels as large as leave ``fewest`` along the shorter side, sampled at points."""
    height, width = camera.grid.shape
    most = max(1, min(height, width) // fewest)
    factor = next(n for n in range(most, 0, -1) if height % n == 0 and width % n == 0)
    camera = replace(camera, grid=camera.grid.resampled(1 / factor), supersampling=1)
    return block_sum(flux, camera.grid), camera
