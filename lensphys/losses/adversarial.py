"""What a generator and its discriminator want of each other."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from lensphys.basics.settings import Strict


class AdversarialSettings(Strict):
    """The adversarial loss of SRGAN (``standard``) or of ESRGAN (``relativistic``).

    Standard: a discriminator says how likely an image is real; the generator's loss is -log D(G(x)). Relativistic: it
    says how much more real an image is than the others of its batch are on average, and the generator learns from real
    images, too.

    Source: Ledig et al. 2017, arXiv:1609.04802, eq. 6; Wang et al. 2018, arXiv:1809.00219, eq. 1-2.
    """

    kind: Literal["standard", "relativistic"] = "standard"
    weight: Annotated[float, Field(ge=0)] = 1e-3

    def of_generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the generator's unweighted loss of the logits (B, 1) of real and generated images, a scalar."""
        if self.kind == "standard":
            return _called(fake, 1.0)
        return 0.5 * (_called(real - fake.mean(), 0.0) + _called(fake - real.mean(), 1.0))

    def of_discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the discriminator's loss of the logits (B, 1) of real and generated images, a scalar."""
        if self.kind == "standard":
            return 0.5 * (_called(real, 1.0) + _called(fake, 0.0))
        return 0.5 * (_called(real - fake.mean(), 1.0) + _called(fake - real.mean(), 0.0))


def _called(logits: Tensor, answer: float) -> Tensor:
    """The cross-entropy of calling all images real (1) or generated (0)."""
    return F.binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits, answer, dtype=torch.float32))
