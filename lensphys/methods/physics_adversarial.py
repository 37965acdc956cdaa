"""S1's studies with discriminators: the unsupervised physics method, and one discriminator a scale."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from lensphys.losses.adversarial import AdversarialSettings
from lensphys.losses.physics import scaled_grid, with_lens
from lensphys.methods.physics import DeflectionSettings, PhysicsMethod, interpolated_light
from lensphys.methods.trainable import Batch
from lensphys.networks.discriminator import DiscriminatorSettings
from lensphys.observation import Observation
from lensphys.prediction import Prediction


class PhysicsAdversarialSettings(DeflectionSettings):
    """The physics method with discriminators: real is the LR image interpolated to a scale, fake the re-lensed one.

    ``scales``: of the discriminators, in pixels a LR pixel. No HR image is seen.
    """

    name: Literal["physics_adversarial"]
    discriminator: DiscriminatorSettings = DiscriminatorSettings()
    adversarial: AdversarialSettings = AdversarialSettings()
    scales: Annotated[list[PositiveFloat], Field(min_length=1)] = [2.0, 1.0, 0.5]

    def build(self) -> PhysicsAdversarialMethod:
        """Return the method with fresh networks."""
        return PhysicsAdversarialMethod(self)


class PhysicsAdversarialMethod(PhysicsMethod):
    """LR image -> deflection -> source -> re-lensed images, which discriminators compare with the LR image."""

    keeps = "last"  # the loss falls and rises with the game

    def __init__(self, settings: PhysicsAdversarialSettings) -> None:
        super().__init__(settings)
        self.game = settings
        self.discriminators = nn.ModuleList(settings.discriminator.build() for _ in settings.scales)

    @property
    def players(self) -> dict[str, nn.Module]:
        """The discriminators move first, then the generator."""
        return {"discriminator": self.discriminators, "generator": self.network}

    def terms_of(self, player: str, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Return the named terms, scalars, of a player's loss of a batch, and ``loss``."""
        if player == "generator":
            return self.training_terms(batch, epoch)
        with torch.no_grad():
            prediction = self.predict(batch.observation)
        logits = self._logits(prediction, batch.observation)
        losses = [self.game.adversarial.of_discriminator(real, fake) for real, fake in logits]
        return {"loss": torch.stack(losses).mean()}

    def training_terms(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Return the terms of the physics, ``adversarial``, the mean over the scales, and ``loss``, all scalars."""
        prediction = self.predict(batch.observation)
        terms = self.terms_of_physics(prediction, batch.observation, epoch)
        logits = self._logits(prediction, batch.observation)
        losses = [self.game.adversarial.of_generator(real, fake) for real, fake in logits]
        terms["adversarial"] = torch.stack(losses).mean()
        return terms | {"loss": terms["loss"] + self.game.adversarial.weight * terms["adversarial"]}

    def validation_score(self, batch: Batch) -> Tensor:
        """Return the loss of the physics, a scalar."""
        return self.terms_of_physics(self.predict(batch.observation), batch.observation, 0)["loss"]

    def _logits(self, prediction: Prediction, observation: Observation) -> list[tuple[Tensor, Tensor]]:
        """What the discriminator of each scale says of the interpolated LR image and of the re-lensed one."""
        field, source = with_lens(prediction)
        unit = observation.peak_unit / observation.camera.grid.pixel_area
        found = []
        for scale, discriminator in zip(self.game.scales, self.discriminators, strict=True):
            grid = scaled_grid(observation.camera.grid, scale)
            real = interpolated_light(observation, grid)
            fake = replace(observation.camera, grid=grid).render(source, field.at(grid)) / grid.pixel_area
            found.append((discriminator(real / unit), discriminator(fake / unit)))
        return found
