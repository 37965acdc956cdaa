"""Super-resolve FITS images of lenses as they are, and compare with published Einstein radii.

    python examples/super_resolve_fits.py OUT [FOLDER [MODEL.yaml]]
    python examples/super_resolve_fits.py --input LENS.fits

FOLDER holds FITS cut-outs (extensions ARC or SCI, ERR, MASK, PSF; header THETA_E if published). Without it, one such
file is made first. MODEL says what is fitted (see my_model.yaml): by default SIE + shear, and a source of any shape.
OUT gets a super-resolved FITS file for each, ``table.json``, ``table.md`` and ``figure.png``. ``--input`` makes that
one file and no more.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from astropy.io import fits
from matplotlib.figure import Figure

from lensphys.data.images import read_images, write_images
from lensphys.deflection import DeflectionField
from lensphys.evaluation.figures import save_figure
from lensphys.evaluation.readme import real_table
from lensphys.fitting.fit_model import FitModel
from lensphys.grid import PixelGrid
from lensphys.inference import super_resolve
from lensphys.methods.fit import RefinedFit
from lensphys.model import SIE, Sersic, Shear
from lensphys.observation import Camera, GaussianPSF
from lensphys.outputs import write_json
from lensphys.provenance import provenance


def make_example(path: Path) -> None:
    """Write a lens as a telescope pipeline would: image, error map, mask, PSF and WCS."""
    camera = Camera(PixelGrid(60, 60, 0.08), GaussianPSF(0.12), supersampling=2)
    lens = SIE(theta_E=1.0, e1=0.1, e2=0.05) + Shear(gamma1=0.02, gamma2=-0.03)
    source = Sersic(amp=100.0, R_sersic=0.15, n_sersic=1.2, center_x=0.1, center_y=0.05)
    clean = camera.render(source, DeflectionField.of(lens, camera.grid.resampled(2)))[0, 0].numpy()
    sigma = np.full_like(clean, 0.02 * clean.max())
    star = torch.zeros(1, 1, 15, 15)
    star[..., 7, 7] = 1.0
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 30.5, "CRPIX2": 30.5})
    header.update({"CRVAL1": 150.0, "CRVAL2": 2.0, "CDELT1": -0.08 / 3600, "CDELT2": 0.08 / 3600, "THETA_E": 1.0})
    noisy = clean + sigma * np.random.default_rng(0).standard_normal(clean.shape)
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(noisy.astype("f4"), header, name="SCI")]
    hdus += [fits.ImageHDU(sigma.astype("f4"), name="ERR"), fits.ImageHDU(np.ones(clean.shape, "u1"), name="MASK")]
    hdus += [fits.ImageHDU(camera.psf.blur(star, 0.08)[0, 0].numpy(), name="PSF")]
    fits.HDUList(hdus).writeto(path, overwrite=True)


def row_of(path: Path, out: Path, method: RefinedFit, axes) -> dict:
    """Super-resolve one file, draw it, and return its row of the table."""
    images = read_images(path)
    started = time.perf_counter()
    result = super_resolve(method, images.observation, 2)
    seconds = time.perf_counter() - started
    write_images(out / f"{path.stem}_sr.fits", images, result, 2, provenance(input=path.name, method="refine", scale=2))
    observation = images.observation
    mask = observation.weight[0, 0].numpy() > 0
    inverse_sigma = (observation.weight / observation.noise.variance(observation.smoothed)).sqrt()
    arcs = (observation.significance(inverse_sigma) > 4)[0, 0].numpy()
    image = observation.image[0, 0].numpy()
    super_resolved = result["image"][0]
    flux = super_resolved[np.kron(arcs, np.ones((2, 2), bool))].sum() / image[arcs].sum() - 1
    peak = np.quantile(image[mask], 0.998)
    panels = (
        (image * mask, peak),
        (super_resolved, peak / 4),
        (result["residual"][0], peak),
        (result["source"][0], None),
    )
    for ax, (panel, top), title in zip(axes, panels, ("LR", "SR", "LR residual", "source"), strict=True):
        low = None if top is None else -0.15 * top
        ax.imshow(panel, origin="lower", vmin=low, vmax=top, cmap="magma")
        ax.set_title(title if ax is not axes[0] else path.stem[:16], fontsize=8)
        ax.axis("off")
    published = images.header.get("THETA_E") if images.header is not None else None
    theta_E = float(result["theta_E"][0])
    return {
        "lens": path.stem,
        "theta_E": theta_E,
        "published": published,
        "ratio": theta_E / published if published else None,
        "chi2_dof": float(result["chi2"][0]),
        "flux_bias_in_arcs": float(flux),
        "subhalos": int(result["subhalos"][0]),
        "quality": str(result["quality"][0]),
        "reasons": str(result["reasons"][0]),
        "seconds": seconds,
    }


def main(out: Path, folder: Path | None = None, model: Path | None = None) -> None:
    method = RefinedFit() if model is None else RefinedFit(model=FitModel.named(model))
    out.mkdir(parents=True, exist_ok=True)
    if folder is None:
        folder = out / "input"
        folder.mkdir(exist_ok=True)
        make_example(folder / "example.fits")
    paths = sorted(folder.glob("*.fits"))
    figure = Figure(figsize=(8, 2 * len(paths)), layout="constrained")
    axes = figure.subplots(len(paths), 4, squeeze=False)
    rows = [row_of(path, out, method, line) for path, line in zip(paths, axes, strict=True)]
    save_figure(figure, out / "figure.png")
    write_json(out / "table.json", {"rows": rows, **provenance(method="refine", model=method.model.resolved, scale=2)})
    (out / "table.md").write_text(real_table(rows) + "\n")
    print(real_table(rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--input"]:
        make_example(Path(sys.argv[2]))
    else:
        main(*map(Path, sys.argv[1:] or ["example_fits"]))
