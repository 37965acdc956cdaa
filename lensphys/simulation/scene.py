"""One lens and its source, drawn from a recipe, in the words of lenstronomy."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lensphys.basics.checks import LensphysError
from lensphys.model import Shear
from lensphys.model.component import Keywords, Named
from lensphys.observation import Instrument
from lensphys.simulation.bodies import Host
from lensphys.simulation.draws import Draws
from lensphys.simulation.lights import Photometer
from lensphys.simulation.recipe import Recipe

# in files that do not say what is substructure: lenstronomy's names of smooth masses, and those that begin with them
_SMOOTH = ("SIS", "SIE", "EPL", "SPP", "NIE", "SHEAR", "CONVERGENCE", "MULTIPOLE")


def substructure_of(model: Mapping[str, Any]) -> list[Named]:
    """Return the masses of a stored lens that are its substructure: their names and parameters.

    Those that its ``substructure`` counts; of older files those that are neither the main lens nor smooth by name.

    Args:
        model: of a `Scene`, as `LensFile.lens_model` returns it.
    """
    masses = list(zip(model["lens_model_list"], model["kwargs_lens"], strict=True))
    if "substructure" in model:
        return masses[len(masses) - int(model["substructure"]) :]
    return [(name, keywords) for name, keywords in masses[1:] if not name.startswith(_SMOOTH)]


@dataclass(frozen=True)
class Scene:
    """Profiles and their effective single-plane values: ``LensModel(lens_model_list)`` gives the deflection from them.

    Two names are not lenstronomy's: ``LINE_MASS`` (see `lensphys.model.LineMass`), and ``INTERPOL`` has ``file`` and
    ``index`` in place of its ``image``, which is that one of the file's images, divided by its sum.

    Args:
        lens_model_list: names of lenstronomy's lens profiles: the main lens, other smooth masses, the substructure.
        kwargs_lens: their parameters [arcsec].
        source_light_model_list: names of lenstronomy's light profiles.
        kwargs_source: their parameters; ``amp`` in flux / arcsec^2.
        lens_light_model_list: light that is not deflected.
        kwargs_lens_light: its parameters.
        substructure: how many of the masses are that.
        axion_mass: [eV]; NaN where the class has none.
    """

    lens_model_list: list[str]
    kwargs_lens: list[Keywords]
    source_light_model_list: list[str]
    kwargs_source: list[Keywords]
    lens_light_model_list: list[str] = field(default_factory=list)
    kwargs_lens_light: list[Keywords] = field(default_factory=list)
    substructure: int = 0
    axion_mass: float = math.nan

    @property
    def theta_E(self) -> float:
        """Einstein radius of the main lens [arcsec]; NaN if its profile has none."""
        return float(self.kwargs_lens[0].get("theta_E", math.nan))

    @property
    def smooth(self) -> Scene:
        """The scene without substructure."""
        count = len(self.lens_model_list) - self.substructure
        return replace(
            self, lens_model_list=self.lens_model_list[:count], kwargs_lens=self.kwargs_lens[:count], substructure=0
        )

    def displaced(self, x: float, y: float) -> Scene:
        """Return the same sky, seen by a telescope that points elsewhere: everything moved by (x, y) [arcsec].

        Shear has no centre: moved with the rest it deflects by Gamma (theta - d), which is the shear about the origin
        and, for the sources, a shift by -Gamma d.

        Raises:
            LensphysError: if another profile has no centre.
        """
        shears = [k for name, k in self._masses if name == Shear.lenstronomy]
        g1, g2 = (sum(k[name] for k in shears) for name in ("gamma1", "gamma2"))
        behind = x - g1 * x - g2 * y, y - g2 * x + g1 * y
        lenses = [k if name == Shear.lenstronomy else _moved(name, k, x, y) for name, k in self._masses]
        sources = zip(self.source_light_model_list, self.kwargs_source, strict=True)
        lights = zip(self.lens_light_model_list, self.kwargs_lens_light, strict=True)
        return replace(
            self,
            kwargs_lens=lenses,
            kwargs_source=[_moved(name, k, *behind) for name, k in sources],
            kwargs_lens_light=[_moved(name, k, x, y) for name, k in lights],
        )

    @property
    def _masses(self) -> list[Named]:
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
    lenses = [recipe.lens.draw("lens", draws, recipe.masses)]
    main = lenses[0][1]
    if recipe.shear is not None:
        lenses.append((Shear.lenstronomy, draws.all_of("shear", vars(recipe.shear))))
    lenses += [lens.draw(f"more_lenses.{i}", draws, recipe.masses) for i, lens in enumerate(recipe.more_lenses)]
    host = Host(main.get("center_x", 0.0), main.get("center_y", 0.0), recipe.masses)
    bodies = recipe.classes[class_name].sample(rng if substructure_rng is None else substructure_rng, host)
    substructure = [(bodies.profile, keywords) for keywords in bodies.keywords()]
    photometer = Photometer(recipe.instrument, instrument)
    light = {key: settings.draw(key, draws, photometer) for key, settings in recipe.lights.items()}
    draws.check_used()
    sources = [component for key, component in light.items() if not key.startswith("lens_light")]
    lens_light = [component for key, component in light.items() if key.startswith("lens_light")]
    return Scene(
        *_split(lenses + substructure),
        *_split(sources),
        *_split(lens_light),
        substructure=len(substructure),
        axion_mass=bodies.axion_mass,
    )


def _moved(name: str, keywords: Keywords, x: float, y: float) -> Keywords:
    if "center_x" not in keywords:
        raise LensphysError(
            f"the profile {name} has no center_x and cannot be displaced: use another profile, or no target"
        )
    return keywords | {"center_x": keywords["center_x"] + x, "center_y": keywords["center_y"] + y}


def _split(components: list[Named]) -> tuple[list[str], list[Keywords]]:
    return [name for name, _ in components], [keywords for _, keywords in components]
