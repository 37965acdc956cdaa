"""A hash of images and of how they were taken."""

from __future__ import annotations

import hashlib

from torch import Tensor

from lensphys.observation.camera import Observation
from lensphys.observation.psf import PSF
from lensphys.observation.star import star


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
    grid = seen.camera.grid
    return star(psf, grid.scale, grid.shape, like=seen.image, count=1 if psf.shared else len(seen))
