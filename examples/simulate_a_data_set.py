"""Simulate a data set, read it back, and render one of its samples again with plain lenstronomy."""

import sys
from pathlib import Path

import numpy as np

from lensphys.data.lens_file import LensFile
from lensphys.simulation import Recipe, simulate


def main(folder: Path) -> None:
    recipe = Recipe.named("model_2", ["source.magnitude=19.5"])  # any value of the recipe can be changed
    path = simulate(recipe, 4, folder / "bright_euclid.h5", classes=["no_sub", "cdm"], seed=3)
    with LensFile(path) as lenses:
        print(
            f"{len(lenses)} images of {lenses.grid_lr.shape} pixels at {lenses.grid_lr.scale} arcsec: {lenses.classes}"
        )
        model = lenses.lens_model(1)
        alpha = lenses.read("alpha_hr", [1])[0]
        x, y = lenses.grid_hr.positions()[0].numpy().reshape(2, -1)

    from lenstronomy.LensModel.lens_model import LensModel

    again = np.array(LensModel(model["lens_model_list"]).alpha(x, y, model["kwargs_lens"])).reshape(alpha.shape)
    print(f"lenstronomy gives the stored deflection to {np.abs(again - alpha).max():.1e} arcsec")


if __name__ == "__main__":  # the simulator may start processes, which import this file again
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "example_data"))
