"""Empirical Bayes: the prior of the source's field that the LR images of a survey are most likely under.

    python experiments/any_source/learn_prior.py DATA.h5 -o experiments/any_source/prior_NAME.json [--limit 16]

Each image is fitted with a free source; about its optimum the evidence of every prior of a grid is computed, and the
sum over the images says which amplitude, scale and slope the survey's galaxies have. About 10 s an image on one thread.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import torch

from lensphys.basics.outputs import write_json
from lensphys.basics.provenance import provenance
from lensphys.data.lens_file import LensFile
from lensphys.fitting import FreeSourceSettings, LensProblem, freed
from lensphys.fitting.evidence import prior_evidence
from lensphys.fitting.smooth import smooth_fit
from lensphys.model import SourcePrior

AMPLITUDES, SCALES, SLOPES = (0.3, 0.6, 0.9, 1.2, 1.8, 2.4), (3.0, 6.0, 12.0, 24.0), (1.5, 2.0, 2.5, 3.0, 3.5)


def main() -> None:
    """Fit, sum the evidence, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--class-name", default="no_sub", help="whose images; substructure would pass for structure")
    parser.add_argument("--limit", type=int, default=16)
    arguments = parser.parse_args()
    priors = tuple(SourcePrior(amplitude=a, scale=k, slope=p) for a, k, p in product(AMPLITUDES, SCALES, SLOPES))
    found = []
    with LensFile(arguments.data) as lenses, torch.no_grad():
        label = lenses.classes.index(arguments.class_name)
        rows = np.flatnonzero(lenses.labels == label)[: arguments.limit]
        for row in rows.tolist():
            smooth = smooth_fit(LensProblem.from_observation(lenses.observation([row])))
            fit = freed(smooth.problem, smooth.x, FreeSourceSettings(modes=(10, 16, 24)))[-1]
            found.append(prior_evidence(fit.problem, fit.x, priors)[0].tolist())
            best = priors[int(np.argmax(found[-1]))]
            print(f"image {row}: amplitude {best.amplitude}, scale {best.scale}, slope {best.slope}", flush=True)
        name, identity = arguments.data.name, lenses.identity
    total = np.sum(found, axis=0)
    order = np.argsort(total)[::-1]
    survey = [priors[i].model_dump() | {"evidence": float(total[i] - total[order[0]])} for i in order[:10]]
    images = [priors[int(np.argmax(f))].model_dump() for f in found]
    origin = provenance(data=name, identity=identity, images=len(found))
    write_json(arguments.out, {"provenance": origin, "survey": survey, "images": images})
    print(survey[0])


if __name__ == "__main__":
    main()
