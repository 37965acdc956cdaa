"""The error bar: coverage on a lens whose truth is known, and what the data constrain."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from lenses import (
    deeper,
    freed_problem,
    one_thread,  # noqa: F401
    relative,
    seen_as,
    small_lenses,
    small_problem,
    with_bodies,
)
from torch import Tensor

from lensphys.fitting import FieldPriors, Fitted, LensProblem, Stop, minimised
from lensphys.fitting.derived import DERIVED, derived, derived_errors
from lensphys.fitting.posterior import Posterior
from lensphys.model import NFW, SIE, FieldPrior, Gaussian, LensModel, Member, Modes, Sersic, Shear
from lensphys.model.light.sersic import flux_sersic
from lensphys.prediction import BODY
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.einstein import einstein_radius

pytestmark = pytest.mark.usefixtures("float64")

Truth = tuple[LensProblem, Tensor]
PRIORS = FieldPriors(potential=FieldPrior(amplitude=0.1, scale=2.0, slope=3.0))


@pytest.fixture(scope="module")
def truth(float64) -> Truth:
    return small_problem(small_lenses(dtype=torch.float64))


@pytest.fixture(scope="module")
def many(truth) -> Fitted:
    """40 noise draws of one lens, fitted from the truth."""
    rows = torch.zeros(40, dtype=torch.long)
    problem, x = truth[0][rows], truth[1][rows]
    problem = seen_as(problem, x, seed=13)
    return Fitted(problem, minimised(problem, x, Stop(20)))


def about(problem: LensProblem, x: Tensor) -> Posterior:
    return Posterior.from_fit(Fitted.at(problem, x))


def at(problem: LensProblem, scale: int):
    return problem.observation.camera.at(scale)


def pair(value: float) -> Tensor:
    return torch.full((2,), value, dtype=torch.float64)


def arc(image: Tensor) -> Tensor:
    return image > 0.1 * image.amax((2, 3), keepdim=True)


def rendered(problem: LensProblem, x: Tensor, scale: int) -> Tensor:
    camera, model = problem.observation.camera.at(scale), problem.lens(x)
    return camera.render(model.source, DeflectionField.from_lens(model.mass, camera.grid, like=x))


def everything(problem: LensProblem, x: Tensor) -> Truth:
    """A sub-halo and a free source."""
    problem, x = with_bodies(problem, x, torch.tensor([[[-6.0, 0.7, 0.9]]] * len(x)).double())
    g = 0.3 * torch.randn(len(x), len(Modes(5)), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return freed_problem(problem, x, 5, g, half_side=2.0)


# ---------------------------------------------------------------- the image


def test_the_interval_covers_the_truth_as_often_as_it_says(truth, many):
    """68.3 % of the arcs' pixels lie within one sigma."""
    problem, x = many.problem, truth[1][torch.zeros(40, dtype=torch.long)]
    clean = rendered(problem, x, 2)
    error = rendered(problem, many.x, 2) - clean
    sigma = Posterior.from_fit(many).variance(at(problem, 2)).sqrt()
    assert sigma.shape == clean.shape
    z = (error / sigma)[arc(clean)]
    inside = float((z.abs() < 1).double().mean())
    assert 0.60 < inside < 0.76, inside
    assert float((z.abs() < 2).double().mean()) > 0.9
    assert 0.8 < float(z.square().mean().sqrt()) < 1.25
    # and it is no constant: where it says that it is sure, it is
    order = sigma[arc(clean)].argsort()
    half = len(order) // 2
    rms = [error[arc(clean)][part].square().mean().sqrt() for part in (order[:half], order[half:])]
    assert rms[0] < rms[1]


@pytest.mark.parametrize("full", [False, True], ids=["smooth", "with a sub-halo and a free source"])
def test_the_variance_is_the_scatter_of_its_draws(truth, full):
    """At such a depth the image is linear in the parameters."""
    problem, x = everything(*truth) if full else truth
    posterior = about(deeper(problem, 1000.0), x)
    draws = posterior.drawn(200)
    assert draws.shape == (200, *x.shape)
    images = torch.stack([rendered(problem, d, 2) for d in draws])
    bright = arc(rendered(problem, x, 2))
    found, known = posterior.variance(at(problem, 2)).sqrt()[bright], images.std(0)[bright]
    assert float((found / known).log().abs().mean()) < 0.1  # 200 draws: 5 %
    assert 0.93 < float((found / known).mean()) < 1.07


def test_draws_have_the_covariance_of_the_curvature(truth):
    posterior = about(*everything(*truth))
    steps = posterior.drawn(3000) - posterior.fitted.x
    white = torch.einsum("bij,nbi->nbj", posterior.factor, steps)  # L^T (x - x0)
    torch.testing.assert_close(white.mean(0), torch.zeros_like(white[0]), rtol=0, atol=0.09)
    for b in range(2):
        spread = white[:, b].T @ white[:, b] / 3000
        torch.testing.assert_close(spread, torch.eye(len(spread)), rtol=0, atol=0.13)
    assert not torch.equal(posterior.drawn(2, seed=1), posterior.drawn(2, seed=2))
    torch.testing.assert_close(posterior.drawn(2), posterior.drawn(2))


def test_sigma_follows_the_noise_and_the_pixel(truth):
    problem, x = truth
    sigma = about(problem, x).variance(at(problem, 1)).sqrt()
    better = about(deeper(problem, 2.0), x).variance(at(problem, 1)).sqrt()
    bright = arc(problem.render(x))
    torch.testing.assert_close(better[bright], 0.5 * sigma[bright], rtol=0.05, atol=0)  # but for the priors
    fine = about(problem, x).variance(at(problem, 2)).sqrt()
    ratio = fine.amax((2, 3)) / sigma.amax((2, 3))  # flux per pixel: a quarter of the pixel
    torch.testing.assert_close(ratio, torch.full_like(ratio, 0.25), rtol=0.25, atol=0)


def test_what_more_is_free_makes_it_wider(truth):
    problem, x = truth
    bright = arc(problem.render(x))
    free, full = freed_problem(problem, x, 5, half_side=2.0)
    narrow = about(problem, x).variance(at(problem, 1))[bright]
    wide = about(free, full).variance(at(problem, 1))[bright]
    assert bool((wide > 0.9 * narrow).all()) and float(wide.mean()) > 1.2 * float(narrow.mean())


def test_images_do_not_depend_on_their_batch(truth):
    problem, x = everything(*truth)
    both = about(problem, x)
    alone = about(problem[torch.tensor([1])], x[1:])
    torch.testing.assert_close(alone.variance(at(problem, 2))[0], both.variance(at(problem, 2))[1])
    torch.testing.assert_close(alone.bodies()[0], both.bodies()[1])


# ---------------------------------------------------------------- the parameters


def test_the_errors_are_the_scatter_of_fits_to_noise(many):
    errors, values = Posterior.from_fit(many).errors(), many.problem.lens(many.x).values
    assert list(errors) == list(many.problem.model.names)
    for name, error in errors.items():
        assert error.shape == (40,)
        scatter, mean = float(values[name].std()), float(error.mean())
        assert 0.65 < scatter / mean < 1.5, (name, scatter, mean)  # 40 draws: 11 %, and priors narrow


def test_the_covariance_is_that_of_fits_to_noise(truth, many):
    """Correlations as they are found, and the distance from the truth that all parameters together should have."""
    found, values = Posterior.from_fit(many).covariance(), many.problem.lens(many.x).values
    known = truth[0].lens(truth[1]).values
    away = torch.stack([values[n] - known[n][0] for n in found.names], dim=1)
    chi2 = torch.einsum("bi,bij,bj->b", away, found.values.inverse(), away)
    assert 0.75 < float(chi2.mean()) / len(found.names) < 1.25  # 40 draws of 13 numbers: 6 %
    spread = found.values.diagonal(dim1=1, dim2=2).sqrt()
    expected = (found.values / spread[:, :, None] / spread[:, None, :]).mean(0)
    strong = (expected.abs() > 0.5) & ~torch.eye(len(expected), dtype=torch.bool)
    assert strong.sum() > 4
    assert (torch.corrcoef(away.T)[strong] - expected[strong]).abs().max() < 0.3


def test_the_errors_cover_the_truth(truth, many):
    values, errors = many.problem.lens(many.x).values, Posterior.from_fit(many).errors()
    known = truth[0].lens(truth[1]).values
    z = torch.stack([(values[n] - known[n][0]) / errors[n] for n in errors])
    assert 0.60 < float((z.abs() < 1).double().mean()) < 0.78
    assert 0.8 < float(z.square().mean().sqrt()) < 1.25


def test_the_table_of_bodies(truth):
    """Place and strength of a planted sub-halo come out within their errors, and its gain is what it gains."""
    rows = torch.zeros(20, dtype=torch.long)
    problem, x = deeper(truth[0], 10.0)[rows], truth[1][rows]
    full, planted = with_bodies(problem, x, torch.tensor([[[2 * math.log(0.06), 0.75, 0.85]]] * 20).double())
    seen = seen_as(full, planted, seed=4)
    fit = Fitted(seen, minimised(seen, planted, Stop(15)))
    table = Posterior.from_fit(fit).bodies()
    assert table.shape == (20, 1, len(BODY))
    column = dict(zip(BODY, table[:, 0].unbind(1), strict=True))
    for name, known in (("x", 0.75), ("y", 0.85), ("theta_E", 0.06)):
        z = (column[name] - known) / column[f"{name}_error"]
        assert 0.3 < float(z.abs().median()) < 1.1, (name, z)  # of a Gaussian 0.67
        assert float((z.abs() < 2).double().mean()) >= 0.85, (name, z)
    bare = minimised(replace(seen, subhalos=0), x, Stop(20))
    gain = bare.cost - fit.end.cost
    assert bool((column["gain"] > 12).all())
    assert float((column["gain"] / gain).log().mean().abs()) < math.log(
        3
    )  # where it moves ln strength it is no parabola
    none = Posterior.from_fit(Fitted.at(truth[0], truth[1])).bodies()
    assert none.shape == (2, 0, 7)


# ---------------------------------------------------------------- sub-halos unseen, and what is constrained


def test_beyond_its_frame_a_free_source_may_be_what_its_field_would_be(truth):
    """There the light is the Sersic's, and its error the field's prior times it; a floor where there is no light."""
    problem, x = freed_problem(truth[0], truth[1], half_side=0.1)
    posterior, camera = about(problem, x), at(problem, 2)
    outside, clean = posterior.outside(camera), rendered(truth[0], truth[1], 2)
    spread = problem.free.sigma.square().sum(1).sqrt()[:, None, None, None]
    ratio = outside.sqrt() / (spread * clean)
    beta = camera.grid.positions(like=x) - problem.lens(x).mass(camera.grid.positions(like=x))
    center = torch.stack([problem.free.frame.center_x, problem.free.frame.center_y], 1)[:, :, None, None]
    away = (beta - center).abs().amax(1, keepdim=True)
    for there, low, high in (((away > 0.35) & (clean > 0.05 * clean.amax()), 0.85, 1.05), (away < 0.05, 0, 0.7)):
        assert there.sum() > 20 and low < float(ratio[there].min()) and float(ratio[there].max()) < high
    floor = (problem.free.frame.envelope.floor * problem.free.frame.reference * camera.grid.pixel_area).square()
    assert bool((outside >= floor[:, None, None, None]).all())
    assert bool((posterior.whole_variance(camera, 0.25) >= outside).all())


def test_undetected_subhalos_widen_the_bar_only_where_there_are_others(truth):
    problem, x = truth
    camera = at(problem, 2)
    assert float(about(problem, x).unresolved_subhalo_variance(camera, 0.25).abs().max()) == 0
    more, planted = with_bodies(problem, x, torch.tensor([[[-6.0, 0.7, 0.9]]] * 2).double())
    posterior = about(more, planted)
    found = posterior.unresolved_subhalo_variance(camera, 0.25)
    assert found.shape == (2, 1, 64, 72)
    assert float(found.amin()) >= 0 and bool((found.flatten(1).amax(1) > 0).all())
    torch.testing.assert_close(posterior.unresolved_subhalo_variance(camera, 0.5), 4 * found)
    clean = rendered(more, planted, 2)[0]
    assert float(found[0].flatten()[clean.flatten() < 0.01 * clean.max()].max()) < 0.1 * float(found[0].max())


def test_what_the_data_constrain(truth):
    problem, x = truth
    deep = deeper(problem, 3.0)
    grid = problem.observation.camera.grid.resampled(2)
    found = about(deep, x).constrained(PRIORS, grid)
    assert found.shape == (2, 1, 64, 72)
    assert float(found.min()) >= 0 and float(found.max()) <= 1
    clean = rendered(problem, x, 2)
    assert float(found[clean > 0.7 * clean.amax()].min()) > 0.8
    for corner in (found[..., :6, :6], found[..., -6:, -6:]):
        assert float(corner.max()) < 0.05
    shallow = about(deeper(problem, 0.01), x).constrained(PRIORS, grid)
    assert bool((shallow <= found + 1e-9).all()) and float(shallow.max()) < 0.5
    none = FieldPriors(potential=FieldPrior(amplitude=0))  # nothing is left to learn
    assert float(about(deep, x).constrained(none, grid).max()) < 1e-6


# ---------------------------------------------------------------- what follows from the parameters


def test_the_radius_of_mean_kappa_one():
    """theta_E of an SIE wherever it stands; shear moves it by its square; NaN if beyond the field or nowhere."""
    theta_E, centre = torch.tensor([0.9, 1.3]), torch.tensor([[0.1, -0.2], [-0.15, 0.05]])
    sie = SIE(theta_E, 0.1, -0.1, centre[:, 0], centre[:, 1])
    shear = Shear(0.05, -0.03, centre[:, 0], centre[:, 1])
    # a circle about an ellipse: off by about its square
    assert relative(einstein_radius(sie, centre, 2.5), theta_E) < 0.012
    torch.testing.assert_close(einstein_radius(sie + shear, centre, 2.5),
                               einstein_radius(sie, centre, 2.5), rtol=1e-6, atol=0)  # fmt: skip
    assert einstein_radius(sie, centre, 1.1).isnan().tolist() == [False, True]
    weak = NFW(Rs=torch.tensor([5.0, 5.0]), alpha_Rs=torch.tensor([1e-3, 1e-3]))
    assert bool(einstein_radius(weak, 0 * centre, 2.5).isnan().all())


def test_what_is_derived_of_a_sersic_behind_an_sie(truth):
    problem, x = truth
    found, values = derived(problem, x), problem.lens(x).values
    assert tuple(found) == tuple(DERIVED) and all(v.shape == (2,) for v in found.values())
    assert relative(found["theta_E_total"], values["lens.theta_E"]) < 0.01
    flux = torch.stack([values["source.amp"][i] * flux_sersic(float(values["source.R_sersic"][i]), 1.0)
                        for i in range(2)])  # fmt: skip
    assert relative(found["source_flux"], flux) < 0.02
    assert relative(found["source_radius"], values["source.R_sersic"]) < 0.05
    unlensed = problem.render(x).sum((1, 2, 3)) / flux
    torch.testing.assert_close(found["magnification"], unlensed, rtol=0.05, atol=0)


def test_a_parameter_at_its_bound_has_no_error(truth):
    problem, x = truth
    other = x.clone()
    other[1, problem.model.names.index("source.n_sersic")] = -12.0
    errors = about(problem, other).errors()
    assert errors["source.n_sersic"].isnan().tolist() == [False, True]
    assert not errors["lens.theta_E"].isnan().any()


def test_sources_that_are_far_apart_count_in_full():
    smooth = LensModel.smooth()
    others = {"disc": Member.from_component(Sersic), "knot": Member.from_component(Gaussian)}
    images = small_lenses(dtype=torch.float64).observation
    problem = LensProblem.from_observation(images, replace(smooth, source={**smooth.source, **others}))
    values = problem.model.typical(problem.unit)
    values |= {"source.R_sersic": pair(0.1), "source.n_sersic": pair(1.0), "source.amp": pair(3.0)}
    values |= {
        "disc.R_sersic": pair(0.1),
        "disc.n_sersic": pair(1.0),
        "disc.amp": pair(3.0),
        "disc.center_x": pair(1.1),
    }
    values |= {"knot.amp": pair(0.5), "knot.sigma": pair(0.05), "knot.center_y": pair(-1.1)}
    each = 3.0 * flux_sersic(0.1, 1.0)
    flux, place = 2 * each + 0.5, torch.tensor([[0.0, 0.0], [1.1, 0.0], [0.0, -1.1]]).double()
    middle = (place * torch.tensor([each, each, 0.5])[:, None]).sum(0) / flux
    nearest = (place - middle).norm(dim=1).min()
    found = derived(problem, problem.unconstrained(values))
    assert relative(found["source_flux"], pair(flux)) < 0.02
    assert bool((found["source_radius"] > nearest - 0.2).all())  # nothing shines about the middle of all three


def test_a_subhalo_adds_its_mass_to_the_total(truth):
    problem, x = truth
    more, planted = with_bodies(problem, x, torch.tensor([[[2 * math.log(0.2), 0.4, 0.3]]] * 2).double())
    before, after = (derived(p, v)["theta_E_total"] for p, v in ((problem, x), (more, planted)))
    # mean kappa = 1 about an isothermal lens and a point inside: theta^2 = theta_E theta + 0.2^2
    known = 0.5 * (before + (before**2 + 4 * 0.04).sqrt())
    torch.testing.assert_close(after, known, rtol=0.005, atol=0)


def test_the_errors_of_what_is_derived_are_the_scatter_of_fits(many):
    alone = many.rows(torch.arange(6))
    errors = derived_errors(Posterior.from_fit(alone), draws=24)
    found = derived(many.problem, many.x)
    for name in DERIVED:
        assert errors[name].shape == (6,)
        assert 0.5 < float(found[name].std() / errors[name].mean()) < 2.0, name
