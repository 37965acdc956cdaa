"""One lens and its source, drawn from a recipe, in the words of lenstronomy."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass

import numpy as np

from lensphys.checks import LensphysError
from lensphys.observation import Instrument
from lensphys.simulation.cosmology import deflection_scale, einstein_radius_of_solar_mass
from lensphys.simulation.recipe import Recipe, SIELens

Keywords = dict[str, float]


@dataclass(frozen=True)
class Scene:
    """Profiles and their effective single-plane values: ``LensModel(lens_model_list)`` gives the deflection from them.

    Args:
        lens_model_list: names of lenstronomy's lens profiles; the main lens comes first.
        kwargs_lens: their parameters [arcsec].
        source_light_model_list: names of lenstronomy's light profiles.
        kwargs_source: their parameters; ``amp`` in flux / arcsec^2.
        axion_mass: [eV]; NaN where the class has none.
    """

    lens_model_list: list[str]
    kwargs_lens: list[Keywords]
    source_light_model_list: list[str]
    kwargs_source: list[Keywords]
    axion_mass: float = math.nan

    @property
    def theta_E(self) -> float:
        """Einstein radius of the main lens [arcsec]."""
        return self.kwargs_lens[0]["theta_E"]

    def text(self) -> str:
        """Return the profiles and their values as JSON; numbers come back to the last digit."""
        tree = {k: v for k, v in asdict(self).items() if k != "axion_mass"}
        return json.dumps(tree, allow_nan=False)


def draw_scene(recipe: Recipe, instrument: Instrument, class_name: str, rng: np.random.Generator) -> Scene:
    """Return a lens of a class and its source, drawn from a recipe."""
    main, names = _main_lens(recipe, rng), [recipe.lens.kind.upper()]
    kwargs_lens = [main]
    if recipe.shear is not None:
        names.append("SHEAR")
        kwargs_lens.append({k: getattr(recipe.shear, k).sample(rng) for k in ("gamma1", "gamma2")})
    points = recipe.classes[class_name].sample(rng)
    # a point mass deflects by theta_E^2 / r, so scaling its deflection scales theta_E by the root
    radii = np.sqrt(points.mass * _scale(recipe)) * einstein_radius_of_solar_mass(recipe.z_lens, recipe.z_source)
    for radius, x, y in zip(radii.tolist(), points.x.tolist(), points.y.tolist(), strict=True):
        names.append("POINT_MASS")
        kwargs_lens.append({"theta_E": radius, "center_x": main["center_x"] + x, "center_y": main["center_y"] + y})
    return Scene(names, kwargs_lens, ["SERSIC_ELLIPSE"], [_source(recipe, instrument, rng)], points.axion_mass)


def _scale(recipe: Recipe) -> float:
    return deflection_scale(recipe.z_lens, recipe.z_source, recipe.z_source_convention)


def _main_lens(recipe: Recipe, rng: np.random.Generator) -> Keywords:
    lens = recipe.lens
    if lens.theta_E is not None:
        theta_E = positive("lens.theta_E", lens.theta_E.sample(rng))
    elif lens.mass is not None:
        mass = positive("lens.mass", lens.mass.sample(rng))
        theta_E = mass**0.5 * einstein_radius_of_solar_mass(recipe.z_lens, recipe.z_source) * _scale(recipe)
    shape = ("e1", "e2") if isinstance(lens, SIELens) else ()
    return {"theta_E": theta_E} | {k: getattr(lens, k).sample(rng) for k in (*shape, "center_x", "center_y")}


def _source(recipe: Recipe, instrument: Instrument, rng: np.random.Generator) -> Keywords:
    source = recipe.source
    keys = ("R_sersic", "n_sersic", "e1", "e2", "center_x", "center_y")
    values: Keywords = {k: getattr(source, k).sample(rng) for k in keys}
    for key in ("R_sersic", "n_sersic"):
        positive(f"source.{key}", values[key])
    if source.amp is not None:
        amp = source.amp.sample(rng)
    elif source.magnitude is not None:
        from lenstronomy.LightModel.light_model import LightModel

        unit_flux = LightModel(["SERSIC_ELLIPSE"]).total_flux([{"amp": 1.0} | values])[0]
        amp = float(instrument.flux(source.magnitude.sample(rng)) / unit_flux)
    return {"amp": positive("source.amp", amp)} | values


def positive(key: str, value: float) -> float:
    """Return a drawn value.

    Raises:
        LensphysError: if it is not positive.
    """
    if not value > 0:
        raise LensphysError(f"the recipe drew {value:g} for {key}, which must be positive: narrow its distribution")
    return value
