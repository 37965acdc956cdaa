"""Recipes: everything that defines a simulated data set, from the YAML files in ``simulations/``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from lensphys.basics.checks import LensphysError, check_choice
from lensphys.basics.settings import Strict, find_beside, merged, override, read_yaml
from lensphys.basics.sizes import SMALLEST_SIDE
from lensphys.observation import Instrument
from lensphys.observation.instrument import instrument_names
from lensphys.simulation.components import Counts, Shear, Target, VariedConditions
from lensphys.simulation.cosmology import DistanceKind, Distances
from lensphys.simulation.dark_matter import Population
from lensphys.simulation.draws import Correlation
from lensphys.simulation.folder import recipe_folder, recipe_names
from lensphys.simulation.lenses import Lens, MainLens
from lensphys.simulation.lights import Light, LightSettings


class Recipe(Strict):
    """A data set: instrument, pixels, lens, source and classes.

    Args:
        version: grows when the numbers change.
        description: one line.
        instrument: an instrument preset, or the path of a user's instrument file; its pixels are the LR ones.
        height: LR pixels.
        width: LR pixels.
        upscale: factor by which HR pixels are smaller.
        hr_noise: whether /hr is noisy, as in the legacy data; clean if not.
        target: the telescope that /hr is observed with, and how it disagrees with the first one; the same telescope
            if not given.
        z_lens: redshift of the lens.
        z_source: redshift of the source.
        z_source_convention: redshift that the deflections of masses are quoted for; that of the source if not given.
        distances: from masses to angles: ``luminosity``, as the legacy data have it, or ``angular_diameter``.
        counts: exposure of instruments in counts.
        conditions: PSF and noise that vary from image to image; those of the instrument if not given.
        lens: the main lens.
        shear: external shear; none if not given.
        more_lenses: further lenses in the same plane.
        lens_light: light in the plane of the lens, not deflected.
        source: the source.
        more_sources: further sources at the same redshift.
        correlated: pairs of parameters that are not drawn one by one.
        classes: what each class adds to the lenses; labels count in this order.

    Example:
        >>> recipe = Recipe.named("model_2", ["hr_noise=true"])
        >>> recipe.hr_noise, list(recipe.classes)
        (True, ['no_sub', 'axion', 'cdm'])
    """

    version: PositiveInt
    description: str
    instrument: str
    height: Annotated[int, Field(ge=SMALLEST_SIDE)]
    width: Annotated[int, Field(ge=SMALLEST_SIDE)]
    upscale: PositiveInt = 2
    hr_noise: bool = False
    target: Target | None = None
    z_lens: NonNegativeFloat
    z_source: PositiveFloat
    z_source_convention: PositiveFloat | None = None
    distances: DistanceKind
    counts: Counts | None = None
    conditions: VariedConditions | None = None
    lens: MainLens
    shear: Shear | None = None
    more_lenses: list[Lens] = []
    lens_light: list[Light] = []
    source: Light
    more_sources: list[Light] = []
    correlated: list[Correlation] = []
    classes: Annotated[dict[str, Population], Field(min_length=1)]

    @model_validator(mode="after")
    def _lens_before_source(self) -> Self:
        nearest = min(self.z_source, self.z_source_convention or self.z_source)
        if not 0 < self.z_lens < nearest:
            raise ValueError(
                f"z_lens must lie between 0 and the source, got {self.z_lens:g} for a source at {nearest:g}"
            )
        return self

    @model_validator(mode="after")
    def _one_pair_each(self) -> Self:
        names = [name for pair in self.correlated for name in pair.between]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"correlated names {', '.join(twice)} twice: a parameter can be in one pair only")
        return self

    @model_validator(mode="after")
    def _recorded_target(self) -> Self:
        if self.target is not None and self.target.disagrees and not self.hr_noise:
            raise ValueError("shift, gain and offset of the target are those of a recorded /hr: set hr_noise: true")
        return self

    @property
    def masses(self) -> Distances:
        """What turns masses into angles."""
        return Distances(self.z_lens, self.z_source, self.z_source_convention, self.distances)

    @property
    def lights(self) -> dict[str, LightSettings]:
        """All light, by its name in the recipe."""
        more = {f"more_sources.{i}": light for i, light in enumerate(self.more_sources)}
        return {"source": self.source} | more | {f"lens_light.{i}": light for i, light in enumerate(self.lens_light)}

    def seen_by(self, instrument: str) -> Recipe:
        """Return the recipe of the same lenses, seen by another instrument in the same field of view.

        Args:
            instrument: a preset, or the path of a user's instrument file.

        Raises:
            LensphysError: if the recipe says more of its own instrument than its name, or the field has too few pixels.
        """
        own = next((key for key in ("counts", "conditions", "target") if getattr(self, key) is not None), None)
        if own is not None:
            raise LensphysError(f"'{own}' belongs to the instrument {self.instrument}: take it away (--set {own}=null)")
        for key, light in self.lights.items():
            if not light.in_magnitudes:
                raise LensphysError(
                    f"{key}: a flux in the unit of {self.instrument} means nothing to {instrument}: give a magnitude"
                )
        ratio = Instrument.named(self.instrument).pixel_scale / Instrument.named(instrument).pixel_scale
        size = {"height": round(self.height * ratio), "width": round(self.width * ratio)}
        if min(size.values()) < SMALLEST_SIDE:
            raise LensphysError(
                f"{instrument} sees the field of {self.instrument} as {size['height']} x {size['width']} pixels, and "
                f"images have {SMALLEST_SIDE} x {SMALLEST_SIDE} or more: raise height and width of the recipe"
            )
        return self.model_copy(update={"instrument": instrument} | size)

    @classmethod
    def named(cls, name_or_path: str | Path, overrides: list[str] | None = None) -> Self:
        """Return a recipe by its bare name, or from the path of a YAML file, with ``a.b=value`` overrides.

        Raises:
            LensphysError: if there is no such recipe, or a key is unknown, missing or of the wrong type.
        """
        tree = override(_extended(str(name_or_path), None), overrides or [])
        return cls.parse(tree, f"recipe {name_or_path}")


def _extended(name: str, beside: Path | None, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The tree of a recipe, laid over that of the recipe it extends."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name in instrument_names() and name not in recipe_names():
            raise LensphysError(
                f"{name} is an instrument, which any recipe takes: give model_4 with --set instrument={name}"
            )
        check_choice("recipe", name, recipe_names())
        path = recipe_folder() / f"{name}.yaml"
    elif beside is not None and not path.is_absolute():
        path = beside / path
    if path.resolve() in below:
        raise LensphysError(f"recipe {name} extends itself: {' -> '.join(p.name for p in (*below, path))}")
    tree = read_yaml(path)
    _find_files(tree, path.parent)
    base = tree.pop("extends", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise LensphysError(f"recipe {path}: 'extends' must be the name or path of one recipe, got {base!r}")
    return merged(_extended(base, path.parent, (*below, path.resolve())), tree)


def _find_files(tree: dict[str, Any], folder: Path) -> None:
    """Let the instrument and the images that lie beside a user's recipe be found from anywhere."""
    if folder == recipe_folder():
        return  # these are found by their names, wherever lensphys is installed
    more = [light for key in ("more_sources", "lens_light") if isinstance(tree.get(key), list) for light in tree[key]]
    for telescope in (tree, tree.get("target")):
        find_beside(telescope, "instrument", folder)
    for light in (tree.get("source"), *more):
        find_beside(light, "file", folder)
