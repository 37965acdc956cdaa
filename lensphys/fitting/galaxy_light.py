"""The light of a galaxy: two sets of Gaussians about one centre, found without help.

What of an image is smooth, elliptical and about one centre: amplitudes by non-negative least squares, and what stands
out above it (arcs, neighbours) clipped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import max_pool2d

from lensphys.basics.settings import Strict
from lensphys.model import Gaussian, Member
from lensphys.model.component import CENTRE
from lensphys.observation import Observation
from lensphys.observation.kernel import star_width


class Clipping(Strict):
    """What stands out above the light of a galaxy is another object's, and left out.

    Args:
        signal: its signal-to-noise.
        error: share of the galaxy's light that counts as its error.
    """

    signal: PositiveFloat = 3.0
    error: PositiveFloat = 0.05


class GalaxyLight(Strict):
    """How the light of one galaxy is found.

    Args:
        gaussians: how many widths are tried; those with no light are left out.
        narrowest: of them [pixels].
        widest: of them [half widths of the field of view]: it stands for what is left of the sky, too.
        inner: how far from its middle the shape of the galaxy is measured [half widths of the field of view].
        clipping: of other objects; None where all light is the galaxy's.
        rounds: of fitting, and of clipping.
    """

    gaussians: PositiveInt = 16
    narrowest: PositiveFloat = 0.6
    widest: PositiveFloat = 3.0
    inner: PositiveFloat = 0.4
    clipping: Clipping | None = Clipping()
    rounds: PositiveInt = 5


@dataclass(frozen=True)
class LensLight:
    """The light of one lens galaxy.

    Args:
        members: of a `LensModel`: Gaussians about one centre, in two sets that have a shape each.
        values: of their free parameters, each (1,).
        image: as the camera sees it, (1, 1, H, W) [flux per pixel].
    """

    members: dict[str, Member]
    values: dict[str, Tensor]
    image: Tensor


def lens_light(observation: Observation, inverse_sigma: Tensor, settings: GalaxyLight, middle: Tensor) -> LensLight:
    """Return the light of one image that is smooth, elliptical and about one centre.

    Args:
        observation: of one image.
        inverse_sigma: one over the noise, (1, 1, H, W), 0 where masked.
        settings: how.
        middle: about where its centre is, (2,) [arcsec].
    """
    grid = observation.camera.grid
    middle = middle.double()
    widths = np.geomspace(settings.narrowest * grid.scale, settings.widest * grid.radius, settings.gaussians)
    shape = np.concatenate([middle.numpy(), [0.0, 0.0]])
    fit = _Clipped(observation, inverse_sigma, settings)
    for _ in range(settings.rounds):
        shape = fit.shaped(shape, widths[::2])
        fit.clip(shape, widths)
    twisted = fit.shaped(np.concatenate([shape, -shape[2:]]), widths[::2])  # what was clipped stays so
    return _made(fit, twisted, widths)


def brightest(observation: Observation, reach: float) -> Tensor:
    """Return where the 3 x 3 mean of one image is brightest, (2,) [arcsec], float64.

    Args:
        observation: of one image.
        reach: how far from the middle of the field, at most [arcsec].
    """
    smooth = observation.smoothed[0, 0]
    theta = observation.camera.grid.positions(like=smooth.double())[0]
    near = (theta.norm(dim=0) < reach) & (observation.weight[0, 0] > 0)
    at = int(torch.where(near, smooth, -torch.inf).argmax())
    return theta.flatten(1)[:, at]


def _made(fit: _Clipped, shape: np.ndarray, widths: np.ndarray) -> LensLight:
    """The members of a model, and their values; those without light are left out."""
    amplitudes, planes = fit.solved(shape, widths)
    kept = np.flatnonzero(amplitudes > 1e-4 * amplitudes.sum())
    members: dict[str, Member] = {}
    values: dict[str, float] = {}
    first: dict[int, str] = {}  # Gaussian of each set, which the others of it have their shape from
    for i in kept.tolist():
        which, name = i // len(widths), f"lens_light.{len(members)}"
        leader = first.setdefault(which, name)
        middle = next(iter(first.values()))
        tied = {c: f"{middle}.{c}" for c in CENTRE if name != middle}
        tied |= {e: f"{leader}.{e}" for e in ("e1", "e2") if name != leader}
        members[name] = Member.from_component(Gaussian, tied, sigma=float(widths[i % len(widths)]))
        known = dict(zip((*CENTRE, "e1", "e2"), (*shape[:2], *shape[2 + 2 * which : 4 + 2 * which]), strict=True))
        values |= {f"{name}.amp": amplitudes[i]} | {f"{name}.{n}": v for n, v in known.items() if n not in tied}
    image = (torch.from_numpy(amplitudes[kept]) @ planes[kept]).reshape_as(fit.data).to(fit.observation.image)
    like = fit.observation.peak
    return LensLight(members, {n: torch.full_like(like, float(v)) for n, v in values.items()}, image)


class _Clipped:
    """A sum of Gaussians about one centre, fitted to the pixels that nothing else shines in.

    While shape and clipping are found the PSF counts by its width alone, which costs no convolution.
    """

    def __init__(self, observation: Observation, inverse_sigma: Tensor, settings: GalaxyLight) -> None:
        self.settings, self.observation = settings, observation
        self.data = observation.image.double()
        self.sigma2 = torch.where(inverse_sigma > 0, inverse_sigma.double().square().reciprocal(), torch.inf)
        self.clipped, self.light = torch.zeros_like(self.data), torch.zeros_like(self.data)
        self.theta = observation.camera.grid.positions(like=self.data)
        self.blur = star_width(observation.camera, self.data)

    def shaped(self, start: np.ndarray, widths: np.ndarray) -> np.ndarray:
        """Ellipticity and centre that fit best in the middle of the image, the amplitudes free."""
        from scipy.optimize import least_squares

        near = self._near(start)
        theta, data, weight = self.theta[..., near], self.data[0, 0][near], self._weight[0, 0][near]

        def residual(shape: np.ndarray) -> np.ndarray:
            planes = self._blurred(shape, widths, theta[:, :, None])
            light = torch.from_numpy(_solved(planes * weight, data * weight)) @ planes
            return np.asarray((data - light) * weight)

        step = self.observation.camera.grid.scale
        low, high = (np.array([*(start[:2] + sign * 3 * step), *[sign * 0.6] * (len(start) - 2)]) for sign in (-1, 1))
        scale = np.array([step, step, *[0.1] * (len(start) - 2)])
        found = least_squares(residual, np.clip(start, low, high), bounds=(low, high), max_nfev=6, x_scale=scale,
                              diff_step=1e-3)  # fmt: skip
        return np.asarray(found.x)

    def clip(self, shape: np.ndarray, widths: np.ndarray) -> None:
        """Leave out what stands above the model, and what is next to it; never the galaxy's own middle."""
        clipping = self.settings.clipping
        if clipping is None:
            return
        planes = self._blurred(shape, widths, self.theta)
        self.light = (torch.from_numpy(self._amplitudes(planes)) @ planes).reshape_as(self.data)
        rest = replace(self.observation, image=(self.data - self.light).to(self.observation.image))
        above = rest.significance(self._weight.to(rest.image)) > clipping.signal
        above = above & (self._away(shape) > 2 * self.observation.camera.grid.scale)
        self.clipped = max_pool2d(above.double(), 3, stride=1, padding=1)

    def solved(self, shape: np.ndarray, widths: np.ndarray) -> tuple[np.ndarray, Tensor]:
        """The non-negative amplitudes that fit best behind the PSF itself, (K,), and the images, (K, H W)."""
        camera = self.observation.camera
        fine = camera.grid.resampled(camera.supersampling)
        theta = fine.positions(like=self.observation.image)
        one = _gaussians(shape, widths, fine.pixel_area)
        planes = torch.cat([camera.expose(light(theta)) for light in one]).flatten(1).double()
        return self._amplitudes(planes), planes

    def _amplitudes(self, planes: Tensor) -> np.ndarray:
        """The non-negative amplitudes of some images (K, N) that fit best, (K,)."""
        weight = self._weight.flatten()
        return _solved(planes * weight, self.data.flatten() * weight)

    def _blurred(self, shape: np.ndarray, widths: np.ndarray, theta: Tensor) -> Tensor:
        """Each Gaussian with the flux 1, as wide as the PSF makes it, (K, N)."""
        one = _gaussians(shape, np.hypot(widths, self.blur), self.observation.camera.grid.pixel_area)
        return torch.cat([light(theta) for light in one]).flatten(1)

    def _near(self, shape: np.ndarray) -> Tensor:
        """Which pixels are near the middle of the galaxy, (H, W)."""
        return self._away(shape) < self.settings.inner * self.observation.camera.grid.radius

    def _away(self, shape: np.ndarray) -> Tensor:
        """How far each pixel is from the middle of the galaxy, (H, W) [arcsec]."""
        return (self.theta[0] - torch.from_numpy(shape[:2])[:, None, None]).norm(dim=0)

    @property
    def _weight(self) -> Tensor:
        """One over the error of each pixel, that of the model included; 0 where something else shines."""
        share = 0.0 if self.settings.clipping is None else self.settings.clipping.error
        error = self.sigma2 + (share * self.light).square()
        return error.rsqrt() * (1 - self.clipped)


def _gaussians(shape: np.ndarray, widths: np.ndarray, flux: float) -> list[Gaussian]:
    """Those of all widths, (K,), for each pair of ellipticities behind the centre."""
    x, y, *ellipticities = shape.tolist()
    sigma = torch.from_numpy(widths)
    return [Gaussian(flux, sigma, e1, e2, x, y) for e1, e2 in zip(ellipticities[::2], ellipticities[1::2], strict=True)]


def _solved(columns: Tensor, data: Tensor) -> np.ndarray:
    """The non-negative least-squares amplitudes of columns (K, N) that make data (N,), (K,)."""
    from scipy.optimize import nnls

    scale = columns.norm(dim=1).clamp(min=1e-30)
    unit = columns / scale[:, None]
    lower = torch.linalg.cholesky(unit @ unit.T + 1e-10 * torch.eye(len(unit)).to(unit))
    right = torch.linalg.solve_triangular(lower, (unit @ data)[:, None], upper=False)[:, 0]
    return np.asarray(nnls(lower.T.numpy(), right.numpy())[0] / scale.numpy())
