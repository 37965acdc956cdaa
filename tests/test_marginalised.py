"""The marginalised fit: its loss against the dense formula, its priors, drawn lenses, and where a pass ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lenses import Lenses, finite, one_thread, psnr, small_lenses  # noqa: F401
from pydantic import ValidationError

from lensphys.basics.checks import LensphysError
from lensphys.data.lens_file import LensFile
from lensphys.fitting import FreeField, FreeSourceSettings, LensProblem
from lensphys.fitting.marginal import marginal, source_system
from lensphys.fitting.source import source_frame
from lensphys.fitting.window import Window
from lensphys.methods import READY, Batch, MarginalisedMethod, MarginalisedSettings
from lensphys.methods.marginalised import DrawnLenses, EvidenceLoss
from lensphys.methods.turned import ORIENTATIONS, TurnedBack
from lensphys.model import Modes, SourcePrior
from lensphys.networks.look import LookSettings
from lensphys.observation import ErrorMap
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.writer import simulate
from lensphys.tracing.orientation import transformed
from lensphys.training.experiment import load_run
from lensphys.weights import weights_folder

TINY = LookSettings(channels=8, levels=3, hidden=32)
FEW = [{"modes": 5, "steps": 2, "points": 1}, {"modes": 7, "steps": 3}]


def method_of(**settings: object) -> MarginalisedMethod:
    torch.manual_seed(0)
    told = {"network": TINY, "levels": FEW, "evidence": {"modes": 5}, "drawn": {"modes": 5}} | settings
    return MarginalisedSettings(name="marginalised", **told).build()


@pytest.fixture(scope="module")
def lenses() -> Lenses:
    return small_lenses(3, height=30, width=30)


def freed(lenses: Lenses, modes: int = 4) -> tuple[LensProblem, torch.Tensor]:
    """A problem in float64 with a free source, and parameters somewhat off the truth."""
    observation = lenses.observation
    problem = LensProblem.from_observation(replace(observation, image=observation.image.double())).sampled(1)
    own = method_of().priors.mean.detach().double().expand(len(problem), -1) + 0.1
    frame = source_frame(problem, own, FreeSourceSettings())
    basis = Modes(modes)
    return replace(problem, free=FreeField(basis, frame, basis.sigma(SourcePrior(), 2 * frame.half_side))), own


# ---------------------------------------------------------------- the loss


def test_the_evidence_is_that_of_the_dense_formula(lenses):
    problem, own = freed(lenses)
    residual, columns = source_system(problem, own)
    covariance = torch.eye(residual.shape[1]).double() + columns.transpose(1, 2) @ columns
    squares = torch.linalg.solve(covariance, residual[:, :, None])[:, :, 0]
    dense = 0.5 * (residual * squares).sum(1) + 0.5 * torch.linalg.slogdet(covariance)[1]
    torch.testing.assert_close(marginal(problem, own).surprise, dense, rtol=1e-9, atol=0)
    single = replace(problem, observation=lenses.observation, inverse_sigma=problem.inverse_sigma.float())
    single = replace(single, unit=problem.unit.float())
    torch.testing.assert_close(marginal(single, own.float()).surprise, dense, rtol=1e-3, atol=0)


def test_the_columns_are_what_the_source_changes(lenses):
    problem, own = freed(lenses)
    columns = source_system(problem, own)[1]

    def whitened(g: torch.Tensor) -> torch.Tensor:
        return -problem.residual(torch.cat([own, g], dim=1))

    for k in (0, 3, columns.shape[1] - 1):
        step = torch.zeros(3, columns.shape[1]).double()
        step[:, k] = 1
        change = torch.func.jvp(whitened, (torch.zeros_like(step),), (step,))[1]
        torch.testing.assert_close(columns[:, k], change, rtol=1e-6, atol=1e-7 * float(change.abs().max()))


def test_the_evidence_has_the_gradient_of_its_differences(lenses):
    problem, own = freed(lenses)
    log_sigma = problem.free.sigma.log().requires_grad_()
    own = own.clone().requires_grad_()

    def surprise(own: torch.Tensor, log_sigma: torch.Tensor) -> torch.Tensor:
        free = replace(problem.free, sigma=log_sigma.exp())
        return marginal(replace(problem, free=free), own).surprise.sum()

    by_own, by_sigma = torch.autograd.grad(surprise(own, log_sigma), (own, log_sigma))
    with torch.no_grad():
        for at, slope, other in ((own, by_own, 0), (log_sigma, by_sigma, 1)):
            direction = torch.randn(at.shape, generator=torch.Generator().manual_seed(1)).double()
            ends = [
                surprise(*((own, log_sigma + h * direction) if other else (own + h * direction, log_sigma)))
                for h in (1e-5, -1e-5)
            ]
            difference = (ends[0] - ends[1]) / 2e-5
            torch.testing.assert_close((slope * direction).sum(), difference, rtol=1e-5, atol=1e-5)


def test_the_floor_falls_from_epoch_to_epoch():
    loss = EvidenceLoss(floor=0.1, least=0.001, epochs=4)
    assert [loss.floor_at(e) for e in (0, 2, 4, 9)] == pytest.approx([0.1, 0.01, 0.001, 0.001])
    assert [EvidenceLoss(floor=0.1, least=0.0, epochs=4).floor_at(e) for e in (3, 4)] == [0.1, 0.0]


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"step": 3}, "step"),
        ({"looks": 9}, "looks"),
        ({"levels": []}, "levels"),
        ({"evidence": {"modes": 1}}, "modes"),
        ({"drawn": {"decay": 0}}, "decay"),
        ({"network": {"name": "encoder"}}, "name"),
    ],
)
def test_settings_are_strict(wrong, named):
    with pytest.raises(ValidationError, match=named):
        MarginalisedSettings(name="marginalised", **wrong)


def test_weights_of_other_parameters_are_refused():
    with pytest.raises(LensphysError, match=r"lack lens.theta_E: this version fits lens.theta_E"):
        method_of(parameters=MarginalisedSettings(name="marginalised").parameters[1:])


# ---------------------------------------------------------------- looks


@pytest.mark.parametrize("g", range(ORIENTATIONS))
def test_a_turned_image_is_that_of_a_turned_lens(lenses, g):
    problem, own = freed(lenses)
    seen = replace(problem, free=None)
    guess = own + 0.3 * torch.randn(own.shape, generator=torch.Generator().manual_seed(3)).double()
    back = TurnedBack(problem.model.names, g)(guess)
    image = seen.render(back)
    torch.testing.assert_close(transformed(image, g), seen.render(guess), rtol=1e-5, atol=1e-6 * float(image.max()))


def test_the_first_look_is_the_survey_and_eight_looks_are_no_worse_than_one(lenses):
    method, problem = method_of().eval(), LensProblem.from_observation(lenses.observation)
    mean, spread = method.looked(problem)
    assert mean.shape == spread.shape == (3, len(problem.space))
    assert float((mean - method.priors.mean).abs().max().detach()) < 0.2
    with torch.no_grad():
        one, best = method.looked(problem)[0], method.start(problem)
        near = Window(bright=6.0, margin=5.0, crop=1.0).middle(problem)

        def surprise(own: torch.Tensor) -> torch.Tensor:
            return marginal(method.freed(near, own, 5), own).surprise

        assert bool((surprise(best) <= surprise(one) * 1.01).all())


# ---------------------------------------------------------------- priors and drawn lenses


def test_a_survey_teaches_its_prior_and_errors_do_not_shrink_it():
    priors = method_of().priors
    generator = torch.Generator().manual_seed(5)
    guesses = 0.4 * torch.randn(400, len(priors.mean), generator=generator) + 0.3
    log_sigma = torch.full_like(guesses, 0.2).log()
    optimiser = torch.optim.Adam(priors.parameters(), 0.03)
    for _ in range(300):
        optimiser.zero_grad()
        priors.misfit(guesses, log_sigma).mean().backward()
        optimiser.step()
    torch.testing.assert_close(priors.mean.detach(), guesses.mean(0), atol=0.01, rtol=0)
    width = (guesses.var(0, unbiased=False) + 0.2**2).sqrt()
    torch.testing.assert_close(priors.log_width.detach().exp(), width, atol=0.01, rtol=0)


def test_failures_widen_a_prior_less():
    """By Huber's cost: quadratic up to ``far`` standard deviations, then linear with the slope that it has there."""
    priors = method_of(far=2.0).priors
    mean, width = priors.mean.detach(), priors.log_width.detach().exp()
    sure, costs = torch.full_like(mean[None], -20.0), []
    for away in (0.0, 1.0, 2.0, 5.0):
        costs.append(float(priors.misfit((mean + away * width)[None], sure).detach()) / len(mean))
    assert [cost - costs[0] for cost in costs] == pytest.approx([0.0, 0.5, 2.0, 2.0 + 2.0 * 3.0], abs=1e-4)


def test_an_answer_stays_within_what_is_told():
    look = LookSettings(channels=8, levels=2, hidden=16, far=1.5, surest=-2.0, vaguest=0.5).build(3, 4)
    look.mean.bias.data = torch.tensor([0.7, 1e3, -1e3])
    look.spread.bias.data = torch.tensor([0.2, 1e3, -1e3])
    image = torch.zeros(1, 1, 16, 16)
    look.mean.weight.data.zero_(), look.spread.weight.data.zero_()
    mean, spread = look(image, image, torch.zeros(1, 4), 2.0)
    torch.testing.assert_close(mean[0], torch.tensor([0.7, 2.5, -2.5]))
    torch.testing.assert_close(spread[0], torch.tensor([0.2, 0.5, -2.0]))


def test_the_learned_prior_is_that_of_the_steps(lenses):
    priors, problem = method_of().priors, LensProblem.from_observation(lenses.observation)
    with torch.no_grad():
        priors.mean += 0.2
        priors.log_width += 0.1
        space = priors.space(problem.space)
        at, small = priors.mean[None], 1e-2 * priors.log_width.exp()
        torch.testing.assert_close(space.prior_residual(at), torch.zeros_like(at), atol=1e-4, rtol=0)
        torch.testing.assert_close(space.prior_residual(at + small), torch.full_like(at, 1e-2), atol=2e-4, rtol=0)


def test_drawn_lenses_are_what_they_are_said_to_be(lenses):
    method, problem = method_of(source={"amplitude": 1e-4}), LensProblem.from_observation(lenses.observation)
    torch.manual_seed(2)
    seen, truth = method.draw(problem, DrawnLenses(modes=5, points=4))
    assert finite(truth) and truth.shape == (3, len(problem.space))
    torch.testing.assert_close(seen.observation.peak, problem.observation.peak, rtol=0.3, atol=0)
    chi2 = seen.chi2(truth)
    assert bool(((chi2 > 0.7) & (chi2 < 1.3)).all()), chi2


# ---------------------------------------------------------------- training and a forward pass


def test_a_training_from_lr_images_alone_lowers_the_loss(lenses):
    method = method_of(evidence={"modes": 5, "floor": 0.05, "least": 0.05}, loss={"intensity_conservation": {}})
    method.train()
    batch = Batch(lenses.observation)
    before = float(method.validation_score(batch).detach())
    optimiser = torch.optim.Adam(method.parameters(), 3e-3)
    for _ in range(25):
        optimiser.zero_grad()
        terms = method.training_terms(batch, 0)
        terms["loss"].backward()
        optimiser.step()
    assert {"drawn", "evidence", "prior", "survey", "intensity_conservation", "loss"} == terms.keys()
    assert all(p.grad is not None for p in method.parameters())
    assert float(method.validation_score(batch).detach()) < 0.8 * before


def test_drawn_lenses_alone_come_first(lenses):
    terms = method_of(drawn={"modes": 5, "alone": 2}).training_terms(Batch(lenses.observation), 1)
    assert terms.keys() == {"drawn", "loss"}


def test_a_forward_pass_ends_with_an_image_its_sigma_and_a_verdict(lenses):
    method = method_of().eval()
    found = method.predict(lenses.observation, 2)
    assert found.image.shape == found.sigma.shape == (3, 1, 60, 60)
    assert finite(found.image) and bool((found.sigma > 0).all())
    assert len(found.verdicts) == 3 and "theta_E" in found.parameters and "theta_E" in found.errors
    problem = LensProblem.from_observation(lenses.observation)
    start = problem.chi2(method.start(problem).detach())
    assert bool((found.reduced_chi2(lenses.observation) < start).all())


def test_it_can_be_refined(lenses):
    observation = lenses.observation[torch.tensor([0])]
    found = method_of().eval().refined(1).predict(observation, 2)
    assert float(found.reduced_chi2(observation)) < 1.5  # from a network that has learned nothing


def test_noise_alone_is_no_lens_and_no_error(lenses):
    observation = lenses.observation
    noise = torch.randn(observation.image.shape, generator=torch.Generator().manual_seed(1))
    dark = replace(observation, image=noise, noise=ErrorMap(torch.ones_like(noise)))
    found = method_of().eval().predict(dark, 2)
    assert finite(found.image) and all(v.quality == "bad" for v in found.verdicts)


@pytest.mark.slow
def test_one_pass_of_the_shipped_weights_meets_its_bar(tmp_path):
    path = tmp_path / "spiral.h5"
    simulate(Recipe.named("model_4", []), 1, path, classes=["no_sub"], seed=7)  # other galaxies than it learned from
    with LensFile(path) as file:
        observation, known = file.observation([0]), file.lens_model(0)["kwargs_lens"][0]["theta_E"]
        truth = torch.as_tensor(file.read("hr_clean", [0]) * file.read("flux_scale", 0)[0])
    found = load_run(weights_folder("euclid_vis")).predict(observation, 2)
    bicubic = READY["bicubic"].predict(observation, 2)
    assert float(psnr(found.image, truth)) > float(psnr(bicubic.image, truth)) + 5
    assert abs(float(found.parameters["theta_E"]) / known - 1) < 0.01
