"""Least squares, bounded parameters, and the per-image fit of a lens."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from lenses import (
    THETA_E,
    Lenses,
    finite,
    model_lenses,
    one_thread,  # noqa: F401
    psnr,
    relative,
    small_lenses,
)
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.fitting import Fitted, Optimum, Stop, fit_lens, gauss_newton_step, minimised
from lensphys.fitting.newton import Differentiated, damped_step, factored, value_and_jacobian
from lensphys.methods import Interpolation
from lensphys.model import SIE, SIS, HalfWidths, Parameter, ParameterSpace, Peaks, PointMass
from lensphys.observation import ErrorMap, ExposureNoise, Observation, RectifiedCountNoise
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.einstein import einstein_radius
from lensphys.tracing.grid import PixelGrid

D = torch.float64


def minimise(residual, x0: Tensor, rows: Tensor | None = None, *, steps: int = 50, tolerance: float = 1e-5) -> Optimum:
    problem = Differentiated(residual, torch.arange(len(x0)) if rows is None else rows)
    return minimised(problem, x0, Stop(steps, cosine=tolerance))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=D)


# ---------------------------------------------------------------- Levenberg-Marquardt


def test_the_normal_equations_of_an_end_are_those_where_it_stands():
    """Whether or not the last step was so small that none were made there."""
    data, x0 = decay(torch.exp(-torch.linspace(0, 2, 9, dtype=D)) + 0.1 * random(3, 9)), 1 + 0.3 * random(3, 2)
    problem = Differentiated(data, torch.arange(3))
    for stop in (Stop(50, cosine=1e-12, share=0.0), Stop(50, cosine=0.0, fall=1.0), Stop(2)):
        end = minimised(problem, x0, stop)
        known = problem.normal(end.x)
        torch.testing.assert_close(end.cost, known.cost)
        torch.testing.assert_close(end.rows(torch.tensor([1])).hessian, known.hessian[1:2])
        torch.testing.assert_close(end.hessian, known.hessian)
        torch.testing.assert_close(end.normal.covariance @ end.hessian, torch.eye(2, dtype=D).expand(3, 2, 2))
        torch.testing.assert_close(end.rows(torch.tensor([2, 0])).cosine, known.cosine[[2, 0]])


def linear(a: Tensor, b: Tensor):
    return lambda x, rows: torch.einsum("bnp,bp->bn", a[rows], x) - b[rows]


def rosenbrock(x: Tensor, rows: Tensor) -> Tensor:
    return torch.stack([10 * (x[:, 1] - x[:, 0] ** 2), 1 - x[:, 0]], dim=1)


def decay(data: Tensor):
    """y = a exp(-b t), nonlinear in b."""
    t = torch.linspace(0, 2, data.shape[1], dtype=D)
    return lambda x, rows: x[:, :1] * torch.exp(-x[:, 1:] * t) - data[rows]


DECAYS = torch.tensor([[1.0, 0.5], [3.0, 2.0]], dtype=D)
DATA = decay(torch.zeros(2, 9, dtype=D))(DECAYS, torch.arange(2))


def test_a_linear_problem_without_noise_is_solved_exactly():
    a, x = random(3, 7, 4), random(3, 4, seed=1)
    fit = minimise(linear(a, torch.einsum("bnp,bp->bn", a, x)), torch.zeros(3, 4, dtype=D))
    torch.testing.assert_close(fit.x, x, atol=1e-8, rtol=0)
    torch.testing.assert_close(fit.hessian, a.transpose(1, 2) @ a)


def test_a_linear_problem_with_noise_ends_at_the_least_squares_solution():
    a, b = random(3, 7, 4), random(3, 7, seed=1)
    fit = minimise(linear(a, b), torch.zeros(3, 4, dtype=D), tolerance=1e-9)
    exact = torch.linalg.lstsq(a, b).solution
    cost = 0.5 * (torch.einsum("bnp,bp->bn", a, exact) - b).square().sum(1)
    torch.testing.assert_close(fit.cost, cost, rtol=1e-8, atol=0)
    # the cost is flat at the minimum: a relative excess of 1e-8 is an offset of about 1e-4
    torch.testing.assert_close(fit.x, exact, rtol=0, atol=1e-3)


def test_rosenbrock_from_many_starts():
    x0 = torch.cat([torch.tensor([[-1.2, 1.0]], dtype=D), 2 * random(20, 2)])
    fit = minimise(rosenbrock, x0, steps=200)
    torch.testing.assert_close(fit.x, torch.ones_like(x0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("factor", [1.0, 1e9])
def test_a_sample_does_not_depend_on_the_others(factor):
    """Also where another sample's residuals are a billion times as large."""
    a, b = random(3, 7, 4), random(3, 7, seed=1)
    a[2] *= factor
    problem, x0 = linear(a, b), torch.zeros(3, 4, dtype=D)
    together = minimise(problem, x0, steps=3)
    for i in range(2):
        alone = minimise(problem, x0[:1], steps=3, rows=torch.tensor([i]))
        torch.testing.assert_close(together.x[i], alone.x[0], atol=1e-12, rtol=1e-9)


def test_the_cost_never_rises():
    def wild(x: Tensor, rows: Tensor) -> Tensor:
        return torch.stack([torch.exp(3 * x[:, 0]) - 2, 5 * torch.sin(4 * x[:, 1]), x[:, 0] * x[:, 1] - 1], dim=1)

    x0 = 2 * random(30, 2)
    costs = [minimise(wild, x0, steps=steps).cost for steps in range(12)]
    torch.testing.assert_close(costs[0], 0.5 * wild(x0, torch.arange(30)).square().sum(1))
    assert all(bool((after <= before).all()) for before, after in pairwise(costs))
    assert bool((costs[-1] < 0.5 * costs[0]).float().mean() > 0.9)


def test_a_step_into_infinity_is_not_taken():
    fit = minimise(lambda x, rows: torch.log(x) - 4, torch.full((2, 1), 1e-3, dtype=D))  # log of x < 0
    torch.testing.assert_close(fit.x, torch.full((2, 1), math.exp(4), dtype=D))


def test_rows_name_the_samples():
    target = torch.tensor([[1.0], [2.0], [3.0]], dtype=D)
    fit = minimise(lambda x, rows: x - target[rows], torch.zeros(4, 1, dtype=D), rows=torch.tensor([2, 2, 0, 1]))
    torch.testing.assert_close(fit.x[:, 0], torch.tensor([3.0, 3.0, 1.0, 2.0], dtype=D))


def test_the_gradient_cosine_is_what_it_says_and_vanishes_at_the_optimum():
    noisy, x0 = decay(DATA + 0.1 * random(2, 9)), torch.ones(2, 2, dtype=D)
    start = minimise(noisy, x0, steps=0)
    r, j = value_and_jacobian(noisy, x0, torch.arange(2))
    cosine = torch.einsum("bpn,bn->bp", j, r).abs() / j.norm(dim=2) / r.norm(dim=1, keepdim=True)
    torch.testing.assert_close(start.cosine, cosine.amax(1))
    assert bool((start.cosine > 0.1).all())
    assert bool((minimise(noisy, x0).cosine < 1e-3).all())


def test_the_jacobian_is_that_of_autograd():
    x, rows = random(2, 2), torch.tensor([1, 0])
    value, jacobian = value_and_jacobian(decay(DATA), x, rows)
    whole = torch.autograd.functional.jacobian(lambda p: decay(DATA)(p, rows), x)  # (B, N, B, P)
    torch.testing.assert_close(value, decay(DATA)(x, rows))
    for b in range(2):
        torch.testing.assert_close(jacobian[b], whole[b, :, b].T)


@pytest.mark.parametrize("stop", [Stop(3), Stop(20, fall=1e-3), Stop(20, cosine=1e-2)])
def test_samples_end_in_a_batch_as_they_do_alone(stop):
    """Whatever ends a sample, and whenever the others leave."""
    data, x0 = DATA + 0.05 * random(2, 9), torch.ones(2, 2, dtype=D)
    rows = torch.tensor([0, 1, 1, 0])
    together = minimised(Differentiated(decay(data), rows), x0[rows] * (1 + 0.1 * random(4, 2)), stop)
    for i in range(4):
        start = (x0[rows] * (1 + 0.1 * random(4, 2)))[i : i + 1]
        alone = minimised(Differentiated(decay(data), rows[i : i + 1]), start, stop)
        for name in ("x", "cost", "cosine", "hessian"):
            torch.testing.assert_close(getattr(alone, name)[0], getattr(together, name)[i], rtol=1e-7, atol=1e-9)


def test_a_fit_ends_where_a_step_gains_too_little():
    """The optimum of a linear problem is one step away: the rest is not worth it."""
    a, b = random(3, 7, 4), random(3, 7, seed=1)
    exact = minimise(linear(a, b), torch.zeros(3, 4, dtype=D), tolerance=1e-12).cost
    problem, x0 = Differentiated(linear(a, b), torch.arange(3)), torch.zeros(3, 4, dtype=D)
    rough = minimised(problem, x0, Stop(50, cosine=0.0, fall=0.5, share=0.0))
    assert bool((rough.cost < exact + 0.5).all()) and bool((rough.cost > exact).all())
    shared = minimised(problem, x0, Stop(50, cosine=0.0, share=0.2))
    assert bool((shared.cost < 1.25 * exact).all())


def test_of_two_optima_the_lower_is_taken():
    a, b = random(2, 7, 4), random(2, 7, seed=1)
    ends = [minimise(linear(a, b), x0, steps=1) for x0 in (torch.zeros(2, 4, dtype=D), 3 * random(2, 4, seed=2))]
    ends[0].cost[1] = 1e9
    both = ends[0].lower(ends[1])
    torch.testing.assert_close(both.cost, torch.stack([ends[0].cost[0], ends[1].cost[1]]))
    torch.testing.assert_close(both.x, torch.stack([ends[0].x[0], ends[1].x[1]]))
    torch.testing.assert_close(both.hessian, torch.stack([ends[0].hessian[0], ends[1].hessian[1]]))
    torch.testing.assert_close(both.rows(torch.tensor([1])).x, ends[1].x[1:])


def test_a_start_without_a_value_is_left_as_it_is():
    fit = minimise(lambda x, rows: torch.log(x) - 4, torch.tensor([[1.0], [-1.0]], dtype=D))
    assert float(fit.x[0]) == pytest.approx(math.exp(4)) and float(fit.x[1]) == -1.0
    assert bool(fit.cost.isinf()[1])  # it loses against any other


def test_a_damped_step():
    a = random(2, 5, 3)
    hessian, gradient = a.transpose(1, 2) @ a, random(2, 3, seed=1)
    none = torch.zeros(2, dtype=D)
    torch.testing.assert_close(damped_step(gradient, hessian, none), -torch.linalg.solve(hessian, gradient))
    strong = damped_step(gradient, hessian, none + 1e9)
    torch.testing.assert_close(1e9 * strong, -gradient / torch.diagonal(hessian, dim1=1, dim2=2))
    flat = hessian.clone()
    flat[:, 2], flat[:, :, 2] = 0, 0  # a parameter that nothing depends on stays
    assert finite(damped_step(gradient * torch.tensor([1.0, 1.0, 0.0], dtype=D), flat, none + 1e-3))


def test_a_matrix_that_rounding_made_indefinite_is_factored():
    single = torch.diag(torch.tensor([1e8, 1.0, -1e-3]))[None]  # what is left of 1 beside 1e8, in float32
    factor = factored(torch.cat([single, torch.eye(3)[None]]))
    assert finite(factor) and torch.allclose(factor[1], torch.eye(3), atol=1e-6)
    assert torch.allclose((factor[0] @ factor[0].T).diagonal()[:2], single[0].diagonal()[:2], rtol=0.02)


def test_a_matrix_is_factored_even_if_singular():
    a = random(2, 3, 5)
    full = a @ a.transpose(1, 2)
    factor = factored(full)
    torch.testing.assert_close(factor @ factor.transpose(1, 2), full, rtol=1e-8, atol=1e-8)
    assert finite(factored(a.transpose(1, 2) @ a))  # of rank 3 of 5
    dark, one = torch.zeros_like(full), torch.eye(full.shape[-1], dtype=full.dtype).expand_as(full)
    assert torch.allclose(factored(dark), one)  # a model that shows no light


# ---------------------------------------------------------------- the differentiable last step


def test_the_last_step_solves_a_linear_problem_and_has_its_derivative():
    a, b = random(2, 6, 3), random(2, 6, seed=1).requires_grad_()
    x = gauss_newton_step(linear(a, b), torch.zeros(2, 3, dtype=D))
    torch.testing.assert_close(x, torch.linalg.lstsq(a, b).solution, atol=1e-7, rtol=1e-7)
    slope = torch.autograd.functional.jacobian(lambda y: gauss_newton_step(linear(a, y), torch.zeros(2, 3, dtype=D)), b)
    for i in range(2):
        torch.testing.assert_close(slope[i, :, i], torch.linalg.pinv(a[i]), atol=1e-7, rtol=1e-6)


def test_the_derivative_of_the_last_step_is_that_of_the_optimum():
    """Implicit differentiation against finite differences of the whole optimisation."""

    def optimum(data: Tensor) -> Tensor:
        u = minimise(decay(data), DECAYS + 0.1, tolerance=1e-10).x
        return gauss_newton_step(decay(data), u)

    data, direction = DATA.clone().requires_grad_(), random(2, 9, seed=3)
    for p in range(2):
        (slope,) = torch.autograd.grad(optimum(data)[:, p].sum(), data)
        with torch.no_grad():
            found = (optimum(DATA + 1e-4 * direction) - optimum(DATA - 1e-4 * direction))[:, p] / 2e-4
        torch.testing.assert_close((slope * direction).sum(1), found, rtol=1e-4, atol=1e-6)


def test_the_last_step_passes_gradcheck():
    assert torch.autograd.gradcheck(lambda y: gauss_newton_step(decay(y), DECAYS), DATA.clone().requires_grad_())


# ---------------------------------------------------------------- parameters

SPACE = ParameterSpace(
    [
        Parameter("x", "", -2.0, 3.0),
        Parameter("size", "", 0.01, 10.0, 0.5, 0.7, logarithmic=True),
        Parameter("e", "", -0.6, 0.6, 0.1, 0.2),
    ]
)


def test_parameters_go_there_and_back():
    values = {"x": torch.tensor([-1.9, 2.9]), "size": torch.tensor([0.011, 9.0]), "e": torch.tensor([0.0, 0.59])}
    u = SPACE.unconstrained(values)
    assert u.shape == (2, len(SPACE))
    for name, found in SPACE.physical(u).items():
        torch.testing.assert_close(found, values[name], rtol=2e-5, atol=1e-6)


def test_no_vector_leaves_the_bounds():
    for extreme in (-1e4, -20.0, 20.0, 1e4):
        values = SPACE.physical(torch.full((1, 3), extreme, dtype=D))
        for p in SPACE.parameters:
            assert p.low * (1 - math.copysign(1e-9, p.low)) <= float(values[p.name]) <= p.high * (1 + 1e-9)


def test_values_outside_of_the_bounds_move_just_inside():
    values = {"x": torch.tensor([9.0]), "size": torch.tensor([1e-5]), "e": torch.tensor([-0.6])}
    u = SPACE.unconstrained(values)
    assert finite(u)
    inside = SPACE.physical(u)
    assert 2.99 < float(inside["x"]) < 3.0
    assert 0.01 < float(inside["size"]) < 0.0102
    assert -0.6 < float(inside["e"]) < -0.598


def test_priors_count_in_sigmas_and_in_e_folds():
    values = {"x": torch.tensor([1.0]), "size": torch.tensor([0.5 * math.exp(1.4)]), "e": torch.tensor([-0.1])}
    z = SPACE.prior_residual(SPACE.unconstrained(values))
    torch.testing.assert_close(z, torch.tensor([[2.0, -1.0]]), atol=1e-4, rtol=0)
    assert ParameterSpace(SPACE.parameters[:1]).prior_residual(torch.zeros(4, 1)).shape == (4, 0)


def test_bounds_in_units_of_the_image():
    wide, bright = Parameter("x", "", HalfWidths(-0.5), HalfWidths(2.0)), Parameter("amp", "", Peaks(0.1), Peaks(9.0))
    seen = wide.seen_in(3.0)
    assert (seen.low, seen.high, wide.in_peaks, bright.in_peaks) == (-1.5, 6.0, False, True)
    assert (bright.seen_in(3.0).low, bright.seen_in(3.0).high) == (0.1, 9.0)


# ---------------------------------------------------------------- the fit of a lens


def smooth(observation: Observation) -> Fitted:
    """The fit of the whole batch, which share a model."""
    ((rows, fitted),) = fit_lens(observation).groups
    assert rows.tolist() == list(range(len(observation)))
    return fitted


def rendered(fit: Fitted, lenses: Lenses, scale: int = 1) -> Tensor:
    camera, model = lenses.observation.camera.at(scale), fit.problem.lens(fit.x)
    return camera.render(
        model.source, DeflectionField.from_lens(model.mass, camera.grid, like=lenses.observation.image)
    )


def values(fit: Fitted) -> dict[str, Tensor]:
    return fit.problem.lens(fit.x).values


@pytest.mark.parametrize("model", ["model_1", "model_2", "model_3"])
def test_noisy_images_of_the_three_models_are_fitted_to_the_noise(model):
    lenses = model_lenses(model, batch=2)
    fit, observation = smooth(lenses.observation), lenses.observation
    assert relative(values(fit)["lens.theta_E"], THETA_E[model]) < 0.01
    noise = fit.problem.observation.noise
    if isinstance(noise, RectifiedCountNoise):  # estimated from the images; they are judged by the true one
        rms = lenses.source.amp[:, None, None, None] * 0.01 / 20
        assert relative(noise.background_rms, rms) < 0.25
        noise = RectifiedCountNoise(rms, torch.full_like(rms, 2.0))
    chi2 = replace(observation, noise=noise).chi2(rendered(fit, lenses)) / observation.n_unmasked
    assert bool(((chi2 > 0.9) & (chi2 < 1.1)).all()), chi2
    truth = lenses.clean(2)
    bicubic = Interpolation(name="bicubic").predict(observation, 2).image
    assert bool((psnr(rendered(fit, lenses, 2), truth) > psnr(bicubic, truth) + 10).all())


@pytest.fixture(scope="module")
def small() -> Lenses:
    return small_lenses()


@pytest.fixture(scope="module")
def small_fit(small) -> Fitted:
    return smooth(small.observation)


def test_all_parameters_of_sie_shear_and_sersic_are_found(small, small_fit):
    found, mass, source = values(small_fit), small.mass.profiles, small.source
    assert relative(found["lens.theta_E"], mass[0].theta_E) < 0.01
    for name, known in {"amp": source.amp, "R_sersic": source.R_sersic, "n_sersic": source.n_sersic}.items():
        assert relative(found[f"source.{name}"], known) < 0.05, name
    places = {"lens.e1": mass[0].e1, "lens.e2": mass[0].e2}
    places |= {"shear.gamma1": mass[1].gamma1, "shear.gamma2": mass[1].gamma2}
    places |= {f"source.{name}": getattr(source, name) for name in ("e1", "e2", "center_x", "center_y")}
    for name, known in places.items():
        assert float((found[name] - known).abs().max()) < 0.03, name
    chi2 = small.observation.chi2(rendered(small_fit, small)) / small.observation.n_unmasked
    assert bool(((chi2 > 0.9) & (chi2 < 1.1)).all()), chi2  # 1152 pixels: a scatter of 0.04
    assert bool((small_fit.end.cosine < 1e-3).all())


def test_pixels_that_integrate_are_fitted_as_such(small):
    camera = replace(small.observation.camera, supersampling=3)
    small = replace(small, observation=replace(small.observation, camera=camera))
    small = replace(small, observation=replace(small.observation, image=small.clean()))
    fit = smooth(small.observation)
    assert relative(values(fit)["lens.theta_E"], small.mass.profiles[0].theta_E) < 0.003
    assert float((small.observation.chi2(rendered(fit, small)) / small.observation.n_unmasked).max()) < 0.05


def test_the_flux_inside_the_mask_is_that_of_the_image(small):
    mask = torch.ones_like(small.observation.image, dtype=torch.bool)
    mask[:, :, 4:9, :] = False
    observation = replace(small.observation, mask=mask)
    clean = rendered(smooth(observation), small)
    flux = [(image * mask).sum((1, 2, 3)) for image in (clean, observation.image)]
    assert relative(flux[0], flux[1]) < 0.01


@pytest.mark.parametrize("law", ["error map", "exposure"])
def test_masked_pixels_have_no_influence(small, law):
    observation = small.observation
    if law == "exposure":
        observation = replace(observation, noise=ExposureNoise(float(observation.noise.sigma.mean()), 1e3))
    mask = torch.ones(1, 1, *observation.image.shape[-2:], dtype=torch.bool)
    mask[..., 5:12, 8:20] = False
    wild = torch.where(mask, observation.image, 1e3 * torch.randn(observation.image.shape))
    fits = [smooth(replace(observation, image=image, mask=mask)) for image in (observation.image, wild)]
    for name, value in values(fits[0]).items():
        torch.testing.assert_close(values(fits[1])[name], value, rtol=1e-5, atol=1e-6)


def test_each_image_of_a_batch_has_its_own_error_map(small):
    """Each image is spoilt elsewhere, and its own error map says where."""
    image, sigma = small.observation.image.clone(), small.observation.noise.sigma.clone()
    for i, rows in enumerate((slice(4, 12), slice(20, 28))):
        image[i, :, rows] += 3 * image.amax()
        sigma[i, :, rows] *= 1e6
    observation = replace(small.observation, image=image, noise=ErrorMap(sigma))
    together = smooth(observation)
    assert relative(values(together)["lens.theta_E"], small.mass.profiles[0].theta_E) < 0.02
    for i in range(2):
        alone = smooth(observation[torch.tensor([i])])
        for name in (
            "lens.theta_E",
            "source.R_sersic",
            "source.center_x",
            "source.center_y",
        ):  # float32: sums are rounded otherwise
            torch.testing.assert_close(
                values(together)[name][i], values(alone)[name][0], rtol=0.01, atol=0.005, msg=name
            )


def test_an_image_without_light_is_refused(small):
    with pytest.raises(LensphysError, match="no positive pixel inside the mask"):
        fit_lens(replace(small.observation, image=torch.zeros_like(small.observation.image)))


def test_nan_is_refused(small):
    image = small.observation.image.clone()
    image[1, 0, 3, 4] = math.nan
    with pytest.raises(LensphysError, match="image holds 1 NaN or infinite values of 2304"):
        fit_lens(replace(small.observation, image=image))


def test_light_below_the_noise_is_said_to_be_so(small):
    deep = ErrorMap(100 * small.observation.noise.sigma)
    fit = fit_lens(replace(small.observation, noise=deep))
    assert not bool(fit.seen.any())
    assert bool(fit_lens(small.observation).seen.all())


# ---------------------------------------------------------------- Einstein radius


def radius_of(field: DeflectionField) -> torch.Tensor:
    """As of a network's field: by interpolation."""
    alone = replace(field, formula=None)
    return einstein_radius(alone.deflection, torch.zeros_like(field.alpha[:, :, 0, 0]), field.grid.radius)


@pytest.mark.parametrize("theta_E", [0.5, 0.8128, 1.2815])
@pytest.mark.parametrize("ellipticity", [0.0, 0.1])  # a circle about an ellipse is off by about its square
@pytest.mark.parametrize("size", [(64, 64), (61, 70)])
def test_the_einstein_radius_of_an_isothermal_lens(theta_E, ellipticity, size):
    radius = torch.tensor([theta_E, 1.1 * theta_E])
    field = DeflectionField.from_lens(SIE(radius, ellipticity, -0.5 * ellipticity), PixelGrid(*size, 0.05), like=radius)
    assert relative(radius_of(field), radius) < 0.01


def test_the_einstein_radius_of_a_point_mass():
    field = DeflectionField.from_lens(PointMass(0.9), PixelGrid(64, 64, 0.05))
    assert relative(radius_of(field), 0.9) < 0.01


def test_there_is_no_einstein_radius_without_a_crossing():
    grid = PixelGrid(32, 36, 0.1)
    weak, strong, good = SIS(0.01), SIS(9.0), SIS(1.0)
    alpha = torch.cat([DeflectionField.from_lens(lens, grid).alpha for lens in (weak, strong, good)])
    found = radius_of(DeflectionField(alpha, grid))
    assert found.isnan().tolist() == [True, True, False]
