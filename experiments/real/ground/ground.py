"""Real lenses as a telescope on the ground would see them, super-resolved back onto Hubble's pixels and PSF.

    python experiments/real/ground/ground.py FOLDER [OUT]

FOLDER holds Hubble cut-outs (FITS; extensions ARC, ERR, MASK, PSF; header PIXSCALE, THETA_E), not ours to give. Of
each, the arcs are blurred to a PSF of 0.5", 4 x 4 pixels are summed, and white noise is added so that the brightest
pixel has S/N 50. The methods get that view, its PSF, its noise and the target PSF. They are judged by
sum (SR - HST)^2 / sum HST^2 over the pixels of MASK, where a perfect image would still find HST's own noise
(``hst_noise``: what ERR says of it, which is rather too much).

The arcs are what ARC holds inside MASK: outside of it are the remains of the lens galaxy's light, which Hubble's pixels
show as sharp spikes. In ``table.json`` the rows of ``whole`` have them in the view nevertheless.

OUT (by default the folder of this script) gets ``table.json``, ``table.md`` and ``figure.png``. About 5 minutes on two
cores.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from astropy.io import fits
from matplotlib.figure import Figure

from lensphys.basics.outputs import write_json
from lensphys.basics.panels import save_figure
from lensphys.basics.provenance import provenance
from lensphys.fits.header import pixel_scale
from lensphys.methods import READY, Method, RichardsonLucy
from lensphys.methods.super_resolve import super_resolve
from lensphys.observation import Camera, ErrorMap, GaussianPSF, Observation, PixelPSF, block_sum
from lensphys.tracing.grid import PixelGrid

FACTOR, FWHM, SIGNAL_TO_NOISE, SEED = 4, 0.5, 50, 0
ITERATIONS = (1, 2, 3, 5, 10, 20, 30, 50, 70, 100, 140, 200, 300)  # of Richardson-Lucy, which gets the best of them
METHODS: dict[str, Method] = {name: READY[name] for name in ("bicubic", "fit", "restore")}  # and richardson_lucy
BASELINES, OURS = ("bicubic", "richardson_lucy"), "restore"


@dataclass(frozen=True)
class View:
    """A lens as Hubble saw it, arrays (H, W), and the ground-based view of it."""

    lens: str
    arc: torch.Tensor
    mask: torch.Tensor
    published: float
    hst_noise: float
    hst_fwhm: float
    observation: Observation

    def error(self, image: np.ndarray) -> float:
        """Return sum (SR - HST)^2 / sum HST^2 inside the mask."""
        difference = (torch.from_numpy(image) - self.arc)[self.mask]
        return float(difference.square().sum() / self.arc[self.mask].square().sum())


def ground_view(path: Path, *, whole: bool) -> View:
    """Return the view of a Hubble cut-out; ``whole`` leaves in it what lies outside of the mask."""
    with fits.open(path) as hdus:
        header = hdus["ARC"].header
        arc, error, mask, kernel = (torch.from_numpy(hdus[n].data.astype("f4")) for n in ("ARC", "ERR", "MASK", "PSF"))
    scale = pixel_scale(header, path.name)
    arc, error, mask = cropped(arc), cropped(error), cropped(mask) > 0
    width = full_width(kernel, scale)
    blur = GaussianPSF(math.sqrt(FWHM**2 - width**2))
    margin = math.ceil(5 * FWHM / 2.35 / scale)
    seen = blur.blur(torch.nn.functional.pad(kernel[None, None], (margin,) * 4), scale)[0, 0]
    grid = PixelGrid(len(arc) // FACTOR, arc.shape[1] // FACTOR, FACTOR * scale)
    clean = block_sum(blur.blur((arc if whole else arc * mask)[None, None], scale), grid)
    counts = torch.nn.functional.avg_pool2d(mask[None, None].float(), FACTOR) == 1
    sigma = torch.full_like(clean, float(clean[counts].max()) / SIGNAL_TO_NOISE)
    noise = ErrorMap(sigma)
    psf, sharp = PixelPSF(seen / seen.sum(), scale), PixelPSF(kernel / kernel.sum(), scale)
    camera = Camera(grid, psf, supersampling=FACTOR, target_psf=sharp)
    image = noise.sample(clean, torch.Generator().manual_seed(SEED))
    floor = float(error[mask].square().sum() / arc[mask].square().sum())
    observation = Observation(image, camera, noise, counts)
    return View(path.stem, arc, mask, float(header["THETA_E"]), floor, width, observation)


def cropped(image: torch.Tensor) -> torch.Tensor:
    """Return the middle of an image (H, W) that divides into ground-based pixels."""
    (top, height), (left, width) = ((n % FACTOR // 2, n - n % FACTOR) for n in image.shape)
    return image[top : top + height, left : left + width]


def full_width(kernel: torch.Tensor, scale: float) -> float:
    """Return the FWHM [arcsec] of a kernel (K, K): the diameter of the disc with the area above half of the maximum."""
    grid, points = PixelGrid(*kernel.shape, 1.0), 16
    fine = grid.sample(kernel[None, None], grid.resampled(points).positions(like=kernel), mode="bicubic")
    return 2 * math.sqrt(float((fine >= fine.max() / 2).sum()) / math.pi) / points * scale


def scanned(views: list[View]) -> dict[int, float]:
    """Return the mean error of Richardson-Lucy by its number of iterations."""
    errors = {}
    for n in ITERATIONS:
        method = RichardsonLucy(iterations=n)
        images = [super_resolve(method, view.observation, FACTOR)["image"][0] for view in views]
        errors[n] = float(np.mean([view.error(image) for view, image in zip(views, images, strict=True)]))
    return errors


def judged(view: View, methods: dict[str, Method]) -> tuple[dict, dict]:
    """Return the row of a lens and the images of the methods, by their names."""
    results = {name: super_resolve(method, view.observation, FACTOR) for name, method in methods.items()}
    row = {"lens": view.lens, "published": view.published, "hst_noise": view.hst_noise, "hst_fwhm": view.hst_fwhm}
    row["view_fwhm"] = full_width(view.observation.camera.psf.kernel, view.observation.camera.psf.scale)
    row["methods"] = {}
    for name, result in results.items():
        found = {"error": view.error(result["image"][0]), "chi2_dof": float(result["chi2"][0])}
        if "theta_E" in result:
            found["theta_E"] = float(result["theta_E"][0])
            found["ratio"] = found["theta_E"] / view.published
        row["methods"][name] = found
    return row, {name: result["image"][0] for name, result in results.items()}


def summary(rows: list[dict], name: str) -> dict[str, int]:
    """Return on how many lenses a method beats both baselines, and finds theta_E within 5 %."""
    found = [row["methods"] for row in rows]
    below = sum(m[name]["error"] < min(m[b]["error"] for b in BASELINES) for m in found)
    return {"lenses": len(rows), "below_baselines": below, "theta_E_within_5_percent": sum(
        abs(m[name].get("ratio", math.inf) - 1) < 0.05 for m in found)}  # fmt: skip


def table(rows: list[dict]) -> str:
    """Return the rows as markdown."""
    names = list(rows[0]["methods"])
    lensing = [name for name in names if "ratio" in rows[0]["methods"][name]]
    head = ["lens", *names, "noise of HST", "theta_E published", *(f"theta_E {name} (ratio)" for name in lensing)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        found = row["methods"]
        best = min(names, key=lambda name: found[name]["error"])
        cells = [f"**{found[n]['error']:.3f}**" if n == best else f"{found[n]['error']:.3f}" for n in names]
        cells += [f"{row['hst_noise']:.3f}", f"{row['published']:.3f}"]
        cells += [f"{found[name]['theta_E']:.3f} ({found[name]['ratio']:.3f})" for name in lensing]
        lines.append(f"| {row['lens']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(axes, view: View, images: dict[str, np.ndarray]) -> None:
    """Draw a lens: what is not in the mask is not judged and stays dark."""
    arc, mask = view.arc.numpy(), view.mask.numpy()
    top = np.quantile(arc[mask], 0.995)
    ground = view.observation.image[0, 0].numpy() / FACTOR**2
    residual = np.where(mask, images[OURS] - arc, 0)
    panels = {"ground": ground, **{name: images[name] * mask for name in (*BASELINES, OURS)}, "HST": arc * mask}
    for ax, (title, panel) in zip(axes, panels.items(), strict=False):
        high = ground.max() if title == "ground" else top
        ax.imshow(panel, origin="lower", vmin=-0.15 * high, vmax=high, cmap="magma", interpolation="nearest")
        error = f" {view.error(images[title]):.2f}" if title in images else ""
        ax.set_title(f"{title}{error}" if title != "ground" else view.lens[:14], fontsize=8)
    axes[-1].imshow(residual, origin="lower", vmin=-top / 2, vmax=top / 2, cmap="RdBu_r", interpolation="nearest")
    axes[-1].set_title(f"{OURS} - HST", fontsize=8)
    for ax in axes:
        ax.axis("off")


def main(folder: Path, out: Path) -> None:
    """Write the tables and the figure."""
    paths = sorted(folder.glob("*.fits"))
    figure = Figure(figsize=(9, 1.6 * len(paths)), layout="constrained")
    tree = {}
    for kind in ("arcs", "whole"):
        views = [ground_view(path, whole=kind == "whole") for path in paths]
        scan = scanned(views)
        iterations = min(scan, key=scan.__getitem__)
        methods = {"bicubic": METHODS["bicubic"], "richardson_lucy": RichardsonLucy(iterations=iterations)} | METHODS
        found = [judged(view, methods) for view in views]
        rows = [row for row, _ in found]
        ours = {name: summary(rows, name) for name in methods if name not in BASELINES}
        tree[kind] = {"rows": rows, "summary": ours, "richardson_lucy_iterations": iterations,
                      "richardson_lucy_scan": scan}  # fmt: skip
        print(f"{kind}: Richardson-Lucy with {iterations} iterations, {ours}\n{table(rows)}")
        if kind == "arcs":
            lines = figure.subplots(len(paths), 6, squeeze=False)
            for line, view, (_, images) in zip(lines, views, found, strict=True):
                draw(line, view, images)
            save_figure(figure, out / "figure.png")
            (out / "table.md").write_text(table(rows) + "\n")
    setting = {"factor": FACTOR, "fwhm": FWHM, "signal_to_noise": SIGNAL_TO_NOISE, "seed": SEED}
    command = "python experiments/real/ground/ground.py FOLDER"
    write_json(out / "table.json", {**tree, **provenance(command=command, **setting)})


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent)
