"""The compiled kernels: against the formulas in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lensphys.basics.checks import LensphysError
from lensphys.model import compiled
from lensphys.model.light import brightness_sersic
from lensphys.model.mass import deflection_shear, deflection_sie, deflection_sis
from lensphys.observation import GaussianPSF, NoPSF
from lensphys.simulation.compiled_psf import compiled_psf

pytestmark = pytest.mark.usefixtures("float64")

FORMULAS = {
    "SIS": (deflection_sis, ("theta_E", "center_x", "center_y")),
    "SIE": (deflection_sie, ("theta_E", "e1", "e2", "center_x", "center_y")),
    "SHEAR": (deflection_shear, ("gamma1", "gamma2", "center_x", "center_y")),
}
points = pytest.mark.parametrize("count", [1, 7, 1021, 2500])  # less than a vector, more than a block, odd
lenses = pytest.mark.parametrize("batch", [1, 3])


def drawn(names, batch, generator):
    """Parameters (B,) of lenses, |e| < 0.57."""
    return {name: (torch.rand(batch, generator=generator) - 0.5) * 0.8 for name in names}


def sky(count, generator, width=4.0):
    """Positions (1, 2, P)."""
    return (torch.rand(1, 2, count, generator=generator) - 0.5) * width


def sources(generator, batch):
    """Parameters of Sersic profiles over all of the range, |e| < 0.7."""
    n, size, e, phi, x, y = torch.rand(6, batch, generator=generator)
    return {
        "amp": 10 ** (4 * x - 2),
        "R_sersic": 0.02 * 100**size,
        "n_sersic": 0.3 + 7.7 * n,
        "e1": 0.7 * e * torch.cos(6.3 * phi),
        "e2": 0.7 * e * torch.sin(6.3 * phi),
        "center_x": x - 0.5,
        "center_y": y - 0.5,
    }


def wanted(beta, parameters):
    return brightness_sersic(beta[:, :, None], **parameters)[:, 0, 0]


@points
@lenses
@pytest.mark.parametrize("name", FORMULAS)
def test_deflection_is_the_formula_added(name, batch, count, generator):
    formula, names = FORMULAS[name]
    theta, parameters = sky(count, generator), drawn(names, batch, generator)
    theta[0, :, 0] = torch.stack([parameters["center_x"][0], parameters["center_y"][0]])  # on top of the first one
    before = torch.randn(batch, 2, count, generator=generator)
    total = before.clone()
    compiled.add_deflection(name, *theta[0], parameters, total)
    torch.testing.assert_close(total - before, formula(theta[:, :, None], **parameters)[:, :, 0], rtol=0, atol=1e-13)


def test_deflection_at_large_ellipticity(generator):
    theta, angle = sky(1000, generator), torch.tensor([0.3, 2.0])
    parameters = {"theta_E": torch.ones(2), "e1": 0.8 * angle.cos(), "e2": 0.8 * angle.sin()}
    total = torch.zeros(2, 2, 1000)
    compiled.add_deflection("SIE", *theta[0], parameters, total)
    torch.testing.assert_close(total, deflection_sie(theta[:, :, None], **parameters)[:, :, 0], rtol=0, atol=1e-12)


def test_lenses_without_strength_or_shape_add_nothing(generator):
    theta, zero = sky(100, generator), torch.zeros(2)
    total = torch.zeros(2, 2, 100)
    compiled.add_deflection("SIE", *theta[0], {"theta_E": zero}, total)
    compiled.add_deflection("SHEAR", *theta[0], {"gamma1": zero, "gamma2": zero}, total)
    assert not total.any()


def test_a_lens_without_a_kernel_is_refused(generator):
    x = torch.zeros(3)
    with pytest.raises(LensphysError, match="unknown compiled lens 'NFW': choose one of SHEAR, SIE, SIS"):
        compiled.add_deflection("NFW", x, x, {}, torch.zeros(1, 2, 3))


@points
@lenses
def test_brightness_is_the_formula(batch, count, generator):
    theta, alpha, parameters = sky(count, generator), sky(batch * count, generator, 1.0), sources(generator, batch)
    alpha = alpha.reshape(2, batch, count).movedim(0, 1)  # not contiguous
    got = compiled.brightness_sersic_points(theta, alpha, **parameters)
    want = wanted(theta - alpha, parameters)
    assert got.dtype == torch.float32 and got.shape == (batch, count)
    dark = 1e-30 * parameters["amp"][:, None]
    assert ((got - want).abs() <= 4e-7 * want.amax(1, keepdim=True) + dark).all()


def test_brightness_over_all_of_the_range(generator):
    parameters = sources(generator, 1000)
    theta = sky(500, generator)
    got = compiled.brightness_sersic_points(theta, torch.zeros(1, 2, 500), **parameters)
    want = wanted(theta, parameters)
    lit = want.amax(1) > 1e-25 * parameters["amp"]  # of the others nothing is left
    assert lit.sum() > 800
    assert ((got - want).abs().amax(1) <= 4e-7 * want.amax(1))[lit].all()


def test_brightness_at_the_first_of_more_points_is_added(generator):
    theta, alpha, parameters = sky(300, generator), sky(400, generator), sources(generator, 3)
    alpha = alpha * torch.ones(3, 1, 1)
    total = torch.ones(3, 300, dtype=torch.float32)
    got = compiled.brightness_sersic_points(theta, alpha[..., :300], **parameters, total=total)
    assert got is total
    alone = compiled.brightness_sersic_points(theta, alpha[..., :300].clone(), **parameters)
    torch.testing.assert_close(total, 1 + alone)


@pytest.mark.parametrize("n", [0.05, 0.3, 1.0, 8.0])
def test_brightness_is_finite_everywhere(n):
    x = torch.tensor([0.0, 1e-9, 1e-5, 0.02, 1.0, 1e3, 1e8])
    theta = torch.stack([x, torch.zeros_like(x)])[None]
    values = {"amp": [1.0, 1e-30, 0.0], "R_sersic": [0.02, 2.0, 0.1], "n_sersic": [n] * 3, "e1": [0.69, 0.0, 0.1]}
    parameters = {name: torch.tensor(v) for name, v in values.items()}
    parameters |= {name: torch.zeros(3) for name in ("e2", "center_x", "center_y")}
    got = compiled.brightness_sersic_points(theta, torch.zeros_like(theta), **parameters)
    assert got.isfinite().all()
    assert got[0, 0] == pytest.approx(float(wanted(theta, parameters)[0, 0]), rel=1e-6)  # the centre
    assert not got[2].any()
    if n <= 1:
        assert got[0, -1] == 0  # and not a number too small to be normal
    assert not ((got != 0) & (got.abs() < 1e-38) & (parameters["amp"][:, None] > 1e-2)).any()


def test_logarithm_and_power():
    from lensphys.model.kernels import exp2, log2

    for x in np.logspace(-300, 300, 20001, base=2.0):
        assert abs(log2(x) - math.log2(x)) < 3e-9
    for x in np.linspace(-1000, 1000, 20001):
        assert abs(exp2(x) / 2.0**x - 1) < 4e-9
    assert log2(1.0) == pytest.approx(0, abs=3e-9) and exp2(0.0) == 1.0


@pytest.mark.parametrize(("height", "width", "scale"), [(20, 33, 0.1), (7, 64, 0.05), (3, 5, 0.02)])
def test_the_compiled_psf_blurs_as_the_psf_does(height, width, scale, generator):
    images = torch.rand(3, 1, height, width, generator=generator, dtype=torch.float64)
    for psf in (GaussianPSF(0.16), GaussianPSF(torch.tensor([0.1, 0.3, 0.02], dtype=torch.float64))):
        torch.testing.assert_close(compiled_psf(psf).blur(images, scale), psf.blur(images, scale))
    assert compiled_psf(NoPSF()) == NoPSF()
