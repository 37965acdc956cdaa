"""Parameters of components: declared once, with unit, bounds and default prior; and the space that they span."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from lensphys.basics.constants import constant


class OfImage(float):
    """A bound in a unit that an image gives."""

    words: ClassVar[str]

    @property
    def told(self) -> str:
        """The number and its unit, for files."""
        return f"{self:g} {self.words}"


class HalfWidths(OfImage):
    """A bound in half widths of the field of view: `Parameter.seen_in` turns it into arcsec."""

    words = "half widths of the field of view"


class Peaks(OfImage):
    """A bound in units of an image's brightest pixel."""

    words = "peaks"


@dataclass(frozen=True)
class Parameter:
    """A physical parameter between two bounds, with a Gaussian prior: declared on the component that has it.

    Args:
        name: the field's name for it.
        unit: of its value.
        low: lower bound, in that unit or in `HalfWidths` or `Peaks`.
        high: upper bound, in the unit of ``low``.
        mean: of the prior, in that unit.
        sigma: of the prior; infinite for none. For a logarithmic parameter both are in its logarithm's value space:
            ``mean`` is the median and ``sigma`` is in e-folds.
        logarithmic: whether the logarithm is what is uniform between the bounds, and normal in the prior; such a
            parameter is positive.
        domain: open interval outside of which the formula has no meaning; a fit stays within the bounds.
    """

    name: str
    unit: str
    low: float
    high: float
    mean: float = 0.0
    sigma: float = math.inf
    logarithmic: bool = False
    domain: tuple[float, float] = (-math.inf, math.inf)

    @property
    def in_peaks(self) -> bool:
        """Whether a fit counts it in units of the image's brightest pixel."""
        return isinstance(self.high, Peaks)

    @property
    def plain_bounds(self) -> tuple[float, float]:
        """The bounds that are plain numbers; infinite ones in place of those that depend on the image."""
        low, high = (isinstance(b, OfImage) for b in (self.low, self.high))
        return -math.inf if low else self.low, math.inf if high else self.high

    @property
    def as_dict(self) -> dict[str, Any]:
        """Unit, bounds and prior, for files."""
        bounds = {k: b.told if isinstance(b, OfImage) else b for k, b in (("low", self.low), ("high", self.high))}
        prior = {"mean": self.mean, "sigma": self.sigma} if self.sigma < math.inf else {}
        return {"unit": self.unit} | bounds | prior | {"logarithmic": self.logarithmic}

    def seen_in(self, radius: float) -> Parameter:
        """Return the parameter with its bounds in its unit, in a field of view of half width ``radius`` [arcsec]."""
        low, high = (b * radius if isinstance(b, HalfWidths) else b for b in (self.low, self.high))
        return replace(self, low=low, high=high)

    def moved(self, by: float) -> Parameter:
        """Return the parameter with bounds, in its unit, and prior moved."""
        return replace(self, low=self.low + by, high=self.high + by, mean=self.mean + by)

    def between(self, low: float, high: float) -> Parameter:
        """Return the parameter with other bounds."""
        return replace(self, low=low, high=high)

    def named(self, name: str) -> Parameter:
        """Return the parameter under another name."""
        return replace(self, name=name)


# declarations that components share: the centre of a galaxy, that of a sub-halo anywhere in the field, ellipticity
GALAXY_CENTRE = (
    Parameter("center_x", "arcsec", HalfWidths(-0.25), HalfWidths(0.25), 0.0, 0.1),
    Parameter("center_y", "arcsec", HalfWidths(-0.25), HalfWidths(0.25), 0.0, 0.1),
)
ANYWHERE = (
    Parameter("center_x", "arcsec", HalfWidths(-1.5), HalfWidths(1.5), 0.0, 4.0),
    Parameter("center_y", "arcsec", HalfWidths(-1.5), HalfWidths(1.5), 0.0, 4.0),
)
SOURCE_CENTRE = (
    Parameter("center_x", "arcsec", HalfWidths(-0.6), HalfWidths(0.6)),
    Parameter("center_y", "arcsec", HalfWidths(-0.6), HalfWidths(0.6)),
)
ELLIPTICITY = (Parameter("e1", "", -0.6, 0.6, 0.0, 0.2), Parameter("e2", "", -0.6, 0.6, 0.0, 0.2))


class ParameterSpace:
    """An ordered set of bounded parameters: unconstrained vectors (B, P) <-> named physical values (B,)."""

    def __init__(self, parameters: list[Parameter]) -> None:
        self.parameters = parameters
        self.names = [p.name for p in parameters]

        def inner(p: Parameter, value: float) -> float:
            return math.log(value) if p.logarithmic else value

        informed = [p for p in parameters if p.sigma < math.inf]
        self._low = tuple(inner(p, p.low) for p in parameters)
        self._span = tuple(inner(p, p.high) - inner(p, p.low) for p in parameters)
        self._log = tuple(p.logarithmic for p in parameters)
        self._informed = tuple(i for i, p in enumerate(parameters) if p.sigma < math.inf)
        self._mean = tuple(inner(p, p.mean) for p in informed)
        self._sigma = tuple(p.sigma for p in informed)

    def __len__(self) -> int:
        return len(self.parameters)

    def _inner(self, u: Tensor) -> Tensor:
        return constant(self._low, u) + constant(self._span, u) * torch.sigmoid(u)

    def physical(self, u: Tensor) -> dict[str, Tensor]:
        """Return the named values, each (B,), of unconstrained vectors (B, P)."""
        inner = self._inner(u)
        return {name: torch.exp(inner[:, i]) if self._log[i] else inner[:, i] for i, name in enumerate(self.names)}

    def slopes(self, u: Tensor) -> Tensor:
        """Return d value / d u of each parameter at unconstrained vectors (B, P), (B, P)."""
        fraction = torch.sigmoid(u)
        inner = constant(self._span, u) * fraction * (1 - fraction)
        return torch.where(constant(self._log, u, torch.bool), inner * self._inner(u).exp(), inner)

    def unconstrained(self, values: dict[str, Tensor]) -> Tensor:
        """Return the vectors (B, P) of named values (B,); values at or outside of a bound move just inside."""
        columns = [torch.log(values[n]) if log else values[n] for n, log in zip(self.names, self._log, strict=True)]
        inner = torch.stack(torch.broadcast_tensors(*columns), dim=1)
        fraction = (inner - constant(self._low, inner)) / constant(self._span, inner)
        return torch.logit(fraction.clamp(1e-3, 1 - 1e-3))

    def at_bounds(self, u: Tensor, edge: float) -> Tensor:
        """Return which values are within a share ``edge`` of their range of a bound, (B, P), of vectors (B, P)."""
        fraction = torch.sigmoid(u)
        return torch.minimum(fraction, 1 - fraction) < edge

    def off_bounds(self, u: Tensor, edge: float) -> Tensor:
        """Return vectors (B, P) whose values are at least a share ``edge`` of their range from each bound."""
        furthest = math.log((1 - edge) / edge)
        return u.clamp(-furthest, furthest)

    def prior_residual(self, u: Tensor) -> Tensor:
        """Return (value - mean) / sigma of the parameters that have a prior, (B, number of priors)."""
        inner = self._inner(u)[:, self._places(u)]
        return (inner - constant(self._mean, u)) / constant(self._sigma, u)

    def pulls(self, u: Tensor) -> Tensor:
        """Return `prior_residual` of every parameter, (B, P), 0 of those without a prior."""
        pulls = torch.zeros_like(u)
        pulls[:, self._places(u)] = self.prior_residual(u)
        return pulls

    def prior_slopes(self, u: Tensor) -> Tensor:
        """Return the Jacobian of `prior_residual`, (B, P, number of priors)."""
        places = self._places(u)
        fraction = torch.sigmoid(u[:, places])
        slopes = constant(self._span, u)[places] * fraction * (1 - fraction) / constant(self._sigma, u)
        jacobian = u.new_zeros(len(u), len(self), len(places))
        jacobian[:, places, torch.arange(len(places), device=u.device)] = slopes
        return jacobian

    def _places(self, u: Tensor) -> Tensor:
        """Where the parameters that have a prior stand."""
        return constant(self._informed, u, torch.long)
