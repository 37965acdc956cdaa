"""What is fitted to a batch of images that share a model: images and noise, and how both answer to a vector."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from lensphys.basics.blocks import block
from lensphys.basics.checks import LensphysError, check_finite
from lensphys.basics.rows import chosen_rows
from lensphys.fitting.bodies import Bodies, PointBodies
from lensphys.fitting.brightness import Brightness
from lensphys.fitting.broad_light import BroadLight, BroadLightFilter
from lensphys.fitting.newton import Normal
from lensphys.fitting.parametrised import Parametrised
from lensphys.model import LensModel
from lensphys.observation import Camera, Observation
from lensphys.tracing.grid import PixelGrid

_PIXELS_AT_ONCE = 1 << 11
_DARK = 1e-12  # of the largest sum of squared derivatives in a pixel: less does not show in any number
_BLOCKS = 4  # of a matrix J J^T: what lies below its diagonal is not computed twice


@dataclass(frozen=True, kw_only=True)
class LensProblem(Parametrised):
    """The least-squares problem of a batch of images that share a model, at a fixed noise variance.

    Args:
        observation: images and how they were taken.
        inverse_sigma: one over the noise of each pixel, 0 where masked, (B, 1, H, W).
        inflation: of the noise variance, (B,): more than 1 where neighbouring pixels share their noise.
        front: the light of the lens as last fitted, (B, 1, H, W) [flux per pixel]; None where there is none.
        broad: light that the model leaves, integrated over; None for none.
    """

    observation: Observation
    inverse_sigma: Tensor
    inflation: Tensor
    front: Tensor | None = None
    broad: BroadLight | None = None

    @classmethod
    def from_observation(
        cls, observation: Observation, model: LensModel | None = None, bodies: Bodies | None = None
    ) -> LensProblem:
        """Return the problem with the noise variance of the smoothed image.

        Args:
            observation: images and how they were taken.
            model: the components; SIE + shear + Sersic if None.
            bodies: what a sub-halo is; a point mass if None.

        Raises:
            LensphysError: if an image holds NaN, or no positive pixel inside the mask.
        """
        check_finite("image", observation.image)
        grid, peak = observation.camera.grid, observation.peak
        if bool((peak <= 0).any()):
            raise LensphysError("an image has no positive pixel inside the mask: there is nothing to fit")
        model = model or LensModel.smooth()
        return cls(
            observation=observation,
            inverse_sigma=inverse_sigma(observation, observation.smoothed),
            inflation=torch.ones_like(peak),
            model=model,
            space=model.space(grid.radius),
            unit=peak / grid.pixel_area,
            radius=grid.radius,
            bodies=bodies or PointBodies.on(grid),
        )

    def __len__(self) -> int:
        return len(self.observation)

    def __getitem__(self, rows: Tensor) -> LensProblem:
        """Return the problem of some images (rows, indices) of the batch."""
        own = ("unit", "inverse_sigma", "inflation", "free", "potential", "front", "broad", "placement")
        parts = {name: chosen_rows(getattr(self, name), rows) for name in own}
        part = replace(self, observation=self.observation[rows], **parts)
        part.__dict__["filter"] = chosen_rows(self.filter, rows)  # it costs much to find
        return part

    @property
    def arcs(self) -> Observation:
        """The images without the light of the lens, as last fitted."""
        if self.front is None:
            return self.observation
        return replace(self.observation, image=self.observation.image - self.front)

    @property
    def fine(self) -> PixelGrid:
        """The camera's (supersampled) pixels."""
        return self.observation.camera.grid.resampled(self.observation.camera.supersampling)

    def render(self, x: Tensor) -> Tensor:
        """Return the clean images, (B, 1, H, W) [flux per pixel]."""
        return self.seen_lens(x).seen_by(self.observation.camera, like=x)

    def residual(self, x: Tensor) -> Tensor:
        """Return (y - E[model]) / sigma, (B, H W)."""
        return self.whitened_rest(self.render(x))

    def cost(self, x: Tensor) -> Tensor:
        """Return half of chi^2 and of the priors' squares, (B,), in float64."""
        return 0.5 * (self.residual(x).double().square().sum(1) + self.prior(x).double().square().sum(1))

    def chi2(self, x: Tensor) -> Tensor:
        """Return chi^2 per unmasked pixel, (B,)."""
        return self.residual(x).square().sum(1) / self.observation.n_unmasked

    def normal(self, x: Tensor) -> Normal:
        """Return the normal equations at a vector (B, Q), in float64."""
        return self.normal_of(x, *self.system(x))

    def normal_of(self, x: Tensor, residual: Tensor, columns: Tensor) -> Normal:
        """Return the normal equations at a vector (B, Q), from its `system`."""
        gradient, hessian = products(residual, columns)
        pull, precision = self.prior_terms(x)
        hessian = hessian + torch.diag_embed(precision)
        gradient = gradient + pull
        cost = 0.5 * (residual.double().square().sum(1) + self.prior(x).double().square().sum(1))
        return Normal.from_derivatives(cost, gradient, hessian)

    def system(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the residuals of the data (B, H W), and the derivatives of the whitened model, (B, Q, H W)."""
        clean = self.render(x)
        weight = self.whitening(clean)
        columns = [self.over_noise(maps, weight) for maps in Brightness(self, x, self.judged).jacobian()]
        return self.whitened_rest(clean), self.filtered(torch.cat(columns, dim=1))  # all at once: the modes are many

    @property
    def judged(self) -> PixelGrid:
        """The pixels that derivatives are computed on: those of the camera, but few for the many of a field."""
        return self.fine if self.free is None and self.potential is None else self.coarse

    @property
    def coarse(self) -> PixelGrid:
        """The pixels that derivatives are computed on: two points a pixel do for the slopes."""
        points = min(self.observation.camera.supersampling, 2)
        return self.observation.camera.grid.resampled(points)

    def whitening(self, clean: Tensor) -> Tensor:
        """Return d E[y] / d clean over sigma, (B, 1, H, W)."""
        return self.observation.noise.slope(clean) * self.inverse_sigma

    def whitened_rest(self, clean: Tensor) -> Tensor:
        """Return (y - E[y]) / sigma, (B, H W), of clean models (B, 1, H, W), with the broad light integrated over."""
        rest = self.observation.image - self.observation.noise.expected(clean)
        return self.filtered((rest * self.inverse_sigma).flatten(1)[:, None])[:, 0]

    def whitened(self, maps: Tensor, weight: Tensor) -> Tensor:
        """Return the whitened changes (B, P, H W) of the expected image, for changes (B, P, sH, sW) of brightness."""
        return self.filtered(self.over_noise(maps, weight))

    def over_noise(self, maps: Tensor, weight: Tensor) -> Tensor:
        """Return the same without the broad light integrated over: see `filtered`."""
        return (exposed(self.observation.camera, maps) * weight).flatten(2)

    def renewed(self, x: Tensor) -> LensProblem:
        """Return the problem with the noise of the model of a vector (B, Q).

        With that law's numbers too, where the instrument does not know them.
        """
        clean = self.shown(x)
        observation = self.observation.renewed(clean)
        sigma = inverse_sigma(observation, clean) / self.inflation.sqrt()[:, None, None, None]
        return replace(self, observation=observation, inverse_sigma=sigma, front=self.light_in_front(x))

    def light_in_front(self, x: Tensor) -> Tensor | None:
        """Return the light of the lens itself, (B, 1, H, W) [flux per pixel]; None where there is none."""
        light = self.seen_lens(x).light
        if light is None:
            return None
        own = self.observation.camera.expose(light(self.fine.positions(like=x)) * self.fine.pixel_area)
        return own if self.broad is None else own + self.broad_light(self.render(x))

    def without_front(self, image: Tensor, x: Tensor) -> Tensor:
        """Return images (B, 1, H, W) [flux per pixel] without `light_in_front`."""
        front = self.light_in_front(x)
        return image if front is None else image - front

    def broad_light(self, clean: Tensor) -> Tensor:
        """Return the broad light that is likeliest beside clean images of all else, (B, 1, H, W) [flux per pixel]."""
        if self.broad is None:
            return torch.zeros_like(clean)
        rest = self.observation.image - self.observation.noise.expected(clean)
        return self.broad.likeliest(rest, self.inverse_sigma)

    def shown(self, x: Tensor) -> Tensor:
        """Return the clean images with everything that shines in them, (B, 1, H, W) [flux per pixel]."""
        clean = self.render(x)
        return clean + self.broad_light(clean)

    def without(self, pixels: Tensor) -> LensProblem:
        """Return the problem without some pixels, (B, 1, H, W), bool."""
        mask = (self.observation.weight > 0) & ~pixels
        observation = replace(self.observation, mask=mask)
        return replace(self, observation=observation, inverse_sigma=torch.where(mask, self.inverse_sigma, 0.0))

    def without_border(self, pixels: int) -> LensProblem:
        """Return the problem without so many pixels along each edge."""
        border = torch.ones_like(self.observation.image, dtype=torch.bool)
        border[..., pixels : border.shape[-2] - pixels, pixels : border.shape[-1] - pixels] = False
        return self.without(border)

    def sampled(self, points: int) -> LensProblem:
        """Return the problem with so many points along the side of a pixel; one is quick, and tells minima apart."""
        camera = replace(self.observation.camera, supersampling=points)
        return replace(self, observation=replace(self.observation, camera=camera))

    def inflated(self, factor: Tensor) -> LensProblem:
        """Return the problem with the noise variance of each image so many times as large, (B,)."""
        sigma = self.inverse_sigma / factor.sqrt()[:, None, None, None]
        return replace(self, inverse_sigma=sigma, inflation=self.inflation * factor)

    def inner(self, height: int, width: int) -> LensProblem:
        """Return the problem of the middle of the images, so many pixels; bounds and priors stay those of the whole."""
        grid = self.observation.camera.grid
        top, left = (grid.height - height) // 2, (grid.width - width) // 2
        part = (..., slice(top, top + height), slice(left, left + width))
        front = None if self.front is None else self.front[part]
        observation = self.observation.inner(height, width)
        broad = None if self.broad is None else BroadLight(self.broad.modes[part])
        return replace(self, observation=observation, inverse_sigma=self.inverse_sigma[part], front=front, broad=broad)

    def filtered(self, whitened: Tensor) -> Tensor:
        """Whitened images (B, P, H W) with the broad light integrated over."""
        return whitened if self.filter is None else self.filter(whitened)

    @cached_property
    def filter(self) -> BroadLightFilter | None:
        """What integrates the broad light over, at the noise of the problem."""
        return None if self.broad is None else self.broad.filter(self.inverse_sigma)


def products(residual: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return -J r (B, Q) and J J^T (B, Q, Q) of residuals (B, N) and columns (B, Q, N), in float64."""
    residual, columns = _lit(residual, columns)
    gradient = residual.new_zeros(columns.shape[:2], dtype=torch.float64)
    hessian = gradient.new_zeros(*gradient.shape, gradient.shape[1])
    size = block(_PIXELS_AT_ONCE, columns)
    for r, j in zip(residual.split(size, 1), columns.split(size, 2), strict=True):
        j = j.double()
        gradient -= (j @ r.double()[:, :, None])[:, :, 0]
        _add_gram(hessian, j)
    return gradient, hessian.triu() + hessian.triu(1).transpose(1, 2)


def _lit(residual: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Residuals (B, N) and columns (B, Q, N) in the pixels that answer to anything: a free source is dark in many."""
    power = columns.square().sum((0, 1))
    lit = power > _DARK * power.amax()
    return residual[:, lit], columns[:, :, lit]


def _add_gram(matrix: Tensor, j: Tensor) -> None:
    """Add J J^T of columns (B, Q, N) to a matrix (B, Q, Q), on and above its diagonal at least."""
    size = -(-j.shape[1] // _BLOCKS)
    for top in range(0, j.shape[1], size):
        matrix[:, top : top + size, top:] += j[:, top : top + size] @ j[:, top:].transpose(1, 2)


def exposed(camera: Camera, maps: Tensor) -> Tensor:
    """Return the images (B, P, H, W) [flux per pixel] of maps of brightness (B, P, sH, sW) [flux / arcsec^2]."""
    points = maps.shape[-1] // camera.grid.width
    area = camera.grid.pixel_area / points**2
    if len(maps) == 1 or camera.psf.shared:
        return camera.expose(maps.flatten(0, 1)[:, None]).unflatten(0, maps.shape[:2])[:, :, 0] * area
    expose = torch.func.vmap(camera.expose, in_dims=1, out_dims=1)
    return (expose(maps[:, :, None]) * area)[:, :, 0]


def inverse_sigma(observation: Observation, clean: Tensor) -> Tensor:
    """Return one over the noise that images have where they show ``clean``, 0 where masked, (B, 1, H, W)."""
    return (observation.weight / observation.noise.variance(clean)).sqrt()
