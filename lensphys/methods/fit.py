"""The per-image fit: super-resolution with no training at all."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from lensphys.deflection import DeflectionField
from lensphys.fitting import fit_lens
from lensphys.fitting.lens import macro_lens, sersic_source
from lensphys.methods.prediction import Prediction
from lensphys.observation import Observation
from lensphys.settings import Strict

_PIXELS_AT_ONCE = 400_000  # image pixels times starts; the Jacobian of 14 parameters is what fills the memory


class PerImageFit(Strict):
    """SIE + shear + Sersic fitted to each image through tracing and observation: see `fitting.fit_lens`.

    Args:
        starts: how many starts are optimised for each image.
        steps: at most so many Levenberg-Marquardt steps a start.
    """

    name: Literal["fit"] = "fit"
    starts: PositiveInt = 4
    steps: PositiveInt = 60

    def predict(self, observation: Observation, scale: int) -> Prediction:
        """Return the fitted models, rendered on pixels ``scale`` times as small."""
        size = observation.camera.grid.height * observation.camera.grid.width * observation.camera.supersampling**2
        chunk = max(1, _PIXELS_AT_ONCE // (size * self.starts))
        rows = torch.arange(len(observation), device=observation.image.device)
        fits = [fit_lens(observation[r], starts=self.starts, steps=self.steps) for r in rows.split(chunk)]
        values = {name: torch.cat([f.values[name] for f in fits]) for name in fits[0].values}
        cosine = torch.cat([f.gradient_norm for f in fits]).to(observation.image)
        prediction = render(values, observation, scale, {"gradient_norm": cosine})
        seen = torch.cat([f.seen for f in fits])
        prediction.parameters["theta_E"] = torch.where(seen, values["theta_E"], torch.nan)
        return prediction


def render(values: dict[str, Tensor], observation: Observation, scale: int, more: dict[str, Tensor]) -> Prediction:
    """Return the prediction of named SIE + shear + Sersic parameters, each (B,)."""
    camera = observation.camera.at(scale)
    mass, source = macro_lens(values), sersic_source(values)
    centre = torch.stack([values["center_x"], values["center_y"]], dim=1)
    field = DeflectionField.of(mass, camera.grid, like=observation.image, centre=centre)
    return Prediction(
        camera.render(source, field),
        camera,
        observation.camera.render(source, field),
        field,
        source,
        values | more,
        len(values),
    )
