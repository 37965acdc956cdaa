"""A lens system as a list of components: which ones, which of their parameters are free, and what ties them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any, cast

import torch
from torch import Tensor

from lensphys.model.component import CENTRE, Component, MassProfile
from lensphys.model.light.sersic import Sersic
from lensphys.model.mass import SIE, Shear
from lensphys.model.parameter import Parameter, ParameterSpace


def centre_of(values: Mapping[str, Tensor], member: str) -> Tensor:
    """Return where a member is, (B, 2) [arcsec], of the model's values, (B,) each."""
    return torch.stack([values[f"{member}.{name}"] for name in CENTRE], dim=1)


@dataclass(frozen=True)
class Member:
    """A component of a lens model.

    Args:
        component: its class.
        free: the parameters that are fitted, with their bounds and priors.
        fixed: the values of others.
        tied: parameters that have the value of another member's: own name -> ``member.parameter``.
    """

    component: type[Component]
    free: tuple[Parameter, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_component(cls, component: type[Component], tied: Mapping[str, str] | None = None, **fixed: Any) -> Member:
        """Return a member whose declared parameters are free with their default priors, but for those given here."""
        tied = tied or {}
        free = tuple(p for p in component.parameters if p.name not in fixed and p.name not in tied)
        return cls(component, free, fixed, tied)

    def made(self, name: str, values: Mapping[str, Tensor]) -> Component:
        """Return the component, from the named values of the whole model, ``member.parameter`` -> (B,)."""
        own = {p.name: values[f"{name}.{p.name}"] for p in self.free}
        fixed = {key: values.get(f"{name}.{key}", value) for key, value in self.fixed.items()}
        return self.component(**own, **fixed, **{key: values[other] for key, other in self.tied.items()})


@dataclass(frozen=True)
class LensModel:
    """What is fitted: mass components, sources and lens light, each under a name. Presence is membership.

    Args:
        mass: in the lens plane; the first one is the main lens.
        source: behind the lens.
        lens_light: in front of it: not deflected.

    Example:
        >>> LensModel.smooth().names[:3]
        ('lens.theta_E', 'lens.e1', 'lens.e2')
    """

    mass: Mapping[str, Member]
    source: Mapping[str, Member]
    lens_light: Mapping[str, Member] = field(default_factory=dict)

    @classmethod
    def smooth(cls) -> LensModel:
        """Return SIE + shear about its centre, and a Sersic source."""
        about = {name: f"lens.{name}" for name in ("center_x", "center_y")}
        return cls(
            {"lens": Member.from_component(SIE), "shear": Member.from_component(Shear, about)},
            {"source": Member.from_component(Sersic)},
        )

    @property
    def members(self) -> dict[str, Member]:
        """All of them, by name."""
        return {**self.mass, **self.source, **self.lens_light}

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The free parameters, named ``member.parameter``: the order of every vector."""
        return tuple(p.named(f"{name}.{p.name}") for name, member in self.members.items() for p in member.free)

    @property
    def main(self) -> str:
        """The name of the main lens: the first mass."""
        return next(iter(self.mass))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the free parameters."""
        return tuple(p.name for p in self.parameters)

    @property
    def mass_names(self) -> tuple[str, ...]:
        """The names of those of the mass."""
        return tuple(name for name in self.names if name.rpartition(".")[0] in self.mass)

    @property
    def units(self) -> dict[str, str]:
        """The units of all declared parameters, free or not, by their names."""
        return {f"{name}.{p.name}": p.unit for name, m in self.members.items() for p in m.component.parameters}

    def space(self, radius: float) -> ParameterSpace:
        """Return the space of the free parameters in a field of view of half width ``radius`` [arcsec]."""
        return ParameterSpace([p.seen_in(radius) for p in self.parameters])

    def typical(self, like: Tensor) -> dict[str, Tensor]:
        """Return the value that each free parameter has before anything is seen, (B,): the mean of its prior."""
        return {p.name: torch.full_like(like, p.mean) for p in self.parameters}

    def completed(self, values: Mapping[str, Tensor], like: Tensor) -> dict[str, Tensor]:
        """Return the named values with those of the fixed parameters, each (B,)."""
        fixed = {
            f"{name}.{p.name}": torch.as_tensor(member.fixed[p.name]).to(like).expand_as(like)
            for name, member in self.members.items()
            for p in member.component.parameters
            if p.name in member.fixed
        }
        return fixed | dict(values)

    def with_mass(self, **members: Member) -> LensModel:
        """Return the model with further mass components, which come after the others."""
        return replace(self, mass={**self.mass, **members})

    def deflector(self, values: Mapping[str, Tensor]) -> MassProfile:
        """Return the sum of the mass components; values (B,) by ``member.parameter``, in the parameters' units."""
        return reduce(add, [cast(MassProfile, member.made(name, values)) for name, member in self.mass.items()])
