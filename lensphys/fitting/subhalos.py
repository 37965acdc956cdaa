"""Sub-halos, found one after the other where they explain most of what a smooth lens leaves over.

Sub-halos are sparse: a Gaussian field smooths the one that is there and fits noise where none is. Here each is a
softened point mass that enters only if it gains more in likelihood than its three numbers cost, and all of them are
optimised together with the lens and the source: orthogonal matching pursuit with a polish after each round.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lensphys.fitting.lens import minimised
from lensphys.fitting.problem import EMPTY, LensProblem, LensState, Response, by_subhalos
from lensphys.grid import PixelGrid
from lensphys.observation import block_sum

_LARGEST = 0.02  # arcsec^2: theta_E of 0.14", beyond what the search looks for
_APART = 3.0  # pixels between two candidates of a round


@dataclass(frozen=True)
class Search:
    """How sub-halos are looked for.

    Args:
        gain: what a sub-halo must gain in ln likelihood. A position that is searched for among hundreds costs about
            6 by chance alone (ln of their number); 12 is a 5 sigma detection.
        rounds: at most so many rounds.
        a_round: at most so many new sub-halos a round and image.
        steps: Levenberg-Marquardt steps after each round.
    """

    gain: float = 12.0
    rounds: int = 12
    a_round: int = 2
    steps: int = 8


def add_subhalos(problem: LensProblem, state: LensState, search: Search) -> tuple[LensProblem, LensState]:
    """Return the problem (its noise renewed) and the state with the sub-halos that pay, never at a higher cost.

    Args:
        problem: images and noise.
        state: at the optimum of its macro parameters.
        search: how to look.
    """
    active = torch.arange(len(problem), device=state.macro.device)
    for _ in range(search.rounds):
        if len(active) == 0:
            break
        part, old = problem[active], state[active]
        found, gain = strongest(part, old, search.a_round)
        found[..., 0] = torch.where(gain > search.gain, found[..., 0], EMPTY)
        some = (gain > search.gain).any(1)
        active, part, old, found = active[some], part[some], old[some], found[some]
        left, kept = torch.arange(len(active), device=active.device), []
        for count in dict.fromkeys((search.a_round, 1)):  # where all of them together lead astray, the best one alone
            if len(left) == 0:
                break
            trial = replace(old[left], subhalos=torch.cat([old[left].subhalos, found[left, :count]], dim=1))
            end = minimised(part[left], trial, steps=search.steps, tolerance=1e-3, damping=1e-3)
            better = end.cost < part[left].cost(old[left]) - 0.5 * search.gain
            if bool(better.any()):
                rows, new = active[left[better]], trial.moved(end.x)[better]
                state = state.with_rows(rows, new)
                problem = problem.with_rows(rows, part[left[better]].renewed(new))
                kept.append(rows)
            left = left[~better]
        active = torch.cat(kept) if kept else active[:0]
    return problem, state


def strongest(problem: LensProblem, state: LensState, count: int) -> tuple[Tensor, Tensor]:
    """Return where another sub-halo would gain most, (B, count, 3), and its gain in ln likelihood, (B, count).

    All pixel centres are tried at once, by two correlations of the residual's gradient with the field of a point mass;
    the best ones are then judged exactly: with PSF, noise, and what the other parameters can take up.
    """
    seen = problem.response(state)
    r, j = problem.with_priors(seen, state)
    basis, _ = torch.linalg.qr(j.transpose(1, 2))
    left = r - (basis @ (basis.transpose(1, 2) @ r[:, :, None]))[:, :, 0]
    place = _screened(problem, seen, left[:, : seen.residual.shape[1]], count)
    unit = torch.cat([torch.zeros_like(place[..., :1]), place], dim=2)  # strength 1
    theta = problem.fine.positions(like=place)
    columns = -problem.whitened(by_subhalos(unit, theta, seen.slope, problem.core)[:, ::3], seen.weight)
    columns = F.pad(columns, (0, r.shape[1] - columns.shape[2]))
    free = columns - (columns @ basis) @ basis.transpose(1, 2)
    power = free.square().sum(2)
    power = power.clamp(min=1e-12) + 1e-3 * columns.square().sum(2)  # what the macro model mimics is no detection
    strength = -(free * left[:, None]).sum(2) / power
    gain = torch.where(strength > 0, 0.5 * strength.square() * power, 0.0)
    return torch.cat([strength.clamp(1e-8, _LARGEST).log()[..., None], place], dim=2), gain


def _screened(problem: LensProblem, seen: Response, left: Tensor, count: int) -> Tensor:
    """Return the ``count`` most promising places of each image, (B, count, 2) [arcsec], apart from each other."""
    grid = problem.observation.camera.grid
    zero = torch.zeros_like(seen.slope[:, :1])
    adjoint = torch.func.vjp(lambda x: problem.whitened(x, seen.weight), zero)[1]
    pull = -seen.slope * adjoint(left[:, None])[0]  # of the residual on the deflection of each pixel
    pull, slope = block_sum(pull, grid), block_sum(seen.slope * problem.fine.pixel_area, grid)
    steep = (slope * seen.weight).square()
    cross = (slope[:, :1] * slope[:, 1:]) * seen.weight.square()
    kx, ky = _kernel(grid, like=left)
    data = _correlated(pull[:, 0], kx) + _correlated(pull[:, 1], ky)
    power = _correlated(steep[:, 0], kx**2) + _correlated(steep[:, 1], ky**2) + 2 * _correlated(cross[:, 0], kx * ky)
    floor = 1e-6 * power.amax((1, 2), keepdim=True) + 1e-30
    score = torch.where(data > 0, data.square() / torch.maximum(power, floor), 0.0)
    theta = grid.positions(like=left)
    found = []
    for _ in range(count):
        best = score.flatten(1).argmax(1)
        found.append(theta[0].flatten(1)[:, best].T)
        distance = (theta - found[-1][:, :, None, None]).norm(dim=1)
        score = score * (distance > _APART * grid.scale)
    return torch.stack(found, dim=1)


def _kernel(grid: PixelGrid, like: Tensor) -> tuple[Tensor, Tensor]:
    """The deflection of a unit point mass at all offsets between two pixels, x and y, each (2H, 2W), softened."""
    y = torch.arange(-grid.height, grid.height, dtype=like.dtype, device=like.device) * grid.scale
    x = torch.arange(-grid.width, grid.width, dtype=like.dtype, device=like.device) * grid.scale
    yy, xx = torch.meshgrid(y, x, indexing="ij")
    r2 = xx**2 + yy**2 + (0.5 * grid.scale) ** 2
    return torch.fft.ifftshift(xx / r2), torch.fft.ifftshift(yy / r2)


def _correlated(image: Tensor, kernel: Tensor) -> Tensor:
    """Return sum_theta image(theta) kernel(theta - place) for every pixel as the place, (B, H, W)."""
    spectrum = torch.fft.rfft2(image, s=kernel.shape) * torch.fft.rfft2(kernel).conj()
    return torch.fft.irfft2(spectrum, s=kernel.shape)[:, : image.shape[1], : image.shape[2]]
