"""What is gained, on one lens, as one picture: LR, bicubic, ours, truth, source, what both have wrong, sigma.

    python experiments/any_source/gain.py DATA.h5 ROW -o gain.png

The committed picture is row 18 of ``euclid.h5`` (`collect.py` says how that file is made). Its galaxy is a real one,
its gain the mean gain of its class. Beside the picture, ``gain.json`` has the numbers, which the captions repeat.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pictures import SOURCE

from lensphys.basics.outputs import write_json
from lensphys.basics.panels import save_figure
from lensphys.basics.provenance import provenance
from lensphys.data.lens_file import LensFile
from lensphys.evaluation.metrics import normalise_peak, psnr
from lensphys.methods import READY
from lensphys.prediction import Prediction

STRETCH = 0.1  # of the peak: where the asinh stretch turns from linear to logarithmic
WRONG = 0.03  # of the peak: the end of the colour scale of what is wrong
MARGIN = 0.7  # arcsec shown beyond the Einstein radius


def numbers(found: Prediction, bicubic: Prediction, truth: torch.Tensor, known: float) -> dict[str, object]:
    """Return what the captions say, from the images in flux units and the true theta_E [arcsec]."""
    return {
        "psnr": float(psnr(*normalise_peak(found.image, truth))),
        "psnr_bicubic": float(psnr(*normalise_peak(bicubic.image, truth))),
        "theta_E": float(found.parameters["theta_E"]),
        "theta_E_error": float(found.errors["theta_E"]),
        "theta_E_true": known,
        "subhalos": int(found.numbers["subhalos"]),
        "quality": found.verdicts[0].quality,
    }


def draw(images: dict[str, np.ndarray], half_width: float, pixels: dict[str, float]) -> Figure:
    """Return two rows of four images, each cut to a square of half a width [arcsec] about its middle.

    Args:
        images: by their titles.
        half_width: [arcsec].
        pixels: pixel scales [arcsec] by title; the truth's for what is not named.
    """
    figure = Figure(figsize=(9, 5))
    peak = float(images["truth"].max())
    for ax, (name, image) in zip(figure.subplots(2, 4).flat, images.items(), strict=True):
        cut = round(image.shape[-1] / 2 - half_width / pixels.get(name, pixels["truth"]))
        show(ax, name, image[cut:-cut, cut:-cut] if cut > 0 else image, peak)
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.005, top=0.95, wspace=0.03, hspace=0.1)
    return figure


def show(ax: Axes, name: str, image: np.ndarray, peak: float) -> None:
    """Draw one image: errors and sigma on one linear scale, images of one brightness on one asinh scale."""
    if "truth" in name and name != "truth":
        ax.imshow(image, origin="lower", vmin=-WRONG * peak, vmax=WRONG * peak, cmap="RdBu_r")
        name += f" (± {WRONG:.0%} of the peak)"
    elif name == "sigma":
        ax.imshow(image, origin="lower", vmin=0, vmax=WRONG * peak, cmap="viridis")
        name += f" (0 to {WRONG:.0%} of the peak)"
    else:
        top = {"LR": 4 * peak, "source found": image.max()}.get(name, peak)
        ax.imshow(np.arcsinh(image / top / STRETCH), origin="lower", vmin=0, vmax=np.arcsinh(1 / STRETCH), cmap="magma")
    ax.set_title(name, fontsize=8, pad=3)
    ax.axis("off")


def main() -> None:
    """Super-resolve, measure, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("row", type=int)
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    with LensFile(arguments.data) as lenses:
        row = [arguments.row]
        observation, known = lenses.observation(row), lenses.lens_model(arguments.row)["kwargs_lens"][0]["theta_E"]
        truth = torch.as_tensor(lenses.read("hr_clean", row)) * float(lenses.read("flux_scale", row)[0])
        pixels = {"LR": lenses.grid_lr.scale, "truth": lenses.grid_hr.scale, "source found": SOURCE.scale}
        identity = lenses.identity
    found, bicubic = (READY[name].predict(observation, 2) for name in ("refine", "bicubic"))
    if found.sigma is None or found.source is None:
        raise SystemExit("error: the method gave no standard deviation, or no source")
    centre = torch.stack([found.parameters[f"source.center_{axis}"] for axis in "xy"], dim=1)[:, :, None, None]
    images = {
        "LR": observation.image,
        "bicubic": bicubic.image,
        "lensphys": found.image,
        "truth": truth,
        "source found": found.source(SOURCE.positions(like=truth) + centre),
        "bicubic - truth": bicubic.image - truth,
        "lensphys - truth": found.image - truth,
        "sigma": found.sigma,
    }
    figure = draw({name: np.asarray(x[0, 0]) for name, x in images.items()}, known + MARGIN, pixels)
    save_figure(figure, arguments.out)
    made = provenance(data=arguments.data.name, identity=identity, row=arguments.row, method="refine", scale=2)
    write_json(arguments.out.with_suffix(".json"), {**numbers(found, bicubic, truth, known), **made})


if __name__ == "__main__":
    main()
