"""How sure the fit is of every super-resolved pixel, and what in it the data say."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lensphys.fitting.fields import FieldPriors
from lensphys.fitting.problem import EMPTY, LensProblem, LensState, Response
from lensphys.grid import PixelGrid
from lensphys.observation import Camera, block_sum

_ARC = 0.05  # of the brightest pixel: where the arcs are


@dataclass(frozen=True)
class Posterior:
    """A Gaussian about the optimum of a batch, carried to the pixels of a camera.

    Args:
        problem: images and noise.
        state: at its optimum.
        seen: the response there.
        camera: pixels and PSF of the image that is judged.
        changes: derivatives of the brightness on the camera's (supersampled) pixels by the state, (B, P, sH, sW).
        slope: by beta, (B, 2, sH, sW).
    """

    problem: LensProblem
    state: LensState
    seen: Response
    camera: Camera
    changes: Tensor
    slope: Tensor

    @classmethod
    def about(cls, problem: LensProblem, state: LensState, camera: Camera) -> Posterior:
        """Return the posterior about an optimum."""
        fine = camera.grid.resampled(camera.supersampling)
        seen = problem.response(state)
        same = fine == problem.fine
        changes, slope = (seen.changes, seen.slope) if same else problem.changes(state, fine)[1:3]
        return cls(problem, state, seen, camera, changes * fine.pixel_area, slope * fine.pixel_area)

    def laplace(self) -> Tensor:
        """Return the variance from macro and sub-halos, (B, 1, H, W) [flux^2].

        The curvature of the loss at its optimum is the inverse of their covariance.
        """
        columns = self.problem.with_priors(self.seen, self.state)[1].double()
        hessian = columns @ columns.transpose(1, 2)
        diagonal = torch.diagonal(hessian, dim1=1, dim2=2)
        hessian = hessian + torch.diag_embed(1e-9 * diagonal + 1e-12 * diagonal.amax(1, keepdim=True))
        factor = torch.linalg.cholesky(hessian)
        identity = torch.eye(factor.shape[1], dtype=factor.dtype, device=factor.device).expand_as(factor)
        whitening = torch.linalg.solve_triangular(factor, identity, upper=False)
        flux = torch.func.vmap(self.camera.expose, in_dims=1, out_dims=1)(self.changes[:, :, None])
        variance = (whitening.to(flux) @ flux.flatten(2)).square().sum(1)
        return variance.reshape(len(flux), 1, *self.camera.grid.shape)

    def undetected(self, share: float) -> Tensor:
        """Return the variance that sub-halos too weak to be found add, (B, 1, H, W) [flux^2].

        A lens with sub-halos has more of them below the detection limit. They displace the light at random by ``share``
        of what a single pixel of the arcs could measure. Zero for lenses without any detected one (or potential field).

        Args:
            share: rms displacement, in units of the precision with which a pixel measures one.
        """
        information = self._information()
        trace = information[:, :1] + information[:, 1:2]
        clean = self.problem.observation.image - self.seen.residual.reshape_as(trace) / (
            self.problem.inverse_sigma.clamp(min=1e-30)
        )
        arc = (clean > _ARC * clean.amax((2, 3), keepdim=True)).to(clean)
        mean = (trace * arc).sum((2, 3), keepdim=True) / arc.sum((2, 3), keepdim=True).clamp(min=1)
        displacement = share / mean.clamp(min=1e-30).sqrt()
        found = (self.state.subhalos[:, :, 0] > EMPTY).any(1) | (self.state.potential != 0).flatten(1).any(1)
        displacement = displacement * found[:, None, None, None]
        return (self.camera.expose(self.slope.norm(dim=1, keepdim=True)) * displacement).square()

    def constrained(self, priors: FieldPriors, grid: PixelGrid) -> Tensor:
        """Return what share of the prior variance of the deflection the data remove, (B, 1, H, W) on ``grid``, 0 to 1.

        1 where arcs pin both components, about 1/2 where they pin the one across the arc alone, 0 where no light is and
        the prior supplies all. Pixel by pixel, with the Fisher information of its 3 x 3 neighbours and the potential's
        prior alpha: a correlation over longer distances is left out.
        """
        information = F.avg_pool2d(self._information(), 3, stride=1, padding=1) * 9
        basis = self.problem.potential
        k = basis.wavenumbers(self.state.macro)
        width = priors.potential.sigma(basis, self.state.macro)
        prior = ((width * k).square().sum() / basis.side**2).clamp(min=1e-30)  # variance of one component
        xx, yy, xy = (prior * x for x in information.unbind(1))
        left = (2 + xx + yy) / ((1 + xx) * (1 + yy) - xy.square())  # trace of (1 + prior I)^-1
        own = self.problem.observation.camera.grid
        there = own.sample((1 - 0.5 * left)[:, None], grid.positions(like=left), padding="border")
        return there.clamp(0, 1)

    def _information(self) -> Tensor:
        """Fisher information of the deflection in each pixel of the image, (B, 3, H, W) [arcsec^-2]: xx, yy, xy."""
        area = self.problem.fine.pixel_area
        slope = block_sum(self.seen.slope * area, self.problem.observation.camera.grid) * self.seen.weight
        x, y = slope[:, :1], slope[:, 1:]
        return torch.cat([x.square(), y.square(), x * y], dim=1)
