"""Batched Levenberg-Marquardt least squares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from lensphys.basics.rows import Rows

Residual = Callable[[Tensor, Tensor], Tensor]  # (x, rows) -> residuals (B, N)
_HAIRS = 4  # times that what is added to a diagonal grows a hundredfold, where rounding asks for more


@dataclass(frozen=True)
class Normal(Rows):
    """The normal equations of a batch of least-squares problems at a point; residuals and entries have no unit.

    Args:
        cost: half of the sum of squared residuals, (B,).
        gradient: of the cost, (B, Q).
        hessian: J^T J, (B, Q, Q).
        cosine: largest |gradient| over the norms of J's columns and of the residual, (B,): 0 at an optimum.
    """

    cost: Tensor
    gradient: Tensor
    hessian: Tensor
    cosine: Tensor

    @classmethod
    def from_derivatives(cls, cost: Tensor, gradient: Tensor, hessian: Tensor) -> Normal:
        """Return them with the cosine that they have, of cost (B,), gradient (B, Q) and Hessian (B, Q, Q)."""
        size = torch.diagonal(hessian, dim1=1, dim2=2).sqrt() * (2 * cost).sqrt()[:, None]
        return cls(cost, gradient, hessian, (gradient.abs() / size.clamp(min=1e-300)).amax(1))

    @cached_property
    def factor(self) -> Tensor:
        """The lower Cholesky factor of the Hessian, (B, Q, Q)."""
        return factored(self.hessian)

    @cached_property
    def covariance(self) -> Tensor:
        """The inverse of the Hessian, (B, Q, Q)."""
        return torch.cholesky_inverse(self.factor)

    @property
    def promise(self) -> Tensor:
        """By how much the cost would fall to the optimum, were the residuals linear, (B,)."""
        step = torch.linalg.solve_triangular(self.factor, self.gradient[:, :, None], upper=False)
        return 0.5 * step.square().sum((1, 2))

    @property
    def half_logdet(self) -> Tensor:
        """Half of the ln determinant of the Hessian, (B,)."""
        return torch.diagonal(self.factor, dim1=1, dim2=2).log().sum(1)


class Problem(Protocol):
    """A batch of least-squares problems, in vectors (B, Q)."""

    def __getitem__(self, rows: Tensor) -> Problem:
        """Return some of them (indices)."""
        ...

    def cost(self, x: Tensor) -> Tensor:
        """Return half of the sum of squared residuals, (B,), in float64."""
        ...

    def normal(self, x: Tensor) -> Normal:
        """Return the normal equations at vectors (B, Q), in float64."""
        ...


@dataclass(frozen=True)
class Differentiated:
    """The least-squares problem of a residual function, by forward-mode differentiation.

    Args:
        residual: (x (b, P), rows (b,)) -> (b, N); sample b depends on x[b] alone.
        rows: which samples of the whole batch they are, (B,).
    """

    residual: Residual
    rows: Tensor

    def __getitem__(self, rows: Tensor) -> Differentiated:
        return Differentiated(self.residual, self.rows[rows])

    def cost(self, x: Tensor) -> Tensor:
        """Return half of the sum of squared residuals, (B,), in float64."""
        return 0.5 * self.residual(x, self.rows).double().square().sum(1)

    def normal(self, x: Tensor) -> Normal:
        """Return the normal equations at vectors (B, P), in float64: columns may differ a millionfold."""
        r, j = (t.double() for t in value_and_jacobian(self.residual, x, self.rows))
        return Normal.from_derivatives(0.5 * r.square().sum(1), torch.einsum("bpn,bn->bp", j, r), j @ j.transpose(1, 2))


@dataclass(frozen=True)
class Optimum:
    """Where a batch of least-squares problems ended; its normal equations there are made when they are asked for.

    Args:
        problem: answers for its normal equations.
        x: (B, Q), the parameters.
        reached: (B,), half of the sum of squared residuals, where it is known.
        known: the normal equations, where they are.
    """

    problem: Problem
    x: Tensor
    reached: Tensor | None = None
    known: Normal | None = None

    @cached_property
    def normal(self) -> Normal:
        """The normal equations at x."""
        with torch.no_grad():
            return self.problem.normal(self.x) if self.known is None else self.known

    def kept(self, make: Callable[[], Normal]) -> Normal:
        """Return the normal equations; where they are not known yet, as ``make`` gives them, which is remembered."""
        if "normal" not in self.__dict__ and self.known is None:
            self.__dict__["normal"] = make()
        return self.normal

    @property
    def cost(self) -> Tensor:
        """Half of the sum of squared residuals, (B,)."""
        return self.normal.cost if self.reached is None else self.reached

    @property
    def cosine(self) -> Tensor:
        """See `Normal`, (B,)."""
        return self.normal.cosine

    @property
    def hessian(self) -> Tensor:
        """J^T J at x, (B, Q, Q)."""
        return self.normal.hessian

    @property
    def half_logdet(self) -> Tensor:
        """Half of its ln determinant, (B,)."""
        return self.normal.half_logdet

    def rows(self, index: Tensor, problem: Problem | None = None) -> Optimum:
        """Return some of them (indices); of a problem that is already the problem of those."""
        normal = self.normal.rows(index) if self.known is not None or "normal" in self.__dict__ else None
        reached = None if self.reached is None else self.reached[index]
        return Optimum(self.problem[index] if problem is None else problem, self.x[index], reached, normal)

    def at_cost(self, cost: Tensor) -> Optimum:
        """Return it with the cost (B,) that another problem has there, its normal equations those of its own."""
        return Optimum(self.problem, self.x, cost, self.normal)

    def lower(self, other: Optimum) -> Optimum:
        """Return the lower of two optima of each sample of a problem."""
        ours = self.cost <= other.cost
        x = torch.where(ours[:, None], self.x, other.x)
        return Optimum(self.problem, x, torch.where(ours, self.cost, other.cost))


P = TypeVar("P", bound=Problem)


@dataclass(frozen=True)
class AtOptimum(Generic[P]):
    """A batch of least-squares problems at their optimum.

    Args:
        problem: what is judged there.
        end: where the fit ended, of this problem or of one that differs from it little.
    """

    problem: P
    end: Optimum

    @classmethod
    def at(cls, problem: P, x: Tensor) -> Self:
        """Return a fit that stays where it is, at vectors (B, Q)."""
        return cls(problem, Optimum(problem, x))

    @property
    def x(self) -> Tensor:
        """The parameters, (B, Q)."""
        return self.end.x


def value_and_jacobian(residual: Residual, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return residuals (B, N) and their Jacobian (B, P, N) by forward-mode differentiation, one pass a parameter.

    Args:
        residual: (x (B, P), rows (B,)) -> (B, N); sample b depends on x[b] alone.
        x: parameters, unconstrained, (B, P).
        rows: (B,), which sample of the whole batch each row of ``x`` is; handed on to ``residual``.
    """
    basis = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)

    def along(direction: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = torch.func.jvp(lambda p: residual(p, rows), (x,), (direction.expand_as(x),))[:2]
        return value, slope

    values, tangents = torch.func.vmap(along)(basis)  # the values come out once for each direction, all the same
    return values[0], tangents.transpose(0, 1)


@dataclass(frozen=True)
class Stop:
    """When a sample has converged.

    Args:
        steps: after so many Jacobians in any case.
        cosine: when its gradient cosine is below this.
        fall: or when a step lowers the cost by no more than this,
        share: or by no more than this share of it.
    """

    steps: int = 50
    cosine: float = 1e-5
    fall: float = 0.0
    share: float = 1e-6


def minimised(
    problem: Problem, x0: Tensor, stop: Stop = Stop(), *, damping: float = 1e-2, start: Normal | None = None
) -> Optimum:
    """Return the least squares of each sample of a batch, by Levenberg-Marquardt.

    Samples that have converged leave the batch, so the time is that of the slowest few only. A step that would raise
    the cost is never taken. Not differentiable: see `gauss_newton_step` for a last step that is.

    Args:
        problem: answers for some of its samples with ``problem[rows]``, its cost and its normal equations.
        x0: (B, Q), where to start.
        stop: when to end.
        damping: of the first step; less where the start is known to be good.
        start: the normal equations at ``x0``, where they are known.

    Source: Levenberg 1944; Marquardt 1963; Madsen, Nielsen & Tingleff 2004 (the damping rule).
    """
    with torch.no_grad():
        x = x0.detach().clone()
        first = problem.normal(x) if start is None else start
        cost, gradient, hessian, cosine = (t.clone() for t in (first.cost, first.gradient, first.hessian, first.cosine))
        settled = torch.ones_like(cost, dtype=torch.bool)  # whether those are the normal equations of where x stands
        cost = torch.where(cost.isfinite(), cost, torch.inf)  # a start without a value loses against any other
        dampings, growth = torch.full_like(cost, damping), torch.full_like(cost, 2.0)
        active = torch.arange(len(x), device=x.device)[(cosine > stop.cosine) & usable(gradient, hessian)]
        for _ in range(stop.steps):
            if len(active) == 0:
                break
            step = damped_step(gradient[active], hessian[active], dampings[active])
            trial = x[active] + step.to(x.dtype)
            new = problem[active].cost(trial)
            predicted = -(step * (gradient[active] + 0.5 * torch.einsum("bpq,bq->bp", hessian[active], step))).sum(1)
            fall = cost[active] - new
            gain = fall / predicted.clamp(min=1e-300)
            better = (fall > 0) & torch.isfinite(new)
            small = (fall < stop.share * cost[active]) | (fall < stop.fall)
            last = better & small & (gain > 0.1)
            taken, on = active[better], active[better & ~last]
            x[taken], cost[taken], settled[taken] = trial[better], new[better], False
            if len(on):
                there = problem[on].normal(x[on])
                cost[on], gradient[on], hessian[on] = there.cost, there.gradient, there.hessian
                cosine[on] = there.cosine
                settled[on] = True
            shrink = torch.clamp(1 - (2 * gain - 1) ** 3, min=1 / 3)
            dampings[active] = torch.where(better, dampings[active] * shrink, dampings[active] * growth[active])
            growth[active] = torch.where(better, 2.0, growth[active] * 2)
            done = (cosine[active] < stop.cosine) | last | (dampings[active] > 1e12)
            active = active[~done & usable(gradient[active], hessian[active])]
        return Optimum(problem, x, cost, Normal(cost, gradient, hessian, cosine) if bool(settled.all()) else None)


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
    factor, failed = torch.linalg.cholesky_ex(damped)
    step = -torch.cholesky_solve(gradient[:, :, None], factor)[:, :, 0]
    return torch.where((failed == 0)[:, None], step, torch.nan)  # a step that is none lowers no cost: more damping


def usable(gradient: Tensor, hessian: Tensor) -> Tensor:
    """Return for which samples a step can be computed, (B,): gradient (B, Q) and Hessian (B, Q, Q) are finite."""
    return gradient.isfinite().all(1) & hessian.flatten(1).isfinite().all(1)


def factored(hessian: Tensor) -> Tensor:
    """Return the Cholesky factors of positive matrices (B, Q, Q), a hair above singular ones, more where rounding asks.

    Of what are no numbers, and of zero, which is the curvature of a model that shows no light: those of 1.
    """
    flat = hessian.flatten(1)
    told = (flat.isfinite().all(1) & (flat != 0).any(1))[:, None, None]
    hessian = torch.where(told, hessian, torch.eye(hessian.shape[-1]).to(hessian))
    diagonal = torch.diagonal(hessian, dim1=1, dim2=2)
    hair = 1e-10 * diagonal + 1e-14 * diagonal.amax(1, keepdim=True)
    factor, failed = torch.linalg.cholesky_ex(hessian + torch.diag_embed(hair))
    for _ in range(_HAIRS):
        if not failed.any():
            break
        hair = torch.where((failed > 0)[:, None], 100 * hair, hair)  # rounding made it indefinite
        factor, failed = torch.linalg.cholesky_ex(hessian + torch.diag_embed(hair))
    return torch.where((failed == 0)[:, None, None], factor, torch.nan)
