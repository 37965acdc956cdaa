"""The multi-scale physics loss of S1, term by term, and its noise-weighted, consistent form.

Each term is an object: called with a `Prediction` and the `Observation` it was made from, it returns a scalar that does
not depend on the unit of the image. `PhysicsLossSettings` weighs them, switches them and names them in the logs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.basics.settings import Strict
from lensphys.observation import Observation
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid
from lensphys.tracing.rays import reconstruct_source, trace

if TYPE_CHECKING:  # the methods that make predictions import their losses
    from lensphys.prediction import Prediction

Weight = Annotated[float, Field(ge=0)]


class LossTerm(Strict, ABC):
    """A weighted term. Its weight at an epoch is weight * decay^epoch."""

    weight: Weight = 1.0
    decay: Annotated[float, Field(gt=0, le=1)] = 1.0

    @abstractmethod
    def __call__(self, prediction: Prediction, observation: Observation) -> Tensor:
        """Return the unweighted term, a scalar."""

    def weight_at(self, epoch: int) -> float:
        """Return the weight at an epoch, counted from 0."""
        return self.weight * self.decay**epoch


class SourceConsistency(LossTerm):
    """MSE between the Sersic and the back-projected source, both min-max normalised, summed over scales (S1).

    The published back-projection beta + alpha(beta) is right for one image of an SIS only; here it is the normalised
    adjoint of the tracer. ``extent``: half width of the source plane [arcsec].
    """

    scales: list[PositiveFloat] = [2.0, 1.0, 0.5]
    extent: PositiveFloat = 1.0

    def __call__(self, prediction: Prediction, observation: Observation) -> Tensor:
        """Return the sum over scales, a scalar."""
        field, source = with_lens(prediction)
        total = observation.image.new_zeros(())
        for scale in self.scales:
            grid = scaled_grid(observation.camera.grid, scale)
            image = observation.interpolated(grid) / grid.pixel_area
            side = max(3, round(2 * self.extent / grid.scale))
            source_grid = PixelGrid(side, side, grid.scale)
            seen = reconstruct_source(image, field.at(grid), source_grid)
            expected = source(source_grid.positions(like=image)).expand_as(seen)
            total = total + (min_max(expected) - min_max(seen)).square().mean()
        return total


class ImageConsistency(LossTerm):
    """MSE between the interpolated LR image and the re-lensed source at the fine scale, min-max normalised (S1)."""

    def __call__(self, prediction: Prediction, observation: Observation) -> Tensor:
        """Return the mean squared difference, a scalar."""
        field, source = with_lens(prediction)
        relensed = trace(field, source)
        target = observation.interpolated(field.grid) / field.grid.pixel_area
        return (min_max(relensed) - min_max(target)).square().mean()


class IntensityConservation(LossTerm):
    """Squared relative difference between the flux of the re-observed image and that of the LR image.

    Lensing conserves surface brightness, I(theta) = S(beta(theta)), and the tracer does so by construction; what is
    left to ask is that no flux appears or is lost on the way to the detector.
    """

    def __call__(self, prediction: Prediction, observation: Observation) -> Tensor:
        """Return the mean over the batch, a scalar."""
        expected = (observation.noise.expected(prediction.observed) * observation.weight).flatten(1).sum(1)
        seen = (observation.image * observation.weight).flatten(1).sum(1)
        return ((expected - seen) / seen.abs().clamp(min=1e-30)).square().mean()


class Positivity(LossTerm):
    """Mean of max(0, -alpha_r) in arcsec: a lens pulls inwards. Zero by construction for a bounded radial head."""

    def __call__(self, prediction: Prediction, observation: Observation) -> Tensor:
        """Return the mean, a scalar."""
        return torch.relu(-with_lens(prediction)[0].radial).mean()


class VariationDensity(LossTerm):
    """Variation density loss (S1): mean absolute difference of neighbouring pixels of alpha_r and alpha_t, in x and y.

    S1 starts its weight at 0.5 and lets it decay: set ``decay``.
    """

    weight: Weight = 0.5

    def __call__(self, prediction: Prediction, observation: Observation) -> Tensor:
        """Return the sum over both parts and both directions, a scalar [arcsec / pixel]."""
        field = with_lens(prediction)[0]
        parts = torch.cat([field.radial, field.tangential], dim=1)
        along_x, along_y = parts.diff(dim=-1).abs(), parts.diff(dim=-2).abs()
        return 2 * (along_x.mean() + along_y.mean())


class ObservationConsistency(LossTerm):
    """chi^2 per pixel of the re-lensed model, observed through PSF and pixels, against the LR image (ours).

    ``form``: ``chi2`` is the likelihood, chi^2 / 2. ``log`` is 1/2 log(1 + chi^2), much the same near the noise limit;
    an image that the model cannot explain (substructure in a smooth lens) then weighs no more than others. ``floor``:
    a share of the brightest pixel that is added to the noise in quadrature. At first a network misses by far more than
    the noise; a floor of a few per cent keeps the loss from being blind to everything but the last hundredth.
    """

    form: Literal["chi2", "log"] = "chi2"
    floor: Weight = 0.0

    def __call__(self, prediction: Prediction, observation: Observation) -> Tensor:
        """Return the mean over the batch, a scalar; 1/2 (or 1/2 log 2) where the model is right and the noise known.

        The variance is taken from the model but not differentiated: a larger variance is no way to a better fit.
        """
        clean = prediction.observed
        residual = observation.image - observation.noise.expected(clean)
        floor = (self.floor * observation.peak)[:, None, None, None].square()
        chi2 = residual.square() / (observation.noise.variance(clean.detach()) + floor) * observation.weight
        reduced = chi2.flatten(1).sum(1) / observation.n_unmasked
        return 0.5 * (torch.log1p(reduced) if self.form == "log" else reduced).mean()


class PhysicsLossSettings(Strict):
    """Which terms there are; a term that is left out is switched off."""

    source_consistency: SourceConsistency | None = None
    image_consistency: ImageConsistency | None = None
    intensity_conservation: IntensityConservation | None = None
    positivity: Positivity | None = None
    variation_density: VariationDensity | None = None
    observation: ObservationConsistency | None = None

    @property
    def terms(self) -> dict[str, LossTerm]:
        """The terms that are switched on, by name."""
        return {name: term for name in type(self).model_fields if (term := getattr(self, name)) is not None}

    def evaluate(self, prediction: Prediction, observation: Observation, epoch: int) -> dict[str, Tensor]:
        """Return each unweighted term, a scalar, by its name, and ``loss``, their weighted sum at an epoch."""
        values = {name: term(prediction, observation) for name, term in self.terms.items()}
        total = observation.image.new_zeros(())
        for name, term in self.terms.items():
            total = total + term.weight_at(epoch) * values[name]
        return values | {"loss": total}


def published_loss(decay: float = 0.97) -> PhysicsLossSettings:
    """Return the loss of S1: source consistency at three scales, image consistency, and VDL from 0.5 decaying."""
    return PhysicsLossSettings(
        source_consistency=SourceConsistency(),
        image_consistency=ImageConsistency(),
        variation_density=VariationDensity(weight=0.5, decay=decay),
    )


def min_max(image: Tensor) -> Tensor:
    """Return images (B, C, H, W) with each one's minimum at 0 and maximum at 1."""
    low, high = image.flatten(1).amin(1), image.flatten(1).amax(1)
    span = (high - low).clamp(min=1e-30)
    return (image - low[:, None, None, None]) / span[:, None, None, None]


def scaled_grid(grid: PixelGrid, factor: float) -> PixelGrid:
    """Return a grid with pixels ``factor`` times as small, its size rounded to whole pixels (75 x 0.5 gives 38)."""
    return PixelGrid(round(grid.height * factor), round(grid.width * factor), grid.scale / factor)


def with_lens(prediction: Prediction) -> tuple[DeflectionField, Callable[[Tensor], Tensor]]:
    """Return the deflection, and the source, beta (B, 2, H, W) [arcsec] -> (B, 1, H, W), behind a prediction.

    Raises:
        LensphysError: if its method yields none.
    """
    if prediction.deflection is None or prediction.source is None:
        raise LensphysError("the physics loss needs a method that yields a deflection and a source")
    return prediction.deflection, prediction.source
