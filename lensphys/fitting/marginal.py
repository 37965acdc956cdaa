"""Images with their source integrated out: what a lens alone is worth, differentiable in the lens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lensphys.fitting.brightness import Brightness
from lensphys.fitting.newton import factored
from lensphys.fitting.problem import LensProblem


@dataclass(frozen=True)
class Marginal:
    """What images say of their lenses, whatever the source is.

    The source is its Sersic times 1 + g, g a Gaussian field: the image is linear in g, and r the whitened residual of
    the Sersic alone, W the whitened columns of g in units of their prior (N x M). Then C = 1 + W W^T and, up to a
    constant of the data, minus ln evidence is 1/2 r^T C^-1 r + 1/2 ln det C. By Woodbury, with H = 1 + W^T W, the
    solved source g = H^-1 W^T r and what it leaves over, q = r - W g:

        r^T C^-1 r = |q|^2 + |g|^2        ln det C = ln det H

    in which nothing large cancels.

    Args:
        cost: 1/2 (|q|^2 + |g|^2), (B,).
        volume: 1/2 ln det H, (B,).
        g: the solved source, in units of its prior, (B, M).

    Source: Woodbury; Suyu et al. 2006 (MNRAS 371, 983) for sources that are linear.
    """

    cost: Tensor
    volume: Tensor
    g: Tensor

    @property
    def surprise(self) -> Tensor:
        """Minus ln of the evidence, (B,), but for a constant of the data."""
        return self.cost + self.volume


def marginal(problem: LensProblem, own: Tensor) -> Marginal:
    """Return what images say of their lenses with the source integrated out.

    Args:
        problem: with a free source, without sub-halos or potential; derivatives flow to the sigma of its field.
        own: the model's parameters, (B, P); derivatives flow to them.
    """
    residual, columns = source_system(problem, own)
    right = (columns @ residual[:, :, None]).double()
    gram = (columns @ columns.transpose(1, 2)).double()
    hessian = gram + torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factor = factored(hessian)
    g = torch.cholesky_solve(right, factor)[:, :, 0]
    left = residual - (g.to(columns)[:, None] @ columns)[:, 0]
    cost = 0.5 * (left.double().square().sum(1) + g.square().sum(1))
    volume = torch.diagonal(factor, dim1=1, dim2=2).log().sum(1)
    return Marginal(cost, volume, g.to(own))


def source_system(problem: LensProblem, own: Tensor) -> tuple[Tensor, Tensor]:
    """Return the whitened residual of a source without its field, (B, N), and the field's columns, (B, M, N)."""
    x = torch.cat([own, own.new_zeros(len(own), problem.sizes[2])], dim=1)
    clean = problem.render(x)
    maps = Brightness(problem, x, problem.coarse).by_field()
    return problem.whitened_rest(clean), problem.whitened(maps, problem.whitening(clean))
