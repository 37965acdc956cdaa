"""Deflection and brightness of the common profiles by compiled kernels, without gradients: for simulations.

For a processor, tensors in float64. What the formulas of `mass` and `light` do in a dozen passes over memory these do
in one, several points at a time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lensphys.basics.checks import check_choice
from lensphys.model.light import sersic_b

# the lenses there is a kernel for, and their parameters beside the centre
COMPILED = {"SIS": ("theta_E",), "SIE": ("theta_E", "e1", "e2"), "SHEAR": ("gamma1", "gamma2")}


@torch.no_grad()
def add_deflection(name: str, x: Tensor, y: Tensor, parameters: dict[str, Tensor], total: Tensor) -> None:
    """Add the deflection of one SIS, SIE or external shear a lens, as `deflection_sis`, ..., to a total in place.

    Args:
        name: ``SIS``, ``SIE`` or ``SHEAR``.
        x: (P,) [arcsec], float64.
        y: (P,) [arcsec].
        parameters: those of the formula, (B,) each; e1, e2 and the centre are 0 where they are left out.
        total: (B, 2, P) [arcsec], float64.

    Raises:
        LensphysError: if there is no kernel for this name.
    """
    from lensphys.model import kernels

    check_choice("compiled lens", name, list(COMPILED))
    kernel = {"SIS": kernels.sis, "SIE": kernels.sie, "SHEAR": kernels.shear}[name]
    names = COMPILED[name]
    zero = total.new_zeros(len(total))
    table = torch.stack([parameters.get(n, zero) for n in ("center_x", "center_y", *names)], dim=1)
    kernel(x.contiguous().numpy(), y.contiguous().numpy(), table.numpy(), total.numpy())


@torch.no_grad()
def brightness_sersic_points(
    theta: Tensor,
    alpha: Tensor,
    amp: Tensor,
    R_sersic: Tensor,
    n_sersic: Tensor,
    e1: Tensor,
    e2: Tensor,
    center_x: Tensor,
    center_y: Tensor,
    total: Tensor | None = None,
) -> Tensor:
    """Return the brightness of one Sersic profile a lens at beta = theta - alpha, as `brightness_sersic` does.

    Computed in float64 to 3e-7 of the brightest point, rounded at the end; what is below 2^-120 amp is 0.

    Args:
        theta: (B or 1, 2, P) [arcsec], float64.
        alpha: (B or 1, 2, P) [arcsec], float64; may be the first points of a longer one, it is not copied.
        amp: surface brightness at R_sersic, (B,) [flux / arcsec^2], float64 as all that follow.
        R_sersic: half-light radius on the intermediate axis (B,) [arcsec].
        n_sersic: Sersic index, (B,).
        e1: ellipticity (1-q)/(1+q) cos 2 phi, (B,).
        e2: ellipticity (1-q)/(1+q) sin 2 phi, (B,).
        center_x: (B,) [arcsec].
        center_y: (B,) [arcsec].
        total: (B, P) [flux / arcsec^2], float32, to be added to in place and returned; without it a new one is.

    Returns:
        (B, P) [flux / arcsec^2], float32.
    """
    from lensphys.model import kernels

    table = torch.stack([center_x, center_y, amp, R_sersic, n_sersic, sersic_b(n_sersic), e1, e2], dim=1)
    if total is None:
        total = torch.zeros(len(table), theta.shape[-1], dtype=torch.float32)
    kernels.sersic(*_rows(theta, len(table)), *_rows(alpha, len(table)), table.numpy(), total.numpy())
    return total


def _rows(points: Tensor, lenses: int) -> tuple[Any, int, int]:
    """Points (B or 1, 2, P) as what lies in memory, and the steps from one lens and from x to y.

    A slice of more points is not contiguous, and the compiler would not vectorise over it; its rows are.
    """
    if points.stride(-1) != 1:
        points = points.contiguous()
    points = points.expand(lenses, -1, -1)
    lens, axis = points.stride()[:2]
    return points.as_strided(((lenses - 1) * lens + axis + points.shape[-1],), (1,)).numpy(), lens, axis
