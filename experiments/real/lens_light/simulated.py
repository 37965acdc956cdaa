"""Draw lenses like those of SLACS, with real galaxies behind them, whose Einstein radii are known.

    python experiments/real/lens_light/simulated.py GALAXIES FOLDER [--lenses 24] [--first 0]
    python experiments/real/lens_light/lens_light.py FOLDER experiments/real/lens_light/simulated

GALAXIES is an .npz with ``images`` (N, H, W) of galaxies, background taken off, which are not ours to give. FOLDER gets
FITS files as `lens_light.py` reads them. All by lenstronomy, none by lensphys: a power law with shear, whose ellipse
and slope scatter as those of SLACS do; a bulge, and a disc or halo that is flattened and turned in its own way; up to
three neighbours without mass; Hubble's pixels and PSF; noise that neighbours share, and a map that is 1.5 times too
large, both as in the real images. What the settings of the fit were chosen on is not among them.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

Array = np.ndarray
SIDE, SCALE, FINE = 201, 0.05, 4  # pixels, ["], points along the side of a pixel
ZERO_POINT = 25.94  # F814W, of 1 electron / s
SKY, EXPOSURE = 0.0065, 5000.0  # noise of the sky [electrons / s], and the exposure that the photons' noise is of [s]
TOO_LARGE, SHARED = 1.5, 0.55  # by how much the noise map is; width of what neighbours share [pixels]
FWHM, BETA = 0.085, 2.2  # of the PSF, a Moffat profile ["]


def flux(magnitude: float) -> float:
    """Return electrons per second."""
    return float(10 ** (-0.4 * (magnitude - ZERO_POINT)))


def ellipticity(q: float, angle: float) -> dict[str, float]:
    """Return e1 and e2 of an axis ratio and an angle."""
    e = (1 - q) / (1 + q)
    return {"e1": e * math.cos(2 * angle), "e2": e * math.sin(2 * angle)}


def fine_positions() -> tuple[Array, Array]:
    """Return x and y of the fine pixels ["]."""
    line = (np.arange(SIDE * FINE) - (SIDE * FINE - 1) / 2) * SCALE / FINE
    x, y = np.meshgrid(line, line)
    return x, y


def sersics(parts: list[dict[str, float]]) -> Array:
    """Return the flux on fine pixels of Sersic profiles with a total ``flux`` each."""
    x, y = fine_positions()
    model = LightModel(["SERSIC_ELLIPSE"])
    total = np.zeros_like(x)
    for part in parts:
        own = {name: value for name, value in part.items() if name != "flux"}
        light = model.surface_brightness(x.ravel(), y.ravel(), [own | {"amp": 1.0}]).reshape(x.shape)
        total += part["flux"] * light / model.total_flux([own | {"amp": 1.0}])[0] * (SCALE / FINE) ** 2
    return total


def galaxy_light(rng: np.random.Generator, q: float, angle: float) -> list[dict[str, float]]:
    """Return a lens galaxy: a bulge, and mostly a disc or halo with its own shape."""
    whole, outer = flux(rng.uniform(16.8, 18.3)), rng.choice([0.0, rng.uniform(0.2, 0.6)], p=[0.25, 0.75])
    middle = dict(zip(("center_x", "center_y"), rng.normal(0.0, 0.02, 2), strict=True))
    bulge = {"R_sersic": rng.uniform(0.6, 1.6), "n_sersic": rng.uniform(2.5, 5.0)} | ellipticity(q, angle)
    halo = {"R_sersic": rng.uniform(1.8, 4.0), "n_sersic": rng.uniform(0.8, 2.0)}
    halo |= ellipticity(float(np.clip(q + rng.normal(-0.1, 0.12), 0.45, 1.0)), angle + rng.normal(0.0, 0.15))
    parts = [bulge | middle | {"flux": whole * (1 - outer)}, halo | middle | {"flux": whole * outer}]
    return parts[: 2 if outer else 1]


def neighbours(rng: np.random.Generator) -> list[dict[str, float]]:
    """Return other galaxies and stars in the field."""
    found = []
    for _ in range(rng.integers(0, 4)):
        radius, angle = rng.uniform(2.2, 5.0), rng.uniform(0, 2 * math.pi)
        at = {"center_x": radius * math.cos(angle), "center_y": radius * math.sin(angle)}
        shape = ellipticity(rng.uniform(0.4, 1.0), rng.uniform(0, math.pi))
        size = {"R_sersic": rng.choice([0.02, rng.uniform(0.1, 0.5)]), "n_sersic": rng.uniform(0.5, 3.0)}
        found.append(at | shape | size | {"flux": flux(rng.uniform(21.0, 24.5))})
    return found


def arcs(rng: np.random.Generator, galaxy: Array, q: float, angle: float) -> tuple[Array, dict[str, Any]]:
    """Return the lensed flux on fine pixels, and the truth."""
    theta_E, slope = rng.uniform(0.75, 1.65), float(np.clip(rng.normal(2.08, 0.16), 1.7, 2.4))
    mass = ellipticity(float(np.clip(q + rng.normal(0.0, 0.08), 0.5, 0.98)), angle + rng.normal(0.0, 0.12))
    shear = dict(zip(("gamma1", "gamma2"), rng.normal(0.0, 0.035, 2), strict=True))
    lens = [{"theta_E": theta_E, "gamma": slope} | mass, shear]
    x, y = fine_positions()
    beta = LensModel(["EPL", "SHEAR"]).ray_shooting(x.ravel(), y.ravel(), lens)
    pixel, magnitude = rng.uniform(0.008, 0.018), rng.uniform(23.6, 25.2)
    radius, turn = theta_E * rng.uniform(0.02, 0.25), rng.uniform(0, 2 * math.pi)
    at = {"center_x": radius * math.cos(turn), "center_y": radius * math.sin(turn)}
    image = {
        "image": galaxy / galaxy.sum() / pixel**2,
        "amp": flux(magnitude),
        "scale": pixel,
        "phi_G": rng.uniform(0, 6.28),
    }
    brightness = LightModel(["INTERPOL"]).surface_brightness(*beta, [image | at]).reshape(x.shape)
    seen = brightness * (SCALE / FINE) ** 2
    truth = {"THETA_E": theta_E, "SLOPE": slope, "MAGNIFIC": float(seen.sum()) / flux(magnitude), "SOURCE": magnitude}
    return seen, truth


def moffat() -> tuple[Array, Array]:
    """Return the PSF on fine pixels, and as it is on the image's, which hold it."""
    half = 20 * FINE + FINE // 2
    line = np.arange(-half, half + 1) * SCALE / FINE
    width = FWHM / 2 / math.sqrt(2 ** (1 / BETA) - 1)
    fine = (1 + (line[:, None] ** 2 + line**2) / width**2) ** -BETA
    pixel = np.ones(FINE + 1)
    pixel[[0, -1]] = 0.5  # an even number of points about the middle of a pixel
    held = fftconvolve(fine, np.outer(pixel, pixel) / FINE**2, mode="same")
    middle = held[half % FINE :: FINE, half % FINE :: FINE]
    return fine / fine.sum(), middle / middle.sum()


def noise(rng: np.random.Generator) -> Array:
    """Return noise of variance 1 that neighbours share."""
    white = gaussian_filter(rng.standard_normal((SIDE + 40, SIDE + 40)), SHARED)[20:-20, 20:-20]
    unit = gaussian_filter(np.eye(1, 41 * 41, 20 * 41 + 20).reshape(41, 41), SHARED)
    return white / math.sqrt(float((unit**2).sum()))


def written(path: Path, number: int, galaxies: Array) -> None:
    """Write one lens."""
    rng = np.random.default_rng([31, number])
    q, angle = rng.uniform(0.6, 0.95), rng.uniform(0, math.pi)
    fine, psf = moffat()
    light = sersics(galaxy_light(rng, q, angle) + neighbours(rng))
    lensed, truth = arcs(rng, galaxies[number % len(galaxies)].astype(np.float64), q, angle)
    blurred = fftconvolve(light + lensed, fine, mode="same")
    clean = blurred.reshape(SIDE, FINE, SIDE, FINE).sum((1, 3))
    sigma = np.sqrt(SKY**2 + clean.clip(0) / EXPOSURE)
    header = fits.Header({"BUNIT": "electron/s", "PIXSCALE": SCALE} | truth)
    planes = {"SCI": clean + sigma * noise(rng), "ERR": TOO_LARGE * sigma, "PSF": psf}
    hdus = [fits.ImageHDU(plane.astype(np.float32), header if name == "SCI" else None, name=name)
            for name, plane in planes.items()]  # fmt: skip
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path, overwrite=True)


def main() -> None:
    """Write all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("galaxies", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lenses", type=int, default=24)
    parser.add_argument("--first", type=int, default=0, help="number of the first lens: others are other draws")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    galaxies = np.load(arguments.galaxies)["images"]
    for number in range(arguments.first, arguments.first + arguments.lenses):
        written(arguments.folder / f"drawn_{number:02}.fits", number, galaxies)


if __name__ == "__main__":
    main()
