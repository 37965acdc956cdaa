"""Supervised super-resolution: any network, trained on LR-HR pairs."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator
from torch import Tensor, nn

from lensphys.basics.checks import LensphysError, check_same_shape
from lensphys.basics.settings import Strict
from lensphys.losses.image import ImageLossSettings
from lensphys.losses.perceptual import PerceptualSettings
from lensphys.losses.physics import PhysicsLossSettings
from lensphys.methods.interpolation import interpolate
from lensphys.methods.trainable import Batch, TrainableMethod
from lensphys.networks import Network
from lensphys.networks.base import Scale, last_layer
from lensphys.observation import Observation
from lensphys.prediction import Prediction

_PHYSICS = {"observation", "intensity_conservation"}  # the terms that ask for neither a deflection nor a source


class PairSettings(Strict):
    """What is common to all that learn a network from LR-HR pairs, in units of the LR image's brightest pixel.

    ``base``: the interpolation that the network corrects, and where its training starts (the last layer starts at
    zero); without one the network makes the image itself. ``perceptual``: a difference of features. ``physics``: what
    an image must fulfil without any HR image; re-observed through PSF and pixels it is the LR image (``observation``),
    and no flux is lost (``intensity_conservation``).
    """

    network: Network
    scale: Scale = 2
    base: Literal["bicubic"] | None = None
    loss: ImageLossSettings = ImageLossSettings()
    perceptual: PerceptualSettings | None = None
    physics: PhysicsLossSettings | None = None

    @field_validator("physics")
    @classmethod
    def _of_an_image(cls, physics: PhysicsLossSettings | None) -> PhysicsLossSettings | None:
        foreign = set(physics.terms) - _PHYSICS if physics is not None else set()
        if foreign:
            raise ValueError(f"{', '.join(sorted(foreign))}: needs a lens model; an image has {', '.join(_PHYSICS)}")
        return physics


class SupervisedSettings(PairSettings):
    """A network that maps LR images to HR images."""

    name: Literal["supervised"]

    def build(self) -> SupervisedMethod:
        """Return the method with a fresh network."""
        return SupervisedMethod(self)


class SupervisedMethod(TrainableMethod):
    """LR image -> network -> HR image."""

    needs_truth = True

    def __init__(self, settings: PairSettings) -> None:
        super().__init__()
        self.settings = settings
        self.network = settings.network.build(1, settings.scale)
        if settings.base is not None:
            for weights in last_layer(self.network).parameters(recurse=False):
                nn.init.zeros_(weights)
        self._perceptual = None if settings.perceptual is None else settings.perceptual.build()

    @property
    def scale(self) -> int:
        """The upscaling factor that the method was trained for."""
        return self.settings.scale

    def predict(self, observation: Observation, scale: int | None = None) -> Prediction:
        """Return the super-resolved batch.

        Raises:
            LensphysError: if another scale than the network's is asked for.
        """
        if scale not in (None, self.scale):
            raise LensphysError(f"this network was trained for a scale of {self.scale}, not {scale}")
        seen, unit = observation.image * observation.weight, self.unit(observation)
        image = self.network(seen / unit / self.scale**2).float() * unit
        if self.settings.base is not None:
            image = image + interpolate(seen, self.scale, self.settings.base)
        if not self.training:
            ratio = observation.flux_ratio(observation.camera.reobserved(image))
            image = image * ratio[:, None, None, None]
        return Prediction(image, observation.camera.at(self.scale), observation.camera.reobserved(image))

    def training_terms(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Return the loss against the truth, in units of the LR image's brightest pixel, and its terms.

        Raises:
            LensphysError: if there is no truth, or its shape does not fit.
        """
        return self.terms_against_truth(self.predict(batch.observation), batch, epoch)

    def terms_against_truth(self, prediction: Prediction, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Return ``pixel``, ``perceptual`` and the terms of the physics for a prediction, and ``loss``, their sum.

        Raises:
            LensphysError: if there is no truth, or its shape does not fit.
        """
        truth, settings = checked_truth(batch.truth, prediction.image), self.settings
        unit = self.unit(batch.observation)
        image, target = prediction.image / unit, truth / unit
        terms = {"pixel": settings.loss(image, target)}
        loss = settings.loss.weight * terms["pixel"]
        if settings.perceptual is not None and self._perceptual is not None:
            terms["perceptual"] = self._perceptual(image, target)
            loss = loss + settings.perceptual.weight * terms["perceptual"]
        if settings.physics is not None:
            physics = settings.physics.evaluate(prediction, batch.observation, epoch)
            loss = loss + physics.pop("loss")
            terms |= physics
        return terms | {"loss": loss}

    def unit(self, observation: Observation) -> Tensor:
        """Return what images are measured in, (B, 1, 1, 1): the flux of a fine pixel of the brightest LR pixel."""
        return observation.peak_unit / self.scale**2


def checked_truth(truth: Tensor | None, image: Tensor) -> Tensor:
    """Return the HR images of a batch.

    Raises:
        LensphysError: if there are none, or they have another shape than the SR images.
    """
    if truth is None:
        raise LensphysError("supervised training needs HR images: this data set has none")
    check_same_shape("SR image", image.shape, "HR image", truth.shape)
    return truth
