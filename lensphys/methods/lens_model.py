"""From a fitted lens to a super-resolved image, with what the model leaves over and how sure it is."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor

from lensphys.basics.settings import Strict
from lensphys.fitting import FieldPriors, Fitted, LensFit, Posterior, VerdictSettings, verdicts
from lensphys.fitting.derived import DERIVED, derived, derived_errors
from lensphys.fitting.leftover import residual_signal
from lensphys.fitting.problem import LensProblem
from lensphys.fitting.verdict import effective
from lensphys.model import centre_of
from lensphys.observation import Camera
from lensphys.prediction import BODY, Prediction, Verdict, joined
from lensphys.tracing.deflection import DeflectionField


class Report(Strict):
    """What a fit tells beside its image.

    Args:
        unresolved_subhalos: see `Posterior.unresolved_subhalo_variance`; by calibration on simulated lenses.
        priors: of the potential, for the map of what the data constrain.
        spread: see `Posterior`; by calibration on simulated lenses with real galaxies.
        arc: see `Posterior`.
        reach: see `residual_signal`.
        verdict: where a fit is suspect or bad.
        false_alarms: sub-halos claimed in a lens that has none, by calibration: `experiments/any_source/table.json`.
    """

    unresolved_subhalos: NonNegativeFloat = 0.25
    spread: PositiveFloat = 1.05
    arc: PositiveFloat = 0.05
    reach: NonNegativeInt = 2
    priors: FieldPriors = FieldPriors()
    verdict: VerdictSettings = VerdictSettings()
    false_alarms: NonNegativeFloat = 0.015


def smooth_prediction(fit: LensFit, scale: float) -> Prediction:
    """Return the models alone, on pixels ``scale`` times as small."""
    parts = [_model(group, fit.seen[rows], scale) for rows, group in fit.groups]
    return joined(parts, [rows for rows, _ in fit.groups])


def full_prediction(fit: LensFit, scale: float, report: Report) -> Prediction:
    """Return the models, what of the residuals is signal, the standard deviation of the sum, errors and verdicts."""
    parts = []
    for rows, group in fit.groups:
        whole = _reported(group, _model(group, fit.seen[rows], scale), report)
        left_out = torch.zeros_like(whole.numbers["noise_scale"]) if fit.left_out is None else fit.left_out[rows]
        numbers = whole.numbers | {"left_out": left_out}
        parts.append(replace(whole, numbers=numbers, verdicts=_judged(fit, rows, group, report)))
    return joined(parts, [rows for rows, _ in fit.groups])


def quick_prediction(fit: LensFit, scale: float, report: Report) -> Prediction:
    """Return the models, what of the residuals is signal, verdicts, and the standard deviation by interpolation.

    Whether the PSF is right, and whether galaxies would do, is not asked: that takes as long as all the rest.
    """
    sure = {"psf": None, "without_lens": None}
    quick = report.model_copy(update={"verdict": report.verdict.model_copy(update=sure)})
    parts = []
    for rows, group in fit.groups:
        model, posterior = _model(group, fit.seen[rows], scale), Posterior.from_fit(group, arc=report.arc)
        observation = group.problem.observation
        own = observation.camera.at(1)
        variance = posterior.whole_variance(own, report.unresolved_subhalos)
        spread = replace(observation, image=variance.sqrt()).interpolated(model.camera.grid, mode="bilinear")
        whole = _completed(group, model, posterior, spread.square(), report)
        parts.append(replace(whole, verdicts=_judged(fit, rows, group, quick)))
    return joined(parts, [rows for rows, _ in fit.groups])


def _model(group: Fitted, seen: Tensor, scale: float) -> Prediction:
    """The model alone, of images that share one."""
    problem, observation = group.problem, group.problem.observation
    lens, camera = problem.seen_lens(group.x), observation.camera.at(scale)
    name = problem.model.main
    centre = centre_of(lens.values, name)
    if problem.placement is not None:
        centre = problem.placement.image(centre[:, :, None, None])[:, :, 0, 0]
    field = DeflectionField.from_lens(lens.mass, camera.grid, like=observation.image, centre=centre)
    none = torch.full_like(problem.unit, torch.nan)
    numbers = {"noise_scale": problem.inflation.sqrt()}
    if group.shown is not None:
        numbers |= {"best_gain": group.shown.gain, "substructure_evidence": group.shown.ratio.to(none)}
    theta_E = torch.where(seen, lens.values.get(f"{name}.theta_E", none), torch.nan)
    fitted, observed = effective(group).to(observation.image), problem.shown(group.x)
    front = problem.light_in_front(group.x)
    noise = observation.renewed(observed).sigma(observed) * problem.inflation.clamp(max=1).sqrt()[:, None, None, None]
    return Prediction(
        lens.seen_by(camera, like=observation.image) + _broad_light(problem, group.x, camera),
        camera,
        observed,
        field,
        lens.source,
        lens.values | {"theta_E": theta_E},
        fitted,
        units=problem.model.units | {"theta_E": "arcsec"} | DERIVED,
        lens_light=torch.zeros_like(observed) if front is None else front,
        noise=noise,
        numbers=numbers,
    )


def _broad_light(problem: LensProblem, x: Tensor, camera: Camera) -> Tensor | float:
    """The broad light on the pixels of a camera: it is smooth, so it is interpolated."""
    if problem.broad is None:
        return 0.0
    broad = problem.broad_light(problem.render(x))
    return replace(problem.observation, image=broad).interpolated(camera.grid)


def _completed(group: Fitted, model: Prediction, posterior: Posterior, variance: Tensor, report: Report) -> Prediction:
    """The model with what is left over, its standard deviation, and the errors of its parameters."""
    problem = group.problem
    rest = residual_signal(problem.observation, model.observed, report.reach)
    signal, spread = rest.upsampled(problem.observation, model.camera.grid)
    errors = posterior.errors()
    main = f"{problem.model.main}.theta_E"
    if main in errors:
        errors["theta_E"] = errors[main]
    bodies = posterior.bodies() if problem.subhalos else model.image.new_zeros(len(model.image), 0, len(BODY))
    count = torch.full_like(problem.unit, problem.subhalos)
    counts = {"subhalos": count, "false_subhalos": torch.full_like(count, report.false_alarms)}
    return replace(
        model,
        image=model.image + signal,
        numbers=model.numbers | counts,
        sigma=(variance + spread.square()).sqrt(),
        constrained=posterior.constrained(report.priors, model.camera.grid),
        errors=errors,
        covariance=posterior.covariance(),
        bodies=bodies,
    )


def _judged(fit: LensFit, rows: Tensor, group: Fitted, report: Report) -> list[Verdict]:
    """The verdicts on images that share a model."""
    found = verdicts(group, fit.seen[rows], fit.smooth_theta_E[rows], report.verdict, fit.rival.rows(rows))
    return [verdict.doubted(*fit.doubts.get(row, ())) for verdict, row in zip(found, rows.tolist(), strict=True)]


def _reported(group: Fitted, model: Prediction, report: Report) -> Prediction:
    """Everything of images that share a model."""
    posterior = Posterior.from_fit(group, report.spread, report.arc)
    variance = posterior.whole_variance(model.camera, report.unresolved_subhalos)
    whole = _completed(group, model, posterior, variance, report)
    return replace(
        whole,
        parameters=whole.parameters | derived(group.problem, group.x),
        numbers=whole.numbers | {"evidence": group.evidence.to(model.image)},
        errors=whole.errors | derived_errors(posterior),
    )
