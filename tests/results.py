"""Results to look at, without a fit: a method that knows the lens, through the real pipeline of `super-resolve`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from astropy.io import fits

from lensphys.data.images import Reading, read_images
from lensphys.data.results import write_images
from lensphys.methods import READY
from lensphys.methods.super_resolve import super_resolve
from lensphys.model import SIE, LensModel, PointMass, Sersic, Shear
from lensphys.observation import Camera, NoPSF, Observation
from lensphys.prediction import Covariance, Prediction, Verdict
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid

SIDE, PIXEL, SCALE = 32, 0.1, 2
BODY = (0.6, 0.55, 0.13)  # x, y, theta_E [arcsec]
SKY = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 11.5, "CRPIX2": 20.5, "CRVAL1": 150.0, "CRVAL2": -62.0}
SKY |= {f"CD{i}": PIXEL / 3600 * c for i, c in {"1_1": -0.8, "1_2": 0.6, "2_1": 0.6, "2_2": 0.8}.items()}
SMOOTH = {"theta_E": 0.9, "e1": 0.12, "e2": 0.05}


def lens():
    x, y, theta_E = BODY
    smooth = SIE(**SMOOTH) + Shear(gamma1=0.03, gamma2=-0.02)
    return smooth + PointMass(theta_E=theta_E, center_x=x, center_y=y)


@dataclass(frozen=True)
class Known:
    """Knows the lens that `observed` shows: what a fit would find."""

    verdicts: tuple[Verdict, ...] = (Verdict("suspect", ("sub-halos that do not stand", "chi^2 is 3")),)

    def predict(self, observation: Observation, scale: int) -> Prediction:
        n = len(observation)
        camera = observation.camera.at(scale)
        like = torch.zeros(n, dtype=torch.float64)
        field = DeflectionField.from_lens(lens(), camera.grid, like=like)
        field = DeflectionField(field.alpha.expand(n, -1, -1, -1), field.grid)
        source = Sersic(amp=100.0, R_sersic=0.3, n_sersic=1.0, center_x=0.05)
        image = camera.render(source, DeflectionField.from_lens(lens(), camera.grid.resampled(2), like=like))
        values = {f"lens.{k}": v for k, v in {**SMOOTH, "center_x": 0.0, "center_y": 0.0}.items()}
        values |= {"shear.gamma1": 0.03, "shear.gamma2": -0.02, "theta_E": 0.9}
        x, y, theta_E = BODY
        body = torch.tensor([x, y, theta_E, 0.01, 0.02, 0.003, 55.0], dtype=torch.float64)
        parameters = {k: torch.full((n,), v, dtype=torch.float64) for k, v in values.items()}
        return Prediction(
            image.expand(n, -1, -1, -1),
            camera,
            observed().expand(n, -1, -1, -1),
            field,
            lambda position: source(position).expand(n, -1, -1, -1),
            parameters,
            units=LensModel.smooth().units,
            sigma=0.02 * image.expand(n, -1, -1, -1),
            constrained=torch.full_like(image, 0.5).expand(n, -1, -1, -1),
            errors={k: 0.001 * torch.ones_like(v) for k, v in parameters.items()},
            covariance=covariance(n),
            bodies=body.expand(n, 1, -1),
            verdicts=[self.verdicts[i % len(self.verdicts)] for i in range(n)],
            numbers={"subhalos": torch.ones(n), "false_subhalos": torch.full((n,), 0.02)},
        )


def covariance(n: int) -> Covariance:
    """That of ellipticity and shear, each in another unit of size, all of them correlated."""
    scale = torch.tensor([0.1, 0.02, 0.003], dtype=torch.float64)
    together = torch.full((3, 3), 0.6, dtype=torch.float64).fill_diagonal_(1.0) * scale[:, None] * scale
    return Covariance(("lens.e1", "lens.e2", "shear.gamma1"), together.expand(n, 3, 3))


def observed() -> torch.Tensor:
    camera = Camera(PixelGrid(SIDE, SIDE, PIXEL), NoPSF(), supersampling=2)
    source = Sersic(amp=100.0, R_sersic=0.3, n_sersic=1.0, center_x=0.05)
    field = DeflectionField.from_lens(lens(), camera.grid.resampled(2), like=torch.zeros(1, dtype=torch.float64))
    return camera.render(source, field)


def noisy(n: int) -> np.ndarray:
    clean = observed()[0, 0].numpy()
    return (clean + 0.02 * clean.max() * np.random.default_rng(0).standard_normal((n, *clean.shape))).astype("f4")


def fits_result(folder: Path, unit: str = "electron/s", method=None, **cards) -> Path:
    """Write an image and its result as FITS; return the result."""
    header = fits.Header({"BUNIT": unit, **SKY, **cards})
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(noisy(1)[0], header, name="SCI")]
    hdus.append(fits.ImageHDU(np.full((SIDE, SIDE), 0.02, "f4"), name="ERR"))
    fits.HDUList(hdus).writeto(folder / "lens.fits", overwrite=True)
    return written(folder / "lens.fits", folder / "lens_sr.fits", method)


def npz_result(folder: Path, n: int = 3, method=None) -> Path:
    """Write a stack and its result as .npz; return the result."""
    np.save(folder / "stack.npy", noisy(n))
    return written(folder / "stack.npy", folder / "stack.npz", method)


def h5_result(folder: Path, n: int = 2) -> Path:
    """Write the result of a stack as HDF5; return it."""
    np.save(folder / "images.npy", noisy(n))
    return written(folder / "images.npy", folder / "images_sr.h5", None)


def written(path: Path, out: Path, method) -> Path:
    """Super-resolve a file as the command line does, with a method that knows the lens or another one."""
    images = read_images(path, Reading(pixel_scale=None if path.suffix == ".fits" else PIXEL))
    result = super_resolve(READY[method] if isinstance(method, str) else method or Known(), images.observation, SCALE)
    if len(images.index) > 1:
        result["index"] = images.index
    if "bodies" in result:
        result["body_masses"] = 1e11 * result["bodies"][:, :, 2].astype("f8") ** 2
    write_images(out, images, result, SCALE, {"commit": "abc", "method": "known", "read": images.remarks})
    return out
