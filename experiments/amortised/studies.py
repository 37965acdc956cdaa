"""What the amortised fit takes: other scales, fewer images, other seeds, a wrong PSF, varied data.

    python experiments/amortised/studies.py STUDY RUN WORK

RUN is a run folder of ``lensphys train experiments/amortised/R.yaml``, WORK a folder for simulated files and runs. The
rows go to ``studies.json`` beside this script (or OUT); a setting that stands there already is not computed again. All
images judged are unseen (seed 1000), PSNR is of the flux protocol. The studies:

scales    2, 3, 4 and 8 times as fine, refined; the same LR images at each scale.
sparsity  trained on the first 60 images of each class instead of 300, for as many steps.
seeds     trained with the seeds 0 to 4, on the same images.
psf       told a PSF whose FWHM is 10 % too small or too large.
varied    the Einstein radius on the varied recipe, refined.
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lensphys.basics.checks import LensphysError
from lensphys.basics.outputs import write_json
from lensphys.basics.provenance import commit, hardware
from lensphys.data.lens_file import LensFile
from lensphys.evaluation.evaluate import evaluate
from lensphys.methods import AmortisedMethod, Method
from lensphys.observation import Instrument
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.writer import simulate
from lensphys.training.experiment import Experiment, load_run, train

HERE = Path(__file__).parent
DEFAULTS = {"scales": ("model_3", 30), "sparsity": ("model_3", 50), "seeds": ("model_3", 50), "psf": ("model_2", 50),
            "varied": ("varied", 200)}  # fmt: skip
SEED = 1000  # of the images judged
FULL, FEW, SEEDS = 300, 60, 5
FAILURE = 0.05  # of theta_E


class OtherPSF(LensFile):
    """A file whose instrument is said to have a Gaussian PSF ``factor`` times as wide as it has."""

    factor = 1.0

    @property
    def instrument(self) -> Instrument:
        """The instrument as it is believed to be."""
        true = super().instrument
        return true.model_copy(update={"psf": true.psf.model_copy(update={"fwhm": self.factor * true.psf.fwhm})})


class Study:
    """One study: its name, what it is made on, and the rows that it adds to ``studies.json``."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        recipe, images = DEFAULTS[arguments.study]
        self.name, self.out, self.work, self.run = arguments.study, arguments.out, arguments.work, arguments.run
        self.recipe, self.images = arguments.recipe or recipe, arguments.images or images
        self.training, self.assignments, self.force = arguments.train, arguments.set, arguments.force

    def lenses(self, upscale: int = 2, file: type[LensFile] = LensFile) -> LensFile:
        """Return the lenses that are judged, simulated once."""
        path = self.work / f"{self.recipe}_{upscale}x_{self.images}.h5"
        return file(simulate(Recipe.named(self.recipe, [f"upscale={upscale}"]), self.images, path, seed=SEED))

    def trained(self, name: str, assignments: list[str]) -> AmortisedMethod:
        """Return a network that is trained with changed settings, once; goes on where it was stopped."""
        run = self.work / name
        data = [] if self.training is None else [f"data={{file: {self.training}}}"]
        train(Experiment.read(HERE / f"{self.recipe}.yaml", data + assignments + self.assignments), run, resume=True)
        return load_run(run)

    def judge(self, setting: str, ways: dict[str, Callable[[], Method]], lenses: Callable[[], LensFile]) -> None:
        """Add a row for each way (method name -> the method) and class."""
        for way, method in ways.items():
            if self.is_there(setting, way):
                print(f"{self.name}, {setting}, {way}: is there")
                continue
            with lenses() as file:
                found = evaluate(method(), file, name=f"{setting}, {way}")
            rows = []
            for label, name in enumerate(found.classes):
                values = {k: x[found.labels == label] for k, x in found.values["method"].items()}
                row = {"study": self.name, "setting": setting, "method": way, "cell": f"{self.recipe} {name}",
                       "n": self.images, **numbers(values)}  # fmt: skip
                print(row, flush=True)
                rows.append(row | {"commit": commit(), "hardware": hardware()})
            write_json(self.out, [row for row in self.rows() if not self.is_same(row, setting, way)] + rows)

    def rows(self) -> list[dict]:
        """Return all rows that stand in the file."""
        return json.loads(self.out.read_text()) if self.out.exists() else []

    def is_there(self, setting: str, way: str) -> bool:
        """Return whether a setting needs no computing."""
        return not self.force and any(self.is_same(row, setting, way) for row in self.rows())

    def is_same(self, row: dict, setting: str, way: str) -> bool:
        """Return whether a row is of this study, recipe, setting and method."""
        recipe = row["cell"].split()[0]
        return (row["study"], row["setting"], row["method"], recipe) == (self.name, setting, way, self.recipe)


def numbers(values: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the means over images, and of the Einstein radius its median error and the share of failures."""
    names = {"psnr": "psnr_flux", "ssim": "ssim_flux", "chi2_dof": "chi2_dof", "flux_bias": "flux_bias",
             "coverage": "coverage"}  # fmt: skip
    found = {short: float(np.nanmean(values[name])) for short, name in names.items()}
    off = np.abs(np.nan_to_num(values["theta_E_error"], nan=np.inf))  # a lens that was not found is a failure
    return found | {"theta_E_median": float(np.median(off)), "theta_E_failures": float((off > FAILURE).mean())}


def both(method: Callable[[], AmortisedMethod]) -> dict[str, Callable[[], Method]]:
    """Return the two ways to use a network."""
    once = functools.cache(method)
    return {"one pass": once, "refined": lambda: once().refined()}


def scales(study: Study) -> None:
    """Judge the refined network at four scales."""
    for scale in (2, 3, 4, 8):
        study.judge(f"{scale}x", {"refined": both(lambda: load_run(study.run))["refined"]},
                    lambda scale=scale: study.lenses(scale))  # fmt: skip


def sparsity(study: Study) -> None:
    """Train on a fifth of the images."""
    epochs = Experiment.read(HERE / f"{study.recipe}.yaml", []).training.epochs * FULL // FEW
    few = [f"data={{recipe: {study.recipe}, n: {FEW}, seed: 1}}", f"training.epochs={epochs}"]
    study.judge(f"{FULL} a class", both(lambda: load_run(study.run)), study.lenses)
    study.judge(f"{FEW} a class", both(lambda: study.trained("few", few)), study.lenses)


def seeds(study: Study) -> None:
    """Train with other seeds."""
    for seed in range(SEEDS):
        study.judge(f"seed {seed}", both(lambda seed=seed: study.trained(f"seed_{seed}", [f"seed={seed}"])),
                    study.lenses)  # fmt: skip


def psf(study: Study) -> None:
    """Tell the network a wrong PSF."""
    for name, factor in (("true FWHM", 1.0), ("FWHM - 10 %", 0.9), ("FWHM + 10 %", 1.1)):
        believed = type("BelievedPSF", (OtherPSF,), {"factor": factor})
        study.judge(name, both(lambda: load_run(study.run)), lambda believed=believed: study.lenses(file=believed))


def varied(study: Study) -> None:
    """Judge the network of the varied recipe."""
    study.judge("as trained", both(lambda: load_run(study.run)), study.lenses)


def main() -> None:
    """Run one study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=list(DEFAULTS))
    parser.add_argument("run", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--images", type=int, help="of each class")
    parser.add_argument("--recipe", help="what the run was trained on")
    parser.add_argument("--train", type=Path, help="the recipe's training images, if they are simulated already")
    parser.add_argument("--set", action="append", default=[], help="of the trainings, as of lensphys train")
    parser.add_argument("--out", type=Path, default=HERE / "studies.json")
    parser.add_argument("--force", action="store_true", help="compute anew what stands in the file")
    arguments = parser.parse_args()
    studies = {"scales": scales, "sparsity": sparsity, "seeds": seeds, "psf": psf, "varied": varied}
    try:
        studies[arguments.study](Study(arguments))
    except LensphysError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
