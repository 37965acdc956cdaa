"""The loop that the published simulators are: one lens at a time, with lenstronomy, one .npy file each (Model 2).

Masses become Einstein radii by astropy, one after the other; LR and HR images through lenstronomy's `SimAPI` with the
source redshift convention; noise on both; the deflection of the HR pixels; an object array, pickled. Its images are
those of the recipe model_2 (`difference`), so what is timed does the same work.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy import constants, units
from astropy.cosmology import FlatLambdaCDM
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.SimulationAPI.sim_api import SimAPI

Z_LENS, Z_SOURCE, Z_CONVENTION = 0.5, 1.0, 2.5
MASSES = FlatLambdaCDM(H0=70, Om0=0.3, Ob0=0.05)
SCALES = FlatLambdaCDM(H0=69.7, Om0=0.2825, Ob0=0.046)
EUCLID = {
    "read_noise": 4.2, "ccd_gain": 3.1, "exposure_time": 566.0, "num_exposures": 4, "sky_brightness": 22.3,
    "magnitude_zero_point": 25.72, "seeing": 0.16, "psf_type": "GAUSSIAN",
}  # fmt: skip


def theta_E(mass: float) -> float:
    """Return the Einstein radius of a mass [arcsec], by the published distances."""
    lens, source = MASSES.luminosity_distance(Z_LENS), MASSES.luminosity_distance(Z_SOURCE)
    square = 4 * constants.G * mass * units.M_sun / constants.c**2 * (source - lens) / (lens * source)
    return 206265 * float(np.sqrt(square.decompose().value))


def lens(name: str, rng: np.random.Generator) -> tuple[list[str], list[dict[str, float]]]:
    """Return the lens of a class in lenstronomy's words."""
    names, keywords = ["SIS"], [{"theta_E": theta_E(1e12), "center_x": 0.0, "center_y": 0.0}]
    if name == "axion":
        strength, angle = theta_E(3e10 / 100), rng.uniform(0, 2 * np.pi)
        length = 0.03 * 1e-22 / 10 ** rng.uniform(-24, -22)
        for s in np.linspace(-length, length, 100):
            names.append("POINT_MASS")
            keywords.append({"theta_E": strength, "center_x": s * np.cos(angle), "center_y": s * np.sin(angle)})
    if name == "cdm":
        for _ in range(25):
            mass = (1e6**0.1 + rng.uniform() * (1e10**0.1 - 1e6**0.1)) ** 10
            r, angle = rng.uniform(0.25, 2.0), rng.uniform(0, 2 * np.pi)
            names.append("POINT_MASS")
            keywords.append({"theta_E": theta_E(mass), "center_x": r * np.cos(angle), "center_y": r * np.sin(angle)})
    return names, keywords


def images(names: list[str], keywords: list[dict[str, float]], x: float, y: float) -> dict[str, np.ndarray]:
    """Return the clean and noisy LR and HR images of a lens and a source at (x, y), and the deflection."""
    source = {"magnitude": 20.0, "R_sersic": 0.25, "n_sersic": 1.0, "e1": -0.1, "e2": 0.1, "center_x": x, "center_y": y}
    model = {"lens_model_list": names, "z_lens": Z_LENS, "z_source": Z_SOURCE, "z_source_convention": Z_CONVENTION,
             "source_light_model_list": ["SERSIC_ELLIPSE"], "cosmo": SCALES}  # fmt: skip
    made = {}
    for size, pixels in (("lr", 64), ("hr", 128)):
        simulator = SimAPI(pixels, EUCLID | {"pixel_scale": 6.464 / pixels}, model)
        image_model = simulator.image_model_class({"point_source_supersampling_factor": 1})
        _, light, _ = simulator.magnitude2amplitude(kwargs_source_mag=[source])
        made[f"{size}_clean"] = image_model.image(keywords, light)
        made[size] = made[f"{size}_clean"] + simulator.noise_for_model(model=made[f"{size}_clean"])
        if size == "hr":
            grid = image_model.Data.pixel_coordinates
            made["alpha"] = np.stack(LensModel(names).alpha(*grid, keywords))
    return made


def write_one(folder: Path, name: str, index: int, rng: np.random.Generator) -> None:
    """Simulate one lens and write its file."""
    names, keywords = lens(name, rng)
    made = images(names, keywords, *rng.uniform(-0.35, 0.35, 2))
    content = np.empty(3, dtype=object)
    content[:] = [made["lr"], made["hr"], made["alpha"]]
    np.save(folder / f"{name}_{index}.npy", content, allow_pickle=True)


def difference(lr_clean: np.ndarray, x: float, y: float) -> float:
    """Return how far the loop's LR image of a lens without substructure is from ``lr_clean``, over the peak."""
    mine = images(*lens("no_sub", np.random.default_rng(0)), x, y)["lr_clean"]
    return float(np.abs(mine - lr_clean).max() / mine.max())
