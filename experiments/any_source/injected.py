"""NFW sub-halos put on the arcs of lenses with real galaxies: how many are found, of which mass, and what is claimed.

    python experiments/any_source/injected.py GALAXIES.npy -o experiments/any_source/injected.json [--lenses 6]

GALAXIES.npy is that of `collect.py`. Each lens of model_4 is drawn for each telescope without substructure, and seen
again with one truncated NFW halo of M200 = 10^8.5 to 10^10.5 solar masses (median concentration, truncated at five
scale radii) on its arcs: the same lens, source, noise and place. Each image is fitted by the default, which frees the
slope and the multipoles m = 3, 4 of the smooth mass where these explain the image as well, and without that freedom. A
killed run goes on.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lensphys.basics.provenance import provenance
from lensphys.fitting.fit_model import FitModel
from lensphys.methods import Method
from lensphys.methods.fit import RefinedFit
from lensphys.observation import Instrument
from lensphys.simulation.bodies import Host
from lensphys.simulation.halo_structure import median_concentration
from lensphys.simulation.halos import HaloList
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.sample import Drawn, Seeds, draw, render
from lensphys.simulation.scene import Scene
from lensphys.simulation.torch_engine import TorchEngine

sys.path.append(str(Path(__file__).parents[1]))
from resumed import KeptRows

TELESCOPES = {"Euclid VIS": ("euclid_vis", 64), "HST ACS F814W": ("hst_acs_f814w", 128)}
MASSES = (None, 8.5, 9.0, 9.5, 10.0, 10.5)  # log10 of M200 [solar masses]; None: no halo
MODELS: dict[str, Method] = {"freed": RefinedFit(), "as asked for": RefinedFit(model=FitModel(freer_mass=None))}
TAU, NEAR, SEED = 5.0, 0.3, 300  # truncation [scale radii]; how far from the halo a claim is real [arcsec]


class Telescope:
    """Draws the lenses of model_4 as a telescope sees them.

    Args:
        galaxies: images of the sources.
        name: of `TELESCOPES`.
    """

    def __init__(self, galaxies: Path, name: str) -> None:
        preset, side = TELESCOPES[name]
        size = "source.pixel_scale={kind: uniform, low: 0.010, high: 0.022}"
        changes = [f"source.file={galaxies}", size, f"instrument={preset}", f"height={side}", f"width={side}"]
        self.recipe, self.instrument = Recipe.named("model_4", changes), Instrument.named(preset)
        self.engine = TorchEngine(self.recipe, self.instrument)

    def smooth(self, index: int) -> Drawn:
        """Return a lens without substructure."""
        seeds = Seeds.for_sample(SEED, "no_sub", index, self.instrument.description)
        return draw(self.recipe, self.instrument, "no_sub", seeds)

    def image(self, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Return the image as it is recorded and without noise, (1, 1, H, W) each."""
        samples = render(self.recipe, self.engine, [drawn])
        return torch.from_numpy(samples.lr), torch.from_numpy(samples.lr_clean)

    def on_the_arcs(self, drawn: Drawn, index: int) -> tuple[float, float]:
        """Return a place where the arcs of a lens are bright [arcsec], by the square of their light."""
        light = self.image(drawn)[1]
        grid = self.instrument.camera(*light.shape[-2:]).grid
        weight = light[0, 0].double().square().flatten().numpy()
        pixel = np.random.default_rng([SEED, index]).choice(weight.size, p=weight / weight.sum())
        x, y = grid.positions(like=light)[0].flatten(1)[:, pixel].tolist()
        return x, y

    def with_halo(self, scene: Scene, mass: float, place: tuple[float, float]) -> Scene:
        """Return a lens with a halo of log10 M200 [solar masses] at a place [arcsec]."""
        m200, z, one = np.array([10.0**mass]), np.array([self.recipe.masses.z_lens]), np.ones(1)
        halo = HaloList(m200, median_concentration(m200, z), TAU * one, z, place[0] * one, place[1] * one)
        values = halo.parameters(Host(0.0, 0.0, self.recipe.masses))
        names, keywords = scene.lens_model_list, scene.kwargs_lens
        own = {name: float(value[0]) for name, value in values.items()}
        return replace(scene, lens_model_list=[*names, "TNFW"], kwargs_lens=[*keywords, own], substructure=1)


def judged(telescope: Telescope, index: int, mass: float | None, method: Method) -> dict[str, Any]:
    """Return what a fit claims of one image, and whether the halo is among it."""
    drawn = telescope.smooth(index)
    place = telescope.on_the_arcs(drawn, index)
    if mass is not None:
        drawn = replace(drawn, scene=telescope.with_halo(drawn.scene, mass, place))
    found = method.predict(telescope.instrument.observation(telescope.image(drawn)[0]), 2)
    claims = [] if found.bodies is None else found.bodies[0, :, :2].tolist()
    off = [float(np.hypot(x - place[0], y - place[1])) for x, y in claims if x == x]
    return {
        "lens": index,
        "log_mass": mass,
        "claims": len(off),
        "real": 0 if mass is None else sum(r < NEAR for r in off),
        "off": min(off, default=None),
        "gain": float(found.numbers["best_gain"]),
        "theta_E": float(found.parameters["theta_E"] / drawn.scene.theta_E),
        "quality": found.verdicts[0].quality,
    }


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the counts of each mass."""
    found = []
    for mass in MASSES:
        mine = [row for row in rows if row["log_mass"] == mass]
        counts = {name: sum(row[name] for row in mine) for name in ("claims", "real")}
        seen = {"lenses": len(mine), "found": sum(row["real"] > 0 for row in mine)}
        found.append({"log_mass": mass, **seen, **counts, "good": sum(row["quality"] == "good" for row in mine)})
    return found


def main() -> None:
    """Judge all, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("galaxies", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--lenses", type=int, default=6)
    parser.add_argument("--telescopes", nargs="+", choices=list(TELESCOPES), default=list(TELESCOPES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kept = KeptRows(arguments.out)
    telescopes = {name: Telescope(arguments.galaxies, name) for name in arguments.telescopes}
    sets = []
    for name, telescope in telescopes.items():
        for model, method in MODELS.items():
            rows = []
            for mass in MASSES:
                for index in range(arguments.lenses):
                    key = f"{name}, {model}, {mass}, {index}"
                    if key not in kept:
                        kept[key] = judged(telescope, index, mass, method)
                        print(key, kept[key], flush=True)
                    rows.append(kept[key])
            sets.append({"telescope": name, "mass": model, "table": table(rows), "rows": rows})
    kept.finish({"provenance": provenance(lenses=arguments.lenses), "sets": sets})


if __name__ == "__main__":
    main()
