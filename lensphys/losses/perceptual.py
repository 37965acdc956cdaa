"""Differences of features: of a substructure classifier (S1), an adversarial auto-encoder (S2) or VGG19 (S3)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from lensphys.basics.checks import LensphysError, check_same_shape
from lensphys.basics.runs import CONFIG, load_weights, run_settings
from lensphys.basics.settings import Strict
from lensphys.losses.image import ImageLossSettings
from lensphys.networks.autoencoder import AutoencoderSettings
from lensphys.networks.classifier import ClassifierSettings
from lensphys.networks.vgg import vgg19_imagenet

# What a run may hold to be a feature extractor: its method's name, and the settings of its network.
EXTRACTORS: dict[str, type[ClassifierSettings] | type[AutoencoderSettings]] = {
    "classifier": ClassifierSettings,
    "autoencoder": AutoencoderSettings,
}


class PerceptualSettings(Strict):
    """The difference of two images' features.

    ``run``: the folder of a trained ``classifier`` or ``autoencoder``; or ``vgg19: true``, whose ``weights``, a file,
    torchvision downloads if none is given. ``layers``: which maps, counted from 0, or from -1 at the last one; the
    default is the last one before the pooling, for VGG19 convolution 5_4 before its activation.
    """

    weight: Annotated[float, Field(ge=0)] = 1.0
    run: str | None = None
    vgg19: bool = False
    weights: str | None = None
    layers: Annotated[list[int], Field(min_length=1)] = [-1]
    kind: Literal["l1", "mse"] = "mse"

    @model_validator(mode="after")
    def _one_extractor(self) -> PerceptualSettings:
        if (self.run is not None) == self.vgg19:
            raise ValueError("a perceptual loss needs either 'run', a trained classifier or autoencoder, or 'vgg19'")
        if self.weights is not None and not self.vgg19:
            raise ValueError("'weights' are those of vgg19: a run has its own")
        return self

    def build(self) -> PerceptualLoss:
        """Return the loss; its features are loaded when it is first called."""
        return PerceptualLoss(self)

    def extractor(self) -> nn.Module:
        """Return the network whose maps are compared, frozen and in evaluation mode.

        Raises:
            LensphysError: if the run folder holds none, or the weights are missing or do not fit.
        """
        if self.run is not None:
            network = run_extractor(Path(self.run))
        else:
            network = vgg19_imagenet(None if self.weights is None else Path(self.weights))
        return convert_conv2d_weight_memory_format(network, torch.channels_last).eval().requires_grad_(False)


class PerceptualLoss:
    """The mean difference of the chosen maps of two images.

    A plain object, so that a method that uses it does not save the extractor with its own weights; and lazy, so that
    it predicts when the extractor's folder is gone.

    Args:
        settings: which features.
    """

    def __init__(self, settings: PerceptualSettings) -> None:
        self.settings = settings
        self._difference = ImageLossSettings(kind=settings.kind)
        self._extractor: Any = None

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Return the unweighted loss, a scalar; its gradient reaches the image, not the target.

        Args:
            image: (B, 1, H, W) in units of the LR image's brightest pixel.
            target: likewise.

        Raises:
            LensphysError: if the shapes differ, there is no such layer, or the features cannot be loaded.
        """
        check_same_shape("image", image.shape, "target", target.shape)
        if self._extractor is None:
            self._extractor = self.settings.extractor()
        with torch.no_grad():
            wanted = self._maps(target)
        found = self._maps(image)
        return torch.stack([self._difference(a, b) for a, b in zip(found, wanted, strict=True)]).mean()

    def _maps(self, image: Tensor) -> list[Tensor]:
        self._extractor.to(image.device)
        maps = self._extractor.features(image.to(next(self._extractor.parameters())))
        count = len(maps)
        absent = [layer for layer in self.settings.layers if not -count <= layer < count]
        if absent:
            raise LensphysError(f"perceptual.layers: there is no layer {absent[0]}, the features have {count}")
        return [maps[layer] for layer in self.settings.layers]


def run_extractor(run: Path) -> nn.Module:
    """Return the trained network of a classifier's or auto-encoder's run.

    Raises:
        LensphysError: if the folder holds something else, or nothing that was trained.
    """
    method = run_settings(run)["method"]
    if method["name"] not in EXTRACTORS:
        raise LensphysError(
            f"{run} holds the method {method['name']}, which extracts no features: train one of {', '.join(EXTRACTORS)}"
        )
    network = EXTRACTORS[method["name"]].parse(method["network"], f"{run / CONFIG}: method.network").build()
    load_weights(network, run, part="network")
    return network
