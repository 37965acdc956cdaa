"""How sure the fit is of every parameter and super-resolved pixel, and what in it the data say."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lensphys.basics.blocks import block
from lensphys.fitting.bodies import gain_by_error
from lensphys.fitting.brightness import Brightness
from lensphys.fitting.potential import FieldPriors
from lensphys.fitting.problem import exposed
from lensphys.fitting.source import Fitted
from lensphys.model import CosineBasis
from lensphys.observation import Camera, block_sum
from lensphys.prediction import Covariance
from lensphys.tracing.grid import PixelGrid

_PIXELS_AT_ONCE = 1 << 12
_AT_BOUND = 1e-3  # share of its range: nearer to a bound a parameter has no standard deviation


@dataclass(frozen=True)
class Posterior:
    """A Gaussian about the optimum of images that share a model: Laplace's approximation.

    Everything that is fitted takes part: lens, sub-halos, source and potential.

    Args:
        fitted: the optimum.
        factor: lower Cholesky factor of the curvature, (B, Q, Q), float64.
        spread: factor on the standard deviation of images of a free source, whose posterior is no Gaussian.
        arc: share of the brightest pixel's light above which a pixel is one of the arcs.
    """

    fitted: Fitted
    factor: Tensor
    spread: float = 1.0
    arc: float = 0.05

    @classmethod
    def from_fit(cls, fitted: Fitted, spread: float = 1.0, arc: float = 0.05) -> Posterior:
        """Return the posterior about an optimum; ``spread`` and ``arc`` as in `Posterior`."""
        return cls(fitted, fitted.end.normal.factor, spread, arc)

    def errors(self) -> dict[str, Tensor]:
        """Return the standard deviations of the model's parameters, each (B,); NaN of one that stands at its bound."""
        found = self.covariance()
        spread = found.values.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
        return dict(zip(found.names, spread.to(self.fitted.x).unbind(1), strict=True))

    def covariance(self) -> Covariance:
        """Return the covariance of the model's parameters, float64; NaN of one that stands at its bound."""
        problem = self.fitted.problem
        own = problem.parts(self.fitted.x)[0]
        steep = torch.where(problem.space.at_bounds(own, _AT_BOUND), torch.nan, problem.steepness(own)).double()
        inner = self.fitted.end.normal.covariance[:, : own.shape[1], : own.shape[1]]
        return Covariance(tuple(problem.model.names), inner * steep[:, :, None] * steep[:, None, :])

    def bodies(self) -> Tensor:
        """Return the sub-halos, (B, K, 7): see `lensphys.prediction.BODY`."""
        problem = self.fitted.problem
        own, bodies = problem.parts(self.fitted.x)[:2]
        strength, x, y = bodies.unflatten(1, (-1, 3)).unbind(2)
        spread = self._spread()[:, own.shape[1] : own.shape[1] + bodies.shape[1]].to(own)
        by_strength, by_x, by_y = spread.unflatten(1, (-1, 3)).unbind(2)
        theta_E = (0.5 * strength).exp()
        gain = gain_by_error(by_strength.square())
        return torch.stack([x, y, theta_E, by_x, by_y, 0.5 * theta_E * by_strength, gain], dim=2)

    def drawn(self, count: int, seed: int = 0) -> Tensor:
        """Return draws of the vectors, (count, B, Q)."""
        x = self.fitted.x
        noise = torch.randn(count, *x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        upper = self.factor.transpose(1, 2)
        steps = torch.linalg.solve_triangular(upper, noise.to(upper).movedim(0, 2), upper=True)
        return x + steps.movedim(2, 0).to(x)

    def whole_variance(self, camera: Camera, unresolved_subhalos: float) -> Tensor:
        """Return the variance of the image, of what the model leaves out too, (B, 1, H, W) [flux^2].

        Args:
            camera: its pixels.
            unresolved_subhalos: see `unresolved_subhalo_variance`.
        """
        left_out = self.unresolved_subhalo_variance(camera, unresolved_subhalos) + self.outside(camera)
        return self.variance(camera) + left_out

    def variance(self, camera: Camera) -> Tensor:
        """Return the variance of the image on a camera's pixels, (B, 1, H, W) [flux^2]."""
        problem, x = self.fitted.problem, self.fitted.x
        maps = Brightness(problem, x, camera.grid).jacobian()
        columns = torch.cat([exposed(camera, some) for some in maps], dim=1).flatten(2)
        unit = torch.eye(x.shape[1]).to(self.factor)
        inverse = torch.linalg.solve_triangular(self.factor, unit[None], upper=False).to(columns)
        parts = [(inverse @ part).square().sum(1) for part in columns.split(block(_PIXELS_AT_ONCE, columns), 2)]
        variance = torch.cat(parts, dim=1).to(x).reshape(len(x), 1, *camera.grid.shape)
        return variance * (1.0 if problem.free is None else self.spread**2)

    def outside(self, camera: Camera) -> Tensor:
        """Return the variance of a free source where its field is none, (B, 1, H, W) [flux^2].

        There a galaxy is its Sersic, but for what the field would be by its prior, and the floor.
        """
        problem, x, free = self.fitted.problem, self.fitted.x, self.fitted.problem.free
        if free is None:
            return x.new_zeros(len(x), 1, 1, 1)
        fine = camera.grid.resampled(camera.supersampling)
        beyond = camera.expose(Brightness(problem, x, fine).beyond_the_frame() * fine.pixel_area)
        spread = free.sigma.square().sum(1).sqrt()[:, None, None, None]
        floor = (free.frame.envelope.floor * free.frame.reference * camera.grid.pixel_area)[:, None, None, None]
        return (spread * beyond).square() + floor.square()

    def unresolved_subhalo_variance(self, camera: Camera, share: float) -> Tensor:
        """Return the variance that sub-halos too weak to be found add, (B, 1, H, W) [flux^2].

        A lens with sub-halos has more of them below the detection limit. They displace the light at random by ``share``
        of what a single pixel of the arcs could measure. Zero for lenses without any detected one (or potential).

        Args:
            camera: its pixels.
            share: rms displacement, in units of the precision with which a pixel measures one.
        """
        problem, x = self.fitted.problem, self.fitted.x
        if not problem.subhalos and problem.potential is None:
            return x.new_zeros(len(x), 1, *camera.grid.shape)
        information = self._information()
        trace = information[:, :1] + information[:, 1:2]
        clean = problem.render(x)
        arc = (clean > self.arc * clean.amax((2, 3), keepdim=True)).to(clean)
        mean = (trace * arc).sum((2, 3), keepdim=True) / arc.sum((2, 3), keepdim=True).clamp(min=1)
        displacement = share / mean.clamp(min=1e-30).sqrt()
        fine = camera.grid.resampled(camera.supersampling)
        steep = Brightness(problem, x, fine).source_gradient.norm(dim=1, keepdim=True) * fine.pixel_area
        return (camera.expose(steep) * displacement).square()

    def constrained(self, priors: FieldPriors, grid: PixelGrid) -> Tensor:
        """Return what share of the prior variance of the deflection the data remove, (B, 1, H, W) on ``grid``, 0 to 1.

        1 where arcs pin both components, about 1/2 where they pin the one across the arc alone, 0 where no light is and
        the prior supplies all. Pixel by pixel, with the Fisher information of its 3 x 3 neighbours and the potential's
        prior alpha: a correlation over longer distances is left out.
        """
        information = F.avg_pool2d(self._information(), 3, stride=1, padding=1) * 9
        own = self.fitted.problem.observation.camera.grid
        basis = CosineBasis.covering(own, priors.modes)
        k = basis.wavenumbers(self.fitted.x)
        width = priors.potential.sigma(basis, self.fitted.x)
        prior = ((width * k).square().sum() / basis.side**2).clamp(min=1e-30)  # variance of one component
        xx, yy, xy = (prior * x for x in information.unbind(1))
        left = (2 + xx + yy) / ((1 + xx) * (1 + yy) - xy.square())  # trace of (1 + prior I)^-1
        there = own.sample((1 - 0.5 * left)[:, None], grid.positions(like=left), padding="border")
        return there.clamp(0, 1)

    def _spread(self) -> Tensor:
        """Standard deviations of all entries of the vectors, (B, Q), float64."""
        return self.fitted.end.normal.covariance.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()

    def _information(self) -> Tensor:
        """Fisher information of the deflection in each pixel of the image, (B, 3, H, W) [arcsec^-2]: xx, yy, xy."""
        problem, x = self.fitted.problem, self.fitted.x
        weight = problem.whitening(problem.render(x))
        slope = Brightness(problem, x, problem.fine).source_gradient * problem.fine.pixel_area
        slope = block_sum(slope, problem.observation.camera.grid) * weight
        by_x, by_y = slope[:, :1], slope[:, 1:]
        return torch.cat([by_x.square(), by_y.square(), by_x * by_y], dim=1)
