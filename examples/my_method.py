"""A method of your own: anything with ``predict(observation, scale) -> Prediction``.

    python examples/my_method.py

Iterative back-projection (Irani & Peleg 1991): observe the image again, and put back what is missing. Judged on one
simulated lens beside bicubic interpolation and the fit; what it puts back is noise, too, and it loses to bicubic there.
To give it a name on the command line, put it into `READY` of ``lensphys/methods/__init__.py``; one that learns is a
`Trainable`.
"""

from dataclasses import dataclass

import torch

from lensphys.evaluation.metrics import flux_protocol
from lensphys.methods import READY
from lensphys.methods.interpolation import interpolate
from lensphys.observation import Observation
from lensphys.prediction import Prediction
from lensphys.simulation import Plan, Recipe
from lensphys.simulation.sample import render


@dataclass(frozen=True)
class BackProjection:
    """Bicubic interpolation, corrected until its pixels add up to the image."""

    rounds: int = 10

    def predict(self, observation: Observation, scale: int) -> Prediction:
        """Return images whose pixels are ``scale`` times as small."""
        camera = observation.camera
        image = interpolate(observation.image, scale, "bicubic")
        for _ in range(self.rounds):
            missing = observation.image - camera.reobserved(image)
            image = image + interpolate(missing, scale, "bilinear")
        return Prediction(image, camera.at(scale), camera.reobserved(image))


def main() -> None:
    plan = Plan.from_recipe(Recipe.named("model_2", ["height=48", "width=48"]), 1, classes=["no_sub"], seed=1)
    samples = render(plan.recipe, plan.build_engine(), [plan.drawn(0)])
    observation = plan.instrument.observation(torch.as_tensor(samples.lr))
    for name, method in {"bicubic": READY["bicubic"], "mine": BackProjection(), "fit": READY["fit"]}.items():
        psnr = flux_protocol(method.predict(observation, 2).image, torch.as_tensor(samples.hr_clean))["psnr_flux"]
        print(f"{name:8s} {float(psnr):.1f} dB")


if __name__ == "__main__":
    main()
