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
from astropy.io import fits
from matplotlib.figure import Figure

import lensphys as lp
from lensphys.basics.outputs import write_json
from lensphys.basics.panels import save_figure
from lensphys.basics.provenance import provenance
from lensphys.evaluation.tables import lenses_table
from lensphys.fitting import FitModel


def make_example(path: Path) -> None:
    """Write a lens as a telescope pipeline would: image, error map, mask, PSF and WCS."""
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 30.5, "CRPIX2": 30.5})
    header.update({"CRVAL1": 150.0, "CRVAL2": 2.0, "CDELT1": -0.08 / 3600, "CDELT2": 0.08 / 3600, "THETA_E": 1.0})
    lens = lp.SIE(theta_E=1.0, e1=0.1, e2=0.05) + lp.Shear(gamma1=0.02, gamma2=-0.03)
    source = lp.Sersic(amp=20.0, R_sersic=0.15, n_sersic=1.2, center_x=0.1, center_y=0.05)
    seen = lp.observe(lens, source, "hst_wfc3_f160w", height=60, width=60)
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(seen.image, header, name="SCI")]
    hdus += [fits.ImageHDU(seen.noise, name="ERR"), fits.ImageHDU(seen.mask.astype("u1"), name="MASK")]
    hdus += [fits.ImageHDU(seen.psf, fits.Header({"PIXSCALE": seen.psf_scale}), name="PSF")]
    fits.HDUList(hdus).writeto(path, overwrite=True)


def row_of(path: Path, out: Path, model: Path | None, axes) -> dict:
    """Super-resolve one file, draw it, and return its row of the table."""
    images = lp.read(path)
    started = time.perf_counter()
    result = lp.super_resolve(images, 2, model=model)
    seconds = time.perf_counter() - started
    result.write(out / f"{path.stem}_sr.fits", overwrite=True)
    observation, mask = images.set.observation, images.mask
    inverse_sigma = (observation.weight / observation.noise.variance(observation.smoothed)).sqrt()
    arcs = (observation.significance(inverse_sigma) > 4)[0, 0].numpy()
    flux = result.image[np.kron(arcs, np.ones((2, 2), bool))].sum() / images.image[arcs].sum() - 1
    peak = np.quantile(images.image[mask], 0.998)
    panels = ((images.image * mask, peak), (result.image, peak / 4), (result.residual, peak), (result.source, None))
    for ax, (panel, top), title in zip(axes, panels, ("LR", "SR", "LR residual", "source"), strict=True):
        low = None if top is None else -0.15 * top
        ax.imshow(panel, origin="lower", vmin=low, vmax=top, cmap="magma")
        ax.set_title(title if ax is not axes[0] else path.stem[:16], fontsize=8)
        ax.axis("off")
    published = images.set.header.get("THETA_E")
    theta_E, table = float(result.theta_E), result.table
    total = float(table["value"][table["name"] == "theta_E_total"][0])
    return {
        "lens": path.stem,
        "theta_E": theta_E,
        "published": published,
        "ratio": theta_E / published if published else None,
        "ratio_of_all_mass": total / published if published else None,
        "chi2_dof": float(result.chi2),
        "flux_bias_in_arcs": float(flux),
        "subhalos": len(result.subhalos),
        "quality": str(result.quality),
        "reasons": "; ".join(result.reasons),
        "seconds": seconds,
    }


def main(out: Path, folder: Path | None = None, model: Path | None = None) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if folder is None:
        folder = out / "input"
        folder.mkdir(exist_ok=True)
        make_example(folder / "example.fits")
    paths = sorted(folder.glob("*.fits"))
    figure = Figure(figsize=(8, 2 * len(paths)), layout="constrained")
    axes = figure.subplots(len(paths), 4, squeeze=False)
    rows = [row_of(path, out, model, line) for path, line in zip(paths, axes, strict=True)]
    save_figure(figure, out / "figure.png")
    fitted = (FitModel() if model is None else FitModel.named(model)).resolved
    write_json(out / "table.json", {"rows": rows, **provenance(method="refine", model=fitted, scale=2)})
    (out / "table.md").write_text(lenses_table(rows) + "\n")
    print(lenses_table(rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--input"]:
        make_example(Path(sys.argv[2]))
    else:
        main(*map(Path, sys.argv[1:] or ["example_fits"]))
