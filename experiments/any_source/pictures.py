"""Pictures of what the default makes of lenses whose sources are no Sersics.

    python experiments/any_source/pictures.py DATA.h5 ROW [ROW ...] -o OUT.png

A line a lens: LR, bicubic, SR, HR (noise-free truth), SR - HR, sigma, kappa smoothed by three pixels, the source found
and the true one. The title of a line has the PSNR of both, the error of theta_E, the sub-halos and the verdict.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from lensphys.basics.panels import save_figure
from lensphys.data.lens_file import LensFile
from lensphys.evaluation.metrics import normalise_peak, psnr
from lensphys.evaluation.substructure import soft_kappa
from lensphys.methods import READY
from lensphys.simulation.galaxies import with_image
from lensphys.tracing.grid import PixelGrid

SOURCE = PixelGrid(120, 120, 0.015)  # of the source plane


def panels(lenses: LensFile, row: int) -> tuple[str, dict[str, Any]]:
    """Return the title and the images of a lens."""
    observation, model = lenses.observation([row]), lenses.lens_model(row)
    truth = torch.as_tensor(lenses.read("hr_clean", [row])) * float(lenses.read("flux_scale", row)[0])
    found, bicubic = (READY[name].predict(observation, 2) for name in ("refine", "bicubic"))
    known = model["kwargs_lens"][0]["theta_E"]
    found_radius = float(found.parameters["theta_E"])
    centre = torch.stack([found.parameters[f"source.center_{axis}"] for axis in "xy"], dim=1)[:, :, None, None]
    source = found.source(SOURCE.positions(like=truth) + centre) if found.source is not None else truth
    kappa = soft_kappa(found.deflection) if found.deflection is not None else truth

    before, after = (float(psnr(*normalise_peak(image, truth))) for image in (bicubic.image, found.image))
    title = (
        f"{lenses.classes[int(lenses.read('label', row)[0])]}: bicubic {before:.1f}, "
        f"SR {after:.1f} dB, "
        f"theta_E {100 * (found_radius / known - 1):+.2f} %, {int(found.numbers['subhalos'])} sub-halos, "
        f"{found.verdicts[0].quality}"
    )
    images = {
        "LR": observation.image,
        "bicubic": bicubic.image,
        "SR": found.image,
        "HR": truth,
        "SR - HR": found.image - truth,
        "sigma": found.sigma,
        "kappa": kappa,
        "source": source,
        "true source": true_source(model, centre),
    }
    return title, {name: np.asarray(x[0, 0]) for name, x in images.items()}


def true_source(model: dict[str, Any], centre: torch.Tensor) -> torch.Tensor:
    """Return the true source where the found one is looked at, (1, 1, S, S)."""
    from lenstronomy.LightModel.light_model import LightModel

    x, y = (SOURCE.positions(like=centre) + centre)[0].flatten(1).numpy().astype("f8")
    names, values = model["source_light_model_list"], model["kwargs_source"]
    keywords = [with_image(k) for k in values]
    light = LightModel(names).surface_brightness(x, y, keywords)
    return torch.as_tensor(light).reshape(1, 1, *SOURCE.shape)


def main() -> None:
    """Draw the lenses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("rows", type=int, nargs="+")
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    figure = Figure(figsize=(15, 2.2 * len(arguments.rows)))
    with LensFile(arguments.data) as lenses:
        lines = figure.subplots(len(arguments.rows), 9, squeeze=False)
        for line, row in zip(lines, arguments.rows, strict=True):
            title, images = panels(lenses, row)
            top = images["HR"].max()
            for ax, (name, image) in zip(line, images.items(), strict=True):
                fixed = {"LR": 4 * top, "SR - HR": top / 20, "sigma": top / 20, "kappa": 1.5}
                high = fixed.get(name, float(image.max()))
                low = -high if name == "SR - HR" else 0.0
                colours = {"SR - HR": "RdBu_r", "kappa": "viridis", "sigma": "viridis"}.get(name, "magma")
                high = top if name in ("bicubic", "SR") else high
                ax.imshow(image, origin="lower", vmin=low, vmax=high, cmap=colours, interpolation="nearest")
                ax.set_title(name, fontsize=7)
                ax.axis("off")
            line[0].annotate(title, (0, 1.18), xycoords="axes fraction", fontsize=8, annotation_clip=False)
            print(title, flush=True)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=0.93, wspace=0.05, hspace=0.4)
    save_figure(figure, arguments.out)


if __name__ == "__main__":
    main()
