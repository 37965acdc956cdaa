"""S1's variant for a classification: a second deflection network learns through a classifier, added to the first."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from lensphys.losses.physics import Weight, min_max
from lensphys.methods.classifier import class_labels
from lensphys.methods.physics import DeflectionSettings, PhysicsMethod
from lensphys.methods.trainable import Batch
from lensphys.networks import DeflectionNetwork, Network, PolarHeadSettings
from lensphys.networks.classifier import ClassifierSettings
from lensphys.observation import Observation
from lensphys.prediction import Prediction
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.orientation import reoriented


class PhysicsLabelledSettings(DeflectionSettings):
    """The physics method with a second network, whose deflection is added to the first one's.

    ``second``: that network; like the first if null. ``second_head``: bounds of what it adds [arcsec], about zero.
    ``classifier``: what reads the super-resolved images, in units of the LR image's brightest pixel; it serves the
    training alone. ``physics``: weight of the physics loss, which asks for no label. ``labels``: weight of the
    cross-entropy of the classifier. S1's order: train ``physics``; start from it with ``physics: 0`` and ``second.*``
    and ``classifier.*`` as the only parameters that learn (`training.phases`); start from that with both weights.
    """

    name: Literal["physics_labelled"]
    second: Network | None = None
    second_head: PolarHeadSettings = PolarHeadSettings(radial_low=-0.1, radial_high=0.1, tangential_limit=0.1, gain=0.1)
    classifier: ClassifierSettings = ClassifierSettings()
    physics: Weight = 1.0
    labels: Weight = 1.0

    @model_validator(mode="after")
    def _something_to_learn(self) -> PhysicsLabelledSettings:
        if self.physics == self.labels == 0:
            raise ValueError("with physics: 0 and labels: 0 there is nothing to learn: raise one of them")
        return self

    def build(self) -> PhysicsLabelledMethod:
        """Return the method with fresh networks."""
        return PhysicsLabelledMethod(self)


class PhysicsLabelledMethod(PhysicsMethod):
    """LR image -> sum of two deflections -> source -> re-lensed image, which a classifier reads in training.

    Labels reach the networks through the classifier alone, and only in training: what is predicted is a function of the
    LR image.

    Source: S1's downstream check, which says no more of it than that two deflection networks, one unsupervised and one
    trained through a classifier, are added and retrained.
    """

    needs_labels = True

    def __init__(self, settings: PhysicsLabelledSettings) -> None:
        super().__init__(settings)
        self.asked = settings
        backbone = (settings.second or settings.network).build(2, settings.scale)
        self.second = DeflectionNetwork(backbone, settings.second_head)
        self.classifier: nn.Module = settings.classifier.build()

    def deflection(self, observation: Observation) -> DeflectionField:
        """Return the sum of the two fields."""
        first = super().deflection(observation)
        second = self.second(min_max(observation.image), observation.camera.grid)
        return DeflectionField(first.alpha + second.alpha, first.grid, first.centre)

    def training_terms(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Return the terms of the physics, ``accuracy`` and ``labels``, the cross-entropy, and ``loss``, all scalars.

        Raises:
            LensphysError: if there are no labels, or other ones than the classifier's.
        """
        label = class_labels(batch, self.asked.classifier.classes)
        prediction = self.predict(batch.observation)
        logits = self._logits(prediction, batch.observation)
        terms = {"accuracy": (logits.argmax(1) == label).float().mean(), "labels": F.cross_entropy(logits, label)}
        if not self.asked.physics:
            return terms | {"loss": self.asked.labels * terms["labels"]}
        physics = self.terms_of_physics(prediction, batch.observation, epoch)
        return physics | terms | {"loss": self.asked.physics * physics["loss"] + self.asked.labels * terms["labels"]}

    def _logits(self, prediction: Prediction, observation: Observation) -> Tensor:
        image = prediction.image * self.scale**2 / observation.peak_unit
        logits: Tensor = self.classifier(reoriented(image) if self.training else image).float()
        return logits
