"""Draw a lens as HST's ACS would deliver it: a spiral galaxy behind an elliptical one, as a FITS cut-out.

    python examples/draw_hst_lens.py examples/hst_like_lens.fits

The spiral is one of those that `draw_galaxies.py` drew. SCI has the light of the lens taken off; ERR, MASK and PSF
stand beside it, and the truth in the header of a further extension.
"""

import sys
from pathlib import Path

import numpy as np
from astropy.io import fits

import lensphys as lp

SIDE, SCALE, SEED = 80, 0.05, 8  # pixels, arcsec
GALAXY, GALAXY_SCALE, MAGNITUDE = 2, 0.022, 22.6  # of the drawn spirals; arcsec, AB
LENS = {"theta_E": 1.15, "e1": 0.12, "e2": -0.06, "center_x": 0.02, "center_y": -0.03}
SHEAR = {"gamma1": 0.03, "gamma2": 0.02}
PLACE = {"center_x": 0.10, "center_y": -0.06}  # of the spiral, arcsec
SPIRALS = Path(__file__).parents[1] / "simulations" / "drawn_galaxies.npy"


def main(path: Path) -> None:
    telescope = lp.Instrument.named("hst_acs_f814w")
    galaxy = np.load(SPIRALS)[GALAXY].astype(float)
    flux = telescope.flux(MAGNITUDE) * galaxy / galaxy.sum()
    source = lp.ImageSource.from_image(flux / GALAXY_SCALE**2, GALAXY_SCALE, mode="bicubic", **PLACE)
    lens = lp.SIE(**LENS) + lp.Shear(**SHEAR)
    images = lp.observe(lens, source, telescope, height=SIDE, width=SIDE, seed=SEED)
    header = fits.Header({"BUNIT": "electron/s", "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"})
    header.update({"CRPIX1": SIDE / 2 + 0.5, "CRPIX2": SIDE / 2 + 0.5, "CRVAL1": 150.1, "CRVAL2": 2.2})
    header.update({"CD1_1": -SCALE / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": SCALE / 3600})
    hdus = [
        fits.PrimaryHDU(header=fits.Header({"OBJECT": "drawn lens", "TELESCOP": "simulated", "FILTER": "F814W"})),
        fits.ImageHDU(images.image, header, name="SCI"),
        fits.ImageHDU(images.noise.astype("f4"), name="ERR"),
        fits.ImageHDU(images.mask.astype("u1"), name="MASK"),
        fits.ImageHDU(images.psf.astype("f4"), fits.Header({"PIXSCALE": images.psf_scale}), name="PSF"),
        fits.ImageHDU(name="TRUTH", header=fits.Header({k.upper(): v for k, v in (LENS | SHEAR).items()})),
    ]
    fits.HDUList(hdus).writeto(path, overwrite=True, checksum=True)
    print(f"wrote {path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "hst_like_lens.fits"))
