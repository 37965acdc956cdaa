"""What every component of a lens system has: a formula, declared parameters, and derivatives by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lensphys.basics.checks import LensphysError, check_images
from lensphys.basics.constants import constant
from lensphys.basics.equal import ByValue
from lensphys.model.parameter import Parameter
from lensphys.model.points import Points, Values, quadrature
from lensphys.tracing.critical import curves_of_formula, determinant
from lensphys.tracing.derivatives import axes

CORE = 1e-6  # arcsec
CENTRE = ("center_x", "center_y")
# pairs of parameters that turn with the sky, and how many times as fast: a number, or the component's own so named
TURNING: tuple[tuple[str, str, int | str], ...] = (("e1", "e2", 2), ("gamma1", "gamma2", 2), ("a_cos", "a_sin", "m"))

Value = float | Tensor  # of a parameter: a number, or one for each lens (B,)
Keywords = dict[str, Any]
Named = tuple[str, Keywords]  # a component in lenstronomy's words: name of the profile, and the values


def as_planes(value: Value, theta: Tensor) -> Tensor:
    """Return a value, number or (B,), in a shape that broadcasts with (B, H, W)."""
    if isinstance(value, int | float):
        return constant((float(value),), theta).reshape(1, 1, 1)
    return torch.as_tensor(value, dtype=theta.dtype, device=theta.device).reshape(-1, 1, 1)


def check_one(what: str, count: int) -> None:
    """Raise unless something is of one lens.

    Raises:
        LensphysError: if there are several.
    """
    if count != 1:
        raise LensphysError(f"{what} of {count} lenses: choose one")


def offset(theta: Tensor, center_x: Value, center_y: Value) -> tuple[Tensor, Tensor]:
    """Return x and y about a centre, each (B, H, W) [arcsec]."""
    check_images("theta", theta, channels=2)
    return theta[:, 0] - as_planes(center_x, theta), theta[:, 1] - as_planes(center_y, theta)


@dataclass(frozen=True)
class Component(ByValue):
    """A mass or light component: a dataclass whose fields are the values of its parameters.

    A new component is one file: a formula, and a class that names it and declares its parameters.

    Attributes:
        formula: positions (B or 1, 2, H, W) [arcsec] and the values -> what the component gives there.
        closed_form: the same -> its value (B, C, H, W), and its derivatives by all parameters in the order of
            ``parameters``, (B, P, C, H, W); None where nobody wrote them down: the formula is differentiated then.
        parameters: name, unit, bounds and default prior of each.
        whole: whole numbers that the formula takes before the parameters, and the least that each may be.
        strengths: the parameters that, all zero, make it vanish: a batch is padded so.
        may_be_zero: others of those above zero for which zero has a meaning, too.
        lenstronomy: its name in lenstronomy and in our scenes.
        in_lenstronomy: whether lenstronomy knows it by that name; if not, it is a word of our scenes alone.
        at_origin: whether scenes put it at the origin and say nothing of its centre.
        in_fits: the same component with parameters that a fit can take where nothing is said of those of its own.
    """

    formula: ClassVar[Callable[..., Tensor]]
    closed_form: ClassVar[Callable[..., tuple[Tensor, Tensor]] | None] = None
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    whole: ClassVar[dict[str, int]] = {}
    strengths: ClassVar[tuple[str, ...]] = ()
    may_be_zero: ClassVar[tuple[str, ...]] = ()
    lenstronomy: ClassVar[str] = ""
    in_lenstronomy: ClassVar[bool] = True
    at_origin: ClassVar[bool] = False
    in_fits: ClassVar[type[Component] | None] = None

    def __post_init__(self) -> None:
        check_values(type(self), self.values)

    @classmethod
    def scene_parameters(cls) -> tuple[Parameter, ...]:
        """Return the parameters that scenes give and recipes draw, in their order."""
        return tuple(p for p in cls.parameters if not (cls.at_origin and p.name in CENTRE))

    @classmethod
    def scene_names(cls) -> tuple[str, ...]:
        """Return the names of all that scenes say of it."""
        return (*cls.whole, *(p.name for p in cls.scene_parameters()))

    @classmethod
    def _places(cls, names: Sequence[str], like: Tensor) -> Tensor:
        """Return where some of the parameters stand in their declaration, (n,), on the device of a tensor."""
        order = [p.name for p in cls.parameters]
        return constant(tuple(order.index(name) for name in names), like, torch.long)

    @property
    def values(self) -> dict[str, Any]:
        """The values by their names."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def lenses(self) -> int:
        """For how many lenses its parameters are given, (B,); 1 where they are numbers."""
        return max((math.prod(shape_of(getattr(self, p.name, 0.0))) for p in self.parameters), default=1)

    def to_lenstronomy(self) -> list[Named]:
        """Return it in lenstronomy's words: names of profiles, and the keywords of each.

        Raises:
            LensphysError: if lenstronomy has nothing like it, or it is of several lenses.

        Example:
            >>> from lensphys.model import SIS
            >>> (SIS(theta_E=1.5) + SIS(theta_E=0.1, center_x=1.0)).to_lenstronomy()[1]
            ('SIS', {'theta_E': 0.1, 'center_x': 1.0, 'center_y': 0.0})
        """
        if not (self.lenstronomy and self.in_lenstronomy):
            raise LensphysError(f"lenstronomy has no profile like {type(self).__name__}")
        return [(self.lenstronomy, {name: self._number(name) for name in self.values})]

    def _number(self, name: str) -> float | int:
        """The value of a parameter where the component is of one lens.

        Raises:
            LensphysError: if it is of several.
        """
        value = self.values[name]
        if not isinstance(value, Tensor):
            return value
        if value.numel() != 1:
            raise LensphysError(f"{name} of {type(self).__name__} has {value.numel()} values: choose one lens")
        return value.item()

    def __call__(self, position: Tensor) -> Tensor:
        """Return the formula's value at positions (B or 1, 2, H, W) [arcsec]."""
        return type(self).formula(position, **self.values)

    def derivatives(self, position: Tensor, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Return the formula's value (B, C, H, W) and its derivatives by some parameters, (B, len(names), C, H, W).

        In closed form where the component has one, else by forward-mode differentiation.

        Args:
            position: (B or 1, 2, H, W) [arcsec].
            names: of parameters whose values are tensors (B,).
        """
        values, closed = self.values, type(self).closed_form
        if closed is not None:
            value, columns = closed(position, **values)
            return value, columns[:, self._places(names, columns)]
        chosen = tuple(values[name] for name in names)

        def at(*some: Tensor) -> Tensor:
            return type(self).formula(position, **(values | dict(zip(names, some, strict=True))))

        if not names:
            value = at()
            return value, value.new_zeros(len(value), 0, *value.shape[1:])
        slopes = []
        for i in range(len(names)):
            along = tuple(torch.ones_like(v) if i == j else torch.zeros_like(v) for j, v in enumerate(chosen))
            value, slope = torch.func.jvp(at, chosen, along)[:2]
            slopes.append(slope)
        return value, torch.stack(slopes, dim=1)


def chosen(by: Mapping[str, Tensor], names: Sequence[str], value: Tensor) -> Tensor:
    """Return the derivatives by some parameters, (B, len(names), C, H, W).

    Args:
        by: the derivatives by all of them, of the shape of ``value`` each, or of one that broadcasts to it.
        names: of the parameters.
        value: of the formula, (B, C, H, W), in its unit.
    """
    if not names:
        return value.new_zeros(len(value), 0, *value.shape[1:])
    return torch.stack([by[name].expand_as(value) for name in names], dim=1)


def vectors(value: Tensor, columns: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return complex deflections and their derivatives, (B, H, W) each, as `Component.derivatives` gives them.

    Args:
        value: alpha_x + i alpha_y [arcsec].
        columns: P derivatives of it, each in units of arcsec over that of its parameter.

    Returns:
        (B, 2, H, W) and (B, P, 2, H, W).
    """
    stacked = torch.stack(torch.broadcast_tensors(value, *columns), dim=1)
    both = torch.view_as_real(stacked).movedim(-1, 2)
    return both[:, 0], both[:, 1:]


def shape_of(value: Any) -> tuple[int, ...]:
    """Return the shape of a parameter's value: of numbers (), of lists that of the first list in them.

    Example:
        >>> shape_of(1.5), shape_of([1.0, 2.0]), shape_of([1.0, [2.0, 3.0]])
        ((), (2,), (2, 2))
    """
    if isinstance(value, list | tuple):
        return (len(value), *next(filter(None, map(shape_of, value)), ()))
    return tuple(getattr(value, "shape", ()))


def check_counts(what: str, counts: Mapping[str, int]) -> None:
    """Raise unless all are of one number of lenses, or of one lens.

    Args:
        what: has them.
        counts: of lenses, by the name of what has as many values.

    Raises:
        LensphysError: naming the counts.
    """
    if len(set(counts.values()) - {1}) > 1:
        told = " and ".join(f"{count} of {name}" for name, count in counts.items() if count != 1)
        raise LensphysError(f"{what} has values of {told}: give one for all lenses, or as many of each as there are")


_NUMBERS = (int, float, np.number, np.ndarray, list, tuple, Tensor)


def check_values(component: type[Component], values: Mapping[str, Any]) -> None:
    """Raise where a parameter, given as a number, has no meaning; those given as tensors are left to whoever made them.

    Args:
        component: the class.
        values: of its parameters by their names.

    Raises:
        LensphysError: naming parameter and value.
    """
    for p in component.parameters:
        value, unit = values.get(p.name, 0.0), f" [{p.unit}]" if p.unit else ""
        if hasattr(value, "to_value") or isinstance(value, bool) or not isinstance(value, _NUMBERS):
            raise LensphysError(f"{component.__name__}: {p.name} takes numbers{unit}, got {value!r}")
        if len(shape := shape_of(value)) > 1:
            raise LensphysError(
                f"{component.__name__}: {p.name} takes a number{unit}, or one for each lens (B,), got an array of "
                f"shape {shape}"
            )
    check_counts(component.__name__, {p.name: math.prod(shape_of(values.get(p.name))) for p in component.parameters})
    numbers = {name: float(x) for name, x in values.items() if isinstance(x, int | float | np.number)}
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise LensphysError(f"{component.__name__}: {name} must be finite, got {value}")
    for p in component.parameters:
        if p.name not in numbers:
            continue
        (low, high), number = p.domain, numbers[p.name]
        if not low < number < high:
            raise LensphysError(f"{component.__name__}: {p.name} must lie between {low:g} and {high:g}, got {number:g}")
        if p.logarithmic and (
            number < 0 or (number == 0 and p.name not in (*component.strengths, *component.may_be_zero))
        ):
            raise LensphysError(f"{component.__name__}: {p.name} must be positive, got {number:g}")
    if (e := math.hypot(numbers.get("e1", 0), numbers.get("e2", 0))) >= 1:
        raise LensphysError(
            f"{component.__name__}: the ellipticity |e| = (1-q)/(1+q) must be below 1, got {e:g} from "
            f"e1 = {numbers.get('e1', 0):g} and e2 = {numbers.get('e2', 0):g}"
        )


@dataclass(frozen=True)
class MassProfile(Component):
    """A mass component: called with theta (B or 1, 2, H, W), it gives its deflection; components add up with ``+``.

    At positions of any shape it answers, too: `deflection`, `potential`, `convergence`, `shear` and `magnification`
    take x and y [arcsec] that broadcast, numbers and arrays (numpy in, numpy out, of the same dtype) or tensors
    (tensors out, differentiable by positions and parameters; so, too, where a parameter wants its gradient). Positions
    may be quantities of astropy that are angles. Of B > 1 lenses, whose parameters are (B,), the answers
    have the shape (B, ...).

    Attributes:
        galaxy: whether it is a galaxy's whole mass, which can be the main lens of a recipe; its ``theta_E``, if it has
            one, may be given as the mass inside of it.
        about_lens: whether a fit puts its centre at that of the main lens.
    """

    strengths: ClassVar[tuple[str, ...]] = ("theta_E",)
    galaxy: ClassVar[bool] = False
    about_lens: ClassVar[bool] = False

    def __add__(self, other: MassProfile) -> MassSum:
        if not isinstance(other, MassProfile):
            return NotImplemented
        return MassSum((*self.summands, *other.summands))

    def __radd__(self, other: int) -> MassProfile:  # `sum` begins with 0
        return self if isinstance(other, int) and other == 0 else NotImplemented

    @property
    def summands(self) -> tuple[MassProfile, ...]:
        """The components that it is the sum of: itself, but for a `MassSum`."""
        return (self,)

    def jacobian(self, theta: Tensor) -> Tensor:
        """Return d alpha_i / d theta_j, (B, 2, 2, H, W), at theta (B or 1, 2, H, W) [arcsec]: exact."""
        return torch.stack([torch.func.jvp(self, (theta,), (step,))[1] for step in axes(theta)], dim=2)

    def psi(self, theta: Tensor) -> Tensor:
        """Return the lensing potential, (B, 1, H, W) [arcsec^2], at theta (B or 1, 2, H, W) [arcsec].

        It is the integral of the deflection from the centre outwards, zero at the centre; a component that knows it in
        closed form says so itself.
        """
        d, centre = self.from_centre(theta), theta - self.from_centre(theta)
        return sum(w * (d * self(centre + t * d)).sum(1, keepdim=True) for t, w in quadrature())  # type: ignore[return-value]

    def from_centre(self, theta: Tensor) -> Tensor:
        """Return theta as seen from the centre, if it has one, (B or 1, 2, H, W) [arcsec]."""
        values = self.values
        return torch.stack(offset(theta, *(values.get(name, 0.0) for name in CENTRE)), dim=1)

    def deflection(self, x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> tuple[Values, Values]:
        """Return the reduced deflection angle, (alpha_x, alpha_y) [arcsec], at positions (x, y) [arcsec].

        Example:
            >>> from lensphys.model import SIS
            >>> ax, ay = SIS(theta_E=1.5).deflection([3.0, 0.0], [4.0, 2.0])
            >>> ax.round(3).tolist(), ay.round(3).tolist()
            ([0.9, 0.0], [1.2, 1.5])
        """
        points = Points.from_xy(x, y)
        alpha = self(points.position)
        return points.shaped(alpha[:, 0]), points.shaped(alpha[:, 1])

    def ray(self, x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> tuple[Values, Values]:
        """Return where rays from (x, y) [arcsec] meet the source plane, beta = theta - alpha(theta) [arcsec]."""
        points = Points.from_xy(x, y)
        beta = points.position - self(points.position)
        return points.shaped(beta[:, 0]), points.shaped(beta[:, 1])

    def potential(self, x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> Values:
        """Return the lensing potential psi [arcsec^2], whose gradient is the deflection, at (x, y) [arcsec].

        Only its differences have a meaning: a component chooses its constant.
        """
        points = Points.from_xy(x, y)
        return points.shaped(self.psi(points.position)[:, 0])

    def convergence(self, x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> Values:
        """Return the convergence kappa = 1/2 div alpha, without unit, at (x, y) [arcsec]."""
        points = Points.from_xy(x, y)
        j = self.jacobian(points.position)
        return points.shaped(0.5 * (j[:, 0, 0] + j[:, 1, 1]))

    def shear(self, x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> tuple[Values, Values]:
        """Return the shear (gamma1, gamma2), without unit, at (x, y) [arcsec]."""
        points = Points.from_xy(x, y)
        j = self.jacobian(points.position)
        return points.shaped(0.5 * (j[:, 0, 0] - j[:, 1, 1])), points.shaped(0.5 * (j[:, 0, 1] + j[:, 1, 0]))

    def magnification(self, x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> Values:
        """Return the magnification 1 / det(1 - d alpha / d theta), signed, at (x, y) [arcsec].

        It is infinite on critical curves, and negative where an image is mirrored.
        """
        points = Points.from_xy(x, y)
        return points.shaped(1 / determinant(self.jacobian(points.position)))

    def critical_curves(self, half_width: float | None = None, step: float | None = None) -> list[Values]:
        """Return the critical curves, where the magnification is infinite, each (2, M) [arcsec], closed.

        Args:
            half_width: the square about the origin that is searched reaches so far [arcsec]; by default beyond the
                outermost curve.
            step: curves smaller than this are missed [arcsec]; by default a 200th of ``half_width``.

        Raises:
            LensphysError: if it is more than one lens, a curve leaves the square or lies around it, or the curves have
                no end.

        Example:
            >>> from lensphys.model import SIS
            >>> [(x, y)] = SIS(theta_E=1.5).critical_curves()
            >>> bool((abs((x**2 + y**2) ** 0.5 - 1.5) < 1e-6).all())
            True
        """
        return curves_of_formula(self.jacobian, self._reach, half_width, step)

    def caustics(self, half_width: float | None = None, step: float | None = None) -> list[Values]:
        """Return the caustics, each (2, M) [arcsec]: the critical curves in the source plane, in the same order.

        A singular lens (isothermal, or a point mass) has a cut in place of a radial caustic, which is none of them.

        Args:
            half_width: of the square that is searched [arcsec], as of `critical_curves`.
            step: curves smaller than this are missed [arcsec], likewise.

        Raises:
            LensphysError: as of `critical_curves`.
        """
        with torch.no_grad():
            return [np.stack(self.ray(*c)) for c in self.critical_curves(half_width, step)]

    @property
    def _reach(self) -> float:
        """How far off the origin its centre is, along an axis [arcsec]."""
        places = [torch.as_tensor(self.values[name]) for name in CENTRE if name in self.values]
        return max((float(place.detach().abs().max()) for place in places if place.numel()), default=0.0)


@dataclass(frozen=True)
class ScaleFree(MassProfile):
    """A mass component whose potential grows as a power of the distance from its centre, psi = r^power F(phi).

    So the potential is alpha . (theta - centre) / power, in closed form (Euler).
    """

    @property
    def power(self) -> Value:
        """Of r, (B,) or a number: 1 for what is isothermal."""
        return 1.0

    def psi(self, theta: Tensor) -> Tensor:
        """Return the potential, (B, 1, H, W) [arcsec^2], at theta (B or 1, 2, H, W) [arcsec]."""
        outward = (self(theta) * self.from_centre(theta)).sum(1, keepdim=True)
        return outward / as_planes(self.power, theta)[:, None]


@dataclass(frozen=True)
class MassSum(MassProfile):
    """The sum of mass components in one lens plane: of a list of them, or ``a + b``.

    Args:
        profiles: the components.

    Raises:
        LensphysError: if there is none, or one is no mass component.

    Example:
        >>> from lensphys.model import SIS, PointMass
        >>> lens = SIS(theta_E=1.0) + PointMass(theta_E=0.5, center_x=2.0)
        >>> [x.round(6).item() for x in lens.deflection(1.0, 0.0)]  # arcsec
        [0.75, 0.0]
    """

    profiles: Sequence[MassProfile]

    def __post_init__(self) -> None:
        _check_summands("lens", self.profiles, MassProfile)

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.profiles))

    @property
    def _reach(self) -> float:
        return max(profile._reach for profile in self.profiles)

    def psi(self, theta: Tensor) -> Tensor:
        """Return the sum of the potentials, (B, 1, H, W) [arcsec^2]."""
        return sum(profile.psi(theta) for profile in self.profiles)  # type: ignore[return-value]

    def __call__(self, theta: Tensor) -> Tensor:
        """Return the sum of the deflections, (B, 2, H, W) [arcsec]."""
        total = self.profiles[0](theta)
        for profile in self.profiles[1:]:
            total = total + profile(theta)
        return total

    @property
    def lenses(self) -> int:
        """Of how many lenses it is."""
        return max(profile.lenses for profile in self.profiles)

    @property
    def summands(self) -> tuple[MassProfile, ...]:
        """The components that it is the sum of."""
        return tuple(self.profiles)

    def to_lenstronomy(self) -> list[Named]:
        """Return its components in lenstronomy's words: see `Component.to_lenstronomy`."""
        return [named for profile in self.profiles for named in profile.to_lenstronomy()]


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
            values: of the other parameters, in the units that they declare.

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

    def gradient(self, beta: Tensor) -> Tensor:
        """Return the gradient of the brightness by beta, (B, 2, H, W) [flux / arcsec^3]."""
        beta = beta.contiguous()
        return torch.cat([torch.func.jvp(self, (beta,), (step,))[1] for step in axes(beta)], dim=1)

    def brightness(self, x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> Values:
        """Return the surface brightness [flux / arcsec^2] at positions (x, y) [arcsec] of any shape.

        Numbers and arrays give arrays of the same dtype, tensors give tensors.

        Example:
            >>> from lensphys.model import Sersic
            >>> Sersic(amp=2.0, R_sersic=0.5, n_sersic=1.0).brightness([[0.5, -0.5]], 0.0).round(6).tolist()
            [[2.0, 2.0]]
        """
        points = Points.from_xy(x, y)
        return points.shaped(self(points.position)[:, 0])

    def __add__(self, other: LightProfile) -> LightSum:
        if not isinstance(other, LightProfile):
            return NotImplemented
        return LightSum((*self.summands, *other.summands))

    def __radd__(self, other: int) -> LightProfile:  # `sum` begins with 0
        return self if isinstance(other, int) and other == 0 else NotImplemented

    @property
    def summands(self) -> tuple[LightProfile, ...]:
        """The components that it is the sum of: itself, but for a `LightSum`."""
        return (self,)


@dataclass(frozen=True)
class LightSum(LightProfile):
    """The sum of light components in one plane: of a list of them, or ``a + b``.

    Args:
        profiles: the components.

    Raises:
        LensphysError: if there is none, or one is no light component.

    Example:
        >>> from lensphys.model import Sersic
        >>> disc, bulge = (Sersic(amp=a, R_sersic=0.3, n_sersic=n) for a, n in ((1.0, 1.0), (2.0, 4.0)))
        >>> (disc + bulge).brightness(0.3, 0.0).round(6).item()  # flux / arcsec^2
        3.0
    """

    profiles: Sequence[LightProfile]

    def __post_init__(self) -> None:
        _check_summands("light", self.profiles, LightProfile)

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.profiles))

    def __call__(self, position: Tensor) -> Tensor:
        """Return the sum of the brightnesses, (B, 1, H, W) [flux / arcsec^2]."""
        return torch.stack(torch.broadcast_tensors(*(profile(position) for profile in self.profiles))).sum(0)

    def gradient(self, beta: Tensor) -> Tensor:
        """Return the gradient of the sum by beta, (B, 2, H, W) [flux / arcsec^3]."""
        return torch.stack(torch.broadcast_tensors(*(profile.gradient(beta) for profile in self.profiles))).sum(0)

    @property
    def lenses(self) -> int:
        """Of how many lenses it is."""
        return max(profile.lenses for profile in self.profiles)

    @property
    def summands(self) -> tuple[LightProfile, ...]:
        """The components that it is the sum of."""
        return tuple(self.profiles)

    def to_lenstronomy(self) -> list[Named]:
        """Return its components in lenstronomy's words: see `Component.to_lenstronomy`."""
        return [named for profile in self.profiles for named in profile.to_lenstronomy()]


def _check_summands(name: str, profiles: Any, kind: type[Component]) -> None:
    if not isinstance(profiles, tuple | list) or not profiles:
        raise LensphysError(f"a {name} is made of a list of components, at least one, got {profiles!r}")
    for profile in profiles:
        if not isinstance(profile, kind):
            raise LensphysError(f"a {name} is made of {kind.__name__} components, got {profile!r}")
    check_counts(f"this {name}", {f"{type(p).__name__} ({i})": p.lenses for i, p in enumerate(profiles)})
