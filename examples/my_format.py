"""A format of your own: read it into an `ImageSet`, and all else stays as it is.

    python examples/my_format.py IN.npz OUT.npz

IN.npz holds ``image`` (H, W), ``error`` (H, W), ``psf`` (K, K) and ``pixel_scale`` [arcsec]. Where there is no such
file it is made first.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from lensphys.basics.provenance import provenance
from lensphys.data.images import ImageSet, write_images
from lensphys.methods import READY
from lensphys.methods.super_resolve import super_resolve
from lensphys.model import SIE, Sersic
from lensphys.observation import Camera, ErrorMap, GaussianPSF, Observation, PixelPSF
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid


def read(path: Path) -> ImageSet:
    """Return what the file holds, as images ready to be super-resolved."""
    with np.load(path) as file:
        image, error, psf = (torch.as_tensor(file[name], dtype=torch.float32) for name in ("image", "error", "psf"))
        scale = float(file["pixel_scale"])
    camera = Camera(PixelGrid(*image.shape, scale), PixelPSF(psf / psf.sum(), scale), supersampling=2)
    return ImageSet(Observation(image[None, None], camera, ErrorMap(error[None, None])), psf=f"of {path.name}")


def make_example(path: Path) -> None:
    """Write such a file: a lens with noise of 2 % of its peak."""
    camera = Camera(PixelGrid(40, 40, 0.1), GaussianPSF(0.16), supersampling=2)
    field = DeflectionField.from_lens(SIE(theta_E=1.0, e1=0.1, e2=0.05), camera.grid.resampled(2))
    clean = camera.render(Sersic(amp=100.0, R_sersic=0.2, n_sersic=1.0, center_x=0.1), field)[0, 0].numpy()
    sigma = 0.02 * clean.max()
    star = torch.zeros(1, 1, 15, 15)
    star[..., 7, 7] = 1.0
    noisy = clean + sigma * np.random.default_rng(0).standard_normal(clean.shape)
    psf = camera.psf.blur(star, 0.1)[0, 0].numpy()
    np.savez(path, image=noisy, error=np.full_like(clean, sigma), psf=psf, pixel_scale=0.1)


def main(source: Path, out: Path) -> None:
    if not source.exists():
        make_example(source)
    images = read(source)
    result = super_resolve(READY["refine"], images.observation, 2)
    write_images(out, images, result, 2, provenance(input=source.name, method="refine", scale=2))
    print(f"theta_E {result['theta_E'][0]:.3f} arcsec, {result['quality'][0]}; wrote {out}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3] or ("my_image.npz", "my_image_sr.npz")))
