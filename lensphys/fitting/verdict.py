"""What a fit says about itself: whether its numbers can be trusted, and why not."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor

from lensphys.basics.settings import Strict
from lensphys.fitting.newton import factored
from lensphys.fitting.posterior import Posterior
from lensphys.fitting.source import Fitted
from lensphys.observation.darkness import SEEN
from lensphys.observation.sky import sky_level
from lensphys.prediction import Verdict


class VerdictSettings(Strict):
    """Where a fit is suspect or bad.

    Args:
        scatter: sigma of chi^2 about its expectation: beyond it something is left, or the errors are wrong.
        bad_chi2: chi^2 per degree of freedom above which a fit is bad.
        overstated: chi^2 per degree of freedom below which the errors are called too large.
        correlation: of neighbouring residuals, beyond its own scatter, above which they are not white.
        sky: mean of the residuals outside of the arcs, in units of a pixel's noise, that is called a sky level.
        borders: Einstein radii between a lens and the borders beyond which these show the sky and no arcs.
        edge: share of a parameter's range next to a bound that counts as the bound.
        gain: what a sub-halo must gain in ln likelihood with all else free.
        theta_E: by how much the Einstein radii of all mass and of the smooth fit may differ.
        covered: share of the arc's light that must be inside the mask.
        centre: of the Einstein radius: where no bright image of the source can be.
        unlensed: sigma of the light there that the model does not explain.
    """

    scatter: PositiveFloat = 3.0
    bad_chi2: PositiveFloat = 1.5
    overstated: PositiveFloat = 0.85
    correlation: PositiveFloat = 0.1
    sky: PositiveFloat = 0.2
    borders: PositiveFloat = 2.2
    edge: PositiveFloat = 0.01
    gain: PositiveFloat = 12.0
    theta_E: PositiveFloat = 0.1
    covered: PositiveFloat = 0.5
    centre: PositiveFloat = 0.35
    unlensed: PositiveFloat = 5.0


@dataclass(frozen=True)
class _Look:
    """What the checks look at, all of images that share a model.

    Args:
        fitted: the fit.
        residual: in units of the noise, (B, 1, H, W), 0 where masked.
        clean: the model without the light of the lens, (B, 1, H, W) [flux per pixel].
        arc: 1 where the model is bright, (B, 1, H, W).
    """

    fitted: Fitted
    residual: Tensor
    clean: Tensor
    arc: Tensor

    @property
    def sky(self) -> Tensor:
        """1 where pixels count and no arc is near, (B, 1, H, W)."""
        return (self.residual != 0) * (1 - F.max_pool2d(self.arc, 5, stride=1, padding=2))


def verdicts(
    fitted: Fitted, seen: Tensor, smooth_theta_E: Tensor, settings: VerdictSettings = VerdictSettings()
) -> list[Verdict]:
    """Return the verdict on each image.

    Args:
        fitted: images that share a model.
        seen: whether anything stands out of the noise, (B,).
        smooth_theta_E: Einstein radius of the smooth fit with a Sersic, (B,) [arcsec].
        settings: the thresholds.
    """
    problem, x = fitted.problem, fitted.x
    clean = problem.render(x)
    observation, front = problem.observation, problem.light_in_front(x)
    sigma = observation.noise.variance(clean).sqrt()
    residual = (observation.image - observation.noise.expected(clean)) / sigma * observation.weight
    clean = clean if front is None else clean - front
    arc = (clean * problem.inverse_sigma > 1).to(clean) * problem.observation.weight
    look = _Look(fitted, residual, clean, arc)
    found = _listed(~seen, "bad", [f"nothing stands {SEEN:g} sigma out of the noise"] * len(x))
    for check in (_chi2, _white, _sky, _bounds, _bodies, _covered, _centre):
        found = _plus(found, check(look, settings))
    return [_worst(mine) for mine in _plus(found, _radii(look, smooth_theta_E, settings))]


def _worst(found: list[tuple[str, str]]) -> Verdict:
    reasons = tuple(reason for _, reason in found)
    if any(level == "bad" for level, _ in found):
        return Verdict("bad", reasons)
    return Verdict("suspect", reasons) if found else Verdict("good")


def effective(fitted: Fitted) -> Tensor:
    """Return how many numbers the data determine in each image, (B,): trace of J^T J (J^T J + priors)^-1."""
    precision = fitted.problem.prior_terms(fitted.x)[1]
    inverse = torch.cholesky_inverse(factored(fitted.end.hessian))
    return fitted.x.shape[1] - (torch.diagonal(inverse, dim1=1, dim2=2) * precision).sum(1)


Reasons = list[list[tuple[str, str]]]


def _listed(which: Tensor, level: str, words: list[str]) -> Reasons:
    return [[(level, word)] if flag else [] for flag, word in zip(which.tolist(), words, strict=True)]


def _plus(a: Reasons, b: Reasons) -> Reasons:
    return [x + y for x, y in zip(a, b, strict=True)]


def _chi2(look: _Look, settings: VerdictSettings) -> Reasons:
    problem = look.fitted.problem
    if not problem.observation.noise.known:
        return [[] for _ in range(len(problem))]
    freedom = (problem.observation.n_unmasked - effective(look.fitted)).clamp(min=1)
    chi2 = look.residual.square().sum((1, 2, 3)) / freedom
    words = [f"chi^2 per degree of freedom is {c:.2f}" for c in chi2.tolist()]
    bad = chi2 > settings.bad_chi2
    high = (chi2 - 1 > settings.scatter * (2 / freedom).sqrt()) & ~bad
    low = chi2 < settings.overstated
    return _plus(_listed(bad, "bad", words), _listed(high | low, "suspect", words))


def _white(look: _Look, settings: VerdictSettings) -> Reasons:
    """Neighbouring residuals: in the arc they show what the model lacks, in the sky that the noise is not white."""
    counted, sky = (look.residual != 0).to(look.residual), look.sky
    reasons: Reasons = [[] for _ in range(len(look.residual))]
    noise = "the noise is not white: neighbouring pixels of the sky correlate by"
    left = "something is left in the arcs: neighbouring residuals correlate by"
    shared = torch.zeros(len(reasons)).to(look.residual)
    for where, name in ((sky, noise), (look.arc * counted, left)):
        rho, spread = neighbour_correlation(look.residual, where)
        words = [f"{name} {r:.2f}" for r in rho.tolist()]
        much = rho > shared + settings.correlation + settings.scatter * spread
        reasons = _plus(reasons, _listed(much, "suspect", words))
        shared = rho.clamp(min=0)
    return reasons


def _sky(look: _Look, settings: VerdictSettings) -> Reasons:
    """The level of the sky: along the borders, where a source may stand in for it, and in what the model leaves."""
    observation = look.fitted.problem.arcs
    dark = observation.noise.expected(torch.zeros_like(observation.image))
    seen = (observation.image - dark, observation.weight.expand_as(dark) > 0, look.residual, look.sky > 0)
    reasons: Reasons = []
    planes = (x[:, 0].cpu().numpy() for x in seen)
    for far, image, counts, residual, where in zip(_far_borders(look, settings), *planes, strict=True):
        level, left = sky_level(image, counts), sky_level(residual, where, width=max(residual.shape))
        if far and level is not None and level.off:
            reasons.append([("suspect", f"the borders are not at zero ({level.told}): see --sky")])
        elif left is not None and abs(left.level) > max(settings.sky, settings.scatter * left.error):
            reasons.append([("suspect", f"the sky is not at zero: it is {left.level:+.2f} sigma off, see --sky")])
        else:
            reasons.append([])
    return reasons


def _far_borders(look: _Look, settings: VerdictSettings) -> list[bool]:
    """Whether the borders are so far out that arcs have no light there."""
    problem = look.fitted.problem
    name = f"{next(iter(problem.model.mass))}.theta_E"
    radius = problem.values(problem.parts(look.fitted.x)[0]).get(name, torch.zeros_like(problem.unit))
    return (settings.borders * radius < problem.observation.camera.grid.radius).tolist()


def neighbour_correlation(residual: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    """Return the correlation of neighbouring pixels among those chosen, and its scatter if there were none, (B,) each.

    Args:
        residual: (B, 1, H, W).
        where: 1 for pixels that are chosen, (B, 1, H, W).
    """
    x, w = residual * where, where
    pairs = (w[..., 1:] * w[..., :-1]).sum((1, 2, 3)) + (w[..., 1:, :] * w[..., :-1, :]).sum((1, 2, 3))
    product = (x[..., 1:] * x[..., :-1]).sum((1, 2, 3)) + (x[..., 1:, :] * x[..., :-1, :]).sum((1, 2, 3))
    power = x.square().sum((1, 2, 3)) / w.sum((1, 2, 3)).clamp(min=1)
    return product / (pairs * power).clamp(min=1e-30), pairs.clamp(min=1).rsqrt()


def _bounds(look: _Look, settings: VerdictSettings) -> Reasons:
    problem = look.fitted.problem
    fraction = torch.sigmoid(problem.parts(look.fitted.x)[0])
    envelope = "" if problem.free is None else f"{next(iter(problem.model.source))}."  # its field makes good for it
    at = (fraction < settings.edge) | (fraction > 1 - settings.edge)
    reasons: Reasons = []
    for row in at.tolist():
        names = [name for name, flag in zip(problem.model.names, row, strict=True) if flag]
        names = [name for name in names if not envelope or not name.startswith(envelope)]
        names = [name for name in names if not name.startswith("lens_light.")]  # a Gaussian may have no light
        level = "bad" if any(name.endswith("theta_E") for name in names) else "suspect"
        reasons.append([(level, f"at its bound: {', '.join(names)}")] if names else [])
    return reasons


def _bodies(look: _Look, settings: VerdictSettings) -> Reasons:
    if not look.fitted.problem.subhalos:
        return [[] for _ in range(len(look.residual))]
    gain = Posterior.from_fit(look.fitted).bodies()[:, :, 6]
    weak = (gain < settings.gain).sum(1)
    return _listed(weak > 0, "suspect", [f"{n} sub-halos gain less than {settings.gain:g}" for n in weak.tolist()])


def _covered(look: _Look, settings: VerdictSettings) -> Reasons:
    weight = look.fitted.problem.observation.weight
    share = (look.clean * weight).sum((1, 2, 3)) / look.clean.sum((1, 2, 3)).clamp(min=1e-30)
    words = [f"only {100 * s:.0f} % of the arc's light is inside the mask" for s in share.tolist()]
    return _listed(share < settings.covered, "suspect", words)


def _centre(look: _Look, settings: VerdictSettings) -> Reasons:
    problem = look.fitted.problem
    values, grid = problem.values(problem.parts(look.fitted.x)[0]), problem.observation.camera.grid
    name = next(iter(problem.model.mass))
    at = torch.stack([values[f"{name}.center_x"], values[f"{name}.center_y"]], dim=1)[:, :, None, None]
    radius = settings.centre * values.get(f"{name}.theta_E", torch.full_like(problem.unit, 4 * grid.scale))
    near = (grid.positions(like=look.clean) - at).norm(dim=1, keepdim=True) < radius[:, None, None, None]
    inside = near.to(look.clean) * problem.observation.weight
    left = (look.residual * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3)).clamp(min=1).sqrt()
    image = (problem.arcs.image * problem.observation.weight).clamp(min=0)
    share = (image * inside).sum((1, 2, 3)) / image.sum((1, 2, 3)).clamp(min=1e-30)
    unexplained = left > settings.unlensed
    bright = share > 0.5
    words = ["light in the middle of the lens that is not lensed: is the lens galaxy still there?"] * len(share)
    return _plus(_listed(unexplained & ~bright, "suspect", words), _listed(bright, "bad", words))


def _radii(look: _Look, smooth: Tensor, settings: VerdictSettings) -> Reasons:
    problem = look.fitted.problem
    name = next(iter(problem.model.mass))
    full = problem.values(problem.parts(look.fitted.x)[0]).get(f"{name}.theta_E")
    if full is None:
        return [[] for _ in range(len(smooth))]
    apart = full / smooth - 1
    words = [f"theta_E differs by {100 * a:+.0f} % from a smooth lens with a Sersic" for a in apart.tolist()]
    return _listed(apart.abs() > settings.theta_E, "suspect", words)
