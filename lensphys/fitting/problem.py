"""What is fitted to a batch of images that share a model, and how the images answer to small changes of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import add
from typing import cast

import torch
from torch import Tensor

from lensphys.basics.checks import LensphysError, check_finite
from lensphys.basics.rows import Rows, chosen_rows
from lensphys.fitting.bodies import Bodies, PointBodies
from lensphys.fitting.broad_light import BroadLight, BroadLightFilter
from lensphys.fitting.newton import Normal
from lensphys.fitting.placement import PLACED, PlacedLight, PlacedMass, Placement
from lensphys.model import (
    Component,
    CosineBasis,
    Frame,
    FreeSource,
    LensModel,
    LightProfile,
    MassProfile,
    Modes,
    Parameter,
    ParameterSpace,
    PotentialField,
    Sersic,
)
from lensphys.observation import Camera, Observation
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid

_MAPS_AT_ONCE = 1 << 18  # points of derivative maps: what stays in caches, and asks for no new memory
_PIXELS_AT_ONCE = 1 << 11
_DARK = 1e-12  # of the largest sum of squared derivatives in a pixel: less does not show in any number
_BLOCKS = 4  # of a matrix J J^T: what lies below its diagonal is not computed twice


@dataclass(frozen=True)
class FreeField(Rows):
    """What of the source is free beside its Sersic.

    Args:
        modes: of the field g.
        frame: where in the source plane.
        sigma: prior standard deviation of each coefficient, (B, M).
    """

    modes: Modes
    frame: Frame
    sigma: Tensor


@dataclass(frozen=True)
class PotentialCorrection(Rows):
    """A correction psi to the potential.

    Args:
        basis: of the field.
        sigma: prior standard deviation of each coefficient, (B, n, n) [arcsec^3]; 0 where there is none.
    """

    basis: CosineBasis
    sigma: Tensor


@dataclass(frozen=True)
class Lens:
    """A fitted lens as callables on positions.

    Args:
        values: the named parameters ``member.parameter``, each (B,); positions in arcsec, ``amp`` in flux/arcsec^2.
        mass: theta (B or 1, 2, H, W) [arcsec] -> alpha (B, 2, H, W) [arcsec].
        source: beta (B, 2, H, W) [arcsec] -> surface brightness (B, 1, H, W) [flux / arcsec^2].
        light: theta [arcsec] -> surface brightness of the lens itself, not deflected; None for none.
    """

    values: dict[str, Tensor]
    mass: MassProfile
    source: LightProfile
    light: LightProfile | None = None

    def from_place(self, placement: Placement | None) -> Lens:
        """Return it as an image sees it that lies elsewhere; the named parameters stay."""
        if placement is None:
            return self
        light = None if self.light is None else PlacedLight(self.light, placement)
        return Lens(self.values, PlacedMass(self.mass, placement), PlacedLight(self.source, placement), light)

    def seen_by(self, camera: Camera, like: Tensor) -> Tensor:
        """Return the clean images of a camera, (B, 1, H, W) [flux per pixel]; dtype and device of ``like``."""
        fine = camera.grid.resampled(camera.supersampling)
        image = camera.render(self.source, DeflectionField.from_lens(self.mass, fine, like=like))
        if self.light is None:
            return image
        return image + camera.expose(self.light(fine.positions(like=like)) * fine.pixel_area)


@dataclass(frozen=True)
class LensProblem:
    """The least-squares problem of a batch of images that share a model, at a fixed noise variance.

    A vector (B, Q) holds, in this order: the model's parameters, unconstrained; ln strength, x and y of each sub-halo;
    the coefficients of the source's field and of the potential's, each in units of its prior standard deviation.

    Args:
        observation: images and how they were taken.
        model: the components.
        space: bounds and priors of their parameters.
        unit: surface brightness of the brightest pixel, (B,) [flux / arcsec^2].
        inverse_sigma: one over the noise of each pixel, 0 where masked, (B, 1, H, W).
        radius: half width of the field of view [arcsec], also where the problem is of its middle alone.
        inflation: of the noise variance, (B,): more than 1 where neighbouring pixels share their noise.
        bodies: what a sub-halo is.
        subhalos: how many there are.
        free: the source's field; None for sources that are what the model says.
        potential: the correction to the potential; None for none.
        front: the light of the lens as last fitted, (B, 1, H, W) [flux per pixel]; None where there is none.
        placement: of the images, where they are not those whose middle the positions of the model are about.
        released: bounds and priors without what is held; None where nothing is.
    """

    observation: Observation
    model: LensModel
    space: ParameterSpace
    unit: Tensor
    inverse_sigma: Tensor
    radius: float
    inflation: Tensor
    bodies: Bodies
    subhalos: int = 0
    free: FreeField | None = None
    potential: PotentialCorrection | None = None
    front: Tensor | None = None
    broad: BroadLight | None = None
    placement: Placement | None = None
    released: ParameterSpace | None = None

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
            observation,
            model,
            model.space(grid.radius),
            peak / grid.pixel_area,
            inverse_sigma(observation, observation.smoothed),
            grid.radius,
            torch.ones_like(peak),
            bodies or PointBodies(0.1 * grid.scale),
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
    def sizes(self) -> tuple[int, int, int, int]:
        """How many entries of a vector are the model's, the sub-halos', the source's and the potential's."""
        return (
            len(self.space),
            3 * self.subhalos,
            0 if self.free is None else len(self.free.modes),
            0 if self.potential is None else self.potential.sigma[0].numel(),
        )

    @property
    def fine(self) -> PixelGrid:
        """The camera's (supersampled) pixels."""
        return self.observation.camera.grid.resampled(self.observation.camera.supersampling)

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return a vector (B, Q) cut into its four parts."""
        return x.split(self.sizes, dim=1)

    def lens(self, x: Tensor) -> Lens:
        """Return the lens and the source of a vector."""
        own, bodies, g, psi = self.parts(x)
        values = self.values(own)
        mass = self.model.deflector(values)
        if self.subhalos:
            mass = mass + self.bodies.made(bodies)
        if self.potential is not None:
            mass = mass + PotentialField(self._psi(psi), self.potential.basis)
        light = self._sum(self.model.lens_light, values, g) if self.model.lens_light else None
        return Lens(values, mass, self._sum(self.model.source, values, g), light)

    def seen_lens(self, x: Tensor) -> Lens:
        """Return the lens and the source of a vector as the images see them, wherever they lie."""
        return self.lens(x).from_place(self.placement)

    def positions(self, grid: PixelGrid) -> Tensor:
        """Return where the pixels of a grid are for the model, (B or 1, 2, H, W) [arcsec]."""
        theta = grid.positions(like=self.unit)
        return theta if self.placement is None else self.placement.sky(theta)

    def first_source(self, x: Tensor) -> LightProfile:
        """Return the first source, without its field."""
        values = self.values(self.parts(x)[0])
        name, member = next(iter(self.model.source.items()))
        return cast(LightProfile, member.made(name, values))

    def sersic(self, x: Tensor) -> Sersic:
        """Return the Sersic of the first source."""
        return Sersic(**self.first_source(x).values)

    def values(self, own: Tensor) -> dict[str, Tensor]:
        """Return the named parameters, each (B,), of unconstrained ones (B, P)."""
        values = self.space.physical(own)
        free = {p.name: values[p.name] * (self.unit if p.in_peaks else 1) for p in self.model.parameters}
        return self.model.completed(free, self.unit)

    def unconstrained(self, values: dict[str, Tensor]) -> Tensor:
        """Return the vector (B, P) of named values, each (B,)."""
        return self.space.unconstrained(
            {p.name: values[p.name] / (self.unit if p.in_peaks else 1) for p in self.model.parameters}
        )

    def held(self, x: Tensor, share: float, names: Collection[str]) -> tuple[LensProblem, Tensor]:
        """Return the problem of one image with some parameters held near what they are, and the vector there.

        Args:
            x: the vector, (1, Q).
            share: of the range between its bounds by which each may change.
            names: of the parameters; those that are not free do not count.
        """
        space = self.released or self.space
        now = self.values(self.parts(x)[0])

        def near(p: Parameter) -> Parameter:
            if p.name not in names:
                return p
            value, by = float(now[p.name] / (self.unit if p.in_peaks else 1)), share * (p.high - p.low)
            return p.between(max(p.low, value - by), min(p.high, value + by))

        return self._respaced(x, ParameterSpace([near(p) for p in space.parameters]), space)

    def let_go(self, x: Tensor) -> tuple[LensProblem, Tensor]:
        """Return the problem with nothing held, and a vector (B, Q) there."""
        return (self, x) if self.released is None else self._respaced(x, self.released, None)

    def at_bounds(self, x: Tensor, edge: float) -> list[list[str]]:
        """Return which parameters stand at a bound, image by image, with nothing held.

        Args:
            x: the vector, (B, Q).
            edge: share of the range of a parameter next to a bound that counts as the bound.
        """
        problem, x = self.let_go(x)
        flags = problem.space.at_bounds(problem.parts(x)[0], edge).tolist()
        return [[name for name, at in zip(problem.model.names, row, strict=True) if at] for row in flags]

    def _respaced(
        self, x: Tensor, space: ParameterSpace, released: ParameterSpace | None
    ) -> tuple[LensProblem, Tensor]:
        own, *others = self.parts(x)
        problem = replace(self, space=space, released=released)
        return problem, torch.cat([problem.unconstrained(self.values(own)), *others], dim=1)

    def with_model(self, model: LensModel, x: Tensor) -> tuple[LensProblem, Tensor]:
        """Return the problem with a model that has more parameters, and a vector (B, Q) there: these at their means.

        Args:
            model: with all parameters of this one, which keep their bounds and priors.
            x: the vector, with nothing held.
        """
        known = {p.name: p for p in self.space.parameters}
        space = ParameterSpace([known.get(p.name, p.seen_in(self.radius)) for p in model.parameters])
        own, *others = self.parts(x)
        problem = replace(self, model=model, space=space)
        values = model.typical(self.unit) | self.values(own)
        return problem, torch.cat([problem.unconstrained(values), *others], dim=1)

    def render(self, x: Tensor) -> Tensor:
        """Return the clean images, (B, 1, H, W) [flux per pixel]."""
        return self.seen_lens(x).seen_by(self.observation.camera, like=x)

    def residual(self, x: Tensor) -> Tensor:
        """Return (y - E[model]) / sigma, (B, H W)."""
        return self.whitened_rest(self.render(x))

    def prior(self, x: Tensor) -> Tensor:
        """Return the residuals of the priors, (B, number of priors)."""
        own, bodies, g, psi = self.parts(x)
        return torch.cat([self.space.prior_residual(own), self.bodies.prior(bodies)[0], g, psi], dim=1)

    def pulls(self, x: Tensor) -> Tensor:
        """Return the residual of the prior of each entry, (B, Q), 0 where it has none."""
        own, bodies, g, psi = self.parts(x)
        return torch.cat([self.space.pulls(own), self.bodies.prior(bodies)[0], g, psi], dim=1)

    def cost(self, x: Tensor) -> Tensor:
        """Return half of chi^2 and of the priors' squares, (B,), in float64."""
        return 0.5 * (self.residual(x).double().square().sum(1) + self.prior(x).double().square().sum(1))

    def chi2(self, x: Tensor) -> Tensor:
        """Return chi^2 per unmasked pixel, (B,)."""
        return self.residual(x).square().sum(1) / self.observation.n_unmasked

    def normal(self, x: Tensor) -> Normal:
        """Return the normal equations at a vector, in float64."""
        return self.normal_of(x, *self.system(x))

    def normal_of(self, x: Tensor, residual: Tensor, columns: Tensor) -> Normal:
        """Return the normal equations at a vector, from its `system`."""
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
        columns = [self.whitened(maps, weight) for maps in self.maps(x, self.judged)]
        return self.whitened_rest(clean), torch.cat(columns, dim=1)

    @property
    def judged(self) -> PixelGrid:
        """The pixels that derivatives are computed on: those of the camera, but few for the many of a field."""
        return self.fine if self.free is None and self.potential is None else self.coarse

    @property
    def coarse(self) -> PixelGrid:
        """The pixels that derivatives are computed on: two points a pixel do for the slopes."""
        points = min(self.observation.camera.supersampling, 2)
        return self.observation.camera.grid.resampled(points)

    def maps(self, x: Tensor, grid: PixelGrid) -> Iterator[Tensor]:
        """Yield the derivatives of the brightness on a grid by the entries of the vector, (B, some, H, W) at a time."""
        for maps in self._maps(x, grid):
            yield maps if self.placement is None else maps * self.placement.factor

    def placement_maps(self, x: Tensor, grid: PixelGrid) -> Tensor:
        """Return the derivatives of the brightness on a grid by the numbers of the placement, (B, 4, H, W)."""
        placement = self.placement or Placement.identity(self.unit)
        lens, theta = self.lens(x), grid.positions(like=x)
        sky = placement.sky(theta)
        beta, jacobian = sky - lens.mass(sky), lens.mass.jacobian(sky)
        steepest = 2 * grid.radius / grid.scale
        slope = lens.source.gradient(beta)
        steep = slope - (slope[:, :, None] * jacobian.clamp(-steepest, steepest)).sum(1)
        light = lens.source(beta)
        if lens.light is not None:
            steep, light = steep + lens.light.gradient(sky), light + lens.light(sky)
        across = placement.turned(torch.stack([-theta[:, 1], theta[:, 0]], dim=1))
        columns = {"x": steep[:, :1], "y": steep[:, 1:], "rotation": (steep * across).sum(1, keepdim=True)}
        return torch.cat([(columns | {"flux": light})[name] for name in PLACED], dim=1) * placement.factor

    def _maps(self, x: Tensor, grid: PixelGrid) -> Iterator[Tensor]:
        own, bodies, g, _ = self.parts(x)
        values, theta = self.values(own), self.positions(grid)
        lens = self.lens(x)
        alpha = lens.mass(theta)
        beta = theta - alpha
        slope = lens.source.gradient(beta)
        by_value = self._by_values(values, g, theta, beta, slope, grid)
        yield by_value * self.steepness(own)[:, :, None, None]
        if self.subhalos:
            yield self.bodies.columns(bodies, theta, slope)
        size = max(1, _MAPS_AT_ONCE // (len(x) * theta[0, 0].numel()))
        if self.free is not None:
            yield from self._by_field(x, beta, size)
        if self.potential is not None:
            yield from self._by_potential(slope, grid, size)

    def source_maps(self, x: Tensor, grid: PixelGrid) -> Tensor:
        """Return the derivatives of the brightness on a grid by the source's field alone, (B, M, H, W)."""
        lens, theta = self.lens(x), grid.positions(like=x)
        beta = theta - lens.mass(theta)
        return torch.cat(list(self._by_field(x, beta, self.sizes[2])), dim=1)

    def source_gradient(self, x: Tensor, grid: PixelGrid) -> Tensor:
        """Return the gradient of the source's brightness by beta on a grid, (B, 2, H, W) [flux / arcsec^3]."""
        lens, theta = self.lens(x), self.positions(grid)
        gradient = lens.source.gradient(theta - lens.mass(theta))
        return gradient if self.placement is None else gradient * self.placement.factor

    def whitening(self, clean: Tensor) -> Tensor:
        """Return d E[y] / d clean over sigma, (B, 1, H, W)."""
        return torch.func.jvp(self.observation.noise.expected, (clean,), (torch.ones_like(clean),))[1] * (
            self.inverse_sigma
        )

    def whitened_rest(self, clean: Tensor) -> Tensor:
        """Return (y - E[y]) / sigma, (B, H W), of clean models (B, 1, H, W), with the broad light integrated over."""
        rest = self.observation.image - self.observation.noise.expected(clean)
        return self.filtered((rest * self.inverse_sigma).flatten(1)[:, None])[:, 0]

    def whitened(self, maps: Tensor, weight: Tensor) -> Tensor:
        """Return the whitened changes (B, P, H W) of the expected image, for changes (B, P, sH, sW) of brightness."""
        return self.filtered((exposed(self.observation.camera, maps) * weight).flatten(2))

    def renewed(self, x: Tensor) -> LensProblem:
        """Return the problem with the noise of the model: its numbers too, where the instrument does not know them."""
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

    def inflated(self, factor: Tensor) -> LensProblem:
        """Return the problem with the noise variance of each image so many times as large, (B,)."""
        sigma = self.inverse_sigma / factor.sqrt()[:, None, None, None]
        return replace(self, inverse_sigma=sigma, inflation=self.inflation * factor)

    def centred_on(self, x: float, y: float) -> LensProblem:
        """Return the problem with bounds and priors of all centres about a place [arcsec]."""
        by = {"center_x": x, "center_y": y}
        return self.with_parameters(lambda p: p.moved(by.get(p.name.split(".")[-1], 0.0)))

    def with_parameters(self, changed: Callable[[Parameter], Parameter]) -> LensProblem:
        """Return the problem with bounds and priors changed, of what is held as well."""
        space, released = self.space, self.released
        released = None if released is None else ParameterSpace([changed(p) for p in released.parameters])
        return replace(self, space=ParameterSpace([changed(p) for p in space.parameters]), released=released)

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

    def _sum(self, names: Iterable[str], values: dict[str, Tensor], g: Tensor) -> LightProfile:
        return reduce(add, [self._light_of(name, values, g) for name in names])

    def _psi(self, psi: Tensor) -> Tensor:
        sigma = self.potential.sigma  # type: ignore[union-attr]
        return psi.reshape(sigma.shape) * sigma

    def steepness(self, own: Tensor) -> Tensor:
        """d value / d parameter, (B, P)."""
        peaks = torch.tensor([p.in_peaks for p in self.model.parameters], device=own.device)
        slopes = self.space.slopes(own)
        return torch.where(peaks, slopes * self.unit[:, None], slopes)

    def _by_values(
        self, values: dict[str, Tensor], g: Tensor, theta: Tensor, beta: Tensor, slope: Tensor, grid: PixelGrid
    ) -> Tensor:
        """Derivatives of the brightness by the values of the model's free parameters, (B, P, H, W)."""
        place = {name: i for i, name in enumerate(self.model.names)}
        total = slope.new_zeros(len(slope), len(place), *slope.shape[-2:])
        for name, member in self.model.members.items():
            moving = {p.name: f"{name}.{p.name}" for p in member.free} | dict(member.tied)
            moving = {own: target for own, target in moving.items() if target in place}
            if not moving:
                continue
            if name in self.model.mass:
                columns = self._by_mass(member.made(name, values), tuple(moving), theta, slope, grid)
            else:
                where = beta if name in self.model.source else theta
                columns = self._light_of(name, values, g).derivatives(where, tuple(moving))[1][:, :, 0]
            total.index_add_(1, torch.tensor([place[t] for t in moving.values()], device=slope.device), columns)
        return total

    def _by_mass(
        self, mass: Component, names: tuple[str, ...], theta: Tensor, slope: Tensor, grid: PixelGrid
    ) -> Tensor:
        steepest = 2 * grid.radius / grid.scale  # alpha jumps at a lens's centre: half a pixel from it it does not
        bend = mass.derivatives(theta, names)[1].clamp(-steepest, steepest)
        return -(slope[:, None] * bend).sum(2)

    def _light_of(self, name: str, values: dict[str, Tensor], g: Tensor) -> LightProfile:
        """A source or lens light, with its field where it is free."""
        light = self.model.members[name].made(name, values)
        if self.free is not None and name == next(iter(self.model.source)):
            light = FreeSource(Sersic(**light.values), g * self.free.sigma, self.free.modes, self.free.frame)
        return cast(LightProfile, light)

    def _by_field(self, x: Tensor, beta: Tensor, size: int) -> Iterator[Tensor]:
        free = self.free
        if free is None:
            return
        own, _, g, _ = self.parts(x)
        source = cast(FreeSource, self._light_of(next(iter(self.model.source)), self.values(own), g))
        light = source.by_field(beta)
        along_x, along_y = free.modes.along(free.frame.inside(beta)[0]).unbind(1)
        lengths, rows = free.modes.rows, list[Tensor]()
        for b, sigma in enumerate(free.sigma[..., None, None].split(lengths, dim=1)):
            rows.append(light * along_y[:, b : b + 1] * along_x[:, : lengths[b]] * sigma)
            if sum(lengths[b + 1 - len(rows) : b + 2]) > size or b + 1 == len(lengths):
                yield rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
                rows = []

    def _by_potential(self, slope: Tensor, grid: PixelGrid, size: int) -> Iterator[Tensor]:
        potential = self.potential
        if potential is None:
            return
        n = potential.sigma.shape[-1]
        (cx, sx), (cy, sy) = self._lines(potential.basis, n, grid, slope)
        for index in torch.arange(n * n, device=slope.device).split(size):
            b, a = index // n, index % n  # rows of coefficients are modes along y
            bend_x, bend_y = cy[b] * sx[a], sy[b] * cx[a]
            sigma = potential.sigma.flatten(1)[:, index, None, None]
            yield -(slope[:, :1] * bend_x + slope[:, 1:] * bend_y) * sigma

    def _lines(self, basis: CosineBasis, n: int, grid: PixelGrid, like: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Values and slopes of the first modes along x and along y: (n, 1, W) and (n, H, 1), or (n, H, W) on axes that
        are not those of the basis."""
        if self.placement is not None:
            return basis.planes(self.positions(grid), n)
        (cx, sx), (cy, sy) = basis.lines(grid, n, like=like)
        return [(cx[:, None, :], sx[:, None, :]), (cy[:, :, None], sy[:, :, None])]

    def prior_terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient and curvature of the priors' half squares by each entry, (B, Q) each, in float64."""
        own, bodies, g, psi = self.parts(x)
        jacobian = self.space.prior_slopes(own).double()
        pull = (jacobian @ self.space.prior_residual(own).double()[:, :, None])[:, :, 0]
        value, steep = (t.double() for t in self.bodies.prior(bodies))
        fields = torch.cat([g, psi], dim=1).double()
        precision = [jacobian.square().sum(2), steep.square(), torch.ones_like(fields)]
        return torch.cat([pull, value * steep, fields], dim=1), torch.cat(precision, dim=1)


def products(residual: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return -J r (B, Q) and J J^T (B, Q, Q) of residuals (B, N) and columns (B, Q, N), in float64."""
    residual, columns = _lit(residual, columns)
    gradient = residual.new_zeros(columns.shape[:2], dtype=torch.float64)
    hessian = gradient.new_zeros(*gradient.shape, gradient.shape[1])
    for r, j in zip(residual.split(_PIXELS_AT_ONCE, 1), columns.split(_PIXELS_AT_ONCE, 2), strict=True):
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
