"""Draw lenses like those of SLACS, with real galaxies behind them, whose Einstein radii are known.

    python experiments/real/lens_light/simulated.py GALAXIES FOLDER [--telescope hst] [--lenses 24] [--first 0]
    python experiments/real/lens_light/lens_light.py FOLDER experiments/real/lens_light/simulated

GALAXIES is an .npz with ``images`` (N, H, W) of galaxies, background taken off, which are not ours to give. FOLDER gets
FITS files as `lens_light.py` reads them. All by lenstronomy, none by lensphys: a power law with shear, whose ellipse
and slope scatter as those of SLACS do; a bulge, and a disc or halo that is flattened and turned in its own way; up to
three neighbours without mass; pixels, PSF and noise of a telescope. For Hubble pixels share their noise, and its map
is 1.5 times too large, both as in the real images. What the settings of the fit were chosen on is told in the pages.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

Array = np.ndarray
BEYOND = 20  # pixels about the image from which the PSF brings light into it


@dataclass(frozen=True)
class Telescope:
    """How lenses are seen, and which.

    Args:
        side: pixels along the side of an image.
        scale: of a pixel ["].
        fine: points along the side of a pixel.
        zero_point: magnitude of 1 electron / s.
        sky: noise of the sky [electrons / s].
        exposure: that the photons' noise is of [s].
        too_large: by how much the noise map is.
        shared: width of what neighbours share [pixels].
        fwhm: of the PSF, a Moffat profile ["].
        beta: its slope.
        theta_E: least and largest ["].
        source: magnitudes of the galaxies behind, and
        fainter: how much fainter the lenses are than those of SLACS [mag].
    """

    side: int
    scale: float
    fine: int
    zero_point: float
    sky: float
    exposure: float
    too_large: float
    shared: float
    fwhm: float
    beta: float
    theta_E: tuple[float, float]
    source: tuple[float, float]
    fainter: float = 0.0

    def flux(self, magnitude: float) -> float:
        """Return electrons per second."""
        return float(10 ** (-0.4 * (magnitude - self.zero_point)))

    def positions(self) -> tuple[Array, Array]:
        """Return x and y of the fine pixels, of those beyond the image, too ["]."""
        number = (self.side + 2 * BEYOND) * self.fine
        line = (np.arange(number) - (number - 1) / 2) * self.scale / self.fine
        x, y = np.meshgrid(line, line)
        return x, y


TELESCOPES = {
    "hst": Telescope(201, 0.05, 4, 25.94, 0.0065, 5000.0, 1.5, 0.55, 0.085, 2.2, (0.75, 1.65), (23.6, 25.2)),  # F814W
    "euclid": Telescope(101, 0.1, 6, 24.6, 0.0045, 2260.0, 1.0, 0.3, 0.16, 2.5, (0.6, 3.0), (22.5, 24.5)),  # VIS
    "hsc": Telescope(71, 0.168, 10, 27.0, 0.045, 1200.0, 1.0, 0.3, 0.6, 3.0, (0.9, 3.0), (21.7, 23.5), 1.5),  # i band
}


def ellipticity(q: float, angle: float) -> dict[str, float]:
    """Return e1 and e2 of an axis ratio and an angle."""
    e = (1 - q) / (1 + q)
    return {"e1": e * math.cos(2 * angle), "e2": e * math.sin(2 * angle)}


def sersics(telescope: Telescope, parts: list[dict[str, float]]) -> Array:
    """Return the flux on fine pixels of Sersic profiles with a total ``flux`` each."""
    x, y = telescope.positions()
    model = LightModel(["SERSIC_ELLIPSE"])
    total = np.zeros_like(x)
    for part in parts:
        own = {name: value for name, value in part.items() if name != "flux"}
        light = model.surface_brightness(x.ravel(), y.ravel(), [own | {"amp": 1.0}]).reshape(x.shape)
        total += (
            part["flux"] * light / model.total_flux([own | {"amp": 1.0}])[0] * (telescope.scale / telescope.fine) ** 2
        )
    return total


def galaxy_light(telescope: Telescope, rng: np.random.Generator, q: float, angle: float) -> list[dict[str, float]]:
    """Return a lens galaxy: a bulge, and mostly a disc or halo with its own shape."""
    whole, outer = (
        telescope.flux(rng.uniform(16.8, 18.3) + telescope.fainter),
        rng.choice([0.0, rng.uniform(0.2, 0.6)], p=[0.25, 0.75]),
    )
    middle = dict(zip(("center_x", "center_y"), rng.normal(0.0, 0.02, 2), strict=True))
    bulge = {"R_sersic": rng.uniform(0.6, 1.6), "n_sersic": rng.uniform(2.5, 5.0)} | ellipticity(q, angle)
    halo = {"R_sersic": rng.uniform(1.8, 4.0), "n_sersic": rng.uniform(0.8, 2.0)}
    halo |= ellipticity(float(np.clip(q + rng.normal(-0.1, 0.12), 0.45, 1.0)), angle + rng.normal(0.0, 0.15))
    parts = [bulge | middle | {"flux": whole * (1 - outer)}, halo | middle | {"flux": whole * outer}]
    return parts[: 2 if outer else 1]


def neighbours(telescope: Telescope, rng: np.random.Generator) -> list[dict[str, float]]:
    """Return other galaxies and stars in the field."""
    found = []
    for _ in range(rng.integers(0, 4)):
        radius, angle = rng.uniform(2.2, 5.0), rng.uniform(0, 2 * math.pi)
        at = {"center_x": radius * math.cos(angle), "center_y": radius * math.sin(angle)}
        shape = ellipticity(rng.uniform(0.4, 1.0), rng.uniform(0, math.pi))
        size = {"R_sersic": rng.choice([0.02, rng.uniform(0.1, 0.5)]), "n_sersic": rng.uniform(0.5, 3.0)}
        found.append(at | shape | size | {"flux": telescope.flux(rng.uniform(21.0, 24.5))})
    return found


def arcs(
    telescope: Telescope, rng: np.random.Generator, galaxy: Array, q: float, angle: float
) -> tuple[Array, dict[str, Any]]:
    """Return the lensed flux on fine pixels, and the truth."""
    theta_E, slope = rng.uniform(*telescope.theta_E), float(np.clip(rng.normal(2.08, 0.16), 1.7, 2.4))
    mass = ellipticity(float(np.clip(q + rng.normal(0.0, 0.08), 0.5, 0.98)), angle + rng.normal(0.0, 0.12))
    shear = dict(zip(("gamma1", "gamma2"), rng.normal(0.0, 0.035, 2), strict=True))
    lens = [{"theta_E": theta_E, "gamma": slope} | mass, shear]
    x, y = telescope.positions()
    beta = LensModel(["EPL", "SHEAR"]).ray_shooting(x.ravel(), y.ravel(), lens)
    pixel, magnitude = rng.uniform(0.008, 0.018), rng.uniform(*telescope.source)
    radius, turn = theta_E * rng.uniform(0.02, 0.25), rng.uniform(0, 2 * math.pi)
    at = {"center_x": radius * math.cos(turn), "center_y": radius * math.sin(turn)}
    image = {
        "image": galaxy / galaxy.sum() / pixel**2,
        "amp": telescope.flux(magnitude),
        "scale": pixel,
        "phi_G": rng.uniform(0, 6.28),
    }
    brightness = LightModel(["INTERPOL"]).surface_brightness(*beta, [image | at]).reshape(x.shape)
    seen = brightness * (telescope.scale / telescope.fine) ** 2
    truth = {
        "THETA_E": theta_E,
        "SLOPE": slope,
        "MAGNIFIC": float(seen.sum()) / telescope.flux(magnitude),
        "SOURCE": magnitude,
    }
    return seen, truth


def moffat(telescope: Telescope) -> tuple[Array, Array]:
    """Return the PSF on fine pixels, and as it is on the image's, which hold it."""
    fine = telescope.fine
    half = BEYOND * fine + fine // 2
    line = np.arange(-half, half + 1) * telescope.scale / fine
    width = telescope.fwhm / 2 / math.sqrt(2 ** (1 / telescope.beta) - 1)
    psf = (1 + (line[:, None] ** 2 + line**2) / width**2) ** -telescope.beta
    pixel = np.ones(fine + 1)
    pixel[[0, -1]] = 0.5  # an even number of points about the middle of a pixel
    held = fftconvolve(psf, np.outer(pixel, pixel) / fine**2, mode="same")
    middle = held[half % fine :: fine, half % fine :: fine]
    return psf / psf.sum(), middle / middle.sum()


def noise(telescope: Telescope, rng: np.random.Generator) -> Array:
    """Return noise of variance 1 that neighbours share."""
    white = gaussian_filter(rng.standard_normal((telescope.side + 40,) * 2), telescope.shared)[20:-20, 20:-20]
    unit = gaussian_filter(np.eye(1, 41 * 41, 20 * 41 + 20).reshape(41, 41), telescope.shared)
    return white / math.sqrt(float((unit**2).sum()))


def written(telescope: Telescope, path: Path, number: int, galaxies: Array) -> None:
    """Write one lens."""
    rng = np.random.default_rng([31, number])
    q, angle = rng.uniform(0.6, 0.95), rng.uniform(0, math.pi)
    fine, psf = moffat(telescope)
    light = sersics(telescope, galaxy_light(telescope, rng, q, angle) + neighbours(telescope, rng))
    lensed, truth = arcs(telescope, rng, galaxies[number % len(galaxies)].astype(np.float64), q, angle)
    blurred = fftconvolve(light + lensed, fine, mode="same")
    wide = blurred.reshape((telescope.side + 2 * BEYOND, telescope.fine) * 2).sum((1, 3))
    clean = wide[BEYOND:-BEYOND, BEYOND:-BEYOND]
    sigma = np.sqrt(telescope.sky**2 + clean.clip(0) / telescope.exposure)
    header = fits.Header({"BUNIT": "electron/s", "PIXSCALE": telescope.scale} | truth)
    planes = {"SCI": clean + sigma * noise(telescope, rng), "ERR": telescope.too_large * sigma, "PSF": psf}
    hdus = [fits.ImageHDU(plane.astype(np.float32), header if name == "SCI" else None, name=name)
            for name, plane in planes.items()]  # fmt: skip
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path, overwrite=True)


def main() -> None:
    """Write all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("galaxies", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--telescope", choices=list(TELESCOPES), default="hst")
    parser.add_argument("--lenses", type=int, default=24)
    parser.add_argument("--first", type=int, default=0, help="number of the first lens: others are other draws")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    galaxies = np.load(arguments.galaxies)["images"]
    for number in range(arguments.first, arguments.first + arguments.lenses):
        path = arguments.folder / f"drawn_{number:02}.fits"
        written(TELESCOPES[arguments.telescope], path, number, galaxies)


if __name__ == "__main__":
    main()
