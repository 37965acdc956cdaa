"""Gaussian random fields for what no formula describes: a correction psi to the potential, and one to the source.

Each is linear in its coefficients, a thousand of them, under a Gaussian prior. A Gauss-Newton step on them, jointly
with macro parameters and sub-halos, is one linear system, solved by conjugate gradients without building its matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lensphys.fitting.problem import LensProblem, LensState, Response, grown
from lensphys.model import CosineBasis, FieldPrior
from lensphys.settings import Strict

POTENTIAL, LIGHT = 0, 1
_HELD_OUT = 10  # every so-many-th pixel tells how strong the field of an image is
_TRIALS = (1.0, 0.3)  # of the survey's amplitude; where the first gains nothing the others are not tried
_PAYS = 4.0  # ln likelihood of the held-out pixels that a field must gain

Blocks = tuple[Tensor, Tensor]  # something for each entry of the vector, (B, P), and for each mode, (B, n, n)


class FieldPriors(Strict):
    """What a survey's lenses have in common, before an image is seen.

    Args:
        potential: prior of psi; its amplitude in arcsec^3.
        light: prior of the source's free-form part; its amplitude in arcsec, in units of the image's peak.
    """

    potential: FieldPrior = FieldPrior(amplitude=0.01, scale=2.0, slope=2.5)
    light: FieldPrior = FieldPrior(amplitude=0.0, scale=3.0, slope=3.0)

    def of(self, which: int) -> FieldPrior:
        """Return the prior of `POTENTIAL` or `LIGHT`."""
        return self.light if which == LIGHT else self.potential


@dataclass(frozen=True)
class _System:
    """The linear least-squares problem about a state: macro and sub-halos by columns, a field by an operator.

    Args:
        problem: images and noise.
        which: the field.
        seen: the response at the state.
        columns: Jacobian of data and priors by the vector, (B, P, N).
        residual: of data and priors, (B, N).
        sigma: prior widths of the field's coefficients, (B, n, n).
    """

    problem: LensProblem
    which: int
    seen: Response
    columns: Tensor
    residual: Tensor
    sigma: Tensor

    @classmethod
    def about(cls, problem: LensProblem, state: LensState, which: int, sigma: Tensor) -> _System:
        seen = problem.response(state)
        residual, columns = problem.with_priors(seen, state)
        return cls(problem, which, seen, columns, residual, sigma)

    def forward(self) -> Callable[[Tensor], Tensor]:
        """Return coefficients in units of their prior (B, n, n) -> change of the residual, (B, H W)."""
        problem, seen = self.problem, self.seen
        if self.which == LIGHT:
            unit, shine = problem.unit[:, None, None, None], problem.light.at(seen.beta)
            return lambda z: -problem.whitened(unit * shine(z * self.sigma), seen.weight)[:, 0]

        def bend(z: Tensor) -> Tensor:
            alpha = problem.potential.gradient_on(z * self.sigma, problem.fine)
            return problem.whitened((seen.slope * alpha).sum(1, keepdim=True), seen.weight)[:, 0]

        return bend

    def pulled_back(self, residual: Tensor) -> Blocks:
        """Return J^T r, (B, P) and (B, n, n), of residuals of data and priors (B, N)."""
        backward = torch.func.vjp(self.forward(), torch.zeros_like(self.sigma))[1]
        (field,) = backward(residual[:, : self.seen.residual.shape[1]])
        return torch.einsum("bpn,bn->bp", self.columns, residual), field

    def solve(self, right: Blocks, iterations: int) -> Blocks:
        """Return (J^T J + 1 on the field)^-1 right, by conjugate gradients.

        Preconditioned by the exact block of the vector; the field's own block is the identity plus what the data say.
        """
        forward = self.forward()
        backward = torch.func.vjp(forward, torch.zeros_like(self.sigma))[1]
        data = self.columns[:, :, : self.seen.residual.shape[1]]
        priors = self.columns[:, :, data.shape[2] :]
        own = priors @ priors.transpose(1, 2)
        columns = self.columns.double()
        block = columns @ columns.transpose(1, 2)
        diagonal = torch.diagonal(block, dim1=1, dim2=2)
        block = block + torch.diag_embed(1e-6 * diagonal + 1e-9 * diagonal.amax(1, keepdim=True))
        factor = torch.linalg.cholesky(block)

        def hessian(x: Blocks) -> Blocks:
            change = torch.einsum("bpn,bp->bn", data, x[0]) + forward(x[1])
            vector = torch.einsum("bpq,bq->bp", own, x[0]) + torch.einsum("bpn,bn->bp", data, change)
            return vector, backward(change)[0] + x[1]

        def precondition(x: Blocks) -> Blocks:
            return torch.cholesky_solve(x[0].double()[:, :, None], factor)[:, :, 0].to(x[0]), x[1]

        return conjugate_gradients(hessian, right, precondition, iterations)


def fit_field(
    problem: LensProblem,
    state: LensState,
    priors: FieldPriors,
    which: int,
    strength: Tensor,
    *,
    steps: int = 2,
    iterations: int = 60,
) -> LensState:
    """Return the joint optimum of macro, sub-halos and a field after Gauss-Newton ``steps``; none raises the cost.

    Args:
        problem: images and noise.
        state: where to start; its other field stays.
        priors: of the fields.
        which: `POTENTIAL` or `LIGHT`.
        strength: factor on the prior's amplitude, (B,).
        steps: of Gauss-Newton.
        iterations: of conjugate gradients a step, at most.
    """
    basis, _ = _field(problem, state, which)
    sigma = field_sigma(problem, priors, which, strength)
    state = _with_coefficients(state, which, grown(_field(problem, state, which)[1], basis.modes))
    cost = _cost(problem, state, which, sigma)
    for _ in range(steps):
        system = _System.about(problem, state, which, sigma)
        vector, field = system.pulled_back(system.residual)
        direction = system.solve((-vector, -field - _unit(_field(problem, state, which)[1], sigma)), iterations)
        length = torch.ones_like(cost)
        for _ in range(5):
            trial = _moved(problem, state, which, direction, length, sigma)
            new = _cost(problem, trial, which, sigma)
            worse = ~(new <= cost)
            if not bool(worse.any()):
                break
            length = torch.where(worse, 0.4 * length, length)
        taken = (~worse).nonzero()[:, 0]
        state, cost = state.with_rows(taken, trial[taken]), torch.where(worse, cost, new)
    return state


def field_strength(problem: LensProblem, state: LensState, priors: FieldPriors, which: int) -> Tensor:
    """Return how strong a field is in each image, as a factor on the survey's amplitude, (B,); 0 where it does not pay.

    A tenth of the pixels is held out, the field is fitted to the others with several amplitudes, and the held-out
    pixels choose (noise2self): what only fits noise does not predict them.

    Args:
        problem: images and noise.
        state: without this field.
        priors: of the fields.
        which: `POTENTIAL` or `LIGHT`.
    """
    noise = problem.inverse_sigma
    held = (torch.rand(noise.shape[1:], generator=torch.Generator().manual_seed(0)) < 1 / _HELD_OUT).to(noise)
    seen, hidden = replace(problem, inverse_sigma=noise * (1 - held)), replace(problem, inverse_sigma=noise * held)
    none = torch.zeros_like(problem.unit)

    def missed(trial: float) -> Tensor:
        fitted = fit_field(seen, state, priors, which, none + trial, steps=1, iterations=30)
        return 0.5 * hidden.residual(fitted).square().sum(1)

    best, least = none, missed(0.0) - _PAYS
    for trial in _TRIALS:
        cost = missed(trial)
        best, least = torch.where(cost < least, none + trial, best), torch.minimum(cost, least)
        if not bool((best > 0).any()):
            break
    return best


def with_proposal(problem: LensProblem, state: LensState, psi: Tensor) -> LensState:
    """Return the state with a proposed potential, scaled as the data want it; without it where it does not pay.

    Args:
        problem: images and noise.
        state: without a potential, at the optimum of its macro parameters.
        psi: proposed coefficients, (B, m, m) [arcsec^3], such as a network's.
    """
    seen = problem.response(state)
    residual, columns = problem.with_priors(seen, state)
    alpha = problem.potential.gradient_on(psi, problem.fine)
    change = problem.whitened((seen.slope * alpha).sum(1, keepdim=True), seen.weight)[:, 0]
    basis, upper = torch.linalg.qr(columns.transpose(1, 2))
    change = F.pad(change, (0, residual.shape[1] - change.shape[1]))
    free = change - ((change[:, None] @ basis) @ basis.transpose(1, 2))[:, 0]
    power = free.square().sum(1).clamp(min=1e-12)
    factor = (-(free * residual).sum(1) / power).clamp(0, 2)
    left = residual + factor[:, None] * change
    step = torch.linalg.solve_triangular(upper, basis.transpose(1, 2) @ left[:, :, None], upper=True)[:, :, 0]
    trial = replace(state.moved(state.vector - step), potential=psi * factor[:, None, None])
    pays = problem.cost(trial) < problem.cost(state) - _PAYS
    none = replace(state, potential=torch.zeros_like(psi))
    return none.with_rows(pays.nonzero()[:, 0], trial[pays])


def sampled(
    problem: LensProblem,
    state: LensState,
    priors: FieldPriors,
    which: int,
    strength: Tensor,
    generator: torch.Generator,
    iterations: int = 60,
) -> LensState:
    """Return a draw from the posterior about the optimum ``state``, in the Laplace approximation.

    By perturbation: the optimum of the problem with unit noise added to every residual of data and priors is a sample
    of the posterior, for a linear problem.

    Args:
        problem: images and noise.
        state: its optimum.
        priors: of the fields.
        which: the field that is drawn with macro and sub-halos.
        strength: factor on the prior's amplitude, (B,).
        generator: of the noise, on the CPU.
        iterations: of conjugate gradients.

    Source: Papandreou & Yuille 2010 (perturb-and-MAP, Gaussian case).
    """

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)

    sigma = field_sigma(problem, priors, which, strength)
    system = _System.about(problem, state, which, sigma)
    vector, field = system.pulled_back(noise(system.residual))
    direction = system.solve((vector, field + noise(field)), iterations)
    basis, coefficients = _field(problem, state, which)
    state = _with_coefficients(state, which, grown(coefficients, basis.modes))
    return _moved(problem, state, which, direction, torch.ones_like(problem.unit), sigma)


def field_sigma(problem: LensProblem, priors: FieldPriors, which: int, strength: Tensor) -> Tensor:
    """Return the prior widths of a field's coefficients, (B, n, n), for factors on its amplitude (B,)."""
    basis = problem.light if which == LIGHT else problem.potential
    return priors.of(which).sigma(basis, like=strength) * strength[:, None, None]


def field_prior(problem: LensProblem, state: LensState, priors: FieldPriors) -> Tensor:
    """Return half the squared norm of the fields of a state, in units of their priors, (B,)."""
    total = torch.zeros_like(problem.unit)
    for which in (POTENTIAL, LIGHT):
        coefficients = _field(problem, state, which)[1]
        if bool((coefficients != 0).any()):
            sigma = field_sigma(problem, priors, which, torch.ones_like(problem.unit))
            size = coefficients.shape[-1]
            total = total + 0.5 * _unit(coefficients, sigma[:, :size, :size]).square().sum((1, 2))
    return total


def conjugate_gradients(
    hessian: Callable[[Blocks], Blocks], right: Blocks, precondition: Callable[[Blocks], Blocks], iterations: int
) -> Blocks:
    """Return x with hessian(x) = right, for a batch of symmetric positive definite systems of two blocks.

    Args:
        hessian: blocks (B, ...) -> blocks (B, ...).
        right: the right-hand sides.
        precondition: an approximate inverse of ``hessian``.
        iterations: at most so many; ends when every residual is a thousandth of the first.

    Source: Hestenes & Stiefel 1952.
    """
    x = torch.zeros_like(right[0]), torch.zeros_like(right[1])
    residual, direction = right, precondition(right)
    first = power = _dot(residual, direction)
    for _ in range(iterations):
        image = hessian(direction)
        length = power / _dot(direction, image).clamp(min=1e-30)
        x = _plus(x, length, direction)
        residual = _plus(residual, -length, image)
        better = precondition(residual)
        new = _dot(residual, better)
        direction = _plus(better, new / power.clamp(min=1e-30), direction)
        power = new
        if bool((power <= 1e-6 * first).all()):
            break
    return x


def _dot(a: Blocks, b: Blocks) -> Tensor:
    return (a[0] * b[0]).sum(1) + (a[1] * b[1]).sum((1, 2))


def _plus(a: Blocks, factor: Tensor, b: Blocks) -> Blocks:
    return a[0] + factor[:, None] * b[0], a[1] + factor[:, None, None] * b[1]


def _field(problem: LensProblem, state: LensState, which: int) -> tuple[CosineBasis, Tensor]:
    """The modes and the coefficients of a field."""
    return (problem.light, state.light) if which == LIGHT else (problem.potential, state.potential)


def _with_coefficients(state: LensState, which: int, coefficients: Tensor) -> LensState:
    return replace(state, light=coefficients) if which == LIGHT else replace(state, potential=coefficients)


def _unit(coefficients: Tensor, sigma: Tensor) -> Tensor:
    """Return coefficients in units of their prior width; where the prior allows none, 0."""
    return torch.where(sigma > 0, coefficients / sigma.clamp(min=1e-30), 0.0)


def _cost(problem: LensProblem, state: LensState, which: int, sigma: Tensor) -> Tensor:
    z = _unit(_field(problem, state, which)[1], sigma)
    return problem.cost(state) + 0.5 * z.square().sum((1, 2))


def _moved(
    problem: LensProblem, state: LensState, which: int, direction: Blocks, length: Tensor, sigma: Tensor
) -> LensState:
    coefficients = _field(problem, state, which)[1] + length[:, None, None] * direction[1] * sigma
    return _with_coefficients(state.moved(state.vector + length[:, None] * direction[0]), which, coefficients)
