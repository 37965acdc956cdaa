"""The deflection field: convergence, shear, curl and magnification against analytic lenses; other resolutions."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.model import SIE, SIS, MassProfile, PointMass, Shear
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid

pytestmark = pytest.mark.usefixtures("float64")
GRID = PixelGrid(56, 70, 0.05)
CENTRE = (0.07, -0.11)
LIKE = torch.zeros((), dtype=torch.float64)


def batch(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def sis() -> SIS:
    return SIS(batch(1.2, 0.8), *CENTRE)


def of(lens: MassProfile, grid: PixelGrid = GRID) -> DeflectionField:
    return DeflectionField.from_lens(lens, grid, like=LIKE, centre=batch(*CENTRE).expand(2, 2))


def polar(grid: PixelGrid) -> tuple[Tensor, Tensor]:
    d = grid.positions(like=LIKE) - batch(*CENTRE).reshape(1, 2, 1, 1)
    return d.norm(dim=1, keepdim=True), torch.atan2(d[:, 1:], d[:, :1])


def test_the_field_of_an_sis():
    field, (r, phi) = of(sis()), polar(GRID)
    theta_E, far = batch(1.2, 0.8).reshape(2, 1, 1, 1), (r > 0.5).expand(2, 1, -1, -1)
    assert field.alpha.shape == (2, 2, 56, 70)
    torch.testing.assert_close(field.theta - field.beta, field.alpha)
    torch.testing.assert_close(field.radial, theta_E.expand_as(field.radial), atol=1e-8, rtol=0)
    torch.testing.assert_close(field.tangential, torch.zeros_like(field.radial), atol=1e-12, rtol=0)
    # second-order differences: (h/r)^2 = 0.01 at r = 0.5 arcsec bounds the relative error
    kappa = theta_E / (2 * r)
    torch.testing.assert_close(field.kappa[far], kappa[far], atol=0, rtol=0.01)
    shear = -kappa * torch.cat([torch.cos(2 * phi), torch.sin(2 * phi)], 1)
    both = far.expand(2, 2, -1, -1)
    torch.testing.assert_close(field.shear[both], shear[both], atol=0.02, rtol=0)
    assert float(field.curl[far].abs().max()) < 0.02
    clear = far & ((r / theta_E - 1).abs() > 0.2)
    torch.testing.assert_close(field.magnification[clear], (1 / (1 - theta_E / r))[clear], atol=0, rtol=0.05)


def test_kappa_converges_at_second_order_and_curl_to_zero():
    lens, r = SIE(batch(1.2, 0.8), 0.2, -0.1, *CENTRE), []
    for factor in (1, 2, 4):
        field = of(lens, GRID.resampled(factor))
        far = (polar(field.grid)[0] > 0.6).expand(2, 1, -1, -1)
        x, y = (field.theta - batch(*CENTRE).reshape(1, 2, 1, 1)).unbind(1)
        e1, e2 = 0.2, -0.1
        w = torch.sqrt((x - e1 * x - e2 * y) ** 2 + (y - e2 * x + e1 * y) ** 2) / math.sqrt(1 - e1**2 - e2**2)
        exact = batch(1.2, 0.8).reshape(2, 1, 1, 1) / (2 * w[:, None])
        r.append((float((field.kappa - exact)[far].abs().max()), float(field.curl[far].abs().max())))
    for coarse, fine in itertools.pairwise(r):
        for a, b in zip(coarse, fine, strict=True):
            assert 1.7 < math.log2(a / b) < 2.3  # the masked radius moves by a pixel between the grids


def test_the_mean_convergence_inside_theta_E_is_one():
    grid = GRID.resampled(2)
    field, r = of(sis(), grid), polar(grid)[0]
    for row, theta_E in enumerate((1.2, 0.8)):
        inside = r[0] < theta_E
        # the pixelated edge of the disc: 1 % of its area at this resolution
        assert float(field.kappa[row][inside].mean()) == pytest.approx(1, abs=0.015)


def test_shear_and_sheet_are_exact():
    field = of(Shear(batch(0.03, -0.1), 0.07))
    expected = torch.stack([batch(0.03, -0.1), batch(0.07, 0.07)], 1)[:, :, None, None].expand(2, 2, 56, 70)
    torch.testing.assert_close(field.shear, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(field.kappa, torch.zeros(2, 1, 56, 70), atol=1e-12, rtol=0)
    torch.testing.assert_close(field.magnification, (1 / (1 - (expected**2).sum(1, keepdim=True))))


def test_a_point_mass_has_no_convergence_outside():
    field, far = of(PointMass(batch(0.5, 0.3), *CENTRE)), (polar(GRID)[0] > 0.5).expand(2, 1, -1, -1)
    assert float(field.kappa[far].abs().max()) < 0.02


def test_a_tangential_field_turns_and_has_curl():
    one = torch.ones(2, 1, *GRID.shape)
    centre = batch(*CENTRE).expand(2, 2)
    field = DeflectionField.from_polar(0.7 * one, 0.3 * one, GRID, centre)
    torch.testing.assert_close(field.radial, 0.7 * one)
    torch.testing.assert_close(field.tangential, 0.3 * one)
    r = polar(GRID)[0]
    far = (r > 0.5).expand(2, 1, -1, -1)
    # curl(t_hat) = div(r_hat) = 1/r; the one-sided differences at the edge have twice the error of the central ones
    torch.testing.assert_close(field.curl[far], (0.3 / r).expand_as(one)[far], atol=0, rtol=0.02)
    torch.testing.assert_close(field.kappa[far], (0.35 / r).expand_as(one)[far], atol=0, rtol=0.02)


def test_a_formula_is_exact_at_every_resolution():
    lens, fine = SIE(batch(1.2, 0.8), 0.3, 0.1, *CENTRE), PixelGrid(31, 47, 0.013)
    found = of(lens).at(fine)
    assert torch.equal(found.alpha, lens(fine.positions(like=LIKE)))
    assert found.grid == fine
    assert found.formula is lens
    assert found.centre is not None


def test_the_same_grid_gives_the_same_field():
    field = of(sis())
    assert field.at(PixelGrid(56, 70, 0.05)) is field


def test_an_interpolated_field_has_no_jump_at_the_centre():
    known = of(sis())
    fine = GRID.resampled(2)
    field = DeflectionField(known.alpha, GRID, known.centre).at(fine)
    # the radial part is constant, so even the jump of alpha at the centre of the lens survives
    torch.testing.assert_close(field.alpha, known.at(fine).alpha, atol=1e-7, rtol=0)


def test_an_interpolated_ellipse_is_right_off_the_centre():
    lens = SIE(batch(1.2, 0.8), 0.2, -0.1, *CENTRE)
    known, fine = of(lens), GRID.resampled(2)
    found = DeflectionField(known.alpha, GRID, known.centre).at(fine)
    inner = (polar(fine)[0] > 0.5).expand(2, 2, -1, -1).clone()
    inner[..., :2, :] = inner[..., -2:, :] = inner[..., :2] = inner[..., -2:] = False  # the edge is extrapolated
    off = (found.alpha - known.at(fine).alpha).abs()[inner]
    # torch's cubic kernel (a = -0.75) misses a ramp by 0.047 pixels a quarter of a pixel off the centre, and the radial
    # part rises by up to 2 theta_E |e| / r = 1 arcsec an arcsec: 0.047 * 0.05 arcsec
    assert float(off.max()) < 3e-3


def test_a_lens_can_be_added_to_a_formula_and_to_an_interpolated_field():
    fine, shear = PixelGrid(31, 47, 0.013), Shear(batch(0.03, -0.1), 0.07)
    known = of(sis())
    expected = of(sis() + shear)
    torch.testing.assert_close(known.plus(shear).alpha, expected.alpha)
    torch.testing.assert_close(known.plus(shear).at(fine).alpha, expected.at(fine).alpha)
    drawn = DeflectionField(known.alpha, GRID, known.centre).plus(shear)
    torch.testing.assert_close(drawn.alpha, expected.alpha)
    assert drawn.formula is None
    assert drawn.centre is known.centre


def test_an_interpolated_field_passes_gradients_on():
    field = DeflectionField(of(sis(), PixelGrid(4, 5, 0.4)).alpha.requires_grad_(), PixelGrid(4, 5, 0.4))
    assert torch.autograd.gradcheck(
        lambda a: DeflectionField(a, field.grid).at(PixelGrid(3, 4, 0.3)).alpha, (field.alpha,)
    )


@pytest.mark.parametrize("view", ["kappa", "shear", "curl", "magnification", "radial", "tangential"])
def test_every_view_is_differentiable(view):
    grid = PixelGrid(4, 3, 0.4)
    alpha = (0.3 * torch.rand(2, 2, 4, 3, generator=torch.Generator().manual_seed(1))).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: getattr(DeflectionField(a, grid), view), (alpha,))


def test_faulty_fields():
    with pytest.raises(LensphysError, match=r"alpha must have the shape \(B, 2, H, W\)"):
        DeflectionField(torch.zeros(2, 1, 56, 70), GRID)
    with pytest.raises(LensphysError, match=r"alpha and grid must .* got \(70, 56\) and \(56, 70\)"):
        DeflectionField(torch.zeros(2, 2, 70, 56), GRID)
    with pytest.raises(LensphysError, match=r"radial must have the shape"):
        DeflectionField.from_polar(torch.zeros(56, 70), torch.zeros(56, 70), GRID)
    with pytest.raises(LensphysError, match="radial and tangential must have the same shape"):
        DeflectionField.from_polar(torch.zeros(2, 1, 56, 70), torch.zeros(1, 1, 56, 70), GRID)
