"""Trace a lens: from a mass model to an image with its critical curve, and to what a telescope records of it."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import lensphys as lp


def main(path: Path) -> None:
    lens = lp.SIE(theta_E=1.1, e1=0.1, e2=-0.05) + lp.Shear(gamma1=0.03, gamma2=0.01)
    source = lp.Sersic(amp=10.0, R_sersic=0.2, n_sersic=1.0, e1=0.1, center_x=0.08)
    x, y = lp.positions(200, 200, 0.02)  # arcsec
    image = source.brightness(*lens.ray(x, y))
    plt.pcolormesh(x, y, image)
    for curve in lens.critical_curves():
        plt.plot(*curve, "w")
    plt.gca().set(aspect=1, xlabel="x [arcsec]", ylabel="y [arcsec]")
    plt.savefig(path)
    print(f"wrote {path}; magnification at (0.5, 0.2): {lens.magnification(0.5, 0.2):.2f}")

    euclid = lp.observe(lens, source, "euclid_vis", height=40, width=40)
    print(euclid, f"brightest pixel {euclid.image.max():.2f} e-/s")

    theta_E = torch.tensor(1.1, requires_grad=True)  # tensors in, tensors out
    traced = source.brightness(*lp.SIE(theta_E, e1=0.1).ray(torch.tensor(x), torch.tensor(y)))
    (traced.sum() * 0.02**2).backward()
    print(f"d(flux) / d(theta_E) = {theta_E.grad:.1f} per arcsec")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "lens.png"))
