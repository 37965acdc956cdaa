"""Make images of lenses that are not as a fit likes them: ``python experiments/robustness/scenes.py FOLDER``.

All by lenstronomy, none by lensphys: smooth lenses, whose light, noise, PSF, mass or pixels are what scenes.yaml says.
Then ``python experiments/robustness/cases.py experiments/robustness/scenes.yaml FOLDER -o scenes.json``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

Array = np.ndarray
SCALE, SIDE, FWHM, SIGMA, FINE = 0.1, 48, 0.15, 0.004, 8  # ["], pixels, ["], noise, points along the side of a pixel
LENS = {"theta_E": 1.2, "e1": 0.08, "e2": -0.05, "center_x": 0.03, "center_y": -0.02}
SHEAR = {"gamma1": 0.03, "gamma2": -0.02}
SOURCE = {"amp": 8.0, "R_sersic": 0.25, "n_sersic": 1.2, "e1": 0.1, "e2": 0.05, "center_x": 0.08, "center_y": 0.05}
OVERSAMPLED = 4  # pixels of the kernels to one of the image


def light(
    lens: Mapping[str, float] | None = None,
    sources: Sequence[Mapping[str, float]] = ({},),
    mass: str = "SIE",
    shear: Mapping[str, float] | None = None,
    more: Sequence[tuple[str, Mapping[str, float]]] = (),
    fine: int = FINE,
) -> Array:
    """Return flux on fine pixels (48 fine, 48 fine) of a lensed source, without blur and noise.

    Args:
        lens: what differs from `LENS`.
        sources: what of each differs from `SOURCE`.
        mass: lenstronomy's profile.
        shear: what differs from `SHEAR`.
        more: other masses, with their profile.
        fine: points along the side of a pixel.
    """
    y, x = (np.indices((SIDE * fine, SIDE * fine)) - (SIDE * fine - 1) / 2) * SCALE / fine
    model = LensModel([mass, "SHEAR", *(name for name, _ in more)])
    keywords = [{**LENS, **(lens or {})}, {**SHEAR, **(shear or {})}, *(dict(own) for _, own in more)]
    beta = model.ray_shooting(x.ravel(), y.ravel(), keywords)
    sersic = LightModel(["SERSIC_ELLIPSE"])
    brightness = sum(sersic.surface_brightness(*beta, [{**SOURCE, **source}]) for source in sources)
    return np.reshape(brightness, x.shape) * (SCALE / fine) ** 2


def seen(fine_light: Array, fwhm: float = FWHM) -> Array:
    """Return the image on pixels (48, 48), blurred by a Gaussian of this FWHM [arcsec]."""
    fine = len(fine_light) // SIDE
    return summed(gaussian_filter(fine_light, fwhm / 2.3548 * fine / SCALE, mode="constant", truncate=6))


def summed(fine_light: Array) -> Array:
    """Return the flux in each pixel."""
    fine = len(fine_light) // SIDE
    return fine_light.reshape(SIDE, fine, SIDE, fine).sum((1, 3))


def moffat(beta: float, fine: int = FINE) -> Array:
    """Return a Moffat kernel of `FWHM` on fine pixels."""
    half = int(8 * FWHM * fine / SCALE)
    y, x = np.mgrid[-half : half + 1, -half : half + 1] * SCALE / fine
    width = FWHM / 2 / np.sqrt(2 ** (1 / beta) - 1)
    kernel = (1 + (x**2 + y**2) / width**2) ** -beta
    return np.asarray(kernel / kernel.sum())


def star(fwhm: float = FWHM, dx: float = 0.0, dy: float = 0.0, size: int = 61) -> Array:
    """Return a Gaussian kernel on pixels of a quarter of the image's; dx and dy in its pixels."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    sigma = fwhm / 2.3548 * OVERSAMPLED / SCALE
    kernel = np.exp(-0.5 * ((x - dx) ** 2 + (y - dy) ** 2) / sigma**2)
    return np.asarray(kernel / kernel.sum())


def noisy(clean: Array, sigma: float = SIGMA, seed: int = 0) -> Array:
    """Return the image with white noise."""
    return clean + np.random.default_rng(seed).normal(0, sigma, clean.shape)


def correlated(clean: Array, width: float, seed: int) -> Array:
    """Return the image with noise that neighbours share, each pixel of `SIGMA`; ``width`` [pixels] of the smoothing."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(0, 1, clean.shape), width, mode="wrap")
    return np.asarray(clean + noise * SIGMA / noise.std())


def sharpened(clean: Array) -> Array:
    """Return the image with noise of which neighbours have opposite signs, each pixel of `SIGMA`."""
    noise = np.random.default_rng(9).normal(0, 1, clean.shape)
    noise = noise - 0.35 * (np.roll(noise, 1, 0) + np.roll(noise, 1, 1))
    return np.asarray(clean + noise * SIGMA / noise.std())


Scene = dict[str, Any]  # image; sigma, psf, mask where they are not the plain ones


def _psfs() -> dict[str, Scene]:
    blurred = summed(fftconvolve(light(), moffat(3.0), mode="same"))
    return {
        "psf_wide_10": {"psf": star(1.1 * FWHM)},
        "psf_narrow_10": {"psf": star(0.9 * FWHM)},
        "psf_wide_20": {"psf": star(1.2 * FWHM)},
        "psf_off_centre": {"psf": star(dx=2, dy=-1.5)},
        "psf_far_off_centre": {"psf": star(dx=8, dy=-4)},
        "psf_moffat": {"image": noisy(blurred)},
    }


def _sources() -> dict[str, Scene]:
    scenes: dict[str, Scene] = {}
    for n in (1.0, 2.5, 4.0):
        steep = seen(light(sources=[{"n_sersic": n, "R_sersic": 0.15}], fine=20))
        scenes[f"steep_{n:g}"] = {"image": noisy(steep, steep.max() / 300), "sigma": steep.max() / 300}
    for i in range(3):
        knots = [
            {"center_x": 0.08 + 0.2 * np.cos(2.1 * j + i), "center_y": 0.05 + 0.2 * np.sin(2.1 * j + i), "amp": 20.0}
            for j in range(3)
        ]
        knots = [{"R_sersic": 0.04, "n_sersic": 1.0, "e1": 0.0, "e2": 0.0, **knot} for knot in knots]
        scenes[f"clumpy_{i}"] = {"image": noisy(seen(light(sources=[{}, *knots])), seed=i)}
    point = {"R_sersic": 0.03, "amp": 400.0, "n_sersic": 1.0}
    scenes["compact"] = {"image": noisy(seen(light(sources=[point])))}
    scenes["two_images"] = {"image": noisy(seen(light(sources=[{"center_x": 0.5, "center_y": 0.3}])))}
    return scenes


def _masses() -> dict[str, Scene]:
    def multipole(m: int, strength: float) -> list[tuple[str, dict[str, float]]]:
        return [("MULTIPOLE", {"m": m, "a_m": strength, "phi_m": 0.3, "center_x": 0.03, "center_y": -0.02})]

    lights = {
        "small": light({"theta_E": 0.6}),
        "large": light({"theta_E": 1.6}),
        "flat": light({"e1": 0.3, "e2": 0.1}),
        "shear": light(shear={"gamma1": 0.12, "gamma2": -0.08}),
        "slope_1.85": light({"gamma": 1.85}, mass="EPL"),
        "slope_2.15": light({"gamma": 2.15}, mass="EPL"),
        "multipole_4_weak": light(more=multipole(4, 0.01)),
        "multipole_4_strong": light(more=multipole(4, 0.03)),
        "multipole_3": light(more=multipole(3, 0.02)),
    }
    for i, (x, y) in enumerate(((0.5, 0.3), (1.0, 0.0), (-0.7, 0.7), (-1.0, -0.4))):
        source = {"center_x": x + 0.06, "center_y": y + 0.05}
        lights[f"off_centre_{i}"] = light({"center_x": x, "center_y": y}, [source])
    return {name: {"image": noisy(seen(one))} for name, one in lights.items()}


def _noises(clean: Array) -> dict[str, Scene]:
    rng, column = np.random.default_rng(3), np.indices(clean.shape)[1]
    poisson = (clean.clip(0) + 0.05) * 2000
    scenes: dict[str, Scene] = {
        "faint": {"image": noisy(clean, 0.03), "sigma": 0.03},
        "bright": {"image": noisy(clean, clean.max() / 1000), "sigma": clean.max() / 1000},
        "photons": {"image": rng.poisson(poisson) / 2000 - 0.05, "sigma": np.sqrt(poisson) / 2000},
        "sigma_twice": {"sigma": 2 * SIGMA},
        "sigma_half": {"sigma": SIGMA / 2},
        "no_noise_no_psf": {"sigma": None, "psf": None},
        "gradient": {"image": noisy(clean + 0.0004 * (column - SIDE / 2))},
        "rows": {"image": noisy(clean) + rng.normal(0, SIGMA, (SIDE, 1))},
        "sharpened": {"image": sharpened(clean)},
    }
    for width in (0.5, 0.8, 1.2):
        scenes |= {f"correlated_{width}_{seed}": {"image": correlated(clean, width, seed)} for seed in (7, 8)}
    return scenes


def _pixels(clean: Array) -> dict[str, Scene]:
    y, x = np.indices(clean.shape)
    hole, disc = (y >= 20) & (y < 24) & (x >= 30) & (x < 36), np.hypot(x - 23.5, y - 23.5) < 18
    noise = noisy(clean)
    return {
        "hole_zero": {"image": np.where(hole, 0, noise)},
        "hole_999": {"image": np.where(hole, -999, noise)},
        "hole_noisy": {"image": np.where(hole, -999 + noise, noise)},
        "saturated": {"image": np.minimum(noise, 0.35)},
        "masked_bad": {"image": np.where(hole, 5, noise), "mask": hole},
        "masked_disc": {"mask": disc},
    }


def _borders(clean: Array) -> dict[str, Scene]:
    noise = noisy(clean)
    parts = {"cut_arc": noise[:37], "cut_third": noise[:31], "cut_half": noise[:, 24:]}
    return {name: {"image": part} for name, part in parts.items()}


def scenes() -> dict[str, Scene]:
    """Return all scenes by their names."""
    clean = seen(light())
    plain: Scene = {"image": noisy(clean), "sigma": SIGMA, "psf": star(), "mask": None}
    told = _psfs() | _sources() | _masses() | _noises(clean) | _pixels(clean) | _borders(clean)
    return {name: {**plain, **own} for name, own in told.items()}


def write(path: Path, scene: Scene) -> None:
    """Write a scene as a FITS file with ERR, PSF and MASK."""
    hdus: list[Any] = [fits.PrimaryHDU(scene["image"].astype("f4"), fits.Header({"PIXSCALE": SCALE}))]
    if scene["sigma"] is not None:
        hdus.append(fits.ImageHDU(np.full(scene["image"].shape, scene["sigma"], "f4"), name="ERR"))
    if scene["psf"] is not None:
        head = fits.Header({"PIXSCALE": SCALE / OVERSAMPLED})
        hdus.append(fits.ImageHDU(scene["psf"].astype("f4"), head, name="PSF"))
    if scene["mask"] is not None:
        hdus.append(fits.ImageHDU(scene["mask"].astype("u1"), name="MASK"))
    fits.HDUList(hdus).writeto(path, overwrite=True)


def main() -> None:
    """Write all scenes into a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, scene in scenes().items():
        write(folder / f"{name}.fits", scene)


if __name__ == "__main__":
    main()
