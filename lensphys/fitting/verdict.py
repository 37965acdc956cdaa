"""What a fit says about itself: whether its numbers can be trusted, and why not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from lensphys.basics.sentences import counted, readable
from lensphys.basics.settings import Strict
from lensphys.fitting.compared import seen_twice
from lensphys.fitting.newton import Stop
from lensphys.fitting.posterior import Posterior
from lensphys.fitting.psf_moments import PSFMoments, optimum, promised
from lensphys.fitting.remains import Remains, significant
from lensphys.fitting.source import Fitted, Rival
from lensphys.fitting.without_lens import WithoutLens
from lensphys.model import centre_of
from lensphys.observation.darkness import Darkness
from lensphys.observation.kernel import star_fwhm
from lensphys.observation.sky import darkest_border, sky_level
from lensphys.prediction import Verdict
from lensphys.tracing.derivatives import weighted_slopes

Array = NDArray[Any]


class PSFCheck(Strict):
    """When a PSF is told to be off.

    Args:
        moments: how far it may be.
        gain: ln of the evidence that another width or elongation must promise,
        share: and of what the fit leaves beyond the noise: of whatever else is wrong a PSF takes a part, too.
        steps: in which its width is found then,
        fall: of the cost in a step, below which no more are taken,
        off: and the share of its width by which it must be off; half of that must show in the first step.
    """

    moments: PSFMoments = PSFMoments()
    gain: PositiveFloat = 12.0
    share: PositiveFloat = 0.25
    steps: PositiveInt = 8
    fall: PositiveFloat = 0.5
    off: NonNegativeFloat = 0.05


class VerdictSettings(Strict):
    """Where a fit is suspect or bad.

    Args:
        scatter: sigma of chi^2 about its expectation: beyond it something is left, or the errors are wrong.
        bad_chi2: chi^2 per degree of freedom above which a fit is bad.
        overstated: chi^2 per degree of freedom below which the errors are called too large.
        shared: by how much the variance of 3 x 3 means of the sky may differ from the error map's, where a pixel's is
            below ``overstated``, for an error map that counts what neighbours share.
        shared_scatter: so many times the scatter of white noise is what chi^2 may have there.
        outlier: sigma beyond which a pixel of the sky counts as so many.
        correlation: of neighbouring residuals, beyond its own scatter, above which they are not white.
        sky: in units of a pixel's noise, what is called a sky level: of the residuals' mean outside of the arcs, and of
            a constant that the image would take beside the model.
        borders: Einstein radii between a lens and the borders beyond which these show the sky and no arcs.
        near_borders: in units of a pixel's noise, the light in the darkest part of nearer borders that is called a sky.
        edge: share of a parameter's range next to a bound that counts as the bound.
        gain: what a sub-halo must gain in ln likelihood with all else free.
        psf: when a PSF is told to be off; null to believe it.
        theta_E: by how much the Einstein radii of all mass and of the smooth fit may differ.
        shear: external shear above which a lens is hardly a galaxy.
        cut_off: share of the Einstein ring that may be beyond the borders of the image.
        ellipticity: (1 - q) / (1 + q) of the mass, likewise: 0.5 is an axis ratio q of a third.
        rival: ln evidence by which another lens, with an Einstein radius that differs as much, must be less likely.
        twice: share of the arcs' light of which the source has a second image, below which hardly anything is lensed.
        covered: share of the arc's light that must be inside the mask.
        centre: of the Einstein radius: where no bright image of the source can be.
        unlensed: sigma of the light there that the model does not explain.
        resolved: Einstein radius of a lens with its galaxy below which the PSF hides the arcs [its FWHM].
        without_lens: when galaxies explain an image without a lens; null to believe that it shows arcs.
    """

    scatter: PositiveFloat = 3.0
    bad_chi2: PositiveFloat = 1.5
    overstated: PositiveFloat = 0.85
    shared: PositiveFloat = 0.3
    shared_scatter: PositiveFloat = 3.0
    outlier: PositiveFloat = 4.0
    correlation: PositiveFloat = 0.1
    sky: PositiveFloat = 0.2
    borders: PositiveFloat = 2.2
    near_borders: PositiveFloat = 1.0
    edge: PositiveFloat = 0.01
    gain: PositiveFloat = 12.0
    psf: PSFCheck | None = PSFCheck()
    theta_E: PositiveFloat = 0.1
    shear: PositiveFloat = 0.2
    cut_off: PositiveFloat = 0.33
    ellipticity: PositiveFloat = 0.5
    rival: PositiveFloat = 30.0
    twice: PositiveFloat = 0.3
    covered: PositiveFloat = 0.5
    centre: PositiveFloat = 0.35
    unlensed: PositiveFloat = 5.0
    resolved: PositiveFloat = 1.5
    without_lens: WithoutLens | None = WithoutLens()

    def with_search(self, gain: float, moments: PSFMoments | None) -> VerdictSettings:
        """Return those beside a search for sub-halos that must gain so much, and a PSF that may be so far off."""
        check = self.psf
        psf = None if check is None or moments is None else check.model_copy(update={"moments": moments})
        return self.model_copy(update={"gain": gain, "psf": psf})


def verdicts(
    fitted: Fitted,
    seen: Tensor,
    smooth_theta_E: Tensor,
    settings: VerdictSettings = VerdictSettings(),
    rival: Rival | None = None,
) -> list[Verdict]:
    """Return the verdict on each image.

    Args:
        fitted: images that share a model.
        seen: whether anything stands out of the noise, (B,).
        smooth_theta_E: Einstein radius of the smooth fit with a Sersic, (B,) [arcsec].
        settings: the thresholds.
        rival: the best other lens that was found, if any was looked for.
    """
    look = Remains.from_fit(fitted)
    found = _listed(~seen, "bad", [f"nothing stands {Darkness().seen:g} sigma out of the noise"] * len(fitted.x))
    for check in (
        _chi2,
        _white,
        _sky,
        _bounds,
        _bodies,
        _psf,
        _shear,
        _ellipticity,
        _beyond,
        _twice,
        _covered,
        _centre,
        _resolved,
    ):
        found = _plus(found, check(look, settings))
    found = _plus(found, _unlensed(look, seen, settings))
    found = _plus(found, _radii(look, smooth_theta_E, settings))
    return [_worst(mine) for mine in (found if rival is None else _plus(found, _rivals(look, rival, settings)))]


def _worst(found: list[tuple[str, str]]) -> Verdict:
    reasons = tuple(reason for _, reason in found)
    if any(level == "bad" for level, _ in found):
        return Verdict("bad", reasons)
    return Verdict("suspect" if any(level == "suspect" for level, _ in found) else "good", reasons)


def effective(fitted: Fitted) -> Tensor:
    """Return how many numbers the data determine in each image, (B,): trace of J^T J (J^T J + priors)^-1."""
    broad = 0 if fitted.problem.filter is None else fitted.problem.filter.fitted
    if fitted.determined is not None:
        return fitted.determined + broad
    precision = fitted.problem.prior_terms(fitted.x)[1]
    inverse = fitted.end.normal.covariance
    return fitted.x.shape[1] - (torch.diagonal(inverse, dim1=1, dim2=2) * precision).sum(1) + broad


Reasons = list[list[tuple[str, str]]]
_RING = 90  # places along it that are asked whether they are in the image
_NOTE = "note"  # what is to be known of a good fit, too


def _listed(which: Tensor, level: str, words: list[str]) -> Reasons:
    return [[(level, word)] if flag else [] for flag, word in zip(which.tolist(), words, strict=True)]


def _plus(a: Reasons, b: Reasons) -> Reasons:
    return [x + y for x, y in zip(a, b, strict=True)]


def _chi2(look: Remains, settings: VerdictSettings) -> Reasons:
    problem = look.fitted.problem
    if not problem.observation.noise.known:
        return [[] for _ in range(len(problem))]
    freedom = (problem.observation.n_unmasked - effective(look.fitted)).clamp(min=1)
    chi2, sky = look.residual.square().sum((1, 2, 3)) / freedom, _sky_noise(look, settings)
    told = zip(chi2.tolist(), sky.pixel.tolist(), sky.shared.tolist(), strict=True)
    scaled = problem.inflation.sqrt().reciprocal()
    whose = ["the scaled noise map" if x > 1.005 else "the noise map" for x in scaled.tolist()]
    words = [_chi2_in_words(*of, settings.overstated, name) for of, name in zip(told, whose, strict=True)]
    times = [f"{x:.2g} times" for x in sky.pixel.clamp(min=1e-9).rsqrt().tolist()]
    right = [f"{name} is {factor} too large for one pixel, but right for 3 x 3 that share their noise"
             for name, factor in zip(whose, times, strict=True)]  # fmt: skip
    bad = chi2 > settings.bad_chi2
    low = chi2 < settings.overstated
    chi2 = torch.where(sky.shared, chi2 / sky.pixel, chi2)
    # errors of what neighbours share are right within some percent only
    allowed = settings.scatter * torch.where(sky.shared, settings.shared_scatter, 1.0)
    high = significant(chi2, freedom, allowed) & ~bad
    wrong = high | (chi2 < settings.overstated)
    scaling = [f"the noise map is {x:.2g} times too large by the sky: it was scaled to it" for x in scaled.tolist()]
    much = scaled.square().reciprocal() < settings.overstated
    found = _plus(_listed(much, _NOTE, scaling), _listed(bad, "bad", words))
    return _plus(_plus(found, _listed(wrong, "suspect", words)), _listed(low & ~wrong & ~bad, _NOTE, right))


def _chi2_in_words(chi2: float, pixel: float, shared: bool, overstated: float, noise: str) -> str:
    """What chi^2 per degree of freedom is, and of a low one why.

    Args:
        chi2: of the image.
        pixel: of a pixel of the sky: its variance over the error map's.
        shared: whether the error map counts what neighbours share.
        overstated: below which the errors are called too large.
        noise: what the error map is called.
    """
    said = f"chi^2 per degree of freedom is {readable(chi2)}"
    if shared:
        return f"{said} where the sky's is {readable(pixel)}"
    if chi2 >= overstated:
        return said
    times = f"{max(chi2, 1e-9) ** -0.5:.2g} times too large"
    light = "" if 0 < pixel < overstated else " where the light is, or the fit takes noise for light"
    return f"{said}: {noise} is {times}{light}"


@dataclass(frozen=True)
class _SkyNoise:
    """The noise of the sky in units of the error map's variance, (B,) each.

    Args:
        pixel: of a pixel.
        shared: whether neighbours share it and the error map counts that: its errors are right for what is larger than
            a pixel, and too large for a pixel. So are those of many drizzled images.
    """

    pixel: Tensor
    shared: Tensor


def _sky_noise(look: Remains, settings: VerdictSettings) -> _SkyNoise:
    residual = look.residual.clamp(-settings.outlier, settings.outlier)
    whole = (F.avg_pool2d(look.sky, 3, stride=1) > 0.999).to(residual)
    count = whole.sum((1, 2, 3)).clamp(min=1)
    means = 9 * (F.avg_pool2d(residual, 3, stride=1).square() * whole).sum((1, 2, 3)) / count
    pixel = (residual.square() * look.sky).sum((1, 2, 3)) / look.sky.sum((1, 2, 3)).clamp(min=1)
    right = (means - 1).abs() < settings.shared + (18 / count).sqrt()  # and its own scatter
    white = neighbour_correlation(residual, look.sky)[0] < settings.correlation  # a map that is just too large
    return _SkyNoise(pixel, (pixel < settings.overstated) & right & (count > 100) & ~white)


def _white(look: Remains, settings: VerdictSettings) -> Reasons:
    """Neighbouring residuals: in the arc they show what the model lacks, in the sky that the noise is not white."""
    counted, sky = (look.residual != 0).to(look.residual), look.sky
    reasons: Reasons = [[] for _ in range(len(look.residual))]
    noise = "the noise is not white: neighbouring pixels of the sky correlate by"
    left = "something is left in the arcs: neighbouring residuals correlate by"
    shared, counts_it = torch.zeros(len(reasons)).to(look.residual), _sky_noise(look, settings).shared
    for where, name in ((sky, noise), (look.arc * counted, left)):
        rho, spread = neighbour_correlation(look.residual, where)
        words = [f"{name} {r:.2f}" for r in rho.tolist()]
        much = rho > shared + settings.correlation + settings.scatter * spread
        if where is sky:
            much = much & ~counts_it
        reasons = _plus(reasons, _listed(much, "suspect", words))
        shared = rho.clamp(min=0)
    return reasons


def _sky(look: Remains, settings: VerdictSettings) -> Reasons:
    """The level of the sky: along the borders, in what the model leaves, and in what a source stands in for."""
    above = look.fitted.problem.arcs.without_pedestal
    seen = (above.image, above.weight > 0, above.dark_sigma, look.residual, look.sky > 0)
    skies = [_Skies(*(x[i, 0].cpu().numpy() for x in seen)) for i in range(len(above))]
    far, beside = _far_borders(look, settings), [found.tolist() for found in sky_beside(look.fitted)]
    words = [sky.told(settings, *of) for sky, *of in zip(skies, far, *beside, strict=True)]
    return [[("suspect", f"{word}: see --sky")] if word else [] for word in words]


@dataclass(frozen=True)
class _Skies:
    """What an image shows of its sky.

    Args:
        image: without the light of the lens and what is dark, (H, W) [flux per pixel].
        counts: which pixels do, (H, W) bool.
        sigma: of the noise without light, (H, W) [flux per pixel].
        residual: in units of the noise, (H, W).
        outside: of the arcs, (H, W) bool.
    """

    image: Array
    counts: Array
    sigma: Array
    residual: Array
    outside: Array

    def told(self, settings: VerdictSettings, far: bool, beside: float, error: float) -> str:
        """Return what is wrong with the sky; nothing if nothing is.

        Args:
            settings: the thresholds.
            far: whether the borders show no arcs.
            beside: the constant that the image would take beside its model, in units of the noise; a rich source can
                take one, too: where the borders show none, it is no sky.
            error: of it.
        """
        level, left = sky_level(self.image, self.counts), sky_level(self.residual, self.outside, max(self.image.shape))
        if far and level is not None and level.off:
            return f"the borders are not at zero ({level.text})"
        if left is not None and abs(left.level) > max(settings.sky, settings.scatter * left.error):
            return f"the sky is not at zero: it is {left.level:+.2f} sigma off"
        darkest = darkest_border(self.image / self.sigma, self.counts)
        if darkest is not None and darkest > settings.near_borders:
            return f"the borders are not at zero: {darkest:+.1f} sigma where they are darkest, sky or a wide source"
        if far and level is not None and level.least_beyond(settings.scatter) < abs(beside) * level.scatter:
            return ""  # the borders would show it
        if abs(beside) > max(settings.sky, settings.scatter * error):
            return f"a sky of {beside:+.1f} sigma beside the model would explain the image better"
        return ""


def sky_beside(fitted: Fitted) -> tuple[Tensor, Tensor]:
    """Return the constant that an image would take beside its model, and its error, (B,) each.

    Both in units of a pixel's noise, the median of those that count. Of one step of all parameters and the constant
    together, from the optimum: a source that has grown over the whole image in place of a sky leaves this.

    Args:
        fitted: images that share a model.

    Source: Rao 1948 (the score test).
    """
    problem, x = fitted.problem, fitted.x
    if problem.model.lens_light:  # its widest Gaussians are a sky already
        return torch.zeros_like(problem.unit), torch.full_like(problem.unit, torch.inf)
    clean = problem.render(x)
    residual, weight = problem.whitened_rest(clean), problem.whitening(clean)
    sky = weight.flatten(1)
    sigma = torch.where(sky > 0, 1 / sky, torch.nan).nanmedian(1).values.double()
    shared = weighted_slopes(problem.sampled(1).render, x, weight.square()).double()
    solved = torch.cholesky_solve(shared[:, :, None], fitted.end.normal.factor)[:, :, 0]
    information = sky.double().square().sum(1) - (shared * solved).sum(1)
    score = (sky.double() * residual.double()).sum(1)
    told = information > 1e-3 * sky.double().square().sum(1)  # else the parameters make a sky as well
    known = torch.where(told, information, torch.inf)
    return score / known / sigma, torch.where(told, known.rsqrt() / sigma, torch.inf)


def _far_borders(look: Remains, settings: VerdictSettings) -> list[bool]:
    """Whether the borders are so far out that arcs have no light there."""
    problem = look.fitted.problem
    name = f"{problem.model.main}.theta_E"
    radius = look.values.get(name, torch.zeros_like(problem.unit))
    grid = problem.observation.camera.grid
    return (settings.borders * radius < 0.5 * min(grid.shape) * grid.scale).tolist()


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


def _bounds(look: Remains, settings: VerdictSettings) -> Reasons:
    problem = look.fitted.problem
    envelope = "" if problem.free is None else f"{next(iter(problem.model.source))}."  # its field makes good for it
    reasons: Reasons = []
    for names in problem.at_bounds(look.fitted.x, settings.edge):
        names = [name for name in names if not envelope or not name.startswith(envelope)]
        names = [name for name in names if not name.startswith("lens_light.")]  # a Gaussian may have no light
        level = "bad" if any(name.endswith("theta_E") for name in names) else "suspect"
        reasons.append([(level, f"at its bound: {', '.join(names)}")] if names else [])
    return reasons


def _bodies(look: Remains, settings: VerdictSettings) -> Reasons:
    if not look.fitted.problem.subhalos:
        return [[] for _ in range(len(look.residual))]
    gain = Posterior.from_fit(look.fitted).bodies()[:, :, 6]
    weak = (gain < settings.gain).sum(1)
    words = [f"{counted(n, 'sub-halo gains', 'sub-halos gain')} less than {settings.gain:g}" for n in weak.tolist()]
    return _listed(weak > 0, "suspect", words)


def _psf(look: Remains, settings: VerdictSettings) -> Reasons:
    """A PSF that is off: in place of sub-halos, or simply."""
    return [_psf_of(one, settings) for _, one in look.fitted.apart()]


def _psf_of(fit: Fitted, settings: VerdictSettings) -> list[tuple[str, str]]:
    if not fit.problem.observation.camera.psf.known:
        alone = fit.joint_evidence is None and not fit.problem.subhalos  # that none were looked for is said already
        return [] if alone else [("suspect", "no PSF is known")]
    if fit.psf_wider is not None:
        return [("suspect", f"{_other_psf(fit.psf_wider)} explains what sub-halos would")]
    check = settings.psf
    if check is None or fit.joint_evidence is not None or not fit.problem.observation.noise.known:
        return []
    fit = fit.where_fitted  # elsewhere it is at no optimum, and promises something with any PSF
    observation = fit.problem.observation
    left = 0.5 * float((fit.problem.chi2(fit.x) - 1) * observation.n_unmasked)
    off = check.moments.integrated(fit)
    if float(promised(fit, off)) < max(check.gain, check.share * left):
        return []
    for stop, least in ((Stop(1), 0.5 * check.off), (Stop(check.steps, fall=check.fall), check.off)):
        wider = check.moments.wider(optimum(off, stop))
        if float(wider.abs()) < least:
            return []
    if fit.problem.free is not None and float(wider) < 0:
        # the prior of a free source holds back what is sharp in it: a narrower PSF brings some of that back
        return [(_NOTE, f"{_other_psf(wider)}, or a sharper source, explains the image better")]
    return [("suspect", f"{_other_psf(wider)} explains the image better")]


def _other_psf(wider: Tensor) -> str:
    share = float(wider)
    return f"a PSF about {100 * abs(share):.0f} % {'wider' if share > 0 else 'narrower'} than said"


def _shear(look: Remains, settings: VerdictSettings) -> Reasons:
    """An external shear that galaxies do not have stands in for something else."""
    problem = look.fitted.problem
    values = look.values
    shear = [v.square() for name, v in values.items() if name.split(".")[-1] in ("gamma1", "gamma2")]
    size = sum(shear, torch.zeros_like(problem.unit)).sqrt()
    return _listed(size > settings.shear, "suspect", [f"the external shear is large: {s:.2f}" for s in size.tolist()])


def _ellipticity(look: Remains, settings: VerdictSettings) -> Reasons:
    """A mass as flat as that of no galaxy stands in for something else."""
    problem = look.fitted.problem
    values, main = look.values, problem.model.main
    none = torch.zeros_like(problem.unit)
    e = torch.hypot(values.get(f"{main}.e1", none), values.get(f"{main}.e2", none))
    words = [f"the mass is flatter than galaxies: its axis ratio is {q:.2f}" for q in ((1 - e) / (1 + e)).tolist()]
    return _listed(e > settings.ellipticity, "suspect", words)


def _beyond(look: Remains, settings: VerdictSettings) -> Reasons:
    """An Einstein ring of which the image shows too little to tell where the lens is."""
    problem = look.fitted.problem
    values = look.values
    radius = values.get(f"{problem.model.main}.theta_E")
    if radius is None or look.fitted.joint_evidence is not None:  # of several images one may show less
        return [[] for _ in range(len(problem))]
    theta, grid = problem.positions(problem.observation.camera.grid), problem.observation.camera.grid
    low, high = theta.amin((2, 3)) - grid.scale / 2, theta.amax((2, 3)) + grid.scale / 2
    angle = torch.arange(_RING, device=theta.device, dtype=theta.dtype) * (2 * math.pi / _RING)
    circle = torch.stack([angle.cos(), angle.sin()])
    ring = centre_of(values, problem.model.main)[:, :, None] + radius[:, None, None] * circle
    share = ((ring < low[:, :, None]) | (ring > high[:, :, None])).any(1).double().mean(1)
    words = [f"{100 * s:.0f} % of the Einstein ring is beyond the borders of the image" for s in share.tolist()]
    return _listed(share > settings.cut_off, "suspect", words)


def _twice(look: Remains, settings: VerdictSettings) -> Reasons:
    """A source with the shape of the arcs, in front of which the lens does next to nothing."""
    problem, x = look.fitted.problem, look.fitted.x
    if f"{problem.model.main}.theta_E" not in problem.values(x):
        return [[] for _ in range(len(problem))]
    share = seen_twice(problem, x, 0.0)
    words = [f"only {100 * s:.0f} % of the arcs' light has a second image" for s in share.tolist()]
    return _listed(share < settings.twice, "suspect", words)


def _covered(look: Remains, settings: VerdictSettings) -> Reasons:
    weight = look.fitted.problem.observation.weight
    share = (look.clean * weight).sum((1, 2, 3)) / look.clean.sum((1, 2, 3)).clamp(min=1e-30)
    words = [f"only {100 * s:.0f} % of the arc's light is in pixels that count" for s in share.tolist()]
    return _listed(share < settings.covered, "suspect", words)


def _centre(look: Remains, settings: VerdictSettings) -> Reasons:
    problem = look.fitted.problem
    inside = look.middle(settings.centre)
    image = (problem.arcs.image * problem.observation.weight).clamp(min=0)
    share = (image * inside).sum((1, 2, 3)) / image.sum((1, 2, 3)).clamp(min=1e-30)
    unexplained = look.left_in(inside) > settings.unlensed
    bright = share > 0.5
    words = ["light in the middle of the lens that is not lensed: is the lens galaxy still there?"] * len(share)
    return _plus(_listed(unexplained & ~bright, "suspect", words), _listed(bright, "bad", words))


def _resolved(look: Remains, settings: VerdictSettings) -> Reasons:
    """Arcs that the PSF blurs into the galaxy behind which they are."""
    problem = look.fitted.problem
    radius = look.values.get(f"{problem.model.main}.theta_E")
    if radius is None or not problem.model.lens_light:
        return [[] for _ in range(len(problem))]
    widths = radius / star_fwhm(problem.observation.camera, problem.unit)
    words = [
        f"theta_E is {w:.1f} widths of the PSF: its arcs and the galaxy's light blur into each other"
        for w in widths.tolist()
    ]
    return _listed(widths < settings.resolved, "suspect", words)


def _unlensed(look: Remains, seen: Tensor, settings: VerdictSettings) -> Reasons:
    """Images that show something, but no arc."""
    shown = zip(seen.tolist(), look.fitted.apart(), strict=True)
    return [_unlensed_of(one, settings) if flag else [] for flag, (_, one) in shown]


def _unlensed_of(fit: Fitted, settings: VerdictSettings) -> list[tuple[str, str]]:
    if settings.without_lens is None or fit.joint_evidence is not None:  # of several images one may show no arc
        return []
    found = settings.without_lens.explains(fit, float(effective(fit)))
    if found is None:
        return []
    gain = f"a lens would gain {found.gain:.3g} in ln likelihood"
    if found.others:
        return [("suspect", f"no second image is found: a galaxy and one beside it explain the image ({gain})")]
    return [("bad", f"no arc is found: the light of one galaxy explains the image ({gain})")]


def _radii(look: Remains, smooth: Tensor, settings: VerdictSettings) -> Reasons:
    problem = look.fitted.problem
    name = problem.model.main
    full = look.values.get(f"{name}.theta_E")
    if full is None:
        return [[] for _ in range(len(smooth))]
    apart = full / smooth - 1
    words = [f"theta_E differs by {100 * a:+.0f} % from a smooth lens with a Sersic" for a in apart.tolist()]
    return _listed(apart.abs() > settings.theta_E, "suspect", words)


def _rivals(look: Remains, rival: Rival, settings: VerdictSettings) -> Reasons:
    """Another lens that explains an image nearly as well."""
    problem = look.fitted.problem
    name = f"{problem.model.main}.theta_E"
    own = look.values.get(name)
    if own is None:
        return [[] for _ in range(len(rival.behind))]
    near = (rival.behind < settings.rival) & ((rival.theta_E / own - 1).abs() > settings.theta_E)
    pairs = zip(rival.theta_E.tolist(), (0 - rival.behind.round()).tolist(), strict=True)
    words = [f"a lens with theta_E = {t:.2f} arcsec is nearly as likely (ln evidence {b:.0f})" for t, b in pairs]
    return _listed(near, "suspect", words)
