"""What a vector says: the parameters of a model, its sub-halos and fields, and the lens that they make."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Self, cast

import torch
from torch import Tensor

from lensphys.basics.constants import constant
from lensphys.basics.rows import Rows
from lensphys.fitting.bodies import Bodies
from lensphys.fitting.placement import PlacedLight, PlacedMass, Placement
from lensphys.model import (
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
from lensphys.observation import Camera
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid


@dataclass(frozen=True)
class FreeField(Rows):
    """The Gaussian field whose exponential the source's Sersic is multiplied with.

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


@dataclass(frozen=True, kw_only=True)
class Parametrised:
    """The lenses of a batch of images that share a model, as vectors.

    A vector (B, Q) holds, in this order: the model's parameters, unconstrained; ln strength, x and y of each sub-halo;
    the coefficients of the source's field and of the potential's, each in units of its prior standard deviation.

    Args:
        model: the components.
        space: bounds and priors of their parameters.
        unit: surface brightness of the brightest pixel, (B,) [flux / arcsec^2].
        radius: half width of the field of view [arcsec], also where the images are of its middle alone.
        bodies: what a sub-halo is.
        subhalos: how many there are.
        free: the source's field; None for sources that are what the model says.
        potential: the correction to the potential; None for none.
        placement: of the images, where they are not those whose middle the positions of the model are about.
        released: bounds and priors without what is held; None where nothing is.
    """

    model: LensModel
    space: ParameterSpace
    unit: Tensor
    radius: float
    bodies: Bodies
    subhalos: int = 0
    free: FreeField | None = None
    potential: PotentialCorrection | None = None
    placement: Placement | None = None
    released: ParameterSpace | None = None

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """How many entries of a vector are the model's, the sub-halos', the source's and the potential's."""
        return (
            len(self.space),
            3 * self.subhalos,
            0 if self.free is None else len(self.free.modes),
            0 if self.potential is None else self.potential.sigma[0].numel(),
        )

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return a vector (B, Q) cut into its four parts."""
        return x.split(self.sizes, dim=1)

    def lens(self, x: Tensor) -> Lens:
        """Return the lens and the source of a vector (B, Q)."""
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
        """Return the lens and the source of a vector (B, Q) as the images see them, wherever they lie."""
        return self.lens(x).from_place(self.placement)

    def positions(self, grid: PixelGrid) -> Tensor:
        """Return where the pixels of a grid are for the model, (B or 1, 2, H, W) [arcsec]."""
        theta = grid.positions(like=self.unit)
        return theta if self.placement is None else self.placement.sky(theta)

    def first_source(self, x: Tensor) -> LightProfile:
        """Return the first source of a vector (B, Q), without its field."""
        values = self.values(x)
        name, member = next(iter(self.model.source.items()))
        return cast(LightProfile, member.made(name, values))

    def sersic(self, x: Tensor) -> Sersic:
        """Return the Sersic of the first source of a vector (B, Q)."""
        return Sersic(**self.first_source(x).values)

    def values(self, x: Tensor) -> dict[str, Tensor]:
        """Return the named parameters, each (B,), of a vector (B, Q), or of those alone, (B, P)."""
        values = self.space.physical(x[:, : len(self.space)])
        free = {p.name: values[p.name] * (self.unit if p.in_peaks else 1) for p in self.model.parameters}
        return self.model.completed(free, self.unit)

    def unconstrained(self, values: dict[str, Tensor]) -> Tensor:
        """Return the vector (B, P) of named values, each (B,)."""
        return self.space.unconstrained(
            {p.name: values[p.name] / (self.unit if p.in_peaks else 1) for p in self.model.parameters}
        )

    def steepness(self, own: Tensor) -> Tensor:
        """d value / d parameter, (B, P)."""
        peaks = constant(tuple(p.in_peaks for p in self.model.parameters), own, torch.bool)
        slopes = self.space.slopes(own)
        return torch.where(peaks, slopes * self.unit[:, None], slopes)

    def held(self, x: Tensor, share: float, names: Collection[str]) -> tuple[Self, Tensor]:
        """Return the problem of one image with some parameters held near what they are, and the vector there.

        Args:
            x: the vector, (1, Q).
            share: of the range between its bounds by which each may change.
            names: of the parameters; those that are not free do not count.
        """
        space = self.released or self.space
        now = self.values(x)

        def near(p: Parameter) -> Parameter:
            if p.name not in names:
                return p
            value, by = float(now[p.name] / (self.unit if p.in_peaks else 1)), share * (p.high - p.low)
            return p.between(max(p.low, value - by), min(p.high, value + by))

        return self._respaced(x, ParameterSpace([near(p) for p in space.parameters]), space)

    def let_go(self, x: Tensor) -> tuple[Self, Tensor]:
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

    def _respaced(self, x: Tensor, space: ParameterSpace, released: ParameterSpace | None) -> tuple[Self, Tensor]:
        own, *others = self.parts(x)
        problem = replace(self, space=space, released=released)
        return problem, torch.cat([problem.unconstrained(self.values(own)), *others], dim=1)

    def with_model(self, model: LensModel, x: Tensor) -> tuple[Self, Tensor]:
        """Return the problem with a model that has more parameters, and a vector (B, Q) there: these at their means.

        Args:
            model: with all parameters of this one, which keep their bounds and priors.
            x: the vector, with nothing held, (B, Q).
        """
        known = {p.name: p for p in self.space.parameters}
        space = ParameterSpace([known.get(p.name, p.seen_in(self.radius)) for p in model.parameters])
        own, *others = self.parts(x)
        problem = replace(self, model=model, space=space)
        values = model.typical(self.unit) | self.values(own)
        return problem, torch.cat([problem.unconstrained(values), *others], dim=1)

    def with_parameters(self, changed: Callable[[Parameter], Parameter]) -> Self:
        """Return the problem with bounds and priors changed, of what is held as well."""
        space, released = self.space, self.released
        released = None if released is None else ParameterSpace([changed(p) for p in released.parameters])
        return replace(self, space=ParameterSpace([changed(p) for p in space.parameters]), released=released)

    def centred_on(self, x: float, y: float) -> Self:
        """Return the problem with bounds and priors of all centres about a place [arcsec]."""
        by = {"center_x": x, "center_y": y}
        return self.with_parameters(lambda p: p.moved(by.get(p.name.split(".")[-1], 0.0)))

    def prior(self, x: Tensor) -> Tensor:
        """Return the residuals of the priors, (B, number of priors)."""
        own, bodies, g, psi = self.parts(x)
        return torch.cat([self.space.prior_residual(own), self.bodies.prior(bodies)[0], g, psi], dim=1)

    def pulls(self, x: Tensor) -> Tensor:
        """Return the residual of the prior of each entry, (B, Q), 0 where it has none."""
        own, bodies, g, psi = self.parts(x)
        return torch.cat([self.space.pulls(own), self.bodies.prior(bodies)[0], g, psi], dim=1)

    def prior_terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient and curvature of the priors' half squares by each entry, (B, Q) each, in float64."""
        own, bodies, g, psi = self.parts(x)
        jacobian = self.space.prior_slopes(own).double()
        pull = (jacobian @ self.space.prior_residual(own).double()[:, :, None])[:, :, 0]
        value, steep = (t.double() for t in self.bodies.prior(bodies))
        fields = torch.cat([g, psi], dim=1).double()
        precision = [jacobian.square().sum(2), steep.square(), torch.ones_like(fields)]
        return torch.cat([pull, value * steep, fields], dim=1), torch.cat(precision, dim=1)

    def _sum(self, names: Iterable[str], values: dict[str, Tensor], g: Tensor) -> LightProfile:
        return reduce(add, [self.light_of(name, values, g) for name in names])

    def light_of(self, name: str, values: dict[str, Tensor], g: Tensor) -> LightProfile:
        """A source or lens light of parameters (B,) each, with its field of coefficients (B, M) where it is free."""
        light = self.model.members[name].made(name, values)
        if self.free is not None and name == next(iter(self.model.source)):
            sersic = Sersic(**light.values)
            light = FreeSource(sersic, g * self.free.sigma, self.free.modes, self.free.frame.about(sersic))
        return cast(LightProfile, light)

    def _psi(self, psi: Tensor) -> Tensor:
        sigma = self.potential.sigma  # type: ignore[union-attr]
        return psi.reshape(sigma.shape) * sigma
