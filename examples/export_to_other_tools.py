"""Hand a simulated lens, with its truth, to lenstronomy, COOLEST, caustics and as a FITS cut-out."""

import sys
from pathlib import Path

import numpy as np
import torch
import yaml
from astropy.io import fits

from lensphys.data.lens_file import LensFile
from lensphys.interop.exporting import export
from lensphys.interop.lenstronomy import read_lenstronomy
from lensphys.simulation import Recipe, simulate


def with_lenstronomy(path: Path) -> np.ndarray:
    """Return the clean image, rendered by lenstronomy."""
    from lenstronomy.Util.class_creator import create_image_model

    tree = read_lenstronomy(path)
    model = create_image_model(*(tree[f"kwargs_{name}"] for name in ("data", "psf", "numerics", "model")))
    return model.image(**tree["kwargs_params"])


def with_caustics(path: Path, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the deflection (2, ...) [arcsec] at positions, computed by caustics."""
    import caustics

    tree = yaml.safe_load(path.read_text())
    cosmology = caustics.FlatLambdaCDM(**tree["cosmology"])
    lenses = [
        getattr(caustics, lens["kind"])(
            cosmology=cosmology, z_l=tree["z_lens"], z_s=tree["z_source"], name=f"lens_{i}", **lens["parameters"]
        )
        for i, lens in enumerate(tree["lenses"])
    ]
    return sum(torch.stack(lens.reduced_deflection_angle(x, y)) for lens in lenses)


def main(folder: Path) -> None:
    path = simulate(Recipe.named("varied"), 2, folder / "lenses.h5", classes=["no_sub"], seed=4)
    with LensFile(path) as lenses:
        clean, alpha = lenses.read("lr_clean", 1)[0, 0], lenses.read("alpha_hr", 1)[0]
        x, y = lenses.grid_hr.positions()[0]

    [kwargs] = export(path, folder / "lens.json", "lenstronomy", [1])
    error = np.abs(with_lenstronomy(kwargs) - clean).max() / clean.max()
    print(f"lenstronomy renders the stored image to {error:.0e} of its peak")

    [parameters] = export(path, folder / "lens.yaml", "caustics", [1])
    try:
        difference = np.abs(with_caustics(parameters, x, y).numpy() - alpha).max()
        print(f"caustics gives the stored deflection to {difference:.0e} arcsec")
    except ImportError:
        print("caustics is not installed: pip install caustics")

    cut_outs = export(path, folder / "cutouts", "fits")  # all samples
    with fits.open(cut_outs[1]) as hdus:
        print(f"{cut_outs[1].name}: {[hdu.name for hdu in hdus]}, theta_E {hdus[0].header['THETA_E']:.3f} arcsec")

    try:
        [template] = export(path, folder / "template.json", "coolest", [1])
        print(f"COOLEST template {template.name}, with {sorted(p.name for p in folder.glob('template_*.fits'))}")
    except ValueError as error:
        print(error)  # without the package coolest


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "example_export"))
