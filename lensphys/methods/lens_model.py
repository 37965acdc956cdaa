"""From a fitted lens to a super-resolved image, with what the model leaves over and how sure it is."""

from __future__ import annotations

from dataclasses import replace

import torch

from lensphys.deflection import DeflectionField
from lensphys.fitting import FieldPriors, LensFit
from lensphys.fitting.leftover import leftover
from lensphys.fitting.posterior import Posterior
from lensphys.fitting.problem import EMPTY
from lensphys.methods.prediction import Prediction


def smooth_prediction(fit: LensFit, scale: float) -> Prediction:
    """Return the model alone, on pixels ``scale`` times as small."""
    problem, state = fit.problem, fit.state
    observation, model = problem.observation, problem.model(state)
    camera = observation.camera.at(scale)
    values = model.values
    centre = torch.stack([values["center_x"], values["center_y"]], dim=1)
    field = DeflectionField.of(model.mass, camera.grid, like=observation.image, centre=centre)
    values = values | {"gradient_norm": fit.gradient_norm.to(observation.image)}
    values["theta_E"] = torch.where(fit.seen, values["theta_E"], torch.nan)
    return Prediction(
        camera.render(model.source, field),
        camera,
        problem.render(state),
        field,
        model.source,
        values,
        state.macro.shape[1],
    )


def full_prediction(
    fit: LensFit, scale: float, *, undetected: float, priors: FieldPriors, quick: bool = False
) -> Prediction:
    """Return the model, what of the residual is signal, and the standard deviation of the sum.

    Args:
        fit: state and problem.
        scale: pixels become so many times as small.
        undetected: see `Posterior.undetected`.
        priors: of the fields, for the map of what the data constrain.
        quick: the standard deviation of the model is computed on the image's own pixels and interpolated.
    """
    problem, state = fit.problem, fit.state
    smooth = smooth_prediction(fit, scale)
    camera = smooth.camera
    rest = leftover(problem.observation, smooth.observed)
    signal, spread = rest.upsampled(problem.observation, camera.grid)
    judged = problem.observation.camera.at(1) if quick else camera
    posterior = Posterior.about(problem, state, judged)
    variance = posterior.laplace() + posterior.undetected(undetected)
    if quick:
        variance = replace(problem.observation, image=variance.sqrt()).interpolated(camera.grid, mode="bilinear") ** 2
    subhalos = (state.subhalos[:, :, 0] > EMPTY).sum(1)
    return Prediction(
        smooth.image + signal,
        camera,
        smooth.observed,
        smooth.deflection,
        smooth.source,
        smooth.parameters | {"subhalos": subhalos.to(signal)},
        smooth.fitted + 3 * subhalos,
        sigma=(variance + spread.square()).sqrt(),
        constrained=posterior.constrained(priors, camera.grid),
    )
