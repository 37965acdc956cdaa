"""The model that a fit is asked for, by the names of a recipe: lenses, shear, sources, sub-halos, potential."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from lensphys.basics.settings import Strict, chosen_by_kind, find_beside, read_yaml
from lensphys.fitting.bodies import Bodies, PointBodies, TNFWBodies
from lensphys.fitting.freer_mass import FreerMass
from lensphys.fitting.members import (
    AnyLight,
    AnyMass,
    ExternalShear,
    MainLens,
    MainSettings,
    MainSource,
    MemberSettings,
    SourceSettings,
)
from lensphys.fitting.psf_moments import PSFMoments
from lensphys.fitting.subhalos import Search
from lensphys.model import SIE, FieldPrior, LensModel, Member, Sersic, Shear
from lensphys.model.component import CENTRE, MassProfile
from lensphys.model.declared import settings_of
from lensphys.tracing.grid import PixelGrid

S = TypeVar("S", bound=Strict)


class _Change(Strict):
    """A change of other settings: it says only what was given, and what it is about.

    Attributes:
        own: what it says always.
    """

    own: ClassVar[frozenset[str]] = frozenset({"kind"})

    @property
    def said(self) -> set[str]:
        """The names of all that it says."""
        return (self.model_fields_set | self.own) & set(type(self).model_fields)

    def over(self, settings: S) -> S:
        """Return other settings with what is said here laid over them."""
        names = self.said & set(type(settings).model_fields)
        return settings.model_copy(update={name: getattr(self, name) for name in names})

    @model_serializer(mode="wrap")
    def _given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if name in self.said}


class PointSubhalos(Search, _Change):
    """Sub-halos as point masses. What is said of the search changes that of the fit."""

    kind: Literal["point_mass"] = "point_mass"

    def bodies(self, grid: PixelGrid) -> Bodies:
        """Return what a sub-halo is, in an image of such pixels."""
        return PointBodies.on(grid)


class TNFWSubhalos(Search, _Change):
    """Sub-halos as truncated NFW halos. What is said of the search changes that of the fit.

    Args:
        candidates_per_round: one, because two in a round would share what is a single extended halo.
        size: scale radius of a halo whose total mass has theta_E^2 = 1e-3 arcsec^2 [arcsec]; it grows with the cube
            root of the mass.
        truncation: truncation radius [scale radius].
    """

    own = frozenset({"kind", "candidates_per_round", "size", "truncation"})
    kind: Literal["tnfw"] = "tnfw"
    candidates_per_round: PositiveInt = 1
    size: PositiveFloat = 0.1
    truncation: PositiveFloat = 5.0

    def bodies(self, grid: PixelGrid) -> Bodies:
        """Return what a sub-halo is, in an image of such pixels."""
        return TNFWBodies(size=self.size, truncation=self.truncation)


class PotentialChange(FieldPrior, _Change):
    """The prior of the correction to the potential: what is said changes that of the fit."""


SUBHALOS: dict[str, type[PointSubhalos] | type[TNFWSubhalos]] = {"point_mass": PointSubhalos, "tnfw": TNFWSubhalos}
Subhalos = Annotated[SerializeAsAny[PointSubhalos | TNFWSubhalos], chosen_by_kind(lambda: SUBHALOS, "point_mass")]


class FitModel(Strict):
    """What is fitted to an image, by the names of a recipe.

    Of each component a parameter that is not given is free with the prior that it declares, a number is fixed, and a
    distribution is the prior.

    Args:
        lens: the main lens, with an Einstein radius.
        shear: external shear, about the lens unless its centre is given; null for none.
        more_lenses: further mass in the same plane. Multipoles are about the lens unless their centre is given.
        source: ``free``, a Sersic times a Gaussian field where the evidence wants it, ``sersic``, or ``image``, that of
            a galaxy in a file.
        more_sources: further sources at the same redshift.
        lens_light: light in the plane of the lens, not deflected.
        subhalos: what is looked for; null for nothing.
        freer_mass: what else the smooth mass may be where the evidence wants it; null for the mass said here alone.
        psf_moments: how far the PSF may be off where sub-halos are found; null to believe it.
        potential: prior of a correction to the potential where something is left; null for none.

    Example:
        >>> FitModel.parse({"lens": {"kind": "epl", "gamma": 2.1}, "shear": None}, "mine").lens_model.names[:3]
        ('lens.theta_E', 'lens.e1', 'lens.e2')
    """

    lens: MainLens = settings_of(MainSettings, "sie", SIE)()
    shear: ExternalShear | None = settings_of(MemberSettings, "shear", Shear)()
    more_lenses: list[AnyMass] = []
    source: MainSource = settings_of(SourceSettings, "free", Sersic)()
    more_sources: list[AnyLight] = []
    lens_light: list[AnyLight] = []
    subhalos: Subhalos | None = PointSubhalos()
    freer_mass: FreerMass | None = FreerMass()
    psf_moments: PSFMoments | None = PSFMoments()
    potential: PotentialChange | None = PotentialChange()

    @classmethod
    def named(cls, path: str | Path) -> Self:
        """Return the model that a YAML file asks for.

        Raises:
            LensphysError: if there is no such file, or a key is unknown, missing or of the wrong type.
        """
        tree = read_yaml(Path(path))
        find_beside(tree.get("source"), "file", Path(path).parent)
        return cls.parse(tree, f"model {path}")

    @property
    def lens_model(self) -> LensModel:
        """The components, with what of them is free, fixed and tied."""
        lens = self.lens.member()
        mass: dict[str, Member] = {"lens": lens}
        shear = {} if self.shear is None else {"shear": self.shear}
        more = {f"more_lenses.{i}": settings for i, settings in enumerate(self.more_lenses)}
        for name, settings in (shear | more).items():
            mass[name] = _about(settings, lens)
        lights = {"source": self.source} | {f"more_sources.{i}": light for i, light in enumerate(self.more_sources)}
        front = {f"lens_light.{i}": light.member() for i, light in enumerate(self.lens_light)}
        return LensModel(mass, {name: light.member() for name, light in lights.items()}, front)

    def shortened(self, rounds: int) -> Self:
        """Return the model with at most so many rounds of search for sub-halos."""
        if self.subhalos is None:
            return self
        return self.model_copy(update={"subhalos": self.subhalos.model_copy(update={"rounds": rounds})})

    def searched(self, search: Search) -> Search:
        """Return how sub-halos are looked for, given how the fit would."""
        return search.model_copy(update={"rounds": 0}) if self.subhalos is None else self.subhalos.over(search)

    def corrected(self, prior: FieldPrior) -> FieldPrior:
        """Return the prior of the potential, given that of the fit."""
        if self.potential is None:
            return prior.model_copy(update={"amplitude": 0.0})
        return self.potential.over(prior)

    @property
    def resolved(self) -> dict[str, Any]:
        """All of it: of each parameter its number, whose value it takes over, or its unit, bounds and prior."""
        members = {name: _as_dict(member) for name, member in self.lens_model.members.items()}
        others = self.model_dump(mode="json", include={"subhalos", "freer_mass", "psf_moments", "potential"})
        return members | {"source_freed": self.source.freed} | others


def _about(settings: MemberSettings, lens: Member) -> Member:
    """The member, with its centre at that of the lens where it belongs there."""
    component = settings.component
    if not (issubclass(component, MassProfile) and component.about_lens):
        return settings.member()
    held = {name: lens.fixed[name] for name in CENTRE if name in lens.fixed}
    return settings.member({name: f"lens.{name}" for name in CENTRE if name not in held}, held)


def _as_dict(member: Member) -> dict[str, Any]:
    free = {p.name: p.as_dict for p in member.free}
    fixed = {name: getattr(value, "provenance", value) for name, value in member.fixed.items()}
    return {"component": member.component.__name__} | fixed | dict(member.tied) | free
