"""What every method returns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from lensphys.checks import check_images, check_same_shape
from lensphys.deflection import DeflectionField
from lensphys.grid import PixelGrid
from lensphys.observation import Camera, Observation


@dataclass(frozen=True)
class Prediction:
    """A super-resolved batch, and the physics behind it where the method has any.

    Args:
        image: (B, 1, sH, sW) [flux per pixel], in the unit of the low-resolution image; no noise, no pedestal.
        camera: pixels and PSF of ``image``.
        observed: (B, 1, H, W) [flux per pixel], the clean low-resolution image that the method predicts.
        deflection: the deflection field on the pixels of ``image``; None for methods without one.
        source: beta (B, 2, H', W') [arcsec] -> surface brightness (B, 1, H', W'); None for methods without one.
        parameters: named physical parameters, each (B,).
        fitted: how many numbers were fitted to each image.

    Raises:
        LensphysError: if shapes do not fit.
    """

    image: Tensor
    camera: Camera
    observed: Tensor
    deflection: DeflectionField | None = None
    source: Callable[[Tensor], Tensor] | None = None
    parameters: dict[str, Tensor] = field(default_factory=dict)
    fitted: int = 0

    def __post_init__(self) -> None:
        check_images("image", self.image)
        check_same_shape("image", self.image.shape[-2:], "camera grid", self.camera.grid.shape)

    def reduced_chi2(self, observation: Observation) -> Tensor:
        """Return chi^2 of the predicted LR image per degree of freedom (counted pixels less fitted numbers), (B,)."""
        return observation.chi2(self.observed) / (observation.counted - self.fitted).clamp(min=1)

    def source_image(self, grid: PixelGrid) -> Tensor | None:
        """Return the source on a grid of the source plane, (B, 1, H', W') [flux / arcsec^2], or None."""
        return None if self.source is None else self.source(grid.positions(like=self.image))


class Method(Protocol):
    """One way to super-resolve: interpolation, a network, a fit."""

    def predict(self, observation: Observation, scale: int) -> Prediction:
        """Return the super-resolved batch, with pixels ``scale`` times as small."""
        ...


class TrainableMethod(nn.Module):
    """A method with weights: what `training.train` trains and a run folder holds."""

    needs_truth: bool = False

    @abstractmethod
    def predict(self, observation: Observation, scale: int | None = None) -> Prediction:
        """Return the super-resolved batch; by default at the scale that the method was trained for."""

    @abstractmethod
    def training_terms(self, observation: Observation, truth: Tensor | None, epoch: int) -> dict[str, Tensor]:
        """Return the named terms of the loss of a batch, and ``loss``, their weighted sum.

        Args:
            observation: LR images (B, 1, H, W).
            truth: HR images (B, 1, sH, sW) in the unit of the LR images; None where the data have none.
            epoch: counted from 0; weights may follow it.
        """

    @abstractmethod
    def validation_score(self, observation: Observation, truth: Tensor | None) -> Tensor:
        """Return the scalar, lower is better, by which the best checkpoint is chosen."""
