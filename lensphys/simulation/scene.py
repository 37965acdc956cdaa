"""One lens and its source, drawn from a recipe, in the words of lenstronomy."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lensphys.checks import LensphysError
from lensphys.model.light import flux_sersic
from lensphys.observation import Instrument
from lensphys.simulation.bodies import Host
from lensphys.simulation.components import (
    AnyLens,
    AnyLight,
    EPLLens,
    ImageLight,
    MultipoleLens,
    SersicLight,
    SIELens,
    SISLens,
)
from lensphys.simulation.distributions import Distribution, Draws
from lensphys.simulation.galaxies import galaxy_images
from lensphys.simulation.recipe import Recipe

Keywords = dict[str, Any]
Component = tuple[str, Keywords]


@dataclass(frozen=True)
class Scene:
    """Profiles and their effective single-plane values: ``LensModel(lens_model_list)`` gives the deflection from them.

    Two names are not lenstronomy's: ``LINE_MASS`` (see `lensphys.model.LineMass`), and ``INTERPOL`` has ``file`` and
    ``index`` in place of its ``image``, which is that one of the file's images, divided by its sum.

    Args:
        lens_model_list: names of lenstronomy's lens profiles; the main lens comes first.
        kwargs_lens: their parameters [arcsec].
        source_light_model_list: names of lenstronomy's light profiles.
        kwargs_source: their parameters; ``amp`` in flux / arcsec^2.
        lens_light_model_list: light that is not deflected.
        kwargs_lens_light: its parameters.
        axion_mass: [eV]; NaN where the class has none.
    """

    lens_model_list: list[str]
    kwargs_lens: list[Keywords]
    source_light_model_list: list[str]
    kwargs_source: list[Keywords]
    lens_light_model_list: list[str] = field(default_factory=list)
    kwargs_lens_light: list[Keywords] = field(default_factory=list)
    axion_mass: float = math.nan

    @property
    def theta_E(self) -> float:
        """Einstein radius of the main lens [arcsec]; NaN if its profile has none."""
        return float(self.kwargs_lens[0].get("theta_E", math.nan))

    def displaced(self, x: float, y: float) -> Scene:
        """Return the same sky, seen by a telescope that points elsewhere: everything moved by (x, y) [arcsec].

        Shear has no centre: moved with the rest it deflects by Gamma (theta - d), which is the shear about the origin
        and, for the sources, a shift by -Gamma d.

        Raises:
            LensphysError: if another profile has no centre.
        """
        shears = [k for name, k in self._masses if name == "SHEAR"]
        g1, g2 = (sum(k[name] for k in shears) for name in ("gamma1", "gamma2"))
        behind = x - g1 * x - g2 * y, y - g2 * x + g1 * y
        lenses = [k if name == "SHEAR" else _moved(name, k, x, y) for name, k in self._masses]
        sources = zip(self.source_light_model_list, self.kwargs_source, strict=True)
        lights = zip(self.lens_light_model_list, self.kwargs_lens_light, strict=True)
        return replace(
            self,
            kwargs_lens=lenses,
            kwargs_source=[_moved(name, k, *behind) for name, k in sources],
            kwargs_lens_light=[_moved(name, k, x, y) for name, k in lights],
        )

    @property
    def _masses(self) -> list[Component]:
        return list(zip(self.lens_model_list, self.kwargs_lens, strict=True))

    def text(self) -> str:
        """Return the profiles and their values as JSON; numbers come back to the last digit."""
        tree = {k: v for k, v in vars(self).items() if k != "axion_mass" and (v or "lens_light" not in k)}
        return json.dumps(tree, allow_nan=False)


def draw_scene(
    recipe: Recipe,
    instrument: Instrument,
    class_name: str,
    rng: np.random.Generator,
    substructure_rng: np.random.Generator | None = None,
) -> Scene:
    """Return a lens of a class and its source, drawn from a recipe.

    Args:
        recipe: what to draw.
        instrument: turns magnitudes into flux.
        class_name: one of the recipe's classes.
        rng: of everything.
        substructure_rng: of the substructure alone, so that lens and source are the same in every class; if not given,
            ``rng`` draws that too.
    """
    draws = Draws(rng, recipe.correlated)
    lenses = [_lens(recipe, "lens", recipe.lens, draws)]
    main = lenses[0][1]
    if recipe.shear is not None:
        lenses.append(("SHEAR", draws.all_of("shear", _parameters(recipe.shear, "gamma1", "gamma2"))))
    lenses += [_lens(recipe, f"more_lenses.{i}", lens, draws) for i, lens in enumerate(recipe.more_lenses)]
    host = Host(main.get("center_x", 0.0), main.get("center_y", 0.0), recipe.masses)
    bodies = recipe.classes[class_name].sample(rng if substructure_rng is None else substructure_rng, host)
    lenses += [(bodies.profile, keywords) for keywords in bodies.keywords()]
    light = {key: _light(recipe, instrument, key, settings, draws) for key, settings in recipe.lights.items()}
    draws.check_used()
    sources = [component for key, component in light.items() if not key.startswith("lens_light")]
    lens_light = [component for key, component in light.items() if key.startswith("lens_light")]
    return Scene(*_split(lenses), *_split(sources), *_split(lens_light), axion_mass=bodies.axion_mass)


def _moved(name: str, keywords: Keywords, x: float, y: float) -> Keywords:
    if "center_x" not in keywords:
        raise LensphysError(
            f"the profile {name} has no center_x and cannot be displaced: use another profile, or no target"
        )
    return keywords | {"center_x": keywords["center_x"] + x, "center_y": keywords["center_y"] + y}


def _split(components: list[Component]) -> tuple[list[str], list[Keywords]]:
    return [name for name, _ in components], [keywords for _, keywords in components]


def _parameters(settings: Any, *names: str) -> dict[str, Distribution]:
    return {name: getattr(settings, name) for name in names}


def _lens(
    recipe: Recipe, key: str, lens: SISLens | SIELens | EPLLens | MultipoleLens | AnyLens, draws: Draws
) -> Component:
    if isinstance(lens, AnyLens):
        return lens.profile, draws.all_of(f"{key}.parameters", lens.parameters)
    if isinstance(lens, MultipoleLens):
        values = draws.all_of(key, _parameters(lens, "a_m", "phi_m", "center_x", "center_y"))
        return "MULTIPOLE", {"m": lens.m} | values
    if lens.theta_E is not None:
        theta_E = draws.positive(f"{key}.theta_E", lens.theta_E)
    elif lens.mass is not None:
        theta_E = recipe.masses.einstein_radius_of_isothermal(draws.positive(f"{key}.mass", lens.mass))
    names = {"sis": (), "sie": ("e1", "e2"), "epl": ("gamma", "e1", "e2")}[lens.kind]
    values = draws.all_of(key, _parameters(lens, *names, "center_x", "center_y"))
    if not 1 < values.get("gamma", 2.0) < 3:
        raise LensphysError(
            f"the recipe drew {values['gamma']:g} for {key}.gamma, which must lie between 1 and 3: narrow its "
            "distribution"
        )
    return lens.kind.upper(), {"theta_E": theta_E} | values


def _light(
    recipe: Recipe, instrument: Instrument, key: str, light: SersicLight | ImageLight | AnyLight, draws: Draws
) -> Component:
    if isinstance(light, ImageLight):
        return "INTERPOL", _galaxy(recipe, instrument, key, light, draws)
    if isinstance(light, AnyLight):
        parameters = {name: x for name, x in light.parameters.items() if name not in ("amp", "magnitude")}
        amp, magnitude = light.parameters.get("amp"), light.parameters.get("magnitude")
        values: Keywords = draws.all_of(f"{key}.parameters", parameters)
        profile, key = light.profile, f"{key}.parameters"
    else:
        amp, magnitude, profile = light.amp, light.magnitude, "SERSIC_ELLIPSE"
        names = ("R_sersic", "n_sersic", "e1", "e2", "center_x", "center_y")
        values = draws.all_of(key, _parameters(light, *names), positive=("R_sersic", "n_sersic"))
    if magnitude is not None:
        drawn = light.magnitude_in(draws(f"{key}.magnitude", magnitude), recipe.instrument)
        return profile, {"amp": instrument.flux(drawn) / _unit_flux(profile, values)} | values
    if amp is None:
        raise LensphysError(f"{key}: give amp or magnitude among the parameters")
    return profile, {"amp": draws.positive(f"{key}.amp", amp)} | values


def _unit_flux(profile: str, values: Keywords) -> float:
    if profile == "SERSIC_ELLIPSE":
        return flux_sersic(values["R_sersic"], values["n_sersic"])
    from lenstronomy.LightModel.light_model import LightModel

    return float(LightModel([profile]).total_flux([{"amp": 1.0} | values])[0])


def _galaxy(recipe: Recipe, instrument: Instrument, key: str, light: ImageLight, draws: Draws) -> Keywords:
    index = int(draws.rng.integers(len(galaxy_images(light.file))))
    scale = draws.positive(f"{key}.pixel_scale", light.pixel_scale)
    values = draws.all_of(key, _parameters(light, "center_x", "center_y", "phi"))
    if light.flux is not None:
        flux = draws.positive(f"{key}.flux", light.flux)
    elif light.magnitude is not None:
        flux = instrument.flux(light.magnitude_in(draws(f"{key}.magnitude", light.magnitude), recipe.instrument))
    place = {"center_x": values["center_x"], "center_y": values["center_y"], "phi_G": values["phi"], "scale": scale}
    return {"file": light.file, "index": index, "amp": flux / scale**2} | place
