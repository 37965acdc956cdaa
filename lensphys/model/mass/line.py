"""A line of uniform mass: the axion vortex as a continuous body."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lensphys.model.component import CORE, MassProfile, Value, as_planes, offset
from lensphys.model.parameter import GALAXY_CENTRE, Parameter


def deflection_line(
    theta: Tensor,
    theta_E: Value,
    length: Value,
    phi: Value,
    center_x: Value = 0.0,
    center_y: Value = 0.0,
) -> Tensor:
    """Return the deflection of a line of uniform mass, the limit of N equal point masses as N grows.

    With w = (z - c) exp(-i phi) and L the half length,

        conj(alpha) = theta_E^2 / (2 L) exp(-i phi) ln((w + L) / (w - L)),

    here of point masses softened as in `deflection_point`. So the part across the line, which jumps at the line, does
    so within 1e-6" and is zero on it; the ends are finite; L -> 0 is the point mass (lengths below 1e-6" count as
    that). N points with a point on both ends, spaced 2 L / (N - 1), are a line of half length L N / (N - 1).

    Args:
        theta: (B or 1, 2, H, W) [arcsec].
        theta_E: Einstein radius of the whole mass as a point [arcsec].
        length: half length L [arcsec].
        phi: direction from +x [rad].
        center_x: middle of the line [arcsec].
        center_y: [arcsec].

    Returns:
        (B, 2, H, W) [arcsec].

    Source: the integral of theta_E^2 / (2 L) / (w - s) over -L < s < L.
    """
    x, y = offset(theta, center_x, center_y)
    L, phi = as_planes(length, theta).clamp(min=CORE), as_planes(phi, theta)
    cos, sin = phi.cos(), phi.sin()
    along, across = cos * x + sin * y, cos * y - sin * x
    side = torch.where(along < 0, -torch.ones_like(along), torch.ones_like(along))
    a = side * along  # |along|, but with a gradient at 0
    h = (across**2 + CORE**2).sqrt()
    # ln |w + L| / |w - L| and the angle that the line subtends, in forms without cancellation near and far
    drop = 0.5 * side * torch.log1p(4 * L * a / ((a - L) ** 2 + h**2))
    angle = torch.atan2(2 * L * h, h**2 + (a - L) * (a + L)) * (across / h)
    scale = as_planes(theta_E, theta) ** 2 / (2 * L)
    return torch.stack([scale * (cos * drop - sin * angle), scale * (sin * drop + cos * angle)], dim=1)


def potential_line(
    theta: Tensor,
    theta_E: Value,
    length: Value,
    phi: Value,
    center_x: Value = 0.0,
    center_y: Value = 0.0,
) -> Tensor:
    """Return the potential of a line of uniform mass, (B, H, W) [arcsec^2]; arguments as for `deflection_line`.

    psi = theta_E^2 / (2 L) Re[(w + L) ln(w + L) - (w - L) ln(w - L) - 2 L]; L -> 0 is the point mass, theta_E^2 ln r.

    Source: the integral of theta_E^2 / (2 L) ln|w - s| over -L < s < L.
    """
    fine = theta.double()  # of a short line little is left of the difference
    x, y = offset(fine, center_x, center_y)
    L, phi = as_planes(length, fine).clamp(min=CORE), as_planes(phi, fine)
    along, across = phi.cos() * x + phi.sin() * y, phi.cos() * y - phi.sin() * x

    def half(end: Tensor) -> Tensor:
        return 0.5 * end * torch.log(end**2 + across**2 + CORE**2) - across * torch.atan2(across, end)

    psi = as_planes(theta_E, fine) ** 2 / (2 * L) * (half(along + L) - half(along - L) - 2 * L)
    return psi.to(theta.dtype)


@dataclass(frozen=True)
class LineMass(MassProfile):
    """Line of uniform mass: see `deflection_line`. The continuous axion vortex.

    Args:
        theta_E: Einstein radius of the whole mass as a point [arcsec].
        length: half length [arcsec].
        phi: direction from +x [rad].
        center_x: middle of the line [arcsec].
        center_y: [arcsec].

    Example:
        >>> ax, ay = LineMass(theta_E=0.2, length=0.5, phi=0.0).deflection(1.0, 0.0)  # arcsec
        >>> ax.round(4).item(), ay.round(4).item()
        (0.0439, 0.0)
    """

    theta_E: Value
    length: Value
    phi: Value
    center_x: Value = 0.0
    center_y: Value = 0.0
    formula = staticmethod(deflection_line)
    may_be_zero = ("length",)  # a point
    lenstronomy = "LINE_MASS"
    in_lenstronomy = False
    parameters = (
        Parameter("theta_E", "arcsec", 1e-4, 1.0, 0.2, 1.5, logarithmic=True),
        Parameter("length", "arcsec", 1e-3, 10.0, 0.5, 1.0, logarithmic=True),
        Parameter("phi", "rad", -3.2, 3.2),
        *GALAXY_CENTRE,
    )

    def psi(self, theta: Tensor) -> Tensor:
        """Return the potential, (B, 1, H, W) [arcsec^2]: see `potential_line`."""
        return potential_line(theta, **self.values)[:, None]
