"""The smoothly truncated NFW halo: a sub-halo of finite mass."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lensphys.model.component import CORE, MassProfile, Value, as_planes, offset
from lensphys.model.mass.nfw import nfw_functions
from lensphys.model.parameter import ANYWHERE, Parameter


def enclosed_tnfw(x: Tensor, tau: Tensor) -> Tensor:
    """Return the mass g(x) inside x, over x^2: Baltz's formula with its cancelling terms joined by hand.

    Without unit, of the shape of x = R / Rs, with which tau = r_trunc / Rs broadcasts. With s = sqrt(tau^2 + x^2),
    s - tau is x^2 / (s + tau), and ln tau + s/tau ln(x / (tau + s)) + F is x^2 log_part.
    """
    F, nfw = nfw_functions(x)
    s = (tau**2 + x**2).sqrt()
    rise = 1 / (tau * (s + tau))
    log_part = nfw - torch.log1p(0.5 * x**2 * rise) / x**2 - torch.asinh(tau / x) * rise
    return (tau / (tau**2 + 1)) ** 2 * ((tau**2 - 1) * log_part + 2 * F - math.pi / (s + tau))


def deflection_tnfw(
    theta: Tensor,
    Rs: Value,
    alpha_Rs: Value,
    r_trunc: Value,
    center_x: Value = 0.0,
    center_y: Value = 0.0,
) -> Tensor:
    """Return the deflection of an NFW halo truncated smoothly, rho = rho_NFW r_trunc^2 / (r^2 + r_trunc^2).

    With x = R / Rs and tau = r_trunc / Rs, alpha = alpha_Rs / (1 - ln 2) g(x) / x r_hat. A halo of alpha_Rs = 0 gives
    exactly zero, whatever its radii (radii below 1e-6" count as that), so that a batch can be padded. Exact to 1e-12
    for x < 1e3; in float32, far outside of r_trunc, to 5e-7 x.

    Args:
        theta: (B or 1, 2, H, W) [arcsec].
        Rs: scale radius [arcsec].
        alpha_Rs: deflection at Rs of the halo before truncation [arcsec].
        r_trunc: truncation radius [arcsec].
        center_x: [arcsec].
        center_y: [arcsec].

    Returns:
        (B, 2, H, W) [arcsec].

    Source: Baltz, Marshall & Oguri 2009 (JCAP 01, 015), appendix A, n = 1; lenstronomy ``TNFW``, which holds g / x^2
    constant inside of x = 1e-3 and has lost digits (1e-5) there.
    """
    x, y = offset(theta, center_x, center_y)
    Rs, r_trunc = as_planes(Rs, theta).clamp(min=CORE), as_planes(r_trunc, theta).clamp(min=CORE)
    r = (x**2 + y**2 + CORE**2).sqrt()
    scale = as_planes(alpha_Rs, theta) / (Rs * (1 - math.log(2))) * enclosed_tnfw(r / Rs, r_trunc / Rs)
    return torch.stack([scale * x, scale * y], dim=1)


def truncated_mass(tau: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Return the total mass of a truncated NFW halo in units of 4 pi rho_s r_s^3.

    The density is NFW times tau^2 / (tau^2 + (r / r_s)^2).

    Args:
        tau: truncation radius, any shape, that of the answer [r_s].

    Source:
        Baltz, Marshall & Oguri (2009), JCAP 01, 015, appendix A.

    Example:
        >>> round(float(truncated_mass(5.0)), 3)
        1.048
    """
    square = np.square(tau)
    return np.asarray(square / (square + 1) ** 2 * ((square - 1) * np.log(tau) + np.pi * tau - (square + 1)))


@dataclass(frozen=True)
class TNFW(MassProfile):
    """Smoothly truncated NFW halo, as of a sub-halo: see `deflection_tnfw`.

    Args:
        Rs: scale radius [arcsec].
        alpha_Rs: deflection at Rs of the halo before truncation [arcsec].
        r_trunc: truncation radius [arcsec].
        center_x: [arcsec].
        center_y: [arcsec].

    Example:
        >>> ax, ay = TNFW(Rs=0.1, alpha_Rs=0.01, r_trunc=0.5).deflection(0.3, 0.4)  # arcsec
        >>> ax.round(4).item(), ay.round(4).item()
        (0.0033, 0.0044)
    """

    Rs: Value
    alpha_Rs: Value
    r_trunc: Value
    center_x: Value = 0.0
    center_y: Value = 0.0
    formula = staticmethod(deflection_tnfw)
    lenstronomy = "TNFW"
    strengths = ("alpha_Rs",)
    parameters = (
        Parameter("Rs", "arcsec", 1e-3, 1.0, 0.05, 0.7, logarithmic=True),
        Parameter("alpha_Rs", "arcsec", 1e-6, 1.0, 0.005, 1.5, logarithmic=True),
        Parameter("r_trunc", "arcsec", 1e-3, 10.0, 0.3, 0.7, logarithmic=True),
        *ANYWHERE,
    )
