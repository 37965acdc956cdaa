"""What a fit says of itself: a reason for each way in which it can be wrong, and none for a good one."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from lenses import (
    deeper,
    one_thread,  # noqa: F401
    seen_as,
    small_lenses,
    small_problem,
    with_bodies,
    with_noise_of,
)
from torch import Tensor
from torch.nn.functional import conv2d

from lensphys.fitting import Fitted, LensProblem, Rival, Stop, VerdictSettings, minimised, verdicts
from lensphys.fitting.shared_noise import SharedNoise
from lensphys.fitting.stages import LensFit, in_front_of_arcs
from lensphys.fitting.verdict import _Skies, effective, neighbour_correlation
from lensphys.model import Gaussian, Member
from lensphys.observation import ErrorMap, RectifiedCountNoise
from lensphys.prediction import Verdict

pytestmark = pytest.mark.usefixtures("float64")

SEEN = torch.tensor([True, True])


@pytest.fixture(scope="module")
def truth(float64) -> tuple[LensProblem, Tensor]:
    return small_problem(small_lenses(dtype=torch.float64))


@pytest.fixture(scope="module")
def clean(truth) -> Fitted:
    return fitted(*truth)


def fitted(problem: LensProblem, x: Tensor) -> Fitted:
    return Fitted(problem, minimised(problem, x, Stop(20)))


def theta_E(fit: Fitted) -> Tensor:
    return fit.problem.lens(fit.x).values["lens.theta_E"]


def judged(fit: Fitted, seen: Tensor = SEEN, smooth: Tensor | None = None, **settings: float) -> list[Verdict]:
    return verdicts(fit, seen, theta_E(fit) if smooth is None else smooth, VerdictSettings(**settings))


def changed(problem: LensProblem, **changes: object) -> LensProblem:
    return LensProblem.from_observation(replace(problem.observation, **changes))


def only_the_second(problem: LensProblem, image: Tensor) -> LensProblem:
    """The problem with another second image; the first stays."""
    both = torch.cat([problem.observation.image[:1], image[1:]])
    return changed(problem, image=both)


def found(verdict: Verdict, *words: str) -> None:
    """The reasons are these and no others."""
    assert len(verdict.reasons) == len(words), verdict
    for reason, word in zip(verdict.reasons, words, strict=True):
        assert word in reason, verdict


def test_a_clean_lens_is_good(clean):
    assert judged(clean) == [Verdict("good"), Verdict("good")]


def test_clean_lenses_are_good_whatever_their_noise(truth):
    """Twenty draws: chance makes at most one of them suspect."""
    rows = torch.zeros(20, dtype=torch.long)
    problem, x = seen_as(truth[0][rows], truth[1][rows], seed=7), truth[1][rows]
    fit = fitted(problem, x)
    made = judged(fit, torch.ones(20, dtype=torch.bool))
    assert sum(v.quality == "good" for v in made) >= 19, [v for v in made if v.reasons]


def test_chi2_too_high(truth):
    problem, x = truth
    noise = problem.observation.noise.sigma
    more = torch.randn(noise.shape, generator=torch.Generator().manual_seed(3)) * noise
    slightly = fitted(only_the_second(problem, problem.observation.image + 0.6 * more), x)
    good, suspect = judged(slightly)
    assert good == Verdict("good") and suspect.quality == "suspect"
    found(suspect, "chi^2 per degree of freedom is 1.")
    badly = fitted(only_the_second(problem, problem.observation.image + 2 * more), x)
    bad = judged(badly)[1]
    assert bad.quality == "bad"
    found(bad, "chi^2 per degree of freedom is 5.")


def test_errors_overstated(truth):
    problem, x = truth
    sigma = problem.observation.noise.sigma.clone()
    sigma[1] *= 1.5
    fit = fitted(changed(problem, noise=ErrorMap(sigma)), x)
    good, suspect = judged(fit)
    assert good == Verdict("good") and suspect.quality == "suspect"
    found(suspect, "chi^2 per degree of freedom is 0.")
    found(suspect, ": the noise map is 1.5 times too large")


@pytest.mark.parametrize("times", [1.15, 1.2, 1.3])
def test_a_noise_map_that_is_somewhat_too_large_is_not_taken_for_shared_noise(truth, times):
    """White noise: the 3 x 3 means are as far below the map as the pixels, which shared noise is not."""
    problem, x = truth
    both = fitted(changed(problem, noise=ErrorMap(times * problem.observation.noise.sigma)), x)
    for verdict in judged(both):
        assert verdict.quality == "suspect"
        found(verdict, ": the noise map is 1.")
        told = re.search(r"the noise map is (\S+) times too large", verdict.reasons[0])
        assert told is not None and float(told[1]) == pytest.approx(times, rel=0.05)


def test_a_noise_map_that_was_scaled_to_the_sky_is_told_and_the_fit_is_good(truth):
    problem, x = truth
    twice = changed(problem, noise=ErrorMap(2 * problem.observation.noise.sigma))
    for verdict in judged(fitted(twice.inflated(torch.full((2,), 0.25)), x)):
        assert verdict.quality == "good"
        found(verdict, "the noise map is 2 times too large by the sky: it was scaled to it")


@pytest.mark.parametrize(("taps", "times", "factor"), [((0.0, 1.0, 0.0), 1.0, 1.0), ((0.0, 1.0, 0.0), 2.0, 0.25),
                                                       ((-0.35, 1.0, -0.35), 1.0, 1.0)])  # fmt: skip
def test_the_noise_of_the_sky_scales_an_error_map_that_is_too_large(truth, taps, times, factor):
    """White noise, a map twice too large, and noise that sharpening made: its 3 x 3 means are below it, no pixel is."""
    problem, x = truth
    sigma, kernel = problem.observation.noise.sigma, torch.tensor(taps).double()
    white = torch.randn(sigma.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    noise = conv2d(white, (kernel[:, None] * kernel / kernel.square().sum())[None, None], padding="same")
    seen = changed(problem, image=problem.render(x) + sigma * noise, noise=ErrorMap(times * sigma))
    assert float(SharedNoise(least=50).factor(seen, x)[0]) == pytest.approx(factor, rel=0.2)


@pytest.mark.parametrize(
    ("level", "far", "told"), [(0.0, True, ""), (0.0, False, "a sky of -0.3"), (-0.3, True, "a sky of -0.3")]
)
def test_a_sky_that_the_borders_do_not_show_is_not_told(level, far, told):
    """What a rich source leaves looks like a constant, too."""
    image = np.random.default_rng(0).normal(level, 1, (64, 64))
    everywhere = np.ones(image.shape, dtype=bool)
    skies = _Skies(image, everywhere, np.ones(image.shape), image - level, ~everywhere)
    found = skies.told(VerdictSettings(), far, -0.3, 0.02)
    assert told in found and bool(told) == bool(found)


def test_chi2_of_an_estimated_noise_is_no_judge(truth):
    """Numbers that were fitted to the residuals make a chi^2 of one whatever the model."""
    problem, x = truth
    unknown = RectifiedCountNoise(
        3 * problem.observation.noise.sigma.mean((1, 2, 3), keepdim=True), torch.zeros(2, 1, 1, 1)
    )
    assert not unknown.known
    fit = Fitted.at(changed(problem, image=problem.observation.image.clamp(min=0), noise=unknown), x)
    assert not any("chi^2" in reason for v in judged(fit) for reason in v.reasons)


def test_correlated_sky(truth):
    problem, x = truth
    scatter = torch.randn(problem.observation.image.shape, generator=torch.Generator().manual_seed(2))
    blurred = scatter + 0.5 * (scatter.roll(1, -1) + scatter.roll(1, -2))
    blurred = blurred / blurred.std() * problem.observation.noise.sigma
    fit = fitted(only_the_second(problem, problem.render(x) + blurred), x)
    good, suspect = judged(fit)
    assert good == Verdict("good") and suspect.quality == "suspect"
    assert any("the noise is not white: neighbouring pixels of the sky correlate by 0." in r for r in suspect.reasons)


def test_an_error_map_that_counts_what_neighbours_share_is_right(truth):
    """Drizzled images: the errors are too large for a pixel, and right for all that is larger."""
    problem, x = truth
    scatter = torch.randn(problem.observation.image.shape, generator=torch.Generator().manual_seed(2))
    blurred = scatter + 0.5 * (scatter.roll(1, -1) + scatter.roll(1, -2))
    blurred = blurred / blurred.std()
    means = 9 * torch.nn.functional.avg_pool2d(blurred, 3, stride=1).square().mean()
    sigma = problem.observation.noise.sigma
    image = problem.render(x) + blurred * sigma / means.sqrt()
    good = judged(fitted(changed(problem, image=image), x))[0]  # the second has little sky
    assert good.quality == "good"  # but it says why chi^2 is low
    found(good, "times too large for one pixel, but right for 3 x 3 that share their noise")
    twice = judged(fitted(changed(problem, image=image, noise=ErrorMap(2 * sigma)), x))
    assert all(verdict.quality == "suspect" for verdict in twice)


def test_something_left_in_the_arcs(truth):
    problem, x = truth
    deep = deeper(problem, 3.0)
    more, planted = with_bodies(deep, x, torch.tensor([[[2 * math.log(0.1), 0.75, 0.85]]] * 2).double())
    seen = seen_as(more, planted).observation.image
    quiet = seen_as(deep, x)
    fit = fitted(only_the_second(quiet, seen), x)
    good, worse = judged(fit)
    assert good.quality == "good" and worse.quality != "good"
    assert any("something is left in the arcs: neighbouring residuals correlate by 0." in r for r in worse.reasons)


def test_a_parameter_at_its_bound(clean):
    x = clean.x.clone()
    i = clean.problem.model.names.index("source.n_sersic")
    x[1, i] = 6.0  # 99.8 % of the range
    good, suspect = judged(Fitted.at(clean.problem, x))
    assert good == Verdict("good")
    assert "at its bound: source.n_sersic" in suspect.reasons
    x[1, 0] = -6.0
    bad = judged(Fitted.at(clean.problem, x))[1]
    assert bad.quality == "bad" and "at its bound: lens.theta_E, source.n_sersic" in bad.reasons


def test_a_subhalo_that_gains_too_little(clean):
    weak = torch.tensor([[[2 * math.log(0.004), 0.75, 0.85]], [[2 * math.log(0.15), 0.75, 0.85]]]).double()
    problem, x = with_bodies(clean.problem, clean.x, weak)
    problem = deeper(seen_as(problem, x), 1.0)
    fit = Fitted.at(problem, x)
    first, second = judged(fit)
    assert first.reasons == ("1 sub-halo gains less than 12",) and first.quality == "suspect"
    assert second == Verdict("good")
    assert judged(fit, gain=1e-9)[0] == Verdict("good")


def test_a_source_that_the_lens_hardly_shows_twice(truth):
    problem, x = truth
    values = problem.values(x)
    aside = torch.stack([values["source.center_x"][0], 1.1 * values["lens.theta_E"][1]])
    x = problem.unconstrained(values | {"source.center_x": aside})
    fit = Fitted.at(seen_as(problem, x), x)
    good, suspect = judged(fit, twice=0.9)  # a wide source: part of it is behind the lens
    assert good == Verdict("good") and suspect.quality == "suspect"
    assert any(reason.endswith("of the arcs' light has a second image") for reason in suspect.reasons)
    assert not any("second image" in reason for reason in judged(fit)[1].reasons)


def test_light_in_the_centre(truth):
    problem, x = truth
    theta = problem.observation.camera.grid.positions(like=x)
    galaxy = torch.exp(-0.5 * (theta.norm(dim=1, keepdim=True) / 0.12) ** 2)
    peak = problem.observation.image.amax()
    faint = fitted(only_the_second(problem, problem.observation.image + 0.5 * peak * galaxy), x)
    good, suspect = judged(faint, bad_chi2=99.0)
    words = "light in the middle of the lens that is not lensed: is the lens galaxy still there?"
    assert good == Verdict("good") and suspect.quality == "suspect" and words in suspect.reasons
    bright = Fitted.at(only_the_second(problem, problem.observation.image + 100 * peak * galaxy), x)
    bad = judged(bright, bad_chi2=1e9)[1]
    assert bad.quality == "bad" and words in bad.reasons


def test_a_mask_that_covers_the_arc(truth):
    problem, x = truth
    theta = problem.observation.camera.grid.positions(like=x)
    mask = torch.ones(2, 1, 32, 36, dtype=torch.bool)
    mask[1, 0] = (theta[0, 0] < -0.9) | (theta[0].norm(dim=0) > 2.0)
    fit = fitted(changed(problem, mask=mask), x)
    good, suspect = judged(fit)
    assert good == Verdict("good")
    words = [r for r in suspect.reasons if "of the arc's light is in pixels that count" in r]
    assert suspect.quality != "good" and len(words) == 1
    clean = problem.render(fit.x)[1]
    share = 100 * float((clean * mask[1]).sum() / clean.sum())
    assert share < 50 and words[0].startswith(f"only {share:.0f} %")


def test_nothing_seen(clean):
    good, bad = judged(clean, seen=torch.tensor([True, False]))
    assert good == Verdict("good") and bad.quality == "bad"
    found(bad, "nothing stands 5 sigma out of the noise")


def test_einstein_radii_that_disagree(clean):
    smooth = theta_E(clean) * torch.tensor([1.05, 0.8])
    good, suspect = judged(clean, smooth=smooth)
    assert good == Verdict("good") and suspect.quality == "suspect"
    found(suspect, "theta_E differs by +25 % from a smooth lens with a Sersic")
    found(judged(clean, smooth=smooth, theta_E=0.01)[0], "theta_E differs by -5 % from a smooth lens")


def test_one_bad_reason_makes_it_bad(clean):
    both = judged(clean, seen=torch.tensor([False, True]), smooth=0.8 * theta_E(clean))
    assert [v.quality for v in both] == ["bad", "suspect"]
    assert len(both[0].reasons) == 2


def test_the_numbers_that_the_data_determine(clean):
    """Between none and all: those that a prior holds do not count."""
    count = effective(clean)
    assert bool(((count > 12) & (count <= 14)).all()), count
    dark = Fitted.at(deeper(clean.problem, 1e-6), clean.x)
    # those with a prior are its; the others are data's however dim
    informed = int((clean.problem.prior_terms(clean.x)[1][0] > 0).sum())
    torch.testing.assert_close(effective(dark), torch.full((2,), 14.0 - informed), rtol=0, atol=0.1)
    more, x = with_bodies(clean.problem, clean.x, torch.tensor([[[-20.0, 3.0, 3.0]]] * 2).double())
    assert bool((effective(Fitted.at(more, x)) - count < 0.1).all())  # a body that nothing shows


def test_the_correlation_of_neighbours():
    scatter = torch.randn(2, 1, 60, 64, generator=torch.Generator().manual_seed(1))
    ones = torch.ones_like(scatter)
    rho, spread = neighbour_correlation(scatter, ones)
    assert bool((rho.abs() < 4 * spread).all())
    torch.testing.assert_close(spread, torch.full((2,), (60 * 63 + 59 * 64) ** -0.5))
    mixed = scatter + scatter.roll(1, -1)  # 1/2 along x, 0 along y
    rho, _ = neighbour_correlation(mixed, ones)
    torch.testing.assert_close(rho, torch.full((2,), 0.25), rtol=0, atol=0.05)
    half = ones.clone()
    half[..., 32:] = 0
    torch.testing.assert_close(
        neighbour_correlation(mixed, half)[0], neighbour_correlation(mixed[..., :32], ones[..., :32])[0]
    )
    torch.testing.assert_close(neighbour_correlation(7 * mixed, ones)[0], rho)
    assert neighbour_correlation(scatter, 0 * ones)[0].tolist() == [0, 0]


def test_images_do_not_depend_on_their_batch(truth):
    problem, x = truth
    noise = problem.observation.noise.sigma
    wild = with_noise_of(problem, problem.render(x), 1.4)
    fit = fitted(only_the_second(problem, wild.observation.image + 0 * noise), x)
    both = judged(fit)
    for i in range(2):
        one = fit.rows(torch.tensor([i]))
        assert verdicts(one, SEEN[:1], theta_E(one)) == [both[i]]


def test_another_lens_that_is_nearly_as_likely_is_told(clean):
    own, settings = theta_E(clean), VerdictSettings()
    other = torch.stack([0.7 * own[0], 1.02 * own[1]])  # the second is the same lens
    near = verdicts(clean, SEEN, own, settings, Rival(other, torch.tensor([12.0, 12.0])))
    found(near[0], f"theta_E = {float(other[0]):.2f} arcsec is nearly as likely (ln evidence -12)")
    assert near[0].quality == "suspect" and near[1] == Verdict("good")
    found(verdicts(clean, SEEN, own, settings, Rival(other, torch.tensor([0.02, 0.02])))[0], "(ln evidence 0)")
    far = verdicts(clean, SEEN, own, settings, Rival(other, torch.tensor([200.0, 200.0])))
    assert far == [Verdict("good"), Verdict("good")]


def test_a_mass_that_is_flatter_than_galaxies_is_told(truth):
    problem, x = truth
    values = problem.values(x)
    flat = problem.unconstrained(values | {"lens.e1": torch.tensor([0.3, 0.4]), "lens.e2": torch.tensor([0.3, 0.4])})
    good, suspect = judged(fitted(seen_as(problem, flat), flat))
    assert good == Verdict("good")
    found(suspect, "the mass is flatter than galaxies: its axis ratio is 0.2")


def test_a_ring_that_is_beyond_the_border_is_told(truth):
    problem, x = truth
    radius = problem.observation.camera.grid.radius
    large = {"lens.theta_E": torch.tensor([0.5, 0.95]) * radius, "lens.center_x": torch.tensor([0.0, 0.3]) * radius}
    away = problem.unconstrained(problem.values(x) | large)
    fit = Fitted.at(seen_as(problem, away), away)
    inside, beyond = judged(fit, cut_off=0.1)
    told = "of the Einstein ring is beyond the borders of the image"
    assert not any(told in reason for reason in inside.reasons) and any(told in reason for reason in beyond.reasons)
    assert beyond.quality != "good" and not any(told in reason for reason in judged(fit, cut_off=0.9)[1].reasons)


def test_a_large_shear_is_told(truth):
    problem, x = truth
    values = problem.values(x)
    values = values | {"shear.gamma1": torch.tensor([0.02, 0.24]), "shear.gamma2": torch.tensor([0.0, 0.07])}
    sheared = problem.unconstrained(values)
    good, suspect = judged(fitted(seen_as(problem, sheared), sheared))
    assert good == Verdict("good")
    found(suspect, "the external shear is large: 0.2")


def test_arcs_that_the_psf_blurs_into_their_galaxy_are_told(truth, clean):
    problem, x = truth
    light = {"lens_light.0": Member.from_component(Gaussian, {}, sigma=0.3)}
    lit = Fitted.at(*problem.with_model(replace(problem.model, lens_light=light), x))

    def told(fit: Fitted, widths: float) -> list[bool]:
        return [any("widths of the PSF" in reason for reason in v.reasons) for v in judged(fit, resolved=widths)]

    radius = theta_E(lit) / problem.observation.camera.psf.fwhm
    assert (
        told(lit, float(radius.max()) * 1.02) == [True, True] and told(lit, float(radius.min()) * 0.98) == [False] * 2
    )
    assert told(clean, 100.0) == [False, False]


def test_a_subhalo_beside_objects_that_were_left_out_may_be_one_upon_the_arcs(clean):
    bodies = torch.tensor([[[2 * math.log(0.15), 0.75, 0.85]]] * 2).double()
    for fit, expected in ((clean, set()), (Fitted.at(*with_bodies(clean.problem, clean.x, bodies)), {1})):
        lenses = replace(LensFit.from_smooth(fit), left_out=torch.tensor([0, 30]))
        assert set(in_front_of_arcs(lenses)) == expected
