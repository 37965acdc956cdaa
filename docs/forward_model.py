"""How an image of a lens comes about, step by step: ``python docs/forward_model.py`` draws ``docs/forward_model.png``.

A drawn spiral galaxy of the package behind an SIE with shear, as Euclid VIS would record it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from lensphys.basics.panels import save_figure
from lensphys.model import SIE, ImageSource, Shear
from lensphys.observation import Instrument
from lensphys.simulation.galaxies import galaxy_images
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid

GALAXY, PIXEL = 3, 0.02  # of the galaxies that come with the package, and its pixel [arcsec]
MAGNITUDE = 22.5  # of the source, unlensed
FINE = 8  # pixels of the sharp sky along the side of a recorded one
SEED = 1


def steps() -> dict[str, np.ndarray]:
    """Return the images of each step, by what they are called."""
    euclid = Instrument.named("euclid_vis")
    camera = euclid.camera(40, 40)
    lens = SIE(theta_E=1.2, e1=0.12, e2=-0.08) + Shear(gamma1=0.03, gamma2=-0.02)
    source = galaxy(10 ** (-0.4 * (MAGNITUDE - float(euclid.zero_point or 0))))
    fine = camera.grid.resampled(FINE)
    field = DeflectionField.from_lens(lens, fine)
    sharp = source(field.beta) * fine.pixel_area
    clean = camera.render(source, field)
    images = {
        "source": source(PixelGrid(160, 160, 0.01).positions()),
        "convergence": field.kappa,
        "lensed sky": sharp,
        "blurred by the PSF": camera.psf.blur(sharp, fine.scale),
        "in pixels": clean,
        "with noise: what is given": euclid.noise_of(clean).sample(clean, torch.Generator().manual_seed(SEED)),
    }
    return {name: np.asarray(image[0, 0]) for name, image in images.items()}


def galaxy(flux: float) -> ImageSource:
    """Return a drawn galaxy of a flux, as a source."""
    image = torch.as_tensor(galaxy_images("drawn_galaxies.npy")[GALAXY], dtype=torch.float32)[None, None]
    grid = PixelGrid(image.shape[-2], image.shape[-1], PIXEL)
    return ImageSource(image * flux / grid.pixel_area, grid, center_x=0.12, center_y=-0.05)


def main(path: Path) -> None:
    """Draw the steps in a row."""
    figure = Figure(figsize=(12, 2.3))
    made = steps()
    for ax, (name, image) in zip(figure.subplots(1, len(made)), made.items(), strict=True):
        colours, top = ("viridis", 1.5) if name == "convergence" else ("magma", np.quantile(image, 0.998))
        ax.imshow(image, origin="lower", cmap=colours, vmin=0, vmax=top)
        ax.set_title(name, fontsize=8)
        ax.axis("off")
    figure.subplots_adjust(left=0.003, right=0.997, bottom=0.01, top=0.9, wspace=0.04)
    save_figure(figure, path)


if __name__ == "__main__":
    main(Path(__file__).with_suffix(".png"))
