"""Sub-halos hold against a PSF whose width or elongation is not as said."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from lenses import small_lenses, small_problem

from lensphys.fitting import (
    BeyondSmooth,
    FitModel,
    Fitted,
    LensProblem,
    PSFMoments,
    Refinement,
    VerdictSettings,
    verdicts,
)
from lensphys.fitting.newton import Stop, minimised
from lensphys.fitting.psf_moments import promised
from lensphys.fitting.smooth import smooth_fit
from lensphys.fitting.source import FreeSourceSettings, freed
from lensphys.fitting.verdict import PSFCheck
from lensphys.fitting.window import seen_whole
from lensphys.methods.fit import RefinedFit
from lensphys.model import SIE, Sersic, Shear
from lensphys.observation import Camera, ErrorMap, GaussianPSF, Observation
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid

pytestmark = pytest.mark.usefixtures("float64")


def test_the_modes_are_what_a_wider_psf_changes():
    problem, x = small_problem(small_lenses(1, height=40, width=40, dtype=torch.float64))
    xx, yy, _ = PSFMoments(sigma=0.1).modes(Fitted.at(problem, x))[0]
    camera, fwhm = problem.observation.camera, float(problem.observation.camera.psf.fwhm)
    wider = replace(camera, psf=GaussianPSF(fwhm * 1.03))
    changed = replace(problem, observation=replace(problem.observation, camera=wider)).render(x) - problem.render(x)
    found = float((changed[0, 0] * (xx + yy)).sum() / (xx + yy).square().sum())
    assert float(torch.corrcoef(torch.stack([changed.flatten(), (xx + yy).flatten()]))[0, 1]) > 0.97
    assert 0.3 < found < 1.0  # of 6 % of its variance, in units of 10 % of that with the pixel


def seen(fwhm: float, told: float) -> LensProblem:
    """A bright smooth lens, 40 x 40, seen with one PSF and fitted with another."""
    camera = Camera(PixelGrid(40, 40, 0.08), GaussianPSF(fwhm), supersampling=2)
    like = torch.zeros(1, 1, 1, 1)
    mass = SIE(1.1, 0.12, -0.05) + Shear(0.03, -0.02)
    source = Sersic(amp=torch.tensor([30.0]), R_sersic=0.1, n_sersic=1.0, e1=0.1, e2=0.05, center_x=0.1, center_y=0.05)
    clean = camera.render(source, DeflectionField.from_lens(mass, camera.grid.resampled(2), like=like))
    sigma = clean.amax() / 200
    noise = sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(3))
    other = replace(camera, psf=GaussianPSF(told))
    return LensProblem.from_observation(Observation(clean + noise, other, ErrorMap(sigma.expand_as(clean))))


@pytest.mark.parametrize(("told", "pays"), [(0.17, True), (0.2, False)])
def test_moments_pay_where_the_psf_is_off_and_only_there(told, pays):
    fit, moments = smooth_fit(seen(0.2, told)), PSFMoments()
    off = moments.integrated(fit)
    off = Fitted(off.problem, minimised(off.problem, off.x, Stop(20)))
    assert (float(off.evidence - fit.evidence) > 20) == pays  # half of what the variance lacks: .19
    assert float(moments.wider(off)) == pytest.approx(0.19 if pays else 0.0, abs=0.06)
    with pytest.raises(ValueError, match="integrated"):
        moments.wider(fit)


@pytest.mark.parametrize(("told", "words"), [(0.17, "wider"), (0.23, "narrower"), (0.2, "")])
def test_the_verdict_says_that_the_psf_is_off(told, words):
    fit = smooth_fit(seen(0.2, told))
    radius = fit.problem.values(fit.x)["lens.theta_E"]
    (verdict,) = verdicts(fit, torch.tensor([True]), radius)
    (believed,) = verdicts(fit, torch.tensor([True]), radius, VerdictSettings(psf=None))
    pattern = rf"a PSF about [12]\d % {words} than said explains the image better"
    assert sum(bool(re.fullmatch(pattern, why)) for why in verdict.reasons) == bool(words)
    assert not any("a PSF" in why for why in believed.reasons)


@pytest.mark.slow
def test_a_free_source_may_be_sharper_where_a_psf_would_be_narrower():
    """Its prior holds back what is sharp: that the PSF is too wide is told, and alone is no reason to doubt."""
    fit = smooth_fit(seen(0.2, 0.28))
    free = freed(fit.problem, fit.x, FreeSourceSettings(modes=(10,)))[-1]
    (verdict,) = verdicts(free, torch.tensor([True]), free.problem.values(free.x)["lens.theta_E"])
    assert any("narrower than said, or a sharper source, explains the image better" in why for why in verdict.reasons)


def test_pixels_that_were_not_fitted_say_nothing_of_the_psf():
    whole = seen(0.2, 0.2)
    image = torch.nn.functional.pad(whole.observation.image[..., 2:38, 2:38], (2, 2, 2, 2), value=0.02)
    whole = replace(whole, observation=replace(whole.observation, image=image))
    fit = seen_whole(smooth_fit(whole.inner(36, 36)), whole)
    assert fit.where_fitted.problem.observation.image.shape[-2:] == (36, 36)
    check = PSFCheck()
    for one, gains in ((fit, True), (fit.where_fitted, False)):
        assert (float(promised(one, check.moments.integrated(one))) > check.gain) == gains
    (verdict,) = verdicts(fit, torch.tensor([True]), fit.problem.values(fit.x)["lens.theta_E"])
    assert not any("a PSF" in why for why in verdict.reasons)


@pytest.mark.slow
def test_a_psf_that_is_too_narrow_makes_no_subhalos_and_is_told():
    problem = seen(0.2, 0.14)
    believed = Refinement(beyond=BeyondSmooth(psf=None))(problem)
    ((_, without),) = believed.groups
    assert without.problem.subhalos > 0
    fit = Refinement()(problem)
    ((_, found),) = fit.groups
    assert found.problem.subhalos == 0
    assert found.psf_wider is not None and 0.03 < float(found.psf_wider) < 0.3
    (verdict,) = verdicts(found, fit.seen, fit.smooth_theta_E, VerdictSettings(), fit.rival)
    assert any("wider than said explains what sub-halos would" in why for why in verdict.reasons)


def test_it_can_be_believed():
    believed = RefinedFit(model=FitModel.parse({"psf_moments": None}, "mine"))
    assert believed.refinement.beyond.psf is None and believed.refinement.verdict.psf is None
    assert RefinedFit().refinement.verdict.psf is not None
