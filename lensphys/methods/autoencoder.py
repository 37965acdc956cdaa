"""The training of an adversarial auto-encoder, the feature extractor of S2's content loss."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lensphys.basics.settings import Strict
from lensphys.methods.classifier import hr_images
from lensphys.methods.trainable import Batch, Trainable
from lensphys.networks.autoencoder import AutoencoderSettings, LatentDiscriminator
from lensphys.networks.base import Scale
from lensphys.tracing.orientation import reoriented


class AutoencoderMethodSettings(Strict):
    """An auto-encoder of HR images whose latent vectors look like draws of a unit Gaussian.

    ``adversarial``: the weight of fooling the discriminator, beside the mean squared error of the images, which are in
    units of the LR image's brightest pixel. ``scale``: how much finer the HR images are.
    """

    name: Literal["autoencoder"]
    network: AutoencoderSettings = AutoencoderSettings()
    scale: Scale = 2
    adversarial: Annotated[float, Field(ge=0)] = 1e-3

    def build(self) -> AutoencoderMethod:
        """Return the method with fresh networks."""
        return AutoencoderMethod(self)


class AutoencoderMethod(Trainable[Batch]):
    """HR image -> latent vector -> HR image, and a discriminator that tells the vectors from the prior's.

    Source: Makhzani et al. 2015, arXiv:1511.05644.
    """

    needs_truth = True

    def __init__(self, settings: AutoencoderMethodSettings) -> None:
        super().__init__()
        self.settings = settings
        self.network = settings.network.build()
        self.discriminator = LatentDiscriminator(settings.network.latent)

    @property
    def players(self) -> dict[str, nn.Module]:
        """The auto-encoder, which reconstructs and fools, and the discriminator."""
        return {"autoencoder": self.network, "discriminator": self.discriminator}

    def terms_of(self, player: str, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Return the named terms, scalars, of a player's loss of a batch, and ``loss``.

        Raises:
            LensphysError: if there are no HR images.
        """
        if player == "discriminator":
            return self._discriminator_terms(batch)
        return self.training_terms(batch, epoch)

    def training_terms(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Return ``reconstruction``, ``adversarial`` and ``loss``, scalars, the auto-encoder's.

        Raises:
            LensphysError: if there are no HR images.
        """
        images = self._images(batch)
        found, latent = self.network(images)
        terms = {
            "reconstruction": F.mse_loss(found.float(), images),
            "adversarial": F.softplus(-self.discriminator(latent).float()).mean(),
        }
        return terms | {"loss": terms["reconstruction"] + self.settings.adversarial * terms["adversarial"]}

    def validation_score(self, batch: Batch) -> Tensor:
        """Return the mean squared error of the images as they come back, a scalar.

        Raises:
            LensphysError: if there are no HR images.
        """
        images = hr_images(batch, self.settings.scale)
        return F.mse_loss(self.network(images)[0].float(), images)

    def _discriminator_terms(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            latent = self.network.encode(self._images(batch))
        prior = torch.randn(latent.shape).to(latent)  # by the generator whose state a checkpoint holds
        from_prior, encoded = (self.discriminator(x).float() for x in (prior, latent))
        return {"loss": F.softplus(-from_prior).mean() + F.softplus(encoded).mean()}

    def _images(self, batch: Batch) -> Tensor:
        return reoriented(hr_images(batch, self.settings.scale))
