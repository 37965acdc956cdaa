"""A source of any shape: the Sersic in the limit, positive, with right slopes and derivatives; its modes; its fit."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from lenses import (
    deeper,
    finite,
    freed_problem,
    one_thread,  # noqa: F401
    relative,
    seen_as,
    small_lenses,
    small_problem,
)
from pydantic import ValidationError
from torch import Tensor

from lensphys.fitting import Fitted, FreeSourceSettings, LensProblem, Stop, freed, minimised
from lensphys.fitting.brightness import Brightness
from lensphys.fitting.source import source_frame
from lensphys.model import Envelope, Frame, FreeSource, Modes, Sersic, SourcePrior
from lensphys.tracing.grid import PixelGrid

pytestmark = pytest.mark.usefixtures("float64")

NAMES = tuple(p.name for p in Sersic.parameters)
GRID = PixelGrid(20, 24, 0.05)  # 0.5" and 0.6" half wide: inside of the frames below
MODES = Modes(5)


def pair(a: float, b: float) -> Tensor:
    return torch.tensor([a, b], dtype=torch.float64)


SERSIC = Sersic(
    pair(3.0, 0.2), pair(0.25, 0.3), pair(1.0, 1.6), pair(0.1, -0.15), pair(-0.2, 0.05), pair(0.03, -0.02),
    pair(-0.03, 0.013),
)  # fmt: skip


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def source(g: Tensor, sersic: Sersic = SERSIC, half_side: float = 0.8) -> FreeSource:
    return FreeSource(sersic, g, MODES, Frame.from_sersic(sersic, pair(half_side, half_side)))


def beta(grid: PixelGrid = GRID) -> Tensor:
    return grid.positions(like=pair(0, 0)).expand(2, -1, -1, -1)


# ---------------------------------------------------------------- the light


def test_without_a_field_it_is_the_sersic_and_a_floor():
    found, known = source(0 * draw(2, len(MODES)))(beta()), SERSIC(beta())
    reference = torch.stack([source(draw(2, len(MODES))).frame.reference]).reshape(2, 1, 1, 1)
    at = Sersic(**{**SERSIC.values, "e1": 0.0, "e2": 0.0, "center_x": 0.0, "center_y": 0.0})
    beside = torch.zeros(2, 2, 1, 1)
    beside[:, 0, 0, 0] = 0.3 * SERSIC.R_sersic
    torch.testing.assert_close(reference, at(beside))  # the brightness at 0.3 R_sersic
    capped = torch.minimum(known, 3 * reference)
    torch.testing.assert_close(found, capped + 1e-3 * reference)
    assert bool((known[0] < 3 * reference[0]).all())  # an exponential disc is never capped


def test_without_cap_and_floor_it_is_the_sersic():
    steep = replace(SERSIC, n_sersic=pair(4.0, 3.0))
    found = source(torch.zeros(2, len(MODES)), steep)
    bare = replace(found, frame=replace(found.frame, envelope=Envelope(cap=1e12, floor=0.0)))
    torch.testing.assert_close(bare(beta()), steep(beta()))


def test_a_cusp_is_capped_and_the_field_can_fill_it():
    steep = replace(SERSIC, n_sersic=pair(6.0, 5.0))
    g = torch.zeros(2, len(MODES))
    reference = source(g, steep).frame.reference.reshape(2, 1, 1, 1)
    assert bool((source(g, steep)(beta()).flatten(1).amax(1) <= 3.002 * reference.flatten()).all())
    g[:, 0] = 1.0  # the constant mode: e times as bright
    torch.testing.assert_close(source(g, steep)(beta()), torch.e * source(0 * g, steep)(beta()))


@pytest.mark.parametrize("size", [1.0, 3.0, 100.0])
def test_it_is_positive_and_its_sersic_outside_of_its_frame(size):
    found = source(size * draw(2, len(MODES)), half_side=0.4)
    place, window = found.frame.inside(beta())
    light = found(beta())
    assert finite(light) and bool((light > 0).all())
    assert bool((window == 0).any())
    torch.testing.assert_close(light[window == 0], SERSIC(beta())[window == 0])
    away = (beta() - torch.stack([SERSIC.center_x, SERSIC.center_y], 1)[:, :, None, None]).abs().amax(1, keepdim=True)
    assert bool((window[away < 0.4] == 1).all()) and bool((window[away > 0.501] == 0).all())
    torch.testing.assert_close(place[:, :, 5, 7] * 0.8 - 0.4 + torch.stack([SERSIC.center_x, SERSIC.center_y], 1),
                               beta()[:, :, 5, 7])  # fmt: skip


def test_the_slope_is_that_of_autograd():
    found, position = source(0.3 * draw(2, len(MODES))), beta().clone().requires_grad_()
    (known,) = torch.autograd.grad(found(position).sum(), position)
    torch.testing.assert_close(found.gradient(beta()), known, rtol=1e-8, atol=1e-8 * float(known.abs().max()))
    capped = source(0.3 * draw(2, len(MODES)), replace(SERSIC, n_sersic=pair(6.0, 5.0)))
    (known,) = torch.autograd.grad(capped(position).sum(), position)
    torch.testing.assert_close(capped.gradient(beta()), known, rtol=1e-8, atol=1e-8 * float(known.abs().max()))
    small = source(0.3 * draw(2, len(MODES)), half_side=0.4)
    fading = (small.frame.inside(position)[1] < 1) & (small.frame.inside(position)[1] > 0)
    (known,) = torch.autograd.grad(small(position).sum(), position)
    assert int(fading.sum()) > 10  # the edge of the frame is among the places
    torch.testing.assert_close(small.gradient(beta()), known, rtol=1e-8, atol=1e-8 * float(known.abs().max()))


@pytest.mark.parametrize("moving", [False, True], ids=["still", "moving"])
@pytest.mark.parametrize("n", [(1.0, 1.6), (6.0, 5.0)])
def test_the_derivatives_are_those_of_finite_differences(n, moving):
    sersic = replace(SERSIC, n_sersic=pair(*n))
    g = 0.3 * draw(2, len(MODES))
    found = source(g, sersic)
    found = replace(found, frame=found.frame.moving(sersic)) if moving else found
    light, columns = found.derivatives(beta(), NAMES)
    torch.testing.assert_close(light, found(beta()))
    assert columns.shape == (2, 7, 1, *GRID.shape)
    for i, name in enumerate(NAMES):
        step = 1e-6
        ends = []
        for sign in (1, -1):
            moved = replace(sersic, **{name: getattr(sersic, name) + sign * step})
            ends.append(replace(found, sersic=moved, frame=found.frame.about(moved))(beta()))
        known = (ends[0] - ends[1]) / (2 * step)
        edge = (sersic(beta()) / (3 * found.frame.reference.reshape(2, 1, 1, 1)) - 1).abs() < 1e-3
        scale = float(known.abs().max())
        torch.testing.assert_close(columns[:, i][~edge], known[~edge], rtol=1e-4, atol=1e-6 * scale, msg=name)
    two = found.derivatives(beta(), ("e1", "amp"))[1]
    torch.testing.assert_close(two, columns[:, [3, 0]])


def test_a_frame_that_moves_takes_all_of_the_source_with_it():
    """Twice as large and elsewhere it is the same source: no size is likelier than another by the field's prior."""
    g, moved = 0.3 * draw(2, len(MODES)), replace(SERSIC, R_sersic=2 * SERSIC.R_sersic, center_x=SERSIC.center_x + 0.2)
    found = source(g)
    found = replace(found, frame=found.frame.moving(SERSIC))
    larger = replace(found, sersic=moved, frame=found.frame.about(moved))
    middle = torch.stack([SERSIC.center_x, SERSIC.center_y], 1)[:, :, None, None]
    there = middle + 2 * (beta() - middle) + torch.tensor([0.2, 0.0])[None, :, None, None]
    torch.testing.assert_close(larger(there), found(beta()))
    assert found.frame.about(SERSIC).half_side.tolist() == pytest.approx(found.frame.half_side.tolist())
    assert source(g).frame.about(moved) is not None and source(g).frame.about(moved).radii is None


def test_derivatives_of_an_image_whose_source_moves_its_frame():
    problem, x = small_problem(small_lenses(dtype=torch.float64))
    free, full = freed_problem(problem, x, 4, 0.3 * draw(len(x), len(Modes(4))), half_side=0.6)
    free = replace(free, free=replace(free.free, frame=free.free.frame.moving(problem.sersic(x))))
    columns, names, step = torch.cat(list(Brightness(free, full, free.fine).jacobian()), 1), free.model.names, 1e-5
    for name in ("source.R_sersic", "source.center_x", "lens.theta_E"):
        by = torch.zeros_like(full)
        by[:, names.index(name)] = step
        ends = [(lens := free.lens(full + sign * by)).source(theta - lens.mass(theta)) for sign in (1, -1)
                for theta in [free.fine.positions(like=full)]]  # fmt: skip
        known, found = (ends[0] - ends[1])[:, 0] / (2 * step), columns[:, names.index(name)]
        assert float((found - known).abs().quantile(0.99) / known.abs().max()) < 1e-4, name
        assert float((found - known).abs().mean() / known.abs().mean()) < 0.02, name


@pytest.mark.parametrize("size", [0.3, 5.0])  # 5: far beyond what the field may reach
def test_the_derivative_by_the_field_is_that_of_finite_differences(size):
    g, step = size * draw(2, len(MODES)), 1e-6
    for i in (0, 3, 7):
        moved = torch.zeros_like(g)
        moved[:, i] = step
        known = (source(g + moved)(beta()) - source(g - moved)(beta())) / (2 * step)
        a, b = (pair[i] for pair in MODES.pairs)
        along_x, along_y = MODES.along(source(g).frame.inside(beta())[0]).unbind(1)
        found = source(g).by_field(beta()) * (along_x[:, a] * along_y[:, b])[:, None]
        torch.testing.assert_close(found, known, rtol=1e-5, atol=1e-7 * float(known.abs().max()))


def test_a_field_beyond_its_bounds_is_as_good_as_at_them():
    g = torch.zeros(2, len(MODES))
    for far, bound in ((50.0, 6.0), (-50.0, -8.0)):
        g[:, 0] = far
        torch.testing.assert_close(source(g)(beta()), math.exp(bound) * source(0 * g)(beta()))


def test_the_frames_of_some_images():
    frame = source(draw(2, len(MODES))).frame
    some = frame.rows(torch.tensor([1]))
    for name in ("center_x", "center_y", "half_side", "reference"):
        torch.testing.assert_close(getattr(some, name), getattr(frame, name)[1:])


# ---------------------------------------------------------------- modes


def square(count: int) -> Tensor:
    """Places in the middle of so many squared cells."""
    line = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y])[None]


def test_modes_are_orthonormal_and_the_widest_come_first():
    modes = Modes(6)
    count = len(modes)
    maps = torch.cat([modes.field(one[None], square(20)) for one in torch.eye(count)])[:, 0].flatten(1)
    torch.testing.assert_close(maps @ maps.T / 400, torch.eye(count), rtol=0, atol=1e-12)
    assert max(x**2 + y**2 for x, y in zip(*modes.pairs, strict=True)) < 36
    assert count == sum(a * a + b * b < 36 for a in range(6) for b in range(6))
    torch.testing.assert_close(maps[0], torch.ones(400))


def test_the_variance_of_a_field_is_that_of_its_coefficients():
    modes = Modes(8)
    side = pair(1.0, 2.0)
    for prior in (SourcePrior(), SourcePrior(amplitude=1.3, scale=6.0, slope=1.5)):
        sigma = modes.sigma(prior, side)
        torch.testing.assert_close(sigma.square().sum(1), torch.full((2,), prior.amplitude**2))
        many = 600
        field = modes.field(sigma[1] * draw(many, len(modes)), square(16).expand(many, -1, -1, -1))
        assert float(field.square().mean()) == pytest.approx(prior.amplitude**2, rel=0.1)
    k = torch.pi * torch.tensor(modes.pairs).square().sum(0).sqrt() / 2.0
    ratio = sigma[1] / sigma[1, 0]
    torch.testing.assert_close(ratio, (1 + (k / 6.0) ** 2) ** -0.75)  # the spectrum falls as its law says


def test_grown_coefficients_are_the_same_field():
    few, more, place = Modes(5), Modes(9), square(7).expand(2, -1, -1, -1) ** 1.3
    c = draw(2, len(few))
    grown = more.grown(few.square(c))
    assert grown.shape == (2, len(more))
    torch.testing.assert_close(more.field(grown, place), few.field(c, place))
    torch.testing.assert_close(more.square(grown)[:, :5, :5], few.square(c))
    torch.testing.assert_close(few.grown(few.square(c)), c)


def test_field_and_gradient_are_those_of_autograd():
    modes, place = Modes(6), (square(7).expand(2, -1, -1, -1) ** 1.3).clone().requires_grad_()
    c = draw(2, len(modes))
    field, gradient = modes.field_and_gradient(c, place)
    torch.testing.assert_close(field, modes.field(c, place))
    (known,) = torch.autograd.grad(field.sum(), place)
    torch.testing.assert_close(gradient, known)
    i = list(zip(*modes.pairs, strict=True)).index((2, 1))  # and one mode as it is written down
    one = modes.field(torch.eye(len(modes))[i][None], place[:1].detach())
    px, py = place[:1].detach().unbind(1)
    torch.testing.assert_close(one[:, 0], 2 * (2 * torch.pi * px).cos() * (torch.pi * py).cos())


# ---------------------------------------------------------------- the fit


@pytest.fixture(scope="module")
def truth(float64) -> tuple[LensProblem, Tensor]:
    problem, x = small_problem(small_lenses(height=28, width=32, dtype=torch.float64))
    return deeper(problem, 3.0), x


def test_the_frame_holds_what_the_bright_pixels_show(truth):
    problem, x = truth
    settings = FreeSourceSettings()
    frame = source_frame(problem, x, settings)
    sersic, lens = problem.sersic(x), problem.lens(x)
    torch.testing.assert_close(frame.center_x, sersic.center_x)
    theta = problem.observation.camera.grid.positions(like=x)
    place, _ = frame.inside(theta - lens.mass(theta))
    inside = ((place > 0) & (place < 1)).all(1, keepdim=True)
    bright = problem.observation.smoothed * problem.inverse_sigma * 3 > settings.bright
    for i in range(2):
        assert float(inside[i][bright[i]].double().mean()) >= settings.within - 0.01
    tight = source_frame(problem, x, FreeSourceSettings(bright=30.0))
    assert bool((tight.half_side < frame.half_side).all())
    assert bool((source_frame(problem, x, FreeSourceSettings(largest=0.7)).half_side <= 0.7).all())
    dark = source_frame(deeper(problem, 1e-4), x, settings)  # nothing is bright: as large as may be
    torch.testing.assert_close(dark.half_side, pair(2.5, 2.5))


def test_a_freed_source_explains_one_that_is_no_sersic_and_brings_the_lens_closer(truth):
    problem, x = truth
    g = draw(2, len(Modes(8)), seed=3)
    full, planted = freed_problem(problem, x, 8, g, half_side=1.0, prior=SourcePrior(amplitude=0.5, scale=6.0))
    seen = replace(problem, observation=seen_as(full, planted).observation)
    smooth = Fitted(seen, minimised(seen, x, Stop(20)))
    settings = FreeSourceSettings(modes=(6, 10))
    found = freed(seen, smooth.x, settings)[-1]
    assert found.problem.free.modes == Modes(10)
    assert bool((found.problem.chi2(found.x) < 1.2).all()), found.problem.chi2(found.x)
    assert bool((found.evidence > smooth.evidence + 50).all())
    known, before, after = (p.lens(v).values["lens.theta_E"] for p, v in (
        (problem, x), (seen, smooth.x), (found.problem, found.x)))  # fmt: skip
    assert relative(after, known) < 0.003
    assert bool(((after - known).abs() < (before - known).abs()).all())
    grid = PixelGrid(24, 24, 0.05)
    true, got = full.lens(planted).source(grid.positions(like=x)), found.problem.lens(found.x).source(
        grid.positions(like=x))  # fmt: skip
    sersic = seen.lens(smooth.x).source(grid.positions(like=x))
    left = [((s - true).square().sum((1, 2, 3)) / true.square().sum((1, 2, 3))) for s in (got, sersic)]
    assert bool((left[0] < 0.3 * left[1]).all()), left


def test_a_source_freed_in_a_batch_is_as_alone(truth):
    problem, x = truth
    settings = FreeSourceSettings(modes=(6,))
    (both,) = freed(problem, x, settings)
    for i in range(2):
        row = torch.tensor([i])
        (alone,) = freed(problem[row], x[row], settings)
        torch.testing.assert_close(alone.end.cost[0], both.end.cost[i], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(both.rows(row).x, both.x[row])


@pytest.mark.parametrize("wrong", [{"modes": ()}, {"modes": (0,)}, {"priors": ()}, {"within": 1.2}, {"margins": 1.0}])
def test_settings_are_strict(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        FreeSourceSettings(**wrong)
