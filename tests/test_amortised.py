"""The amortised fit: its network, its loss from low-resolution images alone, and what a forward pass ends with."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from lenses import Lenses, finite, one_thread, small_lenses  # noqa: F401
from pydantic import ValidationError

from lensphys.fitting import LensProblem
from lensphys.losses.physics import ObservationConsistency, PhysicsLossSettings
from lensphys.methods import AmortisedMethod, AmortisedSettings, Batch
from lensphys.methods import fit as fit_module
from lensphys.methods.amortised import instrument_numbers, unrolled_step
from lensphys.networks.encoder import EncoderSettings
from lensphys.observation import ErrorMap, GaussianPSF, Instrument
from lensphys.prediction import Prediction, joined

TINY = EncoderSettings(channels=8, levels=3, modes=4)


def amortised(**settings: object) -> AmortisedMethod:
    torch.manual_seed(0)
    return AmortisedSettings(name="amortised", network=TINY, **settings).build()


@pytest.fixture(scope="module")
def lenses() -> Lenses:
    return small_lenses(3, height=28, width=32)


@pytest.fixture(scope="module")
def predicted(lenses) -> Callable[[int], Prediction]:
    """The forward pass of a network that has learned nothing, at a scale, made once."""
    return functools.cache(lambda scale: amortised().eval().predict(lenses.observation, scale))


@pytest.fixture(scope="module")
def refined(lenses) -> Prediction:
    """What refinement makes of it."""
    return amortised().eval().refined(2).predict(lenses.observation, 2)


# ---------------------------------------------------------------- settings and network


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"step": 3}, "step"),
        ({"steps": -1}, "steps"),
        ({"candidates_per_round": 0}, "candidates_per_round"),
        ({"unresolved_subhalos": -0.1}, "unresolved_subhalos"),
        ({"network": {"levels": 1}}, "levels"),
        ({"network": {"modes": 41}}, "modes"),
        ({"network": {"name": "pyramid"}}, "name"),
        ({"priors": {"potential": {"amplitud": 1}}}, "amplitud"),
    ],
)
def test_settings_are_strict(wrong, named):
    with pytest.raises(ValidationError, match=named):
        AmortisedSettings(name="amortised", **wrong)


def test_the_network_answers_for_images_of_any_shape():
    network = TINY.build(14, 4)
    for shape in ((32, 36), (75, 75), (40, 29)):
        macro, psi = network(torch.rand(2, 1, *shape), torch.zeros(2, 4))
        assert macro.shape == (2, 14) and psi.shape == (2, 4, 4)
    image = torch.rand(2, 1, 32, 36)
    numbers = torch.zeros(2, 4)
    told = numbers.clone()
    told[1, 0] = 1.0
    one, other = network(image, numbers)[0], network(image, told)[0]
    torch.testing.assert_close(one[0], other[0])
    assert float((one[1] - other[1]).abs().max().detach()) > 0  # it listens to the instrument


def test_the_state_that_the_network_sees(lenses):
    method, problem = amortised(), LensProblem.from_observation(lenses.observation)
    macro, psi = method.state(problem)
    assert macro.shape == (3, 14)
    assert psi.shape == (3, 4, 4)
    assert float(psi[:, 0, 0].abs().max().detach()) == 0  # no constant mode
    assert float(psi.abs().max().detach()) > 0
    with torch.no_grad():
        assert finite(problem.render(macro))
        values = problem.lens(macro).values
    assert bool(
        ((values["lens.theta_E"] > 0.3) & (values["lens.theta_E"] < 2)).all()
    )  # the typical lens, to start with


def test_a_masked_pixel_is_not_seen(lenses):
    mask = torch.ones(1, 1, 28, 32, dtype=torch.bool)
    mask[..., 3:9, 4:12] = False
    image = lenses.observation.image
    seen = [replace(lenses.observation, image=x, mask=mask) for x in (image, torch.where(mask, image, 1e3))]
    states = [amortised().state(LensProblem.from_observation(x)) for x in seen]
    torch.testing.assert_close(states[1], states[0])


# ---------------------------------------------------------------- the instrument


def test_the_network_is_told_how_the_image_was_taken(lenses):
    observation = lenses.observation

    def numbers(camera: dict | None = None, **changes: object) -> torch.Tensor:
        changed = replace(observation, camera=replace(observation.camera, **(camera or {})), **changes)
        return instrument_numbers(LensProblem.from_observation(changed))

    first = numbers()
    assert first.shape == (3, 4) and finite(first)
    widths = numbers(camera={"psf": GaussianPSF(torch.tensor([0.2, 0.4, 0.8]))})
    assert bool((widths[1:, 0] > widths[:-1, 0]).all())
    torch.testing.assert_close(widths[:1], first[:1])
    assert float(widths[2, 0] - widths[1, 0]) == pytest.approx(math.log(2), abs=0.1)
    louder = numbers(noise=ErrorMap(2 * observation.noise.sigma))
    torch.testing.assert_close(louder - first, torch.tensor([0, 1, 1, 0]) * torch.tensor(2.0).log().expand(3, 4))
    grid = replace(observation.camera.grid, scale=0.3)
    wide = numbers(camera={"grid": grid, "psf": GaussianPSF(0.4)})  # the same picture of twice the size
    torch.testing.assert_close(wide - first, torch.tensor([0, 0, 0, 1]) * torch.tensor(2.0).log().expand(3, 4))
    unit = numbers(image=observation.image * 64, noise=ErrorMap(64 * observation.noise.sigma))
    torch.testing.assert_close(unit, first)


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("unrolled", [0, 1])
def test_the_loss_reaches_every_parameter(lenses, unrolled):
    method = amortised(unrolled=unrolled)
    terms = method.training_terms(Batch(lenses.observation), 0)
    assert set(terms) == {"observation", "prior", "loss"}
    assert all(finite(term) for term in terms.values())
    terms["loss"].backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None and finite(parameter.grad), name
        assert float(parameter.grad.abs().max()) > 0, name


def test_training_looks_at_no_truth(lenses):
    method = amortised().eval()
    known = method.training_terms(Batch(lenses.observation), 0)
    other = method.training_terms(Batch(lenses.observation, torch.full((3, 1, 56, 64), torch.nan)), 0)
    assert all(float(known[name].detach()) == float(other[name].detach()) for name in known)
    assert float(method.validation_score(Batch(lenses.observation)).detach()) == float(known["loss"].detach())
    assert not method.needs_truth


def test_an_unrolled_step_lowers_the_cost(lenses):
    problem, method = LensProblem.from_observation(lenses.observation), amortised()
    seen = method.state(problem)[0]
    with torch.no_grad():
        known = fit_module.fit_lens(lenses.observation).groups[0][1].x
        near = known + (0.05 * torch.randn(3, 14, generator=torch.Generator().manual_seed(1)))
        costs = [problem.cost(near)]
        for _ in range(3):
            near = unrolled_step(problem, near)
            costs.append(problem.cost(near))
        assert bool((costs[1] < costs[0]).all()) and bool((costs[3] < 1.05 * problem.cost(known)).all())
    step = unrolled_step(problem, seen)
    assert float((step - seen).abs().max().detach()) <= 1 + 1e-5
    assert step.requires_grad


def test_four_images_are_overfitted():
    loss = PhysicsLossSettings(observation=ObservationConsistency(form="log", floor=0.03))
    observation, method = small_lenses(4, height=28, width=32).observation, amortised(loss=loss)
    optimiser = torch.optim.Adam(method.parameters(), lr=2e-3)
    losses = []
    for _ in range(60):
        total = method.training_terms(Batch(observation), 0)["loss"]
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        losses.append(float(total.detach()))
    assert losses[-1] < 0.5 * losses[0], losses[::10]


# ---------------------------------------------------------------- one forward pass


@pytest.mark.parametrize("scale", [2, 3, 8])
def test_a_forward_pass_works_at_every_scale(lenses, predicted, scale):
    observation, found = lenses.observation, predicted(scale)
    shape = (3, 1, scale * 28, scale * 32)
    assert found.image.shape == found.sigma.shape == found.constrained.shape == shape
    assert all(finite(x) for x in (found.image, found.sigma, found.constrained))
    assert not found.image.requires_grad
    assert found.deflection is not None and found.deflection.formula is not None
    assert found.deflection.centre is not None and found.deflection.centre.shape == (3, 2)
    assert found.deflection.radial.shape == found.deflection.tangential.shape == shape
    assert found.observed.shape == observation.image.shape
    # the radial and the tangential view are those of the same field
    whole = found.deflection.radial.square() + found.deflection.tangential.square()
    torch.testing.assert_close(whole, found.deflection.alpha.square().sum(1, keepdim=True), rtol=1e-3, atol=1e-5)


def test_the_field_is_the_same_at_every_scale(predicted):
    two, eight = (predicted(scale).deflection for scale in (2, 8))
    torch.testing.assert_close(two.at(eight.grid).alpha, eight.alpha, rtol=1e-5, atol=1e-5)


def test_a_forward_pass_ends_below_where_the_network_stood(lenses):
    method = amortised().eval()
    with torch.no_grad():
        problem = LensProblem.from_observation(lenses.observation)
        seen = method.state(problem)[0]
        fit = method.fit(lenses.observation)
        assert sorted(r for rows, _ in fit.groups for r in rows.tolist()) == [0, 1, 2]
        for rows, group in fit.groups:
            assert bool((group.problem.cost(group.x) <= problem.cost(seen)[rows]).all())


def test_a_noise_map_tells_what_its_law_does(lenses):
    observation = Instrument.named("euclid_vis").observation(
        3 * lenses.observation.image / lenses.observation.peak_unit
    )
    sigma = observation.sigma(observation.image.clamp(min=0)).clone()
    mask = torch.ones_like(observation.image, dtype=torch.bool)
    mask[..., 0, :3], sigma[..., 0, :3] = False, 1e16  # as archives say that a pixel does not count
    mapped = replace(observation, noise=ErrorMap(sigma), mask=mask)
    by_law, by_map = (instrument_numbers(LensProblem.from_observation(one)) for one in (observation, mapped))
    torch.testing.assert_close(by_map, by_law, atol=0.02, rtol=0)


def test_a_forward_pass_without_a_search(lenses):
    found = amortised(steps=1, rounds=0).eval().predict(lenses.observation, 2)
    assert float(found.numbers["subhalos"].max()) == 0
    for name in ("best_gain", "substructure_evidence"):  # told whether or not anything was looked for
        assert found.numbers[name].shape == (len(lenses.observation),)
        assert finite(found.numbers[name])
    assert bool((found.numbers["best_gain"] >= 0).all())


def test_chunks_are_joined_to_the_whole(lenses, monkeypatch):
    method = amortised(steps=1, rounds=1).eval()
    whole = method.predict(lenses.observation, 2)
    monkeypatch.setattr(fit_module, "_PIXELS_AT_ONCE", 2 * 28 * 32)
    parts = method.predict(lenses.observation, 2)
    for name in ("image", "observed", "sigma", "constrained"):
        known = getattr(whole, name)
        torch.testing.assert_close(getattr(parts, name), known, rtol=1e-2, atol=1e-3 * float(known.max()), msg=name)
    assert parts.parameters.keys() == whole.parameters.keys()
    assert all(value.shape == (3,) for value in parts.parameters.values())
    assert torch.as_tensor(parts.fitted).shape == (3,)
    fine = whole.deflection.grid.resampled(2)
    torch.testing.assert_close(parts.deflection.at(fine).alpha, whole.deflection.at(fine).alpha, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(parts.deflection.radial, whole.deflection.radial, rtol=1e-2, atol=1e-3)
    beta = whole.deflection.beta
    torch.testing.assert_close(parts.source(beta), whole.source(beta), rtol=2e-2, atol=1e-2 * float(beta.max()))
    torch.testing.assert_close(parts.reduced_chi2(lenses.observation), whole.reduced_chi2(lenses.observation),
                               rtol=0.02, atol=0)  # fmt: skip


def test_one_part_is_the_whole(lenses):
    found = amortised(steps=0, rounds=1).eval().predict(lenses.observation, 2)
    assert joined([found]) is found


def test_the_refined_answer_is_better_than_the_forward_pass(lenses, predicted, refined):
    method, once = amortised().eval(), predicted(2)
    chi2 = [x.reduced_chi2(lenses.observation) for x in (once, refined)]
    assert bool((chi2[1] <= chi2[0] + 0.02).all()), chi2
    assert bool((chi2[1] < 2).all()), chi2  # from a network that has learned nothing
    full, short = (method.refined(rounds).settings.refinement.beyond for rounds in (None, 2))
    assert full.search.rounds > 2 and full.search_free.rounds > 2
    assert short.search.rounds == short.search_free.rounds == 2
    assert refined.image.shape == once.image.shape


def test_smooth_lenses_get_no_subhalos_from_a_bad_start(refined):
    assert float(refined.numbers["subhalos"].max()) == 0
