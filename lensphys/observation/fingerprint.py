"""A hash of images and of how they were taken."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from lensphys.observation.camera import Observation
from lensphys.observation.psf import PSF


def fingerprint(observation: Observation) -> str:
    """Return a hash of pixels, their scale and sampling, noise, mask and PSFs: what a computation depends on."""
    seen, camera = observation, observation.camera
    found = hashlib.sha256(repr((camera.grid, camera.supersampling)).encode())
    parts = [seen.image, seen.noise.variance(seen.image), seen.weight]
    parts += [_stars(psf, seen) for psf in (camera.psf, camera.target_psf) if psf is not None]
    for part in parts:
        found.update(repr(tuple(part.shape)).encode())
        found.update(part.contiguous().cpu().numpy().tobytes())
    return found.hexdigest()


def _stars(psf: PSF, seen: Observation) -> Tensor:
    """A star in the middle of each image, of a PSF that all share of one."""
    point = torch.zeros_like(seen.image[:1] if psf.shared else seen.image)
    point[..., point.shape[-2] // 2, point.shape[-1] // 2] = 1
    return psf.blur(point, seen.camera.grid.scale)
