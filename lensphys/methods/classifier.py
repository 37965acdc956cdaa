"""The training of a substructure classifier, the feature extractor of S1's perceptual loss."""

from __future__ import annotations

from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from lensphys.basics.checks import LensphysError, check_same_shape
from lensphys.basics.settings import Strict
from lensphys.methods.trainable import Batch, Trainable
from lensphys.networks.base import Scale
from lensphys.networks.classifier import ClassifierSettings
from lensphys.tracing.orientation import reoriented


class ClassifierMethodSettings(Strict):
    """A network that tells the classes of dark matter apart, by their labels.

    ``images``: whether it looks at LR or at HR images, which are ``scale`` times as fine. ``label_smoothing``: this
    share of each label is spread over all classes.
    """

    name: Literal["classifier"]
    network: ClassifierSettings = ClassifierSettings()
    images: Literal["lr", "hr"] = "hr"
    scale: Scale = 2
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def build(self) -> ClassifierMethod:
        """Return the method with a fresh network."""
        return ClassifierMethod(self)


class ClassifierMethod(Trainable[Batch]):
    """Image -> class; trained by cross-entropy, on each batch in one of the square's eight orientations."""

    needs_labels = True

    def __init__(self, settings: ClassifierMethodSettings) -> None:
        super().__init__()
        self.settings = settings
        self.needs_truth = settings.images == "hr"
        self.network = settings.network.build()

    def training_terms(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Return the ``accuracy``, 0 to 1, and ``loss``, the cross-entropy, both scalars.

        Raises:
            LensphysError: if there are no labels, or other ones than the network's, or no images of the asked kind.
        """
        label = class_labels(batch, self.settings.network.classes)
        images = lr_images(batch) if self.settings.images == "lr" else hr_images(batch, self.settings.scale)
        logits = self.network(reoriented(images) if self.training else images).float()
        return {
            "accuracy": (logits.argmax(1) == label).float().mean(),
            "loss": F.cross_entropy(logits, label, label_smoothing=self.settings.label_smoothing),
        }


def class_labels(batch: Batch, classes: int) -> Tensor:
    """Return the class of each image, (B,).

    Raises:
        LensphysError: if there are no labels, or others than 0 to ``classes`` - 1.
    """
    if batch.label is None:
        raise LensphysError("a classifier is trained on labelled images: this data set has no labels")
    foreign = batch.label[(batch.label < 0) | (batch.label >= classes)]
    if len(foreign):
        raise LensphysError(
            f"the data have the label {int(foreign[0])}, but the classifier counts {classes} classes from 0: set its "
            "number of classes"
        )
    return batch.label


def lr_images(batch: Batch) -> Tensor:
    """Return the LR images (B, 1, H, W) in units of each one's brightest pixel."""
    seen = batch.observation
    return seen.image * seen.weight / seen.peak_unit


def hr_images(batch: Batch, scale: int) -> Tensor:
    """Return the HR images (B, 1, sH, sW) in units of a fine pixel of the LR image's brightest one.

    Raises:
        LensphysError: if there are none, or they are not ``scale`` times as fine.
    """
    if batch.truth is None:
        raise LensphysError("this training looks at HR images: this data set has none")
    fine = [scale * n for n in batch.observation.image.shape[-2:]]
    check_same_shape("HR image", batch.truth.shape[-2:], f"LR image at {scale} x", fine)
    return batch.truth * scale**2 / batch.observation.peak_unit
