"""Empirical Bayes: learn the prior of a survey's potential field from its LR images, and write it as JSON.

    python experiments/amortised/learn_prior.py model_3 experiments/amortised/prior_model_3.json

The images are the first of each class of the training set (recipe, seed 1). The values stand in model_*.yaml.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from lensphys.basics.outputs import write_json
from lensphys.basics.provenance import provenance
from lensphys.data.lens_file import LensFile
from lensphys.fitting import FieldPriors, fit_lens
from lensphys.fitting.survey import learned_potential
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.writer import simulate


def main() -> None:
    """Simulate, fit, learn, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("out", type=Path)
    parser.add_argument("-n", type=int, default=16, help="images of each class")
    parser.add_argument("--rounds", type=int, default=3, help="of expectation maximisation")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = simulate(Recipe.named(arguments.recipe, []), arguments.n, Path(folder) / "images.h5", seed=1)
        with LensFile(path) as lenses:
            fit = fit_lens(lenses.observation(np.arange(len(lenses.labels))))
    prior = learned_potential(fit.groups[0][1], FieldPriors(), rounds=arguments.rounds)
    origin = provenance(recipe=arguments.recipe, n=arguments.n, rounds=arguments.rounds)
    write_json(arguments.out, {"provenance": origin, "potential": prior.model_dump()})
    print(prior)


if __name__ == "__main__":
    main()
