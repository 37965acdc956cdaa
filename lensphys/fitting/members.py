"""Members of the model that a fit is asked for: a kind, and for each parameter a number, a prior or nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, PositiveFloat, SerializeAsAny, model_validator

from lensphys.basics.distributions import Distribution, Knowledge
from lensphys.basics.settings import chosen_by_kind
from lensphys.model import LIGHT, MASS, Component, GalaxyImage, Member, Parameter, Pixels, Sersic, Shear
from lensphys.model.component import check_values
from lensphys.model.declared import Declared, distribution_of, settings_of

_REACH = 5.0  # sigma from the mean of a Gaussian prior where the bounds are


class MemberSettings(Declared):
    """A component of a fit: a parameter that is not given is free, with the prior that it declares.

    A number fixes it; a distribution is its prior, and its bounds where that ends.
    """

    @classmethod
    def parameter_fields(cls, component: type[Component]) -> dict[str, Any]:
        """Return what may be said of each parameter, all of it optional."""
        return {
            p.name: (Annotated[distribution_of(p) | None, AfterValidator(partial(_possible, p))], None)
            for p in component.parameters
        }

    @model_validator(mode="after")
    def _meaningful(self) -> Self:
        known = {name: distribution.knowledge for name, distribution in self._given.items()}
        check_values(self.component, {name: k.mean for name, k in known.items() if k.sigma == 0})
        return self

    @property
    def _given(self) -> dict[str, Distribution]:
        """What is said of each parameter of which something is."""
        return {p.name: d for p in self.component.parameters if (d := getattr(self, p.name)) is not None}

    def member(self, tied: Mapping[str, str] | None = None, held: Mapping[str, float] | None = None) -> Member:
        """Return the member.

        Args:
            tied: where parameters are whose values it takes over, unless they are given: own name -> other's.
            held: values of others, unless they are given.
        """
        given = self._given
        component = self._fitted(given)
        own = {p.name for p in component.parameters} - set(given)
        tied = {name: other for name, other in (tied or {}).items() if name in own}
        fixed = {name: getattr(self, name) for name in component.whole}
        fixed |= {name: value for name, value in (held or {}).items() if name in own}
        free = []
        for parameter in component.parameters:
            known = given[parameter.name].knowledge if parameter.name in given else None
            if known is not None and known.sigma == 0:
                fixed[parameter.name] = known.mean
            elif known is not None:
                free.append(conditioned(parameter, known))
            elif parameter.name not in tied and parameter.name not in fixed:
                free.append(parameter)
        return Member(component, tuple(free), fixed, tied)

    def _fitted(self, given: Mapping[str, Distribution]) -> type[Component]:
        """The component itself, or what stands for it in fits where none of the parameters that differ are given."""
        other = self.component.in_fits
        if other is None:
            return self.component
        lost = {p.name for p in self.component.parameters} - {p.name for p in other.parameters}
        return self.component if lost & set(given) else other


class SourceSettings(MemberSettings):
    """A source."""

    @property
    def freed(self) -> bool:
        """Whether a Gaussian field is added where the evidence wants it."""
        return vars(self)["kind"] == "free"


class ImageSettings(SourceSettings):
    """The image of a galaxy as the source: where it stands, its size and its brightness are fitted.

    Args:
        file: FITS or .npy (H, W).
        pixel_scale: [arcsec], in the source plane; by default that of the FITS header.
    """

    file: str
    pixel_scale: PositiveFloat | None = None

    @model_validator(mode="after")
    def _readable(self) -> Self:
        self._pixels()
        return self

    def _pixels(self) -> Pixels:
        from lensphys.data.galaxy_file import galaxy_in  # reads FITS: slow to import

        return galaxy_in(Path(self.file), self.pixel_scale)

    def member(self, tied: Mapping[str, str] | None = None, held: Mapping[str, float] | None = None) -> Member:
        """Return the member, which holds the pixels: see `MemberSettings.member`."""
        made = super().member(tied, held)
        return replace(made, fixed={**made.fixed, "image": self._pixels()})


class MainSettings(MemberSettings):
    """The main lens: a galaxy's whole mass, with the Einstein radius that a fit starts from."""

    @model_validator(mode="after")
    def _strong(self) -> Self:
        galaxies = [kind for kind, c in MASS.items() if _strong(c)]
        if not _strong(self.component):
            raise ValueError(
                f"a fit starts from an Einstein radius, which {vars(self)['kind']} has not: choose one of "
                f"{', '.join(galaxies)} for the main lens and put this one into more_lenses"
            )
        return self


def _strong(component: type[Component]) -> bool:
    return bool(getattr(component, "galaxy", False)) and "theta_E" in component.scene_names()


def conditioned(parameter: Parameter, known: Knowledge) -> Parameter:
    """Return a parameter with bounds and prior of what is known of it.

    A Gaussian's bounds are 5 sigma from its mean, or where it is cut, or the declared ones where these are nearer.

    Raises:
        ValueError: if it leaves the declared bounds, where these are plain numbers.
    """
    least, most = parameter.plain_bounds
    low, high = known.low, known.high
    if known.sigma < math.inf:
        low, high = max(low, least, known.at(-_REACH)), min(high, most, known.at(_REACH))
    if not (least <= low < high <= most and low <= known.mean <= high):
        raise ValueError(
            f"a fit keeps {parameter.name} between {least:g} and {most:g}, and this prior does not: change it"
        )
    return replace(parameter, low=low, high=high, mean=known.mean, sigma=known.sigma, logarithmic=known.logarithmic)


def _possible(parameter: Parameter, distribution: Distribution | None) -> Distribution | None:
    """A distribution that a fit can take for a parameter."""
    if distribution is None:
        return None
    known, (low, high) = distribution.knowledge, parameter.domain
    if known.sigma > 0:
        conditioned(parameter, known)
    elif not low < known.mean < high:
        raise ValueError(f"must lie between {low:g} and {high:g}, got {known.mean:g}")
    return distribution


def _kinds_of_mass() -> dict[str, type[MemberSettings]]:
    return {kind: settings_of(MemberSettings, kind, component) for kind, component in MASS.items()}


def _kinds_of_main() -> dict[str, type[MainSettings]]:
    return {kind: settings_of(MainSettings, kind, component) for kind, component in MASS.items()}


def _kinds_of_light() -> dict[str, type[MemberSettings]]:
    return {kind: settings_of(MemberSettings, kind, component) for kind, component in LIGHT.items()}


def _kinds_of_source() -> dict[str, type[SourceSettings]]:
    profiles: dict[str, type[SourceSettings]] = {
        kind: settings_of(SourceSettings, kind, Sersic) for kind in ("free", "sersic")
    }
    return profiles | {"image": settings_of(ImageSettings, "image", GalaxyImage)}


def _kinds_of_shear() -> dict[str, type[MemberSettings]]:
    return {"shear": settings_of(MemberSettings, "shear", Shear)}


MainLens = Annotated[SerializeAsAny[MainSettings], chosen_by_kind(_kinds_of_main)]
AnyMass = Annotated[SerializeAsAny[MemberSettings], chosen_by_kind(_kinds_of_mass)]
ExternalShear = Annotated[SerializeAsAny[MemberSettings], chosen_by_kind(_kinds_of_shear, default="shear")]
MainSource = Annotated[SerializeAsAny[SourceSettings], chosen_by_kind(_kinds_of_source, default="free")]
AnyLight = Annotated[SerializeAsAny[MemberSettings], chosen_by_kind(_kinds_of_light, default="sersic")]
