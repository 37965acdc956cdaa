"""Several images of one lens fitted together: a super-resolved image of each band, and a verdict on all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from pydantic import model_validator
from torch import Tensor

from lensphys.basics.settings import Strict
from lensphys.basics.threads import on_one_thread
from lensphys.fitting import LensFit, verdicts
from lensphys.fitting.joint_fit import Exposure, JointFit, JointRefinement, JointSettings
from lensphys.fitting.placement import PLACED
from lensphys.fitting.remains import Remains
from lensphys.fitting.source import Fitted
from lensphys.fitting.starts import significant_light
from lensphys.fitting.verdict import effective
from lensphys.methods.fit import RefinedFit
from lensphys.methods.lens_model import full_prediction
from lensphys.prediction import Prediction, Verdict


@dataclass(frozen=True)
class Row:
    """A number that was found.

    Args:
        name: ``member.parameter``; of a band or an image, with its name before it.
        value: in ``unit``.
        error: its standard deviation, in ``unit``.
        unit: arcsec, flux and the like; empty where there is none.
    """

    name: str
    value: float
    error: float
    unit: str = ""


@dataclass(frozen=True)
class JointPrediction:
    """What several images of one lens say together.

    Args:
        bands: the super-resolved image of each band, on the pixels of its clearest exposure, and all that goes with it.
        leaders: the name of that exposure.
        first: the name of the image that placements and the mass are about the middle of.
        table: all parameters, those that images share once.
        chi2: per degree of freedom, of all images together.
        each: per degree of freedom, of each image by its name.
        verdict: on all of them.
        correlation: of the fields of two bands' sources, 0 to 1, by the evidence; None where there are not two.
        evidence: its natural logarithm, of all images together.
    """

    bands: dict[str, Prediction]
    leaders: dict[str, str]
    first: str
    table: list[Row]
    chi2: float
    each: dict[str, float]
    verdict: Verdict
    correlation: float | None
    evidence: float


class JointRefinedFit(Strict):
    """One lens in several images: what `RefinedFit` does for one.

    Args:
        fit: of one image.
        joint: of the others with it.
    """

    fit: RefinedFit = RefinedFit()
    joint: JointSettings = JointSettings()

    @model_validator(mode="after")
    def _in_one_frame(self) -> Self:
        source = self.fit.refinement.beyond.source
        if source is not None and source.frame != "still":
            raise ValueError("several images of a lens have their sources in one frame: 'frame' must be still")
        return self

    def fitted(self, images: Sequence[Exposure]) -> JointFit:
        """Return the joint fit.

        Raises:
            LensphysError: if the clearest image shows nothing, or one does not overlap with it.
        """
        with on_one_thread():
            return JointRefinement(self.fit.refinement, self.joint, self.fit.problem)(images)

    def prediction(self, fit: JointFit, scale: float) -> JointPrediction:
        """Return what a joint fit says, each band on pixels ``scale`` times as small."""
        with torch.no_grad():
            return self._told(fit, fit.views(), scale)

    def _told(self, fit: JointFit, views: list[Fitted], scale: float) -> JointPrediction:
        problem, names = fit.fitted.problem, [view.name for view in fit.fitted.problem.views]
        leaders = dict(zip(problem.bands, problem.leaders, strict=True))
        bands = {band: self._predicted(fit, views[i], scale) for band, i in leaders.items()}
        chi2, freedom = zip(*(_chi2(view) for view in views), strict=True)
        judged = [self._judged(fit, view) for view in views]
        correlated = len(bands) > 1 and problem.first.free is not None
        return JointPrediction(
            bands,
            {band: names[i] for band, i in leaders.items()},
            names[0],
            _table(fit, bands),
            sum(chi2) / max(sum(freedom), 1.0),
            {name: c / max(f, 1.0) for name, c, f in zip(names, chi2, freedom, strict=True)},
            together(dict(zip(names, judged, strict=True))),
            problem.correlation if correlated else None,
            float(fit.fitted.evidence),
        )

    def _predicted(self, fit: JointFit, view: Fitted, scale: float) -> Prediction:
        first = fit.first
        alone = LensFit([(torch.zeros(1, dtype=torch.long), view)], _seen(view), first.smooth_theta_E, first.rival)
        return full_prediction(alone, scale, self.fit.report)

    def _judged(self, fit: JointFit, view: Fitted) -> Verdict:
        return verdicts(view, _seen(view), fit.first.smooth_theta_E, self.fit.report.verdict, fit.first.rival)[0]


def _seen(view: Fitted) -> Tensor:
    return significant_light(view.problem)[1]


def together(judged: dict[str, Verdict]) -> Verdict:
    """Return the verdict on several images of one lens: the worst, with the reasons of all, and whose they are.

    Args:
        judged: the verdict on each image by its name.

    Example:
        >>> together({"a": Verdict("good"), "b": Verdict("bad", ("chi^2 per degree of freedom is 7.1",))}).reasons
        ('b: chi^2 per degree of freedom is 7.1 (is it of the same lens, and is its PSF its own?)',)
    """
    quality = next(q for q in ("bad", "suspect", "good") if q in {v.quality for v in judged.values()} or q == "good")
    reasons = dict.fromkeys(reason for verdict in judged.values() for reason in verdict.reasons)
    told: list[str] = []
    for reason in reasons:
        whose = [name for name, verdict in judged.items() if reason in verdict.reasons]
        told += [reason] if len(whose) == len(judged) else [f"{name}: {reason}{_asked(judged, name)}" for name in whose]
    return Verdict(quality, tuple(told))


def _asked(judged: dict[str, Verdict], name: str) -> str:
    """A question for the only bad image of several."""
    bad = [other for other, verdict in judged.items() if verdict.quality == "bad"]
    alone = bad == [name] and len(judged) > 1
    return " (is it of the same lens, and is its PSF its own?)" if alone else ""


def _chi2(view: Fitted) -> tuple[float, float]:
    """Chi^2 of an image, and its degrees of freedom."""
    chi2 = Remains.from_fit(view).residual.square().sum()
    return float(chi2), float(view.problem.observation.n_unmasked - effective(view))


def _table(fit: JointFit, bands: dict[str, Prediction]) -> list[Row]:
    """All parameters: of the mass, of each band with its name, and the placements of images."""
    problem = fit.fitted.problem
    rows: dict[str, Row] = {}
    for band, found in bands.items():
        mass = {f"{name}." for name in problem.first.model.mass}
        for name, error in found.errors.items():
            own = any(name.startswith(f"{member}.") for member in problem.first.model.source) or "lens_light" in name
            own = own or name.startswith("source_") or name == "magnification"
            shared = not own or any(name.startswith(m) for m in mass)
            key = f"{band}.{name}" if own and not shared and len(bands) > 1 else name
            row = Row(key, float(found.parameters[name]), float(error), found.units.get(name, ""))
            rows.setdefault(key, row)
    for view, (placement, errors) in list(zip(problem.views, fit.fitted.placements(), strict=True))[1:]:
        for i, (name, unit) in enumerate(PLACED.items()):
            if problem.sigma[i] > 0:
                key = f"{view.name}.{name}"
                rows[key] = Row(key, float(placement.numbers[0, i]), float(errors[i]), unit)
    return list(rows.values())
