"""Recipes: everything that defines a simulated data set, from the YAML files in ``simulations/``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

import lensphys
from lensphys.checks import check_choice
from lensphys.settings import Strict, override, read_yaml
from lensphys.simulation.dark_matter import Population
from lensphys.simulation.distributions import Distribution, fixed


class _MainLens(Strict):
    """Give its strength as ``theta_E`` [arcsec], as it acts, or as ``mass`` [solar masses], by the legacy distances."""

    theta_E: Distribution | None = None
    mass: Distribution | None = None
    center_x: Distribution = fixed(0.0)
    center_y: Distribution = fixed(0.0)

    @model_validator(mode="after")
    def _one_strength(self) -> Self:
        if (self.theta_E is None) == (self.mass is None):
            raise ValueError("give theta_E or mass, and not both")
        return self


class SISLens(_MainLens):
    """A singular isothermal sphere."""

    kind: Literal["sis"]


class SIELens(_MainLens):
    """A singular isothermal ellipsoid."""

    kind: Literal["sie"]
    e1: Distribution
    e2: Distribution


class Shear(Strict):
    """External shear, as it acts, about the origin."""

    gamma1: Distribution
    gamma2: Distribution


class Source(Strict):
    """An elliptical Sersic source; its brightness is ``amp`` [flux / arcsec^2 at R_sersic] or its ``magnitude``."""

    amp: Distribution | None = None
    magnitude: Distribution | None = None
    R_sersic: Distribution
    n_sersic: Distribution
    e1: Distribution
    e2: Distribution
    center_x: Distribution
    center_y: Distribution

    @model_validator(mode="after")
    def _one_brightness(self) -> Self:
        if (self.amp is None) == (self.magnitude is None):
            raise ValueError("give amp or magnitude, and not both")
        return self


class Counts(Strict):
    """For instruments in counts: the exposure time [s], and the background rms [flux per pixel]."""

    exposure_time: Distribution
    background_rms: Distribution


class VariedConditions(Strict):
    """What is drawn anew for each image, and stored with it; the instrument's own where a key is not given.

    Args:
        psf_fwhm: of a Gaussian PSF in place of the instrument's [arcsec].
        exposure_time: total [s].
        background_rms: of an LR pixel [flux per pixel]; an HR pixel has it divided by ``upscale``, as sky has.
    """

    psf_fwhm: Distribution | None = None
    exposure_time: Distribution | None = None
    background_rms: Distribution | None = None

    @model_validator(mode="after")
    def _whole_noise(self) -> Self:
        if (self.exposure_time is None) != (self.background_rms is None):
            raise ValueError("exposure_time and background_rms make the noise together: give both or neither")
        return self


class Recipe(Strict):
    """A data set: instrument, pixels, lens, source and classes.

    Args:
        version: grows when the numbers change.
        description: one line.
        instrument: an instrument preset, or the path of a user's instrument file; its pixels are the LR ones.
        height: LR pixels.
        width: LR pixels.
        upscale: HR pixels are so many times as small.
        hr_noise: whether /hr is noisy, as in the legacy data; clean if not.
        z_lens: redshift of the lens.
        z_source: redshift of the source.
        z_source_convention: redshift that the deflections of masses are quoted for; that of the source if not given.
        counts: exposure of instruments in counts.
        conditions: PSF and noise that vary from image to image; those of the instrument if not given.
        lens: the main lens.
        shear: external shear; none if not given.
        source: the source.
        classes: what each class adds to the main lens; labels count in this order.

    Example:
        >>> recipe = Recipe.named("model_2", ["hr_noise=true"])
        >>> recipe.hr_noise, list(recipe.classes)
        (True, ['no_sub', 'axion', 'cdm'])
    """

    version: PositiveInt
    description: str
    instrument: str
    height: PositiveInt
    width: PositiveInt
    upscale: PositiveInt = 2
    hr_noise: bool = False
    z_lens: NonNegativeFloat
    z_source: PositiveFloat
    z_source_convention: PositiveFloat | None = None
    counts: Counts | None = None
    conditions: VariedConditions | None = None
    lens: Annotated[SISLens | SIELens, Field(discriminator="kind")]
    shear: Shear | None = None
    source: Source
    classes: Annotated[dict[str, Population], Field(min_length=1)]

    @model_validator(mode="after")
    def _lens_before_source(self) -> Self:
        nearest = min(self.z_source, self.z_source_convention or self.z_source)
        if not 0 < self.z_lens < nearest:
            raise ValueError(
                f"z_lens must lie between 0 and the source, got {self.z_lens:g} for a source at {nearest:g}"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_absent_conditions(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # files and shards written before there was this key stay those of their recipe
        tree: dict[str, Any] = whole(self)
        if tree.get("conditions", True) is None:
            del tree["conditions"]
        return tree

    @classmethod
    def named(cls, name_or_path: str | Path, overrides: list[str] | None = None) -> Self:
        """Return a recipe by its bare name, or from the path of a YAML file, with ``a.b=value`` overrides.

        Raises:
            LensphysError: if there is no such recipe, or a key is unknown, missing or of the wrong type.
        """
        path = Path(name_or_path)
        if path.suffix not in (".yaml", ".yml"):
            check_choice("recipe", str(name_or_path), recipe_names())
            path = _folder() / f"{name_or_path}.yaml"
        return cls.parse(override(read_yaml(path), overrides or []), f"recipe {name_or_path}")


def _folder() -> Path:
    package = Path(lensphys.__file__).parent
    installed = package / "simulations"
    return installed if installed.is_dir() else package.parent / "simulations"


def recipe_names() -> list[str]:
    """Return the bare names of the recipes that come with lensphys."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))
