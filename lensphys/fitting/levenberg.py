"""Batched Levenberg-Marquardt least squares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Residual = Callable[[Tensor, Tensor], Tensor]
Linearised = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (x, rows) -> residuals (B, N), Jacobian (B, P, N)


@dataclass(frozen=True)
class LeastSquaresFit:
    """Where a batch of least-squares problems ended.

    Args:
        x: (B, P), the parameters.
        cost: (B,), 1/2 sum of squared residuals.
        gradient_norm: (B,), largest |J^T r| over the norms of J's columns and of r: a cosine, 0 at an optimum.
        hessian: (B, P, P), J^T J at x.
    """

    x: Tensor
    cost: Tensor
    gradient_norm: Tensor
    hessian: Tensor


def value_and_jacobian(residual: Residual, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return residuals (B, N) and their Jacobian (B, P, N) by forward-mode differentiation, one pass a parameter.

    Args:
        residual: (x (B, P), rows (B,)) -> (B, N); sample b depends on x[b] alone.
        x: (B, P).
        rows: (B,), which sample of the whole batch each row of ``x`` is; handed on to ``residual``.
    """
    basis = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)

    def along(direction: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = torch.func.jvp(lambda p: residual(p, rows), (x,), (direction.expand_as(x),))[:2]
        return value, slope

    values, tangents = torch.func.vmap(along)(basis)  # the values come out once for each direction, all the same
    return values[0], tangents.transpose(0, 1)


def forward_mode(residual: Residual) -> Linearised:
    """Return residuals and their Jacobian by forward-mode differentiation: see `value_and_jacobian`."""
    return lambda x, rows: value_and_jacobian(residual, x, rows)


def normal_equations(r: Tensor, j: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return cost (B,), J^T r (B, P), J^T J (B, P, P), in float64, and the gradient's cosine (B,).

    Args:
        r: residuals, (B, N).
        j: their Jacobian, (B, P, N).
    """
    r, j = r.double(), j.double()  # a column may be a million times as long as another
    gradient = torch.einsum("bpn,bn->bp", j, r)
    hessian = j @ j.transpose(1, 2)
    cost = 0.5 * r.square().sum(1)
    size = torch.diagonal(hessian, dim1=1, dim2=2).sqrt() * (2 * cost).sqrt()[:, None]
    cosine = (gradient.abs() / size.clamp(min=1e-300)).amax(1)
    return cost, gradient, hessian, cosine


def levenberg_marquardt(
    linearised: Linearised,
    x0: Tensor,
    *,
    steps: int = 50,
    tolerance: float = 1e-5,
    rows: Tensor | None = None,
    damping: float = 1e-2,
) -> LeastSquaresFit:
    """Minimise 1/2 |r(x)|^2 for each sample of a batch.

    Samples that have converged leave the batch, so the cost follows the slowest few only. A step that would raise the
    cost is never taken. Not differentiable: see `gauss_newton_step` for a last step that is.

    Args:
        linearised: (x (b, P), rows (b,)) -> residuals (b, N) and their Jacobian (b, P, N); rows are indices into the
            batch. See `forward_mode`.
        x0: (B, P), where to start.
        steps: at most so many Jacobians.
        tolerance: a sample has converged when its gradient cosine is below this, or its cost no longer falls by more
            than a millionth.
        rows: (B,), the name of each row of x0 for ``linearised``; 0..B-1 if None.
        damping: of the first step; less where the start is known to be good.

    Source: Levenberg 1944; Marquardt 1963; Madsen, Nielsen & Tingleff 2004 (the damping rule).
    """
    with torch.no_grad():
        names = torch.arange(len(x0), device=x0.device) if rows is None else rows
        x = x0.detach().clone()
        cost, gradient, hessian, cosine = normal_equations(*linearised(x, names))
        cost = torch.where(cost.isfinite(), cost, torch.inf)  # a start without a value loses against any other
        dampings = torch.full_like(cost, damping)
        growth = torch.full_like(cost, 2.0)
        active = torch.arange(len(x), device=x.device)[cosine > tolerance]
        for _ in range(steps):
            if len(active) == 0:
                break
            step = damped_step(gradient[active], hessian[active], dampings[active])
            trial = x[active] + step.to(x.dtype)
            new = normal_equations(*linearised(trial, names[active]))
            predicted = -(step * (gradient[active] + 0.5 * torch.einsum("bpq,bq->bp", hessian[active], step))).sum(1)
            gain = (cost[active] - new[0]) / predicted.clamp(min=1e-300)
            better = (new[0] < cost[active]) & torch.isfinite(new[0])
            fall = (cost[active] - new[0]) / cost[active].clamp(min=1e-300)
            taken = active[better]
            x[taken] = trial[better]
            for whole, part in zip((cost, gradient, hessian, cosine), new, strict=True):
                whole[taken] = part[better]
            shrink = torch.clamp(1 - (2 * gain - 1) ** 3, min=1 / 3)
            dampings[active] = torch.where(better, dampings[active] * shrink, dampings[active] * growth[active])
            growth[active] = torch.where(better, 2.0, growth[active] * 2)
            done = (cosine[active] < tolerance) | (better & (fall < 1e-6) & (gain > 0.1)) | (dampings[active] > 1e12)
            active = active[~done]
        return LeastSquaresFit(x, cost, cosine, hessian)


def gauss_newton_step(residual: Residual, x: Tensor) -> Tensor:
    """Return x - (J^T J)^-1 J^T r, (B, P), differentiable through r alone.

    At an optimum the step is zero and its derivative is that of the optimum itself (implicit function theorem, with the
    Gauss-Newton Hessian): how a loss reaches what ``residual`` depends on without unrolling the optimiser.
    """
    rows = torch.arange(len(x), device=x.device)
    with torch.no_grad():
        _, j = value_and_jacobian(residual, x.detach(), rows)
        hessian = torch.einsum("bpn,bqn->bpq", j, j).double()
    r = residual(x.detach(), rows)
    gradient = torch.einsum("bpn,bn->bp", j, r).double()
    return x.detach() + damped_step(gradient, hessian, torch.full_like(gradient[:, 0], 1e-9)).to(x.dtype)


def damped_step(gradient: Tensor, hessian: Tensor, damping: Tensor) -> Tensor:
    """Return -(H + damping diag H)^-1 g, (B, P), of gradients (B, P), Hessians (B, P, P) and damping (B,)."""
    diagonal = torch.diagonal(hessian, dim1=1, dim2=2)
    largest = diagonal.amax(1, keepdim=True).clamp(min=1e-280)  # of each sample, so that none depends on the others
    scale = torch.maximum(diagonal, 1e-12 * largest)
    damped = hessian + torch.diag_embed(damping[:, None] * scale + 1e-12 * largest)
    return -torch.linalg.solve(damped, gradient)
