"""Populations of truncated NFW halos: their masses, numbers, structure, and what warm dark matter takes."""

from __future__ import annotations

import math
import time
from functools import cache

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from lensphys.basics.checks import LensphysError
from lensphys.model.mass.tnfw import truncated_mass
from lensphys.simulation.bodies import Host
from lensphys.simulation.cosmology import Distances
from lensphys.simulation.halo_structure import median_concentration, warm_concentration_ratio
from lensphys.simulation.halos import HaloList, Halos
from lensphys.simulation.light_cone import light_cone
from lensphys.simulation.mass_function import FIELD_CUTOFF, SUBHALO_CUTOFF, PowerLaw

RING = 1.3  # Einstein radius [arcsec]
HOST = Host(0.1, -0.2, Distances(0.4, 1.5))
COLD = {"kind": "halos", "lightest": 1e7, "heaviest": 1e10, "fraction": 0.01, "radius": 3.0}


def population(**changes) -> Halos:
    return Halos.parse(COLD | changes, "recipe")


@cache
def cosmology():
    from astropy.cosmology import FlatLambdaCDM

    return FlatLambdaCDM(H0=70, Om0=0.3, Ob0=0.05)


def stacked(halos: Halos, samples: int, seed: int = 0) -> HaloList:
    rng = np.random.default_rng(seed)
    lists = [halos.halos(rng, HOST) for _ in range(samples)]
    return HaloList(*(np.concatenate([getattr(x, name) for x in lists]) for name in HaloList.__annotations__))


def test_masses_follow_the_power_law():
    mass = stacked(population(), 30).mass
    power = -0.9
    law = lambda m: (m**power - 1e7**power) / (1e10**power - 1e7**power)  # noqa: E731
    assert len(mass) > 5000
    assert stats.kstest(mass, law).pvalue > 0.01
    assert stats.kstest(mass**1.05, law).pvalue < 1e-6  # the test can fail


def test_number_is_poisson_with_the_expected_mean():
    halos, rng = population(), np.random.default_rng(1)
    numbers = np.array([len(halos.halos(rng, HOST).mass) for _ in range(400)])
    expected = halos.expected_number(HOST)
    assert expected > 100
    assert abs(numbers.mean() - expected) < 4 * math.sqrt(expected / 400)
    assert 0.75 < numbers.var() / expected < 1.3


@pytest.mark.parametrize("changes", [{}, {"truncation": 20.0, "concentration_scatter": 0.3}, {"slope": -1.7}])
def test_bound_mass_within_the_ring_is_the_fraction(changes):
    """By the parameters alone: the total mass of a TNFW is alpha_Rs Rs pi critical_density / (1 - ln 2) g(tau)."""
    halos, rng = population(heaviest=1e9, **changes), np.random.default_rng(2)
    inside = []
    for _ in range(400):
        p = halos.sample(rng, HOST).parameters
        mass = math.pi * p["alpha_Rs"] * p["Rs"] / (1 - math.log(2)) * truncated_mass(p["r_trunc"] / p["Rs"])
        near = np.hypot(p["center_x"] - HOST.center_x, p["center_y"] - HOST.center_y) < RING
        inside.append(mass[near].sum() / (math.pi * RING**2))  # in units of the critical density: kappa
    error = np.std(inside) / math.sqrt(len(inside))
    assert error < 0.0003
    assert abs(np.mean(inside) - 0.01) < 4 * error


def test_rendered_halos_carry_that_mass():
    """Far outside of a halo its deflection is that of its bound mass: what `truncated_mass` means to lenstronomy."""
    from lenstronomy.LensModel.Profiles.tnfw import TNFW

    p = population().sample(np.random.default_rng(3), HOST).keywords()[0] | {"center_x": 0.0, "center_y": 0.0}
    r = 3e4 * p["r_trunc"]
    deflection, _ = TNFW().derivatives(r, 0.0, **p)
    bound = p["alpha_Rs"] * p["Rs"] / (1 - math.log(2)) * truncated_mass(p["r_trunc"] / p["Rs"])
    assert deflection * r == pytest.approx(bound, rel=1e-3)


def test_structure_is_lenstronomys():
    from lenstronomy.Cosmo.lens_cosmo import LensCosmo

    mass, c = np.array([1e7, 3e8, 5e9]), np.array([18.0, 13.0, 6.0])
    halos = HaloList(mass, c, np.full(3, 5.0), np.full(3, 0.4), np.zeros(3), np.zeros(3))
    p = halos.parameters(HOST)
    angle, deflection = LensCosmo(0.4, 1.5, cosmo=cosmology()).nfw_physical2angle(mass, c)
    # lenstronomy rounds the constant of gravity and the critical density of the universe
    np.testing.assert_allclose(p["Rs"], angle, rtol=2e-4)
    np.testing.assert_allclose(p["alpha_Rs"], deflection, rtol=3e-4)
    np.testing.assert_allclose(p["r_trunc"], 5 * angle, rtol=2e-4)
    assert p["center_x"][0] == HOST.center_x and p["center_y"][0] == HOST.center_y


def test_concentrations_scatter_about_their_median():
    halos = stacked(population(), 30)
    dex = np.log10(halos.concentration / median_concentration(halos.mass, 0.4))
    assert abs(dex.mean()) < 4 * 0.13 / math.sqrt(len(dex))
    assert dex.std() == pytest.approx(0.13, rel=0.05)
    none = stacked(population(concentration_scatter=0.0), 2)
    np.testing.assert_allclose(none.concentration, median_concentration(none.mass, 0.4))


@pytest.mark.parametrize(
    ("z", "mass", "diemer_joyce"),
    [(0, 1e6, 23.85), (0, 1e10, 12.94), (0.5, 1e8, 14.20), (1, 1e7, 12.75), (2, 1e9, 6.23)],
)
def test_median_concentration_is_diemer_and_joyce(z, mass, diemer_joyce):
    """Values of colossus 1.4; the power law is within 8 % of them."""
    assert median_concentration(np.array([mass]), z)[0] == pytest.approx(diemer_joyce, rel=0.08)


def test_places_are_uniform_in_the_disc():
    halos = stacked(population(), 30)
    assert stats.kstest((np.hypot(halos.x, halos.y) / 3) ** 2, "uniform").pvalue > 0.01
    assert stats.kstest(np.arctan2(halos.y, halos.x) / (2 * math.pi) + 0.5, "uniform").pvalue > 0.01


def test_warm_dark_matter_takes_the_analytic_share_of_each_bin():
    cold, warm = (stacked(population(**x), 60, seed).mass for x, seed in (({}, 3), ({"half_mode_mass": 1e8}, 4)))
    edges = np.array([1e7, 2e7, 5e7, 1e8, 3e8, 1e10])
    before, after = (np.histogram(x, edges)[0] for x in (cold, warm))
    for low, high, n, k in zip(edges[:-1], edges[1:], before, after, strict=True):
        share = PowerLaw(low, high, -1.9).mean(lambda m: (1 + (4.2 * 1e8 / m) ** 2.5) ** -0.2)
        error = share * math.sqrt(1 / n + 1 / k)
        assert abs(k / n - share) < 4 * error
    number = population(half_mode_mass=1e8).expected_number(HOST)
    assert abs(len(warm) / 60 - number) < 4 * math.sqrt(number / 60)


def test_the_same_seed_takes_halos_away_and_loosens_the_rest():
    settings = {"line_of_sight": {"scale": 2.0}}
    cold = population(**settings).halos(np.random.default_rng(5), HOST)
    warm = population(**settings, half_mode_mass=3e8).halos(np.random.default_rng(5), HOST)
    kept = np.isin(cold.x, warm.x)
    assert 0 < kept.sum() == len(warm.x) < len(cold.x)
    for name in ("mass", "redshift", "x", "y"):
        np.testing.assert_array_equal(getattr(cold, name)[kept], getattr(warm, name))
    ratio = warm.concentration / cold.concentration[kept]
    z, m = warm.redshift, warm.mass
    np.testing.assert_allclose(ratio, (1 + z) ** (0.026 * z - 0.04) * (1 + 60 * 3e8 / m) ** -0.17)
    np.testing.assert_allclose(ratio, warm_concentration_ratio(m, z, 3e8))


def test_cutoffs_are_lovells():
    """pyHalo 1.4.5 has the same fits with a^b multiplied out: 36.15 and 1.95."""
    mass = np.array([1e7, 1e9])
    np.testing.assert_allclose(SUBHALO_CUTOFF.survival(mass, 1e8), (1 + 36.15 * (1e8 / mass) ** 2.5) ** -0.2, rtol=1e-3)
    np.testing.assert_allclose(FIELD_CUTOFF.survival(mass, 1e8), (1 + 1.95 * (1e8 / mass) ** 0.8) ** -1.0, rtol=2e-3)


def test_expected_number_averages_over_distributions():
    changes = {
        "fraction": {"kind": "uniform", "low": 0.0, "high": 0.02},
        "truncation": {"kind": "log_uniform", "low": 2.0, "high": 10.0},
        "half_mode_mass": {"kind": "log_uniform", "low": 1e7, "high": 1e9},
        "line_of_sight": {"scale": {"kind": "uniform", "low": 0.5, "high": 1.5}},
    }
    halos, rng = population(**changes), np.random.default_rng(6)
    numbers = [len(halos.halos(rng, HOST).mass) for _ in range(600)]
    assert abs(np.mean(numbers) - halos.expected_number(HOST)) < 4 * np.std(numbers) / math.sqrt(600)


def field_counts(z: float) -> float:
    """Field halos before z, by its definition, with adaptive quadrature over astropy's distances."""
    c = cosmology()
    lens, source = (c.comoving_distance(x).value for x in (0.4, 1.5))

    def per_redshift(x: float) -> float:
        chi = c.comoving_distance(x).value
        width = chi if chi < lens else lens * (source - chi) / (source - lens)
        dchi = 299792.458 / 70 / c.efunc(x)
        return math.pi * math.radians(3 / 3600) ** 2 * width**2 * dchi * (1 + x) ** 0.34

    masses = quad(lambda t: 6.7e-8 * math.exp(t) * (math.exp(t) / 1e8) ** -1.91, math.log(1e7), math.log(1e10))[0]
    return masses * (quad(per_redshift, 0, min(z, 0.4))[0] + quad(per_redshift, 0.4, max(z, 0.4))[0])


def test_field_halos_are_as_many_as_the_integral_has():
    halos = population(fraction=0.0, line_of_sight={})
    expected = halos.expected_number(HOST)
    assert expected == pytest.approx(field_counts(1.5), rel=1e-4)
    drawn = stacked(halos, 40)
    assert abs(len(drawn.mass) / 40 - expected) < 4 * math.sqrt(expected / 40)
    z = np.array([0.2, 0.4, 0.6, 0.9])
    before = np.array([(drawn.redshift < x).mean() for x in z])
    truth = np.array([field_counts(x) for x in z]) / expected
    np.testing.assert_allclose(before, truth, atol=4 * 0.5 / math.sqrt(len(drawn.mass)))
    np.testing.assert_allclose(drawn.tau, drawn.concentration)  # they end at r200
    half = population(fraction=0.0, line_of_sight={"scale": 0.5}).expected_number(HOST)
    assert half == pytest.approx(expected / 2)


@pytest.mark.filterwarnings("ignore:Cosmology is provided")
@pytest.mark.parametrize("z", [0.05, 0.25, 0.4, 0.9, 1.4])
def test_field_halos_act_as_with_a_uniform_sheet(z):
    """The claim of `LineOfSight`, ray-traced through the planes by lenstronomy."""
    from lenstronomy.Cosmo.lens_cosmo import LensCosmo
    from lenstronomy.LensModel.lens_model import LensModel

    host = Host(0.0, 0.0, HOST.distances)
    one = HaloList(*(np.array([x]) for x in (1e8, 12.0, 12.0, z, 0.7, -0.4)))
    p = {name: float(x[0]) for name, x in one.parameters(host).items()}
    angle, deflection = LensCosmo(z, 1.5, cosmo=cosmology()).nfw_physical2angle(1e8, 12.0)
    chi, lens, source = (cosmology().comoving_distance(x).value for x in (z, 0.4, 1.5))
    width = 1 - max(0, (chi - lens) * source / (chi * (source - lens)))  # of the cone: 1 - beta
    assert light_cone(0.4, 1.5).width(np.array([z]))[0] == pytest.approx(width, rel=1e-5)
    true = {
        "Rs": angle, "alpha_Rs": deflection, "r_trunc": 12 * angle, "center_x": 0.7 * width, "center_y": -0.4 * width
    }  # fmt: skip
    x, y = np.array([0.72, 0.9, 0.6]), np.array([-0.3, -0.41, 0.5])
    planes = LensModel(
        ["CONVERGENCE", "TNFW"], multi_plane=True, lens_redshift_list=[0.4, z], z_source=1.5, cosmo=cosmology()
    )
    # the sheet alone focuses every ray onto the middle of the source plane: what is left is the halo's doing
    shift = -np.array(planes.ray_shooting(x, y, [{"kappa": 1.0}, true]))
    np.testing.assert_allclose(np.array(LensModel(["TNFW"]).alpha(x, y, [p])), shift, rtol=1e-3)
    assert np.abs(shift).max() > 1e-5


def test_distances_agree_with_those_of_the_point_masses():
    square = light_cone(0.4, 1.5).einstein_square(np.array([0.4]))[0]
    assert square == pytest.approx(HOST.distances.einstein_radius(1.0) ** 2, rel=1e-9)


def test_the_same_generator_gives_the_same_bodies():
    halos = population(line_of_sight={}, half_mode_mass=1e8)
    first, second, other = (halos.sample(np.random.default_rng(seed), HOST) for seed in (8, 8, 9))
    assert first.profile == "TNFW"
    assert list(first.parameters) == ["Rs", "alpha_Rs", "r_trunc", "center_x", "center_y"]
    for name, values in first.parameters.items():
        np.testing.assert_array_equal(values, second.parameters[name])
        assert np.all(np.isfinite(values))
    assert len(first.parameters["Rs"]) != len(other.parameters["Rs"]) or (
        first.parameters["Rs"][0] != other.parameters["Rs"][0]
    )


def test_no_halos_are_an_empty_list():
    bodies = population(fraction=0.0).sample(np.random.default_rng(0), HOST)
    assert bodies.keywords() == []


def test_a_thousand_halos_take_milliseconds():
    halos, rng = population(lightest=2e6, line_of_sight={}), np.random.default_rng(0)
    assert len(halos.sample(rng, HOST).parameters["Rs"]) > 1000  # builds the cone
    times = []
    for _ in range(20):
        start = time.perf_counter()
        halos.sample(rng, HOST)
        times.append(time.perf_counter() - start)
    assert min(times) < 5e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lightest": 1e10, "heaviest": 1e7}, "lightest must be below heaviest, got 1e.10 and 1e.07"),
        ({"slope": -1.0}, "slope -1 has no power law"),
        ({"mass": 3}, "unknown key 'mass'"),
        ({"radius": -1.0}, "radius.*greater than 0"),
        ({"line_of_sight": {"number": 3}}, "unknown key 'line_of_sight.number'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(LensphysError, match=message):
        population(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fraction": 1.2}, "drew 1.2 for fraction, which must be at least 0 and below 1"),
        ({"fraction": -0.1}, "drew -0.1 for fraction"),
        ({"truncation": 0.0}, "drew 0 for truncation, which must be positive"),
        ({"half_mode_mass": -1e8}, "drew -1e.08 for half_mode_mass, which must be positive"),
        ({"line_of_sight": {"scale": -1.0}}, "drew -1 for line_of_sight.scale, which must be 0 or more"),
        ({"lightest": 1e3}, "at most 20000 can be drawn: raise lightest, or lower fraction or radius"),
    ],
)
def test_draws_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(LensphysError, match=message):
        population(**changes).sample(np.random.default_rng(0), HOST)


@pytest.mark.parametrize("distances", [Distances(0.5, 1.0, kind="luminosity"), Distances(0.5, 1.0, z_convention=2.5)])
def test_legacy_distances_are_refused(distances):
    host = Host(0.0, 0.0, distances)
    for call in (
        lambda: population().sample(np.random.default_rng(0), host),
        lambda: population().expected_number(host),
    ):
        with pytest.raises(LensphysError, match="halos need angular_diameter distances.*leave z_source_convention out"):
            call()
