"""The least-squares problem of a lens: its Jacobian in closed form against forward mode, priors, rows, empty places."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lenses import (
    Lenses,
    one_thread,  # noqa: F401
    seen_as,
    small_lenses,
    small_problem,
)
from torch import Tensor

from lensphys.checks import LensphysError
from lensphys.deflection import DeflectionField
from lensphys.fitting import LensProblem, LensState
from lensphys.fitting.levenberg import value_and_jacobian
from lensphys.fitting.problem import EMPTY, filled, grown
from lensphys.model import FieldPrior
from lensphys.observation import ExposureNoise, GaussianPSF, NoPSF, RectifiedCountNoise

pytestmark = pytest.mark.usefixtures("float64")

MODES = {"modes": 6, "source_modes": 5}
TWO = torch.tensor([[[-5.0, 0.7, 0.8], [-6.5, -0.9, 0.55]], [[-6.0, 1.1, -0.4], [EMPTY, 0.0, 0.0]]]).double()


def lenses() -> Lenses:
    return small_lenses(height=24, width=28, dtype=torch.float64)


@pytest.fixture(scope="module")
def truth(float64) -> tuple[LensProblem, LensState]:
    return small_problem(lenses(), **MODES)


def fields(problem: LensProblem, seed: int = 4) -> tuple[Tensor, Tensor]:
    """Draws of psi and of the source's free-form part."""
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for basis, amplitude in ((problem.potential, 0.1), (problem.light, 0.3)):
        sigma = FieldPrior(amplitude=amplitude).sigma(basis, like=problem.unit)
        drawn.append(sigma * torch.randn(len(problem), *sigma.shape, generator=generator))
    return drawn[0], drawn[1]


def everything(problem: LensProblem, state: LensState) -> LensState:
    psi, light = fields(problem)
    return replace(state, subhalos=TWO, potential=psi, light=light)


# ---------------------------------------------------------------- the model


def test_the_state_of_the_truth_renders_the_truth(truth):
    problem, state = truth
    torch.testing.assert_close(problem.render(state), lenses().clean(), rtol=1e-9, atol=1e-12)
    chi2 = problem.residual(state).square().sum(1) / problem.observation.counted
    assert bool(((chi2 > 0.85) & (chi2 < 1.15)).all())
    values = problem.model(state).values
    torch.testing.assert_close(values["amp"], lenses().source.amp)
    torch.testing.assert_close(values["theta_E"], lenses().mass.profiles[0].theta_E)


def test_what_is_linearised_is_what_is_rendered(truth):
    problem, state = truth[0], everything(*truth)
    seen = problem.response(state)
    torch.testing.assert_close(seen.residual, problem.residual(state), rtol=1e-10, atol=1e-10)
    model = problem.model(state)
    field = DeflectionField.of(model.mass, problem.fine, like=state.macro)
    torch.testing.assert_close(seen.beta, field.beta, rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------- the Jacobian


def with_mask(problem: LensProblem) -> LensProblem:
    mask = torch.ones(2, 1, 24, 28, dtype=torch.bool)
    mask[0, :, 4:9] = False
    mask[1, :, :, :7] = False
    return LensProblem.of(replace(problem.observation, mask=mask), **MODES)


def with_camera(problem: LensProblem, **changes: object) -> LensProblem:
    camera = replace(problem.observation.camera, **changes)
    return LensProblem.of(replace(problem.observation, camera=camera), **MODES)


def with_noise(problem: LensProblem, noise: object) -> LensProblem:
    observation = replace(problem.observation, image=problem.observation.image.clamp(min=0), noise=noise)
    return LensProblem.of(observation, **MODES)


COUNTS = RectifiedCountNoise(
    torch.tensor([0.02, 0.05], dtype=torch.float64).reshape(2, 1, 1, 1),
    torch.tensor([0.01, 0.02], dtype=torch.float64).reshape(2, 1, 1, 1),
)
PROBLEMS = {
    "as it is": lambda p: p,
    "mask": with_mask,
    "no PSF": lambda p: with_camera(p, psf=NoPSF()),
    "PSF of each image": lambda p: with_camera(p, psf=GaussianPSF(torch.tensor([0.2, 0.4]))),
    "integrating pixels": lambda p: with_camera(p, supersampling=2),
    "counts cut at zero": lambda p: with_noise(p, COUNTS),
    "photon noise": lambda p: with_noise(p, ExposureNoise(0.01, 1e3)),
}


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("full", ["smooth", "everything"])
def test_the_jacobian_is_that_of_forward_mode(truth, kind, full):
    problem, state = PROBLEMS[kind](truth[0]), truth[1]
    assert (kind == "as it is") == (problem is truth[0])
    if full == "everything":
        state = everything(problem, state)

    def residual(vector: Tensor, rows: Tensor) -> Tensor:
        part, moved = problem[rows], state[rows].moved(vector)
        return torch.cat([part.residual(moved), part.prior(vector)], dim=1)

    known, jacobian = value_and_jacobian(residual, state.vector, torch.arange(2))
    found, columns = problem.system(state)
    torch.testing.assert_close(found, known, rtol=1e-9, atol=1e-9)
    size = jacobian.norm(dim=2, keepdim=True).clamp(min=1e-3)
    # 1e-5: the SIE's F' is exact, its F a rational approximation
    wrong = ((columns - jacobian) / size).abs() > 1e-5
    # where alpha jumps, in the (smaller) pixel that holds the lens's centre, the slope is cut: seen through the PSF
    distance = problem.observation.camera.grid.positions(like=known).norm(dim=1).flatten()
    near = torch.nn.functional.pad(distance < 0.5, (0, known.shape[1] - len(distance)))
    assert not bool(wrong[:, :, ~near].any())
    assert kind == "integrating pixels" or not bool(wrong.any())
    assert bool((columns[:, :14].norm(dim=2) > 0).all())


def test_masked_pixels_have_no_residual_and_no_slope(truth):
    problem = with_mask(truth[0])
    residual, columns = problem.system(truth[1])
    hidden = (problem.observation.weight == 0).flatten(1)
    assert float(residual[:, : hidden.shape[1]][hidden].abs().max()) == 0
    for i in range(2):
        assert float(columns[i, :, : hidden.shape[1]][:, hidden[i]].abs().max()) == 0


def test_the_slopes_of_parameters_and_priors(truth):
    space, u = truth[0].space, truth[1].macro + 0.1
    for name, found in zip(space.names, space.slopes(u).unbind(1), strict=True):
        i = space.names.index(name)
        direction = torch.zeros_like(u)
        direction[:, i] = 1
        known = torch.func.jvp(lambda x, n=name: space.physical(x)[n], (u,), (direction,))[1]
        torch.testing.assert_close(found, known)
    whole = torch.autograd.functional.jacobian(space.prior_residual, u)  # (B, M, B, P)
    for b in range(2):
        torch.testing.assert_close(space.prior_slopes(u)[b], whole[b, :, b].T)


def test_the_brightness_on_another_grid_is_that_of_the_model_there(truth):
    problem, state = truth[0], everything(*truth)
    grid = problem.fine.resampled(3)
    model = problem.model(state)
    brightness, changes, slope, beta = problem.changes(state, grid)
    torch.testing.assert_close(brightness, model.source(beta))
    assert changes.shape == (2, 20, *grid.shape)
    known = torch.autograd.functional.vjp(model.source, beta, torch.ones_like(brightness))[1]
    torch.testing.assert_close(slope, known, rtol=1e-8, atol=1e-8)


# ---------------------------------------------------------------- sub-halos that are not there


def test_empty_places_change_nothing(truth):
    problem, state = truth
    more = replace(state, subhalos=filled(state.subhalos, 3))
    assert more.subhalos[..., 0].unique().tolist() == [EMPTY]
    torch.testing.assert_close(problem.render(more), problem.render(state), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(problem.cost(more), problem.cost(state), rtol=1e-12, atol=0)
    residual, columns = problem.system(more)
    assert columns.shape[1] == 14 + 9
    assert float(columns[:, 14:].abs().max()) == 0
    torch.testing.assert_close(residual[:, : -3 * 3], problem.system(state)[0])
    assert float(residual[:, -9:].abs().max()) == 0


# ---------------------------------------------------------------- batches


def test_rows_of_problem_and_state(truth):
    problem, state = truth[0], everything(*truth)
    second = torch.tensor([1])
    part, alone = problem[second], state[second]
    assert len(part) == len(alone.macro) == 1
    torch.testing.assert_close(part.residual(alone)[0], problem.residual(state)[1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(part.system(alone)[1][0], problem.system(state)[1][1], rtol=1e-9, atol=1e-9)
    mask = torch.tensor([False, True])
    torch.testing.assert_close(problem[mask].residual(state[mask]), part.residual(alone))


def test_rows_are_put_back_and_the_shorter_list_is_filled_up(truth):
    problem, state = truth
    psi, light = fields(problem)
    part = LensState(state.macro[1:] + 1, TWO[1:], psi[1:], light[1:])
    both = state.with_rows(torch.tensor([1]), part)
    torch.testing.assert_close(both.macro, torch.stack([state.macro[0], state.macro[1] + 1]))
    assert both.subhalos[0, :, 0].tolist() == [EMPTY, EMPTY]
    torch.testing.assert_close(both.subhalos[1], TWO[1])
    assert float(both.potential[0].abs().max()) == float(both.light[0].abs().max()) == 0
    torch.testing.assert_close(both.potential[1], psi[1])
    back = both.with_rows(torch.tensor([0, 1]), state)
    torch.testing.assert_close(problem.render(back), problem.render(state))
    assert both.vector.shape == (2, 20)
    moved = both.moved(both.vector + 1)
    torch.testing.assert_close(moved.subhalos, both.subhalos + 1)
    torch.testing.assert_close(moved.potential, both.potential)


def test_grown_coefficients_are_the_same_field(truth):
    problem, psi = truth[0], fields(truth[0])[0]
    theta = problem.fine.positions(like=psi)
    few = psi[:, :4, :4]
    larger = grown(few, 6)
    assert larger.shape == (2, 6, 6)
    torch.testing.assert_close(problem.potential.gradient(larger, theta), problem.potential.gradient(few, theta))


def test_the_noise_of_some_rows_is_put_back(truth):
    problem, state = with_noise(truth[0], COUNTS), truth[1]
    renewed = problem.renewed(state)
    assert not torch.equal(renewed.inverse_sigma, problem.inverse_sigma)
    rows = torch.tensor([1])
    both = problem.with_rows(rows, problem[rows].renewed(state[rows]))
    for part in ("background_rms", "shot"):
        old, new, found = (getattr(p.observation.noise, part) for p in (problem, renewed, both))
        torch.testing.assert_close(found, torch.stack([old[0], new[1]]))
    torch.testing.assert_close(both.inverse_sigma, torch.stack([problem.inverse_sigma[0], renewed.inverse_sigma[1]]))


def test_noise_laws_are_merged(truth):
    rows = torch.tensor([0])
    other = RectifiedCountNoise(COUNTS.background_rms[:1] * 3, COUNTS.shot[:1] * 5)
    both = COUNTS.merged(rows, other)
    torch.testing.assert_close(both.background_rms.flatten(), torch.tensor([0.06, 0.05]))
    torch.testing.assert_close(both.shot.flatten(), torch.tensor([0.05, 0.02]))
    number = ExposureNoise(0.1, 1e3)
    assert number.merged(rows, number) == number
    image = truth[0].observation.image
    assert number.updated(image, image) is number
    widths = GaussianPSF(torch.tensor([0.2, 0.4])).merged(rows, GaussianPSF(torch.tensor([0.3])))
    torch.testing.assert_close(widths.fwhm, torch.tensor([0.3, 0.4]))


def test_counts_learn_their_noise_from_the_model(truth):
    """From the true clean image the law's numbers come out within their statistical error."""
    clean = truth[0].render(truth[1]).repeat(1, 1, 4, 4)
    law = RectifiedCountNoise(torch.full((2, 1, 1, 1), 0.1), torch.full((2, 1, 1, 1), 0.1))
    image = law.sample(clean, torch.Generator().manual_seed(2))
    wrong = RectifiedCountNoise(0.7 * law.background_rms, 2 * law.shot)
    for _ in range(4):
        wrong = wrong.updated(image, clean)
    torch.testing.assert_close(wrong.shot, law.shot, rtol=0.15, atol=0)
    torch.testing.assert_close(wrong.background_rms, law.background_rms, rtol=0.15, atol=0)


def test_the_noise_of_a_known_instrument_stays(truth):
    problem, state = truth
    torch.testing.assert_close(problem.renewed(state).inverse_sigma, problem.inverse_sigma)
    other = seen_as(problem, state, noise=0)
    assert float(other.residual(state).abs().max()) < 1e-9


def test_an_image_without_light_is_refused(truth):
    observation = truth[0].observation
    with pytest.raises(LensphysError, match="no positive pixel inside the mask: there is nothing to fit"):
        LensProblem.of(replace(observation, image=-observation.image.abs()))
