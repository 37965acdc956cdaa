"""Simulate a data set, look at it, and compute one of its deflections again with plain lenstronomy."""

import sys
from pathlib import Path

import numpy as np
from lenstronomy.LensModel.lens_model import LensModel

import lensphys as lp


def main(folder: Path) -> None:
    recipe = lp.Recipe.named("model_2", ["source.magnitude=19.5"])  # any value of the recipe can be changed
    data = lp.simulate(recipe, 4, folder / "bright_euclid.h5", classes=["no_sub", "cdm"], seed=3)
    print(data)
    data.images.plot().savefig(folder / "images.png")

    model, alpha = data.lens_model(1), data.read("alpha_hr", [1])[0]  # arcsec
    x, y = data.grid_hr.positions()[0].numpy().reshape(2, -1)
    again = np.array(LensModel(model["lens_model_list"]).alpha(x, y, model["kwargs_lens"])).reshape(alpha.shape)
    print(f"lenstronomy gives the stored deflection to {np.abs(again - alpha).max():.1e} arcsec")


if __name__ == "__main__":  # the simulator may start processes, which import this file again
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "example_data"))
