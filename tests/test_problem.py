"""The least-squares problem of a lens: its derivatives against forward mode and finite differences, priors, rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from lenses import (
    Lenses,
    deeper,
    freed_problem,
    one_thread,  # noqa: F401
    seen_as,
    small_lenses,
    small_problem,
    with_bodies,
)
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.fitting import LensProblem, PotentialCorrection
from lensphys.fitting.brightness import Brightness
from lensphys.fitting.newton import value_and_jacobian
from lensphys.fitting.problem import exposed, products
from lensphys.model import EPL, CosineBasis, FieldPrior, LensModel, Member, Multipole, Sersic, Shear
from lensphys.observation import ExposureNoise, GaussianPSF, NoPSF, RectifiedCountNoise
from lensphys.tracing.deflection import DeflectionField

pytestmark = pytest.mark.usefixtures("float64")

Truth = tuple[LensProblem, Tensor]
TWO = torch.tensor([[[-5.0, 0.7, 0.8], [-6.5, -0.9, 0.55]], [[-6.0, 1.1, -0.4], [-5.5, 0.3, 1.2]]]).double()


def lenses() -> Lenses:
    return small_lenses(height=24, width=28, dtype=torch.float64)


@pytest.fixture(scope="module")
def truth(float64) -> Truth:
    return small_problem(lenses())


def draw(*shape: int, seed: int = 4) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_potential(problem: LensProblem, x: Tensor, modes: int = 4, amplitude: float = 0.05) -> Truth:
    """A correction drawn from its prior."""
    basis = CosineBasis.covering(problem.observation.camera.grid, modes)
    sigma = FieldPrior(amplitude=amplitude).sigma(basis, like=problem.unit).expand(len(problem), -1, -1)
    problem = replace(problem, potential=PotentialCorrection(basis, sigma))
    return problem, torch.cat([x, draw(len(x), modes**2, seed=6)], dim=1)


def everything(problem: LensProblem, x: Tensor) -> Truth:
    """Two sub-halos, a free source and a potential; the frame holds all that is seen, for its edge has no slope."""
    problem, x = with_bodies(problem, x, TWO)
    return free_and_bent(problem, x)


def free_and_bent(problem: LensProblem, x: Tensor) -> Truth:
    problem, x = freed_problem(problem, x, g=0.5 * draw(len(x), 33), half_side=3.0)
    return with_potential(problem, x)


# ---------------------------------------------------------------- the model


def test_the_vector_of_the_truth_renders_the_truth(truth):
    problem, x = truth
    torch.testing.assert_close(problem.render(x), lenses().clean(), rtol=1e-9, atol=1e-12)
    chi2 = problem.chi2(x)
    assert bool(((chi2 > 0.85) & (chi2 < 1.15)).all())
    values = problem.lens(x).values
    torch.testing.assert_close(values["source.amp"], lenses().source.amp)
    torch.testing.assert_close(values["lens.theta_E"], lenses().mass.profiles[0].theta_E)
    torch.testing.assert_close(problem.unconstrained(values), x)


def test_the_parts_of_a_vector(truth):
    problem, x = everything(*truth)
    assert problem.sizes == (14, 6, 33, 16) and x.shape == (2, 69)
    own, bodies, g, psi = problem.parts(x)
    torch.testing.assert_close(own, truth[1])
    torch.testing.assert_close(bodies, TWO.flatten(1))
    found = problem.bodies.made(bodies)
    torch.testing.assert_close(found.strength, TWO[..., 0].exp())
    torch.testing.assert_close(found.center_x, TWO[..., 1])
    torch.testing.assert_close(found.center_y, TWO[..., 2])
    assert g.shape == (2, 33) and psi.shape == (2, 16)


def test_every_part_of_the_vector_is_in_the_image(truth):
    """A body, the source's field and the potential each change what is seen, by what they say they do."""
    problem, x = everything(*truth)
    lens, theta = problem.lens(x), problem.fine.positions(like=x)
    smooth = truth[0].lens(truth[1])
    alpha = lens.mass(theta) - smooth.mass(theta)
    psi = problem.parts(x)[3].reshape(2, 4, 4) * problem.potential.sigma
    bent = problem.potential.basis.gradient(psi, theta)
    dx, dy = theta[:, 0] - TWO[..., 1].T[:, :, None, None], theta[:, 1] - TWO[..., 2].T[:, :, None, None]
    scale = TWO[..., 0].exp().T[:, :, None, None] / (dx**2 + dy**2 + problem.bodies.core**2)
    torch.testing.assert_close(alpha, bent + torch.stack([(scale * dx).sum(0), (scale * dy).sum(0)], dim=1))
    field = DeflectionField.from_lens(lens.mass, problem.fine, like=x)
    torch.testing.assert_close(problem.render(x), problem.observation.camera.render(lens.source, field))


# ---------------------------------------------------------------- the Jacobian


def with_mask(problem: LensProblem) -> LensProblem:
    mask = torch.ones(2, 1, 24, 28, dtype=torch.bool)
    mask[0, :, 4:9] = False
    mask[1, :, :, :7] = False
    return LensProblem.from_observation(replace(problem.observation, mask=mask))


def with_camera(problem: LensProblem, **changes: object) -> LensProblem:
    camera = replace(problem.observation.camera, **changes)
    return LensProblem.from_observation(replace(problem.observation, camera=camera))


def with_noise(problem: LensProblem, noise: object) -> LensProblem:
    observation = replace(problem.observation, image=problem.observation.image.clamp(min=0), noise=noise)
    return LensProblem.from_observation(observation)


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
    problem, x = PROBLEMS[kind](truth[0]), truth[1]
    assert (kind == "as it is") == (problem is truth[0])
    if full == "everything":
        problem, x = everything(problem, x)

    def model(vector: Tensor, rows: Tensor) -> Tensor:
        return -problem[rows].residual(vector)

    known, jacobian = value_and_jacobian(model, x, torch.arange(2))
    found, columns = problem.system(x)
    torch.testing.assert_close(found, -known, rtol=1e-9, atol=1e-9)
    size = jacobian.norm(dim=2, keepdim=True).clamp(min=1e-3)
    # 1e-5: the SIE's F' is exact, its F a rational approximation
    wrong = ((columns - jacobian) / size).abs() > 1e-5
    # where alpha jumps, in the (smaller) pixel that holds the lens's centre, the slope is cut: seen through the PSF
    near = problem.observation.camera.grid.positions(like=known).norm(dim=1).flatten() < 0.5
    far = ~near
    assert not bool(wrong[:, :, far].any()), wrong[:, :, far].any(2).nonzero().tolist()
    assert kind == "integrating pixels" or not bool(wrong.any())
    assert bool((columns[:, :14].norm(dim=2) > 0).all())


def test_the_normal_equations_are_those_of_data_and_priors(truth):
    problem, x = everything(*truth)
    x = x + 0.1 * draw(*x.shape, seed=9)

    def whole(vector: Tensor, rows: Tensor) -> Tensor:
        part = problem[rows]
        return torch.cat([part.residual(vector), part.prior(vector)], dim=1)

    r, j = value_and_jacobian(whole, x, torch.arange(2))
    found = problem.normal(x)
    torch.testing.assert_close(found.cost, 0.5 * r.square().sum(1))
    torch.testing.assert_close(problem.cost(x), found.cost)
    scale = j.norm(dim=2)
    gradient = torch.einsum("bpn,bn->bp", j, r)
    assert float(((found.gradient - gradient) / (scale * r.norm(dim=1, keepdim=True))).abs().max()) < 1e-6
    hessian = j @ j.transpose(1, 2)
    assert float(((found.hessian - hessian) / (scale[:, :, None] * scale[:, None])).abs().max()) < 1e-5
    cosine = (gradient.abs() / (scale * r.norm(dim=1, keepdim=True))).amax(1)
    torch.testing.assert_close(found.cosine, cosine, rtol=1e-3, atol=1e-6)


# ---------------------------------------------------------------- maps against finite differences


def tied() -> LensModel:
    """EPL, shear and m = 4 about its centre, two sources of which the second sits on the first."""
    about = {name: f"lens.{name}" for name in ("center_x", "center_y")}
    mass = {
        "lens": Member.from_component(EPL),
        "shear": Member.from_component(Shear, about),
        "boxy": Member.from_component(Multipole, about, m=4),
    }
    on = {name: f"source.{name}" for name in ("center_x", "center_y")}
    return LensModel(mass, {"source": Member.from_component(Sersic), "knot": Member.from_component(Sersic, on)})


def epl(problem: LensProblem, x: Tensor, model: LensModel) -> Truth:
    """The same lens in a richer model."""
    more = replace(problem, model=model, space=model.space(problem.observation.camera.grid.radius))
    values = problem.lens(x).values
    one = torch.ones_like(problem.unit)
    values |= {"lens.gamma": 2.1 * one, "boxy.a_m": 0.02 * one, "boxy.phi_m": 0.4 * one}
    values |= {"knot.amp": 2 * values["source.amp"], "knot.R_sersic": 0.15 * one, "knot.n_sersic": 0.8 * one}
    values |= {"knot.e1": 0.1 * one, "knot.e2": 0.2 * one}
    return more, more.unconstrained({name: values[name] for name in model.names})


def one_source(problem: LensProblem, x: Tensor) -> Truth:
    model = tied()
    model = replace(model, source={"source": model.source["source"]})
    return epl(problem, x, model)


MODELS: dict[str, Callable[[LensProblem, Tensor], Truth]] = {
    "SIE, shear, Sersic": lambda p, x: (p, x),
    "SIE, shear, Sersic, bodies, free source, potential": everything,
    "EPL, shear, m = 4": one_source,
    "two sources, the first of them free": lambda p, x: free_and_bent(*epl(p, x, tied())),
    "EPL, shear, m = 4, bodies, free source, potential": lambda p, x: everything(*one_source(p, x)),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_map_is_that_of_finite_differences(truth, name):
    problem, x = MODELS[name](*truth)
    camera = problem.observation.camera
    found = torch.cat([exposed(camera, maps) for maps in Brightness(problem, x, problem.coarse).jacobian()], dim=1)
    assert found.shape == (2, x.shape[1], 24, 28)
    near = (camera.grid.positions(like=x).norm(dim=1) < 0.3)[0]  # alpha jumps at the lens's centre
    for i in range(x.shape[1]):
        step = 1e-5 * torch.eye(x.shape[1])[i]
        known = (problem.render(x + step) - problem.render(x - step))[:, 0] / 2e-5
        size = known.square().mean((1, 2)).sqrt()[:, None, None].clamp(min=1e-6)
        wrong = ((found[:, i] - known) / size).abs()
        assert float(wrong[:, ~near].max()) < 1e-3, (i, (problem.model.names + ("...",) * 99)[i], float(wrong.max()))


def test_tied_centres_move_all_that_is_tied(truth):
    problem, x = epl(*truth, tied())
    names = problem.model.names
    assert not any(n.startswith(("shear.center", "boxy.center", "knot.center")) for n in names)
    lens = problem.lens(x)
    bodies = dict(zip(problem.model.mass, lens.mass.summands, strict=True))
    for other in ("shear", "boxy"):
        torch.testing.assert_close(bodies[other].center_x, bodies["lens"].center_x)
        torch.testing.assert_close(bodies[other].center_y, bodies["lens"].center_y)
    source, knot = lens.source.summands
    torch.testing.assert_close(knot.center_x, source.center_x)


def test_the_derivative_by_a_tied_centre_of_two_sources(truth):
    """Where a source sits on another, moving the other moves both."""
    problem, x = epl(*truth, tied())
    found = torch.cat(list(Brightness(problem, x, problem.coarse).jacobian()), dim=1)
    i = problem.model.names.index("source.center_x")
    step = 1e-5 * torch.eye(x.shape[1])[i]

    def light(x: Tensor) -> Tensor:
        lens, theta = problem.lens(x), problem.coarse.positions(like=x)
        return lens.source(theta - lens.mass(theta))[:, 0]

    known = (light(x + step) - light(x - step)) / 2e-5
    size = known.square().mean((1, 2)).sqrt()[:, None, None]
    near = (problem.coarse.positions(like=x).norm(dim=1) < 0.3)[0]
    assert float((((found[:, i] - known) / size).abs())[:, ~near].max()) < 1e-2


def test_masked_pixels_have_no_residual_and_no_slope(truth):
    problem = with_mask(truth[0])
    residual, columns = problem.system(truth[1])
    hidden = (problem.observation.weight == 0).flatten(1)
    assert float(residual[hidden].abs().max()) == 0
    for i in range(2):
        assert float(columns[i][:, hidden[i]].abs().max()) == 0


def test_the_slopes_of_parameters_and_priors(truth):
    space, u = truth[0].space, truth[1] + 0.1
    for name, found in zip(space.names, space.slopes(u).unbind(1), strict=True):
        i = space.names.index(name)
        direction = torch.zeros_like(u)
        direction[:, i] = 1
        known = torch.func.jvp(lambda x, n=name: space.physical(x)[n], (u,), (direction,))[1]
        torch.testing.assert_close(found, known)
    whole = torch.autograd.functional.jacobian(space.prior_residual, u)  # (B, M, B, P)
    for b in range(2):
        torch.testing.assert_close(space.prior_slopes(u)[b], whole[b, :, b].T)


def test_the_steepness_is_that_of_the_named_values(truth):
    problem, x = truth
    found = problem.steepness(x)
    for i, name in enumerate(problem.model.names):
        direction = torch.zeros_like(x)
        direction[:, i] = 1
        known = torch.func.jvp(lambda u, n=name: problem.values(u)[n], (x,), (direction,))[1]
        torch.testing.assert_close(found[:, i], known, msg=name)


def test_the_priors_of_bodies_and_fields(truth):
    problem, x = everything(*truth)
    prior = problem.prior(x)
    smooth = truth[0].prior(truth[1])
    torch.testing.assert_close(prior[:, : smooth.shape[1]], smooth)
    rest = prior[:, smooth.shape[1] :]
    bodies = problem.bodies
    torch.testing.assert_close(rest[:, :6:3], (TWO[..., 0] - bodies.strength[0]) / bodies.strength[1])
    torch.testing.assert_close(rest[:, 1:6:3], TWO[..., 1] / bodies.reach)
    torch.testing.assert_close(rest[:, 6:], torch.cat(problem.parts(x)[2:], dim=1))  # in units of their sigma
    assert bodies.volume == pytest.approx(math.log(3) + 2 * math.log(4))


# ---------------------------------------------------------------- batches


def test_what_is_held_stays_near_what_it_is(truth):
    problem, x = truth
    problem, x = problem[torch.tensor([0])], x[:1]
    held, start = problem.held(x, 0.01, ["lens.theta_E", "shear.gamma1"])
    before, low, high = (held.values(y) for y in (start, start - 50, start + 50))
    for name, value in problem.values(x).items():
        torch.testing.assert_close(before[name], value)
    for p in problem.space.parameters:
        kept = p.name in ("lens.theta_E", "shear.gamma1")
        unit = 1 if not p.in_peaks else float(problem.unit)
        reach = float(high[p.name] - low[p.name]) / unit
        assert reach == pytest.approx((0.02 if kept else 1.0) * (p.high - p.low), rel=1e-3)
    again, back = held.let_go(start)
    assert again.space == problem.space and again.released is None
    torch.testing.assert_close(back, x)
    moved = held.centred_on(0.2, 0.0)
    assert moved.released is not None
    for space in (moved.space, moved.released):
        assert {p.name: p for p in space.parameters}["lens.center_x"].mean == pytest.approx(0.2)
    nested, _ = held.held(start, 0.02, ["lens.theta_E"])
    assert nested.released == problem.space  # not what was held before
    assert problem.let_go(x) == (problem, x)


def test_rows_of_a_problem(truth):
    problem, x = everything(*truth)
    second = torch.tensor([1])
    part, alone = problem[second], x[second]
    assert len(part) == 1
    torch.testing.assert_close(part.residual(alone)[0], problem.residual(x)[1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(part.system(alone)[1][0], problem.system(x)[1][1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(part.cost(alone)[0], problem.cost(x)[1])
    torch.testing.assert_close(problem[torch.tensor([1, 0, 1])].cost(x[[1, 0, 1]]), problem.cost(x)[[1, 0, 1]])
    torch.testing.assert_close(part.free.frame.center_x, problem.free.frame.center_x[1:])


def test_maps_a_few_at_a_time_are_those_at_once(truth, monkeypatch):
    problem, x = everything(*truth)
    whole = torch.cat(list(Brightness(problem, x, problem.coarse).jacobian()), dim=1)
    monkeypatch.setattr("lensphys.fitting.brightness._MAPS_AT_ONCE", 2 * 24 * 28 * 5)
    parts = list(Brightness(problem, x, problem.coarse).jacobian())
    assert len(parts) == 2 + 6 + 4  # model, bodies, 33 modes row by row and 16, 5 at a time
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)
    monkeypatch.setattr("lensphys.fitting.brightness._MAPS_AT_ONCE", 2 * 24 * 28 * 12)
    torch.testing.assert_close(torch.cat(list(Brightness(problem, x, problem.coarse).jacobian()), dim=1), whole)
    monkeypatch.setattr("lensphys.fitting.problem._PIXELS_AT_ONCE", 100)
    normal = problem.normal(x)
    monkeypatch.undo()
    torch.testing.assert_close(normal.hessian, problem.normal(x).hessian)
    torch.testing.assert_close(normal.gradient, problem.normal(x).gradient)


def test_the_middle_of_the_images(truth):
    """Fewer pixels of the same lens: bounds and priors stay, and away from the new edge so does the model."""
    problem, x = everything(*truth)
    inner = problem.inner(16, 18)
    assert inner.observation.image.shape == (2, 1, 16, 18) and inner.observation.camera.grid.shape == (16, 18)
    torch.testing.assert_close(inner.observation.image, problem.observation.image[..., 4:20, 5:23])
    torch.testing.assert_close(inner.inverse_sigma, problem.inverse_sigma[..., 4:20, 5:23])
    torch.testing.assert_close(inner.prior(x), problem.prior(x))
    torch.testing.assert_close(inner.lens(x).values, problem.lens(x).values)
    whole, part = problem.render(x)[..., 4:20, 5:23], inner.render(x)
    torch.testing.assert_close(part[..., 4:-4, 4:-4], whole[..., 4:-4, 4:-4], rtol=1e-3, atol=1e-4 * float(whole.max()))
    assert inner.radius == problem.radius == problem.observation.camera.grid.radius


def test_noise_laws_are_merged(truth):
    rows = torch.tensor([0])
    other = RectifiedCountNoise(COUNTS.background_rms[:1] * 3, COUNTS.shot[:1] * 5)
    both = COUNTS.merged(rows, other)
    torch.testing.assert_close(both.background_rms.flatten(), torch.tensor([0.06, 0.05]))
    torch.testing.assert_close(both.shot.flatten(), torch.tensor([0.05, 0.02]))
    number = ExposureNoise(0.1, 1e3)
    assert number.merged(rows, number) == number
    image = truth[0].observation.image
    assert number.updated(image, image, torch.ones_like(image)) is number
    widths = GaussianPSF(torch.tensor([0.2, 0.4])).merged(rows, GaussianPSF(torch.tensor([0.3])))
    torch.testing.assert_close(widths.fwhm, torch.tensor([0.3, 0.4]))


def test_counts_learn_their_noise_from_the_model(truth):
    """From the true clean image the law's numbers come out within their statistical error."""
    clean = truth[0].render(truth[1]).repeat(1, 1, 4, 4)
    law = RectifiedCountNoise(torch.full((2, 1, 1, 1), 0.1), torch.full((2, 1, 1, 1), 0.1))
    image = law.sample(clean, torch.Generator().manual_seed(2))
    wrong = RectifiedCountNoise(0.7 * law.background_rms, 2 * law.shot)
    for _ in range(4):
        wrong = wrong.updated(image, clean, torch.ones_like(image))
    torch.testing.assert_close(wrong.shot, law.shot, rtol=0.15, atol=0)
    torch.testing.assert_close(wrong.background_rms, law.background_rms, rtol=0.15, atol=0)


def test_counts_are_renewed_and_a_known_instrument_stays(truth):
    counted = with_noise(truth[0], COUNTS)
    renewed = counted.renewed(truth[1])
    assert not torch.equal(renewed.inverse_sigma, counted.inverse_sigma)
    assert not torch.equal(renewed.observation.noise.background_rms, COUNTS.background_rms)
    problem, x = truth
    torch.testing.assert_close(problem.renewed(x).inverse_sigma, problem.inverse_sigma)
    other = seen_as(problem, x, noise=0)
    assert float(other.residual(x).abs().max()) < 1e-9
    torch.testing.assert_close(deeper(problem, 3.0).residual(x), 3 * problem.residual(x))


def test_an_image_without_light_is_refused(truth):
    observation = truth[0].observation
    with pytest.raises(LensphysError, match="no positive pixel inside the mask: there is nothing to fit"):
        LensProblem.from_observation(replace(observation, image=-observation.image.abs()))


def test_pixels_that_answer_to_nothing_are_left_out_of_the_normal_equations():
    columns, residual = draw(2, 5, 40), draw(2, 40)
    columns[:, :, ::3] = 0
    gradient, hessian = products(residual, columns)
    torch.testing.assert_close(gradient, -(columns @ residual[:, :, None])[:, :, 0])
    torch.testing.assert_close(hessian, columns @ columns.transpose(1, 2))
    assert float(products(residual, 0 * columns)[1].abs().max()) == 0
