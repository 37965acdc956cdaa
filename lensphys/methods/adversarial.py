"""SRGAN, ESRGAN and RankSRGAN: a supervised generator, and a discriminator that tells its images from real ones.

They differ in settings alone: the generator's network, the adversarial loss (standard or relativistic), the perceptual
loss, and a rank content.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lensphys.losses.adversarial import AdversarialSettings
from lensphys.methods.ranking.losses import RankContentSettings
from lensphys.methods.supervised import PairSettings, SupervisedMethod, checked_truth
from lensphys.methods.trainable import Batch
from lensphys.networks.discriminator import DiscriminatorSettings
from lensphys.prediction import Prediction


class AdversarialMethodSettings(PairSettings):
    """A generator with a discriminator, as in SRGAN, ESRGAN and RankSRGAN; start it from a supervised run."""

    name: Literal["adversarial"]
    discriminator: DiscriminatorSettings = DiscriminatorSettings()
    adversarial: AdversarialSettings = AdversarialSettings()
    rank: RankContentSettings | None = None

    def build(self) -> AdversarialMethod:
        """Return the method with fresh networks."""
        return AdversarialMethod(self)


class AdversarialMethod(SupervisedMethod):
    """LR image -> generator -> HR image, which a discriminator takes for real.

    Source: Ledig et al. 2017, arXiv:1609.04802; Wang et al. 2018, arXiv:1809.00219; Zhang et al. 2019,
    arXiv:1908.06382.
    """

    keeps = "last"  # no score tells how natural an image looks

    def __init__(self, settings: AdversarialMethodSettings) -> None:
        super().__init__(settings)
        self.game = settings
        self.discriminator = settings.discriminator.build()
        self._rank = None if settings.rank is None else settings.rank.build()

    def train(self, mode: bool = True) -> AdversarialMethod:
        """Set the mode; the generator's batch normalisations keep the statistics that it started with.

        What a discriminator and a ranker judge is a texture far fainter than what batch statistics do to an image. In a
        generator that starts from nothing these statistics are 0 and 1: it trains without normalisation.
        """
        super().train(mode)
        for module in self.network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    @property
    def players(self) -> dict[str, nn.Module]:
        """The discriminator moves first, then the generator."""
        return {"discriminator": self.discriminator, "generator": self.network}

    def terms_of(self, player: str, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Return the named terms, scalars, of a player's loss of a batch, and ``loss``."""
        if player == "generator":
            return self.training_terms(batch, epoch)
        with torch.no_grad():
            prediction = self.predict(batch.observation)
        real, fake = self._logits(prediction, batch)
        told = 0.5 * ((real > fake.mean()).double().mean() + (fake < real.mean()).double().mean())
        return {"loss": self.game.adversarial.of_discriminator(real, fake), "accuracy": told}

    def training_terms(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Return the generator's terms, scalars: of supervised learning, ``adversarial``, ``rank`` and ``loss``."""
        prediction = self.predict(batch.observation)
        terms = self.terms_against_truth(prediction, batch, epoch)
        real, fake = self._logits(prediction, batch)
        terms["adversarial"] = self.game.adversarial.of_generator(real, fake)
        loss = terms.pop("loss") + self.game.adversarial.weight * terms["adversarial"]
        if self.game.rank is not None and self._rank is not None:
            terms["rank"] = self._rank(prediction.image / self.unit(batch.observation))
            loss = loss + self.game.rank.weight * terms["rank"]
        return terms | {"loss": loss}

    def validation_score(self, batch: Batch) -> Tensor:
        """Return the pixel loss, a scalar, to be watched: it does not choose the weights."""
        return self.terms_against_truth(self.predict(batch.observation), batch, 0)["pixel"]

    def _logits(self, prediction: Prediction, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the discriminator says of the HR images and of the generated ones."""
        unit, image = self.unit(batch.observation), prediction.image
        return self.discriminator(checked_truth(batch.truth, image) / unit), self.discriminator(image / unit)
