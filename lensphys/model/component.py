"""What every component of a lens system has: a formula, declared parameters, and derivatives by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from lensphys.checks import LensphysError, check_images
from lensphys.model.parameter import Parameter

CORE = 1e-6  # arcsec
CENTRE = ("center_x", "center_y")

Value = float | Tensor  # of a parameter: a number, or one for each lens (B,)


def as_planes(value: Value, theta: Tensor) -> Tensor:
    """Return a value, number or (B,), in a shape that broadcasts with (B, H, W)."""
    return torch.as_tensor(value, dtype=theta.dtype, device=theta.device).reshape(-1, 1, 1)


def offset(theta: Tensor, center_x: Value, center_y: Value) -> tuple[Tensor, Tensor]:
    """Return x and y about a centre, each (B, H, W) [arcsec]."""
    check_images("theta", theta, channels=2)
    return theta[:, 0] - as_planes(center_x, theta), theta[:, 1] - as_planes(center_y, theta)


@dataclass(frozen=True)
class Component:
    """A mass or light component: a dataclass whose fields are the values of its parameters.

    A new component is one file: a formula, and a class that names it and declares its parameters.

    Attributes:
        formula: positions (B or 1, 2, H, W) [arcsec] and the values -> what the component gives there.
        parameters: name, unit, bounds and default prior of each.
        whole: whole numbers that the formula takes before the parameters, and the least that each may be.
        strengths: the parameters that, all zero, make it vanish: a batch is padded so.
        lenstronomy: its name in lenstronomy and in our scenes.
        in_lenstronomy: whether lenstronomy knows it by that name; if not, it is a word of our scenes alone.
        at_origin: whether scenes put it at the origin and say nothing of its centre.
        in_fits: the same component with parameters that a fit can take where nothing is said of those of its own.
    """

    formula: ClassVar[Callable[..., Tensor]]
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    whole: ClassVar[dict[str, int]] = {}
    strengths: ClassVar[tuple[str, ...]] = ()
    lenstronomy: ClassVar[str] = ""
    in_lenstronomy: ClassVar[bool] = True
    at_origin: ClassVar[bool] = False
    in_fits: ClassVar[type[Component] | None] = None

    @classmethod
    def scene_parameters(cls) -> tuple[Parameter, ...]:
        """Return the parameters that scenes give and recipes draw, in their order."""
        return tuple(p for p in cls.parameters if not (cls.at_origin and p.name in CENTRE))

    @classmethod
    def scene_names(cls) -> tuple[str, ...]:
        """Return the names of all that scenes say of it."""
        return (*cls.whole, *(p.name for p in cls.scene_parameters()))

    @property
    def values(self) -> dict[str, Any]:
        """The values by their names."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def __call__(self, position: Tensor) -> Tensor:
        """Return the formula's value at positions (B or 1, 2, H, W) [arcsec]."""
        return type(self).formula(position, **self.values)

    def derivatives(self, position: Tensor, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Return the formula's value (B, C, H, W) and its derivatives by some parameters, (B, len(names), C, H, W).

        By forward-mode differentiation; a component that knows them in closed form says so itself.

        Args:
            position: (B or 1, 2, H, W) [arcsec].
            names: of parameters whose values are tensors (B,).
        """
        values = self.values
        chosen = tuple(values[name] for name in names)

        def at(*some: Tensor) -> Tensor:
            return type(self).formula(position, **(values | dict(zip(names, some, strict=True))))

        if not names:
            value = at()
            return value, value.new_zeros(len(value), 0, *value.shape[1:])
        columns = []
        for i in range(len(names)):
            along = tuple(torch.ones_like(v) if i == j else torch.zeros_like(v) for j, v in enumerate(chosen))
            value, slope = torch.func.jvp(at, chosen, along)[:2]
            columns.append(slope)
        return value, torch.stack(columns, dim=1)


@dataclass(frozen=True)
class MassProfile(Component):
    """A mass component: called with theta (B or 1, 2, H, W), it gives its deflection; components add up with ``+``.

    Attributes:
        galaxy: whether it is a galaxy's whole mass, which can be the main lens of a recipe; its ``theta_E``, if it has
            one, may be given as the mass inside of it.
        about_lens: whether a fit puts its centre at that of the main lens.
    """

    strengths: ClassVar[tuple[str, ...]] = ("theta_E",)
    galaxy: ClassVar[bool] = False
    about_lens: ClassVar[bool] = False

    def __add__(self, other: MassProfile) -> MassSum:
        return MassSum((*self.summands, *other.summands))

    @property
    def summands(self) -> tuple[MassProfile, ...]:
        """The components that it is the sum of: itself, but for a `MassSum`."""
        return (self,)


@dataclass(frozen=True)
class MassSum(MassProfile):
    """The sum of mass components in one lens plane."""

    profiles: tuple[MassProfile, ...]

    def __call__(self, theta: Tensor) -> Tensor:
        """Return the sum of the deflections, (B, 2, H, W) [arcsec]."""
        total = self.profiles[0](theta)
        for profile in self.profiles[1:]:
            total = total + profile(theta)
        return total

    @property
    def summands(self) -> tuple[MassProfile, ...]:
        """The components that it is the sum of."""
        return self.profiles


@dataclass(frozen=True)
class LightProfile(Component):
    """A light component: call it with beta (B or 1, 2, H, W) for its brightness (B, 1, H, W) [flux / arcsec^2].

    Those that recipes draw have an ``amp``, which all of their light is in proportion to, and a centre.
    """

    strengths: ClassVar[tuple[str, ...]] = ("amp",)

    @classmethod
    def unit_flux(cls, values: Mapping[str, float]) -> float:
        """Return the total flux with amp = 1 [arcsec^2]: what magnitudes need.

        Args:
            values: of the other parameters.

        Raises:
            LensphysError: if it is not known.
        """
        raise LensphysError(f"{cls.__name__} does not know its total flux: give its amp in place of a magnitude")

    @property
    def half_side(self) -> Tensor:
        """Of the square about its centre that holds its light, (B,) [arcsec].

        Raises:
            LensphysError: if it has no end.
        """
        raise LensphysError(f"{type(self).__name__} does not know how far its light reaches")

    def slope(self, beta: Tensor) -> Tensor:
        """Return the gradient of the brightness by beta, (B, 2, H, W) [flux / arcsec^3]."""
        beta = beta.contiguous()
        along = [torch.zeros_like(beta) for _ in range(2)]
        along[0][:, 0], along[1][:, 1] = 1, 1
        return torch.cat([torch.func.jvp(self, (beta,), (d,))[1] for d in along], dim=1)

    def __add__(self, other: LightProfile) -> LightSum:
        return LightSum((*self.summands, *other.summands))

    @property
    def summands(self) -> tuple[LightProfile, ...]:
        """The components that it is the sum of: itself, but for a `LightSum`."""
        return (self,)


@dataclass(frozen=True)
class LightSum(LightProfile):
    """The sum of light components in one plane."""

    profiles: tuple[LightProfile, ...]

    def __call__(self, position: Tensor) -> Tensor:
        """Return the sum of the brightnesses, (B, 1, H, W) [flux / arcsec^2]."""
        return torch.stack([profile(position) for profile in self.profiles]).sum(0)

    def slope(self, beta: Tensor) -> Tensor:
        """Return the gradient of the sum by beta, (B, 2, H, W) [flux / arcsec^3]."""
        return torch.stack([profile.slope(beta) for profile in self.profiles]).sum(0)

    @property
    def summands(self) -> tuple[LightProfile, ...]:
        """The components that it is the sum of."""
        return self.profiles
