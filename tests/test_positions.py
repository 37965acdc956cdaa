"""Components at positions of any shape: against lenstronomy, against identities, and in the form they were asked."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from astropy import units
from astropy.table import MaskedColumn, Table
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.lens_model_extensions import LensModelExtensions

import lensphys as lp
from lensphys.basics.checks import LensphysError
from lensphys.model import CosineBasis, MassProfile, PointSwarm, PotentialField
from lensphys.model.mass.multipole import MultipoleWaves
from lensphys.model.points import quadrature
from lensphys.tracing.grid import PixelGrid

MASKED = np.ma.masked_array([1.0, 2.0], [False, True])
PLACE = {"center_x": 0.07, "center_y": -0.04}
PROFILES: dict[str, MassProfile] = {
    "sis": lp.SIS(theta_E=1.2, **PLACE),
    "sie": lp.SIE(theta_E=1.2, e1=0.2, e2=-0.1, **PLACE),
    "epl shallow": lp.EPL(theta_E=1.2, gamma=1.8, e1=0.2, e2=-0.1, **PLACE),
    "epl steep": lp.EPL(theta_E=1.2, gamma=2.3, e1=-0.1, e2=0.15, **PLACE),
    "shear": lp.Shear(gamma1=0.05, gamma2=-0.03, **PLACE),
    "nfw": lp.NFW(Rs=2.0, alpha_Rs=1.0, **PLACE),
    "tnfw": lp.TNFW(Rs=0.5, alpha_Rs=0.4, r_trunc=1.0, **PLACE),
    "point": lp.PointMass(theta_E=0.7, **PLACE),
    "line": lp.LineMass(theta_E=0.7, length=0.5, phi=0.4, **PLACE),
    "multipole": lp.Multipole(m=4, a_m=0.05, phi_m=0.3, **PLACE),
    "waves": MultipoleWaves(m=3, a_cos=0.03, a_sin=-0.02, **PLACE),
    "swarm": PointSwarm(torch.tensor([[0.3, 0.1]]), torch.tensor([[0.2, -0.5]]), torch.tensor([[0.1, 0.4]]), core=0.05),
    "field": PotentialField(torch.linspace(-0.1, 0.1, 9, dtype=torch.float64).reshape(1, 3, 3), CosineBasis(3, 6.0)),
    "sum": lp.SIE(theta_E=1.1, e1=0.1) + lp.Shear(0.04, 0.02) + lp.PointMass(0.1, 0.9, 0.4),
}
every_profile = pytest.mark.parametrize("lens", PROFILES.values(), ids=PROFILES)

# a sweep that meets no centre, off the axes, H != W
Y, X = np.meshgrid(np.linspace(-1.7, 1.9, 7), np.linspace(-2.1, 1.8, 9), indexing="ij")


def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(X, requires_grad=True), torch.tensor(Y, requires_grad=True)


@every_profile
def test_the_deflection_is_the_gradient_of_the_potential(lens):
    x, y = tensors()
    slopes = torch.autograd.grad(lens.potential(x, y).sum(), (x, y))
    for slope, alpha in zip(slopes, lens.deflection(x, y), strict=True):
        assert torch.allclose(slope, alpha, atol=2e-9)  # the core of 1e-6" is in the deflection, not in the potential


@every_profile
def test_convergence_shear_and_magnification_are_derivatives_of_the_deflection(lens):
    h = 1e-5
    (right, up), (left, down) = (
        [np.array(lens.deflection(X + s * h * a, Y + s * h * b)) for a, b in ((1, 0), (0, 1))] for s in (1, -1)
    )
    (xx, yx), (xy, yy) = (right - left) / (2 * h), (up - down) / (2 * h)
    close = {"rtol": 1e-6, "atol": 1e-8}  # of central differences
    assert np.allclose(lens.convergence(X, Y), 0.5 * (xx + yy), **close)
    assert np.allclose(lens.shear(X, Y), (0.5 * (xx - yy), 0.5 * (xy + yx)), **close)
    assert np.allclose(1 / lens.magnification(X, Y), (1 - xx) * (1 - yy) - xy * yx, **close)
    assert np.allclose(lens.ray(X, Y), np.array([X, Y]) - lens.deflection(X, Y))


KNOWN = [name for name, lens in PROFILES.items() if lens.lenstronomy and lens.in_lenstronomy and len(lens.values) > 2]


@pytest.mark.parametrize("name", KNOWN)
def test_all_of_it_as_lenstronomy_has_it(name):
    lens = PROFILES[name]
    words = {k: v for k, v in lens.values.items() if not (lens.at_origin and k in ("center_x", "center_y"))}
    words |= {"ra_0": lens.center_x, "dec_0": lens.center_y} if lens.at_origin else {}
    words |= {"r_E": 1.0} if name == "multipole" else {}
    other, kwargs = LensModel([lens.lenstronomy]), [words]
    close = {"rtol": 1e-5, "atol": 2e-5 if name == "tnfw" else 2e-6}  # its TNFW has lost digits, and cores differ
    assert np.allclose(lens.deflection(X, Y), other.alpha(X, Y, kwargs), **close)
    assert np.allclose(lens.convergence(X, Y), other.kappa(X, Y, kwargs), **close)
    assert np.allclose(1 / lens.magnification(X, Y), 1 / other.magnification(X, Y, kwargs), **close)
    ours, theirs = lens.potential(X, Y), other.potential(X, Y, kwargs)
    assert np.allclose(ours - ours[0, 0], theirs - theirs[0, 0], **close)  # but for a constant


@pytest.mark.parametrize("name", ["nfw", "tnfw", "sie", "epl shallow"])
def test_potentials_vanish_at_the_centre(name):
    assert abs(PROFILES[name].potential(PLACE["center_x"], PLACE["center_y"])) < 1e-5


def test_the_quadrature_bears_singular_ends_and_small_scales():
    assert math.isclose(sum(w / math.sqrt(t) for t, w in quadrature()), 2.0, rel_tol=1e-6)
    assert math.isclose(sum(w / (t + 1e-3) for t, w in quadrature()), math.log(1001), rel_tol=1e-9)
    assert math.isclose(sum(w * math.cos(t) for t, w in quadrature()), math.sin(1), rel_tol=1e-10)


def test_isothermal_magnification_follows_from_the_convergence():
    lens = PROFILES["sie"]
    assert np.allclose(lens.magnification(X, Y), 1 / (1 - 2 * lens.convergence(X, Y)), rtol=1e-6)


SHAPES: dict[str, tuple[Any, Any, tuple[int, ...]]] = {
    "numbers": (0.3, 0.4, ()),
    "a list": ([0.3, 1.0, 2.0], 0.4, (3,)),
    "broadcast": (np.ones((4, 1)), np.ones(5), (4, 5)),
    "four axes": (np.ones((2, 3, 1, 2)), 0.5, (2, 3, 1, 2)),
    "nothing": (np.zeros((0,)), np.zeros((0,)), (0,)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_kept(name):
    x, y, shape = SHAPES[name]
    lens, light = PROFILES["sum"], lp.Sersic(amp=1.0, R_sersic=0.3, n_sersic=2.0)
    answers = [*lens.deflection(x, y), lens.potential(x, y), lens.magnification(x, y), light.brightness(x, y)]
    assert all(isinstance(a, np.ndarray | np.floating) and a.shape == shape for a in answers)


@pytest.mark.parametrize("given, kept", [("f4", "f4"), ("f8", "f8"), ("i8", "f8"), ("f2", "f4")])
def test_dtypes_are_kept(given, kept):
    x = np.ones(3, dtype=given)
    assert PROFILES["sie"].deflection(x, x)[0].dtype == kept
    assert PROFILES["sie"].convergence(x, 0.5).dtype == kept  # a number takes the array's
    tensor = torch.ones(3, dtype=torch.float32 if kept == "f4" else torch.float64)
    assert PROFILES["sie"].potential(tensor, 0.5).dtype == tensor.dtype


def test_arrays_are_not_changed():
    x, y = X.copy(), Y.copy()
    PROFILES["sie"].deflection(x, y)
    assert np.array_equal(x, X) and np.array_equal(y, Y)


def test_gradients_flow_by_positions_and_parameters():
    x, y = torch.tensor([0.9, -0.5], dtype=torch.float64), torch.tensor([0.7, 1.1], dtype=torch.float64)
    values = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (1.2, 0.1, -0.05)]

    def answers(x: torch.Tensor, y: torch.Tensor, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        lens = lp.SIE(*values) + lp.Shear(0.03, 0.01)
        return (*lens.deflection(x, y), lens.potential(x, y), lens.convergence(x, y), lens.magnification(x, y))

    assert torch.autograd.gradcheck(answers, (x.requires_grad_(), y.requires_grad_(), *values))


def test_gradients_of_a_potential_field_where_positions_lie_in_a_row():
    x, y = torch.linspace(-1, 1, 4, dtype=torch.float64), torch.full((4,), 0.3, dtype=torch.float64)
    field = PROFILES["field"]
    assert torch.autograd.gradcheck(lambda x, y: field.deflection(x, y), (x.requires_grad_(), y.requires_grad_()))


def test_several_lenses_come_first():
    rings = torch.tensor([0.8, 1.2, 1.6], dtype=torch.float64)
    many = lp.SIE(theta_E=rings, e1=0.1).convergence(X, Y)
    assert many.shape == (3, *X.shape)
    assert np.allclose(many[1], lp.SIE(theta_E=1.2, e1=0.1).convergence(X, Y))


def test_the_brightness_of_lights():
    disc, bulge = lp.Sersic(1.0, 0.4, 1.0, 0.1, 0.2), lp.Sersic(3.0, 0.1, 4.0)
    assert np.allclose((disc + bulge).brightness(X, Y), disc.brightness(X, Y) + bulge.brightness(X, Y))
    image = np.arange(12.0).reshape(3, 4)
    source = lp.ImageSource.from_image(image, 0.5, center_x=0.25)
    assert np.allclose(source.brightness([0.0, 0.0, 9.0], [0.5, 0.0, 0.0]), [9, 5, 0])
    with pytest.raises(LensphysError, match="must have the shape"):
        lp.ImageSource.from_image(np.zeros(3), 0.5)


def test_sums_of_lists_are_sums():
    parts = [lp.SIE(theta_E=1.1, e1=0.1), lp.Shear(0.03, 0.01)]
    assert np.allclose(lp.Lens(parts).deflection(X, Y), (parts[0] + parts[1]).deflection(X, Y))
    assert repr(lp.Lens(parts)) == f"{parts[0]} + {parts[1]}"
    assert repr(parts[1]) == "Shear(gamma1=0.03, gamma2=0.01, center_x=0.0, center_y=0.0)"
    nested = lp.Lens([lp.Lens(parts), lp.PointMass(0.1)])
    assert np.allclose(nested.convergence(X, Y), lp.Lens(parts).convergence(X, Y), atol=1e-7)


REFUSED: list[tuple[Any, str]] = [
    (lambda: lp.SIE(theta_E=1.0, e1=0.8, e2=0.7), r"SIE: the ellipticity \|e\| = \(1-q\)/\(1\+q\) must be below 1"),
    (lambda: lp.EPL(theta_E=1.0, gamma=3.2), "EPL: gamma must lie between 1 and 3, got 3.2"),
    (lambda: lp.NFW(Rs=-1.0, alpha_Rs=1.0), "NFW: Rs must be positive, got -1"),
    (lambda: lp.Sersic(amp=math.nan, R_sersic=0.2, n_sersic=1.0), "Sersic: amp must be finite, got nan"),
    (lambda: lp.Lens([]), "a lens is made of a list of components, at least one"),
    (lambda: lp.Lens([lp.Sersic(1.0, 0.2, 1.0)]), "a lens is made of MassProfile components, got Sersic"),
    (lambda: lp.Light([lp.SIS(1.0)]), "a light is made of LightProfile components, got SIS"),
    (lambda: lp.SIS(torch.tensor([1.0, 2.0])).critical_curves(), "are those of one lens, .* those of 2"),
    (lambda: lp.Shear(0.9, 0.9).critical_curves(), "reach farther than 1000 arcsec"),
    (lambda: lp.SIS(1.0).critical_curves(half_width=-2.0), "half_width must be positive"),
    (lambda: lp.SIS(1.0, 0.5, 0.0).critical_curves(half_width=1.2), "leaves the square of half_width 1.2 arcsec: give"),
    (lambda: lp.SIE(1.2, 0.1).critical_curves(half_width=0.5), "lies around the square of half_width 0.5 arcsec: give"),
    (lambda: lp.SIS(1.0, 0.5, 0.0).caustics(half_width=1.2), "leaves the square of half_width 1.2 arcsec: give a lar"),
]


@pytest.mark.parametrize("call, message", REFUSED, ids=[message[:30] for _, message in REFUSED])
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(LensphysError, match=message):
        call()


def test_mass_and_light_do_not_add_up():
    with pytest.raises(TypeError):
        lp.SIS(1.0) + lp.Sersic(1.0, 0.2, 1.0)  # type: ignore[operator]


def area(curve: np.ndarray) -> float:
    x, y = curve
    return 0.5 * abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))


def test_the_critical_curve_of_a_sphere_is_its_ring_and_its_caustic_a_point():
    lens = lp.SIS(theta_E=1.3, center_x=0.2, center_y=-0.1)
    [(x, y)], [caustic] = lens.critical_curves(), lens.caustics()
    assert np.abs(np.hypot(x - 0.2, y + 0.1) - 1.3).max() < 1e-6
    assert np.abs(caustic - [[0.2], [-0.1]]).max() < 1e-5


def test_the_critical_curve_of_an_ellipsoid_is_an_isodensity_line_of_the_area_of_its_ring():
    lens = PROFILES["sie"]
    [curve] = lens.critical_curves()
    assert np.abs(lens.convergence(*curve) - 0.5).max() < 1e-6
    assert math.isclose(area(curve), math.pi * 1.2**2, rel_tol=1e-4)  # of a polygon
    assert np.allclose(curve[:, 0], curve[:, -1])


def test_the_cusps_of_an_ellipsoid():
    # Kormann, Schneider & Bartelmann 1994, in our normalisation: kappa = 1/2 on q x^2 + y^2 / q = theta_E^2
    q = 0.6
    [caustic] = lp.SIE(theta_E=1.0, e1=(1 - q) / (1 + q)).caustics()
    root = math.sqrt(1 - q**2)
    on_x = 1 / math.sqrt(q) - math.sqrt(q) / root * math.acos(q)
    on_y = math.sqrt(q) / root * math.atanh(root) - math.sqrt(q)
    assert np.allclose(np.abs(caustic).max(1), [on_x, on_y], rtol=1e-3)  # of a polygon


def test_a_shallow_lens_has_a_radial_curve_too():
    lens = lp.EPL(theta_E=1.2, gamma=1.7, e1=0.1)
    outer, inner = sorted(lens.critical_curves(), key=area, reverse=True)
    assert area(outer) > 10 * area(inner)
    assert np.abs(1 / lens.magnification(*inner)).max() < 1e-6


def test_all_curves_are_found_however_far_apart():
    lens = lp.SIS(0.5, 3.0, 0.0) + lp.SIS(0.4, -4.0, 1.0) + lp.PointMass(0.2, 0.0, -2.0)
    curves = lens.critical_curves(step=0.05)
    outer = [(c.mean(1), area(c)) for c in curves if area(c) > 0.01]
    for x, y in ((3.0, 0.0), (-4.0, 1.0), (0.0, -2.0)):
        assert any(np.hypot(*(middle - [x, y])) < 0.5 for middle, _ in outer)


def test_a_line_of_mass_leaves_no_curves_of_its_jump():
    curves = PROFILES["line"].critical_curves(half_width=1.5, step=0.02)
    assert len(curves) == 1 and area(curves[0]) > 1


def test_the_curves_as_lenstronomy_has_them():
    lens = lp.SIE(theta_E=1.2, e1=0.15, e2=0.1) + lp.Shear(0.05, -0.02)
    kwargs = [{"theta_E": 1.2, "e1": 0.15, "e2": 0.1, "center_x": 0, "center_y": 0}, {"gamma1": 0.05, "gamma2": -0.02}]
    extensions = LensModelExtensions(LensModel(["SIE", "SHEAR"]))
    x, y, beta_x, beta_y = extensions.critical_curve_caustics(kwargs, compute_window=5, grid_scale=0.02)
    [curve], [caustic] = lens.critical_curves(), lens.caustics()
    for ours, theirs, close in ((curve, (x[0], y[0]), 0.01), (caustic, (beta_x[0], beta_y[0]), 0.02)):
        apart = np.hypot(ours[0][:, None] - theirs[0], ours[1][:, None] - theirs[1])
        assert apart.min(0).max() < close  # each of theirs, found on triangles of 0.02", has one of ours beside it


def test_a_transform_of_torch_leaves_nothing_behind():
    # its constants die with it: they were kept, and every later call of the process failed
    at = torch.tensor([0.9]), torch.zeros(1)
    slope = torch.func.grad(lambda t: lp.EPL(theta_E=t, gamma=2.0731).convergence(torch.tensor(1.0), torch.tensor(0.5)))
    step, theta_E = 1e-3, 1.2
    near = [lp.EPL(theta_E=theta_E + s, gamma=2.0732).convergence(1.0, 0.5) for s in (-step, step)]
    assert float(slope(torch.tensor(theta_E))) == pytest.approx((near[1] - near[0]) / (2 * step), rel=1e-3)
    kappa = lp.EPL(theta_E=1.1, gamma=2.0731).convergence(*at)
    assert float(kappa[0]) == pytest.approx(lp.EPL(theta_E=1.1, gamma=2.0732).convergence(0.9, 0.0), rel=1e-3)


def test_constants_that_were_made_in_inference_mode_can_be_trained_with():
    x = torch.linspace(0.2, 1.0, 5)
    with torch.inference_mode():
        lp.SIE(theta_E=1.2173, e1=0.1173).deflection(x, x)
        PixelGrid(7, 9, 0.1173).positions()
    strength = torch.tensor(1.0, requires_grad=True)
    (lp.SIE(theta_E=1.2173, e1=0.1173).deflection(x * strength, x)[0] * strength).sum().backward()
    assert torch.isfinite(strength.grad)
    assert not PixelGrid(7, 9, 0.1173).positions().is_inference()


def test_gradients_by_parameters_are_not_lost_where_positions_are_numbers():
    theta_E = torch.tensor(1.2, requires_grad=True)
    lens = lp.SIS(theta_E=theta_E)
    x, _ = lens.deflection(3.0, 4.0)
    x.backward()
    assert theta_E.grad == pytest.approx(0.6)  # alpha_x = theta_E x / r
    assert torch.func.grad(lambda t: lp.SIS(theta_E=t).deflection(3.0, 4.0)[0])(torch.tensor(1.2)) == pytest.approx(0.6)
    with torch.no_grad():
        assert isinstance(lens.deflection(3.0, 4.0)[0], np.floating)
    [(edge, _)] = [abs(curve).max(1) for curve in lens.critical_curves()]
    assert edge == pytest.approx(1.2, rel=1e-3)
    assert [c.shape[0] for c in lens.caustics()] == [2]


def test_the_curves_of_a_small_perturber_are_as_smooth_as_others():
    lens = lp.SIE(theta_E=1.0) + lp.PointMass(theta_E=0.02, center_x=2.0)
    curves = lens.critical_curves()
    assert len(curves) > 1 and all(curve.shape[1] >= 100 for curve in curves)
    for curve in curves:
        assert np.abs(1 / lens.magnification(*curve)).max() < 1e-6 and np.array_equal(curve[:, 0], curve[:, -1])


@pytest.mark.parametrize("profile", [lp.SIE, partial(lp.EPL, gamma=2.2)])
def test_the_conventions_are_those_of_the_docs(profile):
    theta_E, q, phi = 1.2, 0.6, 0.5
    e = (1 - q) / (1 + q)
    lens = profile(theta_E=theta_E, e1=e * math.cos(2 * phi), e2=e * math.sin(2 * phi))
    radius, angle = np.meshgrid((np.arange(2000) + 0.5) / 2000, 2 * np.pi * np.arange(200) / 200)
    along, across = theta_E / math.sqrt(q) * radius * np.cos(angle), theta_E * math.sqrt(q) * radius * np.sin(angle)
    turned = (along + 1j * across) * np.exp(1j * phi)
    kappa = lens.convergence(turned.real, turned.imag)
    assert np.average(kappa, weights=radius) == pytest.approx(1, abs=1e-3)
    assert np.ptp(kappa[:, 1000]) == pytest.approx(0, abs=1e-6)  # it is constant on ellipses
    assert lp.Shear(0.1, 0.05).potential(2.0, 1.0) == pytest.approx(0.1 * (2**2 - 1**2) / 2 + 0.05 * 2 * 1)


@pytest.mark.parametrize("unit", ["mas", "arcsec", "deg"])
def test_positions_are_quantities(unit):
    x, y = np.array([0.3, 1.0]) * units.arcsec, 0.5 * units.arcsec
    lens = PROFILES["sie"]
    for found, expected in zip(lens.deflection(x.to(unit), y), lens.deflection([0.3, 1.0], 0.5), strict=True):
        assert found == pytest.approx(expected, rel=1e-12)
    column = Table({"x": x.to(unit)})["x"]
    assert lens.convergence(column, 0.5) == pytest.approx(lens.convergence([0.3, 1.0], 0.5), rel=1e-12)
    mixed = lens.convergence(x.to(unit), torch.tensor(0.5, dtype=torch.float64))
    assert mixed.numpy() == pytest.approx(lens.convergence([0.3, 1.0], 0.5), rel=1e-12)


@pytest.mark.parametrize(
    "do, message",
    [
        (lambda: PROFILES["sie"].deflection(1.0 * units.kpc, 0.0), "positions are angles: got the unit 'kpc'"),
        (lambda: PROFILES["sie"].potential(MASKED, 0.0), "positions: 1 of 2 are masked: give the others"),
        (lambda: PROFILES["sie"].shear(0.0, MaskedColumn(MASKED, unit="deg")), "positions: 1 of 2 are masked"),
        (lambda: PROFILES["sie"].deflection(1.0, 1j), "positions are two numbers or arrays"),
        (lambda: PROFILES["sie"].deflection(torch.tensor(1j), 0.0), "positions are two numbers or arrays"),
        (lambda: lp.SIE(theta_E=[1.0, 2.0], e1=[0.1, 0.2, 0.3]), "SIE has values of 2 of theta_E and 3 of e1: give"),
        (lambda: lp.SIE(theta_E=torch.ones(2), e1=torch.zeros(3)), "SIE has values of 2 of theta_E and 3 of e1"),
        (lambda: lp.SIE(theta_E=[1.0, 2.0]) + lp.SIS(theta_E=[0.1, 0.2, 0.3]), r"2 of SIE \(0\) and 3 of SIS \(1\)"),
        (lambda: lp.SIE(theta_E=np.ones((2, 2))), r"SIE: theta_E takes a number \[arcsec\], or one for each lens"),
        (lambda: lp.SIE(theta_E=[1.0, [1.0, 2.0]]), "SIE: theta_E takes a number"),
    ],
)
def test_what_has_no_meaning_is_told_in_a_sentence(do, message):
    with pytest.raises(LensphysError, match=message):
        do()


def test_components_add_up_whatever_they_are_added_with():
    lens = sum([lp.SIE(theta_E=1.0), lp.Shear(gamma1=0.05), lp.Shear(gamma2=0.02)])
    expected = lp.SIE(theta_E=1.0) + lp.Shear(gamma1=0.05, gamma2=0.02)
    assert np.allclose(lens.deflection(X, Y), expected.deflection(X, Y), rtol=1e-12)
    light = sum(lp.Sersic(amp=a, R_sersic=0.3, n_sersic=1.0) for a in ([1.0, 3.0], 2.0))
    assert light.brightness(0.3, 0.0) == pytest.approx([3.0, 5.0])
    with pytest.raises(TypeError):
        sum([lp.SIE(theta_E=1.0)], 1)
