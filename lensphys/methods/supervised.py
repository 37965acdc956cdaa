"""Supervised super-resolution: any network, trained on LR-HR pairs."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt
from torch import Tensor

from lensphys.checks import LensphysError, check_same_shape
from lensphys.losses.image import ImageLossSettings
from lensphys.methods.prediction import Prediction, TrainableMethod
from lensphys.networks import NetworkSettings
from lensphys.observation import Observation, block_sum
from lensphys.settings import Strict


class SupervisedSettings(Strict):
    """A network that maps LR images to HR images, both in units of the LR image's brightest pixel."""

    name: Literal["supervised"]
    network: NetworkSettings
    scale: PositiveInt = 2
    loss: ImageLossSettings = ImageLossSettings()

    def build(self) -> SupervisedMethod:
        """Return the method with a fresh network."""
        return SupervisedMethod(self)


class SupervisedMethod(TrainableMethod):
    """LR image -> network -> HR image."""

    needs_truth = True

    @property
    def scale(self) -> int:
        """The upscaling factor that the method was trained for."""
        return self.settings.scale

    def __init__(self, settings: SupervisedSettings) -> None:
        super().__init__()
        self.settings = settings
        self.network = settings.network.build(1, settings.scale)

    def predict(self, observation: Observation, scale: int | None = None) -> Prediction:
        """Return the super-resolved batch.

        Raises:
            LensphysError: if another scale than the network's is asked for.
        """
        own = self.settings.scale
        if scale not in (None, own):
            raise LensphysError(f"this network was trained for a scale of {own}, not {scale}")
        unit = observation.peak.clamp(min=1e-30)[:, None, None, None]
        image = self.network(observation.image * observation.weight / unit) * unit / own**2
        if not self.training:
            ratio = observation.flux_ratio(block_sum(image, observation.camera.grid))
            image = image * ratio[:, None, None, None]
        return Prediction(image, observation.camera.at(own), block_sum(image, observation.camera.grid))

    def training_terms(self, observation: Observation, truth: Tensor | None, epoch: int) -> dict[str, Tensor]:
        """Return the loss against the truth (B, 1, sH, sW), in units of the LR image's brightest pixel.

        Raises:
            LensphysError: if there is no truth, or its shape does not fit.
        """
        if truth is None:
            raise LensphysError("supervised training needs HR images: this data set has none")
        prediction = self.predict(observation)
        check_same_shape("SR image", prediction.image.shape, "HR image", truth.shape)
        unit = observation.peak.clamp(min=1e-30)[:, None, None, None] / self.settings.scale**2
        return {"loss": self.settings.loss(prediction.image / unit, truth / unit)}

    def validation_score(self, observation: Observation, truth: Tensor | None) -> Tensor:
        """Return what the best checkpoint is chosen by: the loss."""
        return self.training_terms(observation, truth, 0)["loss"]
