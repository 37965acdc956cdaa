"""Critical curves of sampled deflections against analytic ones."""

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from lensphys.basics.checks import LensphysError
from lensphys.model import NFW, SIE, SIS, PointMass
from lensphys.tracing.critical import critical_curves
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid


def sampled(lens, pixels: int = 96, scale: float = 0.05) -> np.ndarray:
    like = torch.zeros(1, dtype=torch.float64)
    return DeflectionField.from_lens(lens, PixelGrid(pixels, pixels, scale), like=like).alpha[0].numpy()


def exactly(lens, points: np.ndarray) -> np.ndarray:
    at = torch.from_numpy(np.ascontiguousarray(points.T))[None, :, :, None]
    return lens(at)[0, :, :, 0].numpy().T


def test_an_sie_is_critical_where_kappa_is_one_half():
    # Kormann, Schneider & Bartelmann 1994: det A = 1 - 2 kappa, so the tangential curve is an ellipse, kappa = 1/2
    lens = SIE(theta_E=1.0, e1=0.15, e2=0.08)
    curves = critical_curves(sampled(lens), 0.05)
    assert [c.kind for c in curves] == ["tangential"]  # an SIE has no radial one
    points, h = curves[0].critical, 1e-4
    across, up = ((exactly(lens, points + h * step) - exactly(lens, points - h * step)) / (2 * h) for step in np.eye(2))
    assert np.abs(across[:, 0] + up[:, 1] - 1).max() < 0.02
    assert curves[0].closed
    assert np.abs(curves[0].caustic - (points - exactly(lens, points))).max() < 1e-3
    assert np.hypot(*points.T).mean() == pytest.approx(1.0, abs=0.03)


def test_a_circle_with_a_point_for_its_caustic():
    (curve,) = critical_curves(sampled(SIS(theta_E=1.1)), 0.05)
    assert np.hypot(*curve.critical.T) == pytest.approx(1.1, abs=5e-3)
    assert np.abs(curve.caustic).max() < 5e-3


def test_the_radial_curve_of_an_nfw_halo():
    lens = NFW(alpha_Rs=1.5, Rs=2.0)

    def slope(r: float) -> float:
        return (
            1
            - float(exactly(lens, np.array([[r + 1e-4, 0.0]]))[0, 0] - exactly(lens, np.array([[r - 1e-4, 0.0]]))[0, 0])
            / 2e-4
        )

    radius = brentq(slope, 0.05, 2.0)
    curves = critical_curves(sampled(lens, 120), 0.05)
    radial = next(c for c in curves if c.kind == "radial")
    assert np.hypot(*radial.critical.T) == pytest.approx(radius, rel=0.02)
    assert {c.kind for c in curves} == {"tangential", "radial"}


def test_a_sub_halo_has_a_curve_of_its_own_and_an_edge_opens_one():
    curves = critical_curves(sampled(SIE(theta_E=1.0) + PointMass(theta_E=0.15, center_x=-1.7, center_y=1.7)), 0.05)
    own = [c for c in curves if np.hypot(*(c.critical.mean(0) - [-1.7, 1.7])) < 0.2]
    assert len(own) == 1 and own[0].closed
    cut = critical_curves(sampled(SIE(theta_E=1.0, center_x=-2.0)), 0.05)
    assert not cut[0].closed


def test_nan_and_shapes():
    alpha = sampled(SIS(theta_E=1.1))
    alpha[:, 40:44, 70:74] = np.nan
    assert sum(len(c.critical) for c in critical_curves(alpha, 0.05)) > 100
    assert all(np.isfinite(c.caustic).all() for c in critical_curves(alpha, 0.05))
    with pytest.raises(LensphysError, match=r"shape \(2, H, W\), H and W at least 3, got \(96, 96\)"):
        critical_curves(alpha[0], 0.05)
