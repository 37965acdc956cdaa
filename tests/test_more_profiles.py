"""Power law, truncated NFW, multipole and line of mass: oracles and identities beyond the contract of all profiles."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.model import EPL, NFW, SIE, TNFW, LineMass, Multipole, PointMass
from lensphys.model.mass.multipole import deflection_multipole
from lensphys.model.mass.tnfw import enclosed_tnfw
from lensphys.tracing.grid import PixelGrid

pytestmark = pytest.mark.usefixtures("float64")

THETA = PixelGrid(9, 12, 0.23).positions(like=torch.zeros((), dtype=torch.float64)) + torch.tensor(
    [0.017, 0.041], dtype=torch.float64
).reshape(1, 2, 1, 1)
CENTRE = {"center_x": 0.05, "center_y": -0.08}
centre = st.floats(-0.5, 0.5)
angle = st.floats(-math.pi, math.pi)


def points(*xy: tuple[float, float]) -> Tensor:
    return torch.tensor(xy, dtype=torch.float64).T.reshape(1, 2, 1, -1)


def away(cx: float, cy: float) -> Tensor:
    """Positions that keep 0.01" from a centre, where the codes have different cores."""
    return THETA + 0.05 * (torch.hypot(THETA[0, 0] - cx, THETA[0, 1] - cy) < 0.01)


def lenstronomy_alpha(name: str, position: Tensor, **parameters: Any) -> np.ndarray:
    from lenstronomy.LensModel.lens_model import LensModel

    x, y = (position[0, i].flatten().numpy() for i in (0, 1))
    return np.array(LensModel([name]).alpha(x, y, [parameters]))


def lenstronomy_kappa(name: str, position: Tensor, **parameters: Any) -> np.ndarray:
    from lenstronomy.LensModel.lens_model import LensModel

    x, y = (position[0, i].flatten().numpy() for i in (0, 1))
    return LensModel([name]).kappa(x, y, [parameters])


def difference(lens: Callable[[Tensor], Tensor], name: str, position: Tensor, **parameters: Any) -> float:
    expected = lenstronomy_alpha(name, position, **parameters)
    return float(np.abs(lens(position)[0].flatten(1).numpy() - expected).max())


def jacobian(lens: Callable[[Tensor], Tensor], position: Tensor) -> Tensor:
    """d alpha_i / d theta_j by autograd, (2, 2, N)."""
    position = position.detach().clone().requires_grad_()
    alpha = lens(position)
    rows = [torch.autograd.grad(alpha[:, i].sum(), position, retain_graph=True)[0] for i in (0, 1)]
    return torch.stack(rows)[:, 0].flatten(2)


def half_divergence(lens: Callable[[Tensor], Tensor], position: Tensor) -> np.ndarray:
    j = jacobian(lens, position)
    return 0.5 * (j[0, 0] + j[1, 1]).numpy()


CASES: dict[str, tuple[Callable[[Tensor], Tensor], str, dict[str, Any]]] = {}
for gamma in (1.4, 2.0, 2.8):
    epl = {"theta_E": 1.2, "gamma": gamma, "e1": 0.2, "e2": -0.3, **CENTRE}
    CASES[f"EPL {gamma}"] = (EPL(**epl), "EPL", epl)
for ratio in (0.5, 1.0, 5.0, 100.0):
    tnfw = {"Rs": 0.7, "alpha_Rs": 0.3, "r_trunc": 0.7 * ratio, **CENTRE}
    CASES[f"TNFW {ratio}"] = (TNFW(**tnfw), "TNFW", tnfw)
for m in (2, 3, 4, 7):
    multipole = {"m": m, "a_m": 0.04, "phi_m": 0.3, **CENTRE}
    CASES[f"Multipole {m}"] = (Multipole(**multipole), "MULTIPOLE", multipole)
LINE = LineMass(0.3, 0.8, 0.4, **CENTRE)
every_case = pytest.mark.parametrize("case", CASES)


@every_case
def test_alpha_and_kappa_against_lenstronomy(case):
    lens, name, parameters = CASES[case]
    assert difference(lens, name, THETA, **parameters) < 1e-9
    kappa = lenstronomy_kappa(name, THETA, **parameters)
    # slopes of the continued fraction at |e| = 0.36 and, in kappa, steeper cores
    np.testing.assert_allclose(half_divergence(lens, THETA), kappa, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("case", [*CASES, "LineMass"])
def test_curl_is_zero(case):
    lens = LINE if case == "LineMass" else CASES[case][0]
    j = jacobian(lens, THETA)
    torch.testing.assert_close(j[0, 1], j[1, 0], rtol=0, atol=1e-9 * float(j.abs().max()))  # the cores have a little


@pytest.mark.parametrize("case", [*CASES, "LineMass"])
def test_float32_is_close_to_float64(case):
    lens = LINE if case == "LineMass" else CASES[case][0]
    single = lens(THETA.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), lens(THETA), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- power law


@settings(max_examples=60, deadline=None)
@given(st.floats(0.3, 2), st.floats(1.4, 2.8), st.floats(0, 0.5), angle, centre, centre)
def test_epl_against_lenstronomy(theta_E, gamma, e, phi, cx, cy):
    parameters = {"e1": e * math.cos(2 * phi), "e2": e * math.sin(2 * phi), "center_x": cx, "center_y": cy}
    lens, position = EPL(theta_E, gamma, **parameters), away(cx, cy)
    expected = lenstronomy_alpha("EPL", position, theta_E=theta_E, gamma=gamma, **parameters)
    found = lens(position)[0].flatten(1).numpy()
    # our core of 1e-6" is a relative (1e-6 / r)^2 = 1e-8 at r = 0.01"
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-8 * np.abs(expected).max())


@pytest.mark.parametrize(("e", "bound"), [(0.0, 1e-11), (0.3, 1e-11), (0.5, 3e-10), (0.6, 1e-8), (0.8, 7e-6)])
def test_the_continued_fraction_is_as_exact_as_the_formula_says(e, bound):
    from scipy.special import hyp2f1

    phi = torch.linspace(0, math.pi, 200)
    z = np.exp(1j * phi.numpy())
    w = z - e * z.conj()
    u = w / np.abs(w)
    for t in (0.05, 0.4, 1.0, 1.8, 1.95):
        scale = np.abs(w) * (math.sqrt(1 - e**2) / np.abs(w)) ** t
        found = EPL(1.0, t + 1, e)(torch.stack([phi.cos(), phi.sin()])[None, :, None])[0, :, 0].numpy()
        assert np.abs(found[0] + 1j * found[1] - scale * u * hyp2f1(1, t / 2, 2 - t / 2, -e * u**2)).max() < bound


@pytest.mark.parametrize(("e", "bound"), [(0.0, 1e-14), (0.2, 1e-12), (0.5, 2e-8), (0.6, 3e-7)])
def test_an_epl_of_slope_two_is_an_sie(e, bound):
    shape = {"e1": 0.6 * e, "e2": 0.8 * e, **CENTRE}
    torch.testing.assert_close(EPL(1.2, 2.0, **shape)(THETA), SIE(1.2, **shape)(THETA), rtol=0, atol=bound)


@pytest.mark.parametrize("gamma", [1.4, 2.0, 2.6])
def test_a_round_epl_deflects_by_theta_E_at_theta_E(gamma):
    at = points((0.9, 0.0), (0.0, -0.9), (0.54, 0.72))
    torch.testing.assert_close(EPL(0.9, gamma)(at), at, rtol=0, atol=1e-11)
    for e in (1e-12, -1e-12):
        torch.testing.assert_close(EPL(0.9, gamma, e, e)(THETA), EPL(0.9, gamma)(THETA), rtol=0, atol=1e-10)


def test_the_gradients_of_an_epl_are_alive_without_ellipticity():
    values = [torch.tensor([v], requires_grad=True) for v in (1.2, 2.0, 0.0, 0.0)]
    EPL(*values)(THETA).square().sum().backward()
    assert all(bool((v.grad.isfinite() & (v.grad.abs() > 1e-3)).all()) for v in values)


@pytest.mark.parametrize(("e", "gamma"), [(0.05, 1.5), (0.3, 2.2), (0.4, 1.9)])
def test_epl_against_caustics(e, gamma):
    caustics = pytest.importorskip("caustics.lenses.func")
    q, phi = torch.tensor((1 - e) / (1 + e)), 0.7
    # caustics has the axis ratio, the angle of the major axis and the slope t of kappa
    expected = caustics.reduced_deflection_angle_epl(
        *(torch.tensor(v) for v in (0.1, -0.2)), q, *(torch.tensor(v) for v in (phi, 1.1, gamma - 1)), *THETA[0], 40
    )
    found = EPL(1.1, gamma, e * math.cos(2 * phi), e * math.sin(2 * phi), 0.1, -0.2)(THETA)[0]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-8)


# ---------------------------------------------------------------- truncated NFW


@settings(max_examples=60, deadline=None)
@given(st.floats(0.02, 3), st.floats(0.01, 2), st.floats(0.5, 100), centre, centre)
def test_tnfw_against_lenstronomy(Rs, alpha_Rs, ratio, cx, cy):
    parameters = {"Rs": Rs, "alpha_Rs": alpha_Rs, "r_trunc": ratio * Rs, "center_x": cx, "center_y": cy}
    off = difference(TNFW(**parameters), "TNFW", away(cx, cy), **parameters)
    assert off < 2e-8 * alpha_Rs * max(1, 1 / Rs)  # our core of 1e-6"


@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0, 100.0])
def test_tnfw_against_lenstronomy_through_its_branches(ratio):
    steps = [0, 1e-12, 1e-8, 1e-6, 1e-4, 0.0246, 0.0247, 0.0253, 0.0254, 0.1]
    radii = [1 + sign * step for step in steps for sign in (-1, 1)] + [0.01, 0.02, 5.0, 50.0, 1e3]
    position = points(*((0.6 * r, 0.8 * r) for r in radii))
    parameters = {"Rs": 1.0, "alpha_Rs": 0.5, "r_trunc": ratio}
    expected = lenstronomy_alpha("TNFW", position, **parameters)
    # lenstronomy has no jump at Rs; below 0.01 Rs its arctanh loses digits, 1e-5 of alpha at 1e-3 Rs
    np.testing.assert_allclose(TNFW(**parameters)(position)[0].flatten(1).numpy(), expected, rtol=1e-8)


@pytest.mark.parametrize("tau", [0.01, 0.5, 0.999, 1.0, 3.0, 100.0])
def test_theenclosed_tnfw_mass_of_a_tnfw_at_fifty_digits(tau):
    mpmath = pytest.importorskip("mpmath")
    x = torch.cat([torch.logspace(-6, 3, 91), 1 + torch.linspace(-0.03, 0.03, 41)])

    def exact(value: float) -> float:  # Baltz, Marshall & Oguri 2009, eq. A.11, as it is printed
        x, t = mpmath.mpf(value), mpmath.mpf(tau)
        F = mpmath.mpf(1) if x == 1 else mpmath.re(mpmath.acosh(1 / x) / mpmath.sqrt(1 - x**2))
        root = mpmath.sqrt(t**2 + x**2)
        g = (t**2 + 1 + 2 * (x**2 - 1)) * F + t * mpmath.pi + (t**2 - 1) * mpmath.log(t)
        g += root * (-mpmath.pi + (t**2 - 1) / t * mpmath.log(x / (t + root)))
        return float(t**2 / (t**2 + 1) ** 2 * g / x**2)

    with mpmath.workdps(50):
        expected = np.array([exact(float(value)) for value in x])
    np.testing.assert_allclose(enclosed_tnfw(x, torch.tensor(tau)).numpy(), expected, rtol=1e-12)


def test_gradcheck_of_a_tnfw_in_each_of_its_branches():
    # far inside, below, through and above Rs = 0.7, far outside
    position = points((4e-4, 0.0), (0.3, 0.1), (0.69, 0.0), (0.7, 0.0), (0.0, 0.703), (0.9, 0.4), (50.0, 9.0))
    for r_trunc in (0.4, 0.7, 30.0):
        parameters = [torch.tensor([v], requires_grad=True) for v in (0.7, 0.3, r_trunc)]
        assert torch.autograd.gradcheck(lambda *v: TNFW(*v[1:])(v[0]), (position.requires_grad_(), *parameters))


def test_a_tnfw_of_no_mass_is_exactly_nothing_with_finite_gradients():
    for dtype in (torch.float32, torch.float64):
        parameters = [
            torch.tensor(v, dtype=dtype, requires_grad=True) for v in ((0.7, 0.0, 1.0), (0.0,) * 3, (2.0, 0.0, 0.0))
        ]
        position = torch.cat([THETA, torch.zeros_like(THETA)], -1).to(dtype).expand(3, -1, -1, -1).clone()
        alpha = TNFW(*parameters)(position.requires_grad_())
        assert bool((alpha == 0).all())
        alpha.sum().backward()
        assert all(bool(v.grad.isfinite().all()) for v in (*parameters, position))


def test_a_tnfw_truncated_far_away_is_an_nfw_and_its_mass_is_finite():
    torch.testing.assert_close(TNFW(0.7, 0.3, 7e4)(THETA), NFW(0.7, 0.3)(THETA), rtol=1e-6, atol=0)
    # the total mass, Baltz eq. A.4, as a point mass: alpha r -> alpha_Rs Rs / (1 - ln 2) m_0
    tau, far = 3.0, 1e5
    total = tau**2 / (tau**2 + 1) ** 2 * ((tau**2 - 1) * math.log(tau) + tau * math.pi - (tau**2 + 1))
    moment = float(TNFW(0.7, 0.3, 0.7 * tau)(points((far, 0.0)))[0, 0]) * far
    assert moment == pytest.approx(0.3 * 0.7 / (1 - math.log(2)) * total, rel=1e-4)


@pytest.mark.parametrize("tau", [0.5, 4.0, 30.0])
def test_tnfw_against_caustics(tau):
    caustics = pytest.importorskip("caustics.lenses.func")
    zero, Rs = torch.zeros(()), torch.tensor(0.7)

    def alpha(position: Tensor) -> Tensor:
        rest = position[0, 0], position[0, 1], torch.tensor(1e10), torch.tensor(1300.0)
        return torch.stack(caustics.physical_deflection_angle_tnfw(zero, zero, Rs, torch.tensor(tau), *rest))

    found, expected = TNFW(0.7, 0.3, 0.7 * tau)(THETA)[0], alpha(THETA)
    # the same shape, up to one factor; caustics' series at Rs stops at the second order
    ratio = (found / expected).flatten()
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-5, atol=0)


# ---------------------------------------------------------------- multipole


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.floats(0.001, 0.2), angle, centre, centre)
def test_multipole_against_lenstronomy(m, a_m, phi_m, cx, cy):
    parameters = {"m": m, "a_m": a_m, "phi_m": phi_m, "center_x": cx, "center_y": cy}
    # the core turns |u|^m by m (1e-6 / r)^2 / 2
    assert difference(Multipole(**parameters), "MULTIPOLE", away(cx, cy), **parameters) < 1e-7 * a_m


def test_a_multipole_is_finite_and_zero_at_its_centre_for_every_order():
    for m in (2, 3, 9):
        position = points((0.05, -0.08), (0.05 + 1e-9, -0.08)).requires_grad_()
        alpha = Multipole(m, 0.04, 0.3, **CENTRE)(position)
        alpha.sum().backward()
        assert bool((alpha[..., 0] == 0).all())
        assert bool(alpha.isfinite().all() & position.grad.isfinite().all())


@pytest.mark.parametrize("m", [1, 0, -4, 3.0, True])
def test_a_multipole_of_a_wrong_order_is_refused(m):
    for build in (lambda: Multipole(m, 0.1, 0.0), lambda: deflection_multipole(THETA, m, 0.1, 0.0)):
        with pytest.raises(LensphysError, match=f"m must be an integer of 2 or more, got {m!r}: for a dipole, move"):
            build()


def test_multipole_against_caustics():
    caustics = pytest.importorskip("caustics.lenses.func")
    order, strength, phi = torch.tensor([4]), torch.tensor([0.04]), torch.tensor([0.3])
    cx, cy = (torch.tensor(v) for v in CENTRE.values())
    expected = caustics.reduced_deflection_angle_multipole(cx, cy, order, strength, phi, *THETA[0])
    found = Multipole(4, 0.04, 0.3, **CENTRE)(THETA)[0]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-9)


# ---------------------------------------------------------------- line


def off_the_line(lens: LineMass, distance: float) -> Tensor:
    """Which pixels keep a distance from the segment, (H, W)."""
    x, y = THETA[0, 0] - lens.center_x, THETA[0, 1] - lens.center_y
    along = (math.cos(lens.phi) * x + math.sin(lens.phi) * y).clamp(-lens.length, lens.length)
    return torch.hypot(x - along * math.cos(lens.phi), y - along * math.sin(lens.phi)) > distance


@pytest.mark.parametrize("length", [1e-4, 1e-2, 0.3])
def test_the_potential_of_a_short_line_is_right_in_single_precision(length):
    x, y = np.meshgrid(np.linspace(0.2, 1.5, 7), np.linspace(-1.0, 1.2, 5))
    line = LineMass(0.2, length, 0.3)
    np.testing.assert_allclose(
        line.potential(x.astype(np.float32), y.astype(np.float32)), line.potential(x, y), atol=1e-6
    )
    if length < 1e-3:
        np.testing.assert_allclose(line.potential(x, y), 0.04 * np.log(np.hypot(x, y)), atol=1e-6)


def test_the_points_of_lenstronomy_converge_to_the_line_with_the_second_order():
    from lenstronomy.LensModel.lens_model import LensModel

    far = off_the_line(LINE, 0.15)
    x, y = (THETA[0, i][far].numpy() for i in (0, 1))
    expected, errors, counts = LINE(THETA)[0][:, far].numpy(), [], [40, 80, 160, 320]
    for count in counts:
        s = LINE.length * ((2 * np.arange(count) + 1) / count - 1)  # the midpoints of equal pieces
        masses = [
            {"theta_E": 0.3 / math.sqrt(count), "center_x": 0.05 + a, "center_y": -0.08 + b}
            for a, b in zip(s * math.cos(LINE.phi), s * math.sin(LINE.phi), strict=True)
        ]
        errors.append(np.abs(np.array(LensModel(["POINT_MASS"] * count).alpha(x, y, masses)) - expected).max())
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(-2, abs=0.05)
    assert errors[-1] < 1e-5


@settings(max_examples=40, deadline=None)
@given(st.floats(0.01, 1), st.floats(0.001, 1.5), angle, centre, centre)
def test_a_line_is_the_logarithm_that_its_formula_says(theta_E, length, phi, cx, cy):
    lens = LineMass(theta_E, length, phi, cx, cy)
    far = off_the_line(lens, 0.01).numpy()
    z = (THETA[0, 0] - cx + 1j * (THETA[0, 1] - cy)).numpy()
    w = z * np.exp(-1j * phi)
    logarithm = np.log((w + length) / (w - length))
    expected = (theta_E**2 / (2 * length) * np.exp(-1j * phi) * logarithm).conj()
    found = lens(THETA)[0].numpy()
    # the core, and the digits that numpy's logarithm loses far from a short line
    np.testing.assert_allclose((found[0] + 1j * found[1])[far], expected[far], rtol=2e-8, atol=1e-8 * theta_E**2)


def test_there_is_no_mass_off_the_line_and_all_of_it_on_the_line():
    far = off_the_line(LINE, 0.05).flatten().numpy()
    assert np.abs(half_divergence(LINE, THETA)[far]).max() < 1e-9
    # by Gauss: the flux of alpha through a circle around the line is 2 pi theta_E^2
    t = torch.arange(512) * (2 * math.pi / 512)
    normal = torch.stack([t.cos(), t.sin()])
    circle = 2 * normal + torch.tensor([[CENTRE["center_x"]], [CENTRE["center_y"]]])
    flux = (LINE(circle[None, :, None])[0, :, 0] * normal).sum(0).mean() * 2
    assert float(flux) == pytest.approx(0.3**2, rel=1e-10)


def test_across_the_line_the_deflection_jumps_by_the_mass_and_is_zero_on_it():
    L, phi = 0.5, 0.4
    cos, sin, shifts = math.cos(phi), math.sin(phi), (-1e-4, 0.0, 1e-4)
    for lens, c, s in ((LineMass(0.3, L, 0.0), 1.0, 0.0), (LineMass(0.3, L, phi), cos, sin)):
        alpha = lens(points(*((0.2 * c - n * s, 0.2 * s + n * c) for n in shifts)))[0, :, 0]
        along, across = c * alpha[0] + s * alpha[1], c * alpha[1] - s * alpha[0]
        density = math.pi * 0.3**2 / (2 * L)
        np.testing.assert_allclose(across.numpy(), [-density, 0.0, density], rtol=1e-3, atol=1e-9 + 4e-6 * s)
        expected = 0.3**2 / (2 * L) * math.log(0.7 / 0.3)
        np.testing.assert_allclose(along.numpy(), [expected] * 3, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_line_is_finite_on_itself_at_its_ends_and_beyond(dtype):
    position = points((-0.5, 0.0), (0.5, 0.0), (0.0, 0.0), (0.25, 0.0), (0.5 + 1e-7, 1e-7), (0.7, 0.0)).to(dtype)
    parameters = [torch.tensor([v], dtype=dtype, requires_grad=True) for v in (0.3, 0.5, 0.0)]
    alpha = LineMass(*parameters)(position.requires_grad_())
    alpha.sum().backward()
    assert all(bool(v.isfinite().all()) for v in (alpha, position.grad, *(p.grad for p in parameters)))
    assert bool((alpha[0, 1, 0, :4] == 0).all())
    torch.testing.assert_close(alpha[0, :, 0, 0], -alpha[0, :, 0, 1])


def test_a_short_line_is_a_point_and_keeps_its_digits_far_away():
    for length in (0.0, 1e-7, 1e-5):
        line, point = LineMass(0.3, length, 0.4, **CENTRE)(THETA), PointMass(0.3, **CENTRE)(THETA)
        torch.testing.assert_close(line, point, rtol=1e-7, atol=0)
        line = LineMass(0.3, length, 0.4)(THETA.float())
        torch.testing.assert_close(line.double(), PointMass(0.3)(THETA), rtol=2e-6, atol=1e-6)
    far = 1e6 * THETA
    torch.testing.assert_close(LineMass(0.3, 0.5, 0.4)(far), PointMass(0.3)(far), rtol=1e-10, atol=0)


def test_gradcheck_of_a_line_on_both_sides_and_on_its_normal():
    # on the normal through the centre |along| has a corner that the deflection has not
    position = points((0.0, 0.3), (0.2, 0.1), (-0.2, -0.1), (0.9, 0.0), (-0.9, 0.01))
    parameters = [torch.tensor([v], requires_grad=True) for v in (0.3, 0.5, 0.0)]
    assert torch.autograd.gradcheck(lambda *v: LineMass(*v[1:])(v[0]), (position.requires_grad_(), *parameters))
