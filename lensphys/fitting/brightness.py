"""How the brightness of the sky answers to small changes of a vector."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from lensphys.basics.blocks import block
from lensphys.basics.constants import constant
from lensphys.fitting.parametrised import Lens, Parametrised
from lensphys.fitting.placement import PLACED, Placement
from lensphys.model import Component, CosineBasis, FreeSource
from lensphys.tracing.grid import PixelGrid

_MAPS_AT_ONCE = 1 << 18  # points of derivative maps: what stays in caches, and asks for no new memory


@dataclass(frozen=True)
class Brightness:
    """The brightness of lenses on a grid of pixels, and its derivatives.

    Args:
        of: the lenses.
        x: the vectors, (B, Q).
        grid: pixels of the images.
    """

    of: Parametrised
    x: Tensor
    grid: PixelGrid

    def jacobian(self) -> Iterator[Tensor]:
        """Yield the derivatives by the entries of the vector, in their order, (B, some, H, W) at a time."""
        placement = self.of.placement
        for maps in self._jacobian():
            yield maps if placement is None else maps * placement.factor

    def by_placement(self) -> Tensor:
        """Return the derivatives by the numbers of the placement, (B, 4, H, W)."""
        placement = self.of.placement or Placement.identity(self.of.unit)
        lens, theta = self._lens, self.grid.positions(like=self.x)
        sky = placement.sky(theta)
        beta, jacobian = sky - lens.mass(sky), lens.mass.jacobian(sky)
        slope = lens.source.gradient(beta)
        steep = slope - (slope[:, :, None] * jacobian.clamp(-self._steepest, self._steepest)).sum(1)
        light = lens.source(beta)
        if lens.light is not None:
            steep, light = steep + lens.light.gradient(sky), light + lens.light(sky)
        across = placement.turned(torch.stack([-theta[:, 1], theta[:, 0]], dim=1))
        columns = {"x": steep[:, :1], "y": steep[:, 1:], "rotation": (steep * across).sum(1, keepdim=True)}
        return torch.cat([(columns | {"flux": light})[name] for name in PLACED], dim=1) * placement.factor

    def by_field(self) -> Tensor:
        """Return the derivatives by the source's field alone, (B, M, H, W)."""
        return torch.cat(list(self._by_field(self.of.sizes[2])), dim=1)

    def beyond_the_frame(self) -> Tensor:
        """Return the light of a free source where its field is none, (B, 1, H, W) [flux / arcsec^2]."""
        source = self._free_source
        light = (1 - source.frame.inside(self._beta)[1]) * source(self._beta)
        return light if self.of.placement is None else light * self.of.placement.factor

    @property
    def source_gradient(self) -> Tensor:
        """The gradient of the source's brightness by beta, (B, 2, H, W) [flux / arcsec^3]."""
        placement = self.of.placement
        return self._slope if placement is None else self._slope * placement.factor

    @cached_property
    def _lens(self) -> Lens:
        return self.of.lens(self.x)

    @property
    def _free_source(self) -> FreeSource:
        own, _, g, _ = self.of.parts(self.x)
        return cast(FreeSource, self.of.light_of(next(iter(self.of.model.source)), self.of.values(own), g))

    @cached_property
    def _theta(self) -> Tensor:
        return self.of.positions(self.grid)

    @cached_property
    def _beta(self) -> Tensor:
        return self._theta - self._lens.mass(self._theta)

    @cached_property
    def _slope(self) -> Tensor:
        return self._lens.source.gradient(self._beta)

    @property
    def _steepest(self) -> float:
        """Of a deflection, which jumps at a lens's centre: half a pixel from it it does not."""
        return 2 * self.grid.radius / self.grid.scale

    def _jacobian(self) -> Iterator[Tensor]:
        own, bodies, _, _ = self.of.parts(self.x)
        yield self._by_values() * self.of.steepness(own)[:, :, None, None]
        if self.of.subhalos:
            yield self.of.bodies.columns(bodies, self._theta, self._slope)
        size = max(1, block(_MAPS_AT_ONCE, self.x) // (len(self.x) * self._theta[0, 0].numel()))
        yield from self._by_field(size)
        yield from self._by_potential(size)

    def _by_values(self) -> Tensor:
        """By the values of the model's free parameters, (B, P, H, W)."""
        model, slope = self.of.model, self._slope
        own, _, g, _ = self.of.parts(self.x)
        values, place = self.of.values(own), {name: i for i, name in enumerate(model.names)}
        total = slope.new_zeros(len(slope), len(place), *slope.shape[-2:])
        for name, member in model.members.items():
            moving = {p.name: f"{name}.{p.name}" for p in member.free} | dict(member.tied)
            moving = {own: target for own, target in moving.items() if target in place}
            if not moving:
                continue
            if name in model.mass:
                columns = self._by_mass(member.made(name, values), tuple(moving))
            else:
                where = self._beta if name in model.source else self._theta
                columns = self.of.light_of(name, values, g).derivatives(where, tuple(moving))[1][:, :, 0]
            total.index_add_(1, constant(tuple(place[t] for t in moving.values()), slope, torch.long), columns)
        return total

    def _by_mass(self, mass: Component, names: tuple[str, ...]) -> Tensor:
        bend = mass.derivatives(self._theta, names)[1].clamp(-self._steepest, self._steepest)
        return -(self._slope[:, None] * bend).sum(2)

    def _by_field(self, size: int) -> Iterator[Tensor]:
        """By the coefficients of the source's field, so many at a time."""
        free = self.of.free
        if free is None:
            return
        source = self._free_source
        light = source.by_field(self._beta)
        along_x, along_y = free.modes.along(source.frame.inside(self._beta)[0]).unbind(1)
        lengths, rows = free.modes.rows, list[Tensor]()
        for b, sigma in enumerate(free.sigma[..., None, None].split(lengths, dim=1)):
            rows.append(light * along_y[:, b : b + 1] * along_x[:, : lengths[b]] * sigma)
            if sum(lengths[b + 1 - len(rows) : b + 2]) > size or b + 1 == len(lengths):
                yield rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
                rows = []

    def _by_potential(self, size: int) -> Iterator[Tensor]:
        """By the coefficients of the potential, so many at a time."""
        potential = self.of.potential
        if potential is None:
            return
        n = potential.sigma.shape[-1]
        (cx, sx), (cy, sy) = self._lines(potential.basis, n)
        for index in torch.arange(n * n, device=self.x.device).split(size):
            b, a = index // n, index % n  # rows of coefficients are modes along y
            bend_x, bend_y = cy[b] * sx[a], sy[b] * cx[a]
            sigma = potential.sigma.flatten(1)[:, index, None, None]
            yield -(self._slope[:, :1] * bend_x + self._slope[:, 1:] * bend_y) * sigma

    def _lines(self, basis: CosineBasis, n: int) -> list[tuple[Tensor, Tensor]]:
        """Values and slopes of the first modes along x and along y: (n, 1, W) and (n, H, 1), or (n, H, W) on axes that
        are not those of the basis."""
        if self.of.placement is not None:
            return basis.planes(self._theta, n)
        (cx, sx), (cy, sy) = basis.lines(self.grid, n, like=self._slope)
        return [(cx[:, None, :], sx[:, None, :]), (cy[:, :, None], sy[:, :, None])]
